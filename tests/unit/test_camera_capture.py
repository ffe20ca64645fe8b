"""The capture thread over a camera of the test's own, the pictures beside the recording, what waits for the store."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
import pytest
from gpiozero.pins.mock import MockFactory

from appliance.camera.capture import Capture
from appliance.camera.encoder import Fragment
from appliance.camera.inbox import (
    MAX_FRAGMENT_BYTES,
    MAX_PEER_ITEMS,
    CameraBack,
    CameraLost,
    Captured,
    FragmentRefused,
    FromCamera,
    Inbox,
    Observed,
    ObserverGone,
    Wake,
)
from appliance.camera.pictures import Pictures, WatchLease
from appliance.camera.probe import camera_problem
from appliance.camera.source import Frame
from appliance.errors import ApplianceError, BadInput, CameraStuck, CameraUnavailable
from appliance.frames import FrameRingReader, FrameRingWriter
from appliance.light import IndicatorLight
from appliance.policy import Video
from appliance.protocol import ObservationReport
from tests.manual_clock import ManualClock

PIN = 17
RATE_HZ = 15
VIDEO = Video(width_px=160, height_px=120, frame_rate_hz=RATE_HZ, bitrate_bps=200_000)
PICTURE = np.full((120, 160, 3), 90, np.uint8)
Step = float | ApplianceError | None


def frame_at(seconds: float, number: int = 1) -> Frame:
    return Frame.from_bgr(PICTURE, round(seconds * 1e9), number)


class Camera:
    """The hardware's edge: plays steps (a time: a frame taken then; None: no frame; an error: raised), then idles."""

    description = "camera"
    dropped_frames = 0

    def __init__(self, desk: StandIn, steps: list[Step]) -> None:
        self._desk = desk
        self._steps = deque(steps)

    def open(self) -> None:
        self._desk.note("open")
        if self._steps and isinstance(self._steps[0], BadInput):
            raise self._steps.popleft()  # type: ignore[misc]

    def read(self, timeout_s: float) -> Frame | None:
        self._desk.note("read")
        if not self._steps:
            self._desk.played.set()
            self._desk.go_on.wait(5)
            return None
        step = self._steps.popleft()
        if isinstance(step, ApplianceError):
            raise step
        return None if step is None else frame_at(step)

    def close(self) -> None:
        self._desk.note("close")
        if self._desk.does_not_close:
            raise CameraStuck("camera does not close")

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


class StandIn:
    """A desk with a lamp, whose camera lives through `lives`, one script each time it is opened."""

    def __init__(self, pins: MockFactory, *lives: list[Step]) -> None:
        self.light = IndicatorLight(PIN)
        self.pin = pins.pin(PIN)
        self.lit_at: list[tuple[str, bool]] = []
        self.played, self.go_on = threading.Event(), threading.Event()
        self.does_not_close = False
        self.items: list[FromCamera] = []
        self.refuse: Callable[[FromCamera], bool] = lambda _item: False
        self.pictures = Pictures(None, 0.2, None, lambda _jpeg: None)
        self.after_90k = -1
        self._lives = deque(lives)

    def note(self, what: str) -> None:
        self.lit_at.append((what, bool(self.pin.state)))

    def make_source(self) -> Camera:
        return Camera(self, self._lives.popleft() if len(self._lives) > 1 else self._lives[0])

    def put(self, item: FromCamera) -> bool:
        if self.refuse(item):
            return False
        self.items.append(item)
        return True

    def capture(self) -> Capture:
        return Capture(
            self.make_source, self.light, VIDEO, self.pictures, lambda mono_ns: mono_ns * 9 // 100_000,
            self.put, self.after_90k, reopen_delay_s=0.0,
        )  # fmt: skip

    def run(self) -> Capture:
        """Until the last script is played, then an orderly stop."""
        capture = self.capture()
        capture.start()
        assert self.played.wait(10)
        capture.ask_to_stop()
        self.go_on.set()
        capture.join(10)
        assert not capture.is_alive()
        return capture

    @property
    def fragments(self) -> list[Fragment]:
        return [item.fragment for item in self.items if isinstance(item, Captured)]


def film(start_s: float, seconds: float) -> list[Step]:
    return [start_s + number / RATE_HZ for number in range(round(seconds * RATE_HZ))]


def test_fragments_of_two_seconds_and_the_rest_at_the_end(pins: MockFactory) -> None:
    desk = StandIn(pins, film(0, 5))
    desk.run()
    assert [each.time_90k for each in desk.fragments] == [0, 180_000, 360_000]
    assert [each.frames for each in desk.fragments] == [30, 30, 15]
    first = desk.items[0]
    assert isinstance(first, Captured)
    assert first.init.data[4:8] == b"ftyp"
    assert first.codec.startswith("avc1.")


