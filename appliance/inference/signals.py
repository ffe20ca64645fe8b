"""What one frame says: the only thing that leaves the networks.

Numbers of one moment, no picture, no points (F039).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Signals:
    """One frame's reading.

    `faces` counts people's faces (F043: 0, 1, more). `assessable` is False where the picture or the face
    cannot be read; such a frame counts neither way. `quality` is "good", "dark", "glare", "blur",
    "covered" or "frozen"; in a frozen picture nothing is counted. Angles are degrees against the line to the
    camera (yaw > 0 toward the image's right edge, pitch > 0 up, roll > 0 clockwise), None where there is no
    face or the reading is switched off. `moved`: whether the camera stands otherwise than usual, by
    `in_place_percent` of the background's blocks; None where that cannot be told.
    """

    taken_mono_ns: int
    faces: int
    assessable: bool
    quality: str
    head_yaw_deg: float | None = None
    head_pitch_deg: float | None = None
    head_roll_deg: float | None = None
    gaze_yaw_deg: float | None = None
    gaze_pitch_deg: float | None = None
    gaze_uncertainty_deg: float | None = None
    moved: bool | None = None
    in_place_percent: float | None = None
