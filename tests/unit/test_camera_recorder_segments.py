"""What the recording process keeps: a segment a minute, each under a key of its own, that play as one film."""

from __future__ import annotations

import errno
import io
from itertools import pairwise

import av
import numpy as np
import pytest

from appliance.camera.encoder import FragmentEncoder
from appliance.camera.source import Frame
from appliance.errors import NoSpace
from appliance.evf import EpochKey, Outcome, RecordKind, SegmentReader, secret_at
from appliance.evf.wraps import open_wrap, read_wrap
from appliance.store.check import check_store
from tests.camera_recording import INIT, REPRESENTATIVE, Recording, S, disk, recording
from tests.troubled_disk import TroubledDisk
from tests.unit.test_store_builders import SID

__all__ = ["disk", "recording"]


def test_a_segment_a_minute_each_with_its_init_first(recording: Recording) -> None:
    recording.film(0, 150)
    recording.recorder.close(150 * S)
    init, fragment = RecordKind.INIT, RecordKind.FRAGMENT
    full = [init, *[fragment] * 30]
    assert recording.kinds() == [full, full, full[:16]]
    assert [segment.state for segment in recording.segments()] == ["closed"] * 3
    assert {recording.records(each)[0] for each in recording.segments()} == {Outcome.CLOSED}
    assert [segment.end_90k for segment in recording.segments()] == [60 * S, 120 * S, 150 * S]
    assert recording.gaps() == []
    recording.store.close()
    assert check_store(recording.root) == []


def test_no_two_segments_share_a_key(recording: Recording) -> None:
    recording.film(0, 70)
    recording.recorder.close(70 * S)
    first, second = recording.segments()
    evk = recording.store.layout.wrap(f"{SID}.0.media.evk").read_bytes()
    key = open_wrap(evk, REPRESENTATIVE, None)
    with recording.store.layout.segment(SID, second.name).open("rb") as stream:
        reader = SegmentReader(stream, lambda header: secret_at(key, header.track, first.seg))
        assert list(reader) == []
    assert reader.outcome is Outcome.CORRUPT
    assert recording.records(second)[0] is Outcome.CLOSED


def test_wraps_are_durable_before_the_first_record_and_the_epoch_keys_are_gone(
    recording: Recording, disk: TroubledDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F083: what is left in memory cannot open a segment that is closed."""
    made: list[EpochKey] = []
    generate = EpochKey.generate
    monkeypatch.setattr(EpochKey, "generate", lambda: made.append(generate()) or made[-1])
    disk.done.clear()
    recording.begin(0, "recording process restarted")
    recording.film(0, 2)
    wraps = [place for place, step in enumerate(disk.done) if step.startswith("rename") and "evk" in step]
    first = next(place for place, step in enumerate(disk.done) if step.startswith("create"))
    assert len(wraps) == 2
    assert max(wraps) < first
    assert len(made) == 2
    for key in made:
        assert not any(key._secret)
        with pytest.raises(ValueError, match="erased"):
            _ = key.secret


def test_wraps_name_session_policy_and_retention(recording: Recording) -> None:
    for cls in ("media", "log"):
        evk = recording.store.layout.wrap(f"{SID}.0.{cls}.evk").read_bytes()
        context, wraps = read_wrap(evk, recording.device_key.public_key())
        assert (context.sid, context.epoch, context.cls) == (SID, 0, cls)
        assert (context.policy_id, context.retain_until) == ("statistics-1", "2027-05-22")
        assert list(wraps) == [REPRESENTATIVE.kid]


def test_keys_that_cannot_be_kept_are_erased(recording: Recording, disk: TroubledDisk,
                                             monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    made: list[EpochKey] = []
    generate = EpochKey.generate
    monkeypatch.setattr(EpochKey, "generate", lambda: made.append(generate()) or made[-1])
    disk.refuse("write", code=errno.ENOSPC)
    with pytest.raises(NoSpace):
        recording.begin(0, "recording process restarted")
    assert made
    assert not any(any(key._secret) for key in made)


def encode(recording: Recording, start_s: float, seconds: float) -> None:
    encoder = FragmentEncoder(160, 120, 15, 200_000)
    init = INIT
    pictures = range(round(seconds * 15))
    for number in pictures:
        image = np.full((120, 160, 3), number * 5 % 256, np.uint8)
        time_90k = round((start_s + number / 15) * S)
        finished = encoder.encode(Frame.from_bgr(image, 0, number + 1), time_90k)
        for each in [*finished, *(encoder.flush() if number == pictures[-1] else [])]:
            if each.kind == "init":
                init = each
            else:
                assert recording.recorder.fragment(each, init, encoder.codec)


def test_two_epochs_play_as_one_film_with_the_gap_between(recording: Recording) -> None:
    """Each epoch's film opens with the representative's key; behind one init all fragments play."""
    encode(recording, 0, 4)
    recording.recorder.close(4 * S)
    recording.begin(4 * S, "node restarted")
    encode(recording, 9, 4)
    recording.recorder.close(13 * S)
    film = io.BytesIO()
    for number, segment in enumerate(recording.segments()):
        for kind, plain in recording.records(segment)[1]:
            if kind is RecordKind.FRAGMENT or (kind is RecordKind.INIT and number == 0):
                film.write(plain)
    film.seek(0)
    with av.open(film) as container:
        times = [float(frame.time) for frame in container.decode(container.streams.video[0])]
    assert len(times) == 120
    assert times[0] == 0
    assert max(later - earlier for earlier, later in pairwise(times)) == pytest.approx(9 - 59 / 15)
    assert {segment.epoch for segment in recording.segments()} == {0, 1}
    assert recording.gaps() == [(4, 9, "node restarted")]
