"""Draws pictures and turns them into what the network learns from: crops as a desk would cut them, and true angles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from appliance.inference.eye_crops import CORNERS, CROP_MM, CROP_PX, EyeCrops, cut_eyes
from appliance.inference.head_pose import Shape, cut_face, pixels_per_mm, shape_of
from appliance.inference.interpreter import Network
from appliance.inference.landmarks import Region, eye_line_rad, find_landmarks, region_of_points
from appliance.one_thread import stay_in_one_thread
from training import expressions, eyes, heads, scene
from training.makehuman import MakeHuman
from training.spoil import spoil, wear_glasses

PICTURES_OF_ONE = 8  # of one identity, each with another pose, light and gaze
FRAMES_OF_ONE = 2  # of one picture, each at another size and spoiled in another way
PRESENCE = 0.5
# The landmark network places a drawn person's eyes 1.3 mm too high or too low (one deviation), people's 0.7 mm, by the
# measure of `likeness.py`: crops of drawn ones move by half of that, so that where an eye lies in its crop says as much
# as on people. To the side it is about 1 mm on both.
STEADIED = 0.5
# How far eyes turn to a side, up and down. A person's lids go with them; behind MakeHuman's, which need not, more would
# hide the iris.
REACH_DEG: dict[eyes.Style, tuple[float, float, float]] = {
    "person": (36.0, 26.0, 32.0),
    "makehuman": (31.0, 16.0, 16.0),
}


@dataclass(frozen=True)
class Sample:
    """What the two networks are shown of one frame, and what was drawn; `marks` (2, 3, 2): outer corner, inner corner
    and middle of the iris in pixels of each crop, across and down."""

    crops: EyeCrops
    marks: NDArray[np.float32]
    shape: Shape
    eye_line_deg: float
    face: NDArray[np.float32]
    labels: scene.Labels
    group: tuple[str, str, str]
    style: str


@dataclass(frozen=True)
class Frame:
    """A frame (480 x 640 x 3 BGR) with roughly where the face is, and what was drawn."""

    pixels: NDArray[np.uint8]
    region: Region
    labels: scene.Labels
    marks_px: scene.Array
    head: heads.Head
    style: str


class Sampler:
    """One a process. An identity's number decides everything about it: the same numbers give the same pictures."""

    def __init__(self, makehuman: MakeHuman, landmarks: Network, seed: int) -> None:
        stay_in_one_thread()
        self._makehuman = makehuman
        self._studio = scene.Studio(makehuman)
        self._landmarks = landmarks
        self._seed = seed

    def of_identity(self, number: int) -> Iterator[Sample]:
        """All samples of one identity."""
        for frame in self.frames(number):
            sample = self._read(frame)
            if sample is not None:
                yield sample

    def frames(self, number: int) -> Iterator[Frame]:
        """Frames of one identity."""
        rng = np.random.default_rng((self._seed, number))
        head = heads.build(heads.draw(rng, self._makehuman), self._makehuman)
        texture = self._studio.texture(rng, head)
        for _ in range(PICTURES_OF_ONE):
            style: eyes.Style = "makehuman" if rng.random() < 0.4 else "person"
            pair = eyes.draw(rng, head, style)
            pose = draw_pose(rng, head, *REACH_DEG[style])
            face = expressions.draw(rng, style == "person")
            seen = self._studio.take(rng, head, pair, texture, pose, face)
            glasses = rng.random() < 0.3
            if glasses:
                wear_glasses(rng, seen.window, pose, head, seen.place, scene.RENDER_PX)
            for _ in range(FRAMES_OF_ONE):
                hard = bool(rng.random() < 0.35)
                pixels, region, eye_px = compose(rng, seen, pose, head, hard)
                labels = labels_of(pose, eye_px, face.open_share, hard, glasses)
                yield Frame(pixels, region, labels, seen.marks_px, head, style)

    def _read(self, frame: Frame) -> Sample | None:
        rough = find_landmarks(self._landmarks, frame.pixels, frame.region)
        found = find_landmarks(self._landmarks, frame.pixels, region_of_points(rough.points))
        if found.presence < PRESENCE:
            return None
        shape = shape_of(found.in_crop)
        if shape is None:
            return None
        per_mm = pixels_per_mm(shape, found)
        points = found.points
        if frame.style == "person":
            points = steadied(points, frame.marks_px)
        crops = cut_eyes(frame.pixels, points, per_mm, up_mm=0.0)
        if crops is None:
            return None
        identity = frame.head.identity
        group = (identity.race, identity.sex, identity.age)
        marks = in_crops(frame.marks_px, points, per_mm)
        roll_deg = math.degrees(shape.angle_rad + found.region.angle_rad)
        face = cut_face(found.crop, shape)
        return Sample(crops, marks, shape, roll_deg, face, frame.labels, group, frame.style)


