"""The completeness certificate as a document and as the text of a QR code (pure); `certifying.py` signs and verifies.

One small body is signed. The lines stand beside it, bound by their number and hash, so that the same signatures hold
for the whole document and for the text, which leaves the lines out. docs/format.md has the bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from cryptography import x509

from appliance.errors import BadInput, NotTrusted
from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import EvfError
from appliance.evf.signed import decode_base64, key_id
from appliance.evidence.completeness import Kind, Line
from appliance.evidence.device import UNUSABLE, ed25519_key

TEXT_PREFIX = "INVIGIL1:"
MAX_BYTES = 1 << 20
MAX_TEXT_BYTES = 1 << 16
HINT = "take the certificate from the room's page again, or scan its QR code again"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Body:
    """What desk and room sign. `lines`: their number; `lines_sha256`: of their canonical list; `root`: the log's."""

    sid: str
    candidate_code: str
    exam: str
    room: str
    desk: str
    started: str
    ended: str
    manifest_sha256: str
    outcome: str
    lines: int
    lines_sha256: str
    leaves: int
    root: str
    v: int = 1

    def to_json(self) -> dict[str, Any]:
        """The signed object."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, item: Any) -> Body:
        """Inverse of `to_json`; BadInput for anything else."""
        wanted = {each.name: int if str(each.type) == "int" else str for each in fields(cls)}
        if not isinstance(item, dict) or {name: type(value) for name, value in item.items()} != wanted:
            raise BadInput("certificate has unknown, missing or mistyped fields", HINT)
        body = cls(**item)
        if body.v != 1:
            raise BadInput("certificate is of another version than 1", "use a newer program")
        digests = (body.manifest_sha256, body.lines_sha256, body.root)
        if body.outcome != ("with gaps" if body.lines else "complete") or body.lines < 0 or body.leaves < 0:
            raise BadInput("certificate contradicts itself about what is complete", HINT)
        if not all(_DIGEST.fullmatch(digest) for digest in digests):
            raise BadInput("certificate holds a hash of a wrong form", HINT)
        return body


@dataclass(frozen=True)
class Certificate:
    """The document; `lines` is None in the text form. Nothing of it is true before it is verified."""

    body: Body
    device_certificate: bytes
    desk_signature: str
    room_signature: str
    lines: tuple[Line, ...] | None

    @property
    def desk_key_id(self) -> str:
        """Key id of the certificate that the document carries, 32 hex digits; NotTrusted when it cannot be read."""
        try:
            device = x509.load_der_x509_certificate(self.device_certificate)
        except UNUSABLE as error:
            raise NotTrusted("the desk's X.509 certificate cannot be read") from error
        return key_id(ed25519_key(device).public_bytes_raw())

    def to_bytes(self) -> bytes:
        """Canonical JSON, with the lines if there are any known."""
        document: dict[str, Any] = {
            "body": self.body.to_json(),
            "device_certificate": base64.b64encode(self.device_certificate).decode(),
            "desk_signature": self.desk_signature,
            "room_signature": self.room_signature,
        }
        if self.lines is not None:
            document["lines"] = [line.to_json() for line in self.lines]
        return canonical(document)

    def to_text(self) -> str:
        """The QR code's text: prefix and base32 (RFC 4648, unpadded) of the deflated document without its lines.

        Capitals, digits and a colon: QR's alphanumeric mode, and a shell, a form and an e-mail leave it as it is.
        """
        short = Certificate(
            self.body, self.device_certificate, self.desk_signature, self.room_signature, None
        )
        return TEXT_PREFIX + base64.b32encode(zlib.compress(short.to_bytes(), 9)).decode().rstrip("=")

    @classmethod
    def parse(cls, data: bytes) -> Certificate:
        """Either form; BadInput when it is neither, or damaged."""
        text = data.strip()
        if text[: len(TEXT_PREFIX)].upper() == TEXT_PREFIX.encode():
            text = _inflate(text[len(TEXT_PREFIX) :])
        if len(text) > MAX_BYTES:
            raise BadInput("this is too large to be a certificate", HINT)
        try:
            document = parse_canonical(text)
        except EvfError as error:
            raise BadInput("this is no certificate, or a damaged one", HINT) from error
        names = {"body", "device_certificate", "desk_signature", "room_signature"}
        if set(document) - {"lines"} != names:
            raise BadInput("this is no certificate: it has other fields", HINT)
        try:
            for name in ("desk_signature", "room_signature"):
                decode_base64(document[name], 64)
            device_certificate = decode_base64(document["device_certificate"])
        except EvfError as error:
            raise BadInput(f"certificate is damaged: {error}", HINT) from error
        return cls(
            Body.from_json(document["body"]),
            device_certificate,
            document["desk_signature"],
            document["room_signature"],
            _lines(document["lines"]) if "lines" in document else None,
        )


def lines_sha256(lines: Iterable[Line]) -> str:
    """Hex SHA-256 of the canonical JSON list."""
    return hashlib.sha256(canonical([line.to_json() for line in lines])).hexdigest()


def _lines(items: Any) -> tuple[Line, ...]:
    lines = []
    for item in items if isinstance(items, list) else [{}]:
        match item:
            case {"start_90k": int(start), "end_90k": int(end), "kind": str(kind), "cause": str(cause)} if (
                len(item) == 4 and kind in set(Kind)
            ):
                lines.append(Line(start, end, Kind(kind), cause))
            case _:
                raise BadInput("certificate holds a line of a wrong form", HINT)
    return tuple(lines)


def _inflate(encoded: bytes) -> bytes:
    if len(encoded) > MAX_TEXT_BYTES:
        raise BadInput("this is too long to be a certificate's text", HINT)
    try:
        packed = base64.b32decode(encoded.upper() + b"=" * (-len(encoded) % 8))
        inflater = zlib.decompressobj()
        data = inflater.decompress(packed, MAX_TEXT_BYTES)
    except (ValueError, zlib.error) as error:
        raise BadInput("the certificate's text is damaged", HINT) from error
    spelt_otherwise = base64.b32encode(packed).rstrip(b"=") != encoded.upper()
    if not inflater.eof or inflater.unused_data or spelt_otherwise:
        raise BadInput("the certificate's text is damaged", HINT)
    return data
