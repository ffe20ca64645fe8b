"""What is wrong with the picture, from one look a second: black, covered or frozen. Pure.

Judges what the camera shows, not who is there; it runs whatever the policy says about faces.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from appliance.camera.picture_spans import Finding, Spans
from appliance.picture_quality import is_same, visibility
from appliance.timecode import TICKS_PER_S

LOOK_INTERVAL_90K = TICKS_PER_S
# No look for so long means that nothing was filmed: what was found ends with the second after the last look.
SILENCE_90K = 5 * TICKS_PER_S // 2
# A look stands for the time until the next, so what lasts 2 s (4 s) is always found, and nothing below 1 s (3 s);
# a fifth of a second is jitter. A camera's first pictures are often black for less than a second.
_JITTER_90K = TICKS_PER_S // 5
SHORTEST_90K: dict[Finding, int] = {
    "black": 2 * TICKS_PER_S - _JITTER_90K,
    "covered": 2 * TICKS_PER_S - _JITTER_90K,
    "frozen": 4 * TICKS_PER_S - _JITTER_90K,
}


class PictureJudge:
    """Keeps the luma of the last look; a look is judged once the next one, or the end, tells how long it stood."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._luma: NDArray[np.uint8] | None = None
        self._finding: Finding | None = None
        self._from_90k = 0
        self._at_90k: int | None = None

    def look(self, time_90k: int, luma: NDArray[np.uint8], grey: NDArray[np.uint8]) -> None:
        """At `time_90k`: the whole luma plane as filmed (H x W), and a small grey picture of full range."""
        before_90k = self._at_90k
        self.stand_until(time_90k)
        if before_90k is None or time_90k - before_90k > SILENCE_90K:
            self._luma = before_90k = None
        same = self._luma is not None and is_same(self._luma, luma)
        self._luma, self._at_90k = luma, time_90k
        # What carries no picture carries no noise either, so that black and covered come first.
        seen = visibility(grey)
        if seen != "clear":
            self._finding, self._from_90k = seen, time_90k
        elif same and before_90k is not None:
            self._finding, self._from_90k = "frozen", before_90k
        else:
            self._finding = None

    def stand_until(self, time_90k: int) -> None:
        """The last look stood until `time_90k`, at the most for its second if nothing came after it."""
        if self._at_90k is None:
            return
        silent = time_90k - self._at_90k > SILENCE_90K
        until_90k = self._at_90k + LOOK_INTERVAL_90K if silent else time_90k
        if self._finding is not None:
            self._spans.add(self._finding, self._from_90k, until_90k)
        for finding in SHORTEST_90K:
            if silent or finding != self._finding:
                self._spans.end(finding)
        self._at_90k = None
