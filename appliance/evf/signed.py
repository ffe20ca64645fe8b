"""Signed documents: recipient sets, policies, commands, approvals, wraps and manifests share this form.

A purpose is signed along, so that a document for one use is worth nothing for another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.evf.canonical import canonical
from appliance.evf.errors import BadSignature, EvfError

_DOMAIN = b"invigil signed document v1\0"
_PURPOSE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


def key_id(public_bytes: bytes) -> str:
    """kid = SHA256("EVF1 kid" || raw public key)[:16] as 32 hex digits (FORMAT.md, Keys)."""
    return hashlib.sha256(b"EVF1 kid" + public_bytes).digest()[:16].hex()


def decode_base64(text: object, length: int | None = None) -> bytes:
    """Standard padded base64 in its one canonical spelling; EvfError for anything else or another length."""
    if not isinstance(text, str):
        raise EvfError("base64 value is not a string")
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise EvfError("value is not base64") from error
    if base64.b64encode(data).decode() != text or (length is not None and len(data) != length):
        raise EvfError("base64 value has the wrong length or spelling")
    return data


def sign_document(purpose: str, body: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """{"body", "purpose", "key" (hex kid), "signature" (base64)}; EvfError without a canonical form."""
    message = _message(purpose, body)
    return {
        "body": dict(body),
        "purpose": purpose,
        "key": key_id(key.public_key().public_bytes_raw()),
        "signature": base64.b64encode(key.sign(message)).decode(),
    }


def verify_document(
    purpose: str, document: Mapping[str, Any], public_key: Ed25519PublicKey
) -> dict[str, Any]:
    """A fresh copy of the body; BadSignature for another purpose or key or any malformed shape."""
    if not isinstance(document, Mapping) or set(document) != {"body", "purpose", "key", "signature"}:
        raise BadSignature("document is not a signed document")
    if document["purpose"] != purpose:
        raise BadSignature(f"document is not signed as {purpose}")
    if document["key"] != key_id(public_key.public_bytes_raw()):
        raise BadSignature(
            "document is signed by another key", "compare it with the key pinned at provisioning"
        )
    try:
        signature = decode_base64(document["signature"], 64)
        message = _message(purpose, document["body"])
        public_key.verify(signature, message)
    except EvfError as error:
        raise BadSignature(f"document is malformed: {error}") from error
    except InvalidSignature as error:
        raise BadSignature("signature does not match", "the document was altered after signing") from error
    body: dict[str, Any] = json.loads(canonical(document["body"]))
    return body


def _message(purpose: str, body: Any) -> bytes:
    if not isinstance(purpose, str) or not _PURPOSE.fullmatch(purpose):
        raise EvfError("purpose is not a short lower-case word")
    if not isinstance(body, Mapping):
        raise EvfError("body is not an object")
    return _DOMAIN + purpose.encode() + b"\0" + canonical(dict(body))
