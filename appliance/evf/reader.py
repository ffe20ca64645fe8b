"""Reads a segment as a stream: one record in memory at a time, nothing returned that did not authenticate."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO

from appliance.evf.errors import CorruptSegment, EvfError
from appliance.evf.format import (
    PRE_BYTES,
    RECORD_MAGIC,
    TAG_BYTES,
    Header,
    Pre,
    RecordKind,
    chain_next,
    chain_start,
    leaf_hash,
    read_prefix,
    read_up_to,
)
from appliance.evf.keys import derive_segment_keys
from appliance.evf.scan import ScannedRecord, SegmentScan, scan_segment
from appliance.evf.sframe import SframeKey, encode_header

__all__ = [
    "Outcome",
    "Record",
    "ScannedRecord",
    "SegmentReader",
    "SegmentScan",
    "open_record",
    "scan_segment",
]


class Outcome(Enum):
    """How a segment ended; OPEN_ENDED is to be held against the count in the last witnessed checkpoint."""

    CLOSED = "CLOSED"
    OPEN_ENDED = "OPEN_ENDED"
    CORRUPT = "CORRUPT"


@dataclass(frozen=True)
class Record:
    """One authentic record; offset and length are those of the whole RECORD in the file."""

    kind: RecordKind
    key_frame: bool
    index: int
    time_90k: int
    plaintext: bytes
    offset_bytes: int
    length_bytes: int
    leaf: bytes


class SegmentReader:
    """Iterate once; then `outcome` and `reason` say how the file ended. END itself is checked, not returned.

    `secret_for(header)` gives S(seg) for a header that is not yet authenticated; its errors pass through. Bad
    bytes never raise: they end the iteration as CORRUPT, or as OPEN_ENDED where the file only stops short.
    """

    def __init__(self, stream: BinaryIO, secret_for: Callable[[Header], bytes]) -> None:
        self._stream = stream
        self._secret_for = secret_for
        self._started = False
        self.header: Header | None = None
        self.records = 0  # whole records so far, END included
        self.outcome = Outcome.CORRUPT
        self.reason = "not read to its end"

    def __iter__(self) -> Iterator[Record]:
        if self._started:
            raise EvfError("segment reader is used once")
        self._started = True
        try:
            header_bytes, commit = read_prefix(self._stream)
            self.header = Header.decode(header_bytes)
        except EvfError as error:
            self.reason = str(error)
            return
        secret = self._secret_for(self.header)
        try:
            yield from self._records(self.header, header_bytes, commit, secret)
        except EvfError as error:
            self.outcome, self.reason = Outcome.CORRUPT, str(error)

    def _records(self, header: Header, header_bytes: bytes, commit: bytes, secret: bytes) -> Iterator[Record]:
        opener = _Opener(header, header_bytes, secret, commit)
        chain = chain_start(header_bytes, commit)
        offset = len(header_bytes) + len(commit)
        while True:
            pre_bytes = read_up_to(self._stream, PRE_BYTES)
            if len(pre_bytes) < PRE_BYTES:
                self._cut(pre_bytes)
                return
            pre = Pre.decode(pre_bytes)
            if pre.index != self.records:
                raise CorruptSegment(f"record {pre.index} stands where {self.records} belongs")
            expected = encode_header(header.seg, pre.index)
            rest_bytes = len(expected) + pre.plain_len + TAG_BYTES
            rest = read_up_to(self._stream, rest_bytes)
            if len(rest) < rest_bytes:
                if not expected.startswith(rest[: len(expected)]):
                    raise CorruptSegment("record has another key id or counter")
                self.outcome, self.reason = Outcome.OPEN_ENDED, f"file ends inside record {pre.index}"
                return
            data = pre_bytes + rest
            plaintext = opener.open(pre, pre_bytes, rest)
            leaf = leaf_hash(data)
            self.records += 1
            if pre.kind is RecordKind.END:
                if not hmac.compare_digest(plaintext, chain):
                    raise CorruptSegment("end record does not match the records before it")
                if self._stream.read(1):
                    raise CorruptSegment("bytes follow the end record")
                self.outcome, self.reason = Outcome.CLOSED, ""
                return
            chain = chain_next(chain, leaf)
            length = PRE_BYTES + rest_bytes
            yield Record(pre.kind, pre.key_frame, pre.index, pre.time_90k, plaintext, offset, length, leaf)
            offset += length

    def _cut(self, tail: bytes) -> None:
        if not RECORD_MAGIC.startswith(tail[: len(RECORD_MAGIC)]):
            raise CorruptSegment("no record starts here")
        where = (
            f"inside record {self.records}" if tail else f"after {self.records} records without an end record"
        )
        self.outcome, self.reason = Outcome.OPEN_ENDED, f"file ends {where}"


def open_record(data: bytes, header_bytes: bytes, secret: bytes, commit: bytes | None = None) -> Record:
    """Open one RECORD read by seeking; CorruptSegment if it is not whole and authentic. Offset is given as 0.

    Pass COMMIT when it is at hand: it ties the record to the one key of the file.
    """
    pre_bytes = data[:PRE_BYTES]
    pre = Pre.decode(pre_bytes)
    header = Header.decode(header_bytes)
    plaintext = _Opener(header, header_bytes, secret, commit).open(pre, pre_bytes, data[PRE_BYTES:])
    return Record(pre.kind, pre.key_frame, pre.index, pre.time_90k, plaintext, 0, len(data), leaf_hash(data))


class _Opener:
    def __init__(self, header: Header, header_bytes: bytes, secret: bytes, commit: bytes | None) -> None:
        base_key, derived = derive_segment_keys(secret, header_bytes)
        if commit is not None and not hmac.compare_digest(derived, commit):
            raise CorruptSegment(
                "key does not belong to this file", "use the wrap of this session, epoch and class"
            )
        self._key = SframeKey(base_key, header.seg)

    def open(self, pre: Pre, pre_bytes: bytes, rest: bytes) -> bytes:
        expected = encode_header(self._key.kid, pre.index)
        start = len(expected)
        if len(rest) != start + pre.plain_len + TAG_BYTES:
            raise CorruptSegment("record has the wrong length")
        if rest[:start] != expected:
            raise CorruptSegment("record has another key id or counter")
        return self._key.open(pre.index, expected, pre_bytes, memoryview(rest)[start:])
