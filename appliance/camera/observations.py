"""A session's observations on their way from a model process into the log track: numbers, bounds, replay.

Each life of a model process has its own keys; in the recording a number stands for one observation and never returns.
Opened ones whose model process is gone are closed here, where it was last there.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any, Protocol

from appliance.camera.inbox import Observed
from appliance.evf.errors import EvfError
from appliance.local_link import Message
from appliance.protocol import OBSERVATIONS_PER_EPOCH, ObservationReport
from appliance.timecode import TICKS_PER_S

log = logging.getLogger(__name__)

# Six kinds with dwell and rest of seconds open and close far more rarely; a peer beyond it is broken.
MAX_RATE_HZ = 5.0
MAX_BURST = 50
MAX_OPEN = 64
# For a restarted controller; older ones stand in the recording.
MAX_REMEMBERED = 1000
MAX_WAITING = 200
# Both processes read the same clock; a report from further ahead is wrong.
AHEAD_TOLERANCE_90K = TICKS_PER_S


class ObservationRecord(Protocol):
    """Makes one durable; False when the store refuses now. EpochRecorder.observation."""

    def __call__(self, number: int, report: Mapping[str, Any], time_90k: int) -> bool: ...


class SessionObservations:
    """One epoch's; main thread only. Every method returns the messages that may now be told: all durable."""

    def __init__(self, sid: str, epoch: int, record: ObservationRecord) -> None:
        self.refused = 0
        self._sid = sid
        self._record = record
        self._next_number = epoch * OBSERVATIONS_PER_EPOCH
        self._open: dict[tuple[int, int], tuple[int, ObservationReport]] = {}
        self._newest: OrderedDict[int, Message] = OrderedDict()
        self._waiting: deque[tuple[int, ObservationReport]] = deque()
        self._budget = float(MAX_BURST)
        self._budget_at_90k = 0

    @property
    def waiting(self) -> int:
        """How many the store has not taken yet."""
        return len(self._waiting)

    @property
    def any_open(self) -> bool:
        """True while an observation has not been closed."""
        return bool(self._open)

    def take(self, observed: Observed, now_90k: int) -> list[Message]:
        """Number and record a report; one that cannot be true, or is one too many, is refused and counted."""
        key, report = (observed.peer, observed.key), observed.report
        known = self._open.get(key)
        if not _is_possible(report, now_90k) or not self._afford(now_90k, known is not None):
            self.refused += 1
            log.warning("observation.refused kind=%s refused=%d", report.kind, self.refused)
            return []
        if known is None:
            number = self._next_number
            self._next_number += 1
        else:
            number = known[0]
        if report.phase == "opened":
            self._open[key] = (number, report)
        else:
            self._open.pop(key, None)
        return self._keep(number, report, now_90k)

    def observer_gone(self, peer: int, now_90k: int) -> list[Message]:
        """Close what a model process left open: nobody knows how it went on."""
        left = [key for key in self._open if key[0] == peer]
        return [message for key in left for message in self._close(key, now_90k)]

    def close_all(self, now_90k: int) -> list[Message]:
        """Close what is open at the end of the session or of this process."""
        return [message for key in list(self._open) for message in self._close(key, now_90k)]

    def retry(self, now_90k: int) -> list[Message]:
        """Record what the store refused before, in order, as far as it takes something again."""
        told: list[Message] = []
        while self._waiting:
            messages = self._write(*self._waiting[0], now_90k)
            if messages is None:
                break
            self._waiting.popleft()
            told += messages
        return told

    def again(self) -> list[Message]:
        """The newest state of each observation, oldest number first; 1000 at most."""
        return [self._newest[number] for number in sorted(self._newest)]

    def _close(self, key: tuple[int, int], now_90k: int) -> list[Message]:
        number, report = self._open.pop(key)
        end_90k = max(now_90k, report.start_90k)
        closed = report.model_copy(
            update={
                "phase": "closed",
                "end_90k": end_90k,
                "duration_s": round((end_90k - report.start_90k) / TICKS_PER_S, 1),
                "uncertainty": f"{report.uncertainty}; assessment ended before it did".lstrip("; ")[:200],
            }
        )
        return self._keep(number, closed, now_90k)

    def _keep(self, number: int, report: ObservationReport, now_90k: int) -> list[Message]:
        # Behind those that wait already, or an observation could be closed before it was opened.
        messages = None if self._waiting else self._write(number, report, now_90k)
        if messages is not None:
            return messages
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append((number, report))
        else:
            self.refused += 1
        return []

    def _write(self, number: int, report: ObservationReport, now_90k: int) -> list[Message] | None:
        """None when the store refuses now."""
        body = report.model_dump(mode="json")
        time_90k = report.start_90k if report.end_90k is None else report.end_90k
        try:
            durable = self._record(number, body, min(time_90k, max(now_90k, 0)))
        except EvfError as error:
            self.refused += 1
            log.warning("observation.refused kind=%s reason=%s", report.kind, error)
            return []
        if not durable:
            return None
        message: Message = {"type": "observation", "sid": self._sid, "number": number, "report": body}
        self._newest[number] = message
        self._newest.move_to_end(number)
        if len(self._newest) > MAX_REMEMBERED:
            self._newest.popitem(last=False)
        return [message]

    def _afford(self, now_90k: int, is_known: bool) -> bool:
        earned = max(0, now_90k - self._budget_at_90k) / TICKS_PER_S * MAX_RATE_HZ
        self._budget = min(MAX_BURST, self._budget + earned)
        self._budget_at_90k = now_90k
        if self._budget < 1 or (not is_known and len(self._open) >= MAX_OPEN):
            return False
        self._budget -= 1
        return True


def _is_possible(report: ObservationReport, now_90k: int) -> bool:
    latest_90k = now_90k + AHEAD_TOLERANCE_90K
    end_90k = report.start_90k if report.end_90k is None else report.end_90k
    return 0 <= report.start_90k <= end_90k <= latest_90k
