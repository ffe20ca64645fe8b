"""Reads a segment file round its damage: each record by itself, left out where it does not open.

What it gives is authentic and in its place within its segment; whether something is missing, only a manifest can say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from appliance.evf.errors import EvfError
from appliance.evf.format import PREFIX_FIXED_BYTES, RecordKind, header_json_length, leaf_hash
from appliance.evf.reader import Record, open_record
from appliance.store.salvage_scan import FoundRecord, FoundSegment
from appliance.timecode import clock_text


class RoundDamage:
    """One file whose header is whole. Iterate once; then `opened` records were given, and `notes` say what was not.

    `secret`: S(seg). `most_records`: so many records of content, and none behind them, are the segment's.
    `witnessed`: leaf of each, where they are known.
    """

    def __init__(
        self,
        path: Path,
        segment: FoundSegment,
        secret: bytes,
        most_records: int | None = None,
        witnessed: Sequence[bytes] | None = None,
    ) -> None:
        self._path = path
        self._segment = segment
        self._secret = secret
        self._most_records = most_records
        self._witnessed = witnessed
        self._spoilt = 0
        self._first_spoilt = ""
        self.opened = 0
        self.last_index = -1
        self.last_90k = 0

    def __iter__(self) -> Iterator[Record]:
        with self._path.open("rb") as stream:
            prefix = stream.read(self._segment.prefix_bytes)
            length = PREFIX_FIXED_BYTES + header_json_length(prefix[:PREFIX_FIXED_BYTES])
            header_bytes, commit = prefix[:length], prefix[length:]
            for place in (*self._segment.beginning, *self._segment.behind):
                if place.kind is RecordKind.END:
                    continue
                if self._most_records is not None and place.index >= self._most_records:
                    self._leave_out(place, "its manifest does not count it")
                    continue
                stream.seek(place.offset_bytes)
                data = stream.read(place.length_bytes)
                if self._witnessed is not None and leaf_hash(data) != self._witnessed[place.index]:
                    self._leave_out(place, "it is not the record that was witnessed")
                    continue
                try:
                    record = open_record(data, header_bytes, self._secret, commit)
                except EvfError as error:
                    self._leave_out(place, str(error))
                    continue
                self.opened += 1
                self.last_index, self.last_90k = record.index, record.time_90k
                yield record

    def _leave_out(self, place: FoundRecord, reason: str) -> None:
        self._first_spoilt = self._first_spoilt or f"{clock_text(place.time_90k)}: {reason}"
        self._spoilt += 1

    def notes(self) -> Iterator[str]:
        """What is damaged and was left out, one line each."""
        name = self._path.name
        for damage in self._segment.damage:
            yield f"{name}: damaged from byte {damage.byte} on, {damage.bytes} bytes: {damage.what}"
        if self._spoilt:
            yield (
                f"{name}: {self._spoilt} records do not open and are left out, the first at {self._first_spoilt}"
            )
