"""Specs, the clip that plays like a camera, and the real cameras over stand-ins at their library's edge."""

from __future__ import annotations

import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

from appliance.camera.clip import ClipSource
from appliance.camera.device import DeviceCamera
from appliance.camera.jetson import JetsonCamera
from appliance.camera.picamera import PiCamera
from appliance.camera.preview import preview_jpeg
from appliance.camera.source import Frame, open_source
from appliance.camera.v4l2 import V4l2Camera
from appliance.errors import BadInput, CameraUnavailable
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


# --- clip


def test_clip_plays_at_its_own_rate_and_for_ever(clip: Path) -> None:
    assert read_numbers(playing(clip, 0), 45) == [k % CLIP_FRAMES for k in range(45)]


def test_clip_times_are_jitter_free_and_run_on_over_the_loop(clip: Path) -> None:
    source = playing(clip, 15)
    frames = [source.read(1.0) for _ in range(50)]
    steps = {later.taken_mono_ns - earlier.taken_mono_ns for earlier, later in pairwise(frames)}
    assert steps <= {66_666_666, 66_666_667}
    assert [frame.sequence for frame in frames] == list(range(1, 51))
    assert source.dropped_frames == 0


def test_clip_repeats_pictures_at_a_higher_rate_and_leaves_some_out_at_a_lower(clip: Path) -> None:
    assert read_numbers(playing(clip, 20), 8) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert read_numbers(playing(clip, 5), 12) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 0, 2]


def test_clip_begins_at_its_offset_and_loops_to_the_beginning(clip: Path) -> None:
    assert read_numbers(playing(clip, 10, start_s=1.8), 4) == [18, 19, 0, 1]


def test_slow_reader_loses_frames_as_with_a_camera(clip: Path) -> None:
    source = playing(clip, 10)
    assert grey_number(source.read(1.0)) == 0
    source.clock.advance(0.55)
    late = source.read(1.0)
    assert (grey_number(late), late.sequence) == (5, 6)
    assert source.dropped_frames == 4
    assert late.taken_mono_ns == 1_000_000_000 + 500_000_000


def test_clip_in_matroska_has_its_length_too(clip: Path, tmp_path: Path) -> None:
    again = tmp_path / "greys.mkv"
    with av.open(str(clip)) as film, av.open(str(again), "w") as copy:
        stream = copy.add_stream_from_template(film.streams.video[0])
        for packet in film.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    assert read_numbers(playing(again, 10, start_s=1.7), 5) == [17, 18, 19, 0, 1]


def test_after_an_hour_of_stall_the_clip_is_where_time_is(clip: Path) -> None:
    source = playing(clip, 10)
    source.read(1.0)
    source.clock.advance(3600.35)
    assert grey_number(source.read(1.0)) == 3


def test_read_gives_none_when_the_frame_is_not_due(clip: Path) -> None:
    source = playing(clip, 10)
    source.read(0.0)
    assert source.read(0.04) is None
    assert source.read(0.04) is None
    assert grey_number(source.read(0.04)) == 1


def test_clip_is_scaled_once_a_picture(clip: Path) -> None:
    source = playing(clip, 20, size=(128, 72))
    first, second = source.read(1.0), source.read(1.0)
    assert (first.width_px, first.height_px) == (128, 72)
    assert first.picture is second.picture


def test_clip_of_another_shape_gets_black_borders(clip: Path) -> None:
    image = playing(clip, 10, start_s=1.0, size=(64, 64)).read(1.0).bgr()
    assert image.shape == (64, 64, 3)
    assert image[:12].max() <= 2
    assert image[-12:].max() <= 2
    assert image[20:44].min() > 60


def test_frames_ends_when_the_source_is_closed(clip: Path) -> None:
    source = playing(clip, 10)
    seen = []
    for frame in source.frames():
        seen.append(frame.sequence)
        if len(seen) == 3:
            source.close()
    assert seen == [1, 2, 3]
    with pytest.raises(CameraUnavailable):
        source.read(0.0)


def test_clip_spec_with_its_option(clip: Path) -> None:
    with open_source(f"clip:{clip}?start_s=0.5", 64, 36, 10, ManualClock()) as source:
        assert grey_number(source.read(0.0)) == 5
        assert source.description == "clip greys.mp4"


# --- what cannot be opened


