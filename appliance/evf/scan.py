"""Walks a segment without its key: where each record stands and its leaf hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

from appliance.evf.errors import EvfError
from appliance.evf.format import PRE_BYTES, TAG_BYTES, Header, Pre, RecordKind, read_prefix, read_up_to
from appliance.evf.sframe import encode_header

# Never a record's own bytes (one in 2^512): storage that the file system gave and nobody wrote.
_HOLE = bytes(64)
_SECTOR_BYTES = 512  # what a file system writes at least: every page of any of them begins with a sector
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class ScannedRecord:
    """One whole record as it stands in the file; well formed, not authenticated. END is one of them."""

    index: int
    kind: RecordKind
    key_frame: bool
    time_90k: int
    offset_bytes: int
    length_bytes: int
    leaf: bytes


@dataclass(frozen=True)
class SegmentScan:
    """`whole_bytes`: where the last whole record ends; truncating there drops only what never became durable.

    `ended`: an END record closes the file. `reason`: empty when ended, else why the scan stopped.
    """

    header: Header
    commit: bytes
    prefix_bytes: int
    records: list[ScannedRecord]
    whole_bytes: int
    ended: bool
    reason: str


def scan_segment(stream: BinaryIO) -> SegmentScan:
    """Scan from the start; EvfError only when the file has no whole header. About 300 bytes a record."""
    header_bytes, commit = read_prefix(stream)
    header = Header.decode(header_bytes)
    prefix_bytes = len(header_bytes) + len(commit)
    records: list[ScannedRecord] = []
    offset = prefix_bytes
    reason = ""
    ended = False
    while True:
        try:
            record = _scan_record(stream, header.seg, len(records), offset)
        except EvfError as error:
            reason = str(error)
            break
        if isinstance(record, str):
            reason = record
            break
        records.append(record)
        offset += record.length_bytes
        if record.kind is RecordKind.END:
            ended = not stream.read(1)
            reason = "" if ended else "bytes follow the end record"
            break
    return SegmentScan(header, commit, prefix_bytes, records, offset, ended, reason)


def has_hole(record: bytes, offset_bytes: int) -> bool:
    """True if a page that was counted but never written may lie in this record, which stands at `offset_bytes`.

    Of such a page at its end the record may have any number of bytes, so there all zeros of its last sector count: n
    bytes of ciphertext are so by chance once in 2^8n.
    """
    in_last_sector = (offset_bytes + len(record) - 1) % _SECTOR_BYTES + 1
    return _HOLE in record or not any(record[-in_last_sector:])


def _scan_record(stream: BinaryIO, seg: int, index: int, offset: int) -> ScannedRecord | str:
    pre_bytes = read_up_to(stream, PRE_BYTES)
    if not pre_bytes:
        return "file has no end record"
    if len(pre_bytes) < PRE_BYTES:
        return f"file ends inside record {index}"
    pre = Pre.decode(pre_bytes)
    if pre.index != index:
        return f"record {pre.index} stands where {index} belongs"
    expected = encode_header(seg, index)
    sframe_header = read_up_to(stream, len(expected))
    if sframe_header != expected:
        return f"file ends inside record {index} or the record has another key id or counter"
    digest = hashlib.sha256(b"\0" + pre_bytes + sframe_header)
    left = pre.plain_len + TAG_BYTES
    while left:
        chunk = stream.read(min(left, _CHUNK_BYTES))
        if not chunk:
            return f"file ends inside record {index}"
        digest.update(chunk)
        left -= len(chunk)
    length = PRE_BYTES + len(expected) + pre.plain_len + TAG_BYTES
    return ScannedRecord(index, pre.kind, pre.key_frame, pre.time_90k, offset, length, digest.digest())
