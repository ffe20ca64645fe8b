"""What the recording process keeps of a session: segments, gaps, events and observations, also on a failing disk."""

from __future__ import annotations

import errno
import io
import json
import os
import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.camera.encoder import Fragment, FragmentEncoder
from appliance.camera.recorder import CAMERA_SILENT, EpochRecorder
from appliance.camera.source import Frame
from appliance.camera.timeline import Timeline
from appliance.errors import NoSpace, StoreFailed
from appliance.evf import EpochKey, Outcome, RecordKind, SegmentReader, secret_at
from appliance.evf.recipients import RecipientSet, RepresentativeKey
from appliance.evf.wraps import open_wrap, read_wrap
from appliance.store.check import check_store
from appliance.store.durable import OPERATING_SYSTEM, FileOps
from appliance.store.recording import RecordingStore, SessionRow
from appliance.store.rows import SegmentRow
from appliance.store.view import RecordingView
from tests.manual_clock import ManualClock
from tests.unit.test_store_builders import BOOT, SID, new_session

S = 90_000
REPRESENTATIVE = RepresentativeKey(b"\x01" * 32)
RECIPIENTS = RecipientSet("uni", 1, "2026-11-01T09:00:00.000Z", (REPRESENTATIVE.representative("Board"),))
INIT = Fragment("init", b"init" * 50, 0, 0, False, 0)
CODEC = "avc1.42c01f"
REPORT = {"kind": "nobody_at_desk", "phase": "opened"}


class TroubledDisk(FileOps):
    """Notes what is done, and refuses a step of its choice while `refusals` lasts."""

    def __init__(self) -> None:
        self.step = ""
        self.code = errno.EIO
        self.refusals = 0
        self.done: list[str] = []

    def refuse(self, step: str, times: int = 10**6, code: int = errno.EIO) -> None:
        self.step, self.refusals, self.code = step, times, code

    def _meet(self, step: str) -> None:
        if step == self.step and self.refusals > 0:
            self.refusals -= 1
            if step == "commit":
                raise sqlite3.OperationalError("disk I/O error")
            raise OSError(self.code, os.strerror(self.code))
        self.done.append(step)

    def create(self, path: Path) -> int:
        self._meet(f"create {path.name}")
        return super().create(path)

    def write(self, fd: int, data: memoryview) -> int:
        self._meet("write")
        return super().write(fd, data)

    def fdatasync(self, fd: int) -> None:
        self._meet("fdatasync")
        super().fdatasync(fd)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._meet(f"rename {target.name}")

    def commit(self, connection: sqlite3.Connection) -> None:
        self._meet("commit")
        super().commit(connection)


class Recording:
    """A session at a desk whose lives (epochs) come and go."""

    def __init__(self, root: Path, disk: FileOps = OPERATING_SYSTEM) -> None:
        self.root = root
        self.clock = ManualClock()
        self.device_key = Ed25519PrivateKey.generate()
        self.store = RecordingStore(root, self.clock, disk)
        self.store.begin_session(new_session())
        self.recorder = self.begin(None, "camera was starting")

    @property
    def row(self) -> SessionRow:
        row = self.store.active_session()
        assert row is not None
        return row

    def begin(self, covered_90k: int | None, cause: str) -> EpochRecorder:
        self.recorder = EpochRecorder(
            self.store, self.row, RECIPIENTS, self.device_key, self.clock, BOOT,
            covered_until_90k=covered_90k, gap_cause=cause,
        )  # fmt: skip
        return self.recorder

    def film(self, start_s: float, end_s: float) -> list[bool]:
        """Fragments of 2 s; True for each that became durable."""
        kept = []
        at = start_s
        while at < end_s:
            length = min(2.0, end_s - at)
            data = f"fragment at {at:.1f}".encode() * 20
            fragment = Fragment("fragment", data, round(at * S), round(length * S), True, 30)
            kept.append(self.recorder.fragment(fragment, INIT, CODEC))
            self.clock.advance(length)
            at += length
        return kept

    def segments(self, track: str = "video") -> list[SegmentRow]:
        view = RecordingView(self.root)
        try:
            return [segment for segment in view.segments(SID) if segment.track == track]
        finally:
            view.close()

    def gaps(self) -> list[tuple[float, float, str]]:
        view = RecordingView(self.root)
        try:
            return [(gap.start_90k / S, gap.end_90k / S, gap.cause) for gap in view.gaps(SID)]
        finally:
            view.close()

    def events(self) -> list[str]:
        view = RecordingView(self.root)
        try:
            return [event.body["kind"] for event in view.events(SID)]
        finally:
            view.close()

    def records(self, segment: SegmentRow) -> tuple[Outcome, list[tuple[RecordKind, bytes]]]:
        """Opened with the representative's key, as the institution would."""
        evk = self.store.layout.wrap(f"{SID}.{segment.epoch}.{segment.cls}.evk").read_bytes()
        key: EpochKey = open_wrap(evk, REPRESENTATIVE, self.device_key.public_key())
        with self.store.layout.segment(SID, segment.name).open("rb") as stream:
            reader = SegmentReader(stream, lambda header: secret_at(key, header.track, header.seg))
            found = [(record.kind, bytes(record.plaintext)) for record in reader]
        return reader.outcome, found

    def kinds(self, track: str = "video") -> list[list[RecordKind]]:
        return [[kind for kind, _ in self.records(each)[1]] for each in self.segments(track)]


@pytest.fixture
def disk() -> TroubledDisk:
    return TroubledDisk()


@pytest.fixture
def recording(tmp_path: Path, disk: TroubledDisk) -> Iterator[Recording]:
    made = Recording(tmp_path, disk)
    yield made
    made.store.close()


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


# --- gaps


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


# --- write errors


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
    assert [segment.state for segment in recording.segments()][::2] != ["open"]
    assert recording.gaps() == [(4, 6, "storage write failed")]
    recording.store.end_session(SID, "2026-11-22T10:00:00.000Z")
    assert "open" not in [segment.state for segment in recording.segments()]
    recording.store.close()
    again = RecordingStore(recording.root, recording.clock)
    again.close()
    assert check_store(recording.root) == []


# --- observations


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


# --- the film


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


# --- session time


def test_session_time_is_monotonic_within_a_boot(recording: Recording) -> None:
    recording.clock.step_wall(3600)
    timeline = Timeline.of(recording.row, BOOT, recording.clock, 0)
    assert timeline.at_90k(recording.row.started_mono_ns + 2 * 10**9) == 2 * S


def test_after_a_reboot_the_wall_clock_bridges_once(recording: Recording) -> None:
    recording.clock.advance(600)
    recording.clock.now_mono_ns = 7 * 10**9  # seven seconds after boot
    timeline = Timeline.of(recording.row, "c" * 32, recording.clock, 60 * S)
    assert timeline.at_90k(7 * 10**9) == 600 * S
    recording.clock.step_wall(-3600)
    assert timeline.at_90k(9 * 10**9) == 602 * S
    assert not timeline.clock_was_behind


def test_after_a_reboot_with_a_clock_that_went_back_no_time_comes_twice(recording: Recording) -> None:
    recording.clock.step_wall(-600)
    timeline = Timeline.of(recording.row, "c" * 32, recording.clock, 60 * S)
    assert timeline.clock_was_behind
    assert timeline.at_90k(recording.clock.mono_ns()) == 60 * S
