"""What a recording gives up when its room runs short: preview, then bitrate, then an alarm. Pure; it deletes nothing.

The camera process asks after each fragment. Every step holds what the ones before it do.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum

from appliance.timecode import TICKS_PER_S

# Fragments that the measured bitrate covers: a busy minute counts, a busy second does not.
WINDOW_90K = 60 * TICKS_PER_S
# The film at half its bitrate still shows a desk at 720p15 (1.2 to 0.6 Mbit/s), and the room lasts twice as long.
LOWER_BITRATE_SHARE = 0.5
# A step is left only when twice as much is there as where it began: a film that wavers about a limit does not flap.
BACK_FACTOR = 2.0


class Step(IntEnum):
    """Ordered: each is worse than the one before it."""

    NORMAL = 0
    PREVIEW_OFF = 1
    LOWER_BITRATE = 2
    ALARM = 3

    @property
    def word(self) -> str:
        """As the event leaf spells it."""
        return self.name.lower()


@dataclass(frozen=True)
class _Limit:
    """A step begins when the film can last fewer seconds beyond the planned end than the smaller of the two."""

    step: Step
    beyond_s: float
    of_planned: float


# The reserve holds a quarter of the planned duration beyond it (F146), so that a session armed on a full disk begins
# above all three; minutes bound them for a long exam.
LIMITS = (
    _Limit(Step.ALARM, 120.0, 0.02),
    _Limit(Step.LOWER_BITRATE, 300.0, 0.05),
    _Limit(Step.PREVIEW_OFF, 600.0, 0.10),
)

FAULTS = {
    Step.PREVIEW_OFF: "room on the disk runs short: no preview while it does",
    Step.LOWER_BITRATE: "room on the disk runs short: recorded at half its bitrate, without preview",
    Step.ALARM: "room on the disk is nearly used up: move the candidate to a spare desk or make room;"
    " nothing is deleted",
}


class Ladder:
    """One session's. `planned_s` is the whole planned duration, `bitrate_bps` the policy's."""

    def __init__(self, planned_s: float, bitrate_bps: int) -> None:
        self._planned_s = planned_s
        self._bitrate_bps = bitrate_bps
        self._fragments: deque[tuple[int, int]] = deque()
        self._bytes = 0
        self._span_90k = 0
        self.step = Step.NORMAL
        self.beyond_s = 0

    @property
    def measured_bps(self) -> float:
        """Of the last minute; the policy's bitrate until something is measured."""
        if not self._span_90k:
            return float(self._bitrate_bps)
        return self._bytes * 8 * TICKS_PER_S / self._span_90k

    def measure(self, size_bytes: int, duration_90k: int) -> None:
        """Take one fragment as it was filmed."""
        self._fragments.append((size_bytes, duration_90k))
        self._bytes += size_bytes
        self._span_90k += duration_90k
        while self._span_90k - self._fragments[0][1] >= WINDOW_90K:
            first_bytes, first_90k = self._fragments.popleft()
            self._bytes -= first_bytes
            self._span_90k -= first_90k

    def decide(self, room_bytes: int, elapsed_s: float) -> bool:
        """True when the step changed. `room_bytes`: what footage may still take; `elapsed_s` since the start.

        `beyond_s`, the seconds that the film can last beyond its planned end at the measured bitrate, is negative
        when it will not reach it. In overrun the planned end is now.
        """
        planned_left_s = max(0.0, self._planned_s - elapsed_s)
        beyond_s = self._lasts_s(room_bytes, self.measured_bps) - planned_left_s
        # What a lower bitrate saves must not be the reason to end it: it is left by what the full one would leave.
        full_bps = max(self.measured_bps, float(self._bitrate_bps))
        at_full_s = self._lasts_s(room_bytes, full_bps) - planned_left_s
        before, self.beyond_s = self.step, round(beyond_s)
        wanted = next((limit.step for limit in LIMITS if beyond_s < self._limit_s(limit)), Step.NORMAL)
        if wanted >= self.step:
            self.step = wanted
            return self.step != before
        for limit in (limit for limit in LIMITS if limit.step <= self.step):
            enough_s = beyond_s if limit.step is Step.ALARM else at_full_s
            if enough_s < BACK_FACTOR * self._limit_s(limit):
                self.step = limit.step
                break
        else:
            self.step = Step.NORMAL
        return self.step != before

    def _limit_s(self, limit: _Limit) -> float:
        return min(limit.beyond_s, limit.of_planned * self._planned_s)

    @staticmethod
    def _lasts_s(room_bytes: int, bitrate_bps: float) -> float:
        return room_bytes * 8 / max(bitrate_bps, 1.0)
