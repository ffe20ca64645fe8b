"""Reads files off a failing medium, each byte once, and never writes there. What it does not give stands as zeros."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1 << 20
# The sector of today's disks and cards; what is tried again after a failure in a larger piece.
_BLOCK_BYTES = 4096

Read = Callable[[int, int, int], bytes]
"""(descriptor, length, offset) -> bytes; `os.pread`, or a test's failing medium."""


def open_source(path: Path) -> int:
    """A descriptor for reading that follows no link and, where that is allowed, leaves the time of access as it was."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, flags)


def files_below(folder: Path, failed: Callable[[Path, OSError], None]) -> Iterator[Path]:
    """Plain files in a stable order; links are not followed. `failed` hears of a folder or file that gives no facts."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        failed(folder, error)
        return
    for entry in entries:
        path = Path(entry.path)
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from files_below(path, failed)
            elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                yield path
        except OSError as error:
            failed(path, error)


def copy_out(fd: int, target: BinaryIO, read: Read = os.pread) -> list[tuple[int, int]]:
    """Copy all of `fd`; (byte, bytes) of what could not be read, in order and merged.

    Raises OSError only for what the target refuses.
    """
    size_bytes = os.fstat(fd).st_size
    unreadable: list[tuple[int, int]] = []
    at = 0
    while at < size_bytes:
        for offset, length, data in _piece(fd, at, min(_CHUNK_BYTES, size_bytes - at), read):
            target.write(bytes(length) if data is None else data)
            if data is None:
                _add(unreadable, offset, length)
            at = offset + length
    return unreadable


def _piece(fd: int, at: int, length: int, read: Read) -> Iterator[tuple[int, int, bytes | None]]:
    data = _read(fd, length, at, read)
    if data is not None:
        yield at, length, data
        return
    for offset in range(at, at + length, _BLOCK_BYTES):
        block_bytes = min(_BLOCK_BYTES, at + length - offset)
        yield offset, block_bytes, _read(fd, block_bytes, offset, read)


def _read(fd: int, length: int, at: int, read: Read) -> bytes | None:
    """Exactly `length` bytes; None when the medium refuses, or gives fewer than its directory says."""
    parts: list[bytes] = []
    while length:
        try:
            part = read(fd, length, at)
        except OSError:
            return None
        if not part:
            return None
        parts.append(part)
        at, length = at + len(part), length - len(part)
    return b"".join(parts)


def _add(spans: list[tuple[int, int]], offset: int, length: int) -> None:
    if spans and spans[-1][0] + spans[-1][1] == offset:
        offset, length = spans[-1][0], spans[-1][1] + length
        spans.pop()
    spans.append((offset, length))
