"""Monotonic time orders and measures, wall time labels; both come from one `Clock` so that tests can turn it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Source of both times. `mono_ns` survives a process restart within one boot (CLOCK_BOOTTIME)."""

    def mono_ns(self) -> int:
        """Nanoseconds since boot, never stepping back."""
        ...

    def wall(self) -> datetime:
        """Aware UTC time; may step."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def mono_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wall(self) -> datetime:
        return datetime.now(UTC)


def utc_text(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and a `Z`: the one form that Invigil writes."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def parse_utc(text: str) -> datetime:
    """Inverse of `utc_text`; raises ValueError for anything without a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time without a zone: {text}")
    return moment.astimezone(UTC)


def boot_id() -> str:
    """The kernel's random id of this boot (32 hex digits); one life of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as source:  # noqa: PTH123
        return source.read().strip().replace("-", "")
