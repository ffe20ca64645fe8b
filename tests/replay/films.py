"""The scenes that are recorded: published clips and rendered heads, cut together, spoiled and moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np

from appliance.inference.inspect import IMAGE_SUFFIXES, clip_frames, read_picture
from tests.scenes import Image, covered, dimmed, filmed

ROOT = Path(__file__).resolve().parents[2]
CLIPS = ROOT / "build" / "clips"
RENDERS = ROOT.parent / "shared" / "data" / "renders" / "images"
RATE_HZ = 15
WIDTH_PX, HEIGHT_PX = 640, 360

# Takes a frame and the seconds since its part began.
Treatment = Callable[[Image, float], Image]


@dataclass(frozen=True)
class Part:
    """So many seconds of a clip (again from its start where it is shorter) or of a picture."""

    source: Path
    seconds: float
    treatment: Treatment | None = None


def _side_by_side(frame: Image, _: float) -> Image:
    return np.concatenate([frame[:, WIDTH_PX // 4 : 3 * WIDTH_PX // 4]] * 2, axis=1)


def _held(frame: Image, time_s: float) -> Image:
    """With a sensor's noise, which is the same each time that the film is recorded."""
    return filmed(frame, source=np.random.default_rng(round(time_s * 1000)))


def _covered(frame: Image, time_s: float) -> Image:
    return _held(covered(frame), time_s)


def _dark(frame: Image, time_s: float) -> Image:
    return _held(dimmed(frame, 0.06), time_s)


def _out_of_focus(frame: Image, _: float) -> Image:
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), WIDTH_PX / 100), np.uint8)


