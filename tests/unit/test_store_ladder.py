"""The degrade ladder: when room on the disk runs short, what goes first, and what never goes."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import av
import numpy as np
import pytest
from gpiozero.pins.mock import MockFactory

from appliance.camera.encoder import Fragment, FragmentEncoder
from appliance.camera.inbox import Captured
from appliance.camera.pictures import Pictures, WatchLease
from appliance.camera.source import Frame
from appliance.errors import CameraUnavailable
from appliance.store.check import check_store
from appliance.store.ladder import BACK_FACTOR, FAULTS, LIMITS, Ladder, Step
from appliance.store.recording import RecordingStore
from appliance.store.reserve import KEPT_FOR_ROWS_BYTES
from appliance.store.space import required_bytes
from appliance.store.view import RecordingView
from tests.manual_clock import ManualClock
from tests.troubled_disk import TroubledDisk
from tests.unit.test_camera_capture import RATE_HZ, StandIn
from tests.unit.test_camera_capture import film as seconds
from tests.unit.test_camera_session import Bench, bench
from tests.unit.test_store_builders import SID, new_session

__all__ = ["bench"]

S = 90_000
PLANNED_S = 7200.0
BITRATE_BPS = 1_200_000
BYTES_S = BITRATE_BPS // 8


def ladder(bitrate_bps: int = BITRATE_BPS) -> Ladder:
    made = Ladder(PLANNED_S, BITRATE_BPS)
    for _ in range(40):
        made.measure(bitrate_bps // 4, 2 * S)
    return made


def step_at(made: Ladder, beyond_s: float, elapsed_s: float = 3600.0) -> Step:
    """The step where the film can last `beyond_s` longer than planned, at the policy's bitrate."""
    made.decide(round((PLANNED_S - elapsed_s + beyond_s) * BYTES_S), elapsed_s)
    return made.step


# --- the rule ---------------------------------------------------------------------------------------------------------


