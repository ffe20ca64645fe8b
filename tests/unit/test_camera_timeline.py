"""Session time: monotonic within a boot, bridged once by the wall clock over a reboot, never twice the same."""

from __future__ import annotations

from appliance.camera.timeline import Timeline
from tests.camera_recording import Recording, S, disk, recording
from tests.unit.test_store_builders import BOOT

__all__ = ["disk", "recording"]


def test_session_time_is_monotonic_within_a_boot(recording: Recording) -> None:
    recording.clock.step_wall(3600)
    origin_ns = recording.store.origin(recording.row, BOOT)
    assert origin_ns is not None
    timeline = Timeline(origin_ns)
    assert timeline.at_90k(recording.row.started_mono_ns + 2 * 10**9) == 2 * S


def test_after_a_reboot_the_wall_clock_bridges_once(recording: Recording) -> None:
    recording.clock.advance(600)
    recording.clock.now_mono_ns = 7 * 10**9  # seven seconds after boot
    timeline = Timeline.bridged(recording.row, recording.clock, 60 * S)
    assert timeline.at_90k(7 * 10**9) == 600 * S
    recording.clock.step_wall(-3600)
    assert timeline.at_90k(9 * 10**9) == 602 * S
    assert not timeline.clock_was_behind


def test_after_a_reboot_with_a_clock_that_went_back_no_time_comes_twice(recording: Recording) -> None:
    recording.clock.step_wall(-600)
    timeline = Timeline.bridged(recording.row, recording.clock, 60 * S)
    assert timeline.clock_was_behind
    assert timeline.at_90k(recording.clock.mono_ns()) == 60 * S
