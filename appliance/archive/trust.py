"""What the institution pinned: the room's CA, the room controller's key, its own root key."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.config import ArchiveConfig
from appliance.errors import BadInput, NotTrusted
from appliance.evf.errors import EvfError
from appliance.evf.recipients import verify_recipient_set

RECIPIENT_SET_NAME = "recipient-set.json"
_RAW_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Trust:
    """`recipients`: key id -> name, only to explain; from a recipient-set.json beside the root key, if any."""

    institution: str
    room_ca: x509.Certificate
    controller_key: Ed25519PublicKey
    recipients: dict[str, str]

    @classmethod
    def load(cls, config: ArchiveConfig) -> Trust:
        """From the files that archive.toml names; BadInput for one that is missing or malformed."""
        return cls(
            institution=config.institution,
            room_ca=_certificate(config.room_ca),
            controller_key=read_public_key(config.controller_key),
            recipients=_recipients(config.root_key),
        )


def read_public_key(path: Path) -> Ed25519PublicKey:
    """A *.pub file: the raw 32-byte Ed25519 key in hex and a newline."""
    text = read_file(path, 1024).decode("ascii", "replace").strip()
    if not _RAW_KEY.fullmatch(text):
        raise BadInput(f"{path} is not a public key", "it holds 64 hex digits, as provisioning wrote it")
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))


def read_file(path: Path, limit_bytes: int) -> bytes:
    """A small file, whole; BadInput when it cannot be read or is larger."""
    try:
        with path.open("rb") as source:
            data = source.read(limit_bytes + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BadInput(f"cannot read {path}: {reason}", "check the path and its permissions") from error
    if len(data) > limit_bytes:
        raise BadInput(f"{path} is larger than {limit_bytes} bytes", "name the right file")
    return data


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_file(path, 1 << 16))
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            f"{path} is not a certificate in PEM", "name the room's CA as provisioning wrote it"
        ) from error


def _recipients(root_key: Path) -> dict[str, str]:
    path = root_key.with_name(RECIPIENT_SET_NAME)
    if not path.is_file():
        return {}
    try:
        document = json.loads(read_file(path, 1 << 20))
        recipient_set = verify_recipient_set(document, read_public_key(root_key), 0)
    except EvfError as error:
        raise NotTrusted(f"{path}: {error}", "fetch the recipient set that the institution signed") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            f"{path} is not JSON", "fetch the recipient set that the institution signed"
        ) from error
    return {person.kid: person.name for person in recipient_set.representatives}
