"""Writer, reader and scanner: what was written is read, and nothing else is (F080)."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from collections.abc import Callable
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import CorruptSegment, EvfError, LimitExceeded, WriterClosed
from appliance.evf.format import MAX_PLAINTEXT_BYTES, MAX_RECORDS, Header, Pre, RecordKind
from appliance.evf.keys import EpochKey, SegmentSecret, secret_at
from appliance.evf.reader import Outcome, Record, SegmentReader, open_record, scan_segment
from appliance.evf.sframe import encode_header
from appliance.evf.writer import SealedRecord, SegmentWriter

K0 = EpochKey(bytes(range(32)))
PLAIN = [b"init", b"first fragment", b"", b"second"]


def header(seg: int = 0, track: str = "video", **change: object) -> Header:
    values: dict[str, object] = {
        "sid": "0a" * 16,
        "epoch": 0,
        "cls": "media",
        "seg": seg,
        "track": track,
        "codec": "avc1.42E01E",
        "created": "2026-11-22T09:00:00.000Z",
        "institution": "uni",
        "policy_id": "p1",
        "retain_until": "2027-05-22",
        "salt": bytes(32),
    }
    return Header(**{**values, **change})  # type: ignore[arg-type]


def writer(head: Header | None = None) -> SegmentWriter:
    head = head or header()
    return SegmentWriter(head, SegmentSecret(head.seg, bytearray(secret_at(K0, head.track, head.seg))))


def parts(head: Header | None = None, plain: list[bytes] = PLAIN) -> list[bytes]:
    """[prefix, record, ..., END]"""
    target = writer(head)
    sealed = [target.record(RecordKind.FRAGMENT, data, 9000 * n, n % 2 == 0) for n, data in enumerate(plain)]
    return [target.prefix, *(record.data for record in sealed), target.end(9000 * len(plain)).data]


def secret_for(head: Header) -> bytes:
    return secret_at(K0, head.track, head.seg)


def read(data: bytes) -> tuple[list[Record], Outcome, str]:
    reader = SegmentReader(io.BytesIO(data), secret_for)
    records = list(reader)
    return records, reader.outcome, reader.reason


WHOLE = b"".join(parts())


def test_what_was_written_is_read() -> None:
    target = writer()
    sealed: list[SealedRecord] = [
        target.record(RecordKind.INIT, b"init", 0),
        target.record(RecordKind.FRAGMENT, memoryview(b"x" * 1000), 0, key_frame=True),
        target.record(RecordKind.EVENT, bytearray(b"{}"), 2**64 - 1),
    ]
    end = target.end(5)
    data = target.prefix + b"".join(record.data for record in [*sealed, end])
    records, outcome, reason = read(data)
    assert (outcome, reason) == (Outcome.CLOSED, "")
    assert [(r.kind, r.plaintext, r.time_90k, r.key_frame) for r in records] == [
        (RecordKind.INIT, b"init", 0, False),
        (RecordKind.FRAGMENT, b"x" * 1000, 0, True),
        (RecordKind.EVENT, b"{}", 2**64 - 1, False),
    ]
    for record, written in zip(records, sealed, strict=True):
        assert data[record.offset_bytes :][: record.length_bytes] == written.data
        assert record.leaf == written.leaf == hashlib.sha256(b"\0" + written.data).digest()
    scan = scan_segment(io.BytesIO(data))
    assert [record.leaf for record in scan.records] == [record.leaf for record in [*sealed, end]]
    assert (scan.whole_bytes, scan.ended, scan.reason) == (len(data), True, "")
    assert (scan.header, scan.prefix_bytes) == (target.header, len(target.prefix))
    assert target.prefix.endswith(scan.commit)


@given(
    st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 2**64 - 1), st.booleans()), max_size=12),
    st.integers(0, 200),
)
@settings(max_examples=60, deadline=None)
def test_round_trip(records: list[tuple[bytes, int, bool]], seg: int) -> None:
    target = writer(header(seg))
    data = target.prefix
    for plain, time_90k, key_frame in records:
        data += target.record(RecordKind.FRAGMENT, plain, time_90k, key_frame).data
    closed = data + target.end(0).data
    got, outcome, _ = read(closed)
    assert outcome is Outcome.CLOSED
    assert [(r.plaintext, r.time_90k, r.key_frame) for r in got] == records
    assert read(data)[1] is Outcome.OPEN_ENDED


def test_a_record_is_its_own_after_the_next_one() -> None:
    """The writer reuses its buffer; what it gave out must not change, also behind a longer record."""
    target = writer()
    sealed = [
        target.record(RecordKind.FRAGMENT, bytes([n]) * size, n)
        for n, size in enumerate((50, 9000, 50, 0, 70))
    ]
    kept = [hashlib.sha256(b"\0" + record.data).digest() for record in sealed]
    assert kept == [record.leaf for record in sealed]
    data = target.prefix + b"".join(record.data for record in sealed) + target.end(9).data
    assert [len(record.plaintext) for record in read(data)[0]] == [50, 9000, 50, 0, 70]


def test_seeking_opens_one_record() -> None:
    records, _, _ = read(WHOLE)
    head = header().encode()
    for record in records:
        data = WHOLE[record.offset_bytes :][: record.length_bytes]
        commit = WHOLE[len(head) :][:32]
        opened = open_record(data, head, secret_for(header()), commit)
        assert (opened.plaintext, opened.index, opened.leaf) == (record.plaintext, record.index, record.leaf)
        for bad in (data[:-1], data + b"\0", b"", data[:20], data[:26]):
            with pytest.raises(CorruptSegment):
                open_record(bad, head, secret_for(header()))
        with pytest.raises(CorruptSegment):
            open_record(data, head, bytes(32), commit)
        with pytest.raises(CorruptSegment):
            open_record(data, header(1).encode(), secret_for(header()))


def test_every_cut_is_open_ended_or_refused() -> None:
    """A cut never looks closed, and what is returned before it is what was written."""
    prefix = len(parts()[0])
    for length in range(len(WHOLE)):
        records, outcome, _ = read(WHOLE[:length])
        assert outcome is (Outcome.CORRUPT if length < prefix else Outcome.OPEN_ENDED), length
        assert [record.plaintext for record in records] == PLAIN[: len(records)]
        if length >= prefix:
            scan = scan_segment(io.BytesIO(WHOLE[:length]))
            assert not scan.ended
            assert scan.whole_bytes <= length
            assert read(WHOLE[: scan.whole_bytes])[1] is Outcome.OPEN_ENDED
            content = [record for record in scan.records if record.kind is not RecordKind.END]
            assert len(content) == len(records)
        else:
            with pytest.raises(EvfError):
                scan_segment(io.BytesIO(WHOLE[:length]))


def test_every_flipped_bit_is_noticed() -> None:
    """F080: no single flipped bit is accepted as closed; what is still returned is what was written."""
    for position in range(len(WHOLE)):
        for bit in range(8):
            changed = bytearray(WHOLE)
            changed[position] ^= 1 << bit
            records, outcome, _ = read(bytes(changed))
            assert outcome is not Outcome.CLOSED, (position, bit)
            assert [record.plaintext for record in records] == PLAIN[: len(records)]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_fuzzed_files_never_raise_and_never_invent(data: st.DataObject) -> None:
    changed = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(changed)))
        stop = data.draw(st.integers(start, min(len(changed), start + 40)))
        changed[start:stop] = data.draw(st.binary(max_size=40))
    records, outcome, _ = read(bytes(changed))
    assert bytes(changed) == WHOLE or outcome is not Outcome.CLOSED
    assert [record.plaintext for record in records] == PLAIN[: len(records)]
    try:
        scan_segment(io.BytesIO(bytes(changed)))
    except EvfError:
        return


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_corrupt(data: bytes) -> None:
    assert read(data)[1] is Outcome.CORRUPT
    assert read(b"EVF1\r\n\x1a\n" + data)[1] is Outcome.CORRUPT


def test_moved_records_are_corrupt() -> None:
    """F080: swapped, dropped, duplicated and spliced records."""
    prefix, init, first, empty, second, end = parts()
    other = parts(header(1))
    same_keys_other_text = parts(plain=[b"INIT", *PLAIN[1:]])
    cases = {
        "swapped": [prefix, first, init, empty, second, end],
        "dropped": [prefix, init, empty, second, end],
        "dropped last": [prefix, init, first, empty, end],
        "duplicated": [prefix, init, init, first, empty, second, end],
        "spliced": [prefix, init, other[2], empty, second, end],
        "same key": [prefix, same_keys_other_text[1], first, empty, second, end],
        "end in the middle": [prefix, init, first, end, empty, second, end],
        "end twice": [prefix, init, first, empty, second, end, end],
        "after the end": [prefix, init, first, empty, second, end, b"\0"],
        "end alone": [prefix, end],
        "other prefix": [other[0], init, first, empty, second, end],
        "no prefix": [init, first, empty, second, end],
    }
    for name, pieces in cases.items():
        _, outcome, reason = read(b"".join(pieces))
        assert outcome is Outcome.CORRUPT, name
        assert reason, name
    assert read(b"".join([prefix, init, first, empty, second, end]))[1] is Outcome.CLOSED


def test_an_early_end_must_carry_its_own_chain() -> None:
    target = writer()
    early = target.prefix + target.record(RecordKind.INIT, b"init", 0).data
    full = writer()
    for data in PLAIN:
        full.record(RecordKind.INIT, data, 0)
    assert read(early + full.end(0).data)[1] is Outcome.CORRUPT
    assert read(early + target.end(0).data)[1] is Outcome.CLOSED


def test_wrong_key_and_wrong_key_id_are_corrupt() -> None:
    reader = SegmentReader(io.BytesIO(WHOLE), lambda _: bytes(32))
    assert list(reader) == []
    assert reader.outcome is Outcome.CORRUPT
    assert "key does not belong" in reader.reason
    prefix, first, *_ = parts()
    wrong = prefix + first[:24] + encode_header(1, 0) + first[25:]
    assert read(wrong)[1] is Outcome.CORRUPT
    assert "key id" in read(wrong)[2]
    assert scan_segment(io.BytesIO(wrong)).records == []


def test_errors_of_the_key_source_pass_through() -> None:
    def locked(head: Header) -> bytes:
        raise EvfError("no wrap for this class")

    with pytest.raises(EvfError, match="no wrap"):
        list(SegmentReader(io.BytesIO(WHOLE), locked))


def test_a_reader_is_used_once_and_says_so_when_left_early() -> None:
    reader = SegmentReader(io.BytesIO(WHOLE), secret_for)
    assert next(iter(reader)).plaintext == PLAIN[0]
    assert reader.outcome is Outcome.CORRUPT
    assert reader.reason == "not read to its end"
    with pytest.raises(EvfError):
        list(reader)


class Greedy(io.BytesIO):
    """Remembers the largest read that was asked for."""

    largest = 0

    def read(self, size: int | None = -1) -> bytes:
        self.largest = max(self.largest, size or 0)
        return super().read(size)


@pytest.mark.parametrize("reading", [lambda s: list(SegmentReader(s, secret_for)), scan_segment])
@pytest.mark.parametrize("length", [MAX_PLAINTEXT_BYTES + 1, 2**32 - 1])
def test_a_record_over_the_limit_is_refused_before_it_is_read(
    reading: Callable[[BinaryIO], object], length: int
) -> None:
    prefix, first, *_ = parts()
    stream = Greedy(prefix + first[:12] + length.to_bytes(4, "big") + first[16:] + bytes(100))
    reading(stream)
    assert stream.largest < 5000


def test_a_header_over_the_limit_is_refused_before_it_is_read() -> None:
    for length in (4097, 2**32 - 1):
        stream = Greedy(b"EVF1\r\n\x1a\n" + length.to_bytes(4, "big") + bytes(5000))
        reader = SegmentReader(stream, secret_for)
        assert list(reader) == []
        assert "more than 4096" in reader.reason
        assert stream.largest == 12


def test_writer_refuses_what_is_over_the_limits_and_stays_usable() -> None:
    target = writer()
    with pytest.raises(LimitExceeded):
        target.record(RecordKind.FRAGMENT, bytes(MAX_PLAINTEXT_BYTES + 1), 0)
    with pytest.raises(LimitExceeded):
        target.record(RecordKind.FRAGMENT, b"", 2**64)
    with pytest.raises(EvfError):
        target.record(RecordKind.END, b"", 0)
    with pytest.raises(CorruptSegment):
        target.record(RecordKind.INIT, b"", 0, key_frame=True)
    assert target.record(RecordKind.INIT, b"x", 0).index == 0
    target._next_index = MAX_RECORDS - 1
    with pytest.raises(LimitExceeded):
        target.record(RecordKind.INIT, b"x", 0)
    assert target.end(0).index == MAX_RECORDS - 1


def test_the_largest_record_passes() -> None:
    target = writer()
    data = target.prefix + target.record(RecordKind.FRAGMENT, bytes(MAX_PLAINTEXT_BYTES), 0).data
    records, outcome, _ = read(data)
    assert outcome is Outcome.OPEN_ENDED
    assert len(records[0].plaintext) == MAX_PLAINTEXT_BYTES


def test_a_closed_writer_takes_nothing_and_keeps_no_key() -> None:
    """F083: the segment's secret is gone when the writer has it, the key when the segment is closed."""
    secret = SegmentSecret(0, bytearray(secret_for(header())))
    target = SegmentWriter(header(), secret)
    assert secret.secret == bytes(32)
    target.end(0)
    assert target.closed
    assert target._key is None
    for closed in (target, writer()):
        closed.erase()
        with pytest.raises(WriterClosed):
            closed.record(RecordKind.INIT, b"", 0)
        with pytest.raises(WriterClosed):
            closed.end(0)


