"""F146: on really full disks (tmpfs, ext4) the armed session goes on to its planned end, and its rows are written."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from appliance.camera.encoder import Fragment
from appliance.camera.process import CameraProcess
from appliance.errors import NoSpace
from appliance.store.check import check_store
from appliance.store.ledger import Ledger
from appliance.store.recording import RecordingStore
from appliance.store.space import FIXED_BYTES, required_bytes
from appliance.store.view import RecordingView
from tests.camera_recording import CODEC, INIT, Recording
from tests.manual_clock import ManualClock
from tests.unit.test_store_builders import OTHER_SID, SID, new_session
from tests.unit.test_sync_room import Bench

S = 90_000
PLANNED_S = 120
BITRATE_BPS = 1_200_000
FOOTAGE_BYTES = required_bytes(PLANNED_S, BITRATE_BPS)
DISK_MB = 64


@dataclass
class Disk:
    """A mounted file system of 64 MB and whoever fills it."""

    mount: Path

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.mount)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """To the last byte that the file system gives to anybody; the filler is not the store."""
        fd = os.open(self.mount / "somebody-elses", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with suppress(OSError):
            while free_bytes := self.free_bytes:
                os.write(fd, b"\xff" * min(free_bytes, 1 << 20))
        os.close(fd)


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    mount = tmp_path / "disk"
    mount.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(mount)]
    else:
        image = tmp_path / "image"
        with image.open("wb") as made:
            made.truncate(DISK_MB << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        command = ["mount", "-o", "loop", str(image), str(mount)]
    subprocess.run(command, check=True)
    yield Disk(mount)
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


class Armed(Recording):
    """A session armed with a reserve, or (control) without."""

    def __init__(self, root: Path, footage_bytes: int = FOOTAGE_BYTES) -> None:
        begin = RecordingStore.begin_session
        self.footage_bytes = footage_bytes
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                RecordingStore, "begin_session", lambda store, session: begin(store, session, footage_bytes)
            )
            super().__init__(root)

    def film_at_bitrate(self, start_s: int, end_s: int, disk: Disk | None = None) -> list[bool]:
        """Fragments of 2 s at the full planned bitrate; `disk` is filled again before each."""
        kept = []
        for at_s in range(start_s, end_s, 2):
            self.clock.now_mono_ns = 10**9 + (at_s + 2) * 10**9
            if disk is not None:
                disk.fill()
            fragment = Fragment("fragment", os.urandom(BITRATE_BPS // 4), at_s * S, 2 * S, True, 30)
            kept.append(self.recorder.fragment(fragment, INIT, CODEC))
        return kept

    def end(self, at_s: int) -> None:
        self.recorder.close(at_s * S)
        self.recorder.notes.settle()
        self.store.end_session(SID, "2026-11-22T12:00:00.000Z")


def gaps(root: Path) -> list[tuple[float, float, str]]:
    view = RecordingView(root)
    found = [(gap.start_90k / S, gap.end_90k / S, gap.cause) for gap in view.gaps(SID)]
    view.close()
    return found


def fragments(root: Path) -> int:
    view = RecordingView(root)
    found = view.totals(SID).fragments
    view.close()
    return found


def test_a_disk_filled_right_after_arming_takes_nothing_from_the_planned_exam(disk: Disk) -> None:
    root = disk.mount / "store"
    armed = Armed(root)
    disk.fill()
    assert disk.free_bytes < 4096
    assert all(armed.film_at_bitrate(0, PLANNED_S))
    assert armed.recorder.observation(0, {"kind": "nobody_at_desk", "phase": "opened"}, PLANNED_S * S)
    Ledger(root / "ledger.db").close()  # the other process's database can be written, even made
    armed.end(PLANNED_S)
    armed.store.close()
    assert gaps(root) == []
    assert fragments(root) == PLANNED_S // 2
    assert check_store(root) == []


def test_a_disk_filled_again_before_every_fragment_takes_nothing_either(disk: Disk) -> None:
    root = disk.mount / "store"
    armed = Armed(root)
    assert all(armed.film_at_bitrate(0, PLANNED_S, disk))
    disk.fill()
    armed.end(PLANNED_S)
    armed.store.close()
    assert gaps(root) == []
    assert check_store(root) == []


def test_control_without_a_reserve_the_full_disk_stops_the_recording(disk: Disk) -> None:
    armed = Armed(disk.mount / "store", footage_bytes=0)
    disk.fill()
    assert not any(armed.film_at_bitrate(4, 30))
    armed.store.close()


def test_beyond_the_plan_on_a_full_disk_there_is_a_named_gap_and_nothing_else_is_lost(disk: Disk) -> None:
    root = disk.mount / "store"
    armed = Armed(root)
    disk.fill()
    kept = armed.film_at_bitrate(0, 3 * PLANNED_S)
    recorded = kept.index(False)
    assert recorded >= PLANNED_S // 2
    assert not any(kept[recorded:])
    assert armed.recorder.observation(0, {"kind": "nobody_at_desk", "phase": "opened"}, 3 * PLANNED_S * S)
    armed.end(3 * PLANNED_S)
    armed.store.close()
    assert gaps(root) == [(2 * recorded, 3 * PLANNED_S, "disk full")]
    assert fragments(root) == recorded
    assert check_store(root) == []
    view = RecordingView(root)
    video = [row for row in view.segments(SID) if row.track == "video"]
    view.close()
    assert len(video) <= 2 * recorded / 30 + 3, "refused fragments leave no segments behind"
    assert all(earlier.seg < later.seg for earlier, later in pairwise(video))


def test_room_that_comes_back_ends_the_gap(disk: Disk) -> None:
    root = disk.mount / "store"
    armed = Armed(root)
    disk.fill()
    recorded = armed.film_at_bitrate(0, 3 * PLANNED_S).index(False)
    (disk.mount / "somebody-elses").unlink()
    assert all(armed.film_at_bitrate(3 * PLANNED_S, 3 * PLANNED_S + 6))
    armed.end(3 * PLANNED_S + 6)
    armed.store.close()
    assert gaps(root) == [(2 * recorded, 3 * PLANNED_S, "disk full")]


def test_a_crash_on_the_full_disk_is_recovered_and_the_session_goes_on(disk: Disk) -> None:
    root = disk.mount / "store"
    armed = Armed(root)
    disk.fill()
    assert all(armed.film_at_bitrate(0, 60))
    armed.store.close()
    disk.fill()
    armed.store = RecordingStore(root, ManualClock())
    left_bytes = required_bytes(PLANNED_S - 60, BITRATE_BPS)
    assert left_bytes < armed.store.reserve_again(left_bytes) <= left_bytes + FIXED_BYTES
    armed.begin(60 * S, "recording process restarted")
    assert all(armed.film_at_bitrate(60, PLANNED_S, disk))
    armed.end(PLANNED_S)
    armed.store.close()
    assert fragments(root) == PLANNED_S // 2
    assert gaps(root) == []
    assert check_store(root) == []


def test_arming_on_a_disk_too_small_is_refused_with_the_bytes_missing(disk: Disk) -> None:
    store = RecordingStore(disk.mount / "store", ManualClock())
    for footage_bytes in (FOOTAGE_BYTES * 100, FOOTAGE_BYTES * 5, disk.free_bytes - FIXED_BYTES + 4096):
        with pytest.raises(NoSpace, match=r"^\d+ bytes missing"):
            store.begin_session(new_session(OTHER_SID), footage_bytes)
        assert not store.layout.reserve.exists()
        assert store.active_session() is None
    store.begin_session(new_session(), FOOTAGE_BYTES)
    store.close()


def test_camera_process_begins_nothing_that_it_cannot_reserve_and_says_so(disk: Disk) -> None:
    """The sync process had room when it took the order; somebody was faster."""
    with tempfile.TemporaryDirectory(prefix="invigil-", dir="/dev/shm") as memory:
        bench = Bench(disk.mount, run_dir=Path(memory), camera="clip:/nowhere.mp4")
        start = bench.start(duration_s=24 * 3600).model_dump(mode="json")
        bench.ledger.order_start(SID, "desk-7", start)
        process = CameraProcess(bench.config, bench.clock)
        process._follow_orders()
        assert re.match(r"\d+ bytes missing: the exam needs \d+", str(process._problem))
        assert bench.view.sessions() == []
        assert not bench.view.layout.reserve.exists()
        bench.ledger.order_end(SID, {"ended_at": "2026-11-22T12:00:00.000Z"})
        process._follow_orders()
        assert process._problem is None
        process.close()
        bench.close()
