"""Targets in `appliance/evf`: segments, wraps, key files, recipient sets, canonical JSON."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.evf import keyfile
from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import BadKeyFile, BadPassphrase, BadSignature, BadWrap, EvfError
from appliance.evf.format import Header, Pre, leaf_hash
from appliance.evf.reader import Outcome, Record, open_record
from appliance.evf.recipients import RecipientSet, RepresentativeKey, sign_recipient_set, verify_recipient_set
from appliance.evf.scan import SegmentScan, scan_segment
from appliance.evf.signed import sign_document
from appliance.evf.wraps import open_wrap, read_wrap
from appliance.evidence.cut import find_cut
from appliance.evidence.session import SegmentEntry
from tests.fuzz.engine import Accepted, Target
from tests.fuzz.mutate import altered
from tests.fuzz.mutate_json import altered_text
from tests.fuzz.segments import (
    altered_by_key_holder,
    altered_segment,
    family,
    header,
    read,
    rewritten,
    secret_of,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "evf1"
DEVICE = Ed25519PrivateKey.from_private_bytes(bytes(range(96, 128)))
ROOT = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PASSPHRASE = "correct horse battery staple"


def _scanned(data: bytes) -> SegmentScan | None:
    """The scan, held against what every scan must keep to; None where the file has no whole header."""
    try:
        scan = scan_segment(io.BytesIO(data))
    except EvfError:
        return None
    offset = scan.prefix_bytes
    for index, record in enumerate(scan.records):
        whole = data[offset : offset + record.length_bytes]
        if (record.index, record.offset_bytes, record.leaf) != (index, offset, leaf_hash(whole)):
            raise Accepted(f"scan reports record {index} that does not stand there")
        offset += record.length_bytes
    if offset != scan.whole_bytes or scan.ended != (not scan.reason) or (scan.ended and offset != len(data)):
        raise Accepted("scan ends where the file does not")
    return scan


Read = Callable[[bytes], tuple[list[Record], Outcome]]


@contextmanager
def segment(_folder: Path) -> Iterator[Target]:
    """Reader and scan: CLOSED is what was written, byte for byte, and every record returned is one of those."""
    yield segment_target(read)


def segment_target(reading: Read) -> Target:
    """As `segment`, for any reader."""
    segments = family()
    whole = [b"".join(each) for each in segments]
    closed = {data for data in whole if read(data)[1] is Outcome.CLOSED}
    known = {record.leaf for data in whole for record in read(data)[0]}

    def check(data: bytes) -> str:
        records, outcome = reading(data)
        scan = _scanned(data)
        if any(record.leaf not in known for record in records):
            raise Accepted("reader returned a record that nobody sealed")
        if outcome.value == "CLOSED" and (data not in closed or scan is None or not scan.ended):
            raise Accepted("reader takes an altered file for closed")
        there = -1 if scan is None else len(scan.records) - scan.ended
        if outcome.value != "CORRUPT" and there != len(records):
            raise Accepted("reader and scan count different records")
        return outcome.value

    return Target(lambda rng: altered_segment(rng, segments), check)


@contextmanager
def sealed(_folder: Path) -> Iterator[Target]:
    """By who holds the segment's key: CLOSED is only what the product's writer would have written."""

    def check(data: bytes) -> str:
        records, outcome = read(data)
        _scanned(data)
        if outcome is Outcome.CLOSED and rewritten(data, records) != data:
            raise Accepted("reader takes for closed what no writer writes")
        return outcome.value

    yield Target(altered_by_key_holder, check)


@contextmanager
def cut(_folder: Path) -> Iterator[Target]:
    """What `find_cut` calls cut is shorter, begins with whole records, and opens no further than it says."""
    segments = [parts for parts in family() if read(b"".join(parts))[1] is Outcome.CLOSED and len(parts) > 3]
    entries = {}
    for parts in segments:
        data = b"".join(parts)
        scan = scan_segment(io.BytesIO(data))
        entries[data] = SegmentEntry(
            "0-video-0.evf", scan.header.track, scan.header.cls, 0, scan.header.seg, len(data), "", len(scan.records),
            "CLOSED", 0, 900_000, ((0, len(scan.records)),),
        )  # fmt: skip

    def make(rng: Random) -> tuple[SegmentEntry, bytes]:
        parts = rng.choice(segments)
        whole = b"".join(parts)
        data = altered_segment(rng, [parts])
        return entries[whole], data[: rng.randint(0, len(data))] if rng.random() < 0.7 else data

    def check(value: tuple[SegmentEntry, bytes]) -> str:
        entry, data = value
        try:
            scan = scan_segment(io.BytesIO(data))
        except EvfError:
            return "refused"
        found = find_cut(entry, scan, io.BytesIO(data), len(data))
        if found is None:
            return "no cut"
        if len(data) >= entry.size_bytes or not entry.start_90k <= found.until_90k <= entry.end_90k:
            raise Accepted("a file that is not shorter counts as cut, or its end lies outside")
        if not 0 < found.records < entry.records or not 0 <= found.missing < entry.records:
            raise Accepted("the count of what a cut left is impossible")
        if len(read(data)[0]) > found.records:
            raise Accepted("more opens than the cut says")
        return "cut"

    yield Target(make, check)


@contextmanager
def record(_folder: Path) -> Iterator[Target]:
    """HEADER, PRE and one record read by seeking."""
    parts = family()[0]
    head, commit = parts[0][:-32], parts[0][-32:]
    headers = [each[0][:-32] for each in family()]
    known = set(parts[1:])

    def make(rng: Random) -> tuple[bytes, bytes]:
        if rng.random() < 0.5:
            return altered(rng, headers), parts[1]
        return head, altered(rng, parts[1:])

    def check(value: tuple[bytes, bytes]) -> str:
        header_bytes, data = value
        try:
            if Header.decode(header_bytes).encode() != header_bytes:
                raise Accepted("header has two spellings")
        except EvfError:
            return "header refused"
        try:
            if Pre.decode(data[:24]).encode() != data[:24]:
                raise Accepted("PRE has two spellings")
            open_record(data, header_bytes, secret_of(Header.decode(header_bytes)), commit)
        except EvfError:
            return "record refused"
        if header_bytes != head or data not in known:
            raise Accepted("a record that nobody sealed opens")
        return "opened"

    yield Target(make, check)


def _wrap_bodies() -> list[dict[str, Any]]:
    return [parse_canonical(path.read_bytes()) for path in sorted(VECTORS.glob("*.evk"))]


@contextmanager
def wrap(_folder: Path) -> Iterator[Target]:
    """.evk files as a stranger alters them, and bodies that a device signed: read, then opened where that is cheap."""
    seeds = _wrap_bodies()
    known = {canonical(seed) for seed in seeds}
    person = RepresentativeKey(bytes.fromhex(_vector_seed()))
    device = DEVICE.public_key()

    def make(rng: Random) -> tuple[bytes, bool]:
        if rng.random() < 0.5:
            return altered_text(rng, seeds, canonical), True
        data = altered_text(rng, [seed["body"] for seed in seeds], canonical)
        try:
            return canonical(sign_document("session-key", parse_canonical(data), DEVICE)), False
        except EvfError:
            return data, True

    def check(value: tuple[bytes, bool]) -> str:
        data, stranger = value
        try:
            context, wraps = read_wrap(data, device)
        except (BadSignature, BadWrap):
            return "refused"
        if stranger and data not in known:
            raise Accepted("a wrap that no device signed is read")
        try:
            open_wrap(data, person, device)
        except BadWrap:
            return "read"
        if canonical(seeds[0]["body"]["context"]) != canonical(context.to_json()) or person.kid not in wraps:
            raise Accepted("a key opens in another context")
        return "opened"

    yield Target(make, check)


def _vector_seed() -> str:
    """The representative's seed of the vectors, in hex."""
    return str(json.loads((VECTORS / "expected.json").read_text())["wrap"]["representative_seed"])


