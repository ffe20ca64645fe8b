""".evk files: K(0) sealed for each representative (HPKE, X-Wing), bound to a context, signed by the node."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import BadSignature, BadWrap, EvfError, NotARecipient
from appliance.evf.format import (
    MAX_EPOCH,
    KeyClass,
    check_class,
    check_code,
    check_count,
    check_day,
    check_moment,
    check_sid,
)
from appliance.evf.keys import SECRET_BYTES, EpochKey
from appliance.evf.recipients import MAX_REPRESENTATIVES, MAX_VERSION, RecipientSet, RepresentativeKey
from appliance.evf.signed import decode_base64, sign_document, verify_document

PURPOSE = "session-key"
MAX_FILE_BYTES = 256 * 1024
_SEALED_BYTES = 1088 + 32 + SECRET_BYTES + 16  # ML-KEM-768 ciphertext, X25519 share, K(0), tag


@dataclass(frozen=True)
class WrapContext:
    """What K(0) opens and until when. Every field is bound: a wrap opens only under the very same context."""

    institution: str
    sid: str
    epoch: int
    cls: KeyClass
    created: str
    policy_id: str
    retain_until: str
    recipient_set_version: int

    def __post_init__(self) -> None:
        check_code("institution", self.institution)
        check_sid(self.sid)
        check_count("epoch", self.epoch, MAX_EPOCH)
        check_class(self.cls)
        check_moment("created", self.created)
        check_code("policy id", self.policy_id)
        check_day("retain_until", self.retain_until)
        check_count("recipient_set_version", self.recipient_set_version, MAX_VERSION)

    def to_json(self) -> dict[str, Any]:
        """CONTEXT's fields; the attribute `cls` is spelled class."""
        fields = asdict(self)
        fields["class"] = fields.pop("cls")
        return fields

    @classmethod
    def from_json(cls, fields: Any) -> WrapContext:
        """Inverse of `to_json`; EvfError for unknown or missing keys."""
        if not isinstance(fields, dict) or "class" not in fields or "cls" in fields:
            raise EvfError("wrap context is malformed")
        values = {**fields, "cls": fields["class"]}
        del values["class"]
        if set(values) != set(cls.__dataclass_fields__):
            raise EvfError("wrap context has unknown or missing keys")
        return cls(**values)


def wrap_name(sid: str, epoch: int, cls: str) -> str:
    """Name of a wrap's file (FORMAT.md)."""
    return f"{sid}.{epoch}.{cls}.evk"


def wrap_epoch_key(
    key: EpochKey, context: WrapContext, recipients: RecipientSet, device_key: Ed25519PrivateKey
) -> bytes:
    """The .evk file: a signed document whose body is {context, wraps: [{kid, sealed}]}."""
    return canonical(sign_document(PURPOSE, seal(key, context, recipients), device_key))


def seal(key: EpochKey, context: WrapContext, recipients: RecipientSet) -> dict[str, Any]:
    """{context, wraps: [{kid, sealed}]}: K(0) for everybody in the set; EvfError for another set's context."""
    if (context.institution, context.recipient_set_version) != (recipients.institution, recipients.version):
        raise EvfError("wrap context names another recipient set")
    suite = _suite()
    wraps = [
        {
            "kid": person.kid,
            "sealed": base64.b64encode(
                suite.encrypt(key.secret, person.hpke_key(), info=_info(context, person.kid))
            ).decode(),
        }
        for person in recipients.representatives
    ]
    return {"context": context.to_json(), "wraps": wraps}


def read_sealed(body: Any) -> tuple[WrapContext, dict[str, bytes]]:
    """Inverse of `seal`: (context, {kid: sealed}); EvfError when malformed."""
    if not isinstance(body, dict) or set(body) != {"context", "wraps"}:
        raise EvfError("unknown or missing keys")
    return WrapContext.from_json(body["context"]), _read_wraps(body["wraps"])


def read_wrap(evk: bytes, device_public_key: Ed25519PublicKey | None) -> tuple[WrapContext, dict[str, bytes]]:
    """(context, {kid: sealed}); BadSignature, or BadWrap when malformed. None skips the signature only."""
    if len(evk) > MAX_FILE_BYTES:
        raise BadWrap("wrap file is too large to be one")
    try:
        document = parse_canonical(evk)
        body = (
            document.get("body")
            if device_public_key is None
            else verify_document(PURPOSE, document, device_public_key)
        )
        return read_sealed(body)
    except BadSignature:
        raise
    except EvfError as error:
        raise BadWrap(f"wrap file is malformed: {error}") from error


def open_wrap(
    evk: bytes, representative: RepresentativeKey, device_public_key: Ed25519PublicKey | None
) -> EpochKey:
    """K(0); NotARecipient when nothing is sealed for this key, BadWrap when anything was changed."""
    return open_sealed(*read_wrap(evk, device_public_key), representative)


def open_sealed(context: WrapContext, wraps: dict[str, bytes], representative: RepresentativeKey) -> EpochKey:
    """K(0) from what `read_wrap` or `read_sealed` gave; errors as `open_wrap`."""
    kid = representative.kid
    if kid not in wraps:
        raise NotARecipient(
            "recording is not wrapped for this key",
            "ask a representative named in its recipient set to add it",
        )
    try:
        secret = _suite().decrypt(wraps[kid], representative.hpke_key(), info=_info(context, kid))
    except InvalidTag as error:
        raise BadWrap("wrapped key does not open in this context", "the file was altered") from error
    return EpochKey(secret)


def _read_wraps(wraps: Any) -> dict[str, bytes]:
    if not isinstance(wraps, list) or not 1 <= len(wraps) <= MAX_REPRESENTATIVES:
        raise EvfError(f"not 1 to {MAX_REPRESENTATIVES} wraps")
    sealed: dict[str, bytes] = {}
    for wrap in wraps:
        if not isinstance(wrap, dict) or set(wrap) != {"kid", "sealed"}:
            raise EvfError("wrap has unknown or missing keys")
        check_sid(wrap["kid"])  # the same form: 16 bytes in hex
        if wrap["kid"] in sealed:
            raise EvfError("wrap stands twice")
        sealed[wrap["kid"]] = decode_base64(wrap["sealed"], _SEALED_BYTES)
    return sealed


def _info(context: WrapContext, kid: str) -> bytes:
    digest = hashlib.sha256(canonical(context.to_json())).digest()
    return b"EVF1 session-key v1" + bytes.fromhex(context.sid) + digest + bytes.fromhex(kid)


def _suite() -> Suite:
    return Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
