"""How far the node's clock is from the room controller's, which is the room's time server (pure).

Used by the sync process's main thread; a restart begins without an estimate, so the desk is not armed before.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.clock import Clock

FRESH_S = 30.0  # the controller speaks every 2 s: fifteen messages lost in a row
MAX_OFFSET_S = 0.5  # half of the second in which a proctor reads times
STEP_S = 0.5  # NTP slews at most 500 ppm (RFC 5905), 1 ms between two looks; anything like this is a step
STEP_SHOWN_S = 300.0
# A message can only be late, never early: of some messages the one that came soonest is nearest to the truth.
SAMPLES = 8


@dataclass(frozen=True)
class ClockReading:
    """`offset_s` is controller minus node, None before the first message; `stepped_s` a step of the last minutes."""

    offset_s: float | None
    synced: bool
    stepped_s: float | None = None


class RoomClock:
    """Takes the controller's time and the two own clocks; times are aware UTC, monotonic in nanoseconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start_mono_ns = clock.mono_ns()
        # Seconds between the controller's time and our monotonic time, counted from `_epoch`.
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._epoch = clock.wall()
        self._heard_mono_ns = 0
        self._wall_minus_mono_s = self._own_difference_s(clock.mono_ns(), clock.wall())
        self._step: tuple[float, int] | None = None

    def heard(self, controller_time: datetime, arrived_mono_ns: int) -> None:
        """A ClockMessage with this time arrived at `arrived_mono_ns`."""
        self._samples.append(self._own_difference_s(arrived_mono_ns, controller_time))
        self._heard_mono_ns = arrived_mono_ns

    def reading(self) -> ClockReading:
        """The estimate now. A step of the own wall clock shows at once: samples are held against monotonic time."""
        mono_ns, wall = self._clock.mono_ns(), self._clock.wall()
        own_s = self._own_difference_s(mono_ns, wall)
        if abs(own_s - self._wall_minus_mono_s) >= STEP_S:
            self._step = (own_s - self._wall_minus_mono_s, mono_ns)
        self._wall_minus_mono_s = own_s
        stepped_s = None
        if self._step is not None and mono_ns - self._step[1] < STEP_SHOWN_S * 1e9:
            stepped_s = self._step[0]
        if not self._samples:
            return ClockReading(None, False, stepped_s)
        offset_s = max(self._samples) - own_s
        fresh = mono_ns - self._heard_mono_ns < FRESH_S * 1e9
        return ClockReading(offset_s, fresh and abs(offset_s) < MAX_OFFSET_S, stepped_s)

    def _own_difference_s(self, mono_ns: int, wall: datetime) -> float:
        since = wall - self._epoch - timedelta(microseconds=(mono_ns - self._start_mono_ns) // 1000)
        return since.total_seconds()
