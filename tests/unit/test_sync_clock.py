"""The desk's estimate of the room's time (F094: a node out of sync is not armed)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from appliance.sync.room_clock import FRESH_S, RoomClock
from tests.manual_clock import ManualClock


def hear(room: RoomClock, clock: ManualClock, ahead_s: float = 0.0, late_s: float = 0.0) -> None:
    """The controller, `ahead_s` ahead of the desk, spoke `late_s` ago."""
    room.heard(clock.wall() + timedelta(seconds=ahead_s - late_s), clock.mono_ns())


def test_unheard_room_is_not_in_sync() -> None:
    reading = RoomClock(ManualClock()).reading()
    assert (reading.offset_s, reading.synced) == (None, False)


@pytest.mark.parametrize(
    ("ahead_s", "synced"), [(0.0, True), (0.49, True), (0.51, False), (-0.51, False), (3600, False)]
)
def test_offset_decides(ahead_s: float, synced: bool) -> None:
    clock = ManualClock()
    room = RoomClock(clock)
    hear(room, clock, ahead_s)
    assert room.reading().offset_s == pytest.approx(ahead_s)
    assert room.reading().synced is synced


def test_room_not_heard_for_half_a_minute_is_not_in_sync() -> None:
    clock = ManualClock()
    room = RoomClock(clock)
    hear(room, clock)
    clock.advance(FRESH_S - 1)
    assert room.reading().synced
    clock.advance(1)
    assert not room.reading().synced
    hear(room, clock)
    assert room.reading().synced


def test_late_messages_do_not_move_the_estimate() -> None:
    clock = ManualClock()
    room = RoomClock(clock)
    for late_s in (0.8, 0.002, 1.5, 0.7):
        hear(room, clock, 0.1, late_s)
        clock.advance(2)
    assert room.reading().offset_s == pytest.approx(0.098)


def test_step_of_the_own_clock_shows_at_once() -> None:
    clock = ManualClock()
    room = RoomClock(clock)
    hear(room, clock)
    assert room.reading().stepped_s is None
    clock.step_wall(3600)
    reading = room.reading()
    assert reading.offset_s == pytest.approx(-3600)
    assert not reading.synced
    assert reading.stepped_s == pytest.approx(3600)
    clock.advance(299)
    assert room.reading().stepped_s == pytest.approx(3600)
    clock.advance(2)
    assert room.reading().stepped_s is None


def test_time_passing_is_no_step() -> None:
    clock = ManualClock()
    room = RoomClock(clock)
    for _ in range(100):
        clock.advance(7200)
        assert room.reading().stepped_s is None
