"""A video file that behaves like a camera: real time, endless, jitter-free, frames lost by a slow reader.

Position follows the clock, not the reads: several clips stay in step and a stall costs one pass of decoding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from appliance.camera.source import Frame
from appliance.clock import Clock
from appliance.errors import BadInput, CameraUnavailable

HINT = "give a video file that ffprobe can read"


class ClipSource:
    """Plays `path` from `start_s` at `frame_rate_hz`, repeating or leaving out pictures by time.

    A rate of 0 keeps the clip's own. Another shape than width x height gets black borders.
    `sleep` is time.sleep except in tests.
    """

    def __init__(
        self,
        path: Path,
        width_px: int,
        height_px: int,
        frame_rate_hz: float,
        clock: Clock,
        start_s: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.description = f"clip {path.name}"
        self.dropped_frames = 0
        self._path = path
        self._size = (width_px, height_px)
        self._rate_hz = frame_rate_hz
        self._clock = clock
        self._start_s = start_s
        self._sleep = sleep
        self._reformatter = VideoReformatter()
        self._container: InputContainer | None = None

    @classmethod
    def from_spec(
        cls, place: str, width_px: int, height_px: int, frame_rate_hz: float, clock: Clock
    ) -> ClipSource:
        """From the part behind `clip:`; raises BadInput for an option that is not `start_s=<seconds>`."""
        path, _, query = place.partition("?")
        try:
            options = parse_qs(query, strict_parsing=True, max_num_fields=1) if query else {}
            start_s = float(options.pop("start_s", ["0"])[0])
        except ValueError:
            raise BadInput(
                f"clip option cannot be read: {query}", "the option is start_s=<seconds>"
            ) from None
        if options or not 0 <= start_s < math.inf:
            raise BadInput(f"clip option cannot be used: {query}", "the option is start_s=<seconds>")
        return cls(Path(path), width_px, height_px, frame_rate_hz, clock, start_s)

    def open(self) -> None:
        """Begin to play now; raises BadInput for a file that is no video or shorter than `start_s`."""
        self._load()
        if not self._length_s or not self._stream.average_rate:
            self.close()
            raise BadInput(f"clip has no known length: {self._path}", HINT)
        if self._start_s >= self._length_s:
            self.close()
            raise BadInput(
                f"clip is only {self._length_s:.1f} s long: {self._path}", "choose a smaller start_s"
            )
        if self._rate_hz == 0:
            self._rate_hz = float(self._stream.average_rate)
        self._started_mono_ns = self._clock.mono_ns()
        self._next_tick = 0

    def read(self, timeout_s: float) -> Frame | None:
        if self._container is None:
            raise CameraUnavailable(f"{self.description} is not open", "open it first")
        tick = self._next_tick
        wait_s = (self._due_mono_ns(tick) - self._clock.mono_ns()) / 1e9
        if wait_s > timeout_s:
            self._sleep(timeout_s)
            return None
        if wait_s > 0:
            self._sleep(wait_s)
        elapsed_s = (self._clock.mono_ns() - self._started_mono_ns) / 1e9
        newest = max(tick, int(elapsed_s * self._rate_hz))
        self.dropped_frames += newest - tick
        self._next_tick = newest + 1
        return Frame(self._due_mono_ns(newest), newest + 1, self._picture_at(newest))

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _due_mono_ns(self, tick: int) -> int:
        return self._started_mono_ns + round(tick * 1e9 / self._rate_hz)

    def _load(self) -> None:
        self.close()
        try:
            self._container = av.open(str(self._path), "r")
            self._stream: VideoStream = self._container.streams.video[0]
        except (av.FFmpegError, IndexError) as error:
            self.close()
            raise BadInput(f"clip cannot be read: {self._path}", HINT) from error
        self._stream.thread_type = "NONE"
        # Matroska tells the length of the file only, in microseconds.
        duration, base = self._stream.duration, self._stream.time_base
        whole_s = (self._container.duration or 0) / 1e6
        self._length_s = float(duration * base) if duration and base else whole_s
        self._begin_pass(0)

    def _begin_pass(self, number: int) -> None:
        assert self._container is not None  # noqa: S101
        if number:
            self._container.seek(0, backward=True)
        self._pass = number
        self._decoded = self._container.decode(self._stream)
        self._shown: VideoFrame | None = None
        self._scaled: VideoFrame | None = None
        self._coming: VideoFrame | None = self._decode()

    def _decode(self) -> VideoFrame | None:
        try:
            return next(self._decoded, None)
        except av.FFmpegError as error:
            raise CameraUnavailable(f"clip is damaged: {self._path}", HINT) from error

    def _picture_at(self, tick: int) -> VideoFrame:
        """The picture on show at `tick`, decoding forward from the last one or from a new pass."""
        number, place_s = divmod(self._start_s + tick / self._rate_hz, self._length_s)
        if number != self._pass:
            self._begin_pass(int(number))
        while self._coming is not None and (self._shown is None or self._coming.time <= place_s + 1e-6):
            self._shown, self._scaled = self._coming, None
            self._coming = self._decode()
        if self._shown is None:
            raise CameraUnavailable(f"clip holds no picture: {self._path}", HINT)
        if self._scaled is None:
            self._scaled = self._scale(self._shown)
        return self._scaled

    def _scale(self, picture: VideoFrame) -> VideoFrame:
        width_px, height_px = self._size
        zoom = min(width_px / picture.width, height_px / picture.height)
        inner_width_px = min(width_px, round(picture.width * zoom / 2) * 2)
        inner_height_px = min(height_px, round(picture.height * zoom / 2) * 2)
        scaled = self._reformatter.reformat(
            picture,
            inner_width_px,
            inner_height_px,
            "yuv420p",
            interpolation=Interpolation.FAST_BILINEAR,
            threads=1,
        )
        if (inner_width_px, inner_height_px) == self._size:
            return scaled
        # Planes lie one behind the other: Y at full size, U and V at half; black is 16, 128, 128.
        flat = np.full(height_px * width_px * 3 // 2, 128, np.uint8)
        flat[: height_px * width_px] = 16
        inner = scaled.to_ndarray().reshape(-1)
        left_px, top_px = (width_px - inner_width_px) // 4 * 2, (height_px - inner_height_px) // 4 * 2
        at = inner_at = 0
        for step in (1, 2, 2):
            rows, columns = height_px // step, width_px // step
            inner_rows, inner_columns = inner_height_px // step, inner_width_px // step
            plane = flat[at : at + rows * columns].reshape(rows, columns)
            part = inner[inner_at : inner_at + inner_rows * inner_columns]
            plane[top_px // step :, left_px // step :][:inner_rows, :inner_columns] = part.reshape(
                inner_rows, inner_columns
            )
            at += plane.size
            inner_at += part.size
        return VideoFrame.from_numpy_buffer(flat.reshape(-1, width_px), format="yuv420p")
