"""What is drawn along the lids after the eyeballs: their shadow, lashes, a line of make-up, folds of skin.

Not in the mesh: where a column of pixels shows an eyeball, its first and last row are the edges of the lids.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numba import njit
from numpy.typing import NDArray

from training.shade import (
    CENTRE,
    EYE,
    FOLDS_DARK,
    FOLDS_MM,
    LASH_DARK,
    LASH_MM,
    LINER_MM,
    PHASE,
    SHADOW,
    SKIN,
    SOCKET,
    SOCKET_MM,
    WING_MM,
    Array,
)

# Half of a fold's thickness, and how much nearer to the lids' edges it lies at the corners of the eye.
FOLD_MM, FOLD_NEARER = 1.2, 0.5


@njit(cache=True, fastmath=True)
def _opening(eye: Array, x: int, focal: float, top: float, seen: NDArray[np.uint8]) -> tuple[int, int]:
    """First and last row in which a column shows the eyeball; -1 where none does."""
    reach = eye[SOCKET_MM] * 1.2 * focal / eye[CENTRE + 2]
    my = eye[SOCKET + 1] * focal / eye[SOCKET + 2] - top
    upper, lower = -1, -1
    for y in range(max(1, int(my - reach)), min(seen.shape[0] - 1, int(my + reach) + 1)):
        if seen[y, x] == EYE:
            if upper < 0:
                upper = y
            lower = y
    return upper, lower


@njit(cache=True, fastmath=True)
def _openings(
    eye: Array, focal: float, left: float, top: float, seen: NDArray[np.uint8]
) -> Iterator[tuple[int, int, int]]:
    """Each column that shows the eyeball, from left to right, with its first and last row that does."""
    reach = eye[SOCKET_MM] * 1.2 * (focal / eye[CENTRE + 2])
    mx = eye[SOCKET] * focal / eye[SOCKET + 2] - left
    for x in range(max(0, int(mx - reach)), min(seen.shape[1], int(mx + reach) + 1)):
        upper, lower = _opening(eye, x, focal, top, seen)
        if upper >= 0:
            yield x, upper, lower


@njit(cache=True, fastmath=True)
def lids_and_lashes(
    eyes: Array, focal: float, left: float, top: float, image: Array, seen: NDArray[np.uint8]
) -> None:
    """Shade the eyeball under the upper lid, and draw both rows of lashes along the opening's edge."""
    height = seen.shape[0]
    for number in range(eyes.shape[0]):
        eye = eyes[number]
        per_mm = focal / eye[CENTRE + 2]
        for x, upper, lower in _openings(eye, focal, left, top, seen):
            uneven = 0.75 + 0.35 * np.sin(x * 1.9 / per_mm * 3.0 + eye[PHASE])
            for y in range(max(0, upper - int(3 * per_mm)), min(height, lower + int(2 * per_mm))):
                below, above = (y - upper) / per_mm, (lower - y) / per_mm
                dark = 0.0
                if seen[y, x] == EYE:
                    shade = 1.0 - eye[SHADOW] * np.exp(-max(below, 0.0) / 1.6)
                    for k in range(3):
                        image[y, x, k] *= shade
                if below >= 0.0:
                    dark = max(dark, 1.0 - below / (eye[LASH_MM] * uneven + 1e-3))
                else:
                    dark = max(dark, 1.0 + below / (eye[LASH_MM] * 0.8 * uneven + 1e-3))
                if above < 0.6:
                    dark = max(dark, 0.6 * (1.0 - abs(above) / (0.5 * eye[LASH_MM] * uneven + 1e-3)))
                dark = min(1.0, max(0.0, dark)) * eye[LASH_DARK]
                for k in range(3):
                    image[y, x, k] *= 1.0 - dark


@njit(cache=True, fastmath=True)
def liner(eyes: Array, focal: float, left: float, top: float, image: Array, seen: NDArray[np.uint8]) -> None:
    """A drawn line along the upper lid, thicker toward the temple, where it may end in a wing; over the iris too, as
    thick lashes hang."""
    width = seen.shape[1]
    for number in range(eyes.shape[0]):
        eye = eyes[number]
        per_mm = focal / eye[CENTRE + 2]
        line, wing = eye[LINER_MM] * per_mm, eye[WING_MM] * per_mm
        reach = eye[SOCKET_MM] * 1.2 * per_mm
        mx = eye[SOCKET] * focal / eye[SOCKET + 2] - left
        outward = -1.0 if number == 0 else 1.0
        corner_x, corner_y = -1, -1
        for step in range(int(-reach), int(reach) + 1):
            x = int(mx + outward * step)
            upper = _opening(eye, x, focal, top, seen)[0] if line > 0.0 and 0 <= x < width else -1
            if upper >= 0:
                thick = line * (0.65 + 0.35 * step / reach)
                _darken(x, upper - thick, upper + 0.4 * thick, image, seen)
                corner_x, corner_y = x, upper
        if corner_y < 0:
            continue
        for step in range(int(wing)):
            middle, thick = corner_y - 0.45 * step, line * (1.0 - step / wing)
            _darken(int(corner_x + outward * (step + 1)), middle - thick, middle + 0.3 * thick, image, seen)


@njit(cache=True, fastmath=True)
def folds(eyes: Array, focal: float, left: float, top: float, image: Array, seen: NDArray[np.uint8]) -> None:
    """Lines of shade along both lids, where skin folds above the upper and bags below the lower one."""
    height = seen.shape[0]
    for number in range(eyes.shape[0]):
        eye = eyes[number]
        per_mm = focal / eye[CENTRE + 2]
        reach = eye[SOCKET_MM] * 1.2 * per_mm
        mx = eye[SOCKET] * focal / eye[SOCKET + 2] - left
        for x, upper, lower in _openings(eye, focal, left, top, seen):
            aside = (x - mx) / reach
            near = 1.0 - FOLD_NEARER * aside * aside
            for row in range(2):
                far = eye[FOLDS_MM + row] * near * per_mm
                middle = upper - far if row == 0 else lower + far
                half = FOLD_MM * per_mm
                for y in range(max(0, int(middle - half)), min(height, int(middle + half) + 2)):
                    depth = 1.0 - abs(y - middle) / half
                    if depth > 0.0 and seen[y, x] == SKIN:
                        for k in range(3):
                            image[y, x, k] *= 1.0 - eye[FOLDS_DARK + row] * depth


@njit(cache=True, fastmath=True)
def _darken(x: int, first: float, last: float, image: Array, seen: NDArray[np.uint8]) -> None:
    """Draw a line's rows of one column, on the head alone."""
    height, width = seen.shape
    if x < 0 or x >= width:
        return
    for y in range(max(0, int(first)), min(height, int(last) + 1)):
        if seen[y, x] != 0:
            for k in range(3):
                image[y, x, k] *= 0.15
