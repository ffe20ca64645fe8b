"""Whether the camera stands where it stood, by what stands behind the person. Pure; one per session.

Compares small blocks of the picture with how they usually look, twice a second. A light that is switched and a person
who moves leave the background's edges where they are, or hide some; a camera that is turned takes all with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.inference.landmarks import Box

_Floats = NDArray[np.float32]
_Flags = NDArray[np.bool_]

# The picture is brought to this many pixels on its longer side, smoothed, and freed of whatever is wider than WIDE_PX:
# what is left are edges. A shift by 1 % of the width, as when somebody leans on the table, leaves all blocks in place,
# by 3 % half of them, by 6 % (3 degrees) a fifth (medians of 47 photos).
SIDE_PX = 80
SMOOTH_PX = 1.0
WIDE_PX = 11
BLOCK_WIDTH_PX, BLOCK_HEIGHT_PX = 8, 7
# Root mean square of a block's edges, of 255: an even wall has under 1.
LEAST_TEXTURE = 3.0
# Correlation with the same block before. Light from 0.3 to 2.5 times leaves 84 % of the blocks above it in 98 of 100.
ALIKE = 0.7
# Fewer blocks with edges outside the person tell nothing.
FEWEST_BLOCKS = 8
# The camera stands where at least this share of them is in place.
STANDS_SHARE = 0.5
# Where hardly any is, nor at the picture's left and right, the view is another one. Who stands before the lens leaves
# something at a side, or does not keep still.
GONE_SHARE = 0.3
# A shift is believed from 3 of 80 pixels on (2 degrees) where it puts so many blocks in place, and so many more than
# stand there without it.
LEAST_SHIFT_PX = 3.0
SHIFTED_SHARE = 0.6
SHIFT_EXPLAINS = 0.3
# A block that looks otherwise for good (a door, a shadow) is as usual after some ten seconds.
LEARN_SHARE = 0.05
# In looks of half a second: a view that moved is the usual one after 5 s without movement, and whatever it is after 30.
SETTLED_LOOKS = 10
GIVEN_UP_LOOKS = 60
# Hair and shoulders, in widths and heights of the face on either side of it.
BESIDE_FACE, ABOVE_FACE, BESIDE_CHIN = 0.3, 0.5, 0.8


@dataclass(frozen=True)
class Stand:
    """`moved`: None where it cannot be told. `in_place_percent`: background blocks that look as usual."""

    moved: bool | None
    in_place_percent: float | None = None


UNTOLD = Stand(None)


@dataclass
class _Look:
    """`edges`: height x width; `blocks`: rows x columns x pixels, each of length 1; the others: rows x columns."""

    edges: _Floats
    blocks: _Floats
    texture: _Floats
    person: _Flags


class CameraView:
    """The usual view, and whether the newest look still shows it."""

    def __init__(self) -> None:
        self._usual: _Look | None = None
        self._before: _Look | None = None
        self._moved = False
        self._still_looks = 0
        self._other_looks = 0

    def look(self, frame_bgr: NDArray[np.uint8], face: Box | None) -> Stand:
        """One look at an H x W x 3 picture that is lit and in focus; `face` is (left, top, right, bottom) in pixels."""
        now, before = _look(frame_bgr, face), self._before
        self._before = now
        if self._usual is None or self._usual.edges.shape != now.edges.shape:
            self._begin(now)
            return UNTOLD
        share = _share_alike(self._usual, now)
        if share is None:
            return self._other(now, UNTOLD)
        percent = round(100.0 * share, 1)
        if share >= STANDS_SHARE:
            self._stand(now)
            return Stand(False, percent)
        still = before is not None and (_share_alike(before, now) or 0.0) >= STANDS_SHARE
        gone = (
            still and share < GONE_SHARE and (_share_alike(self._usual, now, outer=True) or 0.0) < GONE_SHARE
        )
        self._moved = self._moved or gone or _is_shifted(self._usual, now, share)
        self._still_looks = self._still_looks + 1 if still else 0
        if self._moved and self._still_looks >= SETTLED_LOOKS:
            self._begin(now)
            return Stand(False)
        return self._other(now, Stand(True, percent) if self._moved else UNTOLD)

    def _begin(self, now: _Look) -> None:
        """From now on this is the usual view."""
        self._usual = now
        self._moved, self._still_looks, self._other_looks = False, 0, 0

    def _stand(self, now: _Look) -> None:
        self._moved, self._still_looks, self._other_looks = False, 0, 0
        usual = self._usual
        assert usual is not None  # noqa: S101
        # A block that only now came into sight is as it is; one without edges for a while, as in the dark, is kept.
        rate = np.where(usual.person, 1.0, LEARN_SHARE).astype(np.float32) * ~now.person
        usual.texture += rate * (now.texture - usual.texture)
        rate *= now.texture > LEAST_TEXTURE
        mixed = usual.blocks + rate[..., None] * (now.blocks - usual.blocks)
        usual.blocks = mixed / np.maximum(np.linalg.norm(mixed, axis=2, keepdims=True), 1e-3)
        usual.person &= now.person
        usual.edges = usual.edges + LEARN_SHARE * (now.edges - usual.edges)

    def _other(self, now: _Look, stand: Stand) -> Stand:
        """Neither the usual view nor settled in another; that cannot go on for ever."""
        self._other_looks += 1
        if self._other_looks >= GIVEN_UP_LOOKS:
            self._begin(now)
            return UNTOLD
        return stand


def _look(frame_bgr: NDArray[np.uint8], face: Box | None) -> _Look:
    height, width = frame_bgr.shape[:2]
    scale = SIDE_PX / max(height, width)
    size = (max(BLOCK_WIDTH_PX, round(width * scale)), max(BLOCK_HEIGHT_PX, round(height * scale)))
    # Every second row: half the time, and smoothing follows.
    small = cv2.cvtColor(cv2.resize(frame_bgr[::2], size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    smooth = cv2.GaussianBlur(small.astype(np.float32), (0, 0), SMOOTH_PX)
    edges = np.asarray(smooth - cv2.blur(smooth, (WIDE_PX, WIDE_PX)), np.float32)
    blocks, texture = _blocks(edges)
    return _Look(edges, blocks, texture, _person(face, scale, texture.shape))


def _blocks(edges: _Floats) -> tuple[_Floats, _Floats]:
    """Each block freed of its mean and of length 1, and its root mean square."""
    rows, columns = edges.shape[0] // BLOCK_HEIGHT_PX, edges.shape[1] // BLOCK_WIDTH_PX
    cut = edges[: rows * BLOCK_HEIGHT_PX, : columns * BLOCK_WIDTH_PX]
    tiled = cut.reshape(rows, BLOCK_HEIGHT_PX, columns, BLOCK_WIDTH_PX).transpose(0, 2, 1, 3)
    flat = tiled.reshape(rows, columns, -1)
    flat = flat - flat.mean(axis=2, keepdims=True)
    length = np.sqrt(np.einsum("ijk,ijk->ij", flat, flat))
    blocks = flat / np.maximum(length, 1e-3)[..., None]
    return blocks, length / np.float32(np.sqrt(BLOCK_WIDTH_PX * BLOCK_HEIGHT_PX))


def _person(face: Box | None, scale: float, shape: tuple[int, ...]) -> _Flags:
    """Blocks that the person is probably in: round the face, and all below."""
    hidden = np.zeros(shape, np.bool_)
    if face is not None:
        left, top, right, bottom = (edge * scale for edge in face)
        for beside, first_px in ((BESIDE_FACE, top - ABOVE_FACE * (bottom - top)), (BESIDE_CHIN, bottom)):
            around = beside * (right - left)
            row, column = first_px // BLOCK_HEIGHT_PX, (left - around) // BLOCK_WIDTH_PX
            end = (right + around) // BLOCK_WIDTH_PX + 1
            hidden[max(0, int(row)) :, max(0, int(column)) : max(0, int(end))] = True
    return hidden


def _share_alike(usual: _Look, now: _Look, outer: bool = False) -> float | None:
    """Share of the background's blocks that look as usual; None where there are too few to tell.

    `outer`: only of those in the first and the last column.
    """
    told = (usual.texture > LEAST_TEXTURE) & ~usual.person & ~now.person
    if outer:
        told[:, 1:-1] = False
    count = int(np.count_nonzero(told))
    if count < (1 if outer else FEWEST_BLOCKS):
        return None
    alike = np.einsum("ij,ij->i", usual.blocks[told], now.blocks[told]) >= ALIKE
    return float(np.count_nonzero(alike)) / count


def _is_shifted(usual: _Look, now: _Look, share: float) -> bool:
    """Whether one shift of the whole picture puts in place what stands elsewhere."""
    hidden = cv2.resize(
        (usual.person | now.person).astype(np.uint8), usual.edges.shape[::-1], interpolation=cv2.INTER_NEAREST
    )
    seen = (hidden == 0).astype(np.float32)
    (right_px, down_px), _ = cv2.phaseCorrelate(usual.edges * seen, now.edges * seen)
    if max(abs(right_px), abs(down_px)) < LEAST_SHIFT_PX:
        return False
    back = np.array([[1.0, 0.0, -right_px], [0.0, 1.0, -down_px]], np.float64)
    size = usual.edges.shape[::-1]
    edges = np.asarray(cv2.warpAffine(now.edges, back, size), np.float32)
    blocks, _ = _blocks(edges)
    # What came in from outside the picture is in no block that could be in place.
    inside = np.asarray(cv2.warpAffine(seen, back, size), np.float32)
    rows, columns = blocks.shape[:2]
    whole = inside[: rows * BLOCK_HEIGHT_PX, : columns * BLOCK_WIDTH_PX]
    known = whole.reshape(rows, BLOCK_HEIGHT_PX, columns, BLOCK_WIDTH_PX).min(axis=(1, 3)) > 0.5
    shifted = _share_alike(usual, _Look(edges, blocks, usual.texture, ~known))
    return shifted is not None and shifted >= SHIFTED_SHARE and shifted - share >= SHIFT_EXPLAINS
