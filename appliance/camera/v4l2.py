"""USB and other V4L2 cameras, through PyAV: compressed pictures where the camera has them, else raw ones."""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from appliance.camera.device import CABLE_HINT, DeviceCamera
from appliance.clock import Clock
from appliance.errors import CameraUnavailable


class V4l2Camera(DeviceCamera):
    """The camera at `device`, e.g. /dev/video0; a camera of another size is scaled."""

    def __init__(
        self, device: str, width_px: int, height_px: int, frame_rate_hz: float, clock: Clock
    ) -> None:
        super().__init__(f"camera {device}", frame_rate_hz, clock)
        self._device = device
        self._size = (width_px, height_px)
        self._wanted = {"video_size": f"{width_px}x{height_px}", "framerate": f"{frame_rate_hz:g}"}
        self._reformatter = VideoReformatter()
        self._container: InputContainer | None = None
        self._pictures: Iterator[VideoFrame] = iter(())

    def _start(self) -> None:
        # USB 2 carries 720p15 only when compressed; the last try takes whatever size the camera has.
        for options in ({**self._wanted, "input_format": "mjpeg"}, self._wanted, {}):
            try:
                self._container = av.open(self._device, "r", format="video4linux2", options=options)
            except FileNotFoundError:
                raise CameraUnavailable(f"there is no {self.description}", CABLE_HINT) from None
            except PermissionError:
                raise CameraUnavailable(
                    f"{self.description} may not be opened", "add the service's user to the group video"
                ) from None
            except av.FFmpegError as error:
                failure = error
                continue
            self._pictures = self._container.decode(video=0)
            return
        raise CameraUnavailable(f"{self.description} cannot be opened: {failure.strerror}", CABLE_HINT)

    def _grab(self) -> tuple[int, VideoFrame]:
        try:
            picture = next(self._pictures)
        except (StopIteration, av.FFmpegError) as error:
            raise CameraUnavailable(f"{self.description} is gone", CABLE_HINT) from error
        taken_mono_ns = self._clock.mono_ns()
        width_px, height_px = self._size
        return taken_mono_ns, self._reformatter.reformat(picture, width_px, height_px, "yuv420p", threads=1)

    def _stop(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
