"""People who act the steps of the room acceptance test before a camera that there is none of."""

from __future__ import annotations

import re
import threading
from typing import Any

import numpy as np

from appliance.acceptance.document import Place, document
from appliance.acceptance.figures import Eyes
from appliance.acceptance.looking import Looking, Sample
from appliance.acceptance.script import SCRIPT, Step
from appliance.acceptance.walk import Run, Walk
from appliance.camera.source import Frame
from appliance.errors import CameraUnavailable
from appliance.inference.pace import Pace
from appliance.inference.signals import Signals
from tests.manual_clock import ManualClock
from tests.signals import GONE, HIDDEN, MOVED, WORKING, head, looking

PLACE = Place(
    "uni", "room-2.14", "desk-7", "v4l2:/dev/video0", (1280, 720), 15, (640, 360), 5.0, 60, True, "litert 2"
)
CALM = {"yaw_deg": 1.0, "pitch_deg": 0.0, "learned_s": 60.0}
NEAR = Eyes(61.0, 58.0, 900)
BLANK = Frame.from_bgr(np.zeros((2, 2, 3), np.uint8), 0, 1).picture
What = dict[str, Any]

LEFT, RIGHT = head(yaw=55.0), head(yaw=-55.0)
COVERED = HIDDEN | {"quality": "covered"}
# What a camera would say of somebody who does as told, by seconds since NOW, and for how long.
DOES: dict[int, tuple[float, float, What]] = {
    1: (0, 99, head(pitch=-30.0)), 2: (1, 99, LEFT), 3: (0, 99, head(pitch=-28.0)), 4: (1, 99, RIGHT),
    5: (3, 3, HIDDEN), 6: (1, 99, looking(45.0)), 7: (2, 6, HIDDEN), 8: (1, 99, looking(-45.0)),
    9: (2, 2, head(yaw=60.0)), 10: (1, 99, looking(0.0, 38.0)), 11: (2, 2, looking(0.0, 35.0)), 12: (5, 99, GONE),
    13: (0, 99, head(pitch=8.0)), 14: (4, 99, GONE), 15: (0, 99, {"head_roll_deg": 20.0}), 16: (3, 99, {"faces": 2}),
    17: (5, 2.5, {"faces": 2}), 18: (3, 99, {"faces": 2}), 19: (2, 5, GONE), 20: (1, 99, COVERED),
    21: (1, 3, head(pitch=-30.0)), 22: (2, 99, HIDDEN | {"quality": "blur"}), 23: (1, 3, HIDDEN), 24: (2, 99, MOVED),
}  # fmt: skip


class People:
    """Two people who hear what the terminal says and act it, before a camera of 15 frames a second. No picture."""

    description = "people"
    dropped_frames = 0

    def __init__(self, does: dict[int, tuple[float, float, What]], lost_at_s: float = 1e9) -> None:
        self.clock = ManualClock()
        self.words = ""
        self.stop = threading.Event()
        self.looking = Looking(self.read_frame, Pace(5.0, 0.6), self.clock, lambda: 0)
        self._does = does
        self._lost_ns = self.clock.now_mono_ns + round(lost_at_s * 1e9)
        self._step = 0
        self._now_ns: int | None = None

    def hear(self, words: str) -> None:
        """The terminal."""
        self.words += words
        if announced := re.search(r"STEP (\d+)", words):
            self._step = int(announced[1])
        if "NOW" in words:
            self._now_ns = self.clock.mono_ns()
        if "STOP" in words:
            self._now_ns = None

    def read(self, timeout_s: float) -> Frame | None:
        """The camera."""
        if self.clock.mono_ns() >= self._lost_ns:
            raise CameraUnavailable("camera /dev/video0 is gone", "check its cable")
        self.clock.advance(1 / 15)
        return Frame(self.clock.mono_ns(), 1, BLANK)

    def read_frame(self, frame: Frame) -> Sample:
        """The models."""
        what: What = {}
        if self._now_ns is not None and self._step in self._does:
            after_s, lasts_s, acted = self._does[self._step]
            since_s = (frame.taken_mono_ns - self._now_ns) / 1e9
            what = acted if after_s <= since_s < after_s + lasts_s else {}
        return Sample(Signals(frame.taken_mono_ns, **(WORKING | what)), 61.0)

    def walk(self, steps: tuple[Step, ...] = SCRIPT) -> tuple[Run, dict[str, Any]]:
        """All of it, and its report."""
        began = self.clock.wall()
        run = Walk(steps, self, self.looking, self.clock, self.hear, self.stop).run()  # type: ignore[arg-type]
        return run, document(PLACE, SCRIPT, run, self.looking, began, self.clock.wall())
