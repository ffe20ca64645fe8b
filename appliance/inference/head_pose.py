"""Direction of the head from 468 points: a rigid subset is fitted to an average face seen by a pinhole
camera.

Pure. Angles are against the line from the camera to the head, so that 0, 0 means facing the camera wherever
the person sits in the picture; degrees, yaw > 0 toward the right edge of the image, pitch > 0 up, roll > 0
clockwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# An ordinary webcam's focal length in picture widths (renders: 704 px at 640; a 62 to 65 degree lens has 0.8
# to 1.1).
FOCAL_WIDTHS = 1.1
# Where people who look into the lens hold their head on the average face below: median of 17 photos labelled
# frontal.
PITCH_ZERO_DEG = 2.6

# (image-left point, image-right point, x, y, z) in millimetres, x right, y down, z away from the camera; the
# left point stands at x as written, the right one mirrored. Mean of the landmark network's own output over
# 36 rendered heads and 37 photos (Procrustes-aligned, mirrored, scaled to 90 mm between the outer eye
# corners): nobody's face. Chin, lips and brows are left out because talking moves them.
_AVERAGE_FACE = (
    (10, 10, 0.0, -84.0, -0.4),
    (151, 151, 0.0, -69.1, -5.3),
    (9, 9, 0.0, -54.4, -8.7),
    (8, 8, 0.0, -45.5, -8.3),
    (168, 168, 0.0, -37.2, -8.8),
    (6, 6, 0.0, -29.0, -13.9),
    (197, 197, 0.0, -22.3, -19.6),
    (195, 195, 0.0, -16.4, -25.4),
    (5, 5, 0.0, -10.0, -31.5),
    (4, 4, 0.0, -2.0, -34.8),
    (1, 1, 0.0, 4.5, -33.3),
    (19, 19, 0.0, 8.0, -30.4),
    (94, 94, 0.0, 10.0, -23.0),
    (2, 2, 0.0, 12.1, -18.8),
    (33, 263, -45.0, -30.6, 12.3),
    (133, 362, -17.4, -29.4, 6.2),
    (129, 358, -20.3, 4.2, -6.6),
    (98, 327, -16.5, 10.8, -10.7),
    (127, 356, -69.1, -23.9, 60.6),
    (234, 454, -68.0, -9.8, 63.9),
    (93, 323, -66.9, 4.3, 63.2),
    (54, 284, -59.3, -64.0, 29.7),
    (103, 332, -49.5, -73.7, 17.9),
    (67, 297, -34.8, -80.3, 7.4),
    (116, 345, -62.4, -13.6, 23.7),
    (50, 280, -48.1, 0.7, 4.1),
    (36, 266, -29.9, 1.1, -4.3),
    (205, 425, -39.2, 8.5, -2.1),
    (123, 352, -61.9, -0.7, 21.0),
    (35, 265, -56.1, -27.0, 20.6),
)
_PAIRS = [(left, right, x, y, z) for left, right, x, y, z in _AVERAGE_FACE if left != right]
FACE_INDEX = np.array([row[0] for row in _AVERAGE_FACE] + [row[1] for row in _PAIRS])
FACE_MM = np.array(
    [row[2:] for row in _AVERAGE_FACE] + [(-row[2], row[3], row[4]) for row in _PAIRS], np.float64
)


@dataclass(frozen=True)
class HeadPose:
    """Angles in degrees, and the scale at the head."""

    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    pixels_per_mm: float


def estimate(points: NDArray[np.float32], width: int, height: int) -> HeadPose | None:
    """Pose from (468, 3) points in pixels of a `width` x `height` picture.

    None where the points fit no face.
    """
    focal = FOCAL_WIDTHS * width
    camera = np.array([[focal, 0.0, width / 2.0], [0.0, focal, height / 2.0], [0.0, 0.0, 1.0]])
    # SQPnP (Terzakis and Lourakis 2020) has no starting point to be led astray by, so that no frame depends
    # on another.
    shown = points[FACE_INDEX, :2].astype(np.float64)
    try:
        found, rotation, place = cv2.solvePnP(FACE_MM, shown, camera, np.zeros(4), flags=cv2.SOLVEPNP_SQPNP)
    except cv2.error:
        # It refuses points that lie in one spot or are not numbers.
        return None
    if not found or not float(place[2, 0]) > 0.0:
        return None
    turn = aimed_at(place[:, 0].astype(np.float64, copy=False)) @ cv2.Rodrigues(rotation)[0]
    yaw, pitch = direction_deg(turn @ np.array([0.0, 0.0, -1.0]))
    return HeadPose(yaw, pitch + PITCH_ZERO_DEG, _roll_deg(turn, yaw, pitch), focal / float(place[2, 0]))


def direction_deg(vector: NDArray[np.float64]) -> tuple[float, float]:
    """Yaw and pitch in degrees of a direction (x right, y down, z away from the camera)."""
    x, y, z = (float(part) for part in vector)
    return math.degrees(math.atan2(x, -z)), math.degrees(math.atan2(-y, math.hypot(x, z)))


def aimed_at(place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation from the camera as it hangs to one pointed at `place`, still upright."""
    x, y, z = (float(part) for part in place / np.linalg.norm(place))
    level = math.hypot(x, z)
    down = (-x * y / level, level, -y * z / level)
    return np.array([(z / level, 0.0, -x / level), down, (x, y, z)])


def _roll_deg(turn: NDArray[np.float64], yaw_deg: float, pitch_deg: float) -> float:
    """Turn in the image plane that is left when yaw and pitch are taken away."""
    yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
    across = turn[:, 0]
    without_yaw_z = -math.sin(yaw) * across[0] + math.cos(yaw) * across[2]
    without_yaw_x = math.cos(yaw) * across[0] + math.sin(yaw) * across[2]
    without_pitch_y = math.cos(pitch) * across[1] - math.sin(pitch) * without_yaw_z
    return math.degrees(math.atan2(without_pitch_y, without_yaw_x))
