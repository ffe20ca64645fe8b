"""Picture and decoding judged beside a recording, from a camera of the test's own into a real store."""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np
import pytest
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from appliance.camera import capture as capture_module
from appliance.camera.encoder import Fragment, FragmentEncoder
from appliance.camera.inbox import Captured
from appliance.camera.picture_check import WORDS, PictureCheck
from appliance.camera.picture_decode import FragmentDecoder
from appliance.camera.picture_planes import luma_and_grey, small_bgr
from appliance.camera.session import Interruption
from appliance.camera.source import Frame
from appliance.camera.timeline import WallWatch
from appliance.errors import CameraUnavailable
from appliance.store.check import check_store
from appliance.store.view import RecordingView
from demo.room import wait_until
from tests.manual_clock import ManualClock
from tests.scenes import Image, covered, desk, dimmed, filmed
from tests.unit.test_camera_capture import Camera, StandIn
from tests.unit.test_camera_session import Bench, bench
from tests.unit.test_store_builders import BOOT, SID

__all__ = ["bench"]

S = 90_000
RATE_HZ = 15
ROOM = desk(160, 120)
STUCK = filmed(ROOM)
SCENES = {"live": ROOM, "black": np.zeros_like(ROOM), "covered": covered(ROOM), "dark": dimmed(ROOM, 0.06)}
START_NS = 10**9


def exposure(scene: str) -> Image:
    return STUCK if scene == "frozen" else filmed(SCENES[scene])


def film(number: int = 75, scene: str = "live", size: tuple[int, int] = (160, 120)) -> list[Fragment]:
    """Init first."""
    encoder, pieces = FragmentEncoder(*size, RATE_HZ, 300_000), []
    for at in range(number):
        pieces += encoder.encode(Frame.from_bgr(exposure(scene), 0, at + 1), at * 6000)
    return pieces + encoder.flush()


def spoiled(fragment: Fragment, at: float = 0.5, length: int = 64) -> Fragment:
    """The same claims, with zeros somewhere in the frames' bits."""
    data = bytearray(fragment.data)
    place = round(len(data) * at)
    data[place : place + length] = bytes(length)
    return Fragment("fragment", bytes(data), fragment.time_90k, fragment.duration_90k, True, fragment.frames)


# --- decoding


def test_whole_fragments_decode_one_after_the_other() -> None:
    decoder = FragmentDecoder()
    init, *fragments = film()
    assert [decoder.problem(init.data, each) for each in fragments] == [None] * 3
    other, *more = film(size=(320, 240))
    assert [decoder.problem(other.data, each) for each in more] == [None] * 3


