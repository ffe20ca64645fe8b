"""The bytes of an EVF1 file: header, record prefix, limits. Pure; every length is checked before it is used.

Layout in FORMAT.md and docs/format.md; all integers big-endian.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any, BinaryIO, Literal, Protocol, cast, get_args

from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import CorruptSegment, EvfError, LimitExceeded

MAGIC = b"EVF1\r\n\x1a\n"
RECORD_MAGIC = b"CHNK"
PREFIX_FIXED_BYTES = 12  # magic and header length
COMMIT_BYTES = 32
PRE_BYTES = 24
TAG_BYTES = 16
CHAIN_BYTES = 32
MAX_HEADER_JSON_BYTES = 4096
MAX_PLAINTEXT_BYTES = 16 * 2**20
MAX_RECORDS = 2**20  # in one segment, END included
MAX_SEGMENTS = 2**20  # of one track and epoch: bounds the ratchet steps a stranger's header can ask for
MAX_EPOCH = 2**32 - 1
FLAG_KEY_FRAME = 1

KeyClass = Literal["media", "log", "identity"]
CLASSES: tuple[str, ...] = get_args(KeyClass)

_SID = re.compile(r"[0-9a-f]{32}")
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TRACK = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_CODEC = re.compile(r"[A-Za-z0-9][A-Za-z0-9.,+/;=_-]{0,63}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{3})?Z", re.ASCII)
_PRE = struct.Struct(">4sBBHIIQ")


class _ReadsInto(Protocol):
    def readinto(self, place: memoryview, /) -> int | None: ...


class RecordKind(IntEnum):
    """PRE's type byte."""

    INIT = 1
    FRAGMENT = 2
    EVENT = 3
    END = 0xFF


_KINDS = frozenset(RecordKind)


@dataclass(frozen=True)
class Header:
    """Who, what and until when; EvfError for a value outside the format. `salt`: 32 random bytes."""

    sid: str
    epoch: int
    cls: KeyClass
    seg: int
    track: str
    codec: str
    created: str
    institution: str
    policy_id: str
    retain_until: str
    salt: bytes

    def __post_init__(self) -> None:
        check_sid(self.sid)
        check_count("epoch", self.epoch, MAX_EPOCH)
        check_class(self.cls)
        check_count("seg", self.seg, MAX_SEGMENTS - 1)
        check_track(self.track)
        _match("codec", self.codec, _CODEC)
        check_moment("created", self.created)
        check_code("institution", self.institution)
        check_code("policy id", self.policy_id)
        check_day("retain_until", self.retain_until)
        if not isinstance(self.salt, bytes) or len(self.salt) != 32:
            raise EvfError("header salt is not 32 bytes")

    def encode(self) -> bytes:
        """HEADER: magic, length, canonical JSON."""
        body = canonical(
            {
                "v": 1,
                "sid": self.sid,
                "epoch": self.epoch,
                "class": self.cls,
                "seg": self.seg,
                "track": self.track,
                "codec": self.codec,
                "created": self.created,
                "institution": self.institution,
                "policy": {"id": self.policy_id, "retain_until": self.retain_until},
                "salt": self.salt.hex(),
            }
        )
        return MAGIC + len(body).to_bytes(4, "big") + body

    @classmethod
    def decode(cls, header_bytes: bytes) -> Header:
        """Inverse of `encode`; CorruptSegment or LimitExceeded for anything that `encode` does not give."""
        length = header_json_length(header_bytes[:PREFIX_FIXED_BYTES])
        if len(header_bytes) != PREFIX_FIXED_BYTES + length:
            raise CorruptSegment("header is cut")
        try:
            fields = parse_canonical(header_bytes[PREFIX_FIXED_BYTES:])
            header = cls._from_json(fields)
        except EvfError as error:
            raise CorruptSegment(f"header is malformed: {error}") from error
        if header.encode() != header_bytes:
            raise CorruptSegment("header has a value in another spelling")
        return header

    @classmethod
    def _from_json(cls, fields: dict[str, Any]) -> Header:
        names = {
            "v",
            "sid",
            "epoch",
            "class",
            "seg",
            "track",
            "codec",
            "created",
            "institution",
            "policy",
            "salt",
        }
        policy = fields.get("policy")
        if set(fields) != names or not isinstance(policy, dict) or set(policy) != {"id", "retain_until"}:
            raise EvfError("header has unknown or missing keys")
        if type(fields["v"]) is not int or fields["v"] != 1:
            raise EvfError("header version is not 1")
        salt = fields["salt"]
        if not isinstance(salt, str) or not re.fullmatch(r"[0-9a-f]{64}", salt):
            raise EvfError("header salt is not 64 hex digits")
        return cls(
            sid=fields["sid"],
            epoch=fields["epoch"],
            cls=fields["class"],
            seg=fields["seg"],
            track=fields["track"],
            codec=fields["codec"],
            created=fields["created"],
            institution=fields["institution"],
            policy_id=policy["id"],
            retain_until=policy["retain_until"],
            salt=bytes.fromhex(salt),
        )


