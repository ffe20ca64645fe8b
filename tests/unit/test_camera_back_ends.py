"""The real cameras, over stand-ins at the edge of their libraries: Pi, Jetson and V4L2."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from appliance.camera.jetson import JetsonCamera
from appliance.camera.picamera import PiCamera
from appliance.camera.source import CameraSource, open_source
from appliance.camera.v4l2 import V4l2Camera
from appliance.errors import CameraUnavailable
from tests.grey_clip import clip
from tests.manual_clock import ManualClock

__all__ = ["clip"]


class StandInPicamera2:
    """Stand-in for picamera2.Picamera2: one camera, number 0, rows padded by 64 bytes as libcamera does."""

    def __init__(self, number: int) -> None:
        [0][number]
        self.calls: list[str] = []
        StandInPicamera2.last = self

    def create_video_configuration(self, **wanted: object) -> dict[str, object]:
        return wanted

    def configure(self, configuration: dict[str, object]) -> None:
        self.configuration = configuration

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")

    def capture_request(self) -> StandInPicamera2:
        return self

    def make_array(self, name: str) -> np.ndarray:
        assert name == "main"
        width, height = self.configuration["main"]["size"]
        padded = np.full((height * 3 // 2, width + 64), 255, np.uint8)
        padded[:height, :width] = 100
        half = padded[height:].reshape(height, -1)
        half[:, : width // 2] = 128
        return padded

    def get_metadata(self) -> dict[str, int]:
        return {"SensorTimestamp": 123_456_789}

    def release(self) -> None:
        self.calls.append("release")


@pytest.fixture
def picamera2(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("picamera2")
    module.Picamera2 = StandInPicamera2
    monkeypatch.setitem(sys.modules, "picamera2", module)


@pytest.mark.usefixtures("picamera2")
def test_pi_camera_gives_planes_without_padding_and_the_sensor_s_time() -> None:
    with open_source("picamera2:0", 128, 72, 20, ManualClock()) as camera:
        assert isinstance(camera, PiCamera)
        frame = camera.read(5.0)
    assert frame.taken_mono_ns == 123_456_789
    planes = frame.picture.to_ndarray()
    assert planes.shape == (108, 128)
    assert set(np.unique(planes[:72])) == {100}
    assert set(np.unique(planes[72:])) == {128}
    stand_in = StandInPicamera2.last
    assert stand_in.configuration["controls"] == {"FrameDurationLimits": (50_000, 50_000)}
    assert stand_in.calls[0] == "start"
    assert stand_in.calls[-3:] == ["release", "stop", "close"]


@pytest.mark.usefixtures("picamera2")
def test_pi_camera_that_is_not_connected_is_named() -> None:
    with pytest.raises(CameraUnavailable, match="pi camera 1 cannot be opened"):
        open_source("picamera2:1", 128, 72, 15, ManualClock()).open()


class StandInCapture:
    """Stand-in for cv2.VideoCapture with GStreamer, which the wheel lacks: three I420 pictures, then it is gone."""

    def __init__(self, pipeline: str, back_end: int) -> None:
        assert back_end == cv2.CAP_GSTREAMER
        StandInCapture.pipeline = pipeline
        self.left = 3

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, np.full((108, 128), 90, np.uint8)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        StandInCapture.pipeline += " released"


def gives_one_frame_and_is_gone(camera: CameraSource, name: str) -> None:
    camera.open()
    frame = camera.read(5.0)
    assert frame is not None
    assert (frame.width_px, frame.height_px) == (128, 72)
    with pytest.raises(CameraUnavailable, match=f"{name} is gone"):
        camera.read(5.0)
    camera.close()


def test_jetson_camera_reads_planes_and_reports_its_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", StandInCapture)
    camera = open_source("gstreamer:1", 128, 72, 15, ManualClock())
    assert isinstance(camera, JetsonCamera)
    gives_one_frame_and_is_gone(camera, "jetson camera 1")
    assert StandInCapture.pipeline.startswith("nvarguscamerasrc sensor-id=1 !")
    assert "width=128,height=72,format=I420" in StandInCapture.pipeline
    assert "framerate=15000/1000" in StandInCapture.pipeline
    assert StandInCapture.pipeline.endswith("released")


def test_v4l2_camera_reads_scales_and_reports_its_loss(monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    """Stand-in for av.open: refuses compressed pictures as an old camera does, then plays a film and ends."""
    tried: list[dict[str, str]] = []
    real_open = av.open

    def stand_in(device: str, mode: str, format: str, options: dict[str, str]) -> object:
        assert (device, mode, format) == ("/dev/video0", "r", "video4linux2")
        tried.append(options)
        if "input_format" in options:
            raise av.ArgumentError(22, "Invalid argument")
        return real_open(str(clip))

    monkeypatch.setattr(av, "open", stand_in)
    camera = open_source("/dev/video0", 128, 72, 15, ManualClock())
    assert isinstance(camera, V4l2Camera)
    gives_one_frame_and_is_gone(camera, "camera /dev/video0")
    assert tried == [
        {"video_size": "128x72", "framerate": "15", "input_format": "mjpeg"},
        {"video_size": "128x72", "framerate": "15"},
    ]
