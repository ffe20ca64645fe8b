"""A segment's span of the film while it is made: records are opened into one piece of memory and written by the piece.

Pages of a span that has reached the disk are given back, and the next span takes them: pages that were used a moment
ago cost least, and the film does not push out what else the machine holds in memory (bench/open_session.py).
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from appliance.archive.output import start_writing, write_at
from appliance.evf.reader import RecordRoom

# Whole pages in large writes: two workers wait less for the file's one lock. Each holds two pieces in memory; 512 KiB
# and 2 MiB were no faster (ext4, Linux 6.18).
PIECE_BYTES = 1 << 20
_PAGE_BYTES = 4096
# So many spans of a worker may be on their way to the disk; 10 ms each where its writing keeps up.
_SPANS_ON_THEIR_WAY = 2


class FilmSpan(RecordRoom):
    """Room for the records of one span after the other; only what is kept gets into the film, in its order."""

    def __init__(self, fd: int, target: Path) -> None:
        """`fd` may be written by others too, outside of the span; `target` is what errors name."""
        super().__init__()
        self._fd, self._target = fd, target
        self._piece = memoryview(bytearray(2 * PIECE_BYTES))
        self._waiting_bytes = 0
        self._begin = self._written = 0  # places in the film
        self._on_their_way: deque[tuple[int, int]] = deque()

    @property
    def end(self) -> int:
        """Where in the film the next record goes."""
        return self._written + self._waiting_bytes

    def begin(self, place: int) -> None:
        """A new span; what waited of another one is dropped."""
        self._begin = self._written = place
        self._waiting_bytes = 0

    def opened(self, size_bytes: int) -> memoryview:
        """Room for so many bytes behind what waits; they count only once they are kept."""
        end = self._waiting_bytes + size_bytes
        if end > len(self._piece):
            larger = memoryview(bytearray(end))
            larger[: self._waiting_bytes] = self._piece[: self._waiting_bytes]
            self._piece = larger
        return self._piece[self._waiting_bytes : end]

    def keep(self, size_bytes: int) -> None:
        """What was opened last belongs to the film; StoreFailed or NoSpace when it cannot be written."""
        self._waiting_bytes += size_bytes
        if self._waiting_bytes >= PIECE_BYTES:
            self._write(self._waiting_bytes - self.end % _PAGE_BYTES)

    def finish(self) -> None:
        """Write what waits, nothing comes after it; errors as `keep`."""
        self._write(self._waiting_bytes)
        self._on_their_way.append((self._begin, self._written))
        start_writing(self._fd, *self._on_their_way[-1])
        if len(self._on_their_way) > _SPANS_ON_THEIR_WAY:
            start_writing(self._fd, *self._on_their_way.popleft())

    def _write(self, size_bytes: int) -> None:
        write_at(self._fd, self._piece[:size_bytes], self._written, self._target)
        rest = self._waiting_bytes - size_bytes
        self._piece[:rest] = self._piece[size_bytes : self._waiting_bytes]
        self._written += size_bytes
        self._waiting_bytes = rest
