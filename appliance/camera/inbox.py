"""What waits for the camera process's main thread: fragments first, then what the other processes say.

Nobody who puts something in ever waits. Fragments are bounded in bytes and refused when the disk stands still; what
peers send is bounded by itself, so that a peer that floods takes no room from the recording.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from appliance.camera.encoder import Fragment
from appliance.local_link import Peer
from appliance.protocol import ObservationReport

# Over three minutes at 1.2 Mbit/s: longer than any stall of a disk that recovers.
MAX_FRAGMENT_BYTES = 32 << 20
MAX_PEER_ITEMS = 256


@dataclass(frozen=True)
class Captured:
    """A finished fragment with the init it needs in front of a segment."""

    fragment: Fragment
    init: Fragment
    codec: str


@dataclass(frozen=True)
class FragmentRefused:
    """A fragment did not fit in here: the storage is too slow."""


@dataclass(frozen=True)
class CameraLost:
    """The camera stopped; `cause` says why in words."""

    cause: str


@dataclass(frozen=True)
class CameraBack:
    """The camera delivers again."""


@dataclass(frozen=True)
class Wake:
    """The ledger may have changed."""


@dataclass(frozen=True)
class Observed:
    """An observation as a peer reported it, not yet durable; `key` is that peer's own number for it."""

    peer: int
    key: int
    report: ObservationReport


@dataclass(frozen=True)
class Greet:
    """A peer connected and knows nothing yet."""

    peer: Peer


@dataclass(frozen=True)
class Replay:
    """A peer asks for the session's observations again."""

    peer: Peer


@dataclass(frozen=True)
class ObserverGone:
    """A peer that reported observations is no longer there."""

    peer: int


FromCamera = Captured | FragmentRefused | CameraLost | CameraBack
FromPeer = Wake | Observed | Greet | Replay | ObserverGone
Item = FromCamera | FromPeer


class Inbox:
    """Any thread puts, the main thread gets."""

    def __init__(self) -> None:
        self._filmed: deque[FromCamera] = deque()
        self._said: deque[FromPeer] = deque()
        self._fragment_bytes = 0
        self._changed = threading.Condition()

    def put_filmed(self, item: FromCamera) -> bool:
        """False for a fragment that does not fit; what happened to the camera always does."""
        with self._changed:
            if isinstance(item, Captured):
                if self._fragment_bytes + len(item.fragment.data) > MAX_FRAGMENT_BYTES:
                    return False
                self._fragment_bytes += len(item.fragment.data)
            self._filmed.append(item)
            self._changed.notify()
        return True

    def put_said(self, item: FromPeer) -> bool:
        """False when too much waits; that a peer came or went is always taken."""
        with self._changed:
            if len(self._said) >= MAX_PEER_ITEMS and not isinstance(item, Greet | ObserverGone):
                return False
            self._said.append(item)
            self._changed.notify()
        return True

    def get(self, timeout_s: float) -> Item | None:
        """The oldest of the camera's items, else of the peers', else None after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._filmed or self._said, timeout_s)
            if self._filmed:
                item = self._filmed.popleft()
                if isinstance(item, Captured):
                    self._fragment_bytes -= len(item.fragment.data)
                return item
            return self._said.popleft() if self._said else None

    def __len__(self) -> int:
        with self._changed:
            return len(self._filmed) + len(self._said)
