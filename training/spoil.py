"""What stands between a face and a picture of it: glasses, lens, sensor, compression."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training import scene
from training.heads import Head


def spoil(rng: Generator, frame: NDArray[np.uint8], hard: bool) -> NDArray[np.uint8]:
    """Blur, exposure, noise and JPEG; `hard` ones more of each."""
    much = 1.0 if hard else 0.4
    picture: NDArray[Any] = frame.astype(np.float32)
    if rng.random() < 0.7:
        picture = cv2.GaussianBlur(picture, (0, 0), max(0.1, float(rng.uniform(0.0, 1.7 * much))))
    if rng.random() < 0.25 * much:
        length, angle = int(rng.integers(2, 6)), rng.uniform(0, np.pi)
        kernel = np.zeros((length, length), np.float32)
        middle, reach = (length - 1) / 2, length / 2
        for step in np.linspace(-reach, reach, 4 * length):
            x, y = round(middle + step * np.cos(angle)), round(middle + step * np.sin(angle))
            if 0 <= x < length and 0 <= y < length:
                kernel[y, x] = 1.0
        picture = cv2.filter2D(picture, -1, kernel / max(kernel.sum(), 1.0))
    contrast, bright = rng.uniform(1 - 0.3 * much, 1 + 0.3 * much), rng.normal(0, 15 * much)
    picture = (picture - 128.0) * contrast + 128.0 + bright
    height, width = frame.shape[:2]
    coarse = rng.standard_normal((height // 2, width // 2), np.float32)
    noise = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)[..., None] * np.float32(1.5)
    noise += rng.standard_normal((height, width, 1), np.float32)
    picture = picture + noise * np.float32(rng.uniform(0.2, 1.0 + 6.0 * much * rng.random()))
    shown = np.clip(picture, 0, 255).astype(np.uint8)
    quality = int(rng.uniform(35 if hard else 75, 97))
    packed = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)


def wear_glasses(
    rng: Generator,
    window: NDArray[np.uint8],
    pose: scene.Pose,
    head: Head,
    place: tuple[float, float, float],
    side_px: int,
) -> None:
    """Draw glasses into a rendered window: frame, lenses that shrink or enlarge a little, and what they mirror."""
    zoom = side_px / place[2]
    focal = pose.focal_px * zoom
    left, top = (place[0] - 320.0) * zoom, (place[1] - 240.0) * zoom
    tilt = np.radians(rng.uniform(0, 12))
    forward = pose.turn @ np.array([0.0, np.sin(tilt), -np.cos(tilt)])
    origin = pose.place_mm + pose.turn @ np.array(
        [0.0, rng.uniform(-2, 5), -(head.eye_radius_mm + rng.uniform(6, 13))]
    )
    across, down = pose.turn @ np.array([1.0, 0, 0]), np.cross(pose.turn @ np.array([1.0, 0, 0]), forward)
    if float(down @ (pose.turn @ np.array([0.0, 1.0, 0.0]))) < 0:
        down = -down
    corner = np.array([[-75, -40], [75, -40], [-75, 45], [75, 45]], float)
    at = origin + corner[:, :1] * across + corner[:, 1:] * down
    px = at[:, 0] * focal / at[:, 2] - left
    py = at[:, 1] * focal / at[:, 2] - top
    x0, x1 = max(0, int(px.min())), min(side_px, int(px.max()) + 1)
    y0, y1 = max(0, int(py.min())), min(side_px, int(py.max()) + 1)
    if x1 - x0 < 8 or y1 - y0 < 8:
        return
    ys, xs = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    rays = np.stack([(xs + 0.5 + left) / focal, (ys + 0.5 + top) / focal, np.ones_like(xs)], axis=-1)
    reach = (origin @ forward) / (rays @ forward)
    hit = rays * reach[..., None] - origin
    u, v = (hit @ across).astype(np.float32), (hit @ down).astype(np.float32)
    half_w, half_h = rng.uniform(21, 28), rng.uniform(14, 23)
    power, thick = rng.uniform(2.2, 6.0), rng.uniform(0.6, 5.0)
    centre = head.identity.ipd_mm / 2 + rng.uniform(0, 4)
    area = window[y0:y1, x0:x1].astype(np.float32)
    base = area.copy()
    enlarge = rng.uniform(0.95, 1.06)
    colour = np.full(3, rng.uniform(0, 60)) if rng.random() < 0.7 else rng.uniform(0, 220, 3)
    tint = rng.uniform(0.75, 1.0, 3) if rng.random() < 0.3 else np.ones(3)
    for sign in (-1.0, 1.0):
        inside = (np.abs((u - sign * centre) / half_w) ** power + np.abs(v / half_h) ** power) ** (1 / power)
        rim = (
            np.abs((u - sign * centre) / (half_w + thick)) ** power + np.abs(v / (half_h + thick)) ** power
        ) ** (1 / power)
        lens = inside < 1.0
        if lens.any():
            cx, cy = float(xs[lens].mean() - x0), float(ys[lens].mean() - y0)
            map_x = (cx + (xs - x0 - cx) / enlarge).astype(np.float32)
            map_y = (cy + (ys - y0 - cy) / enlarge).astype(np.float32)
            bent = cv2.remap(base, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) * tint
            area[lens] = (bent + _mirrored(rng, u - sign * centre, v)[..., None])[lens]
        area[(rim < 1.0) & ~lens] = colour
    area[(np.abs(u) < centre - half_w) & (np.abs(v + half_h * 0.3) < max(0.8, thick * 0.5))] = colour
    window[y0:y1, x0:x1] = np.clip(area, 0, 255).astype(np.uint8)


def _mirrored(rng: Generator, u: NDArray[np.float32], v: NDArray[np.float32]) -> NDArray[np.float32]:
    """Light that a lens throws back: often nothing, sometimes a window's rectangle or a lamp's spot."""
    kind = rng.random()
    if kind < 0.55:
        return np.zeros_like(u)
    x, y = rng.uniform(-22, 22), rng.uniform(-14, 14)
    strength = float(rng.uniform(20, 140))
    if kind < 0.8:
        slant = rng.uniform(-0.5, 0.5)
        w, h = rng.uniform(3, 14), rng.uniform(3, 12)
        return (strength * ((np.abs(u - x + slant * v) < w) & (np.abs(v - y) < h))).astype(np.float32)
    width = rng.uniform(1.5, 6)
    return (strength * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * width**2))).astype(np.float32)