def steadied(points: NDArray[np.float32], marks_px: scene.Array) -> NDArray[np.float32]:
    """Points (468, 3) moved up or down along the face, by STEADIED of what their corners of the eyes are off."""
    angle = eye_line_rad(points)
    down = np.array([-math.sin(angle), math.cos(angle)])
    off = (marks_px[:, :2] - points[np.array(CORNERS), :2]).mean(axis=(0, 1))
    moved = points.copy()
    moved[:, :2] += STEADIED * float(off @ down) * down
    return moved


def in_crops(marks_px: scene.Array, points: NDArray[np.float32], pixels_per_mm: float) -> NDArray[np.float32]:
    """Places of the frame (2 sides, N, 2) in the crops that `cut_eyes` makes of it."""
    angle, scale = eye_line_rad(points), CROP_MM * pixels_per_mm / CROP_PX[0]
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    found = np.empty(marks_px.shape, np.float32)
    for side, corners in enumerate(CORNERS):
        across, down = (marks_px[side] - points[list(corners), :2].mean(axis=0)).T
        along = across * cos + down * sin
        found[side, :, 0] = (CROP_PX[0] - 1) / 2 + (-along if side else along)
        found[side, :, 1] = (CROP_PX[1] - 1) / 2 - across * sin + down * cos
    return found


def draw_pose(
    rng: Generator, head: heads.Head, aside_deg: float, up_deg: float, down_deg: float
) -> scene.Pose:
    """Where the head is and what it looks at: 25 % into the lens, 45 % anywhere that the eyes reach, evenly, so that a
    network in doubt does not learn to say where the head points; else about there."""
    focal = float(704.0 if rng.random() < 0.5 else 640.0 * rng.uniform(0.8, 1.3))
    eye_px = float(np.exp(rng.uniform(np.log(40.0), np.log(112.0))))
    depth = focal * head.identity.ipd_mm / eye_px
    place = np.array([rng.uniform(-0.3, 0.3) * 640, rng.uniform(-0.28, 0.12) * 480, 0.0]) * depth / focal
    place[2] = depth
    if rng.random() < 0.35:
        yaw, pitch, roll = rng.normal(0, 9), rng.normal(0, 7), rng.normal(0, 4)
    else:
        yaw, pitch, roll = rng.uniform(-50, 50), rng.uniform(-30, 28), rng.normal(0, 8)
    turn = rotation(math.radians(yaw), math.radians(pitch), math.radians(roll))
    kind = rng.random()
    to_camera = -place / np.linalg.norm(place)
    for _ in range(50):
        if kind < 0.25:
            gaze = to_camera
        elif kind < 0.7:
            gaze = turn @ scene.direction(
                math.radians(rng.uniform(-36, 36)), math.radians(rng.uniform(-32, 26))
            )
        else:
            gaze = turn @ scene.direction(math.radians(rng.normal(0, 12)), math.radians(rng.normal(0, 8)))
        in_head = turn.T @ gaze
        across = math.degrees(math.atan2(in_head[0], -in_head[2]))
        up = math.degrees(math.atan2(-in_head[1], math.hypot(in_head[0], in_head[2])))
        if abs(across) < aside_deg and -down_deg < up < up_deg:
            break
        kind = rng.uniform(0.25, 1.0)
    return scene.Pose(turn, place, focal, gaze, float(np.exp(rng.uniform(np.log(350), np.log(3000)))))


