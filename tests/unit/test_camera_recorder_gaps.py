"""Time without footage is a gap with its cause, durable before the footage behind it."""

from __future__ import annotations

import pytest

from appliance.camera.recorder import CAMERA_SILENT
from tests.camera_recording import Recording, S, disk, recording
from tests.troubled_disk import TroubledDisk

__all__ = ["disk", "recording"]


@pytest.mark.parametrize(("first_s", "gaps"), [(2.9, []), (3.1, [(0, 3.1, "camera was starting")])])
def test_a_camera_may_take_three_seconds_to_start(
    recording: Recording, first_s: float, gaps: list[object]
) -> None:
    recording.film(first_s, first_s + 2)
    assert recording.gaps() == gaps


@pytest.mark.parametrize(("pause_s", "named"), [(0.4, False), (0.5, True), (30.0, True)])
def test_silence_between_two_fragments_is_a_gap(recording: Recording, pause_s: float, named: bool) -> None:
    recording.film(0, 4)
    recording.film(4 + pause_s, 8 + pause_s)
    recording.recorder.close(round((8 + pause_s) * S))
    assert recording.gaps() == ([(4.0, 4 + pause_s, CAMERA_SILENT)] if named else [])


def test_a_lost_camera_is_named_once_and_the_next_silence_is_not_blamed_on_it(recording: Recording) -> None:
    recording.film(0, 4)
    recording.recorder.note_gap_cause("camera lost: cable")
    recording.film(10, 14)
    recording.film(20, 22)
    assert recording.gaps() == [(4, 10, "camera lost: cable"), (14, 20, CAMERA_SILENT)]


def test_what_is_missing_at_the_end_is_named(recording: Recording) -> None:
    recording.film(0, 4)
    recording.recorder.note_gap_cause("camera lost: cable")
    recording.recorder.close(60 * S)
    assert recording.gaps() == [(4, 60, "camera lost: cable")]
    assert recording.events() == ["epoch_open", "epoch_close"]


def test_a_session_without_any_fragment_is_one_gap(recording: Recording) -> None:
    recording.recorder.close(60 * S)
    assert recording.gaps() == [(0, 60, "camera was starting")]


def test_an_interruption_is_named_however_short(recording: Recording) -> None:
    recording.film(0, 4)
    recording.begin(4 * S, "recording process restarted")
    recording.film(4.1, 6)
    assert recording.gaps() == [(4, 4.1, "recording process restarted")]


def test_the_gap_is_durable_before_the_footage_behind_it(recording: Recording, disk: TroubledDisk) -> None:
    """A crash between the two must not leave a hole that nobody named."""
    recording.film(0, 4)
    disk.refuse("fdatasync", times=2)
    assert recording.film(10, 12) == [False]
    assert recording.gaps() == [(4, 10, CAMERA_SILENT)]
    recording.film(12, 14)
    assert recording.gaps() == [(4, 10, CAMERA_SILENT), (10, 12, "storage write failed")]
