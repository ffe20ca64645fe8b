"""`python -m bench.view ../shared/data`: how often a camera that stands is taken for moved, and a moved one noticed.

Each photo is the background of a drawn desk: a head and shoulders out of another photo before it, light, people and
camera moved by known amounts, a sensor's noise. No person, no real knock: what is counted are looks of drawn scenes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.inference.inspect import read_picture
from appliance.inference.landmarks import Box
from appliance.inference.view import CameraView, Stand
from appliance.one_thread import stay_in_one_thread
from appliance.picture_quality import assess, is_same

Image = NDArray[np.uint8]
Shot = tuple[Image, Box | None]
Scene = Callable[[Image, Image], Iterator[Shot]]

WIDTH_PX, HEIGHT_PX = 640, 360
LOOKS = 40
MOVES_AT = 10
SOURCE = np.random.default_rng(5)
NOISE = [np.round(SOURCE.standard_normal((HEIGHT_PX, WIDTH_PX, 3)) * 1.5).astype(np.int16) for _ in range(9)]


def background(photo: Image, right: float = 0.0, down: float = 0.0, roll_deg: float = 0.0) -> Image:
    """What a camera sees that was turned by shares of its picture, and rolled."""
    height, width = photo.shape[:2]
    way = cv2.getRotationMatrix2D((width / 2, height / 2), roll_deg, 0.75)
    way[:, 2] += (WIDTH_PX * (0.5 - right) - width / 2, HEIGHT_PX * (0.5 - down) - height / 2)
    seen = cv2.warpAffine(
        photo, way, (WIDTH_PX, HEIGHT_PX), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(seen, np.uint8)


def seated(scene: Image, person: Image, across: float, up: float = 0.0, size: float = 1.1) -> Shot:
    """A head and shoulders out of `person` before it, in the middle at 0, and where the face is."""
    cut = cv2.resize(person, (round(480 * size), round(270 * size)))
    height, width = cut.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(
        mask,
        (width // 2, round(0.35 * height)),
        (round(0.16 * width), round(0.33 * height)),
        0,
        0,
        360,
        1,
        -1,
    )
    cv2.ellipse(mask, (width // 2, height), (round(0.33 * width), round(0.38 * height)), 0, 0, 360, 1, -1)
    middle, eyes = WIDTH_PX * (0.5 + across), HEIGHT_PX * (0.5 - up)
    left, top = round(middle - width / 2), round(eyes - 0.35 * height)
    whole = scene.copy()
    if not -width < left < WIDTH_PX:
        return whole, None
    x, y = (
        slice(max(0, left), max(0, min(WIDTH_PX, left + width))),
        slice(max(0, top), min(HEIGHT_PX, top + height)),
    )
    part = mask[y.start - top : y.stop - top, x.start - left : x.stop - left] > 0
    whole[y, x][part] = cut[y.start - top : y.stop - top, x.start - left : x.stop - left][part]
    return whole, (middle - 0.13 * width, eyes - 0.25 * height, middle + 0.13 * width, eyes + 0.25 * height)


def sits(photo: Image, person: Image) -> Iterator[Shot]:
    """Sways, leans to and fro; the face is lost half of the time."""
    for look in range(LOOKS):
        shot, face = seated(
            background(photo),
            person,
            0.1 * np.sin(look / 3),
            0.05 * np.sin(look / 2),
            1 + 0.25 * np.sin(look / 5),
        )
        yield shot, face if look % 8 < 4 else None


def leaves_and_another_comes(photo: Image, person: Image) -> Iterator[Shot]:
    for look in range(LOOKS):
        across = 0.005 * np.sin(look) if not 12 <= look < 28 else 0.25 * (look - 11)
        shot, face = seated(background(photo), person, across, 0.0, 1.2 if look < 20 else 1.0)
        yield shot, face if abs(across) < 0.1 else None


def walks_past(photo: Image, person: Image) -> Iterator[Shot]:
    """A large second person behind, for ten seconds."""
    for look in range(LOOKS):
        behind, _ = seated(background(photo), person[:, ::-1], 0.07 * (look - 20), 0.1, 1.8)
        yield seated(behind, person, 0.005 * np.sin(look))


def light(photo: Image, person: Image) -> Iterator[Shot]:
    """Switched, dimmed, from one side, and steps of exposure."""
    aside = np.linspace(0.4, 1.5, WIDTH_PX)[None, :, None]
    for look in range(LOOKS):
        shot, face = seated(background(photo), person, 0.005 * np.sin(look))
        gain = (1.0, 0.45, 1.0, 1.8, aside, 1.0, 0.6, 1.4)[look // 5]
        yield np.clip(shot * gain, 0, 255).astype(np.uint8), face


def before_the_lens(photo: Image, person: Image) -> Iterator[Shot]:
    """Something with edges hides three quarters of the picture for eight seconds and hardly moves."""
    for look in range(LOOKS):
        shot = background(photo)
        if 10 <= look < 26:
            shot[:, 80:560] = background(person, 0.3 + 0.05 * np.sin(1.3 * look))[:, 80:560]
        yield shot, None


def turned(right: float = 0.0, down: float = 0.0, roll_deg: float = 0.0) -> Scene:
    def scene(photo: Image, person: Image) -> Iterator[Shot]:
        for look in range(2 * MOVES_AT):
            by = float(look >= MOVES_AT)
            shot, face = seated(
                background(photo, by * right, by * down, by * roll_deg),
                person,
                0.01 * np.sin(look) - by * right,
                by * down,
            )
            yield shot, face if abs(by * right) < 0.3 and abs(by * down) < 0.2 else None

    return scene


def stands(scene: Iterator[Shot]) -> list[Stand | None]:
    """What each look says, half a second apart; None where light or focus forbid one."""
    view = CameraView()
    told: list[Stand | None] = []
    for shot, face in scene:
        picture = np.clip(shot + NOISE[SOURCE.integers(len(NOISE))], 0, 255).astype(np.uint8)
        told.append(view.look(picture, face) if assess(picture, face) == "good" else None)
    return told


def main(folder: Path) -> None:
    stay_in_one_thread()
    files = sorted((folder / "images").iterdir())
    photos = [np.asarray(cv2.resize(read_picture(file), (1920, 1080)), np.uint8) for file in files]
    faces = [photo for file, photo in zip(files, photos, strict=True) if file.name.startswith("vh_")]
    pairs = [(photo, faces[number % len(faces)]) for number, photo in enumerate(photos)]
    for still in (sits, leaves_and_another_comes, walks_past, light, before_the_lens):
        looks = [stand for pair in pairs for stand in stands(still(*pair))]
        told = sum(stand is not None and stand.moved is not None for stand in looks)
        moved = sum(stand is not None and stand.moved is True for stand in looks)
        print(
            f"{still.__name__:26} {moved} of {len(looks)} looks taken for a movement; {told} could be told",
            flush=True,
        )
    for name, scene in {
        "turned by 6 %": turned(0.06), "by 10 %": turned(0.1), "by 20 %": turned(0.2), "by 40 %": turned(0.4),
        "by 80 %": turned(0.8), "tilted by 20 %": turned(0.0, 0.2), "rolled by 10 degrees": turned(0.0, 0.0, 10.0),
        "knocked": turned(0.15, 0.05, 5.0),
    }.items():  # fmt: skip
        delays = []
        for pair in pairs:
            told_after = stands(scene(*pair))[MOVES_AT:]
            delays += [n for n, stand in enumerate(told_after) if stand is not None and stand.moved][:1]
        within = sum(delay <= 2 for delay in delays)
        print(
            f"{name:26} {within} of {len(pairs)} noticed within 1.5 s, {len(delays)} within 5 s", flush=True
        )
    view, shot = CameraView(), np.asarray(background(photos[0]), np.uint8)
    begun_ns = time.process_time_ns()
    for _ in range(200):
        view.look(shot, (280.0, 100.0, 360.0, 220.0))
        is_same(shot, shot.copy())
    print(f"CPU of one look            {(time.process_time_ns() - begun_ns) / 200e3:.0f} us")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
