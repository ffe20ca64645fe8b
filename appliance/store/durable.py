"""Making bytes survive a power cut: write all, sync, rename, sync the directory, commit.

Every step goes through `FileOps`, the one class that touches the system while something is recorded.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from appliance.errors import NoSpace, StoreFailed

TEMPORARY_SUFFIX = ".tmp"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC


class FileOps:
    """The operating system's edge, where fault tests stand in. Raises OSError and sqlite3.Error."""

    def create(self, path: Path) -> int:
        """New file, append only; FileExistsError if there is one."""
        return os.open(path, _CREATE | os.O_EXCL | os.O_APPEND, 0o640)

    def overwrite(self, path: Path) -> int:
        """Empty file for a temporary copy; one left by a crash is reused."""
        return os.open(path, _CREATE | os.O_TRUNC, 0o640)

    def write(self, fd: int, data: memoryview) -> int:
        """One write; may take fewer bytes than given."""
        return os.write(fd, data)

    def fdatasync(self, fd: int) -> None:
        """Bytes and size to the medium."""
        os.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        """Bytes and all metadata to the medium."""
        os.fsync(fd)

    def truncate(self, fd: int, size_bytes: int) -> None:
        """Cut the file."""
        os.ftruncate(fd, size_bytes)

    def allocate(self, fd: int, size_bytes: int) -> None:
        """Make the file own that many bytes on the medium."""
        os.posix_fallocate(fd, 0, size_bytes)

    def free_bytes(self, path: Path) -> int:
        """What an ordinary user may still write on the disk of `path`."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def unlink(self, path: Path) -> None:
        """Remove a file; nothing if there is none."""
        path.unlink(missing_ok=True)

    def rename(self, source: Path, target: Path) -> None:
        """Atomic within one file system."""
        os.rename(source, target)  # noqa: PTH104

    def make_dir(self, path: Path) -> None:
        """One directory; FileExistsError if there is one."""
        os.mkdir(path, 0o770)  # noqa: PTH102

    def close(self, fd: int) -> None:
        """Give the descriptor back."""
        os.close(fd)

    def commit(self, connection: sqlite3.Connection) -> None:
        """COMMIT: with synchronous=FULL it returns once the rows are on the medium."""
        connection.execute("COMMIT")


OPERATING_SYSTEM = FileOps()


def write_all(fd: int, data: bytes | memoryview, file_ops: FileOps = OPERATING_SYSTEM) -> None:
    """Append every byte, looping on short writes; OSError as the system gives it."""
    rest = memoryview(data)
    while rest:
        written = file_ops.write(fd, rest)
        if written <= 0:
            raise OSError(errno.EIO, "write took no bytes")
        rest = rest[written:]


def fdatasync(fd: int, file_ops: FileOps = OPERATING_SYSTEM) -> None:
    """Once; a failure is final: the kernel may have dropped the pages and would then report success."""
    file_ops.fdatasync(fd)


def fsync_dir(path: Path, file_ops: FileOps = OPERATING_SYSTEM) -> None:
    """Make the names in a directory survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        file_ops.fsync(fd)
    finally:
        file_ops.close(fd)


def make_dir_durably(path: Path, file_ops: FileOps = OPERATING_SYSTEM) -> None:
    """Directory and its name; nothing if it exists. The parent must exist."""
    if path.is_dir():
        return
    file_ops.make_dir(path)
    fsync_dir(path.parent, file_ops)


def write_file_durably(path: Path, data: bytes, file_ops: FileOps = OPERATING_SYSTEM) -> None:
    """Whole new content or the whole old one, never a part: temporary file, fsync, rename, fsync directory.

    Raises StoreFailed or NoSpace.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        fd = file_ops.overwrite(temporary)
        try:
            write_all(fd, data, file_ops)
            file_ops.fsync(fd)
        finally:
            file_ops.close(fd)
        file_ops.rename(temporary, path)
        fsync_dir(path.parent, file_ops)
    except OSError as error:
        raise store_failure(f"cannot write {path.name}", error) from error


def store_failure(doing: str, error: OSError | sqlite3.Error) -> StoreFailed:
    """The named error for what disk or database refused: NoSpace when full, else StoreFailed."""
    if isinstance(error, OSError):
        full = error.errno in _NO_ROOM
        reason = error.strerror or str(error)
    else:
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        reason = str(error)
    if full:
        return NoSpace(
            f"{doing}: {reason.lower()}", "free space on the node's disk; recordings are never removed for it"
        )
    return StoreFailed(
        f"{doing}: {reason.lower()}", "look at the disk's health, then run invigil store check"
    )
