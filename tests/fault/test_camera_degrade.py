"""The real camera process goes on with a session on a disk without room for it: what it gives up, and who hears it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from appliance.clock import SystemClock, boot_id, utc_text
from appliance.store.check import check_store
from appliance.store.ladder import FAULTS, Step
from appliance.store.recording import RecordingStore
from tests.camera_node import CLIPS, Node, until
from tests.unit.test_store_builders import SID, new_session

PLANNED_S = 600
# Rows keep 8 MiB of it and 1 MiB stays free: 42 s of footage at the policy's 200 kbit/s.
LEFT_BYTES = 10 << 20


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A desk whose store stands on a file system of 32 MB."""
    mount = tmp_path / "store"
    mount.mkdir()
    with tempfile.TemporaryDirectory(prefix="invigil-", dir="/dev/shm") as memory, ExitStack() as given_back:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32M", "tmpfs", str(mount)], check=True)
        given_back.callback(subprocess.run, ["umount", "--lazy", str(mount)], check=True)
        made = Node(tmp_path, Path(memory), f"clip:{CLIPS / 'single_face.mp4'}")
        given_back.callback(made.close)
        yield made


def begun_by_an_earlier_life(node: Node) -> None:
    clock = SystemClock()
    store = RecordingStore(node.bench.store, clock)
    store.begin_session(
        new_session(started=utc_text(clock.wall()), started_mono_ns=clock.mono_ns(), boot_id=boot_id())
    )
    store.close()


def fill(node: Node) -> Path:
    found = os.statvfs(node.bench.store)
    filler = node.bench.store / "somebody-elses"
    filler.write_bytes(bytes(found.f_bavail * found.f_frsize - LEFT_BYTES))
    return filler


def previews(node: Node) -> list[object]:
    return [message for message in node.heard if message["type"] == "preview"]


def steps(node: Node) -> list[str]:
    return [event.body["step"] for event in node.view.events(SID) if event.body["kind"] == "room_on_disk"]


def test_a_session_that_goes_on_without_room_says_so_records_on_and_recovers(node: Node) -> None:
    """F146: what it gave up comes back with the room; the recording itself never stopped, and nothing was deleted."""
    node.order(duration_s=PLANNED_S)
    begun_by_an_earlier_life(node)
    filler = fill(node)
    node.start()
    until(lambda: steps(node) == ["alarm"], "the alarm")
    facts = until(
        lambda: (f := node.facts()) and FAULTS[Step.ALARM] in f["faults"] and f, "the alarm's words"
    )
    assert facts["camera_open"]
    node.link.send({"type": "watch", "mode": "live", "lease_s": 10.0})
    node.record_more(2)
    assert not previews(node)
    filler.unlink()
    until(lambda: steps(node) == ["alarm", "normal"], "the end of the alarm")
    node.link.send({"type": "watch", "mode": "live", "lease_s": 10.0})
    until(lambda: previews(node), "a preview")
    until(lambda: (f := node.facts()) and not set(FAULTS.values()) & set(f["faults"]), "no more words of it")
    node.end()
    assert [gap.cause for gap in node.gaps()] == ["recording process restarted"]
    assert node.stop() == 0
    assert check_store(node.bench.store) == []
