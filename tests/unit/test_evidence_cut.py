"""A shortened segment file is told apart from an altered one without any key."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from appliance.evf.scan import SegmentScan, scan_segment
from appliance.evidence.cut import Cut, find_cut
from appliance.evidence.manifest import SegmentEntry, verify_session
from tests.sessions import RATE, Built, Plan, build_session

NAME = "1-video-0.evf"  # INIT at 42 s, fragments at 42, 44 and 46 s, END: 42 to 48 s


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build_session(tmp_path)


def entry_of(built: Built, name: str = NAME) -> SegmentEntry:
    return next(entry for entry in built.manifest.segments if entry.name == name)


def whole(built: Built) -> tuple[bytes, SegmentScan]:
    data = built.segment(NAME).read_bytes()
    return data, scan_segment(io.BytesIO(data))


def cut_of(built: Built, data: bytes) -> Cut | None:
    stream = io.BytesIO(data)
    return find_cut(entry_of(built), scan_segment(stream), stream, len(data))


def findings(built: Built, data: bytes) -> list[tuple[str, Cut | None]]:
    def open_file(name: str) -> io.BytesIO:
        place = built.wrap().parent if name.endswith(".evk") else built.segment("x").parent
        return io.BytesIO(data if name == NAME else (place / name).read_bytes())

    return [(found.name, found.cut) for found in verify_session(built.manifest, open_file)]


def test_every_length_is_a_cut_from_the_first_whole_record_on(built: Built) -> None:
    data, scan = whole(built)
    ends = [record.offset_bytes + record.length_bytes for record in scan.records]
    until_s = {1: 42, 2: 42, 3: 46, 4: 48}  # one fragment alone does not say how long it lasts
    for length in range(len(data)):
        records = sum(end <= length for end in ends)
        wanted = Cut(records, 4 - records, until_s[records] * RATE) if records else None
        assert findings(built, data[:length]) == [(NAME, wanted)], length
    assert findings(built, data) == []


def test_flipped_length_that_swallows_the_next_records_is_no_cut(built: Built) -> None:
    data, scan = whole(built)
    short = bytearray(data[:-7])
    place = scan.records[2].offset_bytes + 12
    plain = int.from_bytes(short[place : place + 4], "big")
    for longer in (plain + 1, plain + 60, plain + 2**24):
        short[place : place + 4] = longer.to_bytes(4, "big")
        assert cut_of(built, bytes(short)) is None
    short[place : place + 4] = plain.to_bytes(4, "big")
    assert cut_of(built, bytes(short)) == Cut(4, 0, 48 * RATE)


def test_cut_file_of_another_session_or_place_is_no_cut(built: Built) -> None:
    other = built.segment("0-video-0.evf").read_bytes()
    assert findings(built, other[:-40]) == [(NAME, None)]
    assert findings(built, b"") == [(NAME, None)]


def test_bytes_put_in_place_of_the_tail_are_no_cut(built: Built) -> None:
    data, scan = whole(built)
    start = scan.records[3].offset_bytes
    assert cut_of(built, data[:start]) is not None
    assert cut_of(built, data[:start] + bytes(30)) is None
    assert cut_of(built, data[:start] + b"CHNX") is None


def test_time_of_a_torn_record_is_not_believed(built: Built) -> None:
    data, scan = whole(built)
    torn = scan.records[2]
    short = bytearray(data[: torn.offset_bytes + 40])
    honest = cut_of(built, bytes(short))
    short[torn.offset_bytes + 16 : torn.offset_bytes + 24] = (48 * RATE).to_bytes(8, "big")
    assert cut_of(built, bytes(short)) == honest == Cut(2, 2, 42 * RATE)


def test_open_ended_segment_that_was_cut_later(tmp_path: Path) -> None:
    built = build_session(tmp_path, Plan(open_ended=frozenset({NAME})))
    data, scan = whole(built)
    assert findings(built, data[:-1]) == [(NAME, Cut(3, 1, 46 * RATE))]
    assert findings(built, data[: scan.records[1].offset_bytes]) == [(NAME, Cut(1, 3, 42 * RATE))]
