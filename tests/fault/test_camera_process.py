"""The whole camera process with a stand-in for sync and inference: orders, kills, locks, slow and broken peers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.clock import SystemClock, parse_utc, utc_text
from appliance.local_link import LocalClient, Message
from appliance.store.check import check_store
from appliance.store.recording import RecordingStore
from appliance.store.rows import GapRow, SessionRow
from appliance.store.view import RecordingView
from tests.unit.test_store_builders import SID, new_session
from tests.unit.test_sync_room import DESK, Bench

pytestmark = pytest.mark.slow
CLIPS = Path(__file__).resolve().parents[2] / "build" / "clips"

S = 90_000
VIDEO = {"width_px": 320, "height_px": 240, "frame_rate_hz": 15, "bitrate_bps": 200_000}
OTHER_BOOT = "c" * 32
RUN = """
import sys
from pathlib import Path
from appliance.camera.process import run
from appliance.config import NodeConfig, load_config
from appliance.service import run_service
{before}
config = load_config(Path(sys.argv[1]), NodeConfig)
raise SystemExit(run_service("camera", lambda stop: run(config, stop)))
"""
# The hardware's edge: a device whose driver, once the file `hang` is there, neither delivers nor lets go.
HANGING_DEVICE = """
import threading, time
import numpy as np
import appliance.camera.v4l2
from appliance.camera.device import DeviceCamera
from appliance.camera.source import Frame
HANG = Path(sys.argv[2])
class Device(DeviceCamera):
    def __init__(self, device, width_px, height_px, frame_rate_hz, clock):
        super().__init__(f"camera {device}", frame_rate_hz, clock)
        self._image = np.full((height_px, width_px, 3), 90, np.uint8)
    def _start(self): pass
    def _stop(self): pass
    def _grab(self):
        time.sleep(1 / 15)
        if HANG.exists():
            threading.Event().wait()
        return self._clock.mono_ns(), Frame.from_bgr(self._image, 0, 1).picture
