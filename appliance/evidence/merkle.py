"""Merkle tree hashing as in RFC 6962, section 2.1, with a frontier that appends in O(log n) memory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from appliance.errors import EvidenceBroken
from appliance.evf.canonical import canonical

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
_HEX = re.compile(r"[0-9a-f]{64}")


def leaf_hash(data: bytes) -> bytes:
    """SHA256(0x00 || data)."""
    return hashlib.sha256(b"\0" + data).digest()


def event_leaf(body: Mapping[str, Any]) -> bytes:
    """Leaf hash of an event: SHA256(0x00 || canonical JSON of its body)."""
    return leaf_hash(canonical(dict(body)))


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA256(0x01 || left || right)."""
    return hashlib.sha256(b"\1" + left + right).digest()


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Root over leaf hashes, in order."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


class Frontier:
    """The roots of the full subtrees that make up a tree of `size` leaves, largest first."""

    def __init__(self) -> None:
        self.size = 0
        self._roots: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash (32 bytes)."""
        if len(leaf) != HASH_BYTES:
            raise EvidenceBroken("leaf hash is not 32 bytes")
        node = leaf
        size = self.size
        while size & 1:
            node = node_hash(self._roots.pop(), node)
            size >>= 1
        self._roots.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Root of the tree so far; SHA256("") while it is empty."""
        if not self._roots:
            return EMPTY_ROOT
        node = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            node = node_hash(left, node)
        return node

    def copy(self) -> Frontier:
        """An independent frontier of the same tree."""
        other = Frontier()
        other.size = self.size
        other._roots = list(self._roots)
        return other

    def to_json(self) -> dict[str, Any]:
        """{"size", "roots": [hex]} for storing."""
        return {"size": self.size, "roots": [root.hex() for root in self._roots]}

    @classmethod
    def from_json(cls, fields: Any) -> Frontier:
        """Inverse of `to_json`; EvidenceBroken for anything else."""
        if not isinstance(fields, dict) or set(fields) != {"size", "roots"}:
            raise EvidenceBroken("stored Merkle frontier is malformed")
        size, roots = fields["size"], fields["roots"]
        if type(size) is not int or size < 0 or not isinstance(roots, list) or len(roots) != size.bit_count():
            raise EvidenceBroken("stored Merkle frontier is malformed")
        if not all(isinstance(root, str) and _HEX.fullmatch(root) for root in roots):
            raise EvidenceBroken("stored Merkle frontier is malformed")
        frontier = cls()
        frontier.size = size
        frontier._roots = [bytes.fromhex(root) for root in roots]
        return frontier
