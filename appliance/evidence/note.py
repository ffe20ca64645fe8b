"""C2SP signed-note with Ed25519 keys: text, blank line, signature lines. The checkpoint's envelope."""

from __future__ import annotations

import base64
import hashlib
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.errors import EvidenceBroken, NotTrusted
from appliance.evf.errors import EvfError
from appliance.evf.signed import decode_base64

MAX_NOTE_BYTES = 4096
ALG_ED25519 = b"\x01"
ALG_COSIGNATURE = b"\x04"
_NAME = re.compile(r"[^\s+]{1,255}")
_SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/=]+)")


def sign_note(text: str, key: Ed25519PrivateKey, key_name: str) -> str:
    """Signature line (with newline) over `text`, which ends in a newline."""
    key_hash = note_key_hash(key_name, ALG_ED25519, key.public_key())
    return signature_line(key_name, key_hash + key.sign(text.encode()))


def verify_note(note: str, public_key: Ed25519PublicKey, key_name: str) -> str:
    """The text, if a line is this key's signature under this name; NotTrusted or EvidenceBroken."""
    text, lines = split_note(note)
    wanted = note_key_hash(key_name, ALG_ED25519, public_key)
    for line in lines:
        name, blob = parse_line(line)
        if name == key_name and blob[:4] == wanted:
            verify_bytes(public_key, blob[4:], text.encode())
            return text
    raise NotTrusted("note is not signed by the expected key", "compare it with the pinned key")


def split_note(note: str) -> tuple[str, list[str]]:
    """(text with its last newline, signature lines); EvidenceBroken when malformed or too long."""
    if len(note) > MAX_NOTE_BYTES:
        raise EvidenceBroken("note is too long")
    text, separator, signatures = note.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise EvidenceBroken("note is malformed")
    if any((ord(letter) < 0x20 and letter != "\n") or 0xD800 <= ord(letter) < 0xE000 for letter in note):
        raise EvidenceBroken("note holds control characters")
    return text + "\n", signatures[:-1].split("\n")


def parse_line(line: str) -> tuple[str, bytes]:
    """(key name, key hash || signature) of one signature line without its newline."""
    match = _SIGNATURE_LINE.fullmatch(line)
    if not match:
        raise EvidenceBroken("signature line is malformed")
    try:
        blob = decode_base64(match[2])
    except EvfError as error:
        raise EvidenceBroken("signature line is malformed") from error
    if len(blob) < 5:
        raise EvidenceBroken("signature line is malformed")
    return match[1], blob


def signature_line(name: str, blob: bytes) -> str:
    """One line "— <name> base64(blob)" with its newline."""
    if not _NAME.fullmatch(name):
        raise EvidenceBroken("key name is empty or holds a space or plus sign")
    return f"— {name} {base64.b64encode(blob).decode()}\n"


def note_key_hash(name: str, algorithm: bytes, public_key: Ed25519PublicKey) -> bytes:
    """SHA-256(name || 0x0A || algorithm || public key)[:4]; EvidenceBroken for a name that is no text."""
    try:
        spelled = name.encode()
    except UnicodeEncodeError as error:
        raise EvidenceBroken("key name is not text") from error
    return hashlib.sha256(spelled + b"\n" + algorithm + public_key.public_bytes_raw()).digest()[:4]


def verify_bytes(public_key: Ed25519PublicKey, signature: bytes, message: bytes) -> None:
    """NotTrusted unless the signature matches."""
    try:
        public_key.verify(signature, message)
    except InvalidSignature as error:
        raise NotTrusted(
            "signature on the checkpoint does not match", "it was altered after signing"
        ) from error