@pytest.mark.parametrize("at", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_bits_that_cannot_be_read_are_found_and_the_next_fragment_decodes_again(at: float) -> None:
    decoder = FragmentDecoder()
    init, first, second, third = film()
    assert decoder.problem(init.data, spoiled(first, at)) is not None
    assert decoder.problem(init.data, spoiled(second, at)) is not None
    assert decoder.problem(init.data, third) is None


def test_one_fragment_in_three_is_decoded_to_its_last_bit_and_all_to_key_frame_and_count() -> None:
    """What the certificate may say: damage that lasts for three fragments is found, of one frame between not always."""
    init, *fragments = film(105)
    key_frame_at = (fragments[1].data.index(b"mdat") + 40) / len(fragments[1].data)
    decoder = FragmentDecoder()
    found = [
        decoder.problem(init.data, each if at == 0 else spoiled(each, 0.9))
        for at, each in enumerate(fragments)
    ]
    assert [each is not None for each in found] == [False, False, False, True]
    decoder = FragmentDecoder()
    assert decoder.problem(init.data, fragments[0]) is None
    assert decoder.problem(init.data, spoiled(fragments[1], key_frame_at)) is not None
    assert decoder.problem(init.data, spoiled(fragments[2], 0.9)) is not None


@pytest.mark.parametrize("turn", [0, 1])
def test_what_is_cut_empty_or_miscounted_is_found(turn: int) -> None:
    init, first, second, _ = film()
    short = Fragment("fragment", first.data, 0, 2 * S, True, 31)
    cut = [first.data[:-1], first.data[: len(first.data) // 2], b"", b"\0" * 1000]
    for damaged in [short, *(Fragment("fragment", data, 0, 2 * S, True, 30) for data in cut)]:
        decoder = FragmentDecoder()
        assert turn == 0 or decoder.problem(init.data, second) is None
        assert decoder.problem(init.data, damaged) is not None
        assert decoder.problem(b"", first) is not None
        assert decoder.problem(init.data, second) is None


# --- planes


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("size", [(1280, 720), (640, 480), (322, 242), (176, 144)])
def test_small_pictures_are_what_swscale_makes_of_them(size: tuple[int, int], full_range: bool) -> None:
    """Also from a size whose rows are padded, and smaller than what is wanted."""
    picture = Frame.from_bgr(desk(*size), 0, 1).picture
    if full_range:
        picture.color_range = ColorRange.JPEG
    ours = small_bgr(picture, 640, 360, VideoReformatter())
    theirs = picture.reformat(640, 360, "bgr24", interpolation=Interpolation.BILINEAR).to_ndarray()
    assert ours.shape == theirs.shape == (360, 640, 3)
    assert float(np.abs(ours.astype(int) - theirs).mean()) < 2.0
    luma, grey = luma_and_grey(picture, 320, VideoReformatter())
    assert luma.shape == (size[1], size[0])
    assert max(grey.shape) == min(320, size[0])


# --- the thread


def frames(scene: str, seconds: float, start_s: float = 0.0) -> list[Frame]:
    times = [start_s + number / RATE_HZ for number in range(round(seconds * RATE_HZ))]
    return [Frame.from_bgr(exposure(scene), round(at * 1e9), number) for number, at in enumerate(times)]


def check_of(**settings: int) -> PictureCheck:
    check = PictureCheck(lambda mono_ns: mono_ns * 9 // 100_000, **settings)
    check.start()
    return check


def spans(check: PictureCheck, end_s: float) -> list[tuple[str, float, float]]:
    check.close(round(end_s * S))
    return [(each.finding, round(each.from_90k / S, 1), round(each.to_90k / S, 1)) for each in check.take()]


def test_a_fragment_that_cannot_be_decoded_is_a_span_of_its_own_length() -> None:
    init, first, second, third = film()
    check = check_of()
    for each in (spoiled(first), second, third):
        check.keep(Captured(each, init, "avc1"))
    assert spans(check, 5) == [("undecodable", 0, 2)]


def test_what_does_not_fit_into_memory_is_named_as_unchecked() -> None:
    init, first, second, third = film()
    check = check_of(max_waiting_bytes=1)
    for each in (first, second, third):
        check.keep(Captured(each, init, "avc1"))
    assert check.faults == [WORDS["unchecked"]]
    assert spans(check, 5) == [("unchecked", 0, 5)]


def test_a_check_that_ended_by_itself_is_said_and_named() -> None:
    check = PictureCheck(lambda mono_ns: mono_ns * 9 // 100_000)
    for frame in frames("live", 3):
        check.see(frame)
    assert check.faults == [WORDS["unchecked"]]
    assert spans(check, 3) == [("unchecked", 0, 3)]


def test_the_check_makes_nobody_wait() -> None:
    """Even one that stands still takes nothing from the capture thread; what it has not done is unchecked."""
    check = check_of()
    standing = threading.Event()
    check._look = lambda _frame: standing.wait(30)  # type: ignore[method-assign, assignment, return-value]
    filmed_before = frames("live", 3)
    begun = time.monotonic()
    for frame in filmed_before:
        check.see(frame)
    assert time.monotonic() - begun < 5
    check.close(3 * S, timeout_s=0.2)
    assert [(each.finding, each.to_90k // S) for each in check.take()] == [("unchecked", 3)]
    standing.set()
    check.join(10)


# --- a camera, the session, the store


class Scenery(Camera):
    """Plays (time, scene): a frame of that scene taken then."""

    def __init__(self, desk: StandIn, script: deque[tuple[float, str]]) -> None:
        super().__init__(desk, [])
        self._script = script

    def read(self, timeout_s: float) -> Frame | None:
        if not self._script:
            return super().read(timeout_s)
        at, scene = self._script.popleft()
        if scene == "unplugged":
            raise CameraUnavailable("camera is gone")
        return Frame.from_bgr(exposure(scene), START_NS + round(at * 1e9), 1)


def show(desk: StandIn, scenes: list[tuple[str, float]]) -> float:
    """The desk's camera plays `scenes`, (name, seconds), as fast as they are read; returns their end in seconds."""
    script: deque[tuple[float, str]] = deque()
    at = 0.0
    for name, seconds in scenes:
        shots = 1 if name == "unplugged" else round(seconds * RATE_HZ)
        script += [(at + number / RATE_HZ, name) for number in range(shots)]
        at += seconds
    desk.make_source = lambda: Scenery(desk, script)  # type: ignore[method-assign]
    return at


def record(bench: Bench, scenes: list[tuple[str, float]]) -> list[tuple[object, ...]]:
    """The picture events of a session that films these scenes with faces switched off."""
    end_s = show(bench.desk, scenes)
    session = bench.begin(face=False)
    assert bench.desk.played.wait(60)
    bench.stop()
    for item in bench.desk.items:
        session.take(item)
        session.note_findings()
    bench.clock.advance(end_s)
    session.close()
    session.end()
    return events(bench, "picture", "finding", "from_90k", "to_90k")


def events(bench: Bench, kind: str, *names: str) -> list[tuple[object, ...]]:
    """Times in seconds to a tenth."""
    view = RecordingView(bench.root)
    bodies = [event.body for event in view.events(SID) if event.body["kind"] == kind]
    view.close()
    return [
        tuple(round(body[name] / S, 1) if name.endswith("90k") else body[name] for name in names)
        for body in bodies
    ]


def test_a_live_room_leaves_no_event(bench: Bench) -> None:
    assert record(bench, [("live", 6), ("dark", 6)]) == []
    assert bench.gaps() == []
    assert bench.events() == ["epoch_open", "epoch_close"]


@pytest.mark.parametrize(
    ("scene", "seconds"), [("black", 3), ("covered", 3), ("frozen", 5)]
)  # fmt: skip
def test_what_was_wrong_with_the_picture_is_a_leaf_with_its_span(
    bench: Bench, scene: str, seconds: float
) -> None:
    assert record(bench, [("live", 3), (scene, seconds), ("live", 3)]) == [(scene, 3, 3 + seconds)]
    assert bench.gaps() == []
    bench.store.close()
    assert check_store(bench.root) == []


def test_what_lasts_to_the_end_ends_with_the_session(bench: Bench) -> None:
    assert record(bench, [("live", 2), ("black", 4)]) == [("black", 2, 6)]
    assert bench.events()[-2:] == ["picture", "epoch_close"]


def test_a_camera_that_comes_back_black_has_a_gap_and_a_span(bench: Bench) -> None:
    found = record(bench, [("live", 4), ("unplugged", 6), ("black", 4), ("live", 2)])
    assert found == [("black", 10, 14)]
    [(start_s, end_s, cause)] = bench.gaps()
    assert (round(start_s, 1), end_s, cause) == (4, 10, "camera lost: camera is gone")


class Miscoding(FragmentEncoder):
    """An encoder whose first fragment comes out damaged."""

    def encode(self, frame: Frame, time_90k: int) -> list[Fragment]:
        return [
            spoiled(each) if each.kind == "fragment" and each.time_90k == 0 else each
            for each in super().encode(frame, time_90k)
        ]


def test_an_encoder_that_writes_nonsense_is_found_and_its_bytes_are_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_module, "FragmentEncoder", Miscoding)
    assert record(bench, [("live", 6)]) == [("undecodable", 0, 2)]
    assert bench.gaps() == []


def test_the_room_is_told_while_it_lasts(bench: Bench) -> None:
    show(bench.desk, [("live", 2), ("frozen", 6)])
    session = bench.begin(face=False)
    assert bench.desk.played.wait(60)
    wait_until("it is said", lambda: WORDS["frozen"] in session.faults(), 60, 0.05)
    bench.stop()
    session.close()


# --- the clock


def test_a_clock_that_is_set_is_a_leaf_with_its_size_and_moves_no_frame(bench: Bench) -> None:
    session = bench.begin(face=False)
    bench.clock.advance(10)
    session.note_findings()
    assert events(bench, "clock_step", "by_ms") == []
    bench.clock.step_wall(3600)
    session.note_findings()
    bench.clock.advance(20)
    bench.clock.step_wall(-7200.5)
    session.note_findings()
    session.note_findings()
    assert events(bench, "clock_step", "at_90k", "by_ms") == [(10, 3_600_000), (30, -7_200_500)]
    assert "the clock was set by -3600.5 s while recording" in session.faults()
    bench.stop()
    session.close()


def test_a_second_is_no_step_and_many_of_them_are() -> None:
    clock = ManualClock()
    watch = WallWatch(clock)
    clock.step_wall(1.0)
    assert watch.step_ms() is None
    clock.step_wall(0.4)
    assert watch.step_ms() == 1400
    clock.step_wall(-0.9)
    assert watch.step_ms() is None


def test_a_step_while_nobody_looked_is_found_by_the_next_life_and_noted_once(bench: Bench) -> None:
    row = bench.store.active_session()
    assert row is not None
    bench.clock.advance(5)
    bench.clock.step_wall(-60)
    assert WallWatch.of(row, BOOT, bench.clock, 0).step_ms() == -60_000
    assert WallWatch.of(row, BOOT, bench.clock, -60_000).step_ms() is None
    assert WallWatch.of(row, "c" * 32, bench.clock, 0).step_ms() is None
    session = bench.begin(face=False, after=Interruption(0, "restarted", clock_moved_ms=-50_000))
    session.note_findings()
    assert events(bench, "clock_step", "by_ms") == [(-10_000,)]
    bench.stop()
    session.close()


class Halting(ManualClock):
    """Stands still between two readings, as a process that was not scheduled."""

    def mono_ns(self) -> int:
        self.advance(5)
        return super().mono_ns()


def test_a_reading_that_took_too_long_says_nothing() -> None:
    watch = WallWatch(Halting(), 0)
    assert watch.step_ms() is None