def test_a_record_in_place_is_the_same_until_the_next() -> None:
    def secret() -> SegmentSecret:
        return SegmentSecret(0, bytearray(b"s" * 32))

    kept, passing = SegmentWriter(header(0), secret()), SegmentWriter(header(0), secret(), in_place=True)
    for plain in (b"first", b"x" * 70_000, b"third"):
        one, other = (each.record(RecordKind.FRAGMENT, plain, 7) for each in (kept, passing))
        assert (bytes(other.data), other.leaf) == (one.data, one.leaf)
    before = bytes(other.data)
    assert bytes(passing.end(7).data) == kept.end(7).data
    assert bytes(other.data) != before


def test_a_secret_of_another_segment_is_refused() -> None:
    with pytest.raises(EvfError):
        SegmentWriter(header(1), SegmentSecret(0, bytearray(32)))


def test_reader_memory_does_not_grow_with_the_file() -> None:
    def peak(records: int) -> int:
        target = writer()
        plain = bytes(100_000)
        data = target.prefix + b"".join(
            target.record(RecordKind.FRAGMENT, plain, 0).data for _ in range(records)
        )
        stream = io.BytesIO(data)
        tracemalloc.start()
        for _ in SegmentReader(stream, secret_for):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)  # first use of the library allocates for good
    assert peak(40) < peak(4) + 50_000


