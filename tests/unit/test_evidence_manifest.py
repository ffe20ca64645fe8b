"""A session's manifest: signed by the node, held against the files, refused when anything differs."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from appliance.errors import EvidenceBroken, NotTrusted
from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.format import Header, RecordKind
from appliance.evf.keys import EpochKey
from appliance.evf.signed import sign_document
from appliance.evf.writer import SegmentWriter
from appliance.evidence.checkpoint import cosign, node_key_name, session_origin, sign_checkpoint
from appliance.evidence.manifest import (
    EventLeaf,
    Finding,
    Gap,
    LostLeaf,
    Manifest,
    SegmentEntry,
    WrapEntry,
    sign_manifest,
    verify_manifest,
    verify_session,
)
from appliance.evidence.merkle import event_leaf, root_of

NODE = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
ROOM = Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32)
CA = Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32)
SID = "0a" * 16
START = datetime(2026, 11, 22, 9, tzinfo=UTC)


def certificate(
    name: str,
    key: Any,
    issuer: str = "room 2.14 CA",
    issuer_key: Ed25519PrivateKey = CA,
    *,
    ca: bool = False,
    days: int = 365,
) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(START - timedelta(days=1))
        .not_valid_after(START - timedelta(days=1) + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(issuer_key, None)
    )


CA_CERT = certificate("room 2.14 CA", CA, ca=True)


def pem(cert: x509.Certificate) -> str:
    return cert.public_bytes(Encoding.PEM).decode()


def build() -> tuple[Manifest, dict[str, bytes]]:
    """Two video segments and one of events, interleaved with event leaves as the store would commit them."""
    key = EpochKey(bytes(range(32)))
    video, log = key.track("video"), key.track("log")

    def header(track: str, seg: int) -> Header:
        return Header(
            SID,
            0,
            "log" if track == "log" else "media",
            seg,
            track,
            "json" if track == "log" else "avc1.42E01E",
            "2026-11-22T09:00:00.000Z",
            "uni",
            "p1",
            "2027-05-22",
            bytes(32),
        )

    first = SegmentWriter(header("video", 0), video.next_segment())
    second = SegmentWriter(header("video", 1), video.next_segment())
    events = SegmentWriter(header("log", 0), log.next_segment())
    files = {"0-video-0.evf": first.prefix, "0-video-1.evf": second.prefix, "0-log-0.evf": events.prefix}
    runs: dict[str, list[tuple[int, int]]] = {name: [] for name in files}
    leaves: list[bytes] = []
    event_leaves: list[EventLeaf] = []

    def event(body: dict[str, Any]) -> None:
        event_leaves.append(EventLeaf(len(leaves), body))
        leaves.append(event_leaf(body))

    def put(name: str, record: Any) -> None:
        files[name] += record.data
        if runs[name] and sum(runs[name][-1]) == len(leaves):
            runs[name][-1] = (runs[name][-1][0], runs[name][-1][1] + 1)
        else:
            runs[name].append((len(leaves), 1))
        leaves.append(record.leaf)

    event({"event": "open"})
    put("0-video-0.evf", first.record(RecordKind.INIT, b"init", 0))
    put("0-video-0.evf", first.record(RecordKind.FRAGMENT, b"one", 0, True))
    put("0-log-0.evf", events.record(RecordKind.EVENT, b"{}", 1))
    put("0-video-0.evf", first.record(RecordKind.FRAGMENT, b"two", 180_000, True))
    put("0-video-0.evf", first.end(360_000))
    event({"event": "camera covered"})
    put("0-video-1.evf", second.record(RecordKind.INIT, b"init", 360_000))
    put("0-video-1.evf", second.record(RecordKind.FRAGMENT, b"three", 360_000, True))
    put("0-log-0.evf", events.end(540_000))
    event({"event": "close"})

    def entry(
        name: str, track: str, seg: int, records: int, outcome: str, start: int, end: int
    ) -> SegmentEntry:
        data = files[name]
        digest = hashlib.sha256(data).hexdigest()
        cls = "log" if track == "log" else "media"
        return SegmentEntry(
            name, track, cls, 0, seg, len(data), digest, records, outcome, start, end, tuple(runs[name])
        )

    files[f"{SID}.0.media.evk"] = b"wrap"
    checkpoint = sign_checkpoint(
        session_origin("7", SID), len(leaves), root_of(leaves), NODE, node_key_name("7")
    )
    manifest = Manifest(
        institution="uni",
        exam="stat1",
        room="2.14",
        desk="7",
        sid=SID,
        candidate_code="C-0017",
        policy_id="p1",
        policy_version=1,
        retain_until="2027-05-22",
        started="2026-11-22T09:00:00.000Z",
        ended="2026-11-22T09:00:06.000Z",
        recipient_set_version=4,
        segments=(
            entry("0-video-0.evf", "video", 0, 4, "CLOSED", 0, 360_000),
            entry("0-video-1.evf", "video", 1, 2, "OPEN_ENDED", 360_000, 540_000),
            entry("0-log-0.evf", "log", 0, 2, "CLOSED", 0, 540_000),
        ),
        wraps=(WrapEntry(f"{SID}.0.media.evk", hashlib.sha256(b"wrap").hexdigest(), 4),),
        events=tuple(event_leaves),
        gaps=(Gap(0, 180_000, "controller not reachable", True),),
        lost=(),
        leaves=len(leaves),
        checkpoint=checkpoint,
        cosignature=cosign(checkpoint, ROOM, "room/2.14", int(START.timestamp()) + 7),
        chain_pem=(pem(certificate("7", NODE)),),
        region="eu-central-1",
        storage="https://s3.example.eu/bucket",
    )
    return manifest, files


MANIFEST, FILES = build()


def opener(files: dict[str, bytes]) -> Callable[[str], BinaryIO]:
    def open_file(name: str) -> BinaryIO:
        if name not in files:
            raise FileNotFoundError(name)
        return io.BytesIO(files[name])

    return open_file


def test_manifest_round_trip_and_session_is_whole() -> None:
    data = sign_manifest(MANIFEST, NODE)
    read = verify_manifest(data, CA_CERT, ROOM.public_key())
    assert read == MANIFEST
    assert verify_session(read, opener(FILES)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retain_until", "2030-01-01"),
        ("candidate_code", "C-0018"),
        ("gaps", []),
        ("events", []),
        ("ended", "2026-11-22T10:00:00.000Z"),
        ("leaves", 9),
    ],
)
def test_a_changed_manifest_is_refused(name: str, value: Any) -> None:
    """F111: a moved retention date breaks the signature."""
    document = parse_canonical(sign_manifest(MANIFEST, NODE))
    document["body"][name] = value
    with pytest.raises((NotTrusted, EvidenceBroken)):
        verify_manifest(canonical(document), CA_CERT, ROOM.public_key())


def test_retention_date_is_in_every_segment_too() -> None:
    """F111: a node that signs another date than it recorded under is noticed."""
    moved = replace(MANIFEST, retain_until="2030-01-01")
    read = verify_manifest(sign_manifest(moved, NODE), CA_CERT, ROOM.public_key())
    findings = verify_session(read, opener(FILES))
    assert [finding.name for finding in findings] == [entry.name for entry in MANIFEST.segments]
    assert "retention" in findings[0].problem


CHAINS: dict[str, Callable[[], tuple[str, ...]]] = {
    "none": lambda: (),
    "rubbish": lambda: ("x",),
    "not ascii": lambda: ("é",),
    "other desk": lambda: (pem(certificate("8", NODE)),),
    "other key": lambda: (pem(certificate("7", ROOM)),),
    "other CA's key": lambda: (pem(certificate("7", NODE, issuer_key=ROOM)),),
    "other CA's name": lambda: (pem(certificate("7", NODE, issuer="room 2.15 CA")),),
    "expired": lambda: (pem(certificate("7", NODE, days=1)),),
    "is a CA": lambda: (pem(certificate("7", NODE, ca=True)),),
    "is the CA": lambda: (pem(CA_CERT),),
    "no Ed25519": lambda: (pem(certificate("7", ec.generate_private_key(ec.SECP256R1()))),),
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())
def test_other_certificates_are_refused(chain: Callable[[], tuple[str, ...]]) -> None:
    data = sign_manifest(replace(MANIFEST, chain_pem=chain()), NODE)
    with pytest.raises(NotTrusted):
        verify_manifest(data, CA_CERT, None)


def test_the_room_ca_must_be_a_ca() -> None:
    no_ca = certificate("room 2.14 CA", CA)
    with pytest.raises(NotTrusted):
        verify_manifest(sign_manifest(MANIFEST, NODE), no_ca, None)


def test_a_missing_or_foreign_cosignature_is_refused() -> None:
    unwitnessed = sign_manifest(replace(MANIFEST, cosignature=""), NODE)
    assert verify_manifest(unwitnessed, CA_CERT, None).cosignature == ""
    with pytest.raises(NotTrusted):
        verify_manifest(unwitnessed, CA_CERT, ROOM.public_key())
    with pytest.raises(NotTrusted):
        verify_manifest(sign_manifest(MANIFEST, NODE), CA_CERT, NODE.public_key())


def test_a_checkpoint_of_another_session_is_refused() -> None:
    foreign = sign_checkpoint(
        session_origin("7", "0b" * 16), MANIFEST.leaves, bytes(32), NODE, node_key_name("7")
    )
    with pytest.raises(NotTrusted):
        verify_manifest(sign_manifest(replace(MANIFEST, checkpoint=foreign), NODE), CA_CERT, None)


VIDEO = MANIFEST.segments[0]
CONTRADICTIONS: dict[str, Manifest] = {
    "leaf twice": replace(MANIFEST, events=(*MANIFEST.events, MANIFEST.events[0])),
    "leaf missing": replace(MANIFEST, events=MANIFEST.events[1:]),
    "leaf too many": replace(MANIFEST, events=(*MANIFEST.events, EventLeaf(MANIFEST.leaves, {}))),
    "records": replace(MANIFEST, segments=(replace(VIDEO, records=3), *MANIFEST.segments[1:])),
    "outcome": replace(MANIFEST, segments=(replace(VIDEO, outcome="CORRUPT"), *MANIFEST.segments[1:])),
    "span": replace(MANIFEST, segments=(replace(VIDEO, start_90k=999_999), *MANIFEST.segments[1:])),
    "path": replace(MANIFEST, segments=(replace(VIDEO, name="../x"), *MANIFEST.segments[1:])),
    "name twice": replace(MANIFEST, segments=(replace(VIDEO, name="0-log-0.evf"), *MANIFEST.segments[1:])),
    "digest": replace(MANIFEST, segments=(replace(VIDEO, sha256="00"), *MANIFEST.segments[1:])),
    "empty run": replace(
        MANIFEST, segments=(replace(VIDEO, leaf_runs=((0, 0), *VIDEO.leaf_runs)), *MANIFEST.segments[1:])
    ),
}


@pytest.mark.parametrize("manifest", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_contradictions_are_neither_signed_nor_accepted(manifest: Manifest) -> None:
    with pytest.raises(EvidenceBroken):
        sign_manifest(manifest, NODE)
    data = canonical(sign_document("manifest", manifest.to_body(), NODE))
    with pytest.raises(EvidenceBroken):
        verify_manifest(data, CA_CERT, None)


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": True},
        {"segments": None},
        {"segments": [7]},
        {"segments": [{}]},
        {"segments": [{**MANIFEST.to_body()["segments"][0], "leaf_runs": [[1]]}]},
        {"segments": [{**MANIFEST.to_body()["segments"][0], "leaf_runs": [[True, 1]]}]},
        {"segments": [{**MANIFEST.to_body()["segments"][0], "size_bytes": "1"}]},
        {"events": [{"index": 0, "body": []}]},
        {"gaps": [{"start_90k": 0}]},
        {"chain_pem": [7]},
        {"ended": "now"},
        {"institution": None},
        {"extra": 1},
    ],
    ids=str,
)
def test_malformed_manifests_are_refused(change: dict[str, Any]) -> None:
    """F019: an institution among what it must have."""
    data = canonical(sign_document("manifest", {**MANIFEST.to_body(), **change}, NODE))
    with pytest.raises(EvidenceBroken):
        verify_manifest(data, CA_CERT, None)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"body":{}}'])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(EvidenceBroken):
        verify_manifest(data, CA_CERT, None)


def changed(name: str, data: bytes) -> list[Finding]:
    return verify_session(MANIFEST, opener({**FILES, name: data}))


def test_an_altered_segment_is_named_with_its_span() -> None:
    """F111: the finding names the file and the time."""
    name = "0-video-1.evf"
    for position in (20, 300, len(FILES[name]) - 1):
        data = bytearray(FILES[name])
        data[position] ^= 1
        assert changed(name, bytes(data)) == [
            Finding(name, 360_000, 540_000, "file was altered: its SHA-256 is not the manifest's")
        ]
    (finding,) = changed(name, FILES[name] + b"\0")
    assert finding.problem.startswith("file has ")
    assert finding.cut is None


def test_missing_files_are_named() -> None:
    for name in FILES:
        (finding,) = verify_session(MANIFEST, opener({n: d for n, d in FILES.items() if n != name}))
        assert (finding.name, finding.problem) == (name, "file is missing")


def test_an_altered_wrap_is_named() -> None:
    (finding,) = changed(f"{SID}.0.media.evk", b"gone")
    assert (finding.name, finding.start_90k, finding.end_90k) == (f"{SID}.0.media.evk", 0, 540_000)


def test_a_node_that_signs_other_footage_than_was_witnessed_is_noticed() -> None:
    """The digests in the manifest are the altered file's own; only the witnessed root gives it away."""
    data = bytearray(FILES["0-video-1.evf"])
    data[-1] ^= 1
    entry = replace(MANIFEST.segments[1], sha256=hashlib.sha256(data).hexdigest())
    lying = replace(MANIFEST, segments=(MANIFEST.segments[0], entry, MANIFEST.segments[2]))
    read = verify_manifest(sign_manifest(lying, NODE), CA_CERT, ROOM.public_key())
    (finding,) = verify_session(read, opener({**FILES, "0-video-1.evf": bytes(data)}))
    assert (finding.name, finding.problem) == (
        "manifest.json",
        "records and events do not lead to the witnessed root",
    )


