"""One picture of one head with its labels: where it sits, where it looks, how it is lit, what is before the eyes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training import expressions, eyes, lid_lines, raster, shade
from training.expressions import Expression
from training.heads import Head
from training.makehuman import CORNERS, MakeHuman
from training.sockets import seated

Array = NDArray[np.float64]
FRAME = (640, 480)
RENDER_PX = 448  # side of the window that is rendered; it covers WINDOW_MM at the head and is then shrunk
WINDOW_MM = 330.0
SHADOW_PX, SHADOW_MM = 256, 380.0
TEXTURE_PX = 512


@dataclass(frozen=True)
class Labels:
    """Degrees; `head` and `gaze` are (yaw, pitch) against the line from the camera to the head (as the
    node's own signals), `eye_px` the distance between the eyes in the frame, `lid` the share of a wide open eye."""

    head_deg: tuple[float, float]
    roll_deg: float
    gaze_deg: tuple[float, float]
    eye_px: float
    lid: float
    hard: bool
    glasses: bool


@dataclass(frozen=True)
class Pose:
    """Where head and eyes are: `turn` brings the head at rest into the camera's axes, `place_mm` is
    the middle between the eyes, from where `gaze` (a unit vector) leads to what is looked at, `distance_mm` away."""

    turn: Array
    place_mm: Array
    focal_px: float
    gaze: Array
    distance_mm: float


@dataclass(frozen=True)
class Picture:
    """`window` (RENDER_PX square, BGR), where the head is `inside` it, its `place` in the frame (left, top, side in
    pixels); `marks_px` (2 sides, 3, 2): outer corner, inner corner and middle of the iris in the frame."""

    window: NDArray[np.uint8]
    inside: NDArray[np.bool_]
    place: tuple[float, float, float]
    marks_px: Array


class Studio:
    """Renders heads; keeps what does not change between pictures. One a process."""

    def __init__(self, makehuman: MakeHuman) -> None:
        self._makehuman = makehuman
        mesh = makehuman.head
        groups = makehuman.groups
        lash = np.concatenate([groups[f"helper-{side}-eyelashes-{row}"] for side in "lr" for row in (1, 2)])
        self._skin = mesh.skin.astype(np.int32)
        self._hair, self._hair_edges = _finer(mesh.hair, len(makehuman.base_mm))
        self._lashes = makehuman.triangles_of(set(lash.tolist())).astype(np.int32)
        self._skin_uv, self._uv = mesh.skin_uv.astype(np.int32), mesh.uv.astype(np.float32)
        small = (TEXTURE_PX, TEXTURE_PX)
        self._masks = {
            name: cv2.resize(makehuman.mask(name), small, interpolation=cv2.INTER_AREA).astype(np.float32)
            / 255.0
            for name in ("lips", "eyelids", "inside-mouth")
        }
        self._buffers = raster.Buffers(RENDER_PX)
        self._lamp = raster.Buffers(SHADOW_PX)

    def texture(self, rng: Generator, head: Head) -> NDArray[np.float32]:
        """The skin's colour, linear r g b, 512 x 512."""
        african, asian, caucasian = head.identity.races
        depth = (
            african * rng.uniform(0.55, 1.0)
            + asian * rng.uniform(0.15, 0.5)
            + caucasian * rng.uniform(0.0, 0.35)
        )
        tone = np.array([0.72, 0.47, 0.34]) * (1 - depth) + np.array([0.09, 0.042, 0.022]) * depth
        tone *= rng.uniform(0.85, 1.15) * (1.0 + rng.normal(0.0, 0.04, 3))
        noise = np.zeros((TEXTURE_PX, TEXTURE_PX), np.float32)
        for cells, strength in ((8, 0.04), (40, 0.02), (170, 0.03)):
            rough = rng.normal(0.0, strength, (cells, cells)).astype(np.float32)
            noise += cv2.resize(rough, (TEXTURE_PX, TEXTURE_PX), interpolation=cv2.INTER_CUBIC)
        out = tone[None, None] * (1.0 + noise * rng.uniform(0.3, 1.5))[..., None]
        lips = tone * np.array([rng.uniform(0.8, 1.15), rng.uniform(0.45, 0.8), rng.uniform(0.5, 0.9)])
        painted = rng.random() < 0.25 * (1 - head.identity.male)
        if painted:
            lips = np.array([rng.uniform(0.2, 0.6), 0.04, 0.06])
        lid = (
            tone
            * rng.uniform(0.55, 1.05)
            * (np.array([0.7, 0.5, 0.5]) * rng.uniform(0.25, 1.0) if painted and rng.random() < 0.6 else 1.0)
        )
        for name, colour in (("lips", lips), ("eyelids", lid), ("inside-mouth", tone * [0.5, 0.2, 0.2])):
            part = self._masks[name][..., None] * (0.9 if name != "eyelids" else rng.uniform(0.2, 0.9))
            out = out * (1.0 - part) + np.asarray(colour) * part
        return np.clip(out, 0.004, 1.0).astype(np.float32)

    def take(
        self,
        rng: Generator,
        head: Head,
        pair: eyes.Eyes,
        texture: NDArray[np.float32],
        pose: Pose,
        expression: Expression,
    ) -> Picture:
        """A head as the camera sees it."""
        axes = [_axis(pose, pair, head, side) for side in (0, 1)]
        in_head = pose.turn.T @ axes[0]
        follow = pair.lids_follow * float(np.arctan2(-in_head[1], np.hypot(in_head[0], in_head[2])))
        face = expressions.applied(head, self._makehuman, expression, follow, pair.lid_edges_mm(head))
        shown = self._with_hair(seated(face, head, pair))
        points = (shown @ pose.turn.T + pose.place_mm).astype(np.float32)
        rows = np.stack([pair.row(head, side, axes[side], pose.turn, pose.place_mm) for side in (0, 1)])
        side_px = pose.focal_px * WINDOW_MM / pose.place_mm[2]
        middle_x = pose.focal_px * pose.place_mm[0] / pose.place_mm[2] + FRAME[0] / 2
        middle_y = pose.focal_px * (pose.place_mm[1] + 15.0) / pose.place_mm[2] + FRAME[1] / 2
        left, top = round(middle_x - side_px / 2), round(middle_y - side_px / 2)
        side_px = float(round(side_px))
        zoom = RENDER_PX / side_px
        focal = pose.focal_px * zoom
        image, seen = self._render(
            rng,
            points,
            rows,
            pair,
            texture,
            focal,
            (left - FRAME[0] / 2) * zoom,
            (top - FRAME[1] / 2) * zoom,
            head,
        )
        marks = np.stack(
            [np.concatenate([points[list(CORNERS[side])], _iris(rows[side])[None]]) for side in (0, 1)]
        )
        marks_px = pose.focal_px * marks[..., :2] / marks[..., 2:] + np.array(FRAME) / 2
        return Picture(image, seen > 0, (left, top, side_px), marks_px)

    def _render(
        self,
        rng: Generator,
        points: NDArray[np.float32],
        rows: NDArray[np.float32],
        pair: eyes.Eyes,
        texture: NDArray[np.float32],
        focal: float,
        left: float,
        top: float,
        head: Head,
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        rest = self._with_hair(head.vertices_mm)
        parts = [(self._skin, shade.SKIN, True)]
        if rng.random() < 0.65:
            parts.append((self._cut(rng, rest), shade.HAIR, False))
        # MakeHuman's lashes are broad bands, and its eyes turn about a middle that lies deeper than a person's: by the
        # bands a network can tell which of the two it sees.
        if pair.style == "makehuman":
            parts.append((self._lashes, shade.LASH, False))
        corners = np.concatenate([part[0] for part in parts])
        kinds = np.concatenate([np.full(len(part[0]), part[1], np.uint8) for part in parts])
        buffers = self._buffers
        buffers.clear()
        seen_at = raster.project(points, focal, left, top)
        first = 0
        for triangles, _, cull in parts:
            raster.rasterise(
                seen_at, triangles, first, cull, buffers.depth_mm, buffers.triangle, buffers.weights
            )
            first += len(triangles)
        lights, ambient = _lights(rng)
        shadow_axes = self._shadow(points, lights[0, :3])
        normal = raster.normals(points, corners)
        image = np.zeros((RENDER_PX, RENDER_PX, 3), np.float32)
        seen = np.zeros((RENDER_PX, RENDER_PX), np.uint8)
        hair_colour = _hair_colour(rng, head)
        lash_colour = np.full(3, rng.uniform(0.005, 0.03))
        shade.surfaces(
            buffers.triangle, buffers.weights, corners, kinds, self._skin_uv, self._uv, normal, points,
            rest.astype(np.float32), texture, np.stack([hair_colour, lash_colour]).astype(np.float32), lights, ambient,
            float(rng.uniform(0.0, 0.25)), self._lamp.depth_mm, shadow_axes, 4.0, _brows(rng, head, hair_colour), image,
            seen,
        )  # fmt: skip
        shade.eyeballs(rows, focal, left, top, buffers.depth_mm, lights, ambient, _screen(rng), image, seen)
        lid_lines.folds(rows, focal, left, top, image, seen)
        lid_lines.lids_and_lashes(rows, focal, left, top, image, seen)
        lid_lines.liner(rows, focal, left, top, image, seen)
        face = image[seen == shade.SKIN]
        bright = float(np.median(face.mean(axis=1))) if len(face) else 0.2
        # A camera exposes so that a face is somewhere in the middle; dark skin is left darker, as cameras do.
        exposure = rng.uniform(0.12, 0.42) * (bright / 0.25) ** 0.35 / max(bright, 1e-3)
        return shade.develop(image, exposure, float(rng.uniform(1.9, 2.4))), seen

    def _with_hair(self, vertices: Array) -> Array:
        """Vertices and those between them that finer hair has."""
        for edges in self._hair_edges:
            vertices = np.concatenate([vertices, vertices[edges].mean(axis=1)])
        return vertices

    def _cut(self, rng: Generator, rest: Array) -> NDArray[np.int32]:
        """Hair that leaves the face free, cut off at some length."""
        middle = rest[self._hair].mean(axis=1)
        fringe_mm, length_mm = -rng.uniform(35, 65), rng.choice([-10.0, 30.0, 90.0, 200.0])
        strands = rng.normal(0.0, 2.0, len(middle))
        before_face = (
            (middle[:, 1] + strands > fringe_mm)
            & (np.abs(middle[:, 0]) + strands < 68.0)
            & (middle[:, 2] < 50.0)
        )
        return self._hair[~before_face & (middle[:, 1] + 3.0 * strands < length_mm)]

    def _shadow(self, points: NDArray[np.float32], towards: NDArray[np.float32]) -> NDArray[np.float32]:
        """The lamp's own depth picture; returns its axes (rows x, y, depth) and shift."""
        away = -towards.astype(np.float64)
        across = np.cross([0.0, 1.0, 0.0], away)
        across /= max(np.linalg.norm(across), 1e-6)
        down = np.cross(away, across)
        scale = SHADOW_PX / SHADOW_MM
        axes = np.stack([across * scale, down * scale, away])
        middle = points[self._skin].reshape(-1, 3).mean(axis=0)
        shift = np.array([SHADOW_PX / 2, SHADOW_PX / 2, 1000.0]) - axes @ middle
        flat = (points @ axes.T.astype(np.float32) + shift.astype(np.float32)).astype(np.float32)
        lamp = self._lamp
        lamp.clear()
        raster.rasterise(flat, self._skin, 0, False, lamp.depth_mm, lamp.triangle, lamp.weights)
        return np.concatenate([axes, shift[None]]).astype(np.float32)


def _finer(triangles: NDArray[np.int64], vertices: int) -> tuple[NDArray[np.int32], list[NDArray[np.int64]]]:
    """The same surface in 64 triangles for each, so that hair can be cut in strands; and for each of three steps the
    edges (M, 2) whose middles are new vertices, numbered from `vertices` on."""
    steps = []
    for _ in range(3):
        corners = np.stack([triangles, np.roll(triangles, -1, axis=1)], axis=2)
        edges, at = np.unique(np.sort(corners.reshape(-1, 2), axis=1), axis=0, return_inverse=True)
        between = at.reshape(-1, 3) + vertices
        (a, b, c), (ab, bc, ca) = triangles.T, between.T
        parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        triangles = np.concatenate([np.stack(part, axis=1) for part in parts])
        steps.append(edges)
        vertices += len(edges)
    return triangles.astype(np.int32), steps


def _axis(pose: Pose, pair: eyes.Eyes, head: Head, side: int) -> Array:
    """Where an eye's axis points when its line of sight meets what is looked at."""
    middle = pose.turn @ np.zeros(3) + pose.place_mm
    target = middle + pose.gaze * pose.distance_mm
    own = pose.turn @ head.eyes_mm[side] + pose.place_mm
    sight = target - own if pair.style == "person" else pose.gaze
    in_head = pose.turn.T @ (sight / np.linalg.norm(sight))
    yaw = np.arctan2(in_head[0], -in_head[2]) + (-pair.kappa_rad if side == 0 else pair.kappa_rad)
    pitch = np.arctan2(-in_head[1], np.hypot(in_head[0], in_head[2])) - pair.kappa_up_rad
    return pose.turn @ direction(float(yaw), float(pitch))


def _iris(row: NDArray[np.float32]) -> NDArray[np.float32]:
    """Middle of the iris (3,) of an eyeball's row."""
    axis = row[shade.AXIS : shade.AXIS + 3]
    return np.asarray(row[shade.CENTRE : shade.CENTRE + 3] + axis * row[shade.IRIS_AT_MM])


def direction(yaw: float, pitch: float) -> Array:
    """Unit vector of angles in radians: x right, y down, z away from the camera."""
    return np.array([np.sin(yaw) * np.cos(pitch), -np.sin(pitch), -np.cos(yaw) * np.cos(pitch)])


def _lights(rng: Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lamps: direction, colour, and how sharp their reflection in the eye is; the first casts a shadow."""
    lamps = []
    for number in range(int(rng.integers(1, 4))):
        yaw, pitch = rng.uniform(-1.9, 1.9), rng.uniform(-0.2, 1.4)
        warm = rng.uniform(-0.2, 0.2)
        power = rng.uniform(0.2, 1.1) * (1.0 if number == 0 else 0.6)
        colour = power * np.array([1 + warm, 1.0, 1 - warm])
        lamps.append([*direction(yaw, pitch), *colour, 10 ** rng.uniform(2.3, 4.0)])
    sky = rng.uniform(0.1, 0.6) * (1.0 + rng.normal(0, 0.06, 3))
    ground = sky * rng.uniform(0.3, 0.9) * (1.0 + rng.normal(0, 0.06, 3))
    return np.array(lamps, np.float32), np.array([sky, ground], np.float32)


def _screen(rng: Generator) -> NDArray[np.float32]:
    """The monitor that a candidate faces, as a bright rectangle round the camera or below it."""
    bright = 10 ** rng.uniform(-2.0, -0.2) if rng.random() < 0.55 else 0.0
    return np.array(
        [
            rng.uniform(0.05, 0.5),
            rng.uniform(0.05, 0.35),
            rng.normal(0, 0.35),
            rng.uniform(-0.5, 0.5),
            bright,
            bright,
            bright * 1.1,
        ],
        np.float32,
    )


def _hair_colour(rng: Generator, head: Head) -> Array:
    grey = head.identity.ages[2] * rng.random() > 0.45
    base = rng.choice([0.012, 0.03, 0.07, 0.2, 0.35], p=[0.4, 0.25, 0.15, 0.1, 0.1])
    tint = np.array([1.0, 1.0, 1.0]) * 2.0 if grey else np.array([1.0, 0.7, 0.45])
    return np.clip(base * tint, 0.0, 0.6)


def _brows(rng: Generator, head: Head, colour: Array) -> NDArray[np.float32]:
    """Numbers for `shade._brow`: the eyes' x, where the brow's middle lies outward, half its length, its height over
    the eye, its arch, half its thickness, its slant, its colour and strength."""
    strength = rng.uniform(0.3, 0.95)
    return np.array(
        [
            head.eyes_mm[0, 0], head.eyes_mm[1, 0], rng.uniform(-2, 4), rng.uniform(20, 26), -rng.uniform(17, 23),
            rng.uniform(0, 6), rng.uniform(1.5, 5.0), rng.uniform(-2, 2), *colour * rng.uniform(0.4, 1.0), strength,
        ],
        np.float32,
    )  # fmt: skip
