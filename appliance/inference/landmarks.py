"""468 points of one face: a rotated square round it is cut out and read by the landmark network.

The points stay in memory for the direction of head and eyes; nothing here writes or sends them (F039).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.inference.face import Face
from appliance.inference.interpreter import Network

# Outer eye corners in the 468-point mesh: the image-left one first.
OUTER_CORNERS = (33, 263)
# Margin round a face box or a set of points (MediaPipe, face_landmark graph).
MARGIN = 1.5
# A head that tilts less is read from an upright square on whole pixels, which takes less time to cut. On 36 renders
# tilted by 4, 6 and 8 degrees both ways that is as right for 3.5 and 7 degrees (gaze 2.6 degrees off), less so for 9.
UPRIGHT_RAD = math.radians(7.0)


# Left, top, right, bottom in pixels of the picture.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Region:
    """A square in the picture: centre and side in pixels, turned clockwise by `angle_rad`."""

    x: float
    y: float
    side: float
    angle_rad: float


@dataclass(frozen=True)
class Landmarks:
    """Points (468, 3) in pixels (z grows away from the camera, same scale); `presence` 0..1 that it is a face.

    `region` is the square that was read, `crop` (size x size x 3 BGR) what it showed, `in_crop` the points in that.
    """

    points: NDArray[np.float32]
    presence: float
    region: Region
    crop: NDArray[np.uint8]
    in_crop: NDArray[np.float32]


def region_of_face(face: Face) -> Region:
    """Square round a detected face, upright along its eyes."""
    dx, dy = face.keypoints[1] - face.keypoints[0]
    return Region(
        (face.left + face.right) / 2.0,
        (face.top + face.bottom) / 2.0,
        face.size * MARGIN,
        math.atan2(float(dy), float(dx)),
    )


def eye_line_rad(points: NDArray[np.float32]) -> float:
    """How far the line between the eyes of (468, 2 or more) points is turned clockwise."""
    (first_x, first_y), (second_x, second_y) = points[OUTER_CORNERS, :2].tolist()
    return math.atan2(second_y - first_y, second_x - first_x)


def region_of_points(points: NDArray[np.float32]) -> Region:
    """Square round the points of the frame before, upright along its eyes."""
    angle = eye_line_rad(points)
    cos, sin = math.cos(angle), math.sin(angle)
    # Rows of x and of y: minima along rows take a sixth of the time.
    turned = np.array([[cos, sin], [-sin, cos]], np.float32) @ points.T[:2]
    (left, top), (right, bottom) = turned.min(axis=1).tolist(), turned.max(axis=1).tolist()
    mid_x, mid_y = (left + right) / 2.0, (top + bottom) / 2.0
    side = max(right - left, bottom - top) * MARGIN
    return Region(mid_x * cos - mid_y * sin, mid_x * sin + mid_y * cos, side, angle)


def box_of_points(points: NDArray[np.float32]) -> Box:
    """The upright box round (N, 2 or more) points."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def cut(frame_bgr: NDArray[np.uint8], region: Region, size: int) -> NDArray[np.uint8]:
    """The region as an upright `size` x `size` crop; what lies outside repeats its edge."""
    whole = _upright_part(frame_bgr, region)
    if whole is not None:
        # A frame is not in the processor's cache yet; a copy fetches it sooner than a resize: two thirds of the time.
        near = whole.copy()
        return cv2.resize(near, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    near, left, top = around(frame_bgr, region)
    across, down = _to_picture(region, size)
    to_near = np.array([across, down]) - [[0.0, 0.0, left], [0.0, 0.0, top]]
    # Four channels are turned faster than three.
    turned = cv2.warpAffine(
        cv2.cvtColor(near, cv2.COLOR_BGR2BGRA),
        to_near,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return cv2.cvtColor(turned, cv2.COLOR_BGRA2BGR).astype(np.uint8, copy=False)


def _upright_part(frame_bgr: NDArray[np.uint8], region: Region) -> NDArray[np.uint8] | None:
    """All of a region from `upright`; None where it is turned or leaves the picture."""
    if region.angle_rad != 0.0:
        return None
    left, top = round(region.x - region.side / 2.0), round(region.y - region.side / 2.0)
    right, bottom = left + round(region.side), top + round(region.side)
    inside = 0 <= left < right <= frame_bgr.shape[1] and 0 <= top < bottom <= frame_bgr.shape[0]
    return frame_bgr[top:bottom, left:right] if inside else None


def around(frame_bgr: NDArray[np.uint8], region: Region) -> tuple[NDArray[np.uint8], int, int]:
    """The upright part of the frame that holds all of the region that is in it, with its left and top."""
    height, width = frame_bgr.shape[:2]
    reach = region.side * (abs(math.cos(region.angle_rad)) + abs(math.sin(region.angle_rad))) / 2.0 + 2.0
    left, right = (min(max(int(edge), 0), width) for edge in (region.x - reach, region.x + reach + 1.0))
    top, bottom = (min(max(int(edge), 0), height) for edge in (region.y - reach, region.y + reach + 1.0))
    if left >= right or top >= bottom:
        return frame_bgr, 0, 0
    return frame_bgr[top:bottom, left:right], left, top


def upright(region: Region) -> Region:
    """The same square upright and on whole pixels where it is nearly so."""
    if abs(region.angle_rad) >= UPRIGHT_RAD:
        return region
    side = max(1.0, round(region.side))
    left, top = round(region.x - side / 2.0), round(region.y - side / 2.0)
    return Region(left + side / 2.0, top + side / 2.0, side, 0.0)


def to_picture(points: NDArray[np.float32], region: Region, size: int) -> NDArray[np.float32]:
    """Map (N, 3) points of a `size` crop back to pixels of the picture; z takes the same scale."""
    (xx, xy, left), (yx, yy, top) = _to_picture(region, size)
    turn = np.array([[xx, yx, 0.0], [xy, yy, 0.0], [0.0, 0.0, region.side / size]], np.float32)
    return points @ turn + np.array([left, top, 0.0], np.float32)


def find_landmarks(network: Network, frame_bgr: NDArray[np.uint8], region: Region) -> Landmarks:
    """Read the points of the face in `region`."""
    size, region = network.input_size, upright(region)
    crop = cut(frame_bgr, region, size)
    raw, logit = network.run(crop)
    presence = 1.0 / (1.0 + math.exp(-min(max(float(logit[0]), -50.0), 50.0)))
    in_crop = raw.reshape(-1, 3)
    return Landmarks(to_picture(in_crop, region, size), presence, region, crop, in_crop)


def _to_picture(region: Region, size: int) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Rows of the matrix that maps places in the crop to the picture."""
    scale = region.side / size
    cos, sin = math.cos(region.angle_rad) * scale, math.sin(region.angle_rad) * scale
    half = size / 2.0
    left, top = region.x - cos * half + sin * half, region.y - sin * half - cos * half
    return (cos, -sin, left), (sin, cos, top)
