"""A disk that refuses costs what it refused and no more, and what is missing is named."""

from __future__ import annotations

import errno

import pytest

from appliance.camera.recorder import CAMERA_SILENT
from appliance.errors import StoreFailed
from appliance.evf import Outcome, RecordKind
from appliance.store.check import check_store
from appliance.store.recording import RecordingStore
from appliance.store.view import RecordingView
from tests.camera_recording import Recording, S, disk, recording
from tests.troubled_disk import TroubledDisk
from tests.unit.test_store_builders import SID

__all__ = ["disk", "recording"]


@pytest.mark.parametrize("step", ["write", "fdatasync", "commit"])
def test_after_a_write_error_the_fragment_goes_into_a_new_segment(
    recording: Recording, disk: TroubledDisk, step: str
) -> None:
    recording.film(0, 4)
    disk.refuse(step, times=1)
    assert recording.film(4, 8) == [True, True]
    recording.recorder.close(8 * S)
    first, second = recording.segments()
    assert (first.state, second.state) == ("open_ended", "closed")
    assert recording.records(first)[0] is Outcome.OPEN_ENDED
    assert recording.records(second)[0] is Outcome.CLOSED
    footage = [
        plain for each in (first, second)
        for kind, plain in recording.records(each)[1] if kind is RecordKind.FRAGMENT
    ]  # fmt: skip
    assert [plain[:15] for plain in footage] == [f"fragment at {at}.0".encode()[:15] for at in (0, 2, 4, 6)]
    assert recording.records(second)[1][0][0] is RecordKind.INIT
    assert recording.gaps() == []
    recording.store.close()
    assert check_store(recording.root) == []


@pytest.mark.parametrize(
    ("code", "cause"), [(errno.ENOSPC, "disk full"), (errno.EIO, "storage write failed")]
)
def test_a_disk_that_refuses_for_a_while_makes_one_gap_and_recording_goes_on(
    recording: Recording, disk: TroubledDisk, code: int, cause: str
) -> None:
    recording.film(0, 4)
    disk.refuse("write", code=code)
    assert recording.film(4, 10) == [False] * 3
    disk.refuse("")
    assert recording.film(10, 14) == [True, True]
    recording.recorder.close(14 * S)
    assert recording.gaps() == [(4, 10, cause)]
    recording.store.close()
    # Files that were begun and not taken have no row; the next start puts them aside.
    RecordingStore(recording.root, recording.clock).close()
    assert [each for each in check_store(recording.root) if not each.where.startswith("quarantine/")] == []


def test_footage_that_is_refused_in_the_first_seconds_is_a_gap_and_no_slow_camera(
    recording: Recording, disk: TroubledDisk
) -> None:
    """A camera may take three seconds to its first frame; what came and was refused is none of that."""
    disk.refuse("write")
    assert recording.film(0, 2) == [False]
    disk.refuse("")
    assert recording.film(2, 6) == [True, True]
    recording.recorder.close(6 * S)
    assert recording.gaps() == [(0, 2, "storage write failed")]


@pytest.mark.parametrize(("step", "files"), [("commit", 1), ("write", 0)])
def test_a_new_segment_whose_commit_is_refused_keeps_its_file(
    recording: Recording, disk: TroubledDisk, step: str, files: int
) -> None:
    """Its row might stand all the same, and would name a file that is not there."""
    disk.refuse(step, times=1)
    assert recording.film(0, 2) == [False]
    assert len(list(recording.store.layout.segments.glob("*/0-video-*"))) == files


def test_a_disk_that_takes_nothing_to_the_end_is_named_when_it_takes_something(
    recording: Recording, disk: TroubledDisk
) -> None:
    recording.film(0, 4)
    disk.refuse("commit")
    assert recording.film(4, 8) == [False, False]
    recording.recorder.close(8 * S)
    assert recording.gaps() == []
    with pytest.raises(StoreFailed):
        recording.recorder.notes.settle()
    disk.refuse("")
    recording.recorder.notes.settle()
    assert recording.gaps() == [(4, 8, "storage write failed")]
    assert recording.events() == ["epoch_open", "epoch_close"]
    recording.store.end_session(SID, "2026-11-22T10:00:00.000Z")
    assert [segment.state for segment in recording.segments()] == ["open_ended"]


def test_a_gap_that_cannot_be_written_costs_no_footage_and_is_written_later(
    recording: Recording, disk: TroubledDisk
) -> None:
    recording.film(0, 4)
    disk.refuse("commit", times=1)
    assert recording.film(10, 12) == [True]
    assert recording.gaps() == [(4, 10, CAMERA_SILENT)]
    assert [segment.state for segment in recording.segments()] == ["open"]


def test_an_event_that_cannot_be_written_costs_no_footage_and_keeps_its_time(
    recording: Recording, disk: TroubledDisk
) -> None:
    recording.film(0, 4)
    disk.refuse("commit", times=1)
    recording.recorder.notes.event("camera_lost", cause="cable")
    at = recording.clock.wall()
    assert recording.events() == ["epoch_open"]
    recording.clock.advance(3)
    assert recording.film(7, 9) == [True]
    view = RecordingView(recording.root)
    lost = view.events(SID)[-1].body
    view.close()
    assert lost["kind"] == "camera_lost"
    assert lost["at"] == at.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def test_control_a_healthy_disk_needs_one_segment(recording: Recording) -> None:
    assert recording.film(0, 8) == [True] * 4
    assert len(recording.segments()) == 1


def test_a_segment_that_cannot_be_sealed_stays_open_ended(recording: Recording, disk: TroubledDisk) -> None:
    recording.film(0, 4)
    disk.refuse("fdatasync", times=1)
    recording.recorder.close(4 * S)
    assert [segment.state for segment in recording.segments()] == ["open_ended"]
    assert recording.gaps() == []


def test_a_disk_that_refuses_even_the_closing_of_a_segment_loses_nothing(
    recording: Recording, disk: TroubledDisk
) -> None:
    """Three refused commits: the record, the row's end, the next segment; then it goes on."""
    recording.film(0, 4)
    disk.refuse("commit", times=3)
    assert recording.film(4, 6) == [False]
    assert recording.film(6, 8) == [True]
    recording.recorder.close(8 * S)
    assert [segment.state for segment in recording.segments()] == ["open_ended", "closed"]
    assert recording.gaps() == [(4, 6, "storage write failed")]
    recording.store.end_session(SID, "2026-11-22T10:00:00.000Z")
    assert "open" not in [segment.state for segment in recording.segments()]
    recording.store.close()
    again = RecordingStore(recording.root, recording.clock)
    again.close()
    assert check_store(recording.root) == []
