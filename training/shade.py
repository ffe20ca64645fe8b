"""Light on what the raster found: skin, hair, lashes, and eyeballs that are cut by rays, with a refracting cornea.

Linear light, one float per colour; `develop` makes a picture of it. The eye's row of numbers is `eyes.Eyes.row`.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float32]
SKIN, HAIR, LASH, EYE = 1, 2, 3, 4
# Of the cornea and the water behind it (Gullstrand).
INDEX_OF_REFRACTION = 1.376
# Columns of an eye's row.
(CENTRE, AXIS, RADIUS, IRIS_MM, PUPIL_MM, IRIS_AT_MM, CORNEA_AT_MM, CORNEA_MM, INNER, OUTER, SCLERA, PHASE, SOCKET,
 SOCKET_MM, LASH_MM, LASH_DARK, SHADOW, LINER_MM, WING_MM, FOLDS_MM, FOLDS_DARK) = (
    0, 3, 6, 7, 8, 9, 10, 11, 12, 15, 18, 21, 22, 25, 26, 27, 28, 29, 30, 31, 33)  # fmt: skip
EYE_NUMBERS = 35


@njit(cache=True, fastmath=True)
def _lit(
    nx: float, ny: float, nz: float, lights: Array, ambient: Array, shadow: float, wrap: float, out: Array
) -> None:
    """Light that arrives at a normal: a sky and a ground, and lamps (direction x y z, colour r g b); the first may be
    in shadow."""
    up = 0.5 - 0.5 * ny
    for k in range(3):
        out[k] = ambient[0, k] * up + ambient[1, k] * (1.0 - up)
    for i in range(lights.shape[0]):
        towards = nx * lights[i, 0] + ny * lights[i, 1] + nz * lights[i, 2]
        amount = max(0.0, (towards + wrap) / (1.0 + wrap))
        if i == 0:
            amount *= shadow
        for k in range(3):
            out[k] += amount * lights[i, 3 + k]


@njit(cache=True, fastmath=True)
def _sphere(ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, radius: float) -> float:
    """Distance along a ray from the origin to a sphere about (ox, oy, oz); negative where it misses."""
    along = ox * dx + oy * dy + oz * dz
    inside = along * along - (ox * ox + oy * oy + oz * oz) + radius * radius
    return -1.0 if inside < 0.0 else along - np.sqrt(inside)


@njit(cache=True, fastmath=True)
def _texture(texture: Array, u: float, v: float, out: Array) -> None:
    side = texture.shape[0]
    x, y = u * (side - 1), (1.0 - v) * (side - 1)
    x0, y0 = min(max(int(x), 0), side - 2), min(max(int(y), 0), side - 2)
    fx, fy = x - x0, y - y0
    for k in range(3):
        top = texture[y0, x0, k] * (1 - fx) + texture[y0, x0 + 1, k] * fx
        below = texture[y0 + 1, x0, k] * (1 - fx) + texture[y0 + 1, x0 + 1, k] * fx
        out[k] = top * (1 - fy) + below * fy


@njit(cache=True, fastmath=True)
def surfaces(
    triangle: NDArray[np.int32],
    weights: Array,
    corners: NDArray[np.int32],
    kinds: NDArray[np.uint8],
    uv_corners: NDArray[np.int32],
    uv: Array,
    normal: Array,
    place: Array,
    rest: Array,
    texture: Array,
    flat_colour: Array,
    lights: Array,
    ambient: Array,
    shine: float,
    shadow_depth: Array,
    shadow_axes: Array,
    shadow_bias_mm: float,
    brow: Array,
    image: Array,
    seen: NDArray[np.uint8],
) -> None:
    """Colour every pixel with a triangle; `seen` gets its kind. `brow`: row of numbers, see scene.Brows."""
    height, width = triangle.shape
    colour, light = np.empty(3, np.float32), np.empty(3, np.float32)
    map_side = shadow_depth.shape[0]
    for y in range(height):
        for x in range(width):
            number = triangle[y, x]
            if number < 0:
                continue
            a, b, c = corners[number]
            wa, wb, wc = weights[y, x]
            kind = kinds[number]
            seen[y, x] = kind
            nx = normal[a, 0] * wa + normal[b, 0] * wb + normal[c, 0] * wc
            ny = normal[a, 1] * wa + normal[b, 1] * wb + normal[c, 1] * wc
            nz = normal[a, 2] * wa + normal[b, 2] * wb + normal[c, 2] * wc
            length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
            nx, ny, nz = nx / length, ny / length, nz / length
            if nz > 0.0:
                nx, ny, nz = -nx, -ny, -nz
            px = place[a, 0] * wa + place[b, 0] * wb + place[c, 0] * wc
            py = place[a, 1] * wa + place[b, 1] * wb + place[c, 1] * wc
            pz = place[a, 2] * wa + place[b, 2] * wb + place[c, 2] * wc
            rx = rest[a, 0] * wa + rest[b, 0] * wb + rest[c, 0] * wc
            ry = rest[a, 1] * wa + rest[b, 1] * wb + rest[c, 1] * wc
            rz = rest[a, 2] * wa + rest[b, 2] * wb + rest[c, 2] * wc
            if kind == SKIN:
                t0, t1, t2 = uv_corners[number]
                u = uv[t0, 0] * wa + uv[t1, 0] * wb + uv[t2, 0] * wc
                v = uv[t0, 1] * wa + uv[t1, 1] * wb + uv[t2, 1] * wc
                _texture(texture, u, v, colour)
                for side in range(2):
                    hair = _brow(rx, ry, rz, side, brow)
                    for k in range(3):
                        colour[k] = colour[k] * (1.0 - hair) + brow[8 + k] * hair
            else:
                strand = 0.75 + 0.25 * np.sin(rx * 2.1 + 3.0 * np.sin(rz * 0.7)) if kind == HAIR else 1.0
                row = 0 if kind == HAIR else 1
                for k in range(3):
                    colour[k] = flat_colour[row, k] * strand
            sx = px * shadow_axes[0, 0] + py * shadow_axes[0, 1] + pz * shadow_axes[0, 2] + shadow_axes[3, 0]
            sy = px * shadow_axes[1, 0] + py * shadow_axes[1, 1] + pz * shadow_axes[1, 2] + shadow_axes[3, 1]
            sz = px * shadow_axes[2, 0] + py * shadow_axes[2, 1] + pz * shadow_axes[2, 2] + shadow_axes[3, 2]
            lit = _unshadowed(shadow_depth, map_side, sx, sy, sz, shadow_bias_mm)
            _lit(nx, ny, nz, lights, ambient, lit, 0.25 if kind == SKIN else 0.0, light)
            gloss = 0.0
            if kind == SKIN and shine > 0.0:
                away = np.sqrt(px * px + py * py + pz * pz)
                hx, hy, hz = lights[0, 0] - px / away, lights[0, 1] - py / away, lights[0, 2] - pz / away
                half = np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
                gloss = shine * lit * max(0.0, (nx * hx + ny * hy + nz * hz) / half) ** 24
            for k in range(3):
                image[y, x, k] = colour[k] * light[k] + gloss * lights[0, 3 + k]


@njit(cache=True, fastmath=True)
def _unshadowed(depth: Array, side: int, x: float, y: float, z: float, bias: float) -> float:
    """0 in shadow, 1 in light: the mean of four neighbours of the lamp's own depth picture."""
    total = 0.0
    for dy in range(2):
        for dx in range(2):
            column, row = int(x) + dx, int(y) + dy
            if 0 <= column < side and 0 <= row < side and depth[row, column] < z - bias:
                continue
            total += 0.25
    return total


