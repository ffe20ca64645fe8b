"""Signs and verifies the manifest of one recorded session, and holds its files against it without any key.

HPKE Base does not authenticate its sender; the device key's signature here, under the room CA, does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import SEEK_END
from typing import BinaryIO

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.errors import EvidenceBroken, NotTrusted
from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import BadSignature, EvfError
from appliance.evf.format import Header
from appliance.evf.scan import scan_segment
from appliance.evf.signed import sign_document, verify_document
from appliance.evidence.checkpoint import (
    Checkpoint,
    node_key_name,
    session_origin,
    signature_name,
    verify_checkpoint,
    verify_cosignature,
)
from appliance.evidence.cut import Cut, find_cut
from appliance.evidence.device import UNUSABLE, device_key, ed25519_key
from appliance.evidence.merkle import HASH_BYTES, event_leaf, root_of
from appliance.evidence.session import (
    EventLeaf,
    Gap,
    LostLeaf,
    Manifest,
    SegmentEntry,
    WrapEntry,
    check_consistent,
)

__all__ = [
    "DAMAGED",
    "GONE",
    "LEAVES_NAME",
    "Cut",
    "EventLeaf",
    "FileState",
    "Finding",
    "Gap",
    "LostLeaf",
    "Manifest",
    "OpenedSegment",
    "SegmentEntry",
    "WrapEntry",
    "header_problem",
    "leaf_indices",
    "read_checkpoint",
    "read_leaves",
    "sign_manifest",
    "verify_manifest",
    "verify_session",
]

PURPOSE = "manifest"
MANIFEST_NAME = "manifest.json"
# Beside damaged files: all leaves of the session, 32 bytes each. The root proves them, so that nobody has to sign them.
LEAVES_NAME = "leaves.bin"
MAX_MANIFEST_BYTES = 64 * 2**20
# What happened to a file that a release lets be another than the manifest's.
DAMAGED, GONE = "damaged on the desk before it was sent", "gone from the desk before the rest was sent"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileState:
    """What lies in a file's place: its size and SHA-256, or 0 and None where nothing does."""

    size_bytes: int
    sha256: str | None


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be: the file, and the span of the session that it concerns.

    `declared`: the manifest itself says so (a record lost on the node), or a release (`damaged`: the file is not the
    manifest's, and is to the byte what was released). `cut`: the file is a shorter beginning of what the manifest
    names, and nothing else was found wrong with it; then the span is what is missing.
    """

    name: str
    start_90k: int
    end_90k: int
    problem: str
    declared: bool = False
    cut: Cut | None = None
    damaged: bool = False


@dataclass(frozen=True)
class OpenedSegment:
    """A segment that somebody opened with its key, each record up to END: `verify_session` need not read it again.

    END speaks for HEADER and COMMIT, the leaves lead to the witnessed root: together every byte of the file, so that
    nothing is left that its SHA-256 could add (docs/format.md).
    """

    header: Header
    size_bytes: int
    leaves: tuple[bytes, ...]


def sign_manifest(manifest: Manifest, device_key: Ed25519PrivateKey) -> bytes:
    """manifest.json: a signed document, canonical; EvidenceBroken for a manifest that contradicts itself."""
    check_consistent(manifest)
    return canonical(sign_document(PURPOSE, manifest.to_body(), device_key))


def verify_manifest(
    data: bytes, room_ca_cert: x509.Certificate, controller_public_key: Ed25519PublicKey | None
) -> Manifest:
    """The manifest, if the device named in it signed it under the room CA.

    NotTrusted: certificate not issued by this CA, not valid at `ended`, of another desk, no Ed25519; another
    signature; no cosignature though a controller key is given. EvidenceBroken: malformed or contradictory.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise EvidenceBroken("manifest is too large to be one")
    try:
        document = parse_canonical(data)
    except EvfError as error:
        raise EvidenceBroken(f"manifest is malformed: {error}") from error
    claimed = document.get("body")
    if not isinstance(claimed, dict):
        raise EvidenceBroken("manifest is malformed: no body")
    manifest = Manifest.from_body(claimed)
    key = device_key(claimed_device(manifest), room_ca_cert, manifest.desk, manifest.ended)
    try:
        verify_document(PURPOSE, document, key)
    except BadSignature as error:
        raise NotTrusted(f"manifest: {error}", error.hint) from error
    checkpoint = read_checkpoint(manifest, key)
    if checkpoint.size != manifest.leaves:
        raise EvidenceBroken(f"checkpoint covers {checkpoint.size} leaves, manifest {manifest.leaves}")
    check_consistent(manifest)
    if controller_public_key is not None:
        if not manifest.cosignature:
            raise NotTrusted(
                "checkpoint is not cosigned by the room controller", "the end was never witnessed"
            )
        name = signature_name(manifest.cosignature)
        verify_cosignature(manifest.checkpoint, manifest.cosignature, controller_public_key, name)
    return manifest


def read_checkpoint(manifest: Manifest, device_key: Ed25519PublicKey) -> Checkpoint:
    """The final checkpoint, verified against the device key and the session's own origin."""
    origin = session_origin(manifest.desk, manifest.sid)
    return verify_checkpoint(manifest.checkpoint, device_key, node_key_name(manifest.desk), origin)


def read_leaves(manifest: Manifest, data: bytes) -> tuple[bytes, ...]:
    """leaves.bin: all leaves of the session in order; EvidenceBroken unless they lead to the checkpoint's root."""
    leaves = tuple(data[place : place + HASH_BYTES] for place in range(0, len(data), HASH_BYTES))
    right = len(data) == HASH_BYTES * manifest.leaves
    if not right or root_of(leaves) != read_checkpoint(manifest, claimed_key(manifest)).root:
        raise EvidenceBroken(f"{LEAVES_NAME} does not lead to the witnessed root", "pull the session again")
    return leaves


def verify_session(
    manifest: Manifest,
    open_file: Callable[[str], BinaryIO],
    opened: Mapping[str, OpenedSegment] | None = None,
    released: Mapping[str, FileState] | None = None,
    known_leaves: Sequence[bytes] = (),
) -> list[Finding]:
    """Findings in the manifest's order, empty when all is well; the manifest is one from `verify_manifest`.

    `open_file(name)` gives a seekable binary stream or raises FileNotFoundError. `opened`: segments by name that
    were read to their END already. `released`: what else, by name, a verified release lets a file be.
    `known_leaves`: all of them, from `read_leaves`; they stand for those of damaged segments.
    """
    released = released or {}
    findings: list[Finding] = []
    leaves: dict[int, bytes] = {event.index: event_leaf(event.body) for event in manifest.events}
    leaves.update((leaf.index, bytes.fromhex(leaf.leaf)) for leaf in manifest.lost)
    unreadable = False
    for segment in manifest.segments:
        read = opened.get(segment.name) if opened else None
        if read:
            problem = _check_opened(manifest, segment, read, leaves)
            finding = Finding(segment.name, segment.start_90k, segment.end_90k, problem) if problem else None
        else:
            finding = _check_segment(manifest, segment, open_file, leaves, released)
        if finding:
            findings.append(finding)
        if finding and finding.damaged and known_leaves:
            leaves.update((index, known_leaves[index]) for index in leaf_indices(segment))
        elif finding:
            unreadable = True
    start_90k = min((segment.start_90k for segment in manifest.segments), default=0)
    end_90k = max((segment.end_90k for segment in manifest.segments), default=0)
    for wrap in manifest.wraps:
        problem, damaged = _check_bytes(wrap, open_file, released)
        if problem:
            findings.append(
                Finding(wrap.name, start_90k, end_90k, problem, declared=damaged, damaged=damaged)
            )
    findings.extend(
        Finding(
            leaf.name,
            leaf.time_90k,
            leaf.time_90k,
            f"record was lost on the node: {leaf.cause}",
            declared=True,
        )
        for leaf in manifest.lost
    )
    # A missing, cut, damaged or altered segment is named above; the root can only be computed with all leaves.
    if not unreadable:
        problem = _check_root(manifest, leaves)
        if problem:
            findings.append(Finding(MANIFEST_NAME, start_90k, end_90k, problem))
    return findings


def claimed_device(manifest: Manifest) -> x509.Certificate:
    """The desk's certificate that the manifest carries, held against nothing; NotTrusted if it cannot be read."""
    if not manifest.chain_pem:
        raise NotTrusted("manifest carries no device certificate")
    try:
        return x509.load_pem_x509_certificate(manifest.chain_pem[0].encode("ascii"))
    except UNUSABLE as error:
        raise NotTrusted(f"device certificate cannot be used: {error}") from error


def claimed_key(manifest: Manifest) -> Ed25519PublicKey:
    """The key in it."""
    return ed25519_key(claimed_device(manifest))


def _check_root(manifest: Manifest, leaves: dict[int, bytes]) -> str:
    if len(leaves) != manifest.leaves or any(index >= manifest.leaves for index in leaves):
        return "records and events do not fill the log"
    try:
        checkpoint = read_checkpoint(manifest, claimed_key(manifest))
    except (EvidenceBroken, NotTrusted) as error:
        return str(error)
    if root_of(leaves[index] for index in range(manifest.leaves)) != checkpoint.root:
        return "records and events do not lead to the witnessed root"
    return ""


def _check_segment(
    manifest: Manifest,
    entry: SegmentEntry,
    open_file: Callable[[str], BinaryIO],
    leaves: dict[int, bytes],
    released: Mapping[str, FileState],
) -> Finding | None:
    problem, damaged = _check_bytes(entry, open_file, released)
    if damaged:
        return Finding(entry.name, entry.start_90k, entry.end_90k, problem, declared=True, damaged=True)
    if problem:
        cut = _cut(manifest, entry, open_file)
        if cut:
            problem = f"file was cut after the recording, {cut.records} of {entry.records} records are there"
            return Finding(entry.name, cut.until_90k, entry.end_90k, problem, cut=cut)
    else:
        problem = _check_records(manifest, entry, open_file, leaves)
    return Finding(entry.name, entry.start_90k, entry.end_90k, problem) if problem else None


def _check_records(
    manifest: Manifest,
    entry: SegmentEntry,
    open_file: Callable[[str], BinaryIO],
    leaves: dict[int, bytes],
) -> str:
    try:
        with open_file(entry.name) as stream:
            scan = scan_segment(stream)
    except FileNotFoundError:
        return "file is missing"
    except EvfError as error:
        return str(error)
    problem = header_problem(manifest, entry, scan.header)
    if problem:
        return problem
    if scan.whole_bytes != entry.size_bytes or scan.ended != (entry.outcome == "CLOSED"):
        return f"file does not end as {entry.outcome}: {scan.reason or 'it has an end record'}"
    return _place_leaves(entry, [record.leaf for record in scan.records], leaves)


def _check_opened(
    manifest: Manifest, entry: SegmentEntry, read: OpenedSegment, leaves: dict[int, bytes]
) -> str:
    problem = header_problem(manifest, entry, read.header)
    if problem:
        return problem
    if entry.outcome != "CLOSED":
        return f"file does not end as {entry.outcome}: it has an end record"
    if read.size_bytes != entry.size_bytes:
        return f"file has {read.size_bytes} bytes, manifest says {entry.size_bytes}"
    return _place_leaves(entry, read.leaves, leaves)


def _place_leaves(entry: SegmentEntry, found: Sequence[bytes], leaves: dict[int, bytes]) -> str:
    if len(found) != entry.records:
        return f"file holds {len(found)} records, manifest says {entry.records}"
    leaves.update(zip(leaf_indices(entry), found, strict=True))
    return ""


def leaf_indices(entry: SegmentEntry) -> Iterator[int]:
    """Where the segment's records, in order, stand among the session's leaves."""
    return (first + step for first, count in entry.leaf_runs for step in range(count))


def _cut(manifest: Manifest, entry: SegmentEntry, open_file: Callable[[str], BinaryIO]) -> Cut | None:
    try:
        with open_file(entry.name) as stream:
            size_bytes = stream.seek(0, SEEK_END)
            if size_bytes >= entry.size_bytes:
                return None
            stream.seek(0)
            scan = scan_segment(stream)
            if header_problem(manifest, entry, scan.header):
                return None
            return find_cut(entry, scan, stream, size_bytes)
    except (FileNotFoundError, EvfError):
        return None


def header_problem(manifest: Manifest, entry: SegmentEntry, header: Header) -> str:
    """Why a file with this header is not the segment that the manifest names; empty when it is."""
    said = (header.sid, header.institution, header.policy_id, header.retain_until)
    if said != (manifest.sid, manifest.institution, manifest.policy_id, manifest.retain_until):
        return "file belongs to another session, institution, policy or retention date"
    if (header.track, header.cls, header.epoch, header.seg) != (
        entry.track,
        entry.cls,
        entry.epoch,
        entry.seg,
    ):
        return "file is another segment than the manifest says"
    return ""


def _check_bytes(
    entry: SegmentEntry | WrapEntry,
    open_file: Callable[[str], BinaryIO],
    released: Mapping[str, FileState],
) -> tuple[str, bool]:
    """What is wrong with the file, and whether it was released like that."""
    state = _state(entry.name, open_file)
    if state == FileState(entry.size_bytes, entry.sha256):
        return "", False
    gone = state.sha256 is None
    if state == released.get(entry.name):
        return GONE if gone else DAMAGED, True
    if gone:
        return "file is missing", False
    if state.size_bytes != entry.size_bytes:
        return f"file has {state.size_bytes} bytes, manifest says {entry.size_bytes}", False
    return "file was altered: its SHA-256 is not the manifest's", False


def _state(name: str, open_file: Callable[[str], BinaryIO]) -> FileState:
    digest = hashlib.sha256()
    size_bytes = 0
    try:
        with open_file(name) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                size_bytes += len(chunk)
    except FileNotFoundError:
        return FileState(0, None)
    return FileState(size_bytes, digest.hexdigest())
