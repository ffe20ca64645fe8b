"""Takes the store's ladder to the camera: after each fragment, what is given up, as a leaf and as a fault.

Main thread only. The preview stops at once, the bitrate changes with the next fragment. It deletes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from appliance.camera.encoder import Fragment
from appliance.camera.notes import Notes
from appliance.errors import StoreFailed
from appliance.store.ladder import FAULTS, LOWER_BITRATE_SHARE, Ladder, Step
from appliance.timecode import TICKS_PER_S

log = logging.getLogger(__name__)

EVENT_KIND = "room_on_disk"


class Degrade:
    """One session's in one life of the process."""

    def __init__(
        self,
        planned_s: float,
        bitrate_bps: int,
        room_bytes: Callable[[], int],
        notes: Notes,
        allow_preview: Callable[[bool], None],
        set_bitrate: Callable[[int], None],
    ) -> None:
        """`room_bytes`: what footage may still take; it may raise StoreFailed, and then nothing changes."""
        self._ladder = Ladder(planned_s, bitrate_bps)
        self._bitrate_bps = bitrate_bps
        self._room_bytes = room_bytes
        self._notes = notes
        self._allow_preview = allow_preview
        self._set_bitrate = set_bitrate

    def after(self, fragment: Fragment) -> None:
        """A fragment was filmed, and kept or refused; decide anew."""
        self._ladder.measure(len(fragment.data), fragment.duration_90k)
        end_s = (fragment.time_90k + fragment.duration_90k) / TICKS_PER_S
        try:
            changed = self._ladder.decide(self._room_bytes(), end_s)
        except StoreFailed as error:
            log.warning("record.room_unknown reason=%s", error)
            return
        if changed:
            self._take(self._ladder.step)

    def faults(self) -> list[str]:
        """What the room is told of it."""
        words = FAULTS.get(self._ladder.step)
        return [] if words is None else [words]

    def _take(self, step: Step) -> None:
        lower = step >= Step.LOWER_BITRATE
        self._allow_preview(step < Step.PREVIEW_OFF)
        self._set_bitrate(round(self._bitrate_bps * LOWER_BITRATE_SHARE) if lower else self._bitrate_bps)
        log.warning("record.room step=%s beyond_plan_s=%d", step.word, self._ladder.beyond_s)
        self._notes.event(EVENT_KIND, step=step.word, beyond_plan_s=self._ladder.beyond_s)
