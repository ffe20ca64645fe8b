"""What the institution pinned: the room's CA, the room controller's key, its own root key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.config import ArchiveConfig
from appliance.errors import NotTrusted
from appliance.evf.errors import EvfError
from appliance.evf.recipients import verify_recipient_set
from appliance.trust import load_certificate, load_document, load_public_key

RECIPIENT_SET_NAME = "recipient-set.json"
_HINT = "correct room_ca, controller_key and root_key of archive.toml; provisioning wrote these files"
_SET_HINT = "fetch the recipient set that the institution signed"


@dataclass(frozen=True)
class Trust:
    """`recipients`: key id -> name, only to explain; from a recipient-set.json beside the root key, if any.

    `root_key` judges keys that were wrapped anew.
    """

    institution: str
    room_ca: x509.Certificate
    controller_key: Ed25519PublicKey
    root_key: Ed25519PublicKey
    recipients: dict[str, str]

    @classmethod
    def load(cls, config: ArchiveConfig) -> Trust:
        """From the files that archive.toml names; BadConfig for one that is missing or malformed."""
        return cls(
            institution=config.institution,
            room_ca=load_certificate(config.room_ca, _HINT),
            controller_key=load_public_key(config.controller_key, _HINT),
            root_key=(root_key := load_public_key(config.root_key, _HINT)),
            recipients=_recipients(config.root_key.with_name(RECIPIENT_SET_NAME), root_key),
        )


def _recipients(path: Path, root_public_key: Ed25519PublicKey) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        recipient_set = verify_recipient_set(load_document(path, _SET_HINT), root_public_key, 0)
    except EvfError as error:
        raise NotTrusted(f"{path}: {error}", _SET_HINT) from error
    return {person.kid: person.name for person in recipient_set.representatives}
