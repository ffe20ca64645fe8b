"""Process 2 of a desk node: looks for face and gaze in the newest small frame and reports observations to the camera.

It may die at any time: the camera goes on recording, says that nothing is being assessed, and a new life begins with a
fresh baseline. Without a session, or with faces switched off by the policy, no model is loaded.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from dataclasses import replace
from typing import Any

from appliance.clock import Clock, SystemClock
from appliance.config import NodeConfig
from appliance.frames import FrameRingReader
from appliance.inference.models import load_models
from appliance.inference.observations import KINDS, Observation, ObservationPolicy
from appliance.inference.rules import DEFAULT_RULES, Rule, enabled
from appliance.inference.tracker import Tracker
from appliance.local_link import LocalClient, Message
from appliance.service import notify

log = logging.getLogger(__name__)

IDLE_S = 0.2
RATE_WINDOW = 20


class Assessment:
    """One session's tracker and policy."""

    def __init__(self, session: Message) -> None:
        self.sid = str(session["sid"])
        self.started_mono_ns = int(session["started_mono_ns"])
        gaze = bool(session["gaze"])
        self._tracker = Tracker(load_models(gaze))
        self._policy = ObservationPolicy(with_levels(enabled(DEFAULT_RULES, gaze=gaze), session["levels"]))
        self._keys: dict[str, int] = {}
        self._next_key = 0

    def process(self, image: Any, taken_mono_ns: int) -> list[Message]:
        """Messages for the camera from one frame (height x width x 3 uint8 BGR)."""
        return [
            self._message(each) for each in self._policy.process(self._tracker.process(image, taken_mono_ns))
        ]

    def close(self, now_mono_ns: int) -> list[Message]:
        """Messages that end what is open."""
        return [self._message(each) for each in self._policy.close_all(now_mono_ns)]

    def _message(self, observation: Observation) -> Message:
        if observation.phase == "opened":
            self._keys[observation.kind] = self._next_key
            self._next_key += 1
        return {
            "type": "observation",
            "key": self._keys[observation.kind],
            "report": {
                "kind": observation.kind,
                "words": KINDS[observation.kind].words,
                "phase": observation.phase,
                "start_90k": self._session_90k(observation.start_mono_ns),
                "end_90k": None
                if observation.end_mono_ns is None
                else self._session_90k(observation.end_mono_ns),
                "duration_s": round(observation.duration_s, 1),
                "level": observation.level,
                "technical": observation.technical,
                "rule": observation.rule,
                "measured": dict(observation.measured),
                "uncertainty": uncertainty_words(observation),
            },
        }

    def _session_90k(self, mono_ns: int) -> int:
        return max(0, (mono_ns - self.started_mono_ns) * 9 // 100_000)


def with_levels(rules: tuple[Rule, ...], levels: dict[str, Any]) -> tuple[Rule, ...]:
    """The rules with the institution's levels (F066); technical kinds have none."""
    return tuple(
        rule if KINDS[rule.kind].technical else replace(rule, level=levels.get(rule.kind, rule.level))
        for rule in rules
    )


def uncertainty_words(observation: Observation) -> str:
    """How unsure the measurement is, for a person."""
    share = observation.measured.get("assessed_share")
    seen = "" if share is None else f"assessed {float(share):.0%} of the time"
    if observation.uncertainty is None:
        return seen
    return f"direction within about {observation.uncertainty:.0f} degrees; {seen}".rstrip("; ")


def run(config: NodeConfig, stop: threading.Event) -> None:
    """Assess whenever the camera process says that a session records, until `stop`."""
    sessions: queue.Queue[Message] = queue.Queue()
    ring = FrameRingReader(config.run_dir / "frames")
    link = LocalClient(config.run_dir / "camera.sock", lambda message: _take(sessions, message))
    notify("READY=1")
    try:
        _loop(config, stop, SystemClock(), sessions, ring, link)
    finally:
        link.close()
        ring.close()


def _take(sessions: queue.Queue[Message], message: Message) -> None:
    if message["type"] == "session":
        sessions.put(message)


def _loop(
    config: NodeConfig,
    stop: threading.Event,
    clock: Clock,
    sessions: queue.Queue[Message],
    ring: FrameRingReader,
    link: LocalClient,
) -> None:
    assessment: Assessment | None = None
    newest = 0
    finished_ns: deque[int] = deque(maxlen=RATE_WINDOW)
    next_report_ns = 0
    period_s = 1 / config.inference_rate_hz
    while not stop.is_set():
        while not sessions.empty():
            assessment = _follow(sessions.get(), assessment, link, clock)
            finished_ns.clear()
        frame = ring.latest(newest) if assessment is not None else None
        if assessment is None or frame is None:
            stop.wait(IDLE_S if assessment is None else period_s / 4)
            if assessment is None:
                notify("WATCHDOG=1")
            continue
        newest = frame.sequence
        for message in assessment.process(frame.image, frame.taken_mono_ns):
            link.send(message)
        now = clock.mono_ns()
        finished_ns.append(now)
        notify("WATCHDOG=1")
        if now >= next_report_ns and len(finished_ns) > 1:
            next_report_ns = now + 1_000_000_000
            rate_hz = (len(finished_ns) - 1) / max((finished_ns[-1] - finished_ns[0]) / 1e9, 1e-3)
            link.send({"type": "inference", "rate_hz": round(rate_hz, 2)})


def _follow(
    session: Message, assessment: Assessment | None, link: LocalClient, clock: Clock
) -> Assessment | None:
    """The assessment that the camera's newest session message asks for."""
    if assessment is not None and session["sid"] == assessment.sid:
        return assessment
    if assessment is not None:
        for message in assessment.close(clock.mono_ns()):
            link.send(message)
    if session["sid"] is None or not session["face"]:
        return None
    log.info("assessment.began sid=%s gaze=%s", session["sid"], session["gaze"])
    return Assessment(session)
