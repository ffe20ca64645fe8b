"""Live pictures and observations on their way from the camera to the room.

Pictures pass through RAM only while a proctor's watch lease runs; observations wait here until the broker has them.
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict

from pydantic import ValidationError

from appliance.local_link import Message
from appliance.protocol import MAX_MESSAGE_BYTES, ObservationMessage, Watch

# They are durable in the log track; this only bounds what a long outage keeps in RAM (about 1 kB each).
MAX_WAITING_OBSERVATIONS = 1000


class WatchLease:
    """Whether somebody looks now; ends by itself."""

    def __init__(self) -> None:
        self._ends_mono_ns = 0

    def renew(self, watch: Watch, mono_ns: int) -> Message:
        """Somebody looks for `watch.lease_s` more; returns the message for the camera."""
        self._ends_mono_ns = mono_ns + round(watch.lease_s * 1e9)
        return {"type": "watch", "mode": watch.mode, "lease_s": watch.lease_s}

    def running(self, mono_ns: int) -> bool:
        """True until the lease ends."""
        return mono_ns < self._ends_mono_ns


def jpeg_of(message: Message) -> bytes | None:
    """The picture in the camera's message; None for anything that is none."""
    try:
        jpeg = base64.b64decode(message.get("jpeg", ""), validate=True)
    except (binascii.Error, TypeError, ValueError):
        return None
    return jpeg if jpeg.startswith(b"\xff\xd8") and len(jpeg) <= MAX_MESSAGE_BYTES else None


class ObservationOutbox:
    """Observations that the broker has not acknowledged yet, oldest first."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[str, int, str], ObservationMessage] = OrderedDict()
        self._sent: dict[int, tuple[str, int, str]] = {}
        self.dropped = 0

    def add(self, message: Message) -> bool:
        """Take the camera's message; False if it is not an observation."""
        body = {
            "sid": message.get("sid"),
            "number": message.get("number"),
            "observation": message.get("report"),
        }
        try:
            observation = ObservationMessage.model_validate(body)
        except ValidationError:
            return False
        self._waiting[(observation.sid, observation.number, observation.observation.phase)] = observation
        if len(self._waiting) > MAX_WAITING_OBSERVATIONS:
            self._waiting.popitem(last=False)
            self.dropped += 1
        return True

    def unsent(self) -> list[tuple[tuple[str, int, str], ObservationMessage]]:
        """What is not in flight."""
        in_flight = set(self._sent.values())
        return [(key, message) for key, message in self._waiting.items() if key not in in_flight]

    def sent(self, key: tuple[str, int, str], message_id: int) -> None:
        """It is in flight under this MQTT message id."""
        self._sent[message_id] = key

    def acknowledged(self, message_id: int) -> None:
        """The broker has it."""
        key = self._sent.pop(message_id, None)
        if key is not None:
            self._waiting.pop(key, None)

    def connection_lost(self) -> None:
        """What was in flight goes again; the controller counts a number once."""
        self._sent.clear()
