"""What a camera may show: a desk drawn here, live with sensor noise, and then black, covered, frozen or dark."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
NOISE = np.random.default_rng(7)


def desk(width_px: int = 320, height_px: int = 240) -> Image:
    """A wall, a table and some things with edges, in ordinary light."""
    picture = np.full((360, 640, 3), 130, np.uint8)
    picture[240:] = (60, 80, 110)
    cv2.rectangle(picture, (80, 60), (200, 180), (190, 200, 190), -1)
    cv2.circle(picture, (330, 170), 70, (150, 170, 205), -1)
    cv2.putText(picture, "EXAM", (420, 320), cv2.FONT_HERSHEY_SIMPLEX, 2, (230, 230, 230), 4)
    return cv2.resize(picture, (width_px, height_px), interpolation=cv2.INTER_AREA).astype(np.uint8)


def filmed(scene: Image, noise: float = 1.5, source: np.random.Generator = NOISE) -> Image:
    """One exposure of it: the same scene never gives the same picture twice."""
    values = scene + source.standard_normal(scene.shape, np.float32) * np.float32(noise)
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def dimmed(scene: Image, light: float) -> Image:
    """The same room with a share of its light."""
    return np.round(scene * light).astype(np.uint8)


def covered(scene: Image) -> Image:
    """A hand before the lens: soft light and no edge."""
    soft = cv2.GaussianBlur(scene.astype(np.float32), (0, 0), scene.shape[1] * 0.15)
    return (np.asarray(soft) * 0.3 + 60).astype(np.uint8)
