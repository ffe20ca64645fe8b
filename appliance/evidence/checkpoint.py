"""Checkpoints of a growing log: signed by the node, remembered and cosigned by the room controller (pure).

Sources: C2SP tlog-checkpoint and tlog-cosignature. The controller holds one Witness a session; a crash loses
nothing that its `to_json` had stored.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.errors import ApplianceError, EvidenceBroken, NotTrusted
from appliance.evf.errors import EvfError
from appliance.evf.signed import decode_base64
from appliance.evidence.merkle import Frontier
from appliance.evidence.note import (
    ALG_COSIGNATURE,
    note_key_hash,
    parse_line,
    sign_note,
    signature_line,
    split_note,
    verify_bytes,
    verify_note,
)

MAX_SIZE = 2**63 - 1
# MQTT QoS 1 may deliver again whatever was in flight; a node has far fewer unacknowledged checkpoints.
RECENT_CHECKPOINTS = 64
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{64}")


class MissingLeaves(ApplianceError, ValueError):
    """The leaves do not connect to those already seen; the node should send them from `have_size` on."""

    def __init__(self, have_size: int) -> None:
        super().__init__(f"leaves from {have_size} on are missing", "send them again from there")
        self.have_size = have_size


@dataclass(frozen=True)
class Checkpoint:
    """What a note says: `size` leaves under `root` (32 bytes) in the log named `origin`."""

    origin: str
    size: int
    root: bytes


def node_key_name(desk: str) -> str:
    """Name of a desk node's key on its notes."""
    return f"node/{desk}"


def session_origin(desk: str, sid: str) -> str:
    """Origin line of one session's log."""
    return f"node/{desk}/session/{sid}"


def sign_checkpoint(origin: str, size: int, root: bytes, key: Ed25519PrivateKey, key_name: str) -> str:
    """The note: origin, size, base64 root, blank line, signature line."""
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    _parse_text(text)
    return text + "\n" + sign_note(text, key, key_name)


def verify_checkpoint(note: str, public_key: Ed25519PublicKey, key_name: str, origin: str) -> Checkpoint:
    """The checkpoint, if this key signed it under `key_name` for `origin`; NotTrusted or EvidenceBroken."""
    checkpoint = _parse_text(verify_note(note, public_key, key_name))
    if checkpoint.origin != origin:
        raise NotTrusted("checkpoint belongs to another log", "compare the desk and the session")
    return checkpoint


def cosign(note: str, key: Ed25519PrivateKey, name: str, timestamp_s: int) -> str:
    """Cosignature line (with newline) over a checkpoint note; `timestamp_s` is POSIX time, more than 0."""
    if not 0 < timestamp_s <= MAX_SIZE:
        raise EvidenceBroken("cosignature time is out of range")
    text, _ = split_note(note)
    _parse_text(text)
    signature = key.sign(_cosigned(text, timestamp_s))
    key_hash = note_key_hash(name, ALG_COSIGNATURE, key.public_key())
    return signature_line(name, key_hash + timestamp_s.to_bytes(8, "big") + signature)


def verify_cosignature(note: str, line: str, public_key: Ed25519PublicKey, name: str) -> int:
    """POSIX time of the cosignature; NotTrusted when the key, name or note is another."""
    text, _ = split_note(note)
    found, blob = parse_line(line.removesuffix("\n"))
    if found != name or blob[:4] != note_key_hash(name, ALG_COSIGNATURE, public_key):
        raise NotTrusted("cosignature is of another key", "compare it with the room controller's key")
    if len(blob) != 4 + 8 + 64:
        raise NotTrusted("cosignature is malformed")
    timestamp_s = int.from_bytes(blob[4:12], "big")
    verify_bytes(public_key, blob[12:], _cosigned(text, timestamp_s))
    return timestamp_s


def signature_name(line: str) -> str:
    """The key name that a signature line claims; says nothing about whether it is true."""
    return parse_line(line.removesuffix("\n"))[0]


def _cosigned(text: str, timestamp_s: int) -> bytes:
    return f"cosignature/v1\ntime {timestamp_s}\n{text}".encode()


