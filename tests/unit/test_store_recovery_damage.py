"""A start on a disk with a bad sector, without room, or with a torn record that looks whole: the camera records on."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import StoreFailed
from appliance.evf import Outcome, RecordKind, SealedRecord
from appliance.evf.format import PRE_BYTES, TAG_BYTES
from appliance.evf.sframe import encode_header
from appliance.store.check import check_store
from appliance.store.durable import OPERATING_SYSTEM, FileOps
from appliance.store.recording import RecordingStore
from appliance.store.recovery import RecoveryReport
from appliance.store.repair import repair_store
from appliance.store.rows import GapRow
from appliance.store.salvage import salvage_store
from appliance.store.view import RecordingView
from tests.manual_clock import ManualClock
from tests.troubled_disk import TroubledDisk
from tests.unit.test_store_builders import FRAGMENT_90K, SID, Desk, Growing
from tests.unit.test_store_reserve import MB, PlayedDisk

FRAGMENT = RecordKind.FRAGMENT
NAME = "0-video-0.evf"
WHERE = f"segments/{SID}/{NAME}"
WRAP = f"wraps/{SID}.0.log.evk"
PAGE = 4096


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "store")
    desk.begin()
    yield desk
    desk.store.close()


def path_of(desk: Desk) -> Path:
    return desk.store.layout.segment(SID, NAME)


def bytes_in(path: Path) -> bytes:
    """Past any bad sector that a test made."""
    with io.FileIO(path) as stream:
        return stream.readall()


def quarantined(desk: Desk) -> list[bytes]:
    return [bytes_in(path) for path in sorted(desk.store.layout.quarantine.iterdir())]


def sealed(growing: Growing, size_bytes: int, time_90k: int) -> SealedRecord:
    return growing.writer.record(FRAGMENT, b"\x5a" * size_bytes, time_90k)


def leave(desk: Desk, data: bytes) -> None:
    """Bytes that a dead process had appended without a row."""
    with path_of(desk).open("ab") as stream:
        stream.write(data)


def started(desk: Desk, disk: FileOps = OPERATING_SYSTEM) -> RecoveryReport:
    desk.store.close()
    desk.store = RecordingStore(desk.root, ManualClock(), disk)
    return desk.store.recovery


def expect_nothing_more(desk: Desk, disk: FileOps = OPERATING_SYSTEM) -> None:
    """Another start has nothing left to do, and the session goes on."""
    before = quarantined(desk)
    assert started(desk, disk) == RecoveryReport(interrupted_sessions=[SID])
    assert quarantined(desk) == before
    desk.begin_epoch()
    desk.segment().put(FRAGMENT, 900, 9 * FRAGMENT_90K)


def seen(desk: Desk) -> tuple[str, int, list[GapRow], list[int]]:
    """State and records of the first segment, gaps, lost leaves."""
    view = RecordingView(desk.root)
    row = view.segments(SID)[0]
    found = row.state, row.records, view.gaps(SID), [leaf.leaf_index for leaf in view.lost(SID)]
    view.close()
    return found


# --- a sector that the medium does not give --------------------------------------------------------------------------


class BadSector(io.FileIO):
    """Reads as the kernel does: up to the page with the bad sector, there EIO."""

    def __init__(self, path: Path, start: int) -> None:
        super().__init__(path, "rb")
        self._start = start

    def readinto(self, buffer: Any) -> int:
        place, at = memoryview(buffer).cast("B"), self.tell()
        if self._start <= at < self._start + PAGE:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().readinto(place[: self._start - at] if at < self._start else place)

    def read(self, size: int = -1) -> bytes:
        place = bytearray(size)
        return bytes(place[: self.readinto(place)])


class Medium:
    """Files, by inode, of which a page cannot be read, whatever they are called."""

    def __init__(self) -> None:
        self._bad: dict[int, int] = {}

    def spoil(self, path: Path, at: int) -> int:
        """Where the page begins."""
        self._bad[path.stat().st_ino] = at // PAGE * PAGE
        return self._bad[path.stat().st_ino]

    def open(self, path: Path, buffering: int) -> Any:
        raw = BadSector(path, self._bad[path.stat().st_ino])
        return raw if buffering == 0 else io.BufferedReader(raw)

    def holds(self, path: Path) -> bool:
        return path.exists() and path.stat().st_ino in self._bad

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        start = self._bad.get(os.fstat(fd).st_ino)
        if start is not None and offset < start + PAGE and start < offset + length:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return os.pread(fd, length, offset)


@pytest.fixture
def medium(monkeypatch: pytest.MonkeyPatch) -> Medium:
    medium, as_ever = Medium(), Path.open

    def opened(path: Path, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
        if mode == "rb" and medium.holds(path):
            return medium.open(path, buffering)
        return as_ever(path, mode, buffering, *more, **named)

    monkeypatch.setattr(Path, "open", opened)
    return medium


def test_a_bad_sector_costs_the_records_from_it_on_and_the_camera_records_on(
    desk: Desk, medium: Medium, tmp_path: Path
) -> None:
    video = desk.segment()
    for number in range(5):
        video.put(FRAGMENT, 20_000, number * FRAGMENT_90K)
    data = path_of(desk).read_bytes()
    medium.spoil(path_of(desk), 50_000)  # in the third record
    report = started(desk)
    assert report.damaged == report.quarantined == [WHERE]
    state, records, (gap,), lost = seen(desk)
    assert (state, records, lost) == ("open_ended", 2, [2, 3, 4])
    assert (gap.start_90k, gap.end_90k) == (2 * FRAGMENT_90K, 5 * FRAGMENT_90K)
    assert gap.cause.startswith(f"{NAME}: bytes from ")
    assert gap.cause.endswith(" on cannot be read")
    assert desk.outcome(NAME) == (Outcome.OPEN_ENDED, 2)
    assert quarantined(desk) == [data]
    expect_nothing_more(desk)
    with (desk.root / "quarantine" / WHERE.replace("/", "_")).open("rb") as stream:
        assert len(stream.read(49_000)) == 49_000
        with pytest.raises(
            OSError, match="Input/output"
        ):  # control: the same file, its sector as bad as before
            stream.read(49_000)
    desk.store.close()
    (session,) = salvage_store(desk.root, tmp_path / "out", ManualClock(), medium.pread).sessions
    whole = next(found for found in session.segments if found.name == NAME)
    assert (whole.records, len(whole.behind)) == (2, 2), "a salvage reads the rest round the sector"


def test_a_finished_segment_with_a_bad_sector_is_named_and_keeps_its_beginning(
    desk: Desk, medium: Medium
) -> None:
    """`store check` goes on to everything else; `--repair` ends it before the sector, and names the rest as a gap."""
    video = desk.segment()
    for number in range(5):
        video.put(FRAGMENT, 20_000, number * FRAGMENT_90K)
    video.seal(5 * FRAGMENT_90K)
    other = desk.store.layout.wrap(f"{SID}.0.log.evk")
    other.write_bytes(b"another")
    medium.spoil(path_of(desk), 50_000)
    desk.store.close()
    said = {problem.where: problem.what for problem in check_store(desk.root)}
    assert said[WHERE] == "cannot be read: input/output error"
    assert f"wraps/{other.name}" in said
    repair_store(desk.root, ManualClock())
    assert seen(desk)[:2] == ("open_ended", 2)
    left = [problem.what for problem in check_store(desk.root) if problem.where == WHERE]
    assert left == ["holds 2 whole records where the rows say 6"]


def test_a_bad_sector_in_the_header_sets_the_file_aside(desk: Desk, medium: Medium) -> None:
    desk.segment().put(FRAGMENT, 20_000, 0)
    data = path_of(desk).read_bytes()
    medium.spoil(path_of(desk), 0)
    report = started(desk)
    assert report.damaged == report.missing == report.quarantined == [WHERE]
    cause = f"segment file {NAME} is missing"
    assert seen(desk) == ("missing", 0, [GapRow(0, FRAGMENT_90K, cause)], [0])
    assert quarantined(desk) == [data]
    assert f"{NAME}: cannot be read: input/output error" in "".join(p.what for p in check_store(desk.root))
    expect_nothing_more(desk)


def test_a_record_without_row_that_cannot_be_read_is_kept_not_cut(desk: Desk, medium: Medium) -> None:
    video = desk.segment()
    video.put(FRAGMENT, 900, 0)
    leave(desk, sealed(video, 20_000, FRAGMENT_90K).data)
    data = path_of(desk).read_bytes()
    medium.spoil(path_of(desk), 12_000)
    report = started(desk)
    assert (report.truncated_bytes, report.adopted_records, report.damaged) == (0, 0, [WHERE])
    assert seen(desk) == ("open_ended", 1, [], [])
    assert quarantined(desk) == [data]
    assert [problem for problem in check_store(desk.root) if not problem.set_aside] == []
    expect_nothing_more(desk)


@pytest.mark.parametrize("stranger", [f"segments/{SID}/0-video-7.evf", WRAP])
def test_a_file_without_row_that_cannot_be_read_goes_to_quarantine(
    desk: Desk, medium: Medium, stranger: str
) -> None:
    path = desk.root / stranger
    path.write_bytes(b"a stranger's" * 1000)
    medium.spoil(path, 0)
    assert started(desk).quarantined == [stranger]
    assert quarantined(desk) == [b"a stranger's" * 1000]
    assert "no row, and cannot be read: input/output error" in "".join(p.what for p in check_store(desk.root))
    expect_nothing_more(desk)


def test_control_a_disk_that_refuses_a_sync_still_stops_the_start(desk: Desk) -> None:
    leave(desk, sealed(desk.segment(), 900, 0).data)
    disk = TroubledDisk()
    disk.refuse("fdatasync")
    desk.store.close()
    with pytest.raises(StoreFailed):
        RecordingStore(desk.root, ManualClock(), disk)


# --- a full disk ------------------------------------------------------------------------------------------------------


class FullDisk(PlayedDisk):
    """Also takes room for what is written, and gives half a write when there is too little."""

    claimed = 0  # free bytes that it says it has, and has not

    def write(self, fd: int, data: memoryview) -> int:
        if len(data) > self.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.free -= len(data)
        return super().write(fd, data)

    def free_bytes(self, path: Path) -> int:
        return self.free + self.claimed


def damaged(root: Path, disk: FullDisk, footage_bytes: int) -> tuple[Desk, bytes]:
    """Three megabytes acknowledged, the last fragment changed, and then somebody filled the disk."""
    desk = Desk(root, disk)
    if footage_bytes:
        desk.store._reserve.hold(footage_bytes)
    desk.begin()
    video = desk.segment()
    for number in range(3):
        video.put(FRAGMENT, MB, number * FRAGMENT_90K)
    data = bytearray(path_of(desk).read_bytes())
    data[-9] ^= 1
    path_of(desk).write_bytes(data)
    disk.free = 0
    return desk, bytes(data)


LOST_THIRD = (
    "open_ended",
    2,
    [(2 * FRAGMENT_90K, 3 * FRAGMENT_90K)],
    [2],
)


def spans(desk: Desk) -> tuple[str, int, list[tuple[int, int]], list[int]]:
    state, records, gaps, lost = seen(desk)
    return state, records, [(gap.start_90k, gap.end_90k) for gap in gaps], lost


def test_on_a_full_disk_a_damaged_segment_is_settled_in_room_from_the_reserve(tmp_path: Path) -> None:
    disk = FullDisk(200 * MB)
    desk, data = damaged(tmp_path, disk, 100 * MB)
    assert started(desk, disk).damaged == [WHERE]
    assert spans(desk) == LOST_THIRD
    assert quarantined(desk) == [data]
    assert desk.outcome(NAME) == (Outcome.OPEN_ENDED, 2)
    assert desk.store.layout.reserve.stat().st_size > 90 * MB
    expect_nothing_more(desk, disk)
    desk.store.close()


@pytest.mark.parametrize(
    ("free", "claimed"),
    [(2_500_000, 0), (0, 100 * MB)],
    ids=["seen beforehand, the beginning would leave nothing for rows", "seen while writing"],
)
def test_without_room_it_stays_as_it_is_until_a_start_has_room(
    tmp_path: Path, free: int, claimed: int
) -> None:
    disk = FullDisk(200 * MB)
    desk, data = damaged(tmp_path, disk, 0)
    disk.free, disk.claimed = free, claimed
    assert started(desk, disk).damaged == [WHERE]
    for _ in range(2):
        assert spans(desk) == LOST_THIRD
        assert bytes_in(path_of(desk)) == data
        assert sorted(path.name for path in path_of(desk).parent.iterdir()) == [NAME]
        started(desk, disk)
    disk.free, disk.claimed = 100 * MB, 0
    started(desk, disk)
    assert spans(desk) == LOST_THIRD
    assert quarantined(desk) == [data]
    assert desk.outcome(NAME) == (Outcome.OPEN_ENDED, 2)
    assert bytes_in(path_of(desk)) == data[: path_of(desk).stat().st_size]
    expect_nothing_more(desk, disk)
    desk.store.close()


# --- a torn record that is whole by its length ------------------------------------------------------------------------


def ends_in_page(growing: Growing, bytes_in_last_page: int) -> bytes:
    """A next record of a few pages that has so many bytes in the last."""
    frame_bytes = PRE_BYTES + len(encode_header(0, growing.file.next_record)) + TAG_BYTES
    begun_bytes = growing.file.size_bytes + frame_bytes
    return sealed(growing, (-begun_bytes + bytes_in_last_page) % PAGE + 3 * PAGE, FRAGMENT_90K).data


@pytest.mark.parametrize("bytes_in_last_page", [1, 17, 63, 512])
def test_a_last_page_that_was_never_written_makes_the_record_torn(
    desk: Desk, bytes_in_last_page: int
) -> None:
    video = desk.segment()
    video.put(FRAGMENT, 900, 0)
    record = ends_in_page(video, bytes_in_last_page)
    assert (path_of(desk).stat().st_size + len(record)) % PAGE == bytes_in_last_page
    leave(desk, record[:-bytes_in_last_page] + bytes(bytes_in_last_page))
    report = started(desk)
    assert (report.adopted_records, report.truncated_bytes) == (0, len(record))
    assert desk.outcome(NAME) == (Outcome.OPEN_ENDED, 1)
    expect_nothing_more(desk)


@pytest.mark.parametrize("bytes_in_last_page", [1, 17, 63, 512])
def test_control_the_same_record_with_its_last_page_is_adopted(desk: Desk, bytes_in_last_page: int) -> None:
    video = desk.segment()
    video.put(FRAGMENT, 900, 0)
    leave(desk, ends_in_page(video, bytes_in_last_page))
    assert started(desk).adopted_records == 1
    assert desk.outcome(NAME) == (Outcome.OPEN_ENDED, 2)


def test_control_zeros_that_do_not_fill_the_last_page_are_ciphertext(desk: Desk) -> None:
    record = ends_in_page(desk.segment(), 40)
    leave(desk, record[:-40] + record[-40:-39].replace(b"\0", b"\1") + bytes(39))
    assert started(desk).adopted_records == 1


def test_a_time_that_no_row_can_hold_makes_the_record_torn(desk: Desk) -> None:
    video = desk.segment()
    video.put(FRAGMENT, 900, 0)
    record = bytearray(sealed(video, 900, FRAGMENT_90K).data)
    record[16] ^= 0x80  # the highest bit of the time in its clear header
    leave(desk, bytes(record))
    report = started(desk)
    assert (report.adopted_records, report.truncated_bytes) == (0, len(record))
    expect_nothing_more(desk)
    assert check_store(desk.root) == []