def test_a_camera_that_goes_and_comes_back_twice_says_so_each_time(pins: MockFactory) -> None:
    gone = CameraUnavailable("no picture for 3 s")
    desk = StandIn(pins, [*film(0, 1), gone], [gone], [*film(9, 1), gone], film(20, 1))
    desk.run()
    said = [item for item in desk.items if not isinstance(item, Captured)]
    assert said == [CameraLost("no picture for 3 s"), CameraBack()] * 2
    assert [each.time_90k // 90_000 for each in desk.fragments] == [0, 9, 20]
    # What was filmed before the loss comes before the loss, and the return before what is filmed then.
    assert [type(item).__name__ for item in desk.items][:4] == [
        "Captured", "CameraLost", "CameraBack", "Captured",
    ]  # fmt: skip


def test_a_camera_that_never_was_there_is_named_and_found_later(pins: MockFactory) -> None:
    desk = StandIn(pins, [BadInput("no such camera")], film(4, 1))
    capture = desk.run()
    assert [item for item in desk.items if not isinstance(item, Captured)] == [
        CameraLost("no such camera"), CameraBack(),
    ]  # fmt: skip
    assert capture.lost_cause is None


def test_no_frame_for_a_while_is_no_loss(pins: MockFactory) -> None:
    desk = StandIn(pins, [*film(0, 1), None, None, *film(3, 1)])
    desk.run()
    assert not any(isinstance(item, CameraLost) for item in desk.items)
    assert [each.time_90k // 90_000 for each in desk.fragments] == [0, 3]


def test_frames_whose_time_does_not_advance_have_no_place(pins: MockFactory) -> None:
    desk = StandIn(pins, [0.0, 0.1, 0.1, 0.05, 0.0, 0.2])
    desk.run()
    assert [each.frames for each in desk.fragments] == [3]


def test_no_frame_from_before_what_is_recorded_already(pins: MockFactory) -> None:
    gone = CameraUnavailable("gone")
    desk = StandIn(pins, [*film(0, 1), gone], film(0.5, 1))
    desk.after_90k = 90_000 // 2
    desk.run()
    times = [(each.time_90k, each.time_90k + each.duration_90k) for each in desk.fragments]
    assert times[0][0] > 90_000 // 2
    assert times[1][0] > times[0][1] - 6_000


# --- light


def test_f147_light_is_on_while_the_camera_is_open_and_out_after_it_closed(pins: MockFactory) -> None:
    desk = StandIn(pins, film(0, 1))
    desk.run()
    assert {lit for _, lit in desk.lit_at} == {True}
    assert desk.lit_at[0][0] == "open"
    assert desk.lit_at[-1][0] == "close"
    assert not desk.pin.state


def test_f147_light_stays_on_while_a_lost_camera_is_looked_for(pins: MockFactory) -> None:
    gone = CameraUnavailable("gone")
    desk = StandIn(pins, [*film(0, 0.2), gone], [gone], film(5, 0.2))
    desk.run()
    assert {lit for _, lit in desk.lit_at} == {True}
    assert not desk.pin.state


def test_f147_a_camera_that_does_not_close_keeps_the_light_and_ends_the_thread(pins: MockFactory) -> None:
    desk = StandIn(pins, film(0, 1))
    desk.does_not_close = True
    capture = desk.run()
    assert isinstance(capture.stuck, CameraStuck)
    assert desk.pin.state
    assert desk.fragments
    assert desk.items[-1] == CameraLost("camera does not close")
    assert not capture.camera_open


def test_f147_a_driver_that_hangs_while_filming_keeps_the_light(pins: MockFactory) -> None:
    desk = StandIn(pins, [*film(0, 1), CameraStuck("camera does not start")])
    capture = desk.capture()
    capture.start()
    capture.join(10)
    assert capture.stuck is not None
    assert capture.stuck.exit_code == 9
    assert desk.pin.state


def test_f147_probe_leaves_the_light_out_unless_the_sensor_may_be_on(pins: MockFactory) -> None:
    desk = StandIn(pins, film(0, 1))
    assert camera_problem(desk.make_source(), desk.light) is None
    assert not desk.pin.state
    absent = Camera(desk, [BadInput("no such camera")])
    assert camera_problem(absent, desk.light) == "no such camera"
    assert not desk.pin.state
    desk.go_on.set()
    assert camera_problem(Camera(desk, []), desk.light) == "the camera delivered no frame within 5 s"
    assert not desk.pin.state
    desk.does_not_close = True
    with pytest.raises(CameraStuck):
        camera_problem(desk.make_source(), desk.light)
    assert desk.pin.state


# --- what waits for the store


def test_fragments_that_do_not_fit_are_counted_and_said_once(pins: MockFactory) -> None:
    desk = StandIn(pins, film(0, 10))
    refused = iter([False, True, True, False, False])
    desk.refuse = lambda item: isinstance(item, Captured) and next(refused)
    capture = desk.run()
    assert capture.lost_fragments == 2
    assert [type(item).__name__ for item in desk.items] == [
        "Captured", "FragmentRefused", "Captured", "Captured",
    ]  # fmt: skip


def captured(size_bytes: int) -> Captured:
    fragment = Fragment("fragment", bytes(size_bytes), 0, 180_000, True, 30)
    return Captured(fragment, fragment, "avc1")


REPORT = ObservationReport(
    kind="nobody_at_desk", words="nobody at the desk", phase="opened", start_90k=0, end_90k=None,
    duration_s=1, level="red", rule="r", measured={},
)  # fmt: skip


def test_inbox_is_bounded_in_bytes_and_takes_again_what_was_fetched() -> None:
    inbox = Inbox()
    half = captured(MAX_FRAGMENT_BYTES // 2)
    assert inbox.put_filmed(half)
    assert inbox.put_filmed(half)
    assert not inbox.put_filmed(captured(1))
    assert inbox.put_filmed(FragmentRefused())
    assert inbox.get(0) is half
    assert inbox.put_filmed(half)


def test_a_flood_from_a_peer_takes_no_room_from_the_recording() -> None:
    inbox = Inbox()
    taken = [inbox.put_said(Observed(1, key, REPORT)) for key in range(MAX_PEER_ITEMS + 5)]
    assert taken.count(False) == 5
    assert not inbox.put_said(Wake())
    assert inbox.put_said(ObserverGone(1))
    fragment = captured(10)
    assert inbox.put_filmed(fragment)
    assert inbox.get(0) is fragment
    assert len(inbox) == MAX_PEER_ITEMS + 1


def test_inbox_gives_nothing_when_there_is_nothing() -> None:
    assert Inbox().get(0) is None


# --- pictures


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[FrameRingWriter]:
    folder = Path("/dev/shm") / f"capture-{tmp_path.name}"
    folder.mkdir()
    writer = FrameRingWriter(folder / "frames", 640, 360)
    yield writer
    writer.close()
    folder.rmdir()


@pytest.mark.parametrize("jitter_s", [0.0, 0.02])
def test_models_get_pictures_at_their_rate_whatever_the_jitter(
    ring: FrameRingWriter, jitter_s: float
) -> None:
    pictures = Pictures(ring, 0.2, None, lambda _jpeg: None)
    reader = FrameRingReader(ring._path)
    for number in range(150):
        pictures.show(frame_at(number / RATE_HZ + (jitter_s if number % 2 else 0), number + 1))
    newest = reader.latest(0)
    reader.close()
    assert newest is not None
    assert newest.sequence == 50
    assert newest.image.shape == (360, 640, 3)
    assert abs(int(newest.image.mean()) - 90) <= 4


def test_after_a_silence_the_models_do_not_get_a_burst(ring: FrameRingWriter) -> None:
    pictures = Pictures(ring, 0.2, None, lambda _jpeg: None)
    reader = FrameRingReader(ring._path)
    for number, at in enumerate([0.0, 30.0, 30.07, 30.13, 30.2]):
        pictures.show(frame_at(at, number + 1))
    newest = reader.latest(0)
    reader.close()
    assert newest is not None
    assert newest.sequence == 3


def shown(clock: ManualClock, watch: WatchLease, seconds: float) -> list[bytes]:
    jpegs: list[bytes] = []
    pictures = Pictures(None, 0.2, watch, jpegs.append)
    for number in range(round(seconds * RATE_HZ)):
        pictures.show(frame_at(number / RATE_HZ))
        clock.advance(1 / RATE_HZ)
    return jpegs


def test_previews_only_under_a_lease_and_none_after_it_ended() -> None:
    clock = ManualClock()
    watch = WatchLease(clock)
    assert shown(clock, watch, 3) == []
    watch.renew("still", 5)
    stills = shown(clock, watch, 20)
    assert 4 <= len(stills) <= 6
    assert shown(clock, watch, 5) == []
    image = cv2.imdecode(np.frombuffer(stills[0], np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[1] == 480


def test_live_is_six_a_second_and_a_lease_is_ten_seconds_at_most() -> None:
    clock = ManualClock()
    watch = WatchLease(clock)
    watch.renew("live", 3600)
    assert 45 <= len(shown(clock, watch, 20)) <= 61


def test_no_preview_where_the_policy_allows_none() -> None:
    jpegs: list[bytes] = []
    Pictures(None, 0.2, None, jpegs.append).show(frame_at(0))
    assert jpegs == []
