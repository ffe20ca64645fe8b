"""What the eyes' network is shown of the picture: both eyes cut out level and to scale, and how open their lids are.

Pure; in training and on desks, so that the network learned from exactly what it is shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.inference.landmarks import OUTER_CORNERS, Region, around

# Width and height of a crop; it covers CROP_MM of the average face, an eye with its brow's edge.
CROP_PX = (60, 36)
CROP_MM = 42.0
# In the 468-point mesh, image-left eye first: the corners, and the middles of upper and lower lid.
CORNERS = ((33, 133), (263, 362))
LIDS = ((159, 145), (386, 374))
# Keeps an even, dark crop from becoming noise when it is brought to unit contrast.
LEAST_CONTRAST = 6.0


@dataclass(frozen=True)
class EyeCrops:
    """`eyes` (2, 36, 60, 1), the image-right one mirrored; height by width of each (`open_by`), pixels of the wider."""

    eyes: NDArray[np.float32]
    open_by: tuple[float, float]
    width_px: float


def cut_eyes(
    frame_bgr: NDArray[np.uint8], points: NDArray[np.float32], pixels_per_mm: float
) -> EyeCrops | None:
    """Both eyes of the face with (468, 3) `points`; None where an eye has no extent."""
    flat = points[:, :2]
    across = flat[OUTER_CORNERS[1]] - flat[OUTER_CORNERS[0]]
    angle = math.atan2(float(across[1]), float(across[0]))
    widths = [float(np.hypot(*(flat[outer] - flat[inner]))) for outer, inner in CORNERS]
    if min(widths) < 1.0:
        return None
    heights = [float(np.hypot(*(flat[upper] - flat[lower]))) for upper, lower in LIDS]
    scale = CROP_MM * pixels_per_mm / CROP_PX[0]
    eyes = np.empty((2, CROP_PX[1], CROP_PX[0], 1), np.float32)
    for side, (outer, inner) in enumerate(CORNERS):
        x, y = ((flat[outer] + flat[inner]) / 2.0).tolist()
        near, left, top = around(frame_bgr, Region(x, y, CROP_PX[0] * scale, angle))
        grey = cv2.cvtColor(near, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
        _cut(grey, x - left, y - top, scale, angle, bool(side), eyes[side, :, :, 0])
    return EyeCrops(eyes, (heights[0] / widths[0], heights[1] / widths[1]), max(widths))


def _cut(
    grey: NDArray[np.uint8],
    x: float,
    y: float,
    scale: float,
    angle: float,
    mirrored: bool,
    out: NDArray[np.float32],
) -> None:
    width, height = CROP_PX
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    along_x, along_y = (-cos, -sin) if mirrored else (cos, sin)
    half_w, half_h = (width - 1) / 2.0, (height - 1) / 2.0
    matrix = np.array(
        [
            [along_x, -sin, x - along_x * half_w + sin * half_h],
            [along_y, cos, y - along_y * half_w - cos * half_h],
        ]
    )
    crop = cv2.warpAffine(
        grey,
        matrix,
        CROP_PX,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    mean, spread = cv2.meanStdDev(crop)
    np.subtract(crop, np.float32(mean[0, 0]), out=out)
    out *= np.float32(1.0 / (float(spread[0, 0]) + LEAST_CONTRAST))