appliance.camera.v4l2.V4l2Camera = Device
"""


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, f"never saw: {what}"
        time.sleep(0.03)
    return found


class Node:
    """A desk: its camera process as a child; this process is the ledger's writer and the link's other end."""

    def __init__(self, folder: Path, run_dir: Path, camera: str) -> None:
        self.bench = Bench(folder, run_dir=run_dir, camera=camera)
        toml = folder / "node" / "node.toml"
        toml.write_text("light_pin = 17\n" + toml.read_text())
        self.folder, self.toml, self.socket = folder, toml, run_dir / "camera.sock"
        self.ring = run_dir / "frames"
        self.view = RecordingView(self.bench.store)
        self.heard: list[Message] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.link = LocalClient(self.socket, self.heard.append, retry_s=0.05)
        self.before = ""
        self.log = (folder / "camera.log").open("wb")

    def start(self) -> None:
        self.heard.clear()
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN.format(before=self.before), str(self.toml), str(self.folder / "hang")],
            env={**os.environ, "GPIOZERO_PIN_FACTORY": "mock"},
            stderr=self.log,
        )

    def stop(self, how: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(60)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.link.close()
        self.view.close()
        self.log.close()
        with suppress(AttributeError):
            self.bench.close()

    def order(self, **policy: Any) -> None:
        start = self.bench.start(**({"video": VIDEO, "preview": True} | policy))
        self.bench.ledger.order_start(SID, DESK, start.model_dump(mode="json"))
        self.link.send({"type": "wake"})

    def order_end(self, ended_at: str | None = None) -> None:
        at = ended_at or utc_text(SystemClock().wall())
        self.bench.ledger.order_end(SID, {"kind": "end", "sid": SID, "ended_at": at})
        self.link.send({"type": "wake"})

    def facts(self) -> Message | None:
        return next((message for message in reversed(self.heard) if message["type"] == "facts"), None)

    def observations(self, since: int = 0) -> list[Message]:
        return [message for message in self.heard[since:] if message["type"] == "observation"]

    @property
    def row(self) -> SessionRow | None:
        return self.view.session(SID)

    @property
    def covered_s(self) -> float:
        newest = self.view.newest_fragment(SID)
        return 0.0 if newest is None else newest.time_90k_end / S

    def records(self, seconds: float) -> None:
        until(lambda: self.covered_s >= seconds, f"{seconds:.1f} s durable", seconds + 60)

    def record_more(self, seconds: float) -> None:
        """So much from now on, whatever lies between."""
        row = self.row
        assert row is not None
        now_s = (SystemClock().wall() - parse_utc(row.started)).total_seconds()
        self.records(now_s + seconds)

    def end(self) -> SessionRow:
        self.order_end()
        return self.ended()

    def ended(self) -> SessionRow:
        until(lambda: self.row is not None and self.row.ended, "the end")
        row = self.row
        assert row is not None
        return row

    def gaps(self) -> list[GapRow]:
        return self.view.gaps(SID)

    def segment_states(self) -> list[str]:
        return [segment.state for segment in self.view.segments(SID)]

    def latencies_s(self) -> list[float]:
        """From the last frame of each fragment to its durable row."""
        row = self.row
        assert row is not None
        with closing(sqlite3.connect(f"file:{self.view.layout.index_db}?mode=ro", uri=True)) as rows:
            found = rows.execute("SELECT end_90k, durable_mono_ns FROM records WHERE kind = 2").fetchall()
        return [(durable - row.started_mono_ns) / 1e9 - end_90k / S for end_90k, durable in found]

    def fake_reboot(self) -> None:
        """The life that was killed was one of an earlier boot: the index says so, as it would."""
        with closing(sqlite3.connect(self.view.layout.index_db)) as rows:
            for table in ("sessions", "epochs"):
                rows.execute(f"UPDATE {table} SET boot_id = ?, started_mono_ns = 10", (OTHER_BOOT,))
            rows.commit()


@pytest.fixture
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    run_dir = Path(tempfile.mkdtemp(prefix="invigil-", dir="/dev/shm"))
    made = Node(tmp_path, run_dir, getattr(request, "param", f"clip:{CLIPS / 'single_face.mp4'}"))
    yield made
    made.close()
    shutil.rmtree(run_dir)


def report(phase: str = "opened", start_90k: int = 0, end_90k: int | None = None) -> Message:
    return {
        "kind": "nobody_at_desk", "words": "nobody at the desk", "phase": phase, "start_90k": start_90k,
        "end_90k": end_90k, "duration_s": 1.0, "level": "red", "rule": "longer than 10 s", "measured": {},
    }  # fmt: skip


# --- orders


def test_a_session_begins_and_ends_with_the_ledger_alone(node: Node) -> None:
    node.start()
    facts = until(node.facts, "facts")
    assert (facts["camera_problem"], facts["camera_open"], facts["light_on"]) == (None, False, False)
    assert node.link.send({"type": "session", "sid": SID, "face": True})  # no order of anybody's on this link
    time.sleep(0.6)
    assert node.row is None
    node.order(face=True)
    node.records(4)
    facts = until(lambda: (f := node.facts()) and f["camera_open"] and f, "camera open")
    assert facts["light_on"]
    assert facts["faults"] == ["face and gaze are not being assessed"]
    assert node.ring.exists()
    said = [message for message in node.heard if message["type"] == "session" and message["sid"]]
    assert (said[0]["sid"], said[0]["face"], said[0]["gaze"]) == (SID, True, False)
    node.end()
    assert node.gaps() == []
    assert set(node.segment_states()) == {"closed"}
    assert not node.ring.exists(), "pictures outlived the session"
    facts = until(lambda: (f := node.facts()) and not f["light_on"] and f, "light out")
    assert facts["camera_open"] is False
    assert node.stop() == 0
    assert check_store(node.bench.store) == []


def test_f042_no_picture_leaves_the_process_where_no_model_may_look(node: Node) -> None:
    node.start()
    node.order(face=False, preview=False)
    node.link.send({"type": "watch", "mode": "live", "lease_s": 10})
    node.records(2)
    assert not node.ring.exists()
    node.link.send({"type": "watch", "mode": "live", "lease_s": 10})
    time.sleep(0.5)
    assert not any(message["type"] == "preview" for message in node.heard)
    node.end()


def test_an_order_under_a_foreign_policy_is_told_and_not_obeyed(node: Node) -> None:
    node.start()
    until(node.facts, "facts")
    start = node.bench.start().model_dump(mode="json")
    start["policy"]["body"]["exam_title"] = "another"
    node.bench.ledger.order_start(SID, DESK, start)
    node.link.send({"type": "wake"})
    until(lambda: any("policy" in fault for fault in node.facts()["faults"]), "the fault")
    assert node.row is None
    assert node.process is not None
    assert node.process.poll() is None


def test_facts_and_previews_come_as_often_as_they_should(node: Node) -> None:
    node.start()
    node.order()
    node.records(2)
    other: list[Message] = []
    inference = LocalClient(node.socket, other.append)
    until(lambda: inference.connected, "second peer")
    node.heard.clear()
    node.link.send({"type": "watch", "mode": "still", "lease_s": 2})
    time.sleep(5)
    kinds = [message["type"] for message in node.heard]
    assert 4 <= kinds.count("facts") <= 6
    assert 2 <= kinds.count("preview") <= 3
    assert not any(message["type"] == "preview" for message in other), "a picture for who did not ask"
    inference.close()


# --- ends of a life


def test_sigkill_then_a_restart_goes_on_with_a_named_gap(node: Node) -> None:
    """F146: at most the open fragment is lost."""
    node.start()
    node.order()
    node.records(4)
    node.stop(signal.SIGKILL)
    covered_s = node.covered_s
    node.start()
    node.records(covered_s + 4)
    node.end()
    [gap] = node.gaps()
    assert gap.cause == "recording process restarted"
    assert gap.start_90k / S == covered_s
    resumed = [segment for segment in node.view.segments(SID) if segment.epoch == 1]
    assert gap.end_90k == resumed[0].start_90k
    assert node.segment_states().count("open_ended") == 1
    node.stop()
    assert check_store(node.bench.store) == []


def test_sigkill_and_a_reboot(node: Node) -> None:
    node.start()
    node.order()
    node.records(2)
    node.stop(signal.SIGKILL)
    node.fake_reboot()
    time.sleep(2)
    node.start()
    node.record_more(4)
    ended = node.end()
    assert ended.ended is not None
    [gap] = node.gaps()
    assert gap.cause == "node restarted"
    assert gap.end_90k - gap.start_90k > 2 * S
    length_s = (parse_utc(ended.ended) - parse_utc(ended.started)).total_seconds()
    assert abs(node.covered_s - length_s) < 1.0


def test_the_end_was_ordered_while_the_node_was_dead(node: Node) -> None:
    node.start()
    node.order()
    node.records(2)
    node.stop(signal.SIGKILL)
    covered_s, row = node.covered_s, node.row
    assert row is not None
    node.fake_reboot()
    ended_at = utc_text(parse_utc(row.started) + timedelta(seconds=covered_s + 90))
    node.order_end(ended_at)
    node.start()
    assert node.ended().ended == ended_at
    [gap] = node.gaps()
    assert (gap.start_90k / S, gap.cause) == (covered_s, "node restarted")
    assert gap.end_90k == pytest.approx((covered_s + 90) * S, abs=100)
    assert node.covered_s == covered_s, "filmed after the end"


def test_a_session_that_ended_before_it_could_begin_is_kept_and_films_nothing(node: Node) -> None:
    """Start and end lay in the ledger before this process woke: a row and a leaf, so that it can be certified."""
    node.order()
    node.order_end()
    node.start()
    ended = node.ended()
    assert ended.ended == ended.started
    assert [event.body["kind"] for event in node.view.events(SID)] == ["session_close"]
    assert node.view.events(SID)[0].body["cause"] == "ended before recording began"
    until(lambda: sum(message["type"] == "facts" for message in node.heard) >= 3, "three seconds of facts")
    assert not any(message["light_on"] for message in node.heard if message["type"] == "facts")
    assert (node.segment_states(), node.gaps(), node.ring.exists()) == ([], [], False)
    assert node.stop() == 0
    assert check_store(node.bench.store) == []


def test_a_session_killed_between_its_row_and_its_first_leaf_has_a_leaf_in_the_end(node: Node) -> None:
    with closing(RecordingStore(node.bench.store, SystemClock())) as store:
        store.begin_session(new_session())
    node.order()
    node.order_end()
    node.start()
    node.ended()
    assert [event.body["kind"] for event in node.view.events(SID)] == ["session_close"]


def test_sigterm_seals_and_the_next_start_goes_on(node: Node) -> None:
    node.start()
    node.order()
    node.records(3)
    assert node.stop(signal.SIGTERM) == 0
    assert set(node.segment_states()) == {"closed"}
    assert node.row is not None
    assert node.row.ended is None
    stopped_s = node.covered_s
    node.start()
    node.records(stopped_s + 3)
    node.end()
    [gap] = node.gaps()
    assert gap.cause == "recording process restarted"
    assert (gap.start_90k / S, set(node.segment_states())) == (stopped_s, {"closed"})
    kinds = [event.body["kind"] for event in node.view.events(SID)]
    assert kinds == ["epoch_open", "epoch_close"] * 2


@pytest.mark.parametrize("node", ["v4l2:/dev/video0"], indirect=True)
def test_a_driver_that_hangs_ends_the_process_and_the_next_one_goes_on(node: Node) -> None:
    node.before = HANGING_DEVICE
    node.start()
    node.order()
    node.records(4)
    (node.folder / "hang").touch()
    assert node.process is not None
    assert node.process.wait(20) == 9
    covered_s = node.covered_s
    (node.folder / "hang").unlink()
    node.start()
    node.record_more(2)
    node.end()
    gaps = node.gaps()
    assert gaps[0].cause == "camera lost: camera /dev/video0 does not close"
    assert [gap.cause for gap in gaps[1:]] == ["recording process restarted"]
    assert gaps[0].start_90k / S == covered_s
    assert gaps[0].end_90k == gaps[1].start_90k


# --- what others do


def test_orders_are_followed_once_a_locked_ledger_can_be_read(node: Node) -> None:
    node.order()
    node.bench.close()
    with closing(sqlite3.connect(node.view.layout.ledger_db, isolation_level=None)) as lock:
        lock.execute("PRAGMA locking_mode = EXCLUSIVE")
        lock.execute("BEGIN EXCLUSIVE")
        node.start()
        until(lambda: (f := node.facts()) and any("ledger.db" in fault for fault in f["faults"]), "fault", 25)
        assert node.row is None
    node.records(2)
    node.bench.open_ledger()
    node.end()
    assert node.gaps() == []


def test_a_lock_on_the_index_delays_fragments_and_loses_none(node: Node) -> None:
    node.start()
    node.order()
    node.records(2)
    with closing(sqlite3.connect(node.view.layout.index_db, isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        time.sleep(3.5)
        lock.execute("ROLLBACK")
    node.records(8)
    node.end()
    assert node.gaps() == []
    assert set(node.segment_states()) == {"closed"}
    assert max(node.latencies_s()) > 1.0, "the lock was not felt: this test shows nothing"


def test_two_lives_of_the_model_process_and_a_sync_process_that_forgot(node: Node) -> None:
    node.start()
    node.order(face=True)
    node.records(2)
    for life in range(2):
        inference = LocalClient(node.socket, lambda _message: None)
        until(lambda inference=inference: inference.connected, "inference")
        assert inference.send({"type": "inference", "rate_hz": 5.0})
        assert inference.send({"type": "observation", "key": 0, "report": report(start_90k=life)})
        until(lambda life=life: len(node.observations()) == 2 * life + 1, "opened")
        until(lambda: node.facts()["inference_rate_hz"] == 5.0, "rate")
        inference.close()
        until(lambda life=life: len(node.observations()) == 2 * life + 2, "closed")
        until(lambda: node.facts()["inference_rate_hz"] is None, "no rate")
    phases = [(each["number"], each["report"]["phase"]) for each in node.observations()]
    assert phases == [(0, "opened"), (0, "closed"), (1, "opened"), (1, "closed")]
    ended = node.observations()[1]["report"]
    assert ended["uncertainty"] == "assessment ended before it did"
    assert ended["end_90k"] > 2 * S
    newest = [each for each in node.observations() if each["report"]["phase"] == "closed"]

    again: list[Message] = []
    sync = LocalClient(node.socket, again.append)
    until(lambda: len(again) >= 3, "replay on connecting")
    assert [each for each in again if each["type"] == "observation"] == newest
    since = len(again)
    sync.send({"type": "replay"})
    until(lambda: len([e for e in again[since:] if e["type"] == "observation"]) == 2, "replay when asked")
    sync.close()
    node.end()
    since = len(node.heard)
    node.link.send({"type": "replay"})
    until(lambda: node.observations(since) == newest, "replay after the end")
    kinds = [event.body["kind"] for event in node.view.events(SID)]
    assert kinds.count("assessment_began") == kinds.count("assessment_stopped") == 2
    node.stop()
    assert check_store(node.bench.store) == []


def test_peers_that_flood_or_send_garbage_cost_no_frame(node: Node) -> None:
    node.start()
    node.order(face=True)
    node.records(2)
    flooding = threading.Event()

    def flood(line: bytes) -> None:
        while not flooding.is_set():
            with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(0.5)
                connection.connect(str(node.socket))
                while not flooding.is_set():
                    connection.sendall(line * 50)

    observation = json.dumps({"type": "observation", "key": 3, "report": report("closed", 0, 1)}).encode()
    ahead = json.dumps({"type": "observation", "key": 4, "report": report("closed", 2**70, 2**71)}).encode()
    lines = [observation + b"\n", ahead + b"\n", b"\xff\xfe garbage\n", b'{"type":"replay"}\n', b"x" * 70_000]
    threads = [threading.Thread(target=flood, args=(line,)) for line in lines]
    for thread in threads:
        thread.start()
    try:
        node.record_more(6)
        node.end()
    finally:
        flooding.set()
        for thread in threads:
            thread.join()
    assert node.gaps() == []
    assert max(node.latencies_s()) < 1.0
    recorded = sum(segment.records for segment in node.view.segments(SID) if segment.track == "log")
    assert 0 < recorded < 150
    assert node.stop() == 0
    assert check_store(node.bench.store) == []


def test_recording_does_not_wait_for_a_peer_that_stands_still(node: Node) -> None:
    with socket.socket(socket.AF_UNIX) as stopped:
        node.start()
        until(node.facts, "facts")
        stopped.connect(str(node.socket))
        node.order()
        until(lambda: node.row is not None, "session")
        for _ in range(8):
            # It wants live pictures and everything again, and reads nothing.
            stopped.sendall(b'{"type":"watch","mode":"live","lease_s":10}\n{"type":"replay"}\n')
            time.sleep(1)
        node.end()
    latencies = sorted(node.latencies_s())
    print(f"append latency with a stopped peer: median {latencies[len(latencies) // 2] * 1e3:.0f} ms,")
    print(f"longest {latencies[-1] * 1e3:.0f} ms, of {len(latencies)} fragments")
    assert latencies[-1] < 0.5
    assert node.gaps() == []
