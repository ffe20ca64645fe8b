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
    read_into,
    read_prefix,
    read_up_to,
)
from appliance.evf.keys import derive_segment_keys
from appliance.evf.scan import ScannedRecord, SegmentScan, scan_segment
from appliance.evf.sframe import SframeKey, encode_header

__all__ = [
    "Outcome",
    "Record",
    "RecordRoom",
    "ScannedRecord",
    "SegmentReader",
    "SegmentScan",
    "open_record",
    "scan_segment",
]


_ROOM_STEP_BYTES = 1 << 16


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


class RecordRoom:
    """Where one record lies, sealed and opened; one after the other, many readers may use it.

    Fresh pages for each record, which the kernel has to clear, cost a tenth of the time (bench/open_session.py).
    """

    def __init__(self) -> None:
        self._sealed = memoryview(bytearray())
        self._opened = memoryview(bytearray())

    def sealed(self, size_bytes: int) -> memoryview:
        """Room for so many bytes; what was there may be gone."""
        if len(self._sealed) < size_bytes:
            self._sealed = _room(size_bytes)
        return self._sealed[:size_bytes]

    def opened(self, size_bytes: int) -> memoryview:
        """The same for a plaintext."""
        if len(self._opened) < size_bytes:
            self._opened = _room(size_bytes)
        return self._opened[:size_bytes]


def _room(size_bytes: int) -> memoryview:
    return memoryview(bytearray(-(-size_bytes // _ROOM_STEP_BYTES) * _ROOM_STEP_BYTES))


class SegmentReader:
    """Iterate once; then `outcome` and `reason` say how the file ended. END itself is checked, not returned.

    `secret_for(header)` gives S(seg) for a header that is not yet authenticated; its errors pass through. Bad
    bytes never raise: they end the iteration as CORRUPT, or as OPEN_ENDED where the file only stops short.
    """

    def __init__(
        self, stream: BinaryIO, secret_for: Callable[[Header], bytes], room: RecordRoom | None = None
    ) -> None:
        self._room = room or RecordRoom()
        self._stream = stream
        self._secret_for = secret_for
        self._started = False
        self._place = (0, 0)  # offset and length of the newest record
        self.header: Header | None = None
        self.leaves: list[bytes] = []  # of the whole records so far, END included
        self.outcome = Outcome.CORRUPT
        self.reason = "not read to its end"

    @property
    def records(self) -> int:
        """Whole records so far, END included."""
        return len(self.leaves)

    def __iter__(self) -> Iterator[Record]:
        for pre, plaintext in self.in_place():
            offset, length = self._place
            yield Record(
                pre.kind,
                pre.key_frame,
                pre.index,
                pre.time_90k,
                bytes(plaintext),
                offset,
                length,
                self.leaves[-1],
            )

    def in_place(self) -> Iterator[tuple[Pre, memoryview]]:
        """As iterating, without a copy: each plaintext lies in the one buffer that the next record overwrites."""
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

    def _records(
        self, header: Header, header_bytes: bytes, commit: bytes, secret: bytes
    ) -> Iterator[tuple[Pre, memoryview]]:
        opener = _Opener(header, header_bytes, secret, commit)
        chain = chain_start(header_bytes, commit)
        offset = len(header_bytes) + len(commit)
        room = self._room
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
            rest = room.sealed(rest_bytes)
            rest = rest[: read_into(self._stream, rest)]
            if len(rest) < rest_bytes:
                if not expected.startswith(rest[: len(expected)].tobytes()):
                    raise CorruptSegment("record has another key id or counter")
                self.outcome, self.reason = Outcome.OPEN_ENDED, f"file ends inside record {pre.index}"
                return
            plaintext = room.opened(pre.plain_len)
            opener.open_into(pre, pre_bytes, rest, plaintext)
            leaf = leaf_hash(pre_bytes, rest)
            self.leaves.append(leaf)
            if pre.kind is RecordKind.END:
                if not hmac.compare_digest(plaintext, chain):
                    raise CorruptSegment("end record does not match the records before it")
                if self._stream.read(1):
                    raise CorruptSegment("bytes follow the end record")
                self.outcome, self.reason = Outcome.CLOSED, ""
                return
            chain = chain_next(chain, leaf)
            self._place = (offset, PRE_BYTES + rest_bytes)
            offset += PRE_BYTES + rest_bytes
            yield pre, plaintext

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
        out = bytearray(pre.plain_len)
        self.open_into(pre, pre_bytes, memoryview(rest), memoryview(out))
        return bytes(out)

    def open_into(self, pre: Pre, pre_bytes: bytes, rest: memoryview, out: memoryview) -> None:
        expected = encode_header(self._key.kid, pre.index)
        start = len(expected)
        if len(rest) != start + pre.plain_len + TAG_BYTES:
            raise CorruptSegment("record has the wrong length")
        if rest[:start] != expected:
            raise CorruptSegment("record has another key id or counter")
        self._key.open_into(pre.index, expected, pre_bytes, rest[start:], out)
