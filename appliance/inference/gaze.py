"""Direction of the eyes: where the iris lies against an eyeball placed by the eye corners and the head's
pose.

Pure but for the network it is handed. Says a direction and how unsure it is, never what is looked at (F041).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.inference.head_pose import HeadPose, direction_deg
from appliance.inference.interpreter import Network
from appliance.inference.landmarks import Region, cut, to_picture

# (outer corner, inner corner, mirrored): the network was trained on the image-left eye, so the other is
# mirrored (MediaPipe, iris_landmark graph). The crop is 2.3 eye widths (same source).
EYES = ((33, 133, False), (263, 362, True))
CROP_EYE_WIDTHS = 2.3
# In the 71 contour points: outer corner, lower lid's middle, inner corner, upper lid's middle.
_OUTER, _LOWER, _INNER, _UPPER = 0, 4, 8, 12

# Eyeball centre from the middle between the corners (outward, down, into the head) and its distance to the
# iris, mm on the average face. Fitted to 36 rendered heads and 22 photos of people looking into the lens
# (see observations.md).
EYEBALL_OUTWARD_MM = 0.7
EYEBALL_DOWN_MM = -0.8
EYEBALL_DEEP_MM = 6.3
IRIS_DISTANCE_MM = 9.8
# Beyond this part of the radius the sine says nothing more about the angle.
MAX_SINE = 0.98

# Uncertainty in degrees, root of the summed squares of what makes it worse; fitted on the same 58 pictures
# so that about 80 % of the errors are smaller.
BASE_DEG = 6.0
DISAGREEMENT_SHARE = 0.6
OPEN_ENOUGH = 0.25
SHUT_DEG = 30.0
WIDTH_ENOUGH_PX = 25.0
NARROW_DEG = 20.0
YAW_FREE_DEG = 20.0
YAW_SHARE = 0.4


@dataclass(frozen=True)
class Eye:
    """One eye in picture pixels.

    Iris centre and middle of the corners (x, y), width, openness (height by width).
    """

    iris: NDArray[np.float32]
    middle: NDArray[np.float32]
    width_px: float
    openness: float


@dataclass(frozen=True)
class Gaze:
    """Direction of both eyes together against the line to the camera, and its uncertainty; degrees."""

    yaw_deg: float
    pitch_deg: float
    uncertainty_deg: float


def read_eyes(
    network: Network, frame_bgr: NDArray[np.uint8], points: NDArray[np.float32]
) -> tuple[Eye, Eye] | None:
    """Both eyes of the face with (468, 3) `points`, image-left first; None where an eye has no extent."""
    eyes = [_read_eye(network, frame_bgr, points, *eye) for eye in EYES]
    if eyes[0] is None or eyes[1] is None:
        return None
    return eyes[0], eyes[1]


def estimate(eyes: tuple[Eye, Eye], head: HeadPose) -> Gaze:
    """Combine both eyes; each counts by its squared width, since a far eye is small and half hidden."""
    directions = [_direction(eye, head, side) for eye, side in zip(eyes, (-1.0, 1.0), strict=True)]
    weights = [eye.width_px**2 for eye in eyes]
    together = weights[0] * directions[0] + weights[1] * directions[1]
    yaw, pitch = direction_deg(together)
    cosine = float(np.clip(directions[0] @ directions[1], -1.0, 1.0))
    return Gaze(yaw, pitch, uncertainty_deg(eyes, head.yaw_deg, math.degrees(math.acos(cosine))))


def uncertainty_deg(eyes: tuple[Eye, Eye], head_yaw_deg: float, disagreement_deg: float) -> float:
    """How far the gaze may be off, from what can be seen to make it so."""
    openness = min(eye.openness for eye in eyes)
    width_px = max(eye.width_px for eye in eyes)
    parts = (
        BASE_DEG,
        DISAGREEMENT_SHARE * disagreement_deg,
        SHUT_DEG * max(0.0, 1.0 - openness / OPEN_ENOUGH),
        NARROW_DEG * max(0.0, 1.0 - width_px / WIDTH_ENOUGH_PX),
        YAW_SHARE * max(0.0, abs(head_yaw_deg) - YAW_FREE_DEG),
    )
    return math.hypot(*parts)


def _direction(eye: Eye, head: HeadPose, side: float) -> NDArray[np.float64]:
    offset_mm = head.turn @ np.array([side * EYEBALL_OUTWARD_MM, EYEBALL_DOWN_MM, EYEBALL_DEEP_MM])
    off_centre = ((eye.iris - eye.middle) / head.pixels_per_mm - offset_mm[:2]) / IRIS_DISTANCE_MM
    sine = float(np.hypot(*off_centre))
    if sine > MAX_SINE:
        off_centre, sine = off_centre * (MAX_SINE / sine), MAX_SINE
    return np.array([off_centre[0], off_centre[1], -math.sqrt(1.0 - sine * sine)])


def _read_eye(
    network: Network,
    frame_bgr: NDArray[np.uint8],
    points: NDArray[np.float32],
    outer: int,
    inner: int,
    mirrored: bool,
) -> Eye | None:
    first, second = (points[inner], points[outer]) if mirrored else (points[outer], points[inner])
    across = (second - first)[:2]
    reach = float(np.hypot(*across))
    if reach < 1.0:
        return None
    size = network.input_size
    middle = (first + second)[:2] / 2.0
    region = Region(
        float(middle[0]),
        float(middle[1]),
        reach * CROP_EYE_WIDTHS,
        math.atan2(float(across[1]), float(across[0])),
    )
    crop = cut(frame_bgr, region, size)
    raw_contour, raw_iris = network.run(crop[:, ::-1] if mirrored else crop)
    raw = np.concatenate([raw_contour.reshape(-1, 3), raw_iris.reshape(-1, 3)[:1]])
    if mirrored:
        raw[:, 0] = size - raw[:, 0]
    seen = to_picture(raw, region, size)[:, :2]
    width_px = float(np.hypot(*(seen[_OUTER] - seen[_INNER])))
    if width_px < 1.0:
        return None
    height_px = float(np.hypot(*(seen[_UPPER] - seen[_LOWER])))
    return Eye(seen[-1], (seen[_OUTER] + seen[_INNER]) / 2.0, width_px, height_px / width_px)