def rotation(yaw: float, pitch: float, roll: float) -> scene.Array:
    """Turn of a head (radians): first roll in the image, then pitch up, then yaw to the right of the image."""
    cy, sy, cp, sp, cr, sr = (
        math.cos(yaw),
        math.sin(yaw),
        math.cos(pitch),
        math.sin(pitch),
        math.cos(roll),
        math.sin(roll),
    )
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def labels_of(pose: scene.Pose, eye_px: float, lid: float, hard: bool, glasses: bool) -> scene.Labels:
    """True angles against the line from the camera to the middle between the eyes."""
    aimed = aimed_at(pose.place_mm)
    turn = aimed @ pose.turn
    yaw, pitch = direction_deg(turn @ np.array([0.0, 0.0, -1.0]))
    gaze = direction_deg(aimed @ pose.gaze)
    return scene.Labels((yaw, pitch), roll_deg(turn, yaw, pitch), gaze, eye_px, lid, hard, glasses)


def direction_deg(vector: scene.Array) -> tuple[float, float]:
    """Yaw and pitch in degrees of a direction (x right, y down, z away from the camera)."""
    x, y, z = (float(part) for part in vector)
    return math.degrees(math.atan2(x, -z)), math.degrees(math.atan2(-y, math.hypot(x, z)))


def aimed_at(place: scene.Array) -> scene.Array:
    """Rotation from the camera as it hangs to one pointed at `place`, still upright."""
    x, y, z = (float(part) for part in place / np.linalg.norm(place))
    level = math.hypot(x, z)
    down = (-x * y / level, level, -y * z / level)
    return np.array([(z / level, 0.0, -x / level), down, (x, y, z)])


def roll_deg(turn: scene.Array, yaw_deg: float, pitch_deg: float) -> float:
    """Turn in the image plane that is left when yaw and pitch are taken away."""
    yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
    across = turn[:, 0]
    without_yaw_z = -math.sin(yaw) * across[0] + math.cos(yaw) * across[2]
    without_yaw_x = math.cos(yaw) * across[0] + math.sin(yaw) * across[2]
    without_pitch_y = math.cos(pitch) * across[1] - math.sin(pitch) * without_yaw_z
    return math.degrees(math.atan2(without_pitch_y, without_yaw_x))


def compose(
    rng: Generator, seen: scene.Picture, pose: scene.Pose, head: heads.Head, hard: bool
) -> tuple[NDArray[np.uint8], Region, float]:
    """The rendered window in a frame, spoiled; roughly where the face is, and the eyes' distance in pixels."""
    left, top, side = (int(part) for part in seen.place)
    frame = background(rng)
    shrunk = cv2.resize(seen.window, (side, side), interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(seen.inside.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)[..., None]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, 640), min(top + side, 480)
    part = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    under = frame[y0:y1, x0:x1]
    frame[y0:y1, x0:x1] = (shrunk[part] * alpha[part] + under * (1.0 - alpha[part])).astype(np.uint8)
    eye_px = pose.focal_px * head.identity.ipd_mm / pose.place_mm[2]
    if hard and eye_px > 30.0:
        smaller = rng.uniform(26.0 / eye_px, 1.0)
        size = (round(640 * smaller), round(480 * smaller))
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        frame = cv2.resize(small, (640, 480), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
        eye_px *= smaller
    x = pose.focal_px * pose.place_mm[0] / pose.place_mm[2] + 320.0
    y = pose.focal_px * (pose.place_mm[1] + 25.0) / pose.place_mm[2] + 240.0
    reach = pose.focal_px * 215.0 / pose.place_mm[2]
    # Nobody looks at the rest of the frame.
    near = (
        slice(max(0, int(y - 0.9 * reach)), max(8, int(y + 0.9 * reach))),
        slice(max(0, int(x - 0.9 * reach)), max(8, int(x + 0.9 * reach))),
    )
    frame[near] = spoil(rng, frame[near], hard)
    reach *= rng.uniform(0.85, 1.15)
    jitter = rng.normal(0.0, 0.04, 2) * reach
    roll = math.atan2(pose.turn[1, 0], pose.turn[0, 0]) + rng.normal(0, 0.05)
    return frame, Region(x + jitter[0], y + jitter[1], reach, roll), eye_px


def background(rng: Generator) -> NDArray[np.uint8]:
    """Anything but a face: soft patches and edges."""
    cells = int(rng.integers(2, 12))
    small = rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
    grey = small.mean(axis=2, keepdims=True)
    small = (grey + (small - grey) * rng.uniform(0, 1)).astype(np.uint8)
    how = cv2.INTER_CUBIC if rng.random() < 0.7 else cv2.INTER_NEAREST
    return cv2.resize(small, (640, 480), interpolation=how).astype(np.uint8, copy=False)