@njit(cache=True, fastmath=True)
def _brow(x: float, y: float, z: float, side: int, brow: Array) -> float:
    """How much of this place of the face at rest is eyebrow, 0..1."""
    if z > 15.0:
        return 0.0
    outward = (x - brow[side]) * (-1.0 if side == 0 else 1.0)
    along = (outward - brow[2]) / brow[3]  # -1 at the nose, 1 at the temple
    if abs(along) > 1.0:
        return 0.0
    middle = brow[4] - brow[5] * (1.0 - along * along) + brow[7] * along
    thick = brow[6] * (0.55 + 0.45 * np.cos(1.2 * along - 0.3)) * np.sqrt(1.0 - along * along)
    off = abs(y - middle) / max(thick, 0.1)
    strand = 0.75 + 0.25 * np.sin(9.0 * x + 5.0 * y)
    return brow[11] * strand * min(1.0, max(0.0, 1.6 - 1.6 * off * off))


@njit(cache=True, fastmath=True)
def eyeballs(
    eyes: Array,
    focal: float,
    left: float,
    top: float,
    depth_mm: Array,
    lights: Array,
    ambient: Array,
    screen: Array,
    image: Array,
    seen: NDArray[np.uint8],
) -> None:
    """Cut each eyeball by the rays of the pixels round it, where nothing lies before it. `screen`: a bright rectangle
    beside the camera that the cornea mirrors (half width, half height as slopes, its middle's x and y, r g b)."""
    height, width = depth_mm.shape
    light, colour = np.empty(3, np.float32), np.empty(3, np.float32)
    for number in range(eyes.shape[0]):
        eye = eyes[number]
        cx, cy, cz = eye[CENTRE], eye[CENTRE + 1], eye[CENTRE + 2]
        sx, sy, sz = eye[SOCKET], eye[SOCKET + 1], eye[SOCKET + 2]
        reach = eye[SOCKET_MM] * 1.15 * focal / sz
        mx, my = sx * focal / sz - left, sy * focal / sz - top
        for y in range(max(0, int(my - reach)), min(height, int(my + reach) + 1)):
            for x in range(max(0, int(mx - reach)), min(width, int(mx + reach) + 1)):
                dx, dy = (x + 0.5 + left) / focal, (y + 0.5 + top) / focal
                length = np.sqrt(dx * dx + dy * dy + 1.0)
                dx, dy, dz = dx / length, dy / length, 1.0 / length
                at_socket = _sphere(sx, sy, sz, dx, dy, dz, eye[SOCKET_MM])
                at_ball = _sphere(cx, cy, cz, dx, dy, dz, eye[RADIUS])
                nearest = at_socket if at_socket > 0.0 else at_ball
                if at_ball > 0.0 and at_ball < nearest:
                    nearest = at_ball
                if nearest <= 0.0 or nearest * dz > depth_mm[y, x]:
                    continue
                nx, ny, nz = _iris(eye, dx, dy, dz, colour)
                if nz == 0.0:
                    if at_socket > 0.0:
                        nx = (at_socket * dx - sx) / eye[SOCKET_MM]
                        ny = (at_socket * dy - sy) / eye[SOCKET_MM]
                        nz = (at_socket * dz - sz) / eye[SOCKET_MM]
                    else:
                        nx, ny, nz = (
                            (at_ball * dx - cx) / eye[RADIUS],
                            (at_ball * dy - cy) / eye[RADIUS],
                            (at_ball * dz - cz) / eye[RADIUS],
                        )
                    _sclera(eye, nx, colour)
                _lit(nx, ny, nz, lights, ambient, 0.7, 0.5, light)
                towards = dx * nx + dy * ny + dz * nz
                rx, ry, rz = dx - 2 * towards * nx, dy - 2 * towards * ny, dz - 2 * towards * nz
                for k in range(3):
                    image[y, x, k] = colour[k] * light[k]
                for i in range(lights.shape[0]):
                    near = rx * lights[i, 0] + ry * lights[i, 1] + rz * lights[i, 2]
                    if near > 0.9:
                        for k in range(3):
                            image[y, x, k] += lights[i, 3 + k] * 1.6 * np.exp((near - 1.0) * lights[i, 6])
                if (
                    rz < -0.2
                    and abs(rx / -rz - screen[2]) < screen[0]
                    and abs(ry / -rz - screen[3]) < screen[1]
                ):
                    for k in range(3):
                        image[y, x, k] += screen[4 + k]
                seen[y, x] = EYE


