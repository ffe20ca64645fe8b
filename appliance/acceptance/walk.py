"""Walks two people through the steps: says what to do, counts down, and looks meanwhile. Writes nothing but words.

Plain lines for any terminal: nothing is coloured, moved or overwritten.
"""

from __future__ import annotations

import math
import textwrap
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.acceptance.looking import Looking, Seen
from appliance.acceptance.script import PRACTICE, PRACTICE_S, SETTLE_S, Step
from appliance.camera.source import CameraSource
from appliance.clock import Clock
from appliance.errors import CameraUnavailable

# A step is announced once nothing is open any more, so that one movement is not read as the next; at the latest after
# this, the longest that an observation outlives what it saw (inference/span.py).
QUIET_S = 10.0
# What was waited is taken from the time to get ready, of which so much is left: a sentence and a countdown.
LEAST_READY_S = 8.0
READ_TIMEOUT_S = 0.25
# A countdown says every fifth second, and each of the last ones.
LAST_SECONDS = 10
WIDTH = 72


@dataclass(frozen=True)
class Mark:
    """When a step was announced, began and ended; monotonic ns."""

    step: Step
    told_ns: int
    begin_ns: int
    end_ns: int


@dataclass
class Run:
    """What was done: the steps that ran to their end, and why the others did not (`stopped`). `broken_off_ns`: when the
    step was announced in which it stopped."""

    begin_ns: int
    end_ns: int = 0
    marks: list[Mark] = field(default_factory=list)
    stopped: str | None = None
    broken_off_ns: float = math.inf


class Stopped(Exception):
    """Somebody asked to stop, or nobody reads any more."""


class Walk:
    """One run of `steps`; `stop` ends it within a quarter of a second."""

    def __init__(
        self,
        steps: tuple[Step, ...],
        source: CameraSource,
        looking: Looking,
        clock: Clock,
        write: Callable[[str], object],
        stop: threading.Event,
        practice_s: float = PRACTICE_S,
    ) -> None:
        self._steps = steps
        self._source = source
        self._looking = looking
        self._clock = clock
        self._write = write
        self._stop = stop
        self._practice_s = practice_s

    def run(self) -> Run:
        """Practice, then every step, from an open camera; a camera that is lost ends it as a wish to stop does."""
        run = Run(self._clock.mono_ns())
        try:
            self._practise()
            for place, step in enumerate(self._steps, 1):
                waited_s = self._wait_for_quiet()
                ready_s = max(min(step.ready_s, LEAST_READY_S), step.ready_s - waited_s)
                run.broken_off_ns = self._clock.mono_ns()
                run.marks.append(self._act(step, place, ready_s))
                run.broken_off_ns = math.inf
            self._pass(SETTLE_S, "")
        except Stopped as why:
            run.stopped = str(why)
        except CameraUnavailable as error:
            run.stopped = str(error)
        run.end_ns = self._clock.mono_ns()
        self._looking.finish(run.end_ns)
        return run

    def _practise(self) -> None:
        self._announce(f"PRACTICE, {self._practice_s:g} seconds", PRACTICE)
        self._pass(self._practice_s, "seconds left")

    def _act(self, step: Step, place: int, ready_s: float) -> Mark:
        self._announce(
            f"STEP {step.number} ({place} of {len(self._steps)}), {step.seconds:g} seconds", step.say
        )
        told_ns = self._clock.mono_ns()
        self._pass(ready_s, "begins in")
        begin_ns = self._clock.mono_ns()
        self._say("    NOW\n")
        self._pass(step.seconds, "seconds left")
        end_ns = self._clock.mono_ns()
        self._say("    STOP. Back to work, face the screen.\n")
        found = [one for one in self._looking.seen if one.start_ns >= told_ns]
        self._say("".join(f"    observed: {_told(one, begin_ns)}\n" for one in found))
        return Mark(step, told_ns, begin_ns, end_ns)

    def _wait_for_quiet(self) -> float:
        begin_ns = self._clock.mono_ns()
        if self._looking.open_now:
            self._say(f"\n    Wait, face the screen. Still observed: {', '.join(self._looking.open_now)}\n")
        while self._looking.open_now and self._clock.mono_ns() - begin_ns < QUIET_S * 1e9:
            self._look(READ_TIMEOUT_S)
        return (self._clock.mono_ns() - begin_ns) / 1e9

    def _announce(self, heading: str, say: str) -> None:
        said = textwrap.indent(textwrap.fill(say, WIDTH - 8), "        ")
        self._say(f"\n{'-' * WIDTH}\n{heading}\n\n{said}\n\n")

    def _pass(self, seconds: float, counting: str) -> None:
        end_ns = self._clock.mono_ns() + round(seconds * 1e9)
        told = math.ceil(seconds) + 1
        self._say(f"    {counting}" if counting else "")
        while (left_s := (end_ns - self._clock.mono_ns()) / 1e9) > 0:
            if counting and math.ceil(left_s) < told:
                told = math.ceil(left_s)
                self._say(f" {told}" if told <= LAST_SECONDS or told % 5 == 0 else "")
            self._look(min(READ_TIMEOUT_S, left_s))
        self._say("\n" if counting else "")

    def _say(self, text: str) -> None:
        try:
            self._write(text)
        except OSError as error:
            raise Stopped("the terminal is gone") from error

    def _look(self, timeout_s: float) -> None:
        if self._stop.is_set():
            raise Stopped("by hand")
        frame = self._source.read(timeout_s)
        if frame is not None:
            self._looking.take(frame)


def _told(one: Seen, begin_ns: int) -> str:
    side = f" ({one.side})" if one.side else ""
    return f"{one.words}{side}, {(one.opened_ns - begin_ns) / 1e9:.0f} s after the beginning"
