"""Signs and verifies completeness certificates: first the desk, then the room, which derives the same itself (pure)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from appliance.clock import parse_utc
from appliance.errors import EvidenceBroken, NotTrusted
from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import BadSignature, EvfError
from appliance.evf.signed import key_id, sign_document, verify_document
from appliance.evidence.certificate import Body, Certificate, lines_sha256
from appliance.evidence.completeness import Completeness, Line, completeness_of
from appliance.evidence.device import UNUSABLE, device_key
from appliance.evidence.manifest import claimed_device, claimed_key, read_checkpoint
from appliance.evidence.session import Manifest

DESK_PURPOSE = "certificate-desk"
ROOM_PURPOSE = "certificate-room"


@dataclass(frozen=True)
class Signers:
    """Key ids of the two keys that signed, as 32 hex digits."""

    desk: str
    room: str


def sign_as_desk(manifest: Manifest, manifest_bytes: bytes, key: Ed25519PrivateKey) -> bytes:
    """The desk's half, a signed document; NotTrusted when the manifest is of another key.

    Ed25519 gives the same bytes for the same manifest each time, so the desk keeps nothing but the manifest.
    """
    if claimed_key(manifest).public_bytes_raw() != key.public_key().public_bytes_raw():
        raise NotTrusted("the manifest was signed with another device key", "it cannot be certified any more")
    return canonical(sign_document(DESK_PURPOSE, body_of(manifest, manifest_bytes)[0].to_json(), key))


def countersign(
    desk_half: bytes, manifest: Manifest, manifest_bytes: bytes, key: Ed25519PrivateKey
) -> Certificate:
    """The whole certificate, if the desk says exactly what follows from its manifest, which the caller has verified.

    NotTrusted: not signed by the manifest's device. EvidenceBroken: it says something else, which the message names.
    """
    body, completeness = body_of(manifest, manifest_bytes)
    try:
        document = parse_canonical(desk_half)
        said = verify_document(DESK_PURPOSE, document, claimed_key(manifest))
    except BadSignature as error:
        raise NotTrusted(f"the desk's certificate: {error}", "keep the desk for inspection") from error
    except EvfError as error:
        raise EvidenceBroken(f"the desk's certificate is malformed: {error}") from error
    ours = body.to_json()
    if said != ours:
        raise EvidenceBroken(_difference(said, ours), "keep the desk for inspection, or update its software")
    return Certificate(
        body=body,
        device_certificate=claimed_device(manifest).public_bytes(Encoding.DER),
        desk_signature=document["signature"],
        room_signature=sign_document(ROOM_PURPOSE, ours, key)["signature"],
        lines=completeness.lines,
    )


def body_of(manifest: Manifest, manifest_bytes: bytes) -> tuple[Body, Completeness]:
    """What follows from a verified manifest; desk and room each derive it. EvidenceBroken when `started` is no time."""
    completeness = completeness_of(manifest)
    try:
        parse_utc(manifest.started)
    except ValueError as error:
        raise EvidenceBroken("manifest's start is no time") from error
    body = Body(
        sid=manifest.sid,
        candidate_code=manifest.candidate_code,
        exam=manifest.exam,
        room=manifest.room,
        desk=manifest.desk,
        started=manifest.started,
        ended=manifest.ended,
        manifest_sha256=hashlib.sha256(manifest_bytes).hexdigest(),
        outcome=completeness.outcome,
        lines=len(completeness.lines),
        lines_sha256=lines_sha256(completeness.lines),
        leaves=manifest.leaves,
        root=read_checkpoint(manifest, claimed_key(manifest)).root.hex(),
    )
    return body, completeness


def verify_certificate(
    certificate: Certificate, room_ca: x509.Certificate, controller_key: Ed25519PublicKey
) -> Signers:
    """Both signatures, the desk's certificate under the room's CA, and the lines if it holds them.

    NotTrusted: a signature or certificate is not what it should be. EvidenceBroken: the lines were altered.
    """
    body = certificate.body
    try:
        device = x509.load_der_x509_certificate(certificate.device_certificate)
    except UNUSABLE as error:
        raise NotTrusted("the desk's X.509 certificate cannot be read") from error
    desk_key = device_key(device, room_ca, body.desk, body.ended)
    _verify_half(DESK_PURPOSE, f"desk {body.desk}", body, certificate.desk_signature, desk_key)
    _verify_half(ROOM_PURPOSE, "the room controller", body, certificate.room_signature, controller_key)
    lines = certificate.lines
    if lines is not None and (len(lines), lines_sha256(lines)) != (body.lines, body.lines_sha256):
        raise EvidenceBroken("the lines are not those that were signed", "they were altered after signing")
    return Signers(key_id(desk_key.public_bytes_raw()), key_id(controller_key.public_bytes_raw()))


def require_manifest(body: Body, manifest: Manifest, manifest_bytes: bytes) -> tuple[Line, ...]:
    """The lines, if this verified manifest is the certificate's own; EvidenceBroken otherwise."""
    ours, completeness = body_of(manifest, manifest_bytes)
    if body.sid != ours.sid or body.manifest_sha256 != ours.manifest_sha256:
        raise EvidenceBroken(
            f"the manifest is not this certificate's: it is of session {ours.sid[:8]}, the certificate of "
            f"{body.sid[:8]}"
            if body.sid != ours.sid
            else "the manifest is not this certificate's: its SHA-256 is another",
            "fetch the manifest of the session that the certificate names",
        )
    if body != ours:
        raise EvidenceBroken(_difference(body.to_json(), ours.to_json()), "use the version that made it")
    return completeness.lines


def _verify_half(purpose: str, who: str, body: Body, signature: str, key: Ed25519PublicKey) -> None:
    document = {
        "body": body.to_json(),
        "purpose": purpose,
        "key": key_id(key.public_bytes_raw()),
        "signature": signature,
    }
    try:
        verify_document(purpose, document, key)
    except BadSignature as error:
        raise NotTrusted(
            f"signature of {who} does not match", "it was altered, or is of another key"
        ) from error


def _difference(said: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    first = ("outcome", "lines", "lines_sha256", *ours)
    name = next((name for name in first if said.get(name) != ours[name]), "")
    if not name:
        return "the certificate holds more than it should"
    return f"the certificate says {name} {said.get(name)!r}, the manifest {ours[name]!r}"