def test_swapped_order_of_leaves_is_noticed() -> None:
    first, second = MANIFEST.events[:2]
    lying = replace(
        MANIFEST,
        events=(EventLeaf(first.index, second.body), EventLeaf(second.index, first.body), MANIFEST.events[2]),
    )
    (finding,) = verify_session(lying, opener(FILES))
    assert finding.name == "manifest.json"


def test_segments_that_are_not_what_the_manifest_says_are_named() -> None:
    for change, problem in (
        ({"track": "other"}, "another segment"),
        ({"outcome": "CLOSED"}, "does not end"),
    ):
        entry = replace(MANIFEST.segments[1], **change)
        lying = replace(MANIFEST, segments=(MANIFEST.segments[0], entry, MANIFEST.segments[2]))
        (finding,) = verify_session(lying, opener(FILES))
        assert finding.name == entry.name
        assert problem in finding.problem


def test_a_lost_record_is_admitted_and_named() -> None:
    """A record lost on the node keeps its leaf: the root still holds, and the loss has a name, time and cause."""
    from appliance.evf.scan import scan_segment

    name = "0-video-1.evf"
    scan = scan_segment(io.BytesIO(FILES[name]))
    last = scan.records[-1]
    rest = FILES[name][: last.offset_bytes]
    entry = MANIFEST.segments[1]
    (first, count), *others = entry.leaf_runs
    assert not others
    shorter = replace(
        entry,
        size_bytes=len(rest),
        sha256=hashlib.sha256(rest).hexdigest(),
        records=1,
        leaf_runs=((first, count - 1),),
    )
    lost = LostLeaf(first + count - 1, last.leaf.hex(), name, last.time_90k, "damaged on disk")
    honest = replace(MANIFEST, segments=(MANIFEST.segments[0], shorter, MANIFEST.segments[2]), lost=(lost,))
    read = verify_manifest(sign_manifest(honest, NODE), CA_CERT, ROOM.public_key())
    assert verify_session(read, opener({**FILES, name: rest})) == [
        Finding(name, 360_000, 360_000, "record was lost on the node: damaged on disk", declared=True)
    ]
    invented = replace(honest, lost=(replace(lost, leaf="00" * 32),))
    assert verify_session(invented, opener({**FILES, name: rest}))[-1].name == "manifest.json"
