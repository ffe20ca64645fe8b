"""A CSI camera on a Jetson: NVIDIA's capture element through OpenCV's GStreamer back end.

JetPack's own OpenCV has that back end. The wheel from PyPI has not: then the camera is unavailable by name.
"""

from __future__ import annotations

import cv2
import numpy as np
from av.video.frame import VideoFrame

from appliance.camera.device import CABLE_HINT, DeviceCamera
from appliance.clock import Clock
from appliance.errors import CameraUnavailable


def pipeline(sensor_id: int, width_px: int, height_px: int, frame_rate_hz: float) -> str:
    """The GStreamer pipeline: scaled and converted on the chip, one frame waiting at most."""
    millihertz = round(frame_rate_hz * 1000)
    return (
        f"nvarguscamerasrc sensor-id={sensor_id} ! video/x-raw(memory:NVMM) ! nvvidconv ! "
        f"video/x-raw,width={width_px},height={height_px},format=I420 ! videorate drop-only=true ! "
        f"video/x-raw,framerate={millihertz}/1000 ! appsink drop=true max-buffers=1 sync=false"
    )


class JetsonCamera(DeviceCamera):
    """The sensor `sensor_id` as nvarguscamerasrc counts them."""

    def __init__(
        self, sensor_id: int, width_px: int, height_px: int, frame_rate_hz: float, clock: Clock
    ) -> None:
        super().__init__(f"jetson camera {sensor_id}", frame_rate_hz, clock)
        self._pipeline = pipeline(sensor_id, width_px, height_px, frame_rate_hz)
        self._shape = (height_px * 3 // 2, width_px)
        self._capture: cv2.VideoCapture | None = None

    def _start(self) -> None:
        self._capture = cv2.VideoCapture(self._pipeline, cv2.CAP_GSTREAMER)
        if not self._capture.isOpened():
            raise CameraUnavailable(
                f"{self.description} cannot be opened",
                "use JetPack's OpenCV with GStreamer; check the cable and nvargus-daemon",
            )

    def _grab(self) -> tuple[int, VideoFrame]:
        assert self._capture is not None  # noqa: S101
        there, planes = self._capture.read()
        taken_mono_ns = self._clock.mono_ns()
        if not there:
            raise CameraUnavailable(f"{self.description} is gone", CABLE_HINT)
        if planes.shape[:2] != self._shape:
            raise CameraUnavailable(
                f"{self.description} sent a picture of shape {planes.shape}", "I420 planes are expected"
            )
        planes = np.ascontiguousarray(planes, np.uint8).reshape(self._shape)
        return taken_mono_ns, VideoFrame.from_numpy_buffer(planes, format="yuv420p")

    def _stop(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None
