"""What all cameras share, over a driver under the test's control: times, thinning, loss, and letting go."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from av.video.frame import VideoFrame

from appliance.camera.device import DeviceCamera
from appliance.errors import CameraUnavailable
from tests.manual_clock import ManualClock


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
