"""Disks that refuse, fill up, lie or lose power: the store tells the truth about what is durable."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.errors import NoSpace, StoreFailed
from appliance.evf import Outcome, RecordKind, scan_segment
from appliance.store.check import check_store
from appliance.store.durable import OPERATING_SYSTEM, FileOps
from appliance.store.recording import RecordingStore
from appliance.store.view import RecordingView
from tests.manual_clock import ManualClock
from tests.troubled_disk import TroubledDisk
from tests.unit.test_store_builders import FRAGMENT_90K, SID, Desk

FRAGMENT = RecordKind.FRAGMENT


@pytest.mark.parametrize("step", ["write", "fdatasync", "commit"])
def test_a_refused_step_ends_the_segment_and_is_never_retried(tmp_path: Path, step: str) -> None:
    disk = TroubledDisk()
    desk = Desk(tmp_path, disk)
    desk.begin()
    video = desk.segment()
    video.put(FRAGMENT, 900, 0)
    disk.refuse(step)
    with pytest.raises(StoreFailed):
        video.put(FRAGMENT, 900, FRAGMENT_90K)
    with pytest.raises(StoreFailed, match="had a write error"):
        video.put(FRAGMENT, 900, FRAGMENT_90K)
    assert disk.refused == 1
    disk.refuse("")
    video.file.abandon("disk refused a record")
    following = desk.segment()
    following.put(FRAGMENT, 900, FRAGMENT_90K)
    following.seal(2 * FRAGMENT_90K)
    assert check_store(tmp_path) == []
    assert desk.outcome("0-video-0.evf") == (Outcome.OPEN_ENDED, 1)
    assert desk.outcome("0-video-1.evf") == (Outcome.CLOSED, 2)
    view = RecordingView(tmp_path)
    assert view.leaves(SID) == [*video.acknowledged, *following.acknowledged]
    view.close()
    desk.store.close()


def test_a_refused_seal_leaves_the_segment_open_ended(tmp_path: Path) -> None:
    disk = TroubledDisk()
    desk = Desk(tmp_path, disk)
    desk.begin()
    video = desk.segment()
    video.put(FRAGMENT, 900, 0)
    disk.refuse("commit")
    with pytest.raises(StoreFailed):
        video.seal(FRAGMENT_90K)
    with pytest.raises(StoreFailed):
        video.file.abandon("disk refused the end")
    disk.refuse("")
    video.file.abandon("disk refused the end")
    assert desk.outcome("0-video-0.evf") == (Outcome.OPEN_ENDED, 1)
    desk.store.close()
    assert check_store(tmp_path) == []


def test_control_a_healthy_disk_takes_the_same_records(tmp_path: Path) -> None:
    desk = Desk(tmp_path, TroubledDisk())
    desk.begin()
    video = desk.segment()
    video.put(FRAGMENT, 900, 0)
    video.put(FRAGMENT, 900, FRAGMENT_90K)
    assert len(video.acknowledged) == 2
    desk.store.close()


def test_what_could_not_be_cut_at_once_is_cut_at_the_next_start(tmp_path: Path) -> None:
    disk = TroubledDisk()
    desk = Desk(tmp_path, disk)
    desk.begin()
    video = desk.segment()
    video.put(FRAGMENT, 900, 0)
    path = desk.store.layout.segment(SID, "0-video-0.evf")
    with path.open("ab") as stream:
        stream.write(b"what a failed write left")
    disk.refuse("truncate")
    video.file.abandon("disk refused a record")
    desk.store.close()
    assert path.stat().st_size > video.file.size_bytes
    store = RecordingStore(tmp_path, ManualClock())
    assert path.stat().st_size == video.file.size_bytes
    assert store.recovery.truncated_bytes == len(b"what a failed write left")
    store.close()
    assert check_store(tmp_path) == []


def test_a_full_disk_is_called_full(tmp_path: Path) -> None:
    disk = TroubledDisk()
    desk = Desk(tmp_path, disk)
    desk.begin()
    video = desk.segment()
    disk.refuse("write", code=errno.ENOSPC)
    with pytest.raises(NoSpace):
        video.put(FRAGMENT, 900, 0)
    with pytest.raises(NoSpace):
        desk.segment("log", "log")
    desk.store.close()


class Quota(FileOps):
    """Stands in for a small disk where nobody may mount one."""

    def __init__(self, left_bytes: int) -> None:
        self._left_bytes = left_bytes

    def write(self, fd: int, data: memoryview) -> int:
        if self._left_bytes == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = super().write(fd, data[: self._left_bytes])
        self._left_bytes -= written
        return written


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[tuple[Path, FileOps]]:
    """A real file system of 1 MiB where the system lets us mount one, else a disk that plays one."""
    mount = tmp_path / "tiny"
    mount.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    mounted = os.geteuid() == 0 and subprocess.run(mounting, capture_output=True, check=False).returncode == 0
    yield mount, OPERATING_SYSTEM if mounted else Quota(700_000)
    if mounted:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_really_full_disk_keeps_what_was_acknowledged(tiny_disk: tuple[Path, FileOps]) -> None:
    mount, file_ops = tiny_disk
    root = mount / "store"
    desk = Desk(root, file_ops)
    desk.begin()
    video = desk.segment()
    acknowledged = video.acknowledged

    def fill() -> None:
        for number in range(100):
            video.put(FRAGMENT, 60_000, number * FRAGMENT_90K)

    with pytest.raises(NoSpace):
        fill()
    desk.store.close()
    assert len(acknowledged) > 3
    store = RecordingStore(root, ManualClock())  # there is room again for a row, since the torn record is cut
    view = RecordingView(root)
    assert view.leaves(SID) == acknowledged
    assert [row.state for row in view.segments(SID)] == ["open_ended"]
    view.close()
    store.close()
    assert check_store(root) == []


class VolatileDisk(FileOps):
    """Remembers what is synced, so that `power_cut` can take away what is not: sizes of files, names of new files."""

    def __init__(self) -> None:
        self._paths: dict[int, Path] = {}
        self._synced_bytes: dict[Path, int] = {}
        self._synced_names: set[Path] = set()

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._paths[fd] = path
        self._synced_bytes[path] = 0
        return fd

    def fdatasync(self, fd: int) -> None:
        super().fdatasync(fd)
        if fd in self._paths:
            self._synced_bytes[self._paths[fd]] = os.fstat(fd).st_size

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        if fd in self._paths:
            self._synced_bytes[self._paths[fd]] = os.fstat(fd).st_size
        else:
            folder = Path(f"/proc/self/fd/{fd}").readlink()
            self._synced_names |= {path for path in self._synced_bytes if path.parent == folder}

    def close(self, fd: int) -> None:
        self._paths.pop(fd, None)
        super().close(fd)

    def power_cut(self, root: Path, after: Path) -> None:
        """A copy of the store as the medium holds it now."""
        shutil.copytree(root, after)
        for path, size_bytes in self._synced_bytes.items():
            copy = after / path.relative_to(root)
            if path in self._synced_names:
                os.truncate(copy, size_bytes)
            else:
                copy.unlink()


class LyingDisk(VolatileDisk):
    """Negative control: says yes to fdatasync and keeps nothing."""

    def fdatasync(self, fd: int) -> None:
        FileOps.fdatasync(self, fd)


def missing_after_power_cut(tmp_path: Path, disk: VolatileDisk) -> int:
    """Acknowledged records that are in no file after the power went, over a cut after each of ten records."""
    missing = 0
    desk = Desk(tmp_path / "store", disk)
    desk.begin()
    video, log = desk.segment(), desk.segment("log", "log")
    for number in range(10):
        (video if number % 3 else log).put(FRAGMENT, 2000, number * FRAGMENT_90K)
        after = tmp_path / f"after-{number}"
        disk.power_cut(desk.root, after)
        store = RecordingStore(after, ManualClock())
        store.close()
        there: set[bytes] = set()
        for path in after.glob("segments/*/*.evf"):
            with path.open("rb") as stream:
                there |= {record.leaf for record in scan_segment(stream).records}
        missing += len(set(video.acknowledged + log.acknowledged) - there)
        if missing == 0:
            assert check_store(after) == []
    desk.store.close()
    return missing


def test_a_power_cut_takes_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    assert missing_after_power_cut(tmp_path, VolatileDisk()) == 0


def test_control_a_disk_that_lies_loses_records(tmp_path: Path) -> None:
    assert missing_after_power_cut(tmp_path, LyingDisk()) > 0