class Trickle(io.BytesIO):
    """A raw stream that gives a few bytes at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size, 7) if size and size > 0 else size)


def test_short_reads_are_no_end_of_file() -> None:
    reader = SegmentReader(Trickle(WHOLE), secret_for)
    assert [record.plaintext for record in reader] == PLAIN
    assert reader.outcome is Outcome.CLOSED
    assert scan_segment(Trickle(WHOLE)).ended


@pytest.mark.parametrize("tail", [bytes(1), bytes(24), bytes(5000), b"CHNK" + bytes(20), b"\xff" * 30])
def test_rubbish_behind_the_last_record_is_corrupt_and_recoverable(tail: bytes) -> None:
    """After a power cut a file system may leave zeros; the scan says where to truncate."""
    data = b"".join(parts()[:-1])
    assert read(data + tail)[1] is Outcome.CORRUPT
    scan = scan_segment(io.BytesIO(data + tail))
    assert scan.whole_bytes == len(data)
    assert len(scan.records) == len(PLAIN)
    assert not scan.ended


@pytest.mark.parametrize(
    "change",
    [
        {"sid": "0A" * 16},
        {"sid": "00"},
        {"sid": None},
        {"epoch": -1},
        {"epoch": 2**32},
        {"epoch": True},
        {"epoch": 1.0},
        {"cls": "video"},
        {"cls": None},
        {"seg": 2**20},
        {"seg": "0"},
        {"track": "Video"},
        {"track": ""},
        {"track": "a" * 33},
        {"codec": "a b"},
        {"codec": ""},
        {"created": "2026-11-22"},
        {"created": "2026-13-22T09:00:00Z"},
        {"created": "2026-11-22T09:00:00+01:00"},
        {"institution": ""},
        {"institution": "a/b"},
        {"policy_id": "é"},
        {"retain_until": "2027-02-30"},
        {"retain_until": "soon"},
        {"salt": bytes(31)},
        {"salt": "00" * 32},
    ],
    ids=str,
)
def test_header_values_are_checked(change: dict[str, object]) -> None:
    with pytest.raises(EvfError):
        header(**change)  # type: ignore[arg-type]


def test_header_round_trip_and_strict_shape() -> None:
    head = header(7)
    encoded = head.encode()
    assert Header.decode(encoded) == head
    body = parse_canonical(encoded[12:])
    bad: list[dict[str, object]] = [
        {**body, "v": 2},
        {**body, "v": True},
        {**body, "extra": 1},
        {**body, "policy": {"id": "p1"}},
        {**body, "policy": None},
        {**body, "salt": "00"},
        {**body, "salt": "G" * 64},
        {**body, "class": ["media"]},
        {name: value for name, value in body.items() if name != "seg"},
    ]
    for fields in bad:
        data = canonical(fields)
        with pytest.raises(CorruptSegment):
            Header.decode(encoded[:8] + len(data).to_bytes(4, "big") + data)
    with pytest.raises(CorruptSegment):
        Header.decode(encoded + b" ")
    with pytest.raises(CorruptSegment):
        Header.decode(encoded[:-1])
    with pytest.raises(CorruptSegment):
        Header.decode(b"")


@pytest.mark.parametrize(
    ("position", "value"), [(0, 0), (4, 0), (4, 4), (4, 254), (5, 2), (5, 128), (6, 1), (7, 1)]
)
def test_unknown_types_and_reserved_bits_are_refused_without_the_key(position: int, value: int) -> None:
    prefix, first, *_ = parts()
    changed = bytearray(first)
    changed[position] = value
    with pytest.raises(CorruptSegment):
        Pre.decode(bytes(changed[:24]))
    scan = scan_segment(io.BytesIO(prefix + bytes(changed)))
    assert (scan.records, scan.whole_bytes) == ([], len(prefix))


@given(
    st.binary(min_size=24, max_size=24) | st.binary(min_size=20, max_size=20).map(lambda tail: b"CHNK" + tail)
)
def test_a_decoded_prefix_is_in_its_only_form(data: bytes) -> None:
    try:
        pre = Pre.decode(data)
    except EvfError:
        return
    assert pre.encode() == data
