"""A segment file that was shortened after the recording: how much of it is still there (pure, needs no key).

Reads framing alone. What it finds is whole and in order; that it is authentic, only a reader with the key can say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

from appliance.evf.errors import EvfError
from appliance.evf.format import PRE_BYTES, RECORD_MAGIC, TAG_BYTES, Pre, RecordKind, read_up_to
from appliance.evf.scan import ScannedRecord, SegmentScan
from appliance.evf.sframe import encode_header
from appliance.evidence.session import SegmentEntry


@dataclass(frozen=True)
class Cut:
    """The first `records` records of a segment are there, its footage at least until `until_90k` (session time).

    `missing`: records of content that are not; 0 where only END is gone.
    """

    records: int
    missing: int
    until_90k: int


def find_cut(entry: SegmentEntry, scan: SegmentScan, stream: BinaryIO, size_bytes: int) -> Cut | None:
    """The cut, or None when the file is anything else than a shorter beginning of the manifest's file.

    `scan` is of this stream, whose header the caller has held against the manifest.
    """
    count = len(scan.records)
    if size_bytes >= entry.size_bytes or not 0 < count < entry.records:
        return None
    if scan.records[-1].kind is RecordKind.END:
        return None
    stream.seek(scan.whole_bytes)
    tail_bytes = size_bytes - scan.whole_bytes
    pre_bytes = read_up_to(stream, min(PRE_BYTES, tail_bytes))
    if not RECORD_MAGIC.startswith(pre_bytes[: len(RECORD_MAGIC)]):
        return None
    if len(pre_bytes) == PRE_BYTES and not _stops_inside(entry, scan, pre_bytes, stream, tail_bytes):
        return None
    missing = entry.records - count - (entry.outcome == "CLOSED")
    until_90k = _footage_until_90k(entry, scan.records) if missing else entry.end_90k
    return Cut(count, missing, until_90k)


def _stops_inside(
    entry: SegmentEntry, scan: SegmentScan, pre_bytes: bytes, stream: BinaryIO, tail_bytes: int
) -> bool:
    count = len(scan.records)
    try:
        pre = Pre.decode(pre_bytes)
    except EvfError:
        return False
    sframe_header = encode_header(entry.seg, count)
    record_bytes = PRE_BYTES + len(sframe_header) + pre.plain_len + TAG_BYTES
    # A flipped length looks like a cut, but reaches beyond the file that the manifest names ...
    if pre.index != count or tail_bytes >= record_bytes or scan.whole_bytes + record_bytes > entry.size_bytes:
        return False
    rest = read_up_to(stream, tail_bytes - PRE_BYTES)
    # ... or has swallowed the records that follow it.
    return sframe_header.startswith(rest[: len(sframe_header)]) and not _holds_record(rest, count + 1)


def _holds_record(data: bytes, index: int) -> bool:
    place = data.find(RECORD_MAGIC)
    while place >= 0:
        try:
            if Pre.decode(data[place : place + PRE_BYTES]).index == index:
                return True
        except EvfError:
            pass  # four bytes of ciphertext may look like the mark
        place = data.find(RECORD_MAGIC, place + 1)
    return False


def _footage_until_90k(entry: SegmentEntry, records: Sequence[ScannedRecord]) -> int:
    """How long a fragment lasts stands inside it: the shortest step of the segment is taken for the last one.

    The time in a record that is not whole is not used: nothing will ever authenticate it.
    """
    times = [record.time_90k for record in records if record.kind is RecordKind.FRAGMENT]
    steps = [later - earlier for earlier, later in pairwise(times) if later > earlier]
    until = records[-1].time_90k + min(steps, default=0)
    return min(max(until, entry.start_90k), entry.end_90k)
