"""Direction of the head: a small network reads it from a picture of the upper face and the 468 points' own shape.

Pure but for the network it is handed. Angles are against the line from the camera to the head, so that 0, 0 means
facing the camera wherever the person sits in the picture; degrees, yaw > 0 toward the right edge of the image, pitch
> 0 up, roll > 0 clockwise. The network was trained on rendered heads alone (training/README.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.inference.interpreter import Network
from appliance.inference.landmarks import Landmarks, eye_line_rad
from appliance.inference.level_crop import cut_level

# Points that stay when a person talks or blinks: forehead, nose, eye corners, cheeks, temples. Middle, then pairs.
_MIDDLE = (10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 19, 94, 2)
_LEFT = (33, 133, 129, 98, 127, 234, 93, 54, 103, 67, 116, 50, 36, 205, 123, 35)
_RIGHT = (263, 362, 358, 327, 356, 454, 323, 284, 332, 297, 345, 280, 266, 425, 352, 265)
RIGID = np.array(_MIDDLE + _LEFT + _RIGHT)
SHAPE_NUMBERS = 3 * len(RIGID)
# A product with this is their mean, in a fifth of the time.
_MEAN = np.full(len(RIGID), 1.0 / len(RIGID), np.float32)
# The order of the same points on a face in a mirror.
MIRRORED = np.array([RIGID.tolist().index(point) for point in _MIDDLE + _RIGHT + _LEFT])
# How far those points lie from their middle (root mean square) on the average face, millimetres.
RIGID_MM = 56.4
# Width and height of the picture; it covers FACE_MM across, from the hair to the upper lip: mouths move and beards
# differ. Its middle lies above that of the points.
FACE_PX = (64, 48)
FACE_MM = 150.0
FACE_UP_MM = 14.0
ANGLE_UNIT_DEG = 30.0
# How people who look into the lens hold their heads, as the network says it: median of 17 photos labelled frontal.
PITCH_ZERO_DEG = 6.7


@dataclass(frozen=True)
class HeadPose:
    """Angles in degrees, and the scale at the head."""

    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    pixels_per_mm: float


@dataclass(frozen=True)
class Shape:
    """The rigid points (46, 3) level, about their middle, of unit size; how far they were turned, where they lie and
    how large they are in pixels."""

    points: NDArray[np.float32]
    angle_rad: float
    middle: NDArray[np.float32]
    size_px: float


def shape_of(points: NDArray[np.float32]) -> Shape | None:
    """Shape of (468, 3) points; None where they lie in one spot or are not numbers."""
    angle = eye_line_rad(points)
    rigid = points[RIGID]
    middle = _MEAN @ rigid
    rigid = rigid - middle
    size = math.sqrt(float(np.vdot(rigid, rigid)) / len(rigid))
    if not size > 1.0:
        return None
    cos, sin = math.cos(angle), math.sin(angle)
    level = rigid @ np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]], np.float32)
    return Shape(level / np.float32(size), angle, middle[:2], size)


def cut_face(crop_bgr: NDArray[np.uint8], shape: Shape) -> NDArray[np.float32]:
    """The upper face (48, 64, 1) out of the crop in which `shape` was found, level and of unit contrast."""
    half = cv2.resize(
        cv2.cvtColor(crop_bgr, cv2.COLOR_BGR2GRAY), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA
    )
    per_mm = 0.5 * shape.size_px / RIGID_MM
    x, y = (shape.middle.astype(float) * 0.5 - 0.25).tolist()
    up = FACE_UP_MM * per_mm
    middle = (x + math.sin(shape.angle_rad) * up, y - math.cos(shape.angle_rad) * up)
    face = np.empty((FACE_PX[1], FACE_PX[0], 1), np.float32)
    cut_level(
        half.astype(np.uint8, copy=False),
        middle,
        per_mm * FACE_MM / FACE_PX[0],
        shape.angle_rad,
        face[:, :, 0],
    )
    return face


def estimate(network: Network, found: Landmarks) -> HeadPose | None:
    """Pose of a face whose points were found; None where the points fit no face."""
    shape = shape_of(found.in_crop)
    if shape is None:
        return None
    said = network.run_tensors(cut_face(found.crop, shape)[None], shape.points.reshape(1, -1))[0]
    yaw, pitch, roll = angles_deg(said)
    roll += math.degrees(shape.angle_rad + found.region.angle_rad)
    return HeadPose(yaw, pitch, roll, pixels_per_mm(shape, found))


def pixels_per_mm(shape: Shape, found: Landmarks) -> float:
    """The picture's scale at the head, by the size of a `shape` in the crop."""
    return shape.size_px / RIGID_MM * found.region.side / len(found.crop)


def angles_deg(said: NDArray[np.float32]) -> tuple[float, float, float]:
    """Yaw, pitch, and roll against the line between the eyes, of what the network said."""
    yaw, pitch, roll = (float(each) * ANGLE_UNIT_DEG for each in said)
    return yaw, pitch - PITCH_ZERO_DEG, roll
