"""Process 2 of a desk node: looks for face and gaze in the newest small frame, listens where the exam's policy says so,
and reports observations to the camera.

It may die at any time: the camera goes on recording, says that nothing is being assessed, and a new life begins with a
fresh baseline. Without a session, or with faces switched off by the policy, no model for pictures is loaded.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from appliance.clock import Clock, SystemClock
from appliance.config import NodeConfig
from appliance.errors import ModelMissing, ModelsDiffer
from appliance.frames import FrameRingReader, RingFrame
from appliance.inference.accommodations import accommodated
from appliance.inference.listening import Listener, Speaker, ears_of
from appliance.inference.models import load_models
from appliance.inference.observations import ObservationPolicy
from appliance.inference.pace import Pace
from appliance.inference.reports import Reports
from appliance.inference.rules import DEFAULT_RULES, enabled, expecting, with_levels
from appliance.inference.selftest import check
from appliance.inference.signals import Signals
from appliance.inference.watch import Watch
from appliance.local_link import LocalClient, Message
from appliance.one_thread import stay_in_one_thread
from appliance.service import notify

log = logging.getLogger(__name__)

IDLE_S = 0.2
REPORT_INTERVAL_NS = 1_000_000_000
# The rate is that of this time; two frames that lie further apart are the rate themselves.
RATE_WINDOW_NS = 4_000_000_000


class Assessment:
    """One session's tracker and policy; raises ModelsDiffer where the networks do not give their golden numbers."""

    def __init__(self, session: Message) -> None:
        self.sid = str(session["sid"])
        self.started_mono_ns = int(session["started_mono_ns"])
        gaze = bool(session["gaze"])
        self._models = load_models(gaze)
        check(self._models)
        self._watch = Watch(self._models)
        # Then each frame is copied first, which takes less time than the ring can need to come round.
        self._too_slow = False
        rules = with_levels(enabled(DEFAULT_RULES, gaze=gaze), session["levels"])
        rules = expecting(rules, int(session.get("expected_people", 1)))
        self._policy = ObservationPolicy(accommodated(rules, session.get("accommodations", ())))
        self._reports = Reports(session)

    def process(self, frame: RingFrame) -> list[Message] | None:
        """Messages for the camera from one frame; None where it was written over while it was read."""
        signals = self._look(frame)
        return (
            None
            if signals is None
            else [self._reports.message(each) for each in self._policy.process(signals)]
        )

    def close(self, now_mono_ns: int) -> list[Message]:
        """Messages that end what is open."""
        return [self._reports.message(each) for each in self._policy.close_all(now_mono_ns)]

    def _look(self, frame: RingFrame) -> Signals | None:
        if self._too_slow:
            image = frame.image.copy()
            return self._watch.process(image, frame.taken_mono_ns) if frame.is_whole() else None
        signals = self._watch.process(frame.image, frame.taken_mono_ns)
        if frame.is_whole():
            return signals
        # The ring came round while the models looked. What the watch remembers may be of two frames.
        log.warning("frame.written_over sequence=%d", frame.sequence)
        self._too_slow = True
        self._watch = Watch(self._models)
        return None


def run(config: NodeConfig, stop: threading.Event) -> None:
    """Assess whenever the camera process says that a session records, until `stop`."""
    stay_in_one_thread()
    sessions: queue.SimpleQueue[Message] = queue.SimpleQueue()
    ring = FrameRingReader(config.run_dir / "frames")
    link = LocalClient(config.run_dir / "camera.sock", lambda message: _take(sessions, message))
    clock = SystemClock()
    listener = Listener(link, clock, ears_of(config, clock))
    notify("READY=1")
    try:
        _loop(stop, sessions, Assessor(ring, link, clock, Pace.of(config)), listener)
    finally:
        listener.close()
        link.close()
        ring.close()


def _take(sessions: queue.SimpleQueue[Message], message: Message) -> None:
    if message["type"] == "session":
        sessions.put(message)


