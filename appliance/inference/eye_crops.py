"""What the eyes' network is shown of the picture: both eyes cut out level and to scale, and how open their lids are.

Pure; in training and on desks, so that the network learned from exactly what it is shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.inference.landmarks import Region, around, eye_line_rad
from appliance.inference.level_crop import cut_level

# Width and height of a crop; it covers CROP_MM of the average face, an eye with its brow's edge.
CROP_PX = (60, 36)
CROP_MM = 42.0
# On desks crops lie so much higher than those that the network learned from. People's eyes are read too high otherwise,
# and a constant after the network comes too late, since it takes what is near the lens for the lens (ADR 7).
UP_MM = 0.75
# In the 468-point mesh, image-left eye first: the corners, and the middles of upper and lower lid.
CORNERS = ((33, 133), (263, 362))
LIDS = ((159, 145), (386, 374))
_CORNERS_AND_LIDS = np.array([*CORNERS[0], *LIDS[0], *CORNERS[1], *LIDS[1]])


@dataclass(frozen=True)
class EyeCrops:
    """`eyes` (2, 36, 60, 1), the image-right one mirrored; height by width of each (`open_by`)."""

    eyes: NDArray[np.float32]
    open_by: tuple[float, float]


def cut_eyes(
    frame_bgr: NDArray[np.uint8], points: NDArray[np.float32], pixels_per_mm: float, up_mm: float = UP_MM
) -> EyeCrops | None:
    """Both eyes of the face with (468, 3) `points`, in crops whose middles lie `up_mm` over those between the corners;
    None where an eye has no extent."""
    places: list[list[float]] = points[_CORNERS_AND_LIDS, :2].tolist()
    both, angle = (places[:4], places[4:]), eye_line_rad(points)
    widths = [math.dist(outer, inner) for outer, inner, _, _ in both]
    if not min(widths) >= 1.0:
        return None
    open_by = [
        math.dist(upper, lower) / width for (_, _, upper, lower), width in zip(both, widths, strict=True)
    ]
    scale, up = CROP_MM * pixels_per_mm / CROP_PX[0], up_mm * pixels_per_mm
    up_x, up_y = math.sin(angle) * up, -math.cos(angle) * up
    eyes = np.empty((2, CROP_PX[1], CROP_PX[0], 1), np.float32)
    for side, (outer, inner, _, _) in enumerate(both):
        x, y = (outer[0] + inner[0]) / 2.0 + up_x, (outer[1] + inner[1]) / 2.0 + up_y
        near, left, top = around(frame_bgr, Region(x, y, CROP_PX[0] * scale, angle))
        grey = cv2.cvtColor(near, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
        cut_level(grey, (x - left, y - top), scale, angle, eyes[side, :, :, 0], mirrored=bool(side))
    return EyeCrops(eyes, (open_by[0], open_by[1]))
