"""A face whose direction a test knows because it turned it: 46 points of the average face before a pinhole camera."""

from __future__ import annotations

import math

import numpy as np

from appliance.inference.head_pose import RIGID_MM, HeadPose, shape_of

WIDTH, HEIGHT = 640, 480
FOCAL_PX = 704.0

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


def turned(yaw_deg: float, pitch_deg: float, roll_deg: float) -> np.ndarray:
    """Rotation that turns a face toward the image's right, up, and clockwise."""
    yaw, pitch, roll = (math.radians(angle) for angle in (yaw_deg, pitch_deg, roll_deg))
    about_y = np.array([[math.cos(yaw), 0, -math.sin(yaw)], [0, 1, 0], [math.sin(yaw), 0, math.cos(yaw)]])
    about_x = np.array(
        [[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]]
    )
    about_z = np.array([[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def seen(turn: np.ndarray, place_mm: tuple[float, float, float] = (0.0, 0.0, 600.0)) -> np.ndarray:
    """The 468 points, turned, as the camera sees them; z in pixels, as the landmark network gives it."""
    at = FACE_MM @ turn.T + np.array(place_mm)
    points = np.zeros((468, 3), np.float32)
    points[FACE_INDEX, 0] = FOCAL_PX * at[:, 0] / at[:, 2] + WIDTH / 2
    points[FACE_INDEX, 1] = FOCAL_PX * at[:, 1] / at[:, 2] + HEIGHT / 2
    points[FACE_INDEX, 2] = FOCAL_PX * (at[:, 2] - place_mm[2]) / place_mm[2]
    return points


def pixels_per_mm(points: np.ndarray) -> float:
    shape = shape_of(points)
    assert shape is not None
    return shape.size_px / RIGID_MM


def head(yaw_deg: float, pitch_deg: float, roll_deg: float, points: np.ndarray) -> HeadPose:
    """As the head's network would read it."""
    return HeadPose(yaw_deg, pitch_deg, roll_deg, pixels_per_mm(points))