def test_a_session_armed_on_a_full_disk_begins_with_everything() -> None:
    """What is reserved (F146) is above every limit, from the first fragment to the planned end."""
    for planned_s in (60, 600, 3600, 7200, 24 * 3600):
        made = Ladder(planned_s, BITRATE_BPS)
        room_bytes = required_bytes(planned_s, BITRATE_BPS)
        for at_s in range(0, planned_s, max(2, planned_s // 50)):
            made.measure(BITRATE_BPS // 4, 2 * S)
            made.decide(room_bytes - at_s * BYTES_S, at_s)
            assert made.step is Step.NORMAL, (planned_s, at_s)


def test_what_goes_first_as_room_shrinks() -> None:
    made, seen = ladder(), []
    for beyond_s in range(1500, -60, -10):
        if step_at(made, beyond_s) not in seen:
            seen.append(made.step)
    assert seen == [Step.NORMAL, Step.PREVIEW_OFF, Step.LOWER_BITRATE, Step.ALARM]


def test_limits_stand_in_order_and_each_leaves_time_to_act() -> None:
    beyond_s = [limit.beyond_s for limit in LIMITS]
    assert [limit.step for limit in LIMITS] == [Step.ALARM, Step.LOWER_BITRATE, Step.PREVIEW_OFF]
    assert beyond_s == sorted(beyond_s)
    assert LIMITS[-1].of_planned * BACK_FACTOR < 0.25, (
        "what is reserved beyond the plan ends every step again"
    )


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.step.word)
def test_a_film_that_wavers_about_a_limit_does_not_flap(limit: object) -> None:
    made = ladder()
    at_s = limit.beyond_s  # type: ignore[attr-defined]
    changes = 0
    for number in range(100):
        before = made.step
        step_at(made, at_s + (20 if number % 2 else -20))
        changes += made.step is not before
    assert changes == 1
    assert step_at(made, BACK_FACTOR * 600 + 1) is Step.NORMAL  # control: with enough room it ends


def test_room_saved_by_a_lower_bitrate_does_not_end_the_lower_bitrate() -> None:
    made = ladder()
    assert step_at(made, 200) is Step.LOWER_BITRATE
    room_bytes = round((PLANNED_S - 3600 + 200) * BYTES_S)
    for _ in range(60):
        made.measure(BITRATE_BPS // 8, 2 * S)
        assert not made.decide(room_bytes, 3600)
    assert made.measured_bps == pytest.approx(BITRATE_BPS / 2, rel=0.01)
    assert made.beyond_s > BACK_FACTOR * 600, "control: at the measured bitrate there is room enough"


def test_beyond_the_plan_the_room_itself_counts() -> None:
    made = ladder()
    steps = []
    for lasts_s in (700, 500, 200, 60):
        made.decide(lasts_s * BYTES_S, PLANNED_S + 900)
        steps.append(made.step)
    assert steps == [Step.NORMAL, Step.PREVIEW_OFF, Step.LOWER_BITRATE, Step.ALARM]


def test_a_busier_picture_than_planned_is_measured() -> None:
    room_bytes = required_bytes(3600, BITRATE_BPS)
    calm, busy = ladder(), ladder(round(BITRATE_BPS * 1.3))
    calm.decide(room_bytes, PLANNED_S - 3600)
    busy.decide(room_bytes, PLANNED_S - 3600)
    assert (calm.step, busy.step) == (Step.NORMAL, Step.ALARM)
    assert busy.beyond_s < 0


def test_only_the_last_minute_is_measured() -> None:
    made = ladder()
    for _ in range(30):
        made.measure(1000, 2 * S)
    assert made.measured_bps == 4000
    assert Ladder(10, 99).measured_bps == 99


def test_every_step_but_the_first_is_said_in_words() -> None:
    assert set(FAULTS) == set(Step) - {Step.NORMAL}
    assert "nothing is deleted" in FAULTS[Step.ALARM]


# --- the film ---------------------------------------------------------------------------------------------------------


def noise(number: int, width_px: int = 320, height_px: int = 180) -> Frame:
    image = np.random.default_rng(number % 5).integers(0, 255, (height_px, width_px, 3), np.uint8)
    return Frame.from_bgr(image, number, number + 1)


def film(encoder: FragmentEncoder, first: int, frames: int) -> list[Fragment]:
    return [piece for k in range(first, first + frames) for piece in encoder.encode(noise(k), k * 6000)]


def bitrates(fragments: list[Fragment]) -> list[float]:
    return [len(piece.data) * 8 * S / piece.duration_90k for piece in fragments]


def test_the_film_decodes_across_the_change_behind_one_init() -> None:
    encoder = FragmentEncoder(320, 180, bitrate_bps=300_000)
    pieces = film(encoder, 0, 150)
    encoder.set_bitrate(150_000)
    pieces += film(encoder, 150, 150)
    encoder.set_bitrate(300_000)
    pieces += film(encoder, 300, 150) + encoder.flush()
    inits = [piece for piece in pieces if piece.kind == "init"]
    fragments = [piece for piece in pieces if piece.kind == "fragment"]
    assert len(inits) == 1
    assert [piece.time_90k for piece in fragments] == [k * 2 * S for k in range(15)], "changed at a boundary"
    high, low, again = (bitrates(fragments[at:to]) for at, to in ((2, 5), (7, 10), (12, 15)))
    assert max(low) < 0.7 * min(high)
    assert max(low) < 0.8 * min(again)
    with av.open(io.BytesIO(b"".join(piece.data for piece in pieces))) as opened:
        pictures = list(opened.decode(opened.streams.video[0]))
    assert [picture.pts for picture in pictures] == [k * 6000 for k in range(450)]
    assert {(picture.width, picture.height) for picture in pictures} == {(320, 180)}


def test_a_camera_opened_again_at_the_lower_bitrate_joins_the_same_film() -> None:
    first = FragmentEncoder(320, 180, bitrate_bps=300_000)
    before = film(first, 0, 60) + first.flush()
    second = FragmentEncoder(320, 180, bitrate_bps=300_000)
    second.set_bitrate(150_000)
    after = film(second, 60, 120) + second.flush()
    assert before[0].data == after[0].data
    with av.open(io.BytesIO(b"".join(piece.data for piece in [*before, *after[1:]]))) as opened:
        assert len(list(opened.decode(opened.streams.video[0]))) == 180
    assert bitrates(after[3:])[0] < 0.7 * bitrates(before[1:])[0]


def test_control_an_encoder_opened_at_another_bitrate_has_another_init() -> None:
    """Why the bitrate is changed inside the encoder: btrt, and at small pictures the level, would differ."""
    inits = [film(FragmentEncoder(320, 180, bitrate_bps=rate), 0, 1)[0].data for rate in (300_000, 150_000)]
    assert inits[0] != inits[1]


def test_the_capture_thread_takes_the_bitrate_also_after_the_camera_came_back(
    pins: MockFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either camera's encoder, before each of its frames."""
    desk = StandIn(pins, [*seconds(0, 2), CameraUnavailable("gone")], seconds(10, 2))
    taken: list[list[int]] = []

    class Watched(FragmentEncoder):
        def __init__(self, *settings: int) -> None:
            taken.append([])
            super().__init__(*settings)

        def set_bitrate(self, bitrate_bps: int) -> None:
            taken[-1].append(bitrate_bps)
            super().set_bitrate(bitrate_bps)

    monkeypatch.setattr("appliance.camera.capture.FragmentEncoder", Watched)
    capture = desk.capture()
    capture.set_bitrate(100_000)
    capture.start()
    assert desk.played.wait(60)
    capture.ask_to_stop()
    desk.go_on.set()
    capture.join(60)
    assert taken == [[100_000] * 2 * RATE_HZ] * 2
    assert len(desk.fragments) == 2


def test_no_preview_while_room_runs_short() -> None:
    clock, shown = ManualClock(), []
    lease = WatchLease(clock)
    pictures = Pictures(None, 0.2, lease, shown.append)
    lease.renew("still", 10)
    pictures.allow_preview(False)
    clock.advance(2)
    pictures.show(noise(1))
    assert shown == []
    pictures.allow_preview(True)
    pictures.show(noise(2))  # control
    assert len(shown) == 1


# --- the session ------------------------------------------------------------------------------------------------------


class Shrinking(TroubledDisk):
    """A disk whose free room the test says; with `None` it does not answer."""

    free: int | None = 1 << 40

    def free_bytes(self, path: Path) -> int:
        if self.free is None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.free


def told(bench: Bench) -> list[tuple[str, int]]:
    view = RecordingView(bench.root)
    found = [
        (event.body["step"], event.body["beyond_plan_s"])
        for event in view.events(SID)
        if event.body["kind"] == "room_on_disk"
    ]
    view.close()
    return found


def test_each_step_is_a_leaf_and_a_sentence_and_nothing_is_deleted(bench: Bench) -> None:
    disk = Shrinking()
    bench.store._reserve._file_ops = disk  # type: ignore[assignment]
    session = bench.begin()
    planned_s = session._policy.duration_s
    bitrate_bps = session._policy.video.bitrate_bps

    def filmed(at_s: float, lasts_s: float) -> list[str]:
        left_s = max(0.0, planned_s - at_s - 2)
        disk.free = round((left_s + lasts_s) * bitrate_bps / 8) + (1 << 20)
        captured = bench.filmed(at_s)
        data = bytes(bitrate_bps // 4)
        fragment = Fragment("fragment", data, captured.fragment.time_90k, 2 * S, True, 30)
        session.take(Captured(fragment, captured.init, captured.codec))
        return [fault for fault in session.faults() if fault in FAULTS.values()]

    limits = {limit.step: min(limit.beyond_s, limit.of_planned * planned_s) for limit in LIMITS}
    said = [filmed(0, 10 * limits[Step.PREVIEW_OFF])]
    said += [filmed(2 * n, limits[step] - 1) for n, step in enumerate(list(Step)[1:], start=1)]
    assert said == [[], *([FAULTS[step]] for step in list(Step)[1:])]
    assert [step for step, _ in told(bench)] == ["preview_off", "lower_bitrate", "alarm"]
    assert session._capture._bitrate_bps == bitrate_bps // 2
    disk.free = None
    assert session.take(bench.filmed(8)), "a disk that does not say what is free records on"
    assert filmed(10, 10 * limits[Step.PREVIEW_OFF]) == []
    assert told(bench)[-1][0] == "normal"
    assert session._capture._bitrate_bps == bitrate_bps
    bench.store.close()
    assert check_store(bench.root) == []
    view = RecordingView(bench.root)
    assert view.totals(SID).fragments == 6
    view.close()


def test_room_that_footage_counts_on_is_the_reserve_without_what_rows_keep(tmp_path: Path) -> None:
    disk = Shrinking()
    store = RecordingStore(tmp_path, ManualClock(), disk)
    disk.free = 1 << 30
    assert store.footage_bytes_left() == (1 << 30) - (1 << 20)
    store.begin_session(new_session(), footage_bytes=40 << 20)
    disk.free = 0
    assert store.footage_bytes_left() == (40 << 20) + (16 << 20) - KEPT_FOR_ROWS_BYTES
    store.close()
