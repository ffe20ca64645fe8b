"""Whether a picture can be judged at all: too dark, washed out, out of focus, or the lens black or covered.

Pure. `visibility` judges the picture, whoever is in it; `assess` also asks for a face's light and focus. Thresholds
were measured on the 47 photos and 36 renders of docs/observations.md, as they are and with light, focus and lens
spoiled, and on the clips; `python -m bench.inference --accuracy DIR` repeats it.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

# Everything is measured on a grey picture this wide (its longer side), which also averages sensor noise away.
MEASURED_SIDE_PX = 320
# Nine tenths of the pixels are below this (0..255): at least 136 in a whole photo in ordinary light, at most 50 at a
# fifth of it. Where no face was found it must be light enough to say that there is none.
DARK_BELOW = 55
# A face that was found has to be lit so that its points can be trusted: their angles are as good at 35 to 40 as at 80
# and more (1,680 drawn faces of all skin tones, dim to a quarter of dim, with noise), and begin to be worse at 30. A
# limit as high as the one above left dark skin unassessed three times as often as light skin.
DARK_FACE_BELOW = 40
# Spread of the means of 16-pixel blocks: a cap leaves flat black and noise (0.1), a room with a twentieth of
# its light keeps at least 1.2.
CAPPED_BLOCK_SPREAD = 0.6
# Share of pixels at 250 or more: at most 0.14 in normal light.
GLARE_SHARE = 0.3
GLARE_LEVEL = 250
# 99.9th percentile of the second derivative (4-neighbour Laplacian): at least 59 when focused, at most 18 at
# a blur of 1 % of the width, of which sensor noise alone makes 16.
BLUR_BELOW = 30
# Where nothing large has an edge, a small one is believed at this part of the size: a sensor's noise, with the gain
# that a hand before the lens asks for, is as sharp as an edge otherwise (8 of 255 steps: 59, so much smaller 16).
NOISELESS = 0.25
# A hand, a sheet or a lamp before the lens leaves soft light without an edge even at 40 pixels: the 99th percentile
# of the Laplacian there, by the 90th percentile of brightness, is at most 0.17. It does not depend on the light: at
# least 0.76 in ordinary light, 0.68 at a twentieth of it, 0.47 at a blur of 1 % of the width, 0.30 in the clip of a
# bare wall, 0.23 at five times the light.
OUTLINE_SIDE_PX = 40
COVERED_OUTLINE = 0.2
# Fewer than one in a thousand values differ between two looks. Of a live picture at least 8.5 in a thousand lumas do
# (simulated still scene, noise of 0.3 of 255 steps, a fiftieth of the light, MJPEG quality 30) and 148 between two
# frames of the stillest clip that there is; a stuck pipeline repeats its buffer bit by bit.
SAME_BELOW = 0.001

Visibility = Literal["clear", "black", "covered"]


def visibility(grey: NDArray[np.uint8]) -> Visibility:
    """What the lens lets through: H x W grey of full range, at least MEASURED_SIDE_PX wide or high."""
    return _visibility(_shrunk(grey, _scale(grey)))


def small(frame_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An H x W x 3 picture at the size at which everything is measured; a smaller one as it is."""
    return _shrunk(frame_bgr, _scale(frame_bgr))


def assess(frame_bgr: NDArray[np.uint8], face: tuple[float, float, float, float] | None = None) -> str:
    """`"good"`, `"dark"`, `"glare"`, `"blur"` or `"covered"` for an H x W x 3 picture.

    `face` (left, top, right, bottom in pixels) restricts light to the face where there is one: a bright
    window behind a well lit face, or a dark hall round it, does not matter.
    """
    scale = _scale(frame_bgr)
    grey = cv2.cvtColor(_shrunk(frame_bgr, scale), cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
    hidden = face is None and _visibility(grey) != "clear"
    lit = _inside(grey, face, scale)
    if _brightness(lit) < (DARK_BELOW if face is None else DARK_FACE_BELOW):
        return "covered" if hidden else "dark"
    if np.count_nonzero(lit >= GLARE_LEVEL) > GLARE_SHARE * lit.size:
        return "glare"
    is_sharp = sharpness(grey) >= BLUR_BELOW
    if hidden and not (is_sharp and sharpness(_shrunk(grey, NOISELESS)) >= BLUR_BELOW):
        return "covered"
    return "good" if is_sharp else "blur"


def is_same(before: NDArray[np.uint8], now: NDArray[np.uint8]) -> bool:
    """Whether two planes or frames are one picture, as no live sensor gives it twice."""
    return before.shape == now.shape and int(np.count_nonzero(before != now)) < SAME_BELOW * now.size


def sharpness(grey: NDArray[np.uint8]) -> float:
    """99.9th percentile of the Laplacian's size: one sharp edge anywhere shows that the lens is in focus."""
    edges: NDArray[np.uint8] = np.asarray(cv2.convertScaleAbs(cv2.Laplacian(grey, cv2.CV_16S)), np.uint8)
    return float(_percentile(edges, 0.999))


def outline(grey: NDArray[np.uint8]) -> float:
    """How strong the edges of large things are against the light there is; 0 for an even picture."""
    scale = min(1.0, OUTLINE_SIDE_PX / max(grey.shape))
    height, width = grey.shape
    size = (max(3, round(width * scale)), max(3, round(height * scale)))
    coarse = cv2.resize(grey.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    edges = np.abs(cv2.Laplacian(coarse, cv2.CV_32F))[1:-1, 1:-1]
    return float(np.percentile(edges, 99)) / max(1, _brightness(grey))


def _visibility(grey: NDArray[np.uint8]) -> Visibility:
    if _brightness(grey) < DARK_BELOW and _block_spread(grey) < CAPPED_BLOCK_SPREAD:
        return "black"
    return "covered" if outline(grey) < COVERED_OUTLINE else "clear"


def _brightness(grey: NDArray[np.uint8]) -> int:
    return _percentile(grey, 0.9)


def _percentile(values: NDArray[np.uint8], part: float) -> int:
    counts = cv2.calcHist([values], [0], None, [256], [0, 256])
    return int(np.searchsorted(np.cumsum(counts), part * values.size))


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


def _scale(picture: NDArray[np.uint8]) -> float:
    longer_px: int = max(picture.shape[:2])
    return min(1.0, MEASURED_SIDE_PX / longer_px)


def _shrunk(picture: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    if scale == 1.0:
        return picture
    height, width = picture.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