@njit(cache=True, fastmath=True)
def _iris(eye: Array, dx: float, dy: float, dz: float, colour: Array) -> tuple[float, float, float]:
    """The cornea's normal and the colour behind it, or a normal of 0 where the ray meets the white instead."""
    cx, cy, cz = eye[CENTRE], eye[CENTRE + 1], eye[CENTRE + 2]
    ax, ay, az = eye[AXIS], eye[AXIS + 1], eye[AXIS + 2]
    kx, ky, kz = cx + ax * eye[CORNEA_AT_MM], cy + ay * eye[CORNEA_AT_MM], cz + az * eye[CORNEA_AT_MM]
    at = _sphere(kx, ky, kz, dx, dy, dz, eye[CORNEA_MM])
    if at <= 0.0:
        return 0.0, 0.0, 0.0
    px, py, pz = at * dx, at * dy, at * dz
    if (px - cx) * ax + (py - cy) * ay + (pz - cz) * az < eye[IRIS_AT_MM] - 0.3:
        return 0.0, 0.0, 0.0
    nx, ny, nz = (px - kx) / eye[CORNEA_MM], (py - ky) / eye[CORNEA_MM], (pz - kz) / eye[CORNEA_MM]
    cosine = -(dx * nx + dy * ny + dz * nz)
    ratio = 1.0 / INDEX_OF_REFRACTION
    inside = 1.0 - ratio * ratio * (1.0 - cosine * cosine)
    turn = ratio * cosine - np.sqrt(max(inside, 0.0))
    fx, fy, fz = ratio * dx + turn * nx, ratio * dy + turn * ny, ratio * dz + turn * nz
    deep = fx * ax + fy * ay + fz * az
    if deep > -0.05:
        return 0.0, 0.0, 0.0
    go = (eye[IRIS_AT_MM] - ((px - cx) * ax + (py - cy) * ay + (pz - cz) * az)) / deep
    qx, qy, qz = (
        px + go * fx - cx - ax * eye[IRIS_AT_MM],
        py + go * fy - cy - ay * eye[IRIS_AT_MM],
        pz + go * fz - cz - az * eye[IRIS_AT_MM],
    )
    radius = np.sqrt(qx * qx + qy * qy + qz * qz)
    if radius > eye[IRIS_MM] + 0.7:
        return 0.0, 0.0, 0.0
    angle = np.arctan2(qy, qx)
    part = min(1.0, max(0.0, (radius - eye[PUPIL_MM]) / (eye[IRIS_MM] - eye[PUPIL_MM])))
    streak = 1.0 + 0.18 * np.sin(angle * 23.0 + eye[PHASE]) * np.sin(
        angle * 7.0 - 2.0 * eye[PHASE] + 6.0 * part
    )
    ring = 1.0 - 0.5 * part**6
    black = min(1.0, max(0.0, (radius - eye[PUPIL_MM]) / 0.25))
    white = min(1.0, max(0.0, (radius - eye[IRIS_MM] + 0.4) / 1.0))
    for k in range(3):
        iris = (eye[INNER + k] * (1.0 - part) + eye[OUTER + k] * part) * streak * ring * black
        colour[k] = iris * (1.0 - white) + eye[SCLERA + k] * white + 0.004
    return nx, ny, nz


@njit(cache=True, fastmath=True)
def _sclera(eye: Array, outward: float, colour: Array) -> None:
    """White, redder toward the corners."""
    red = min(1.0, outward * outward * 1.2)
    colour[0] = eye[SCLERA]
    colour[1] = eye[SCLERA + 1] * (1.0 - 0.25 * red)
    colour[2] = eye[SCLERA + 2] * (1.0 - 0.28 * red)


def develop(linear: Array, exposure: float, gamma: float) -> NDArray[np.uint8]:
    """An 8-bit BGR picture of linear RGB light."""
    shown = np.clip(linear * exposure, 0.0, 1.0) ** (1.0 / gamma)
    return np.ascontiguousarray((shown[..., ::-1] * 255.0 + 0.5).astype(np.uint8))
