"""A clip whose frames say by their grey which they are, and a source that plays it on a clock of the test's."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from appliance.camera.clip import ClipSource
from appliance.camera.source import Frame
from tests.manual_clock import ManualClock

CLIP_RATE_HZ = 10
CLIP_FRAMES = 20
STEP_GREY = 10


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 s at 10 frames a second, 64x36; frame k is grey 16 + 10 k."""
    path = tmp_path_factory.mktemp("clip") / "greys.mp4"
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=CLIP_RATE_HZ, options={"qp": "1", "g": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        for number in range(CLIP_FRAMES):
            planes = np.full((54, 64), 128, np.uint8)
            planes[:36] = 16 + STEP_GREY * number
            picture = VideoFrame.from_ndarray(planes, format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, CLIP_RATE_HZ)
            film.mux(stream.encode(picture))
        film.mux(stream.encode(None))
    return path


def playing(clip: Path, rate_hz: float, start_s: float = 0.0, size: tuple[int, int] = (64, 36)) -> ClipSource:
    clock = ManualClock()
    source = ClipSource(clip, *size, rate_hz, clock, start_s, sleep=clock.advance)
    source.clock = clock  # for the test to turn
    source.open()
    return source


def grey_number(frame: Frame) -> int:
    """Which of the clip's frames this is."""
    return round((float(np.mean(frame.picture.to_ndarray()[:36])) - 16) / STEP_GREY)


def read_numbers(source: ClipSource, count: int) -> list[int]:
    return [grey_number(source.read(1.0)) for _ in range(count)]
