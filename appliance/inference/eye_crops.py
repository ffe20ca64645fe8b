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
from appliance.inference.level_crop import cut_level

# Width and height of a crop; it covers CROP_MM of the average face, an eye with its brow's edge.
CROP_PX = (60, 36)
CROP_MM = 42.0
# In the 468-point mesh, image-left eye first: the corners, and the middles of upper and lower lid.
CORNERS = ((33, 133), (263, 362))
LIDS = ((159, 145), (386, 374))


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
        cut_level(grey, (x - left, y - top), scale, angle, eyes[side, :, :, 0], mirrored=bool(side))
    return EyeCrops(eyes, (heights[0] / widths[0], heights[1] / widths[1]), max(widths))
