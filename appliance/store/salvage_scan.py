"""What a file from a dying disk still holds, without a key: whole records, also behind a damaged one. Pure reading.

A record that is reported is whole by its framing and has no page of zeros; only its key says that it is authentic.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.evf.errors import EvfError
from appliance.evf.format import (
    PRE_BYTES,
    RECORD_MAGIC,
    TAG_BYTES,
    Header,
    Pre,
    RecordKind,
    read_prefix,
)
from appliance.evf.scan import has_hole
from appliance.evf.sframe import encode_header


@dataclass(frozen=True)
class FoundRecord:
    """One whole record and where it stands."""

    index: int
    kind: RecordKind
    time_90k: int
    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True)
class Damage:
    """`bytes` from `byte` on are no whole record; `record` is the number that belongs there. `what` in words."""

    byte: int
    bytes: int
    record: int
    what: str


@dataclass(frozen=True)
class FoundSegment:
    """A segment whose header is whole.

    `beginning`: the records from the first on without a hole; readers open these as a file of their own.
    `behind`: whole records that stand behind damage; each opens by itself, at its offset. `closed`: END ends it.
    """

    header: Header
    prefix_bytes: int
    size_bytes: int
    beginning: tuple[FoundRecord, ...]
    behind: tuple[FoundRecord, ...]
    damage: tuple[Damage, ...]

    @property
    def beginning_bytes(self) -> int:
        """Where the last record of the beginning ends."""
        last = self.beginning[-1] if self.beginning else None
        return self.prefix_bytes if last is None else last.offset_bytes + last.length_bytes

    @property
    def closed(self) -> bool:
        """Whole from its header to its END."""
        return not self.damage and bool(self.beginning) and self.beginning[-1].kind is RecordKind.END

    @property
    def cut(self) -> bool:
        """Only its end is missing, as after a power cut: no record stands behind what is damaged."""
        return len(self.damage) <= 1 and not self.behind and not self.closed


def examine_segment(path: Path, unreadable: Sequence[tuple[int, int]] = ()) -> FoundSegment:
    """EvfError when the header is not whole: without it no key is derived, and nothing opens.

    `unreadable`: (byte, bytes) spans that the medium did not give and that stand as zeros in the file.
    """
    with path.open("rb") as stream:
        header_bytes, commit = read_prefix(stream)
        header = Header.decode(header_bytes)
        prefix_bytes = len(header_bytes) + len(commit)
        if any(start < prefix_bytes for start, _ in unreadable):
            raise EvfError("header could not be read from the medium")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            walk = _Walk(data, header.seg, prefix_bytes, unreadable)
            records = list(walk.records())
            size_bytes = len(data)
    first_hole = walk.damage[0].byte if walk.damage else size_bytes
    beginning = tuple(record for record in records if record.offset_bytes < first_hole)
    return FoundSegment(
        header, prefix_bytes, size_bytes, beginning, tuple(records[len(beginning) :]), tuple(walk.damage)
    )


class _Walk:
    """From record to record; after damage to the next place where a later record of this file begins."""

    def __init__(self, data: mmap.mmap, seg: int, start: int, unreadable: Sequence[tuple[int, int]]) -> None:
        self._data = data
        self._seg = seg
        self._at = start
        self._next = 0
        self._unreadable = unreadable
        self.damage: list[Damage] = []

    def records(self) -> Iterator[FoundRecord]:
        ended = False
        while self._at < len(self._data):
            record = None if ended else self._record_at(self._at)
            if record is None or record.index < self._next:
                self._skip("bytes follow the end record" if ended else "no whole record begins here", ended)
                continue
            reason = self._spoilt(record)
            if reason:
                self._note(record.offset_bytes, record.length_bytes, record.index, reason)
            else:
                if record.index > self._next and not self._explained(record.offset_bytes):
                    missing = record.index - self._next
                    self._note(record.offset_bytes, 0, self._next, f"{missing} records are missing here")
                yield record
            self._at = record.offset_bytes + record.length_bytes
            self._next = record.index + 1
            ended = record.kind is RecordKind.END and not reason

    def _skip(self, what: str, ended: bool) -> None:
        """To the next record that could belong here, or to the end."""
        at = self._at
        found = -1 if ended else self._data.find(RECORD_MAGIC, at + 1)
        while found >= 0:
            record = self._record_at(found)
            if record is not None and record.index >= self._next:
                break
            found = self._data.find(RECORD_MAGIC, found + 1)
        end = found if found >= 0 else len(self._data)
        if found < 0 and not ended and self._begins_like_a_record(at):
            what = f"the file ends inside record {self._next}"
        elif any(start < end and at < start + length for start, length in self._unreadable):
            what = "the medium could not be read here"
        self._note(at, end - at, self._next, what)
        self._at = end

    def _note(self, byte: int, length: int, record: int, what: str) -> None:
        self.damage.append(Damage(byte, length, record, what))

    def _explained(self, offset: int) -> bool:
        return bool(self.damage) and self.damage[-1].byte + self.damage[-1].bytes == offset

    def _begins_like_a_record(self, at: int) -> bool:
        head = self._data[at : at + len(RECORD_MAGIC)]
        return RECORD_MAGIC.startswith(head)

    def _record_at(self, at: int) -> FoundRecord | None:
        """A record whose framing is this file's, whole by its length."""
        pre_bytes = self._data[at : at + PRE_BYTES]
        try:
            pre = Pre.decode(pre_bytes)
        except EvfError:
            return None
        expected = encode_header(self._seg, pre.index)
        start = at + PRE_BYTES
        length = PRE_BYTES + len(expected) + pre.plain_len + TAG_BYTES
        if self._data[start : start + len(expected)] != expected or at + length > len(self._data):
            return None
        return FoundRecord(pre.index, pre.kind, pre.time_90k, at, length)

    def _spoilt(self, record: FoundRecord) -> str:
        begin, end = record.offset_bytes, record.offset_bytes + record.length_bytes
        if any(start < end and begin < start + length for start, length in self._unreadable):
            return "the medium could not be read here"
        if has_hole(self._data[begin:end], begin):
            return "a page of zeros stands inside it"
        return ""
