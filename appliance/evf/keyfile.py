"""A secret under a passphrase, as one JSON envelope: PBKDF2-HMAC-SHA512, then AES-256-GCM (F081).

Every parameter is authenticated; weaker ones than the floor are refused when reading.
"""

from __future__ import annotations

import base64
import os
import re
import unicodedata
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import BadKeyFile, BadPassphrase, EvfError
from appliance.evf.signed import decode_base64

ITERATIONS = 600_000
MIN_ITERATIONS = 210_000  # OWASP password storage guide 2023, PBKDF2-HMAC-SHA512; F081
MAX_ITERATIONS = 20_000_000  # a stranger's file must not keep a machine busy for minutes
MAX_FILE_BYTES = 16_384
_SALT_BYTES = 32
_NONCE_BYTES = 12
_KDF = "PBKDF2-HMAC-SHA512"
_CIPHER = "AES-256-GCM"
_KIND = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def save_secret(kind: str, secret: bytes, passphrase: str) -> bytes:
    """Envelope of a secret; `kind` says what for (representative, institution-root) and is bound in."""
    if not _KIND.fullmatch(kind):
        raise EvfError("kind of key file is not a short lower-case word")
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    fields: dict[str, Any] = {
        "v": 1,
        "format": "invigil key file",
        "kind": kind,
        "kdf": _KDF,
        "iterations": ITERATIONS,
        "salt": base64.b64encode(salt).decode(),
        "cipher": _CIPHER,
        "nonce": base64.b64encode(nonce).decode(),
    }
    key = _derive(passphrase, salt, ITERATIONS)
    sealed = AESGCM(key).encrypt(nonce, secret, canonical(fields))
    return canonical({**fields, "ciphertext": base64.b64encode(sealed).decode()}) + b"\n"


def key_file_kind(data: bytes) -> str:
    """What the file says it holds a key for; nothing is authenticated yet. BadKeyFile when it says nothing."""
    if len(data) > MAX_FILE_BYTES:
        raise BadKeyFile("key file is too large to be one")
    try:
        kind = parse_canonical(data.removesuffix(b"\n")).get("kind")
    except EvfError as error:
        raise BadKeyFile(f"key file is malformed: {error}", "copy it again from its backup") from error
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise BadKeyFile("key file is malformed: it says no kind", "give the private file, *.key")
    return kind


def change_passphrase(data: bytes, old: str, new: str) -> bytes:
    """The same key under another passphrase, with a new salt. The old file still opens with the old one."""
    kind = key_file_kind(data)
    return save_secret(kind, load_secret(kind, data, old), new)


def load_secret(kind: str, data: bytes, passphrase: str) -> bytes:
    """The secret; BadKeyFile for another kind, shape or too few iterations, else BadPassphrase."""
    if len(data) > MAX_FILE_BYTES:
        raise BadKeyFile("key file is too large to be one")
    try:
        fields = parse_canonical(data.removesuffix(b"\n"))
        sealed = decode_base64(fields.pop("ciphertext", None))
        salt = decode_base64(fields.get("salt"), _SALT_BYTES)
        nonce = decode_base64(fields.get("nonce"), _NONCE_BYTES)
    except EvfError as error:
        raise BadKeyFile(f"key file is malformed: {error}", "copy it again from its backup") from error
    expected = {
        "v": 1,
        "format": "invigil key file",
        "kind": fields.get("kind"),
        "kdf": _KDF,
        "cipher": _CIPHER,
    }
    if set(fields) != {*expected, "iterations", "salt", "nonce"} or any(
        fields[name] != value or type(fields[name]) is not type(value) for name, value in expected.items()
    ):
        raise BadKeyFile("key file is malformed: unknown format or algorithm")
    if fields["kind"] != kind:
        raise BadKeyFile(f"key file does not hold a key of kind {kind}", "give the file of the right key")
    iterations = fields["iterations"]
    if type(iterations) is not int or not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
        raise BadKeyFile(
            f"key file does not use {MIN_ITERATIONS} to {MAX_ITERATIONS} iterations",
            "save the key again with this version",
        )
    key = _derive(passphrase, salt, iterations)
    try:
        return AESGCM(key).decrypt(nonce, sealed, canonical(fields))
    except InvalidTag as error:
        raise BadPassphrase(
            "passphrase does not open the key file", "check the passphrase and the file"
        ) from error


def _derive(passphrase: str, salt: bytes, iterations: int) -> bytes:
    # NFC (RFC 8265): the same passphrase typed on another system gives the same bytes
    spelled = unicodedata.normalize("NFC", passphrase)
    if not spelled:
        raise BadPassphrase("passphrase is empty")
    try:
        material = spelled.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadPassphrase("passphrase is not text") from error
    return PBKDF2HMAC(SHA512(), 32, salt, iterations).derive(material)