def _loop(
    stop: threading.Event, sessions: queue.SimpleQueue[Message], assessor: Assessor, listener: Listener
) -> None:
    while not stop.is_set():
        while not sessions.empty():
            session = sessions.get()
            assessor.follow(session)
            listener.follow(session)
        listener.step()
        # Each turn ends: a model that hangs does not come back here.
        notify("WATCHDOG=1")
        stop.wait(assessor.step())


class Assessor:
    """Follows the camera's sessions and assesses the newest frame as often as its pace allows."""

    def __init__(
        self,
        ring: FrameRingReader,
        link: Speaker,
        clock: Clock,
        pace: Pace,
        cpu_ns: Callable[[], int] = time.process_time_ns,
        begin: Callable[[Message], Assessment] = Assessment,
    ) -> None:
        """`cpu_ns`: CPU time of the process, all threads."""
        self._ring = ring
        self._link = link
        self._clock = clock
        self._pace = pace
        self._cpu_ns = cpu_ns
        self._begin = begin
        self._assessment: Assessment | None = None
        self._problem: str | None = None
        self._newest = 0
        self._report_due_ns = 0
        self._finished_ns: deque[int] = deque()

    def follow(self, session: Message) -> None:
        """Do what the camera's newest session message asks for; another session closes what is open."""
        known = self._assessment
        if known is not None and session["sid"] == known.sid:
            # To a new connection: with the old one the camera closed what was open. What goes on opens anew.
            known.close(self._clock.mono_ns())
            return
        if known is not None:
            self._say(known.close(self._clock.mono_ns()))
            self._assessment = None
        self._problem = None
        if session["sid"] is not None and session["face"]:
            try:
                self._assessment = self._begin(session)
                log.info("assessment.began sid=%s gaze=%s", session["sid"], session["gaze"])
            except (ModelsDiffer, ModelMissing) as error:
                # No restart computes otherwise, or brings a file; the camera hears why nothing is assessed.
                log.error("assessment.refused reason=%s hint=%s", error, error.hint)
                self._problem = str(error)
        self._finished_ns.clear()

    def step(self) -> float:
        """Assess a frame if there is one and it is time; returns how many seconds to wait before the next step."""
        begun_ns = self._clock.mono_ns()
        wait_s = self._pace.wait_s(begun_ns, self._cpu_ns())
        assessment = self._assessment
        if assessment is None:
            self._report_problem(begun_ns)
            return IDLE_S
        if wait_s > 0:
            # However much is owed, sessions are followed meanwhile.
            return min(wait_s, IDLE_S)
        frame = self._ring.latest(self._newest)
        if frame is None:
            return min(self._pace.period_s / 4, IDLE_S)
        self._newest = frame.sequence
        # The ring may still hold the end of the session before.
        if frame.taken_mono_ns < assessment.started_mono_ns:
            return 0.0
        self._pace.begin(begun_ns)
        messages = assessment.process(frame)
        ended_ns = self._clock.mono_ns()
        self._pace.end(ended_ns, self._cpu_ns())
        if messages is not None:
            self._say(messages)
            self._report_rate(ended_ns)
        return 0.0

    def _report_problem(self, now_ns: int) -> None:
        if self._problem is not None and now_ns >= self._report_due_ns:
            self._report_due_ns = now_ns + REPORT_INTERVAL_NS
            self._link.send({"type": "inference", "problem": self._problem})

    def _report_rate(self, now_ns: int) -> None:
        self._finished_ns.append(now_ns)
        while len(self._finished_ns) > 2 and self._finished_ns[0] < now_ns - RATE_WINDOW_NS:
            self._finished_ns.popleft()
        if now_ns < self._report_due_ns or len(self._finished_ns) < 2:
            return
        self._report_due_ns = now_ns + REPORT_INTERVAL_NS
        span_s = (self._finished_ns[-1] - self._finished_ns[0]) / 1e9
        rate_hz = (len(self._finished_ns) - 1) / max(span_s, 1e-3)
        self._link.send({"type": "inference", "rate_hz": round(rate_hz, 2)})

    def _say(self, messages: list[Message]) -> None:
        for message in messages:
            self._link.send(message)
