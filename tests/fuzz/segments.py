"""Small segments under known keys, and alterations that know where their records are."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from random import Random

from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.format import PRE_BYTES, TAG_BYTES, Header, KeyClass, RecordKind
from appliance.evf.keys import EpochKey, SegmentSecret, derive_segment_keys, secret_at
from appliance.evf.reader import Outcome, Record, SegmentReader
from appliance.evf.scan import scan_segment
from appliance.evf.sframe import SframeKey, encode_header
from appliance.evf.writer import SegmentWriter
from tests.fuzz.mutate import EDGES, altered
from tests.fuzz.mutate_json import altered_json, spelled

K0 = EpochKey(bytes(range(32)))
PRE = struct.Struct(">4sBBHIIQ")
Content = tuple[RecordKind, bytes, int]

FILM: list[Content] = [
    (RecordKind.INIT, b"ftyp moov", 0),
    (RecordKind.FRAGMENT, b"first fragment " * 3, 0),
    (RecordKind.FRAGMENT, b"", 180_000),
    (RecordKind.FRAGMENT, b"third", 360_000),
]


def header(seg: int = 0, track: str = "video", cls: KeyClass = "media", salt: int = 0) -> Header:
    """Of one session; two with the same values have the same keys."""
    return Header(
        sid="0a" * 16,
        epoch=0,
        cls=cls,
        seg=seg,
        track=track,
        codec="avc1.42E01E",
        created="2026-11-22T09:00:00.000Z",
        institution="uni",
        policy_id="p1",
        retain_until="2027-05-22",
        salt=bytes([salt]) * 32,
    )


def secret_of(head: Header) -> bytes:
    """S(seg) of any header, as a representative has it."""
    return secret_at(K0, head.track, min(head.seg, 400))


def pieces(head: Header, content: Sequence[Content], end_90k: int = 540_000) -> list[bytes]:
    """[HEADER COMMIT, record, ..., END]"""
    writer = SegmentWriter(head, SegmentSecret(head.seg, bytearray(secret_of(head))))
    sealed = [
        writer.record(kind, plain, time_90k, key_frame=kind is RecordKind.FRAGMENT)
        for kind, plain, time_90k in content
    ]
    return [writer.prefix, *(record.data for record in sealed), writer.end(end_90k).data]


def family() -> list[list[bytes]]:
    """Segments as pieces: neighbours, the same keys over another text, another track, an open end, long counters."""
    other_text = [(kind, plain.upper(), time_90k) for kind, plain, time_90k in FILM]
    events = [(RecordKind.EVENT, canonical({"number": number}), number * 90_000) for number in range(3)]
    many = [(RecordKind.EVENT, b"%d" % number, number) for number in range(12)]
    return [
        pieces(header(), FILM),
        pieces(header(1), FILM),
        pieces(header(), other_text),
        pieces(header(track="log", cls="log"), events),
        pieces(header(), FILM)[:-1],
        pieces(header(300, salt=1), many),
        pieces(header(), FILM, 900_000),
        pieces(header(2), []),
    ]


def read(data: bytes) -> tuple[list[Record], Outcome]:
    """What the product's reader says, with the true key."""
    reader = SegmentReader(io.BytesIO(data), secret_of)
    return list(reader), reader.outcome


def rewritten(data: bytes, records: Sequence[Record]) -> bytes:
    """A CLOSED segment written again from what the reader returned: the only bytes that it may have had."""
    scan = scan_segment(io.BytesIO(data))
    writer = SegmentWriter(scan.header, SegmentSecret(scan.header.seg, bytearray(secret_of(scan.header))))
    out = writer.prefix
    for record in records:
        out += writer.record(record.kind, record.plaintext, record.time_90k, record.key_frame).data
    return out + writer.end(scan.records[-1].time_90k).data


def altered_segment(rng: Random, segments: Sequence[list[bytes]]) -> bytes:
    """Bytes, records, a record's clear fields or the header's JSON altered."""
    if rng.random() < 0.4:
        return altered(rng, [b"".join(each) for each in segments])
    parts = list(rng.choice(segments))
    while True:
        rng.choice((_swap, _drop, _repeat, _take, _pre, _header, _inside))(rng, parts, segments)
        if rng.random() < 0.6 or not parts:
            return b"".join(parts)


