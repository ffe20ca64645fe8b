"""Reads the pinned keys and signed documents that provisioning left on a machine, for every process alike."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from appliance.errors import BadConfig

HINT = "provision this machine again, or correct [trust] in its settings file"
MAX_BYTES = 1 << 20
WARN_AHEAD = timedelta(days=30)  # an order to staff and a visit to the room fit into it


def load_public_key(path: Path, hint: str = HINT) -> Ed25519PublicKey:
    """A `.pub` file: the raw 32-byte Ed25519 key in hex. BadConfig with `hint`, as all of these."""
    data = _read(path, hint)
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(data.decode("ascii").strip()))
    except ValueError as error:
        raise BadConfig(f"{path} is not a public key", hint) from error


def load_private_key(path: Path, hint: str = HINT) -> Ed25519PrivateKey:
    """A `.key` file: Ed25519, PEM PKCS8."""
    data = _read(path, hint)
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise BadConfig(f"{path} is not a private key", hint) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadConfig(f"{path} is not an Ed25519 key", hint)
    return key


def load_certificate(path: Path, hint: str = HINT) -> x509.Certificate:
    """A PEM certificate."""
    data = _read(path, hint)
    try:
        return x509.load_pem_x509_certificate(data)
    except (ValueError, x509.InvalidVersion) as error:
        raise BadConfig(f"{path} is not a certificate", hint) from error


def validity_problem(certificate: x509.Certificate, whose: str, now: datetime) -> str | None:
    """In words, once it is not valid at `now` or will not be within 30 days; None while all is well."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begins:
        return (
            f"certificate of {whose} is valid only from {begins:%Y-%m-%d}, the clock here says {now:%Y-%m-%d}"
        )
    if now > ends:
        return f"certificate of {whose} expired on {ends:%Y-%m-%d}"
    if ends - now < WARN_AHEAD:
        return f"certificate of {whose} expires on {ends:%Y-%m-%d}, in {(ends - now).days} days"
    return None


def load_document(path: Path, hint: str = HINT) -> dict[str, Any]:
    """A signed document; its signature is for the caller to check."""
    data = _read(path, hint)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"{path} is not JSON", hint) from error
    if not isinstance(document, dict):
        raise BadConfig(f"{path} is not a signed document", hint)
    return document


def _read(path: Path, hint: str) -> bytes:
    try:
        with path.open("rb") as source:
            data = source.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadConfig(f"cannot read {path}: {(error.strerror or str(error)).lower()}", hint) from error
    if len(data) > MAX_BYTES:
        raise BadConfig(f"{path} is larger than {MAX_BYTES} bytes", hint)
    return data
