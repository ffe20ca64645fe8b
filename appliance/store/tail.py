"""What a segment's file holds after a crash, held against its rows: whole records, torn ones, a medium that fails.

Only reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from appliance.evf.errors import EvfError
from appliance.evf.reader import ScannedRecord, SegmentScan, scan_segment
from appliance.evf.scan import has_hole
from appliance.store.rows import Digests, digest_file

# SQLite's integers end here; the format's times go on to 2^64, which no session reaches.
_TIME_LIMIT_90K = 2**63
_CHUNK_BYTES = 1 << 20


class SegmentFound(NamedTuple):
    """A segment's row, as recovery finds it."""

    id: int
    sid: str
    name: str
    track: str
    state: str
    prefix_bytes: int
    size_bytes: int | None
    cause: str


@dataclass
class Tail:
    """What one open segment turned out to be."""

    row: SegmentFound
    records: list[ScannedRecord]  # whole, on disk, without a row
    keep_bytes: int
    digests: Digests
    state: str
    cause: str
    damaged: bool


def scan_file(path: Path) -> SegmentScan | None:
    """None when it has no whole header, or cannot be read."""
    try:
        with path.open("rb") as stream:
            return scan_segment(stream)
    except (EvfError, OSError):
        return None


class _UpToBadSector:
    """A file that ends where the medium gives no more; then `error` says why."""

    def __init__(self, medium: BinaryIO) -> None:
        self._medium = medium
        self.error: OSError | None = None

    def read(self, size: int) -> bytes:
        if self.error is None:
            try:
                return self._medium.read(size)
            except OSError as error:
                self.error = error
        return b""


def read_tail(row: SegmentFound, path: Path, known: list[tuple[int, bytes]]) -> Tail:
    """Hold a file against its rows, (end, leaf) each. EvfError or OSError when its header cannot be had."""
    # Unbuffered: a buffer would fail with a sector behind the record that is asked for.
    with path.open("rb", buffering=0) as medium:
        stream = _UpToBadSector(cast("BinaryIO", medium))
        try:
            scan = scan_segment(cast("BinaryIO", stream))
        except EvfError as error:
            raise stream.error or error from None
    agreed = 0
    while agreed < min(len(known), len(scan.records)) and known[agreed][1] == scan.records[agreed].leaf:
        agreed += 1
    changed = agreed < len(known)
    whole = [] if changed else _whole_records(path, scan.records[agreed:])
    if whole:
        keep_bytes = whole[-1].offset_bytes + whole[-1].length_bytes
    else:
        keep_bytes = known[agreed - 1][0] if agreed else row.prefix_bytes
    digests = digest_file(path, keep_bytes)
    if changed or stream.error is not None:
        what = "are not what was recorded" if stream.error is None else "cannot be read"
        cause = f"{row.name}: bytes from {keep_bytes} on {what}"
        return Tail(row, whole, keep_bytes, digests, "open_ended", cause, damaged=True)
    ended = scan.ended and len(whole) == len(scan.records) - agreed
    state, cause = ("closed", "") if ended else ("open_ended", "interrupted")
    return Tail(row, whole, keep_bytes, digests, state, cause, damaged=False)


def _whole_records(path: Path, records: list[ScannedRecord]) -> list[ScannedRecord]:
    """Those before the first that is torn, or whose clear time, which no leaf vouches for yet, cannot be one."""
    whole: list[ScannedRecord] = []
    with path.open("rb") as stream:
        for record in records:
            stream.seek(record.offset_bytes)
            data = stream.read(record.length_bytes)
            if has_hole(data, record.offset_bytes) or record.time_90k >= _TIME_LIMIT_90K:
                break
            whole.append(record)
    return whole


def is_readable(path: Path, from_bytes: int) -> bool:
    """Whether the medium gives all that stands behind `from_bytes`."""
    try:
        with path.open("rb") as stream:
            stream.seek(from_bytes)
            while stream.read(_CHUNK_BYTES):
                pass
    except OSError:
        return False
    return True


def reason_of(error: EvfError | OSError) -> str:
    """Why a file cannot be used, in words."""
    if isinstance(error, OSError):
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    return str(error)