def _shifted(frame: Image, right_px: float) -> Image:
    moved = np.array([[1.0, 0.0, right_px], [0.0, 1.0, 0.0]])
    return np.asarray(
        cv2.warpAffine(frame, moved, (WIDTH_PX, HEIGHT_PX), borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


def _turned(frame: Image, time_s: float, until_s: float = 99.0) -> Image:
    """The camera is turned by a quarter of its picture within 0.3 s; `until_s` it is turned back at once."""
    if time_s > until_s:
        return _held(frame, time_s)
    right_px = min(1.0, time_s / 0.3) * 0.25 * WIDTH_PX
    moved = np.array([[1.0, 0.0, right_px], [0.0, 1.0, 0.0]])
    view = cv2.warpAffine(frame, moved, (WIDTH_PX, HEIGHT_PX), borderMode=cv2.BORDER_REFLECT)
    return _held(np.asarray(view, np.uint8), time_s)


def _hangs(frame: Image, time_s: float, until_s: float) -> Image:
    """The same picture until then."""
    return _held(_first(STILL), 0.0) if time_s < until_s else _held(frame, time_s)


def _leans_out(frame: Image, time_s: float, away_s: float) -> Image:
    """Slides out to the right within 1.5 s, is away, slides back as fast."""
    share = min(time_s / 1.5, (3.0 + away_s - time_s) / 1.5, 1.0)
    return _held(_shifted(frame, max(0.0, share) * 0.8 * WIDTH_PX), time_s)


def _on_hand(frame: Image, time_s: float) -> Image:
    """The picture tilted by 25 degrees, and something of a hand's colour before cheek and chin."""
    tilt = cv2.getRotationMatrix2D((WIDTH_PX / 2, HEIGHT_PX / 2), 25.0 * min(1.0, time_s), 1.0)
    tilted = cv2.warpAffine(frame, tilt, (WIDTH_PX, HEIGHT_PX), borderMode=cv2.BORDER_REPLICATE)
    if time_s > 1.0:
        cv2.ellipse(
            tilted, (WIDTH_PX // 2 + 60, HEIGHT_PX * 3 // 4), (60, 90), 20, 0, 360, (120, 140, 190), -1
        )
    return _held(np.asarray(tilted, np.uint8), time_s)


STILL, MOVES, EMPTY = (CLIPS / f"{name}.mp4" for name in ("single_face", "WolfgangLanger_Pexels", "no_face"))


def _head(number: int, seconds: float) -> Part:
    return Part(RENDERS / f"p{number:03d}.jpg", seconds, _held)


FILMS: dict[str, list[Part]] = {
    "person_sits_still": [Part(STILL, 30)],
    "person_moves": [Part(MOVES, 19.6)],
    "empty_scene": [Part(EMPTY, 40)],
    "leaves_for_40_s": [Part(STILL, 20), Part(EMPTY, 7), Part(STILL, 10), Part(EMPTY, 40), Part(STILL, 10)],
    "second_person": [
        Part(STILL, 10),
        Part(STILL, 3, _side_by_side),
        Part(STILL, 10),
        Part(STILL, 8, _side_by_side),
        Part(STILL, 10),
    ],
    "lens_covered_dark_and_out_of_focus": [
        Part(STILL, 10),
        Part(STILL, 2, _covered),
        Part(STILL, 5),
        Part(STILL, 8, _covered),
        Part(STILL, 5),
        Part(EMPTY, 30, _dark),
        Part(STILL, 5),
        Part(STILL, 7, _out_of_focus),
        Part(STILL, 5),
        Part(STILL, 15, _out_of_focus),
        Part(STILL, 5),
    ],
    "leans_out_of_view": [
        Part(STILL, 10),
        Part(STILL, 9, partial(_leans_out, away_s=6.0)),
        Part(STILL, 10),
        Part(STILL, 33, partial(_leans_out, away_s=30.0)),
        Part(STILL, 10),
    ],
    "camera_is_turned_and_hangs": [
        Part(STILL, 10),
        Part(STILL, 8, partial(_turned, until_s=1.2)),
        Part(STILL, 20, _turned),
        Part(STILL, 10),
        Part(STILL, 10, partial(_hangs, until_s=1.2)),
        Part(STILL, 20, partial(_hangs, until_s=15.0)),
        Part(STILL, 5),
    ],
    "rests_head_on_hand": [Part(STILL, 10), Part(STILL, 40, _on_hand), Part(STILL, 5)],
    "rendered_heads_look_aside": [
        _head(12, 20), _head(33, 3), _head(12, 10), _head(33, 8), _head(12, 10), _head(29, 3), _head(12, 5),
        _head(29, 8), _head(12, 5), _head(16, 8), _head(12, 5), _head(32, 8), _head(12, 5),
    ],
}  # fmt: skip
# From one clip to the next everything moves, as when a camera is turned; here nobody turns one.
CUT_TOGETHER = frozenset(FILMS) - {"person_sits_still", "person_moves", "camera_is_turned_and_hangs"}


def of_clip(path: Path) -> list[Part]:
    """A clip of one's own, once."""
    return [Part(path, len(_frames(path)) / RATE_HZ)]


def missing(film: list[Part]) -> list[Path]:
    """Sources that are not on this machine."""
    return sorted({part.source for part in film if not part.source.exists()})


def frames(film: list[Part]) -> Iterator[Image]:
    """The film at RATE_HZ, H x W x 3 BGR."""
    for part in film:
        pictures = _frames(part.source)
        for number in range(round(part.seconds * RATE_HZ)):
            picture = pictures[number % len(pictures)]
            yield picture if part.treatment is None else part.treatment(picture, number / RATE_HZ)


def _first(source: Path) -> Image:
    return _frames(source)[0]


@lru_cache(maxsize=4)
def _frames(source: Path) -> list[Image]:
    """All pictures at RATE_HZ; a clip's are brought to one size, as the camera's are."""
    if source.suffix.lower() in IMAGE_SUFFIXES:
        return [read_picture(source)]
    taken: list[Image] = []
    for time_s, frame in clip_frames(source):
        if time_s * RATE_HZ >= len(taken) - 1e-3:
            taken.append(
                np.asarray(cv2.resize(frame, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA), np.uint8)
            )
    return taken
