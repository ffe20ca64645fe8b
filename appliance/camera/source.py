"""What a camera is to the rest of the appliance: `Frame`, `CameraSource`, and `open_source` from a setting.

Only the chosen back end is imported. A source is built closed; `open()` touches the sensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from appliance.clock import Clock
from appliance.errors import BadInput

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a camera, in the encoder's own format so that encoding copies nothing.

    `picture` is yuv420p, shared with whoever else holds it: `FragmentEncoder` writes its pts and picture
    type, nobody writes its pixels. `taken_mono_ns` is CLOCK_BOOTTIME; `sequence` counts from 1, a hole is a
    frame that the consumer was too slow for.
    """

    taken_mono_ns: int
    sequence: int
    picture: VideoFrame

    @property
    def width_px(self) -> int:
        return self.picture.width

    @property
    def height_px(self) -> int:
        return self.picture.height

    def bgr(self, width_px: int | None = None, height_px: int | None = None) -> Image:
        """A copy, height x width x 3 uint8 in BGR order, scaled in the same step if a size is given."""
        scaled = self.picture.reformat(
            width_px, height_px, "bgr24", interpolation=Interpolation.BILINEAR, threads=1
        )
        return scaled.to_ndarray().astype(np.uint8, copy=False)

    @classmethod
    def from_bgr(cls, image: Image, taken_mono_ns: int, sequence: int) -> Self:
        """A frame from a height x width x 3 uint8 BGR image with even sides; ValueError for another shape."""
        height_px, width_px = image.shape[:2]
        if height_px % 2 or width_px % 2:
            raise ValueError(f"sides must be even: {width_px}x{height_px}")
        picture = VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p", threads=1)
        return cls(taken_mono_ns, sequence, picture)


class CameraSource(Protocol):
    """A camera, or a clip that behaves like one. `with source:` opens and closes it.

    One thread reads.
    """

    @property
    def description(self) -> str:
        """What it is, for messages."""
        ...

    @property
    def dropped_frames(self) -> int:
        """Frames that were there but not read in time."""
        ...

    def open(self) -> None:
        """Start the sensor; raises CameraUnavailable or BadInput."""
        ...

    def read(self, timeout_s: float) -> Frame | None:
        """The next frame, or None after `timeout_s`; raises CameraUnavailable when the camera is lost."""
        ...

    def close(self) -> None:
        """Stop the sensor; harmless when it is closed already."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_source(spec: str, width_px: int, height_px: int, frame_rate_hz: float, clock: Clock) -> CameraSource:
    """The source that `spec` names, not yet open.

    `clip:<path>[?start_s=<s>]`, `v4l2:/dev/video0` or the bare device, `picamera2:<number>`,
    `gstreamer:<sensor id>`. Sides are even and positive. `frame_rate_hz` 0 leaves the rate to a clip; a
    camera needs one. Raises BadInput.
    """
    if min(width_px, height_px) < 2 or width_px % 2 or height_px % 2:
        raise BadInput(
            f"picture size cannot be used: {width_px}x{height_px}", "both sides are even, e.g. 1280x720"
        )
    kind, _, place = spec.partition(":")
    if spec.startswith("/dev/"):
        kind, place = "v4l2", spec
    if frame_rate_hz < 0 or (frame_rate_hz == 0 and kind != "clip"):
        raise BadInput(f"frame rate cannot be used: {frame_rate_hz:g}", "15 a second is usual")
    if kind == "clip" and place:
        from appliance.camera.clip import ClipSource

        return ClipSource.from_spec(place, width_px, height_px, frame_rate_hz, clock)
    if kind == "v4l2" and place.startswith("/dev/"):
        from appliance.camera.v4l2 import V4l2Camera

        return V4l2Camera(place, width_px, height_px, frame_rate_hz, clock)
    if kind == "picamera2" and place.isdecimal():
        from appliance.camera.picamera import PiCamera

        return PiCamera(int(place), width_px, height_px, frame_rate_hz, clock)
    if kind == "gstreamer" and place.isdecimal():
        from appliance.camera.jetson import JetsonCamera

        return JetsonCamera(int(place), width_px, height_px, frame_rate_hz, clock)
    raise BadInput(
        f"unknown camera: {spec}",
        "use clip:/path.mp4, v4l2:/dev/video0, picamera2:0 or gstreamer:0",
    )
