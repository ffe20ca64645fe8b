"""Looks at the camera's frames as the inference process does in an exam; keeps the readings in memory, no picture.

The same tracker, rules, rate and share of CPU. Only the models' own work counts as CPU, since here the camera's is done
in the same process.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from appliance.acceptance.script import Side
from appliance.camera.source import Frame
from appliance.clock import Clock
from appliance.inference.eye_crops import CORNERS
from appliance.inference.observations import Observation, ObservationPolicy, upward_deviation_deg
from appliance.inference.pace import Pace
from appliance.inference.rules import ANGLE_KINDS, DEFAULT_RULES, KINDS
from appliance.inference.signals import Signals


@dataclass(frozen=True)
class Sample:
    """One frame's reading; `eye_px` between the middles of both eyes in the picture that the models see."""

    signals: Signals
    eye_px: float | None = None


def eye_distance_px(points: NDArray[np.float32]) -> float:
    """Between the middles of both eyes, each halfway between its corners, of a face with (468, 3) points."""
    first, second = (points[list(corners), :2].mean(axis=0) for corners in CORNERS)
    return float(np.hypot(*(second - first)))


def measure_light(samples: Sequence[Sample]) -> dict[str, float]:
    """Share of the frames by picture quality, the most frequent first."""
    counted = Counter(sample.signals.quality for sample in samples)
    return {quality: count / len(samples) for quality, count in counted.most_common()}


@dataclass
class Seen:
    """One observation; `end_ns` None while it is open. Times are monotonic. `usual_pitch_deg`: the sitting person's
    usual direction when it opened, above which "up" begins."""

    kind: str
    start_ns: int
    opened_ns: int
    end_ns: int | None = None
    usual_pitch_deg: float = 0.0
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """What it says of the desk."""
        return KINDS[self.kind].words

    @property
    def side(self) -> Side | None:
        """Where a direction went, as the sitting person sees it; None for other kinds."""
        if self.kind not in ANGLE_KINDS:
            return None
        rule = next(rule for rule in DEFAULT_RULES if rule.kind == self.kind)
        sideways_deg = self.measured["yaw_deg"] - self.measured["baseline_yaw_deg"]
        upward_deg = self.measured["pitch_deg"] - self.usual_pitch_deg
        if upward_deviation_deg(rule, upward_deg) > abs(sideways_deg):
            return "up"
        return "left" if sideways_deg > 0 else "right"


class Looking:
    """One run's readings (`samples`) and observations (`seen`), in time order."""

    def __init__(
        self,
        read: Callable[[Frame], Sample],
        pace: Pace,
        clock: Clock,
        cpu_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        """`read`: the tracker; `cpu_ns`: CPU time of the thread that it runs in."""
        self.samples: list[Sample] = []
        self.seen: list[Seen] = []
        self.policy = ObservationPolicy()
        # The first minute's: the step that turns the camera has it learned anew.
        self.baseline = self.policy.baseline
        self._read = read
        self._pace = pace
        self._clock = clock
        self._cpu_ns = cpu_ns
        self._used_ns = 0

    @property
    def open_now(self) -> list[str]:
        """Words of what is being observed."""
        return [one.words for one in self.seen if one.end_ns is None]

    def take(self, frame: Frame) -> None:
        """Look at a frame if it is time for one."""
        now_ns = self._clock.mono_ns()
        if self._pace.wait_s(now_ns, self._used_ns) > 0:
            return
        self._pace.begin(now_ns)
        before_ns = self._cpu_ns()
        sample = self._read(frame)
        self._used_ns += self._cpu_ns() - before_ns
        self._pace.end(self._clock.mono_ns(), self._used_ns)
        self.samples.append(sample)
        for observation in self.policy.process(sample.signals):
            self._note(observation, sample.signals.taken_mono_ns)
        if self.policy.baseline["learned_s"] >= self.baseline["learned_s"]:
            self.baseline = self.policy.baseline

    def finish(self, now_ns: int) -> None:
        """What is open closes where it was last seen."""
        for observation in self.policy.close_all(now_ns):
            self._note(observation, now_ns)

    def _note(self, observation: Observation, now_ns: int) -> None:
        if observation.phase == "opened":
            usual_deg = self.policy.baseline["pitch_deg"]
            self.seen.append(
                Seen(observation.kind, observation.start_mono_ns, now_ns, usual_pitch_deg=usual_deg)
            )
        newest = next(one for one in reversed(self.seen) if one.kind == observation.kind)
        newest.end_ns, newest.measured = observation.end_mono_ns, observation.measured
