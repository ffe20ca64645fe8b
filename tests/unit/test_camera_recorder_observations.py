"""Observations stand in the log track, under the log's key, also on a failing disk."""

from __future__ import annotations

import json

from appliance.evf import RecordKind
from tests.camera_recording import REPORT, Recording, S, disk, recording
from tests.troubled_disk import TroubledDisk

__all__ = ["disk", "recording"]


def test_observations_stand_in_the_log_track_under_the_log_key(recording: Recording) -> None:
    assert recording.recorder.observation(0, REPORT, 3 * S)
    recording.recorder.close(4 * S)
    [segment] = recording.segments("log")
    assert segment.cls == "log"
    [(kind, plain), *_] = recording.records(segment)[1]
    assert kind is RecordKind.EVENT
    assert json.loads(plain) == {"number": 0, "report": REPORT}


def test_the_log_track_turns_to_a_new_segment_after_a_minute_even_when_nothing_follows(
    recording: Recording,
) -> None:
    recording.recorder.observation(0, REPORT, 0)
    recording.film(0, 60)
    assert [segment.state for segment in recording.segments("log")] == ["closed"]
    recording.recorder.observation(1, REPORT, 60 * S)
    recording.recorder.observation(2, REPORT, 119 * S)
    recording.recorder.observation(3, REPORT, 121 * S)
    assert [(each.seg, each.state) for each in recording.segments("log")] == [
        (0, "closed"), (1, "closed"), (2, "open"),
    ]  # fmt: skip


def test_an_observation_survives_one_write_error(recording: Recording, disk: TroubledDisk) -> None:
    recording.recorder.observation(0, REPORT, 0)
    disk.refuse("fdatasync", times=1)
    assert recording.recorder.observation(1, REPORT, S)
    disk.refuse("fdatasync")
    assert not recording.recorder.observation(2, REPORT, 2 * S)
    disk.refuse("")
    assert recording.film(2, 4) == [True]
