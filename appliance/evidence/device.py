"""Whether a certificate makes a key this desk's: issued by the room's CA, for the desk, valid at the session's end."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID

from appliance.clock import parse_utc, utc_text
from appliance.errors import EvidenceBroken, NotTrusted

# What the library raises, now or when a field is first looked at, for bytes that are no usable certificate.
UNUSABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.ExtensionNotFound,
            x509.DuplicateExtension, x509.UnsupportedGeneralNameType)  # fmt: skip


def ed25519_key(certificate: x509.Certificate) -> Ed25519PublicKey:
    """The key in a device certificate; NotTrusted if it is of another kind, or cannot be read."""
    try:
        key = certificate.public_key()
    except UNUSABLE as error:
        raise NotTrusted(f"device certificate cannot be used: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise NotTrusted("device certificate does not hold an Ed25519 key")
    return key


def device_key(
    device: x509.Certificate, room_ca: x509.Certificate, desk: str, ended: str
) -> Ed25519PublicKey:
    """The desk's key; NotTrusted, or EvidenceBroken when `ended` is no UTC text."""
    try:
        ended_at = parse_utc(ended)
    except ValueError as error:
        raise EvidenceBroken("manifest's end is no time") from error
    if utc_text(ended_at) != ended:
        raise EvidenceBroken("manifest's end is not in its one spelling")
    try:
        device.verify_directly_issued_by(room_ca)
        ca_is_ca = room_ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        device_is_ca = device.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        names = device.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except InvalidSignature as error:
        raise NotTrusted("device certificate was not issued by this room's CA") from error
    except UNUSABLE as error:
        raise NotTrusted(f"device certificate cannot be used: {error}") from error
    if not ca_is_ca or device_is_ca:
        raise NotTrusted("device certificate and room CA have the wrong basic constraints")
    if not _valid_at(device, ended_at) or not _valid_at(room_ca, ended_at):
        raise NotTrusted("device certificate was not valid when the session ended")
    if [name.value for name in names] != [desk]:
        raise NotTrusted("device certificate belongs to another desk")
    return ed25519_key(device)


def _valid_at(certificate: x509.Certificate, moment: datetime) -> bool:
    return certificate.not_valid_before_utc <= moment.astimezone(UTC) <= certificate.not_valid_after_utc
