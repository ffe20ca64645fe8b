"""One rule over time: readings become at most one open span, with smoothing, a level pair and a dwell.

Pure. A reading of None is unassessable: it neither adds to a span nor ends it, and its time is left out of
the dwell. The same movement gives the same span at 2 and at 15 readings a second, because everything is
reckoned in time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from appliance.inference.rules import Rule

# A reading stands for at most so long; what is beyond is a hole. Twice the slowest rate of the signals (2
# Hz).
MAX_STEP_NS = 1_000_000_000
# An open span that could not be assessed for so long ends where it was last seen; one that has not opened is
# dropped.
UNASSESSABLE_ENDS_NS = 10_000_000_000


class Span:
    """State of one rule. A span begins with the first reading at `enter`, opens after the dwell, and closes

    when readings have been at `leave` for the rest; its end is the first of those. Times are monotonic ns.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.is_open = False
        self.start_ns: int | None = None
        self.peak = 0.0
        self._assessed_ns = 0
        self._unassessed_ns = 0
        self._inside_ns = 0
        self._hidden_ns = 0
        self._quality_ns: dict[str, int] = {}
        self._sums: dict[str, float] = {}
        self._smooth = 0.0
        self._inside = False
        self._left_ns = 0
        self._rested_ns = 0
        self._last_ns: int | None = None
        self._last_assessed_ns = 0

    def step(
        self, now_ns: int, value: float | None, readings: Mapping[str, float], quality: str
    ) -> Literal["opened", "closed"] | None:
        """Take one reading from a picture of this `quality`. After "closed" the span's values stand until `clear`."""
        elapsed_ns = 0 if self._last_ns is None else max(0, now_ns - self._last_ns)
        self._last_ns = now_ns
        if self.start_ns is not None and now_ns - self._last_assessed_ns >= self._longest_unseen_ns():
            self._smooth = 0.0
            if self.is_open:
                return "closed"
            self.clear()
        step_ns = min(elapsed_ns, MAX_STEP_NS)
        if self.start_ns is not None:
            self._see(quality, value is None, step_ns, elapsed_ns - step_ns)
        if value is None:
            self._unassessed_ns += elapsed_ns
            return None
        self._unassessed_ns += elapsed_ns - step_ns
        self._last_assessed_ns = now_ns
        self._smooth += (value - self._smooth) * (1.0 - math.exp(-step_ns / 1e9 / self.rule.smooth_s))
        self._place(now_ns, value, step_ns)
        if self.start_ns is None:
            return None
        if self._inside:
            self._inside_ns += step_ns
            self.peak = max(self.peak, value)
            for name, reading in readings.items():
                self._sums[name] = self._sums.get(name, 0.0) + reading * step_ns
        return self._judge(value)

    @property
    def is_inside(self) -> bool:
        """Whether the newest reading that could be assessed was still inside."""
        return self._inside

    def end_ns(self) -> int:
        """Where the span was last seen: the first reading outside, or the last one that could be assessed."""
        return self._last_assessed_ns if self._inside else self._left_ns

    def means(self) -> dict[str, float]:
        """Mean of each reading while inside."""
        return (
            {name: total / self._inside_ns for name, total in self._sums.items()} if self._inside_ns else {}
        )

    def assessed_share(self) -> float:
        """Part of the span's time that could be assessed, 0..1."""
        whole = self._assessed_ns + self._unassessed_ns
        return self._assessed_ns / whole if whole else 1.0

    def quality_s(self) -> dict[str, float]:
        """Seconds of the span by picture quality; "no frame" is what lay between frames too far apart."""
        return {name: spent_ns / 1e9 for name, spent_ns in self._quality_ns.items() if spent_ns}

    def hidden_s(self) -> float:
        """Seconds of the span that could not be assessed though the picture was good: a face cut, covered, unclear."""
        return self._hidden_ns / 1e9

    def clear(self) -> None:
        """Forget the span; the next reading at `enter` begins another."""
        self.is_open, self.start_ns, self.peak, self._inside = False, None, 0.0, False
        self._assessed_ns = self._unassessed_ns = self._inside_ns = self._rested_ns = self._hidden_ns = 0
        self._sums, self._quality_ns = {}, {}

    def _longest_unseen_ns(self) -> float:
        """What any return ends may have returned unseen, in as long as a return takes."""
        anew = self.rule.starts_anew and not self.is_open
        return self.rule.rest_s * 1e9 if anew else UNASSESSABLE_ENDS_NS

    def _see(self, quality: str, is_unassessable: bool, step_ns: int, hole_ns: int) -> None:
        for name, spent_ns in ((quality, step_ns), ("no frame", hole_ns)):
            self._quality_ns[name] = self._quality_ns.get(name, 0) + spent_ns
        if is_unassessable and quality == "good":
            self._hidden_ns += step_ns

    def _place(self, now_ns: int, value: float, step_ns: int) -> None:
        """Put the reading inside or outside; between the two levels it stays where it was."""
        if self.start_ns is not None:
            self._assessed_ns += step_ns
        if value >= self.rule.enter:
            if self.start_ns is None:
                self.clear()
                self.start_ns = now_ns
            self._inside, self._rested_ns = True, 0
        elif value <= self.rule.leave and self._inside:
            self._inside, self._left_ns = False, now_ns
        elif not self._inside:
            self._rested_ns += step_ns

    def _judge(self, value: float) -> Literal["opened", "closed"] | None:
        if self.is_open:
            is_left = not self._inside and self._smooth <= self.rule.leave
            return "closed" if is_left and self._rested_ns >= self.rule.rest_s * 1e9 else None
        if self._inside:
            if max(value, self._smooth) < self.rule.enter:
                # The lower level only keeps open what the upper one has opened: time between them is no dwell.
                self.clear()
            elif self._assessed_ns >= self.rule.dwell_s * 1e9 and self._smooth >= self.rule.enter:
                self.is_open = True
                return "opened"
        elif self._smooth <= self.rule.leave or self.rule.starts_anew:
            self.clear()
        return None