@contextmanager
def recipients(_folder: Path) -> Iterator[Target]:
    """Recipient sets: only what the root signed is taken, and what it signed in a wrong form is refused by name."""
    people = tuple(RepresentativeKey(bytes([n]) * 32).representative(f"person {n}") for n in (1, 2))
    documents = [
        sign_recipient_set(RecipientSet("uni", n, "2026-11-22T09:00:00.000Z", people[:n]), ROOT)
        for n in (1, 2)
    ]
    known = {canonical(document["body"]) for document in documents}

    def make(rng: Random) -> tuple[bytes, bool]:
        if rng.random() < 0.5:
            return altered_text(rng, documents), True
        data = altered_text(rng, [document["body"] for document in documents], canonical)
        try:
            return canonical(sign_document("recipient-set", parse_canonical(data), ROOT)), False
        except EvfError:
            return data, True

    def check(value: tuple[bytes, bool]) -> str:
        data, stranger = value
        document = loaded(data)
        if document is None:
            return "no JSON"
        try:
            found = verify_recipient_set(document, ROOT.public_key(), 0)
        except EvfError:
            return "refused"
        again = sign_recipient_set(found, ROOT)
        if canonical(again["body"]) != canonical(document["body"]):
            raise Accepted("a recipient set is read as another one")
        if stranger and canonical(again["body"]) not in known:
            raise Accepted("a recipient set that the root did not sign is taken")
        return "taken"

    yield Target(make, check)


def loaded(data: bytes) -> Any:
    """As `appliance.trust.load_document` reads a file; None for what that refuses."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


@contextmanager
def key_file(_folder: Path) -> Iterator[Target]:
    """Key files with few iterations allowed, so that each try is cheap."""
    before = keyfile.MIN_ITERATIONS, keyfile.MAX_ITERATIONS, keyfile.ITERATIONS
    keyfile.MIN_ITERATIONS, keyfile.MAX_ITERATIONS, keyfile.ITERATIONS = 1, 500, 100
    try:
        data = keyfile.save_secret("representative", bytes(range(32)), PASSPHRASE).removesuffix(b"\n")
        fields = parse_canonical(data)

        def check(value: bytes) -> str:
            try:
                secret = keyfile.load_secret("representative", value, PASSPHRASE)
            except BadKeyFile:
                return "refused"
            except BadPassphrase:
                return "does not open"
            if value.removesuffix(b"\n") != data or secret != bytes(range(32)):
                raise Accepted("an altered key file opens")
            return "opened"

        yield Target(lambda rng: altered_text(rng, [fields], canonical), check)
    finally:
        keyfile.MIN_ITERATIONS, keyfile.MAX_ITERATIONS, keyfile.ITERATIONS = before


@contextmanager
def json_form(_folder: Path) -> Iterator[Target]:
    """`parse_canonical`: what it takes is the one spelling of its value."""
    seeds: list[Any] = [
        {"b": [1, -2, None, True, 'é \u2028 \x7f \\ " / \n 😀'], "a": {"z": {}, "y": [0.5, 1e300]}},
        parse_canonical(header().encode()[12:]),
        {"sealed": base64.b64encode(bytes(60)).decode(), "n": 2**53 - 1, "deep": [[[[{}]]]]},
    ]

    def check(data: bytes) -> str:
        try:
            value = parse_canonical(data)
        except EvfError:
            return "refused"
        if canonical(value) != data:
            raise Accepted("JSON in a second spelling is taken")
        return "taken"

    yield Target(lambda rng: altered_text(rng, seeds, canonical), check)
