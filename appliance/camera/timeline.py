"""Session time: 90 kHz from the session's start, on this boot's monotonic clock; and steps of the wall clock.

Within one boot it is exact. After a reboot the wall clock bridges once, when recording goes on; from then on no step of
the wall clock moves a frame. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from appliance.clock import Clock, parse_utc
from appliance.store.recording import SessionRow
from appliance.timecode import TICKS_PER_S

# Slewing moves both clocks alike, so only a clock that was set differs; a leap second is no more than this.
WALL_STEP_MS = 1000
# A reading that took so long says nothing: the process stood still between the two clocks.
READING_NS = 100_000_000


@dataclass(frozen=True)
class Timeline:
    """`origin_mono_ns`: CLOCK_BOOTTIME of session time 0, negative when that lay in an earlier boot.

    `clock_was_behind`: the wall clock stood before what is already recorded, as on a board without a battery; how
    long the interruption was is then not known, and time goes on where the recording ends.
    """

    origin_mono_ns: int
    clock_was_behind: bool = False

    def at_90k(self, mono_ns: int) -> int:
        """Session time of a monotonic moment of this boot."""
        return (mono_ns - self.origin_mono_ns) * 9 // 100_000

    @classmethod
    def bridged(cls, session: SessionRow, clock: Clock, covered_90k: int) -> Timeline:
        """For a session that goes on after a reboot; nothing before `covered_90k` can come again."""
        now_90k = wall_90k(session, clock.wall())
        behind = now_90k < covered_90k
        return cls(clock.mono_ns() - max(now_90k, covered_90k) * 100_000 // 9, behind)


def wall_90k(session: SessionRow, moment: datetime) -> int:
    """Session time of a wall-clock moment."""
    return round((moment - parse_utc(session.started)).total_seconds() * TICKS_PER_S)


class WallWatch:
    """Finds steps of the wall clock against CLOCK_BOOTTIME, also those that add up from small ones."""

    def __init__(self, clock: Clock, offset_ms: int | None = None) -> None:
        """`offset_ms`: wall minus monotonic time as it should be; None: as it is now."""
        self._clock = clock
        self._offset_ms = self._now_ms() if offset_ms is None else offset_ms

    @classmethod
    def of(cls, session: SessionRow, boot_id: str, clock: Clock, moved_ms: int) -> WallWatch:
        """For a session's life in boot `boot_id`; `moved_ms` is what earlier lives in this boot found."""
        if session.boot_id != boot_id:
            return cls(clock)
        return cls(clock, offset_ms(parse_utc(session.started), session.started_mono_ns) + moved_ms)

    def step_ms(self) -> int | None:
        """By how much the wall clock was set since the last step was found, if by more than a second."""
        now_ms = self._now_ms()
        if now_ms is None or self._offset_ms is None:
            self._offset_ms = now_ms if self._offset_ms is None else self._offset_ms
            return None
        by_ms = now_ms - self._offset_ms
        if abs(by_ms) <= WALL_STEP_MS:
            return None
        self._offset_ms = now_ms
        return by_ms

    def _now_ms(self) -> int | None:
        before_ns = self._clock.mono_ns()
        wall = self._clock.wall()
        after_ns = self._clock.mono_ns()
        if after_ns - before_ns > READING_NS:
            return None
        return offset_ms(wall, (before_ns + after_ns) // 2)


def offset_ms(wall: datetime, mono_ns: int) -> int:
    """Wall minus monotonic time in milliseconds."""
    return round(wall.timestamp() * 1000) - mono_ns // 1_000_000