def _swap(rng: Random, parts: list[bytes], _segments: Sequence[list[bytes]]) -> None:
    first, second = rng.randrange(len(parts)), rng.randrange(len(parts))
    parts[first], parts[second] = parts[second], parts[first]


def _drop(rng: Random, parts: list[bytes], _segments: Sequence[list[bytes]]) -> None:
    del parts[rng.randrange(len(parts))]


def _repeat(rng: Random, parts: list[bytes], _segments: Sequence[list[bytes]]) -> None:
    parts.insert(rng.randint(0, len(parts)), rng.choice(parts))


def _take(rng: Random, parts: list[bytes], segments: Sequence[list[bytes]]) -> None:
    place = rng.randrange(len(parts))
    other = rng.choice(segments)
    parts[place : place + rng.randint(0, 1)] = [rng.choice(other)] if rng.random() < 0.5 else other[place:]


def _pre(rng: Random, parts: list[bytes], _segments: Sequence[list[bytes]]) -> None:
    place = rng.randrange(len(parts))
    if parts[place].startswith(b"CHNK") and len(parts[place]) >= PRE_BYTES:
        parts[place] = PRE.pack(*altered_pre(rng, parts[place])) + parts[place][PRE_BYTES:]


def altered_pre(rng: Random, record: bytes) -> list[int | bytes]:
    """The fields of PRE with one of them altered."""
    fields = list(PRE.unpack(record[:PRE_BYTES]))
    place = rng.randrange(1, len(fields))
    limit = (0, 8, 8, 16, 32, 32, 64)[place]
    fields[place] = rng.choice((fields[place] + rng.choice((-1, 1)), rng.choice(EDGES), rng.getrandbits(64)))
    fields[place] %= 2**limit
    return fields


def _header(rng: Random, parts: list[bytes], _segments: Sequence[list[bytes]]) -> None:
    if parts[0].startswith(b"EVF1"):
        length = int.from_bytes(parts[0][8:12], "big")
        try:
            body = parse_canonical(parts[0][12 : 12 + length])
        except ValueError:
            return
        data = spelled(altered_json(rng, [body]), canonical)
        parts[0] = parts[0][:8] + len(data).to_bytes(4, "big") + data + parts[0][12 + length :]


def _inside(rng: Random, parts: list[bytes], _segments: Sequence[list[bytes]]) -> None:
    place = rng.randrange(len(parts))
    parts[place] = altered(rng, [parts[place]])


def altered_by_key_holder(rng: Random) -> bytes:
    """Authentic records of a wrong form or in a wrong order: what somebody with the segment's key could seal."""
    head = header(rng.choice((0, 0, 7, 8, 300)), salt=rng.randrange(3))
    prefix, *records = pieces(head, FILM[: rng.randint(0, 4)])
    base_key, _ = derive_segment_keys(secret_of(head), head.encode())
    key = SframeKey(base_key, head.seg)
    again = [_resealed(rng, key, head.seg, record) if rng.random() < 0.3 else record for record in records]
    parts = [prefix, *again]
    while rng.random() < 0.3 and parts:
        rng.choice((_swap, _drop, _repeat))(rng, parts, [parts])
    return b"".join(parts)


def _resealed(rng: Random, key: SframeKey, seg: int, record: bytes) -> bytes:
    pre, index = record[:PRE_BYTES], PRE.unpack(record[:PRE_BYTES])[4]
    sframe = encode_header(seg, index)
    sealed = record[PRE_BYTES + len(sframe) :]
    opened = bytearray(len(sealed) - TAG_BYTES)
    key.open_into(index, sframe, pre, sealed, memoryview(opened))
    plain = bytes(opened)
    fields = altered_pre(rng, record) if rng.random() < 0.7 else list(PRE.unpack(record[:PRE_BYTES]))
    if rng.random() < 0.4:
        plain = altered(rng, [plain])[:100]
        fields[5] = len(plain)
    pre, ctr = PRE.pack(*fields), int(fields[4])
    sframe = encode_header(seg, ctr) if rng.random() < 0.9 else encode_header(rng.choice((0, 8, 300)), ctr)
    out = bytearray(len(plain) + TAG_BYTES)
    key.seal_into(ctr, sframe, pre, plain, memoryview(out))
    return pre + sframe + bytes(out)