@dataclass(frozen=True)
class Pre:
    """A record's 24 clear bytes, authenticated along. `time_90k`: 90 kHz from the session's start."""

    kind: RecordKind
    key_frame: bool
    index: int
    plain_len: int
    time_90k: int

    def __post_init__(self) -> None:
        if self.key_frame and self.kind is not RecordKind.FRAGMENT:
            raise CorruptSegment("only a fragment can start with a key frame")
        if self.plain_len > MAX_PLAINTEXT_BYTES:
            raise LimitExceeded(f"record holds {self.plain_len} bytes, more than {MAX_PLAINTEXT_BYTES}")
        if self.index >= MAX_RECORDS or (self.index == MAX_RECORDS - 1 and self.kind is not RecordKind.END):
            raise LimitExceeded(f"segment has more than {MAX_RECORDS} records")
        if self.kind is RecordKind.END and self.plain_len != CHAIN_BYTES:
            raise CorruptSegment("end record has the wrong length")
        if not 0 <= self.time_90k < 2**64 or self.index < 0 or self.plain_len < 0:
            raise LimitExceeded("record number is out of range")

    def encode(self) -> bytes:
        """PRE's 24 bytes."""
        flags = FLAG_KEY_FRAME if self.key_frame else 0
        return _PRE.pack(RECORD_MAGIC, self.kind, flags, 0, self.index, self.plain_len, self.time_90k)

    @classmethod
    def decode(cls, data: bytes) -> Pre:
        """Inverse of `encode` for exactly 24 bytes; CorruptSegment or LimitExceeded otherwise."""
        if len(data) != PRE_BYTES:
            raise CorruptSegment("record prefix is cut")
        magic, kind, flags, reserved, index, plain_len, time_90k = _PRE.unpack(data)
        if magic != RECORD_MAGIC:
            raise CorruptSegment("no record starts here")
        if kind not in _KINDS:
            raise CorruptSegment(f"record type {kind} is unknown")
        if flags & ~FLAG_KEY_FRAME or reserved:
            raise CorruptSegment("record has reserved bits set")
        return cls(RecordKind(kind), bool(flags), index, plain_len, time_90k)


def leaf_hash(*parts: bytes | bytearray | memoryview) -> bytes:
    """SHA256(0x00 || RECORD): its link in the chain and its leaf in the Merkle tree (RFC 6962).

    RECORD may come in parts, so that nobody has to copy it together.
    """
    digest = hashlib.sha256(b"\0")
    for part in parts:
        digest.update(part)
    return digest.digest()


def chain_start(header_bytes: bytes, commit: bytes) -> bytes:
    """c0 = SHA256(HEADER || COMMIT)."""
    return hashlib.sha256(header_bytes + commit).digest()


def chain_next(chain: bytes, leaf: bytes) -> bytes:
    """c(i+1) = SHA256(c(i) || leaf(i))."""
    return hashlib.sha256(chain + leaf).digest()


def header_json_length(fixed: bytes) -> int:
    """Length of the JSON from the first 12 bytes; refuses before anything of that length is read."""
    if len(fixed) != PREFIX_FIXED_BYTES or fixed[:8] != MAGIC:
        raise CorruptSegment("not an EVF1 file")
    length = int.from_bytes(fixed[8:], "big")
    if length > MAX_HEADER_JSON_BYTES:
        raise LimitExceeded(f"header of {length} bytes, more than {MAX_HEADER_JSON_BYTES}")
    return length


def read_up_to(stream: BinaryIO, length: int) -> bytes:
    """Exactly `length` bytes, or fewer at the end of the file; loops over short reads of raw streams."""
    data = stream.read(length)
    while len(data) < length:
        more = stream.read(length - len(data))
        if not more:
            break
        data += more
    return data


def read_into(stream: BinaryIO, place: memoryview) -> int:
    """Fill `place` and return its length, or less at the end of the file; `stream` is one of `io`, with `readinto`."""
    source, done = cast("_ReadsInto", stream), 0
    while done < len(place) and (count := source.readinto(place[done:])):
        done += count
    return done


def read_prefix(stream: BinaryIO) -> tuple[bytes, bytes]:
    """(HEADER bytes, COMMIT) from the start of a file; CorruptSegment when either is not whole."""
    fixed = read_up_to(stream, PREFIX_FIXED_BYTES)
    length = header_json_length(fixed)
    body = read_up_to(stream, length)
    commit = read_up_to(stream, COMMIT_BYTES)
    if len(body) != length or len(commit) != COMMIT_BYTES:
        raise CorruptSegment("file ends inside its header")
    return fixed + body, commit


def check_sid(value: object) -> None:
    """A session id is 16 random bytes as 32 lower-case hex digits."""
    _match("sid", value, _SID)


def check_code(name: str, value: object) -> None:
    """Institutions and policies are named with letters, digits, dot, underscore, hyphen; 64 at most."""
    _match(name, value, _CODE)


def check_track(value: object) -> None:
    """A track's name: lower-case letters, digits, hyphen, underscore; 32 at most."""
    _match("track", value, _TRACK)


def check_class(value: object) -> None:
    """One of media, log, identity."""
    if not isinstance(value, str) or value not in CLASSES:
        raise EvfError("class is none of media, log, identity")


def check_count(name: str, value: object, maximum: int) -> None:
    """An integer from 0 to `maximum`; a bool is none."""
    if type(value) is not int or not 0 <= value <= maximum:
        raise EvfError(f"{name} is not a number from 0 to {maximum}")


def check_moment(name: str, value: object) -> None:
    """UTC as 2026-11-22T09:00:00Z, with or without milliseconds."""
    _match(name, value, _MOMENT)
    _parse_day(name, str(value))


def check_day(name: str, value: object) -> None:
    """A date such as 2027-05-22, or a moment as in `check_moment`."""
    if isinstance(value, str) and "T" in value:
        check_moment(name, value)
    else:
        _match(name, value, _DATE)
        _parse_day(name, str(value))


def _parse_day(name: str, value: str) -> None:
    try:
        datetime.fromisoformat(value)
    except ValueError as error:
        raise EvfError(f"{name} is no day of the calendar") from error


def _match(name: str, value: object, pattern: re.Pattern[str]) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise EvfError(f"{name} has a form that the format does not allow")
