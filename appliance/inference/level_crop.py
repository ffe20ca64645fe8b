"""How our own networks are shown a part of a picture: cut out level and to scale, brought to even light and contrast.

Pure; in training and on desks, so that the networks learned from exactly what they are shown.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

# Keeps an even, dark crop from becoming noise when it is brought to unit contrast.
LEAST_CONTRAST = 6.0


def cut_level(
    grey: NDArray[np.uint8],
    middle: tuple[float, float],
    scale: float,
    angle_rad: float,
    out: NDArray[np.float32],
    mirrored: bool = False,
) -> None:
    """Fill `out` (height, width) with what lies about `middle`, turned clockwise by `angle_rad`, `scale` pixels of the
    picture to one of `out`; what lies outside repeats the picture's edge."""
    height, width = out.shape
    cos, sin = math.cos(angle_rad) * scale, math.sin(angle_rad) * scale
    along_x, along_y = (-cos, -sin) if mirrored else (cos, sin)
    half_w, half_h = (width - 1) / 2.0, (height - 1) / 2.0
    x, y = middle
    matrix = np.array(
        [
            [along_x, -sin, x - along_x * half_w + sin * half_h],
            [along_y, cos, y - along_y * half_w - cos * half_h],
        ]
    )
    crop = cv2.warpAffine(
        grey,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    mean, spread = cv2.meanStdDev(crop)
    np.subtract(crop, np.float32(mean[0, 0]), out=out)
    out *= np.float32(1.0 / (float(spread[0, 0]) + LEAST_CONTRAST))
