"""A candidate's usual direction, learned in the first minute of this session and gone with it (F051).

Pure. It is never written, never compared with anybody else's and has no default other than straight ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

# One minute of readable frames (openpilot calibrates its driver's pose over the same time).
LEARN_S = 60.0
# A camera stands at most this far beside or above the middle of the work; more is not a habit but a look
# away.
CLAMP_YAW_DEG = 15.0
CLAMP_UP_DEG = 15.0
# A minute of writing must not make the desk the direction that looking down is told by.
CLAMP_DOWN_DEG = 5.0
# Lower than this lies own paper (30 degrees and more), not a screen under a camera on its upper edge (its middle is 15
# down). Paper beside the keyboard says nothing about where the screen stands, so neither angle is learned from it.
PAPER_PITCH_DEG = -20.0


@dataclass
class Baseline:
    """Running mean of one direction; `learned_s` runs to LEARN_S and stops."""

    learned_s: float = 0.0
    _mean_yaw_deg: float = 0.0
    _mean_pitch_deg: float = 0.0

    def learn(self, yaw_deg: float, pitch_deg: float, step_s: float) -> None:
        """Take in `step_s` seconds of one direction.

        The caller leaves out what happens while something is open.
        """
        step_s = min(step_s, LEARN_S - self.learned_s)
        if step_s <= 0.0 or pitch_deg < PAPER_PITCH_DEG:
            return
        self.learned_s += step_s
        share = step_s / self.learned_s
        self._mean_yaw_deg += share * (yaw_deg - self._mean_yaw_deg)
        self._mean_pitch_deg += share * (pitch_deg - self._mean_pitch_deg)

    @property
    def yaw_deg(self) -> float:
        """Usual yaw: straight ahead at first, the mean after a minute, in proportion between."""
        return self._settled(self._mean_yaw_deg, -CLAMP_YAW_DEG, CLAMP_YAW_DEG)

    @property
    def pitch_deg(self) -> float:
        """Usual pitch, in the same way."""
        return self._settled(self._mean_pitch_deg, -CLAMP_DOWN_DEG, CLAMP_UP_DEG)

    def _settled(self, mean_deg: float, lowest_deg: float, highest_deg: float) -> float:
        return min(max(mean_deg, lowest_deg), highest_deg) * self.learned_s / LEARN_S
