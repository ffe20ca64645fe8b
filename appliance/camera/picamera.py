"""A camera on a Raspberry Pi's ribbon, through picamera2, which is imported here only."""

from __future__ import annotations

from typing import Any

from av.video.frame import VideoFrame

from appliance.camera.device import CABLE_HINT, DeviceCamera
from appliance.clock import Clock
from appliance.errors import CameraUnavailable


class PiCamera(DeviceCamera):
    """Camera `number` as libcamera counts them, delivering yuv420p at the size asked for."""

    def __init__(
        self, number: int, width_px: int, height_px: int, frame_rate_hz: float, clock: Clock
    ) -> None:
        super().__init__(f"pi camera {number}", frame_rate_hz, clock)
        self._number = number
        self._size = (width_px, height_px)
        self._period_us = round(1e6 / frame_rate_hz)
        self._camera: Any = None

    def _start(self) -> None:
        try:
            from picamera2 import Picamera2
        except ImportError:
            raise CameraUnavailable(
                "picamera2 is not installed", "install the extra node-pi on a Raspberry Pi"
            ) from None
        try:
            # picamera2 raises IndexError for a camera number that libcamera does not list
            self._camera = Picamera2(self._number)
            self._camera.configure(
                self._camera.create_video_configuration(
                    main={"size": self._size, "format": "YUV420"},
                    controls={"FrameDurationLimits": (self._period_us, self._period_us)},
                    buffer_count=4,
                )
            )
            self._camera.start()
        except (IndexError, RuntimeError, OSError) as error:
            raise CameraUnavailable(f"{self.description} cannot be opened: {error}", CABLE_HINT) from error

    def _grab(self) -> tuple[int, VideoFrame]:
        try:
            request = self._camera.capture_request()
            try:
                planes = request.make_array("main")
                # libcamera's SensorTimestamp: first row exposed, CLOCK_BOOTTIME in ns
                taken_mono_ns = int(request.get_metadata()["SensorTimestamp"])
            finally:
                request.release()
        except (RuntimeError, OSError) as error:
            raise CameraUnavailable(f"{self.description} is gone: {error}", CABLE_HINT) from error
        # libcamera pads rows; the width tells how much of each belongs to the picture
        return taken_mono_ns, VideoFrame.from_numpy_buffer(planes, format="yuv420p", width=self._size[0])

    def _stop(self) -> None:
        if self._camera is not None:
            self._camera.stop()
            self._camera.close()
            self._camera = None
