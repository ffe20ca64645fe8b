"""Whether a picture can be judged at all: too dark, washed out, out of focus, or the lens covered.

Pure. Anything but "good" makes a frame unassessable; only "covered" and "blur" become technical
observations. The thresholds were measured on the 47 photos of docs/observations.md, as they are and with
light, focus and lens spoiled; `python -m bench.inference --accuracy DIR` repeats it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Everything is measured on a grey picture this wide (its longer side), which also averages sensor noise away.
MEASURED_SIDE_PX = 320
# Nine tenths of the pixels are below this (0..255): at least 136 in a whole photo and 92 round a face in
# ordinary light, at most 50 at a fifth of it.
DARK_BELOW = 55
# Spread of the means of 16-pixel blocks: a cap leaves flat black and noise (0.1), a room with a twentieth of
# its light keeps at least 1.2.
CAPPED_BLOCK_SPREAD = 0.6
# Share of pixels at 250 or more: at most 0.14 in normal light.
GLARE_SHARE = 0.3
GLARE_LEVEL = 250
# 99.9th percentile of the second derivative (4-neighbour Laplacian): at least 59 when focused, at most 18 at
# a blur of 1 % of the width, of which sensor noise alone makes 16.
BLUR_BELOW = 30
# A hand or sheet before the lens leaves soft light and no contrast: a spread of at most 14; the flattest
# focused picture has 29.
COVERED_SPREAD = 20.0


def assess(frame_bgr: NDArray[np.uint8], face: tuple[float, float, float, float] | None = None) -> str:
    """`"good"`, `"dark"`, `"glare"`, `"blur"` or `"covered"` for an H x W x 3 picture.

    `face` (left, top, right, bottom in pixels) restricts light to the face where there is one: a bright
    window behind a well lit face, or a dark hall round it, does not matter.
    """
    scale = min(1.0, MEASURED_SIDE_PX / max(frame_bgr.shape[:2]))
    small = _shrunk(frame_bgr, scale)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
    lit = _inside(grey, face, scale)
    cumulative = np.cumsum(np.bincount(lit.reshape(-1), minlength=256)) / lit.size
    if int(np.searchsorted(cumulative, 0.9)) < DARK_BELOW:
        return "covered" if face is None and _block_spread(grey) < CAPPED_BLOCK_SPREAD else "dark"
    if 1.0 - float(cumulative[GLARE_LEVEL - 1]) > GLARE_SHARE:
        return "glare"
    if sharpness(grey) < BLUR_BELOW:
        return "covered" if face is None and float(grey.std()) < COVERED_SPREAD else "blur"
    return "good"


def sharpness(grey: NDArray[np.uint8]) -> float:
    """99.9th percentile of the Laplacian's size: one sharp edge anywhere shows that the lens is in focus."""
    edges: NDArray[np.uint8] = np.asarray(cv2.convertScaleAbs(cv2.Laplacian(grey, cv2.CV_16S)), np.uint8)
    cumulative = np.cumsum(np.bincount(edges.reshape(-1), minlength=256))
    return float(np.searchsorted(cumulative, 0.999 * edges.size))


def _inside(
    grey: NDArray[np.uint8], face: tuple[float, float, float, float] | None, scale: float
) -> NDArray[np.uint8]:
    if face is None:
        return grey
    left, top, right, bottom = (max(0, round(edge * scale)) for edge in face)
    inside = grey[top:bottom, left:right]
    return inside if inside.size else grey


def _block_spread(grey: NDArray[np.uint8]) -> float:
    return float(_shrunk(grey, 1 / 16).astype(np.float32).std())


def _shrunk(picture: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
