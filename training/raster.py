"""Which triangle is seen at each pixel: a z-buffer with perspective-correct weights. The renderer's inner loops."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float32]
FAR_MM = 1e9


class Buffers:
    """What each pixel of a square window sees: depth (mm), triangle (-1: none) and the weights of its corners."""

    def __init__(self, side: int) -> None:
        self.depth_mm = np.empty((side, side), np.float32)
        self.triangle = np.empty((side, side), np.int32)
        self.weights = np.empty((side, side, 3), np.float32)

    def clear(self) -> None:
        """Nothing is seen anywhere."""
        self.depth_mm.fill(FAR_MM)
        self.triangle.fill(-1)


@njit(cache=True, fastmath=True)
def project(points: Array, focal: float, left: float, top: float) -> Array:
    """Pixels (x, y) and depth of points (N, 3) for a pinhole whose axis meets the window at (-left, -top)."""
    out = np.empty_like(points)
    for i in range(points.shape[0]):
        z = points[i, 2]
        out[i, 0] = points[i, 0] * focal / z - left
        out[i, 1] = points[i, 1] * focal / z - top
        out[i, 2] = z
    return out


@njit(cache=True, fastmath=True)
def rasterise(
    seen: Array,
    triangles: NDArray[np.int32],
    first: int,
    cull: bool,
    depth_mm: Array,
    triangle: NDArray[np.int32],
    weights: Array,
) -> None:
    """Draw triangles of projected points; their numbers in the buffer begin at `first`."""
    height, width = depth_mm.shape
    for number in range(triangles.shape[0]):
        a, b, c = triangles[number]
        ax, ay, az = seen[a, 0], seen[a, 1], seen[a, 2]
        bx, by, bz = seen[b, 0], seen[b, 1], seen[b, 2]
        cx, cy, cz = seen[c, 0], seen[c, 1], seen[c, 2]
        if az < 1.0 or bz < 1.0 or cz < 1.0:
            continue
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-9 or (cull and area > 0.0):
            continue
        x0 = max(0, int(np.floor(min(ax, bx, cx))))
        x1 = min(width - 1, int(np.ceil(max(ax, bx, cx))))
        y0 = max(0, int(np.floor(min(ay, by, cy))))
        y1 = min(height - 1, int(np.ceil(max(ay, by, cy))))
        if x0 > x1 or y0 > y1:
            continue
        inverse = 1.0 / area
        for y in range(y0, y1 + 1):
            py = y + 0.5
            for x in range(x0, x1 + 1):
                px = x + 0.5
                wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * inverse
                wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * inverse
                wc = 1.0 - wa - wb
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                z = 1.0 / (wa / az + wb / bz + wc / cz)
                if z < depth_mm[y, x]:
                    depth_mm[y, x] = z
                    triangle[y, x] = first + number
                    weights[y, x, 0] = wa * z / az
                    weights[y, x, 1] = wb * z / bz
                    weights[y, x, 2] = wc * z / cz


@njit(cache=True, fastmath=True)
def normals(points: Array, triangles: NDArray[np.int32]) -> Array:
    """Unit normals of the vertices, the mean of their triangles'."""
    out = np.zeros_like(points)
    for number in range(triangles.shape[0]):
        a, b, c = triangles[number]
        ux, uy, uz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
        vx, vy, vz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in (a, b, c):
            out[corner, 0] += nx
            out[corner, 1] += ny
            out[corner, 2] += nz
    for i in range(out.shape[0]):
        length = np.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2) + 1e-12
        out[i, 0] /= length
        out[i, 1] /= length
        out[i, 2] /= length
    return out
