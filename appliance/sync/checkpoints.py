"""Shows the controller each session's log as it grows, and takes its cosignatures (pure but for reading leaves).

One checkpoint of a session is under way at a time; after an outage the rest follows in pieces. Nothing here is lost by
a crash: the log is in index.db, what was witnessed in ledger.db, and a signature over the same tree is the same again.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.errors import EvidenceBroken, NotTrusted
from appliance.evidence.checkpoint import (
    node_key_name,
    session_origin,
    sign_checkpoint,
    signature_name,
    verify_cosignature,
)
from appliance.evidence.merkle import Frontier
from appliance.protocol import CheckpointMessage, WitnessMessage
from appliance.timecode import TICKS_PER_S

MAX_LEAVES = 4096  # of one CheckpointMessage: 190 kB, two hours of fragments
RESEND_S = 5.0  # the controller answers within milliseconds; at this pace a lost answer costs nobody anything
# While the controller is away a desk says it ever more rarely; a new controller's first word makes it say it at once.
MAX_RESEND_S = 60.0
# Two lost answers and a half: until here a late cosignature is the network's ordinary course (FORMAT.md: at most 10 s).
UNWITNESSED_90K = 30 * TICKS_PER_S


class LeafSource(Protocol):
    """Where the leaves are; `RecordingView` is one."""

    def leaves(self, sid: str, start: int = 0, limit: int | None = None) -> list[bytes]:
        """Leaf hashes from `start` on."""
        ...

    def leaf_count(self, sid: str) -> int:
        """How many there are."""
        ...


@dataclass(frozen=True)
class Cosigned:
    """What the controller has put its name to; to be made durable."""

    size: int
    note: str
    cosignature: str


@dataclass(frozen=True)
class _Sent:
    frontier: Frontier
    note: str
    at_mono_ns: int


class SessionLog:
    """One session's log as the controller should come to know it; `fault` in words once something does not fit."""

    def __init__(
        self,
        sid: str,
        desk: str,
        device_key: Ed25519PrivateKey,
        controller_key: Ed25519PublicKey,
        source: LeafSource,
        witnessed_size: int,
    ) -> None:
        self.sid = sid
        self.fault = ""
        self._desk = desk
        self._device_key = device_key
        self._controller_key = controller_key
        self._source = source
        self._sent: _Sent | None = None
        self._resend_s = RESEND_S
        self._refused = False
        self._base = Frontier()
        if source.leaf_count(sid) < witnessed_size:
            self.fault = "the log on this desk is shorter than what the room has witnessed"
        else:
            self._base = self._frontier_at(witnessed_size)

    def next_message(self, now_mono_ns: int) -> CheckpointMessage | None:
        """New leaves under a signed note, or the same again when no answer came; None if there is nothing to say."""
        if self.fault:
            return None
        if self._sent is not None:
            if now_mono_ns - self._sent.at_mono_ns < self._resend_s * 1e9:
                return None
            self._resend_s = min(2 * self._resend_s, MAX_RESEND_S)
        leaves = self._source.leaves(self.sid, self._base.size, MAX_LEAVES)
        if not leaves:
            return None
        frontier = self._base.copy()
        for leaf in leaves:
            frontier.append(leaf)
        note = self._sign(frontier)
        self._sent = _Sent(frontier, note, now_mono_ns)
        return CheckpointMessage(
            sid=self.sid,
            first_index=self._base.size,
            leaves=tuple(base64.b64encode(leaf).decode() for leaf in leaves),
            note=note,
        )

    def connection_began(self) -> None:
        """Whatever was under way is sent again; after a refusal once, since a person may have put the cause right."""
        self._sent, self._resend_s = None, RESEND_S
        if self._refused:
            self.fault, self._refused = "", False

    def answer(self, message: WitnessMessage) -> Cosigned | None:
        """Take the controller's answer: a cosignature, a place to send again from, or a refusal."""
        self._resend_s = RESEND_S
        if message.refused is not None:
            self.fault, self._refused = f"the room refused this desk's log: {message.refused}", True
            return None
        count = self._source.leaf_count(self.sid)
        if not 0 <= message.size <= count:
            self.fault = f"the room has witnessed {message.size} records, this desk has {count}"
            return None
        if message.cosignature is None:
            self._base, self._sent = self._frontier_at(message.size), None
            return None
        sent = self._sent
        if sent is not None and sent.frontier.size == message.size:
            frontier, note = sent.frontier, sent.note
        else:
            frontier = self._frontier_at(message.size)
            note = self._sign(frontier)
        try:
            name = signature_name(message.cosignature)
            verify_cosignature(note, message.cosignature, self._controller_key, name)
        except (NotTrusted, EvidenceBroken) as error:
            self.fault = f"the room's cosignature does not hold: {error}"
            return None
        if sent is not None and sent.frontier.size <= message.size:
            self._sent = None
        if frontier.size >= self._base.size:
            self._base = frontier
        return Cosigned(message.size, note, message.cosignature)

    def _sign(self, frontier: Frontier) -> str:
        origin = session_origin(self._desk, self.sid)
        return sign_checkpoint(
            origin, frontier.size, frontier.root(), self._device_key, node_key_name(self._desk)
        )

    def _frontier_at(self, size: int) -> Frontier:
        frontier = Frontier()
        for leaf in self._source.leaves(self.sid, 0, size) if size else ():
            frontier.append(leaf)
        return frontier


def unwitnessed_span(
    spans: list[tuple[int, int]], witnessed_until_90k: int, recorded_until_90k: int
) -> list[tuple[int, int]]:
    """Add the time since the last full cosignature to `spans` (90 kHz) if the room could not see it in its time."""
    if recorded_until_90k - witnessed_until_90k <= UNWITNESSED_90K:
        return spans
    return [*spans, (witnessed_until_90k, recorded_until_90k)]
