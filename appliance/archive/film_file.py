"""The film while it is made: each segment's span is filled in memory and written in large pieces past the page cache.

A film is synced before it gets its name, so it gains nothing from the page cache, which costs a fifth of the time of
`open` (bench/open_session.py). Where the file system has no direct writes, the same pieces are written as usual.
"""

from __future__ import annotations

import mmap
import os
from errno import EINVAL
from pathlib import Path
from types import TracebackType

from appliance.archive.output import start_writing, write_at, write_failure
from appliance.evf.reader import RecordRoom

# Direct writes begin and end at a multiple of the device's sector (open(2)); 4096 is the largest in use.
BLOCK_BYTES = 4096
# Larger pieces write no faster (measured on virtio over NVMe, 512 KiB to 8 MiB), and each worker has one in memory.
PIECE_BYTES = 1 << 20


class FilmFile:
    """A file open for writing at any place, by many threads; a context, so that no second descriptor stays open."""

    def __init__(self, fd: int, target: Path) -> None:
        """`fd` stays the caller's, `target` is what errors name."""
        self._fd, self._target = fd, target
        self._direct_fd = _open_direct(fd)
        self.direct = self._direct_fd is not None

    def __enter__(self) -> FilmFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._direct_fd is not None:
            os.close(self._direct_fd)
            self._direct_fd = None

    def write(self, data: bytes | memoryview, offset_bytes: int) -> None:
        """Every byte at its place; StoreFailed or NoSpace."""
        write_at(self._fd, data, offset_bytes, self._target)

    def write_blocks(self, data: memoryview, offset_bytes: int) -> None:
        """The same for whole blocks in aligned memory at an aligned place."""
        if self.direct and self._direct_fd is not None:
            done = 0
            try:
                done = os.pwrite(self._direct_fd, data, offset_bytes)
            except OSError as error:
                if error.errno != EINVAL:
                    raise write_failure(self._target, error) from error
                self.direct = False  # the file system takes the flag, but not the writes
            data, offset_bytes = data[done:], offset_bytes + done
        self.write(data, offset_bytes)

    def span_done(self, begin_bytes: int, end_bytes: int) -> None:
        """Nothing more will be written between these places."""
        if not self.direct:
            start_writing(self._fd, begin_bytes, end_bytes)


class FilmSpan(RecordRoom):
    """Opens records one after the other into the piece of the film that is written next."""

    def __init__(self, film: FilmFile) -> None:
        super().__init__()
        self._film = film
        self._piece = _aligned(2 * PIECE_BYTES)
        self._offset_bytes = 0  # of the piece in the film, a multiple of BLOCK_BYTES
        self._begin = self._end = 0  # what waits in the piece; the rest of the first block is another span's
        self._span_bytes = 0  # where the span begins in the film

    @property
    def end(self) -> int:
        """Where in the film the next record goes."""
        return self._offset_bytes + self._end

    def begin(self, offset_bytes: int) -> None:
        """A new span; what waited of another one is dropped."""
        self._span_bytes = offset_bytes
        self._begin = self._end = offset_bytes % BLOCK_BYTES
        self._offset_bytes = offset_bytes - self._begin

    def opened(self, size_bytes: int) -> memoryview:
        """Room for so many bytes behind what waits; they count only once they are kept."""
        end = self._end + size_bytes
        if end > len(self._piece):
            larger = _aligned(end)
            larger[: self._end] = self._piece[: self._end]
            self._piece = larger
        return self._piece[self._end : end]

    def keep(self, size_bytes: int) -> None:
        """What was opened last belongs to the film; StoreFailed or NoSpace when a piece cannot be written."""
        self._end += size_bytes
        if self._end >= PIECE_BYTES:
            self._write_blocks()

    def finish(self) -> None:
        """Write what waits; errors as `keep`."""
        self._write_blocks()
        self._film.write(self._piece[self._begin : self._end], self._offset_bytes + self._begin)
        self._begin = self._end
        self._film.span_done(self._span_bytes, self.end)

    def _write_blocks(self) -> None:
        """All whole blocks; what is left of the last one goes to the front of the piece."""
        first, last = -(-self._begin // BLOCK_BYTES) * BLOCK_BYTES, self._end // BLOCK_BYTES * BLOCK_BYTES
        if last < first:  # begins and ends inside one block
            return
        self._film.write(self._piece[self._begin : first], self._offset_bytes + self._begin)
        if first < last:
            self._film.write_blocks(self._piece[first:last], self._offset_bytes + first)
        rest = self._end - last
        self._piece[:rest] = self._piece[last : self._end]
        self._offset_bytes += last
        self._begin, self._end = 0, rest


def _open_direct(fd: int) -> int | None:
    flag = getattr(os, "O_DIRECT", 0)  # Linux has it
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC | flag) if flag else None
    except OSError:  # no such writes here (tmpfs), or no /proc
        return None


def _aligned(size_bytes: int) -> memoryview:
    """Zeroed memory that begins with a page."""
    return memoryview(mmap.mmap(-1, -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES))
