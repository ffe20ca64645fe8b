"""Session time: 90 kHz from the session's start, on this boot's monotonic clock. Pure.

Within one boot it is exact. After a reboot the wall clock bridges once, when recording goes on; from then on no step of
the wall clock moves a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from appliance.clock import Clock, parse_utc
from appliance.store.recording import SessionRow

TICKS_PER_S = 90_000


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
    def of(cls, session: SessionRow, boot_id: str, clock: Clock, covered_90k: int) -> Timeline:
        """For a session that goes on in boot `boot_id`; nothing before `covered_90k` can come again."""
        if session.boot_id == boot_id:
            return cls(session.started_mono_ns)
        now_90k = wall_90k(session, clock.wall())
        behind = now_90k < covered_90k
        return cls(clock.mono_ns() - max(now_90k, covered_90k) * 100_000 // 9, behind)


def wall_90k(session: SessionRow, moment: datetime) -> int:
    """Session time of a wall-clock moment."""
    return round((moment - parse_utc(session.started)).total_seconds() * TICKS_PER_S)