def _parse_text(text: str) -> Checkpoint:
    # An extension line would be signed unread, so exactly three lines are accepted.
    parts = text.split("\n")
    if len(parts) != 4 or not parts[0] or parts[3] or not _SIZE.fullmatch(parts[1]):
        raise EvidenceBroken("checkpoint is malformed")
    try:
        root = decode_base64(parts[2], 32)
    except EvfError as error:
        raise EvidenceBroken("checkpoint root is malformed") from error
    if int(parts[1]) > MAX_SIZE:
        raise EvidenceBroken("checkpoint size is out of range")
    return Checkpoint(parts[0], int(parts[1]), root)


class Witness:
    """Accepts growing checkpoints of one log; `note` is the newest one accepted, empty before the first."""

    def __init__(self, origin: str, key_name: str, public_key: Ed25519PublicKey) -> None:
        self.origin = origin
        self.key_name = key_name
        self._public_key = public_key
        self._frontier = Frontier()
        self._recent: dict[int, bytes] = {}
        self.note = ""

    @property
    def size(self) -> int:
        """Leaves witnessed so far."""
        return self._frontier.size

    def accept(self, note: str, first_index: int, leaves: Sequence[bytes]) -> Checkpoint:
        """Take a note and the leaf hashes from `first_index` on; returns the note's checkpoint.

        Leaves already seen are skipped, so a resend is harmless. Raises NotTrusted for a wrong signature,
        EvidenceBroken for a shrink or a fork, MissingLeaves for a hole; then nothing has changed.
        """
        checkpoint = verify_checkpoint(note, self._public_key, self.key_name, self.origin)
        if checkpoint.size < self.size:
            if self._recent.get(checkpoint.size) != checkpoint.root:
                raise EvidenceBroken(
                    f"log shrank from {self.size} to {checkpoint.size} records",
                    "keep the node for inspection",
                )
            return checkpoint
        if checkpoint.size > self.size and not (
            0 <= first_index <= self.size and first_index + len(leaves) >= checkpoint.size
        ):
            raise MissingLeaves(self.size)
        frontier = self._frontier.copy()
        for leaf in leaves[self.size - first_index : checkpoint.size - first_index] if leaves else ():
            frontier.append(leaf)
        if frontier.root() != checkpoint.root:
            raise EvidenceBroken(
                f"log differs from what was seen before, at size {checkpoint.size}",
                "keep the node for inspection",
            )
        if checkpoint.size > self.size or not self.note:
            self.note = note
        self._frontier = frontier
        self._recent[checkpoint.size] = checkpoint.root
        while len(self._recent) > RECENT_CHECKPOINTS:
            del self._recent[min(self._recent)]
        return checkpoint

    def to_json(self) -> dict[str, Any]:
        """State for storing; the public key is pinned elsewhere and is no part of it."""
        return {
            "origin": self.origin,
            "key_name": self.key_name,
            "frontier": self._frontier.to_json(),
            "recent": [[size, root.hex()] for size, root in sorted(self._recent.items())],
            "note": self.note,
        }

    @classmethod
    def from_json(cls, fields: Any, public_key: Ed25519PublicKey) -> Witness:
        """Inverse of `to_json`; EvidenceBroken for anything else."""
        names = {"origin": str, "key_name": str, "frontier": dict, "recent": list, "note": str}
        if not isinstance(fields, dict) or set(fields) != set(names):
            raise EvidenceBroken("stored witness is malformed")
        if not all(isinstance(fields[name], kind) for name, kind in names.items()):
            raise EvidenceBroken("stored witness is malformed")
        witness = cls(fields["origin"], fields["key_name"], public_key)
        witness._frontier = Frontier.from_json(fields["frontier"])
        witness.note = fields["note"]
        for item in fields["recent"]:
            match item:
                case [int(size), str(root)] if _HEX.fullmatch(root):
                    witness._recent[size] = bytes.fromhex(root)
                case _:
                    raise EvidenceBroken("stored witness is malformed")
        return witness
