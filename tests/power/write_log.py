"""Every write and flush that ext4 sends to its disk, in order, as qemu-storage-daemon's blklogwrites keeps them.

A file exported by FUSE is the disk: no kernel module is needed. Format: QEMU block/blklogwrites.c (dm-log-writes).
"""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.power.disk import NoDisk

SECTOR_BYTES = 512
MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD = 1, 2, 4
_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")


@dataclass(frozen=True)
class Entry:
    """One request. `log_offset`: where its bytes stand in the log; a discard has none and zeroes its span."""

    offset: int
    length: int
    flags: int
    log_offset: int

    @property
    def flushes(self) -> bool:
        """True if everything before it is on the medium once it is done."""
        return bool(self.flags & FLUSH)


def entries(log: Path) -> int:
    """Entries so far; the daemon renews the number with each flush."""
    with log.open("rb") as stream:
        return _super(stream.read(_SUPER.size))


def read_log(log: Path) -> Iterator[Entry]:
    """All entries, in order."""
    with log.open("rb") as stream:
        count = _super(stream.read(_SUPER.size))
        at = SECTOR_BYTES
        for _ in range(count):
            stream.seek(at)
            sector, sectors, flags, data_bytes = _ENTRY.unpack(stream.read(_ENTRY.size))
            at += SECTOR_BYTES
            yield Entry(sector * SECTOR_BYTES, sectors * SECTOR_BYTES, flags, at)
            at += 0 if flags & DISCARD else sectors * SECTOR_BYTES
            if data_bytes:
                raise NoDisk("the write log holds a mark, which nobody asked for")


def apply(entry: Entry, log_fd: int, image_fd: int) -> None:
    """Do to an image what the request did to the disk."""
    data = bytes(entry.length) if entry.flags & DISCARD else os.pread(log_fd, entry.length, entry.log_offset)
    if len(data) != entry.length:
        raise NoDisk("the write log ends inside an entry")
    os.pwrite(image_fd, data, entry.offset)


class LoggedFile:
    """`disk` can be formatted and mounted by loop; `log` grows with each request until `close`."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.disk, self.log, data = folder / "disk", folder / "log", folder / "data"
        self.disk.touch()
        for path, size_bytes in ((data, size_mib * 2**20), (self.log, 8 * 2**30)):
            with path.open("wb") as stream:
                stream.truncate(size_bytes)
        try:
            self._daemon = subprocess.Popen(
                [
                    *("qemu-storage-daemon", "--blockdev", f"file,node-name=data,filename={data}"),
                    *("--blockdev", f"file,node-name=log,filename={self.log}"),
                    *(
                        "--blockdev",
                        f"blklogwrites,node-name=both,file=data,log=log,log-sector-size={SECTOR_BYTES}",
                    ),
                    *("--export", f"fuse,id=disk,node-name=both,mountpoint={self.disk},writable=on"),
                ],
                stderr=subprocess.PIPE,
            )
        except FileNotFoundError as error:
            raise NoDisk(
                "qemu-storage-daemon is not installed: apt-get install qemu-system-common"
            ) from error
        until = time.monotonic() + 60
        while not self.disk.stat().st_size:
            if self._daemon.poll() is not None or time.monotonic() > until:
                said = self._stop()
                raise NoDisk(f"qemu-storage-daemon gives no FUSE export: {said}; it needs root and /dev/fuse")
            time.sleep(0.02)

    def close(self) -> None:
        """End the daemon; the log is whole then."""
        self._stop()

    def _stop(self) -> str:
        self._daemon.terminate()
        return self._daemon.communicate(timeout=60)[1].decode().strip()

    def __enter__(self) -> LoggedFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._daemon.poll() is None:
            self.close()


def _super(data: bytes) -> int:
    magic, version, count, sector_bytes = _SUPER.unpack(data)
    if (magic, version, sector_bytes) != (MAGIC, 1, SECTOR_BYTES):
        raise NoDisk("this is no write log")
    return int(count)
