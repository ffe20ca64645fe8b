"""Gaps and events of a session on their way into the store: a write error neither loses one nor stops the recording."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from appliance.clock import Clock, utc_text
from appliance.errors import NoSpace, StoreFailed
from appliance.store.recording import RecordingStore
from appliance.timecode import TICKS_PER_S

log = logging.getLogger(__name__)


class Notes:
    """Written at once and in order, or, if the store refuses, before the next one that it takes. Main thread only."""

    def __init__(self, store: RecordingStore, sid: str, clock: Clock) -> None:
        self._store = store
        self._sid = sid
        self._clock = clock
        self._waiting: deque[Callable[[], object]] = deque()

    def gap(self, start_90k: int, end_90k: int, cause: str) -> None:
        """A span without footage."""
        log.warning(
            "record.gap start_s=%.1f end_s=%.1f cause=%s",
            start_90k / TICKS_PER_S,
            end_90k / TICKS_PER_S,
            cause,
        )
        self._add(lambda: self._store.add_gap(self._sid, start_90k, end_90k, cause))

    def event(self, kind: str, **facts: str | int) -> None:
        """A leaf about the recording itself (camera lost, assessment stopped); nothing about what was seen."""
        body = {"kind": kind, "at": utc_text(self._clock.wall()), **facts}
        self._add(lambda: self._store.append_event(self._sid, body))

    def settle(self) -> None:
        """Write what waits; raises StoreFailed or NoSpace while the store refuses."""
        while self._waiting:
            self._waiting[0]()
            self._waiting.popleft()

    def try_to_settle(self) -> None:
        """Write what waits as far as the store takes it."""
        try:
            self.settle()
        except StoreFailed as error:
            log.warning("record.note_waits waiting=%d reason=%s", len(self._waiting), error)

    def _add(self, write: Callable[[], object]) -> None:
        self._waiting.append(write)
        self.try_to_settle()


def cause_of(error: StoreFailed) -> str:
    """What a gap says of a store that refused."""
    return "disk full" if isinstance(error, NoSpace) else "storage write failed"