@pytest.mark.parametrize(
    "spec",
    [
        *(
            "",
            "clip:",
            "webcam",
            "v4l2:",
            "v4l2:video0",
            "picamera2:",
            "picamera2:x",
            "gstreamer:-1",
            "rtsp://x",
        ),
        *("clip:/x.mp4?start_s=-1", "clip:/x.mp4?start_s=nan", "clip:/x.mp4?speed=2", "clip:/x.mp4?start_s"),
    ],
)
def test_bad_spec_is_refused_with_a_hint(spec: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_source(spec, 64, 36, 15, ManualClock())
    assert caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("width_px", "height_px", "rate_hz"), [(63, 36, 15), (0, 36, 15), (64, 36, -1)])
def test_bad_size_or_rate_is_refused(width_px: int, height_px: int, rate_hz: float) -> None:
    with pytest.raises(BadInput):
        open_source("clip:/x.mp4", width_px, height_px, rate_hz, ManualClock())


def test_a_camera_needs_a_rate() -> None:
    with pytest.raises(BadInput, match="frame rate"):
        open_source("picamera2:0", 64, 36, 0, ManualClock())


def test_unreadable_clips_are_named(tmp_path: Path, clip: Path) -> None:
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(b"no film" * 100)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:300])
    for path in (tmp_path / "none.mp4", tmp_path, noise, cut):
        with pytest.raises(BadInput, match="cannot be read") as caught:
            open_source(f"clip:{path}", 64, 36, 15, ManualClock()).open()
        assert caught.value.hint


def test_offset_behind_the_end_is_refused(clip: Path) -> None:
    with pytest.raises(BadInput, match=r"only 2\.0 s long"):
        open_source(f"clip:{clip}?start_s=2", 64, 36, 15, ManualClock()).open()


@pytest.mark.parametrize("spec", ["v4l2:/dev/video97", "/dev/video97", "picamera2:0", "gstreamer:0"])
def test_absent_camera_is_named(spec: str) -> None:
    with pytest.raises(CameraUnavailable) as caught:
        open_source(spec, 64, 36, 15, ManualClock()).open()
    assert caught.value.hint


