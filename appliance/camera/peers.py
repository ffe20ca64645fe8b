"""The camera process's end of the local link: what the other two processes say becomes items, facts and leases.

Callbacks run in the peers' threads: they check and queue, nothing else.
"""

from __future__ import annotations

import base64
import logging
import math
from pathlib import Path

from pydantic import ValidationError

from appliance.camera.inbox import Greet, Inbox, Observed, ObserverGone, Replay, Wake
from appliance.camera.pictures import WatchLease
from appliance.clock import Clock
from appliance.local_link import LocalServer, Message, Peer
from appliance.protocol import ObservationReport

log = logging.getLogger(__name__)

# A model process that says nothing for this long is not assessing.
INFERENCE_SILENCE_S = 5.0
MAX_RATE_HZ = 1000.0
MAX_PROBLEM_CHARACTERS = 200
MAX_KEY = 2**53


class Peers:
    """Serves `camera.sock`; `tell` goes to all, a preview only to who holds the lease."""

    def __init__(self, path: Path, inbox: Inbox, watch: WatchLease, clock: Clock) -> None:
        self._inbox = inbox
        self._watch = watch
        self._clock = clock
        self._watcher: Peer | None = None
        self._assessor: tuple[Peer, int, float] | None = None
        self._not_assessing: tuple[Peer, int, str] | None = None
        self._listener: tuple[Peer, int, str | None] | None = None
        self._observers: set[int] = set()
        self._server = LocalServer(path, self._on_message, self._on_connect, self._on_close)

    def tell(self, message: Message) -> None:
        """To every peer that can take it."""
        self._server.broadcast(message)

    def show_preview(self, jpeg: bytes) -> None:
        """To the peer that asked last."""
        if self._watcher is not None:
            self._watcher.send({"type": "preview", "jpeg": base64.b64encode(jpeg).decode()})

    def inference_rate_hz(self, now_mono_ns: int) -> float | None:
        """What the model process last said of itself; None when it is silent or gone."""
        assessor = self._assessor
        if assessor is None or assessor[0].closed.is_set():
            return None
        return assessor[2] if now_mono_ns - assessor[1] <= INFERENCE_SILENCE_S * 1e9 else None

    def inference_problem(self, now_mono_ns: int) -> str | None:
        """Why the model process assesses nothing, in its own words; None while it assesses, is silent or gone."""
        said = self._not_assessing
        if said is None or said[0].closed.is_set() or now_mono_ns - said[1] > INFERENCE_SILENCE_S * 1e9:
            return None
        return said[2]

    def listening_problem(self, now_mono_ns: int) -> str | None:
        """Why no voice could be heard now; None while one could."""
        said = self._listener
        if said is None or said[0].closed.is_set() or now_mono_ns - said[1] > INFERENCE_SILENCE_S * 1e9:
            return "the process that listens says nothing"
        return said[2]

    def close(self) -> None:
        """Drop all peers."""
        self._server.close()

    def _on_connect(self, peer: Peer) -> None:
        self._inbox.put_said(Greet(peer))

    def _on_close(self, peer: Peer) -> None:
        if peer.number in self._observers:
            self._observers.discard(peer.number)
            self._inbox.put_said(ObserverGone(peer.number))

    def _on_message(self, peer: Peer, message: Message) -> None:
        match message["type"]:
            case "wake":
                self._inbox.put_said(Wake())
            case "replay":
                self._inbox.put_said(Replay(peer))
            case "watch":
                lease_s = _number(message.get("lease_s"))
                if lease_s is not None:
                    self._watcher = peer
                    self._watch.renew(str(message.get("mode")), lease_s)
            case "inference":
                self._take_inference(peer, message)
            case "listening":
                problem = message.get("problem")
                if problem is None or (isinstance(problem, str) and problem.isprintable()):
                    said = None if problem is None else problem[:MAX_PROBLEM_CHARACTERS]
                    self._listener = (peer, self._clock.mono_ns(), said)
            case "observation":
                self._take_observation(peer, message)

    def _take_inference(self, peer: Peer, message: Message) -> None:
        rate_hz, problem = _number(message.get("rate_hz")), message.get("problem")
        if rate_hz is not None and rate_hz <= MAX_RATE_HZ:
            self._assessor, self._not_assessing = (peer, self._clock.mono_ns(), rate_hz), None
        elif isinstance(problem, str) and problem.isprintable() and len(problem) <= MAX_PROBLEM_CHARACTERS:
            self._assessor, self._not_assessing = None, (peer, self._clock.mono_ns(), problem)

    def _take_observation(self, peer: Peer, message: Message) -> None:
        key = message.get("key")
        try:
            report = ObservationReport.model_validate(message.get("report"))
        except ValidationError:
            report = None
        if report is None or type(key) is not int or not 0 <= key < MAX_KEY:
            log.warning("observation.malformed")
            return
        self._observers.add(peer.number)
        if not self._inbox.put_said(Observed(peer.number, key, report)):
            log.warning("observation.dropped kind=%s", report.kind)


def _number(value: object) -> float | None:
    """A finite number of 0 or more; None for anything else that JSON can hold."""
    if type(value) not in (int, float):
        return None
    number = float(str(value))
    return number if math.isfinite(number) and number >= 0 else None
