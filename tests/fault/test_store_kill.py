"""F146: SIGKILL at every step of a real writer process; what was acknowledged is there after the next start."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from pathlib import Path

from appliance.evf import RecordKind, scan_segment
from appliance.store.check import check_store
from appliance.store.durable import FileOps
from appliance.store.recording import RecordingStore
from appliance.store.view import RecordingView
from tests.killed_at import KilledAt, how_they_ended, lives
from tests.manual_clock import ManualClock
from tests.unit.test_store_builders import FRAGMENT_90K, SID, Desk


class NeverWrites(KilledAt):
    """Negative control: claims that bytes of records are written and drops them."""

    def write(self, fd: int, data: memoryview) -> int:
        return len(data) if bytes(data[:4]) == b"CHNK" else super().write(fd, data)


def record_an_exam(root: Path, file_ops: FileOps, acknowledged: int) -> None:
    """Two tracks, a sealed and an abandoned segment, events, the end; writes each acknowledged leaf to a descriptor."""

    def tell(leaf: bytes) -> None:
        os.write(acknowledged, leaf.hex().encode() + b"\n")

    desk = Desk(root, file_ops)
    desk.begin()
    video, log = desk.segment(), desk.segment("log", "log")
    for part in (video, log):
        part.put(RecordKind.INIT, 300, 0)
        tell(part.acknowledged[-1])
    video.put(RecordKind.FRAGMENT, 5000, 0)
    tell(video.acknowledged[-1])
    log.put(RecordKind.EVENT, 60, 1000)
    tell(log.acknowledged[-1])
    desk.store.append_event(SID, {"kind": "open"})
    video.seal(FRAGMENT_90K)
    tell(video.acknowledged[-1])
    video = desk.segment()
    video.put(RecordKind.FRAGMENT, 5000, FRAGMENT_90K)
    tell(video.acknowledged[-1])
    video.file.abandon("test")
    desk.store.end_session(SID, "2026-11-22T12:00:00.000Z")
    desk.store.close()


def leave_killed_writers(folder: Path, control: bool) -> None:
    """In a process of its own: fork one writer a step until one lives to the end; prints how each ended."""
    RecordingStore(folder / "imports-everything-once", ManualClock()).close()

    def live(step: int) -> None:
        acknowledged = os.open(folder / f"{step}.acknowledged", os.O_WRONLY | os.O_CREAT)
        record_an_exam(folder / str(step), NeverWrites(0) if control else KilledAt(step), acknowledged)

    print(json.dumps(list(lives(live))))


def leave_killed_recoveries(folder: Path) -> None:
    """In a process of its own: a start of one copy of the store a step, killed there; prints how each ended."""

    def live(step: int) -> None:
        root = Path(shutil.copytree(folder / "damaged", folder / str(step)))
        RecordingStore(root, ManualClock(), KilledAt(step)).close()

    print(json.dumps(list(lives(live))))


def killed_writers(folder: Path, control: bool = False) -> list[int]:
    return how_they_ended(f"leave_killed_writers(Path({str(folder)!r}), {control})", "test_store_kill")


def on_disk(root: Path) -> set[bytes]:
    """Leaf of every whole record that stands in a file."""
    leaves: set[bytes] = set()
    for path in (root / "segments").glob("*/*.evf"):
        with path.open("rb") as stream:
            leaves.update(record.leaf for record in scan_segment(stream).records)
    return leaves


def lost(root: Path, acknowledged: list[bytes]) -> list[bytes]:
    """Acknowledged leaves that are not in the index, or whose record is in no file."""
    view = RecordingView(root)
    indexed = set(view.leaves(SID))
    view.close()
    there = on_disk(root)
    return [leaf for leaf in acknowledged if leaf not in indexed or leaf not in there]


def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    ended = killed_writers(tmp_path)
    assert ended[-1] == 0
    assert set(ended[:-1]) == {-signal.SIGKILL}
    assert len(ended) > 50, "the exam has more steps than that"
    for step in range(1, len(ended) + 1):
        root = tmp_path / str(step)
        acknowledged = [
            bytes.fromhex(line) for line in (tmp_path / f"{step}.acknowledged").read_text().split()
        ]
        store = RecordingStore(root, ManualClock())
        recovered = store.recovery
        active = store.active_session()
        store.close()

        assert lost(root, acknowledged) == [], f"step {step}"
        assert recovered.adopted_records <= 1, f"step {step}"
        assert recovered.missing == recovered.damaged == [], f"step {step}"
        assert recovered.interrupted_sessions == ([active.sid] if active else []), f"step {step}"
        view = RecordingView(root)
        records = view.leaf_count(SID) - len(view.events(SID))
        assert records - len(acknowledged) in (0, 1), f"step {step}"
        assert all(row.state in ("closed", "open_ended") for row in view.segments(SID)), f"step {step}"
        view.close()
        problems = [p for p in check_store(root) if not p.where.startswith("quarantine/")]
        assert problems == [], f"step {step}"

        again = RecordingStore(root, ManualClock())
        assert again.recovery.adopted_records == again.recovery.truncated_bytes == 0, f"step {step}"
        assert again.recovery.quarantined == [], f"step {step}"
        again.close()
        if active:
            desk = Desk(root)
            desk.begin_epoch()
            desk.segment().put(RecordKind.FRAGMENT, 900, 9 * FRAGMENT_90K)
            desk.store.end_session(SID, "2026-11-22T12:00:00.000Z")
            desk.store.close()
            assert [p for p in check_store(root) if not p.where.startswith("quarantine/")] == [], (
                f"step {step}"
            )


def test_control_a_writer_that_drops_bytes_is_noticed(tmp_path: Path) -> None:
    assert killed_writers(tmp_path, control=True) == [0]
    acknowledged = [bytes.fromhex(line) for line in (tmp_path / "1.acknowledged").read_text().split()]
    assert len(lost(tmp_path / "1", acknowledged)) == len(acknowledged) > 5


def test_recovery_killed_at_every_step_is_simply_done_again(tmp_path: Path) -> None:
    """A torn tail, a segment without a row, a damaged one and a stranger, though each start dies one step later."""
    desk = Desk(tmp_path / "damaged")
    desk.begin()
    video, log, audio = desk.segment(), desk.segment("log", "log"), desk.segment("audio")
    video.put(RecordKind.FRAGMENT, 900, 0)
    audio.put(RecordKind.FRAGMENT, 900, 0)
    whole = video.writer.record(RecordKind.FRAGMENT, b"whole", FRAGMENT_90K)
    torn = video.writer.record(RecordKind.FRAGMENT, b"torn", 2 * FRAGMENT_90K)
    event = log.writer.record(RecordKind.EVENT, b"event", 100)
    desk.store.close()
    layout = desk.store.layout
    for name, tail in (("0-video-0.evf", whole.data + torn.data[:-1]), ("0-log-0.evf", event.data)):
        with layout.segment(SID, name).open("ab") as stream:
            stream.write(tail)
    damaged = bytearray(layout.segment(SID, "0-audio-0.evf").read_bytes())
    damaged[-9] ^= 1
    layout.segment(SID, "0-audio-0.evf").write_bytes(damaged)
    layout.segment(SID, "stranger").write_bytes(b"unknown")
    connection = sqlite3.connect(layout.index_db)
    connection.execute("DELETE FROM segments WHERE track = 'log'")
    connection.commit()
    connection.close()

    ended = how_they_ended(f"leave_killed_recoveries(Path({str(tmp_path)!r}))", "test_store_kill")
    assert ended == [-signal.SIGKILL] * (len(ended) - 1) + [0]
    assert len(ended) > 20
    for step in range(1, len(ended) + 1):
        root = tmp_path / str(step)
        RecordingStore(root, ManualClock()).close()
        assert lost(root, [*video.acknowledged, whole.leaf, event.leaf]) == [], f"step {step}"
        kept = {path.read_bytes() for path in (root / "quarantine").iterdir()}
        assert {bytes(damaged), b"unknown"} <= kept, f"step {step}"
        problems = {p.where for p in check_store(root) if not p.where.startswith("quarantine/")}
        # Its acknowledged record is gone, and stays named.
        assert problems == {f"segments/{SID}/0-audio-0.evf"}, f"step {step}"