def test_only_the_chosen_back_end_is_imported() -> None:
    script = (
        "import sys; from appliance.camera.source import open_source; "
        "from appliance.clock import SystemClock; "
        "open_source('clip:/x.mp4', 64, 36, 15, SystemClock()); "
        "assert not {'cv2', 'picamera2', 'gpiozero', 'appliance.camera.v4l2'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# --- what cameras share; `Scripted` is a driver under the test's control


class Scripted(DeviceCamera):
    """Gives the frames that the test puts in; blocks like a driver otherwise."""

    def __init__(self, clock: ManualClock, **limits: float) -> None:
        super().__init__("scripted camera", 10, clock, **limits)
        self.pictures: list[int] = []
        self.wake = threading.Semaphore(0)
        self.error: CameraUnavailable | None = None
        self.start_gate: threading.Event | None = None
        self.stopped = threading.Event()

    def give(self, *taken_ms: int) -> None:
        self.pictures += taken_ms
        self.wake.release(len(taken_ms))

    def fail(self, error: CameraUnavailable) -> None:
        self.error = error
        self.wake.release()

    def _start(self) -> None:
        if self.start_gate is not None:
            self.start_gate.wait(10)

    def _grab(self) -> tuple[int, VideoFrame]:
        self.wake.acquire()
        if self.error is not None:
            raise self.error
        return self.pictures.pop(0) * 1_000_000, VideoFrame(64, 36, "yuv420p")

    def _stop(self) -> None:
        self.stopped.set()


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    camera = Scripted(ManualClock())
    camera.open()
    yield camera
    camera.fail(CameraUnavailable("the test is over"))
    camera.close()


def test_camera_gives_frames_with_their_own_times(scripted: Scripted) -> None:
    for number, taken_ms in enumerate((1000, 1100, 1203), start=1):
        scripted.give(taken_ms)
        frame = scripted.read(5.0)
        assert (frame.taken_mono_ns, frame.sequence) == (taken_ms * 1_000_000, number)


def test_a_camera_faster_than_asked_is_thinned(scripted: Scripted) -> None:
    """30 a second come, 10 are wanted."""
    kept = []
    for k in range(30):
        scripted.give(1000 + round(k * 1000 / 30))
        scripted.give(1000 + round(k * 1000 / 30))
        if k % 3 == 0:
            kept.append(scripted.read(5.0).taken_mono_ns // 1_000_000)
    assert kept == [1000 + 100 * k for k in range(10)]


def test_silent_camera_is_lost_after_its_limit_instead_of_blocking(scripted: Scripted) -> None:
    assert scripted.read(0.0) is None
    scripted._clock.advance(2.9)
    assert scripted.read(0.0) is None
    scripted._clock.advance(0.2)
    with pytest.raises(CameraUnavailable, match="no picture for 3 s") as caught:
        scripted.read(0.0)
    assert "cable" in caught.value.hint


def test_camera_that_reports_its_loss_is_lost_at_once_and_released(scripted: Scripted) -> None:
    scripted.fail(CameraUnavailable("scripted camera is gone"))
    with pytest.raises(CameraUnavailable, match="is gone"):
        scripted.read(5.0)
    assert scripted.stopped.wait(5)


def test_camera_that_does_not_start_is_named_and_does_not_block() -> None:
    camera = Scripted(ManualClock(), open_timeout_s=0.05)
    camera.start_gate = threading.Event()
    with pytest.raises(CameraUnavailable, match="does not start"):
        camera.open()
    camera.fail(CameraUnavailable("the test is over"))
    camera.start_gate.set()
    camera.close()


def test_driver_that_does_not_let_go_is_named() -> None:
    """picamera2 issue 1264: stopping blocks for ever with a loose cable."""
    camera = Scripted(ManualClock(), lost_after_s=0.05)
    camera.open()
    with pytest.raises(CameraUnavailable, match="does not close"):
        camera.close()
    camera.fail(CameraUnavailable("the test is over"))
    camera._thread.join(5)
    camera.close()


def test_camera_can_be_opened_again_after_its_loss(scripted: Scripted) -> None:
    scripted.fail(CameraUnavailable("scripted camera is gone"))
    assert scripted.stopped.wait(5)
    scripted.close()
    scripted.error = None
    scripted.open()
    scripted.give(5000)
    assert scripted.read(5.0).sequence == 1


# --- picamera2, over a stand-in for the library


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


# --- Jetson, over a stand-in for cv2.VideoCapture (the wheel has no GStreamer)


class StandInCapture:
    """Stand-in for cv2.VideoCapture with GStreamer: three I420 pictures, then the camera is gone."""

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


def test_jetson_camera_reads_planes_and_reports_its_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", StandInCapture)
    camera = open_source("gstreamer:1", 128, 72, 15, ManualClock())
    assert isinstance(camera, JetsonCamera)
    camera.open()
    frame = camera.read(5.0)
    assert (frame.width_px, frame.height_px) == (128, 72)
    with pytest.raises(CameraUnavailable, match="jetson camera 1 is gone"):
        camera.read(5.0)
    camera.close()
    assert StandInCapture.pipeline.startswith("nvarguscamerasrc sensor-id=1 !")
    assert "width=128,height=72,format=I420" in StandInCapture.pipeline
    assert "framerate=15000/1000" in StandInCapture.pipeline
    assert StandInCapture.pipeline.endswith("released")


# --- V4L2, over a film file in the place of the device


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
    camera.open()
    frame = camera.read(5.0)
    assert (frame.width_px, frame.height_px) == (128, 72)
    with pytest.raises(CameraUnavailable, match="camera /dev/video0 is gone"):
        camera.read(5.0)
    camera.close()
    assert tried == [
        {"video_size": "128x72", "framerate": "15", "input_format": "mjpeg"},
        {"video_size": "128x72", "framerate": "15"},
    ]


# --- frame and preview


def test_frame_from_bgr_keeps_colour_through_planes_and_back() -> None:
    image = np.zeros((36, 64, 3), np.uint8)
    image[:] = (200, 120, 40)
    frame = Frame.from_bgr(image, 1, 1)
    assert np.abs(frame.bgr().astype(int) - image).max() <= 4
    assert frame.bgr(32, 18).shape == (18, 32, 3)


def test_frame_with_odd_sides_is_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        Frame.from_bgr(np.zeros((35, 64, 3), np.uint8), 1, 1)


def test_preview_is_a_small_jpeg_in_proportion() -> None:
    image = np.zeros((720, 1280, 3), np.uint8)
    image[:, :640] = (0, 0, 255)
    frame = Frame.from_bgr(image, 1, 1)
    jpeg = preview_jpeg(frame)
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (180, 320, 3)
    assert shown[90, 80, 2] > 200
    assert shown[90, 240].max() < 30
    assert len(preview_jpeg(frame, 320, 20)) < len(jpeg) < 20_000


@pytest.mark.parametrize(("width_px", "quality"), [(0, 70), (320, 0), (320, 101)])
def test_preview_out_of_range_is_refused(width_px: int, quality: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        preview_jpeg(Frame.from_bgr(np.zeros((36, 64, 3), np.uint8), 1, 1), width_px, quality)
