"""Times of a session as people read them; the session's clock runs at 90 kHz from its start."""

from __future__ import annotations

TICKS_PER_S = 90_000  # as MPEG counts: whole numbers for 24, 25, 30 and 15 pictures a second


def seconds(time_90k: int) -> float:
    """90 kHz -> seconds, to the millisecond."""
    return round(time_90k / TICKS_PER_S, 3)


def clock_text(time_90k: int) -> str:
    """hh:mm:ss from the session's start, cut to the second."""
    minutes, second = divmod(time_90k // TICKS_PER_S, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}"


def span_text(start_90k: int, end_90k: int) -> str:
    """hh:mm:ss-hh:mm:ss, never shorter than what it covers: the end is rounded up."""
    return f"{clock_text(start_90k)}-{clock_text(end_90k + TICKS_PER_S - 1)}"


def duration_text(duration_s: float) -> str:
    """6.2 s, 3 min 20 s or 1 h 05 min."""
    if duration_s < 60:
        return f"{duration_s:.1f} s"
    minutes, second = divmod(round(duration_s), 60)
    if minutes < 60:
        return f"{minutes} min {second:02d} s"
    hour, minute = divmod(minutes, 60)
    return f"{hour} h {minute:02d} min"
