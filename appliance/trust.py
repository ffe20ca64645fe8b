"""Reads the pinned keys and signed documents that provisioning left on a machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from appliance.errors import BadConfig

HINT = "provision this machine again, or correct [trust] in its settings file"


def load_public_key(path: Path) -> Ed25519PublicKey:
    """A `.pub` file: the raw 32-byte Ed25519 key in hex."""
    data = _read(path)
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(data.decode("ascii").strip()))
    except ValueError as error:
        raise BadConfig(f"{path} is not a public key", HINT) from error


def load_device_key(path: Path) -> Ed25519PrivateKey:
    """A `.key` file: Ed25519, PEM PKCS8."""
    data = _read(path)
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise BadConfig(f"{path} is not a private key", HINT) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadConfig(f"{path} is not an Ed25519 key", HINT)
    return key


def load_certificate(path: Path) -> x509.Certificate:
    """A PEM certificate."""
    data = _read(path)
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError as error:
        raise BadConfig(f"{path} is not a certificate", HINT) from error


def load_document(path: Path) -> dict[str, Any]:
    """A signed document; its signature is for the caller to check."""
    data = _read(path)
    try:
        document = json.loads(data)
    except ValueError as error:
        raise BadConfig(f"{path} is not JSON", HINT) from error
    if not isinstance(document, dict):
        raise BadConfig(f"{path} is not a signed document", HINT)
    return document


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadConfig(f"cannot read {path}: {(error.strerror or str(error)).lower()}", HINT) from error
