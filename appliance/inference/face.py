"""Faces in one picture: decoding of the full-range detector and the count that observations rest on.

Pure but for the network it is handed; runs in the inference process, about twice a second and when a face
was lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.inference.interpreter import Network

# 48 x 48 cells of 4 pixels on a 192-pixel input, one anchor a cell at its centre
# (MediaPipe, face_detection_full_range.pbtxt).
GRID = 48
STRIDE = 4
KEYPOINTS = 6
# Measured on 47 photos: the faintest face that a person counts has 0.57, the strongest thing that is none
# has 0.43.
FACE_THRESHOLD = 0.5
# A face that counts by itself. Below it stand one of 41 single faces (0.57), but also the leaves and fur of
# a cartoon without people (up to 0.68): there the landmark network must agree. On 211 exam frames a
# threshold of 0.7 lifted another detector's precision of "several faces" from 0.28 to 0.92 (field report);
# in each of our 4 group photos at least 3 faces stay above it.
SURE_THRESHOLD = 0.7
# Two boxes that share more than this part of the area that they cover together are one face (same source as
# the grid).
OVERLAP_ONE_FACE = 0.3

_CELL = (np.arange(GRID, dtype=np.float32) + 0.5) * STRIDE
_ANCHORS = np.stack(np.meshgrid(_CELL, _CELL), axis=-1).reshape(-1, 2)


@dataclass(frozen=True)
class Face:
    """A face box in pixels of the picture. Keypoints (6, 2): the two eyes, nose, mouth and the two ears."""

    left: float
    top: float
    right: float
    bottom: float
    keypoints: NDArray[np.float32]
    confidence: float

    @property
    def size(self) -> float:
        """Longer side in pixels."""
        return max(self.right - self.left, self.bottom - self.top)

    @property
    def is_sure(self) -> bool:
        """Whether it counts without the landmark network's word."""
        return self.confidence >= SURE_THRESHOLD

    def holds(self, points: NDArray[np.float32]) -> bool:
        """Whether the middle of (N, 3) points lies in the box."""
        x, y = points[:, :2].mean(axis=0)
        return bool(self.left <= x <= self.right and self.top <= y <= self.bottom)


def find_faces(network: Network, picture_bgr: NDArray[np.uint8], zoom: float = 1.0) -> list[Face]:
    """Faces in an H x W x 3 picture, largest first, in pixels of the frame that is `zoom` times as large."""
    height, width = picture_bgr.shape[:2]
    side = network.input_size
    scale = side / max(height, width)
    small_width, small_height = max(1, round(width * scale)), max(1, round(height * scale))
    x, y = (side - small_width) // 2, (side - small_height) // 2
    canvas = np.zeros((side, side, 3), np.uint8)
    canvas[y : y + small_height, x : x + small_width] = _shrink(picture_bgr, small_width, small_height)
    boxes, logits = network.run(canvas)
    offset = np.array([x, y], np.float32)
    return decode(
        boxes.reshape(-1, 4 + 2 * KEYPOINTS), logits, offset, np.float32(zoom / scale), FACE_THRESHOLD
    )


def _shrink(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Reduce without aliasing: halves, then one step of less than two, in which INTER_AREA takes six times as long."""
    while picture.shape[1] >= 2 * width and picture.shape[0] >= 2 * height:
        half = (picture.shape[1] // 2, picture.shape[0] // 2)
        picture = cv2.resize(picture, half, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def decode(
    boxes: NDArray[np.float32],
    logits: NDArray[np.float32],
    offset: NDArray[np.float32],
    scale: np.float32,
    threshold: float,
) -> list[Face]:
    """Faces from the raw outputs (2304, 16) and (2304,).

    `(point - offset) * scale` maps input to picture pixels.
    """
    kept = np.flatnonzero(logits >= math.log(threshold / (1.0 - threshold)))
    kept = kept[np.argsort(-logits[kept])]
    confidence = 1.0 / (1.0 + np.exp(-np.clip(logits[kept], -50.0, 50.0)))
    raw = boxes[kept]
    centre = (raw[:, 0:2] + _ANCHORS[kept] - offset) * scale
    half = raw[:, 2:4] * scale / 2.0
    points = (raw[:, 4:].reshape(-1, KEYPOINTS, 2) + _ANCHORS[kept][:, None] - offset) * scale
    corners = np.concatenate([centre - half, centre + half], axis=1)
    faces: list[Face] = []
    left = list(range(len(kept)))
    while left:
        best = left[0]
        shared = [overlap(corners[best], corners[other]) > OVERLAP_ONE_FACE for other in left]
        group = [other for other, same in zip(left, shared, strict=True) if same] or [best]
        left = [other for other, same in zip(left, shared, strict=True) if not same and other != best]
        # The group's mean, weighted by confidence, jitters less than its best member.
        weight = confidence[group] / confidence[group].sum()
        box = weight @ corners[group]
        faces.append(
            Face(
                float(box[0]),
                float(box[1]),
                float(box[2]),
                float(box[3]),
                np.tensordot(weight, points[group], axes=1).astype(np.float32),
                float(confidence[best]),
            )
        )
    return sorted(faces, key=lambda face: -face.size)


def overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    total = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared
    return float(shared / total)
