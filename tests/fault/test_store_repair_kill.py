"""A repair killed at every step is simply asked for again; no byte of footage is gone at any time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

from appliance.evf import RecordKind
from appliance.store.recording import RecordingStore
from appliance.store.repair import repair_store
from tests.fault.test_store_kill import MOST_STEPS, KilledAt, how_they_ended
from tests.manual_clock import ManualClock
from tests.unit.test_store_builders import FRAGMENT_90K, SID, Desk
from tests.unit.test_store_check import flip

BACK, CHANGED, LONGER = (f"segments/{SID}/0-video-{number}.evf" for number in range(3))


def damaged_store(root: Path) -> None:
    """A segment that was missing and is back, one that has changed, one with bytes behind its end, a stray."""
    desk = Desk(root)
    desk.begin()
    for number in range(3):
        video = desk.segment()
        for at in (0, 1):
            video.put(RecordKind.FRAGMENT, 900, (2 * number + at) * FRAGMENT_90K)
        video.seal((2 * number + 2) * FRAGMENT_90K)
    desk.store.end_session(SID, "2026-11-22T12:00:00.000Z")
    desk.store.close()
    shutil.move(root / BACK, root / "aside")
    RecordingStore(root, ManualClock()).close()
    shutil.move(root / "aside", root / BACK)
    flip(root / CHANGED, -300)
    (root / LONGER).write_bytes((root / LONGER).read_bytes() + b"behind the end")
    (root / "segments/stray").write_bytes(b"stray")


def leave_killed_repairs(root: Path) -> None:
    """In a process of its own: kill the repair at step 1, 2, 3 … of the same store until one lives."""
    ended: list[int] = []
    kept: list[bool] = []
    before = digests(root)
    for step in range(1, MOST_STEPS):
        pid = os.fork()
        if pid == 0:
            repair_store(root, ManualClock(), KilledAt(step))
            os._exit(0)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        kept.append(before <= digests(root))
        if ended[-1] != -signal.SIGKILL:
            break
    print(json.dumps([*ended, all(kept)]))


def digests(root: Path) -> set[str]:
    """Of every file that is no database's."""
    return {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and ".db" not in path.name
    }


def test_a_repair_killed_at_every_step_ends_like_one_that_was_not(tmp_path: Path) -> None:
    damaged_store(tmp_path / "calm")
    shutil.copytree(tmp_path / "calm", tmp_path / "killed")
    calm = repair_store(tmp_path / "calm", ManualClock())
    *ended, kept = how_they_ended(
        f"leave_killed_repairs(Path({str(tmp_path / 'killed')!r}))", "test_store_repair_kill"
    )
    assert ended[-1] == 0
    assert ended.count(-signal.SIGKILL) == len(ended) - 1 >= 15
    assert kept, "every file as it was found is somewhere after each kill"
    again = repair_store(tmp_path / "killed", ManualClock())
    assert again.done == []
    lost = [problem for problem in again.left if not problem.set_aside]
    assert lost == [problem for problem in calm.left if not problem.set_aside] != []


def test_control_a_file_that_is_gone_is_noticed(tmp_path: Path) -> None:
    damaged_store(tmp_path)
    before = digests(tmp_path)
    (tmp_path / LONGER).unlink()
    assert not before <= digests(tmp_path)
