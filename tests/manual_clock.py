"""A clock that tests turn by hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass
class ManualClock:
    """Both times move only through `advance`; `step_wall` moves the wall alone."""

    now_mono_ns: int = 1_000_000_000
    now_wall: datetime = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)

    def mono_ns(self) -> int:
        return self.now_mono_ns

    def wall(self) -> datetime:
        return self.now_wall

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks."""
        self.now_mono_ns += round(seconds * 1e9)
        self.now_wall += timedelta(seconds=seconds)

    def step_wall(self, seconds: float) -> None:
        """Step the wall clock as an administrator or NTP would."""
        self.now_wall += timedelta(seconds=seconds)
