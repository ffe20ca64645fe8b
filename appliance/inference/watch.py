"""What the node reads of a session's frames: the face by the tracker, and twice a second the picture as a whole: is it
live, and does the camera stand where it stood.

One per session, like the tracker; the picture that it keeps for the next look is in memory only and gone with it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from appliance.inference.landmarks import box_of_points
from appliance.inference.models import Models
from appliance.inference.signals import Signals
from appliance.inference.tracker import Tracker
from appliance.inference.view import UNTOLD, CameraView
from appliance.picture_quality import is_same

LOOK_INTERVAL_NS = 500_000_000
# A thirtieth early is on time, or jitter would make every interval a frame longer.
EARLY_NS = LOOK_INTERVAL_NS // 15
# Two looks further apart say nothing of each other; the view is compared all the same.
HOLE_NS = 2_500_000_000


class Watch:
    """`models` as for the Tracker."""

    def __init__(self, models: Models) -> None:
        self._tracker = Tracker(models)
        self._view = CameraView()
        self._stand = UNTOLD
        self._kept: NDArray[np.uint8] | None = None
        self._looked_ns: int | None = None
        self._frozen = False

    @property
    def points(self) -> NDArray[np.float32] | None:
        """The tracker's."""
        return self._tracker.points

    def process(self, frame_bgr: NDArray[np.uint8], taken_mono_ns: int) -> Signals:
        """Signals of an H x W x 3 BGR frame; of a frozen picture nothing but that it is frozen."""
        signals = self._tracker.process(frame_bgr, taken_mono_ns)
        since_ns = None if self._looked_ns is None else taken_mono_ns - self._looked_ns
        if since_ns is None or not 0 <= since_ns < LOOK_INTERVAL_NS - EARLY_NS:
            self._looked_ns = taken_mono_ns
            self._look(frame_bgr, signals, since_ns is not None and 0 < since_ns <= HOLE_NS)
        if self._frozen:
            return Signals(taken_mono_ns, 0, False, "frozen")
        return replace(signals, moved=self._stand.moved, in_place_percent=self._stand.in_place_percent)

    def _look(self, frame_bgr: NDArray[np.uint8], signals: Signals, comparable: bool) -> None:
        # What carries no picture carries no noise either, so that covered comes first, as for the certificate. In the
        # dark compression may leave none in this small picture; the certificate decides there, from the whole one.
        self._frozen = (
            comparable
            and self._kept is not None
            and signals.quality not in ("covered", "dark")
            and is_same(self._kept, frame_bgr)
        )
        self._kept = frame_bgr.copy()
        clear = signals.quality == "good" and not self._frozen
        points = self._tracker.points
        face = None if points is None else box_of_points(points)
        self._stand = self._view.look(frame_bgr, face) if clear else UNTOLD
