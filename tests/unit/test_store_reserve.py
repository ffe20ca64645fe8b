"""F146: what an armed session reserved shrinks by what it records, and goes away with it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from appliance.errors import NoSpace, StoreFailed
from appliance.evf import RecordKind
from appliance.store.durable import FileOps
from appliance.store.recording import RecordingStore
from appliance.store.reserve import FLOOR_BYTES, KEPT_FOR_ROWS_BYTES, STEP_BYTES, Reserve
from appliance.store.space import FIXED_BYTES
from tests.manual_clock import ManualClock
from tests.unit.test_store_builders import BOOT, FRAGMENT_90K, OTHER_SID, SID, Desk, new_session

MB = 1_000_000


class PlayedDisk(FileOps):
    """Counts free bytes as a disk would, for the reserve alone; nothing is really allocated."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.cuts = 0

    def allocate(self, fd: int, size_bytes: int) -> None:
        more = size_bytes - os.fstat(fd).st_size
        if more > self.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.truncate(fd, max(size_bytes, os.fstat(fd).st_size))
        self.free -= max(0, more)

    def truncate(self, fd: int, size_bytes: int) -> None:
        self.free += os.fstat(fd).st_size - size_bytes
        self.cuts += size_bytes < os.fstat(fd).st_size
        super().truncate(fd, size_bytes)

    def free_bytes(self, path: Path) -> int:
        return self.free


def test_arming_takes_the_room_and_a_refusal_names_the_bytes_missing(tmp_path: Path) -> None:
    disk = PlayedDisk(FIXED_BYTES + 50 * MB)
    store = RecordingStore(tmp_path, ManualClock(), disk)
    with pytest.raises(NoSpace, match=r"^10000000 bytes missing: the exam needs 76777216"):
        store.begin_session(new_session(), 60 * MB)
    assert store.active_session() is None
    assert not store.layout.reserve.exists()
    store.begin_session(new_session(), 50 * MB)
    assert store.layout.reserve.stat().st_size > 49 * MB
    store.close()


def test_the_reserve_goes_with_the_session(tmp_path: Path) -> None:
    store = RecordingStore(tmp_path, ManualClock(), PlayedDisk(200 * MB))
    store.begin_session(new_session(), 50 * MB)
    assert store.layout.reserve.stat().st_size == FIXED_BYTES + 50 * MB
    with pytest.raises(StoreFailed, match="still recording"):
        store.begin_session(new_session(OTHER_SID), MB)
    assert store.layout.reserve.stat().st_size == FIXED_BYTES + 50 * MB
    store.end_session(SID, "2026-11-22T12:00:00.000Z")
    assert not store.layout.reserve.exists()
    with pytest.raises(StoreFailed):
        store.begin_session(new_session(), MB)  # known already
    assert not store.layout.reserve.exists()
    store.close()


def test_a_start_without_an_active_session_gives_the_room_back(tmp_path: Path) -> None:
    """A crash between reserving and the session's row."""
    store = RecordingStore(tmp_path, ManualClock())
    store.close()
    store.layout.reserve.write_bytes(b"\0" * 70_000)
    RecordingStore(tmp_path, ManualClock()).close()
    assert not store.layout.reserve.exists()


def test_a_start_within_a_session_keeps_it_and_makes_it_anew_as_far_as_the_disk_allows(
    tmp_path: Path,
) -> None:
    disk = PlayedDisk(200 * MB)
    store = RecordingStore(tmp_path, ManualClock(), disk)
    store.begin_session(new_session(), 50 * MB)
    store.close()
    store = RecordingStore(tmp_path, ManualClock(), disk)
    assert store.layout.reserve.stat().st_size == FIXED_BYTES + 50 * MB
    assert store.reserve_again(20 * MB) == FIXED_BYTES + 20 * MB
    disk.free = 8 * MB
    assert store.reserve_again(90 * MB) == FIXED_BYTES + 28 * MB - FLOOR_BYTES
    assert disk.free == FLOOR_BYTES
    assert store.reserve_again(90 * MB) == FIXED_BYTES + 28 * MB - FLOOR_BYTES
    store.close()


def test_records_are_given_back_in_steps(tmp_path: Path) -> None:
    disk = PlayedDisk(500 * MB)
    desk = Desk(tmp_path, disk)
    desk.store.begin_session(new_session(), 50 * MB)
    desk.begin_epoch()
    video = desk.segment()
    for number in range(40):
        video.put(RecordKind.FRAGMENT, 500_000, number * FRAGMENT_90K)
    held_bytes = desk.store.layout.reserve.stat().st_size
    assert FIXED_BYTES + 30 * MB - STEP_BYTES < held_bytes < FIXED_BYTES + 30 * MB
    assert 4 <= disk.cuts <= 6
    desk.store.close()


@pytest.fixture
def full(tmp_path: Path) -> tuple[Reserve, PlayedDisk]:
    """Ten megabytes of footage and its quarter more, on a disk that somebody filled."""
    disk = PlayedDisk(10**9)
    reserve = Reserve(tmp_path / "reserve", disk)
    reserve.hold(12_500_000)
    disk.free = 0
    return reserve, disk


def test_on_a_full_disk_each_write_finds_its_room_and_little_more(full: tuple[Reserve, PlayedDisk]) -> None:
    reserve, disk = full
    for _ in range(20):
        reserve.make_room(500_000, footage=True)
        assert 500_000 < disk.free < 500_000 + FLOOR_BYTES + 70_000
        disk.free -= 500_000
    assert reserve.held_bytes >= FIXED_BYTES - FLOOR_BYTES - 2 * 70_000


def test_who_takes_every_free_byte_between_writes_does_not_stop_the_plan(
    full: tuple[Reserve, PlayedDisk],
) -> None:
    reserve, disk = full
    for _ in range(20):
        reserve.make_room(500_000, footage=True)
        assert disk.free > 500_000
        disk.free = 0


def test_footage_beyond_the_plan_leaves_room_for_rows(full: tuple[Reserve, PlayedDisk]) -> None:
    reserve, disk = full

    def record_on_and_on() -> None:
        for _ in range(100):
            reserve.make_room(500_000, footage=True)
            disk.free -= 500_000

    with pytest.raises(NoSpace, match="reserved room is used up"):
        record_on_and_on()
    assert reserve.held_bytes >= KEPT_FOR_ROWS_BYTES - 70_000
    with pytest.raises(NoSpace):  # a new segment's few bytes would fit, its first fragment would not
        reserve.make_room(400, footage=True)
    reserve.make_room(400)
    disk.free = 0
    reserve.make_room()
    assert disk.free >= FLOOR_BYTES
    disk.free = 100 * MB
    reserve.make_room(400, footage=True)
    reserve.make_room(500_000, footage=True)


def test_control_without_a_reserve_nothing_is_given(tmp_path: Path) -> None:
    disk = PlayedDisk(0)
    Reserve(tmp_path / "reserve", disk).make_room(500_000, footage=True)
    assert disk.free == 0


def test_sessions_without_a_reserve_record_as_before(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    assert not desk.store.layout.reserve.exists()
    assert desk.store.begin_epoch(SID, BOOT) == 1
    desk.store.close()
