"""<sid>.r<version>.evk: all K(0) of a session sealed anew for a later recipient set; no segment's byte changes.

One signed document a session and set: who wrapped it, when, for whom, what it replaces and who was removed
(docs/format.md, Keys wrapped anew). The institution's root signs the set inside, one of the set's people the document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import BadSignature, BadWrap, EvfError
from appliance.evf.format import check_code, check_moment, check_sid
from appliance.evf.keys import EpochKey
from appliance.evf.recipients import RecipientSet, Representative, RepresentativeKey, verify_recipient_set
from appliance.evf.signed import key_id, sign_document, verify_document
from appliance.evf.wraps import WrapContext, open_sealed, read_sealed, seal

PURPOSE = "rewrap"
MAX_FILE_BYTES = 32 * 2**20
MAX_KEYS = 4096
_NAME = re.compile(r"([0-9a-f]{32})\.r([1-9][0-9]{0,9})\.evk")
_FILE = re.compile(r"[0-9a-f]{32}\.[A-Za-z0-9.]{1,64}\.evk")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"v", "institution", "sid", "at", "recipient_set", "replaces", "removed", "keys"}

Sealed = tuple[WrapContext, dict[str, bytes]]


@dataclass(frozen=True)
class Replaced:
    """An earlier wrap file. `erased`: somebody who was removed could open it, so it has to go."""

    name: str
    sha256: str
    erased: bool

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _FILE.fullmatch(self.name):
            raise EvfError("replaced file's name has a form that the format does not allow")
        if not isinstance(self.sha256, str) or not _SHA256.fullmatch(self.sha256):
            raise EvfError("replaced file's digest is not 64 hex digits")
        if type(self.erased) is not bool:
            raise EvfError("erased is neither true nor false")


@dataclass(frozen=True)
class Rewrap:
    """A verified document. `removed`: key ids that what it replaces was sealed for, and this is not."""

    sid: str
    at: str
    recipients: RecipientSet
    by: Representative
    replaces: tuple[Replaced, ...]
    removed: tuple[str, ...]
    keys: tuple[Sealed, ...]

    @property
    def name(self) -> str:
        """The file's name."""
        return rewrap_name(self.sid, self.recipients.version)

    @property
    def kids(self) -> set[str]:
        """Key ids of whom it is for."""
        return {person.kid for person in self.recipients.representatives}

    def places(self) -> set[tuple[int, str]]:
        """(epoch, class) of every key in it."""
        return {(context.epoch, context.cls) for context, _ in self.keys}

    def open(self, epoch: int, cls: str, representative: RepresentativeKey) -> EpochKey:
        """K(0); NotARecipient, BadWrap, and BadWrap too when it holds no key of that epoch and class."""
        for context, wraps in self.keys:
            if (context.epoch, context.cls) == (epoch, cls):
                return open_sealed(context, wraps, representative)
        raise BadWrap(f"{self.name} holds no key of epoch {epoch}, class {cls}")


def rewrap_name(sid: str, version: int) -> str:
    """<sid>.r<version>.evk"""
    return f"{sid}.r{version}.evk"


def rewrap_version(name: str, sid: str) -> int | None:
    """The set's version in such a file's name of this session; None for any other name."""
    found = _NAME.fullmatch(name)
    return int(found[2]) if found and found[1] == sid else None


def sign_rewrap(
    keys: Sequence[tuple[WrapContext, EpochKey]],
    recipient_set: Mapping[str, Any],
    recipients: RecipientSet,
    replaces: Sequence[Replaced],
    removed: Sequence[str],
    at: str,
    signer: RepresentativeKey,
) -> bytes:
    """The file. Contexts are those of the replaced wraps; their set's version becomes the new one's.

    `recipient_set` is the signed document of `recipients`. EvfError when the signer is not one of them.
    """
    if signer.kid not in {person.kid for person in recipients.representatives}:
        raise EvfError("who signs a re-wrap must stand in the recipient set that it is for")
    first = keys[0][0]
    ordered = sorted(keys, key=lambda pair: (pair[0].epoch, pair[0].cls))
    body = {
        "v": 1,
        "institution": first.institution,
        "sid": first.sid,
        "at": at,
        "recipient_set": dict(recipient_set),
        "replaces": [vars(each) for each in sorted(replaces, key=lambda each: each.name)],
        "removed": sorted(removed),
        "keys": [
            seal(key, replace(context, recipient_set_version=recipients.version), recipients)
            for context, key in ordered
        ],
    }
    return canonical(sign_document(PURPOSE, body, signer.signing_key()))


def verify_rewrap(data: bytes, root_public_key: Ed25519PublicKey) -> Rewrap:
    """BadSignature unless somebody of a set that this root signed made it so; BadWrap when malformed."""
    if len(data) > MAX_FILE_BYTES:
        raise BadWrap("re-wrap is too large to be one")
    try:
        document = parse_canonical(data)
        body = document.get("body")
        if not isinstance(body, dict) or set(body) != _FIELDS or type(body["v"]) is not int:
            raise EvfError("unknown or missing keys")
        if body["v"] != 1:
            raise EvfError("version is not 1")
        recipients = verify_recipient_set(_object(body["recipient_set"]), root_public_key, 0)
        by = _signer(recipients, document.get("key"))
        verify_document(PURPOSE, document, by.verifying_key())
        return _read(body, recipients, by)
    except BadSignature:
        raise
    except (EvfError, TypeError) as error:
        raise BadWrap(f"re-wrap is malformed: {error}") from error


def _signer(recipients: RecipientSet, key: object) -> Representative:
    for person in recipients.representatives:
        if key_id(person.signing_key) == key:
            return person
    raise BadSignature("re-wrap is signed by nobody of its recipient set")


def _read(body: dict[str, Any], recipients: RecipientSet, by: Representative) -> Rewrap:
    check_sid(body["sid"])
    check_code("institution", body["institution"])
    check_moment("at", body["at"])
    if body["institution"] != recipients.institution:
        raise EvfError("its recipient set is another institution's")
    replaces = tuple(Replaced(**_object(each)) for each in _list(body["replaces"]))
    removed = tuple(_list(body["removed"]))
    for kid in removed:
        check_sid(kid)  # the same form: 16 bytes in hex
    keys = tuple(read_sealed(each) for each in _list(body["keys"]))
    if not keys or len({name.name for name in replaces}) != len(replaces):
        raise EvfError("it holds no key, or replaces a file twice")
    kids = {person.kid for person in recipients.representatives}
    if kids & set(removed):
        raise EvfError("somebody is removed who stands in the recipient set")
    for context, wraps in keys:
        said = (context.sid, context.institution, context.recipient_set_version)
        if said != (body["sid"], body["institution"], recipients.version) or set(wraps) != kids:
            raise EvfError("a key in it is of another session or for others than its recipient set")
    found = Rewrap(body["sid"], body["at"], recipients, by, replaces, removed, keys)
    if len(found.places()) != len(keys):
        raise EvfError("a key stands twice")
    return found


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_KEYS:
        raise EvfError(f"not a list of at most {MAX_KEYS}")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise EvfError("not an object")
    return value
