"""Who may open recordings: representatives' X-Wing keys, and the set of them that the root key signs."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from appliance.evf.errors import BadKeyFile, BadSignature, EvfError, Outdated
from appliance.evf.format import check_code, check_count, check_moment
from appliance.evf.keyfile import load_secret, save_secret
from appliance.evf.signed import decode_base64, key_id, sign_document, verify_document

__all__ = [
    "RecipientSet",
    "Representative",
    "RepresentativeKey",
    "load_secret",
    "read_representative",
    "save_secret",
    "sign_recipient_set",
    "verify_recipient_set",
]

PURPOSE = "recipient-set"
KEY_FILE_KIND = "representative"
SEED_BYTES = 32
_MLKEM_BYTES = 1184
PUBLIC_KEY_BYTES = _MLKEM_BYTES + 32
SIGNING_KEY_BYTES = 32
MAX_REPRESENTATIVES = 64
MAX_VERSION = 2**31 - 1


@dataclass(frozen=True)
class Representative:
    """Public half. `public_key`: ML-KEM-768 encapsulation key (1184 bytes) || X25519 (32).

    `signing_key`: raw Ed25519, 32 bytes; it signs what this person wraps anew (appliance.evf.rewraps).
    """

    kid: str
    public_key: bytes
    name: str
    signing_key: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.public_key, bytes) or len(self.public_key) != PUBLIC_KEY_BYTES:
            raise EvfError(f"representative's public key is not {PUBLIC_KEY_BYTES} bytes")
        if self.kid != key_id(self.public_key):
            raise EvfError("representative's key id does not belong to the key")
        if not isinstance(self.signing_key, bytes) or len(self.signing_key) != SIGNING_KEY_BYTES:
            raise EvfError(f"representative's signing key is not {SIGNING_KEY_BYTES} bytes")
        if not isinstance(self.name, str) or not 0 < len(self.name) <= 128 or not self.name.isprintable():
            raise EvfError("representative's name is not 1 to 128 printable characters")

    def hpke_key(self) -> MLKEM768X25519PublicKey:
        """As the library wants it; EvfError when the bytes are no key."""
        try:
            return MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(self.public_key[:_MLKEM_BYTES]),
                X25519PublicKey.from_public_bytes(self.public_key[_MLKEM_BYTES:]),
            )
        except ValueError as error:
            raise EvfError("representative's public key is malformed") from error

    def verifying_key(self) -> Ed25519PublicKey:
        """As the library wants it."""
        return Ed25519PublicKey.from_public_bytes(self.signing_key)

    @property
    def fingerprint(self) -> str:
        """32 hex digits over both public keys, for people to compare; `kid` speaks for the first alone."""
        return key_id(self.public_key + self.signing_key)


@dataclass(frozen=True)
class RecipientSet:
    """All representatives of one institution; a higher `version` replaces a lower one."""

    institution: str
    version: int
    created: str
    representatives: tuple[Representative, ...]

    def __post_init__(self) -> None:
        check_code("institution", self.institution)
        check_count("version", self.version, MAX_VERSION)
        check_moment("created", self.created)
        if not 1 <= len(self.representatives) <= MAX_REPRESENTATIVES:
            raise EvfError(f"recipient set does not hold 1 to {MAX_REPRESENTATIVES} representatives")
        if len({person.kid for person in self.representatives}) != len(self.representatives):
            raise EvfError("recipient set names a key twice")
        if len({person.signing_key for person in self.representatives}) != len(self.representatives):
            raise EvfError("recipient set names a signing key twice")


def sign_recipient_set(recipient_set: RecipientSet, root_key: Ed25519PrivateKey) -> dict[str, Any]:
    """Signed document of purpose recipient-set."""
    body = {
        "institution": recipient_set.institution,
        "version": recipient_set.version,
        "created": recipient_set.created,
        "representatives": [
            {
                "kid": person.kid,
                "name": person.name,
                "public_key": base64.b64encode(person.public_key).decode(),
                "signing_key": base64.b64encode(person.signing_key).decode(),
            }
            for person in recipient_set.representatives
        ],
    }
    return sign_document(PURPOSE, body, root_key)


def verify_recipient_set(
    document: Mapping[str, Any], root_public_key: Ed25519PublicKey, newest_seen_version: int
) -> RecipientSet:
    """The set; BadSignature unless signed so by this root key, Outdated for a version below the newest."""
    body = verify_document(PURPOSE, document, root_public_key)
    try:
        recipient_set = _from_body(body)
    except EvfError as error:
        raise BadSignature(f"recipient set is malformed: {error}") from error
    if recipient_set.version < newest_seen_version:
        raise Outdated(
            f"recipient set {recipient_set.version} is older than {newest_seen_version}, already seen",
            "fetch the newest set from the institution",
        )
    return recipient_set


def _from_body(body: dict[str, Any]) -> RecipientSet:
    people = body.get("representatives")
    if set(body) != {"institution", "version", "created", "representatives"} or not isinstance(people, list):
        raise EvfError("unknown or missing keys")
    representatives = []
    for person in people[: MAX_REPRESENTATIVES + 1]:
        if not isinstance(person, dict) or set(person) != {"kid", "name", "public_key", "signing_key"}:
            raise EvfError("representative has unknown or missing keys")
        representatives.append(read_representative(person))
    return RecipientSet(body["institution"], body["version"], body["created"], tuple(representatives))


def read_representative(fields: Mapping[str, Any]) -> Representative:
    """From `kid`, `name`, `public_key` and `signing_key` (base64); EvfError when they are no keys."""
    person = Representative(
        fields["kid"],
        decode_base64(fields["public_key"], PUBLIC_KEY_BYTES),
        fields["name"],
        decode_base64(fields["signing_key"], SIGNING_KEY_BYTES),
    )
    person.hpke_key()
    return person


@dataclass(frozen=True)
class RepresentativeKey:
    """Private half: a 32-byte X-Wing seed (draft-connolly-cfrg-xwing-kem, 5.2); all that is stored."""

    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise BadKeyFile("representative's key is not a 32-byte seed")

    @classmethod
    def generate(cls) -> RepresentativeKey:
        """A new key from the operating system's randomness."""
        return cls(os.urandom(SEED_BYTES))

    @classmethod
    def load(cls, data: bytes, passphrase: str) -> RepresentativeKey:
        """From a key file; BadKeyFile or BadPassphrase."""
        return cls(load_secret(KEY_FILE_KIND, data, passphrase))

    def save(self, passphrase: str) -> bytes:
        """Key file under a passphrase (JSON)."""
        return save_secret(KEY_FILE_KIND, self.seed, passphrase)

    @property
    def public_bytes(self) -> bytes:
        """1216 bytes: ML-KEM-768 encapsulation key || X25519 public key."""
        mlkem, x25519 = self._expand()
        return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    @property
    def kid(self) -> str:
        """SHA256("EVF1 kid" || public key)[:16] in hex."""
        return key_id(self.public_bytes)

    def representative(self, name: str) -> Representative:
        """The public half under a person's name."""
        signing_key = self.signing_key().public_key().public_bytes_raw()
        return Representative(self.kid, self.public_bytes, name, signing_key)

    def signing_key(self) -> Ed25519PrivateKey:
        """HKDF-Expand-SHA512(seed, "EVF1 representative signature", 32): one file holds both keys."""
        seed = HKDFExpand(SHA512(), SEED_BYTES, b"EVF1 representative signature").derive(self.seed)
        return Ed25519PrivateKey.from_private_bytes(seed)

    def hpke_key(self) -> MLKEM768X25519PrivateKey:
        """As the library wants it."""
        return MLKEM768X25519PrivateKey(*self._expand())

    def _expand(self) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        expanded = hashlib.shake_256(self.seed).digest(96)
        return (
            MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
            X25519PrivateKey.from_private_bytes(expanded[64:]),
        )
