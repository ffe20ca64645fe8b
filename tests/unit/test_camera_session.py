"""One running session: what its items become, and an end that a failing disk delays but does not lose."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gpiozero
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from gpiozero.pins.mock import MockFactory

from appliance.camera.encoder import Fragment
from appliance.camera.inbox import CameraBack, CameraLost, Captured, FragmentRefused, Observed, ObserverGone
from appliance.camera.pictures import WatchLease
from appliance.camera.session import Equipment, Interruption, RunningSession
from appliance.errors import CameraUnavailable, StoreFailed
from appliance.evf.recipients import RecipientSet
from appliance.local_link import Message
from appliance.policy import Accommodation
from appliance.protocol import ObservationReport
from appliance.store.recording import RecordingStore
from appliance.store.view import RecordingView
from tests.camera_recording import RECIPIENTS
from tests.manual_clock import ManualClock
from tests.troubled_disk import TroubledDisk
from tests.unit.test_camera_capture import VIDEO, StandIn
from tests.unit.test_store_builders import BOOT, SID, new_session
from tests.unit.test_sync_room import policy

S = 90_000
INIT = Fragment("init", b"init" * 50, 0, 0, False, 0)
REPORT = ObservationReport(
    kind="nobody_at_desk", words="nobody at the desk", phase="opened", start_90k=0, end_90k=None,
    duration_s=1, level="red", rule="r", measured={},
)  # fmt: skip


class Bench:
    """A session whose camera shows nothing; the test says what was filmed."""

    def __init__(self, root: Path, memory: Path, pins: MockFactory) -> None:
        self.root, self.memory = root, memory
        self.clock, self.disk = ManualClock(), TroubledDisk()
        self.desk = StandIn(pins, [])
        self.told: list[Message] = []
        self.store = RecordingStore(root, self.clock, self.disk)
        self.store.begin_session(new_session(started_mono_ns=self.clock.mono_ns()))
        self.session: RunningSession | None = None

    def begin(
        self,
        *,
        face: bool = True,
        gaze: bool = False,
        voice: bool = False,
        ring_path: Path | None = None,
        after: Interruption | None = None,
        accommodations: tuple[Accommodation, ...] = (),
    ) -> RunningSession:
        equipment = Equipment(
            store=self.store, clock=self.clock, boot_id=BOOT, device_key=Ed25519PrivateKey.generate(),
            light=self.desk.light, make_source=lambda _video: self.desk.make_source(),
            ring_path=ring_path or self.memory / "frames", inference_rate_hz=5.0,
            watch=WatchLease(self.clock), on_preview=lambda _jpeg: None, put_filmed=self.desk.put,
            tell=self.told.append,
        )  # fmt: skip
        row = self.store.active_session()
        assert row is not None
        recipients: RecipientSet = RECIPIENTS
        exam = policy(face=face, gaze=gaze, voice=voice, video=VIDEO)
        self.session = RunningSession(equipment, row, exam, recipients, after, accommodations)
        return self.session

    def filmed(self, at_s: float) -> Captured:
        self.clock.advance(at_s + 3 - self.clock.now_mono_ns / 1e9)
        fragment = Fragment("fragment", b"film" * 500, round(at_s * S), 2 * S, True, 30)
        return Captured(fragment, INIT, "avc1.42c01f")

    def stop(self) -> None:
        assert self.session is not None
        self.session.ask_to_stop()
        self.desk.go_on.set()
        self.session._capture.join(10)

    def gaps(self) -> list[tuple[float, float, str]]:
        view = RecordingView(self.root)
        found = [(gap.start_90k / S, gap.end_90k / S, gap.cause) for gap in view.gaps(SID)]
        view.close()
        return found

    def events(self) -> list[str]:
        view = RecordingView(self.root)
        found = [event.body["kind"] for event in view.events(SID)]
        view.close()
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    factory = MockFactory()
    gpiozero.Device.pin_factory = factory
    memory = Path(tempfile.mkdtemp(prefix="invigil-", dir="/dev/shm"))
    made = Bench(tmp_path, memory, factory)
    yield made
    if made.session is not None:
        made.stop()
        made.session.close()
    made.store.close()
    shutil.rmtree(memory)
    factory.reset()
    gpiozero.Device.pin_factory = None


def test_a_fragment_that_could_not_be_queued_is_a_gap_named_storage_too_slow(bench: Bench) -> None:
    session = bench.begin()
    assert session.take(bench.filmed(0))
    session.take(FragmentRefused())
    assert session.take(bench.filmed(6))
    assert bench.gaps() == [(2, 6, "storage too slow")]
    assert bench.told.count({"type": "durable", "sid": SID}) == 3


def test_a_first_fragment_that_could_not_be_queued_is_a_gap_and_no_slow_camera(bench: Bench) -> None:
    session = bench.begin()
    session.take(FragmentRefused())
    assert session.take(bench.filmed(2))
    assert bench.gaps() == [(0, 2, "storage too slow")]


def test_a_camera_that_goes_and_comes_back_leaves_two_events_and_a_gap(bench: Bench) -> None:
    session = bench.begin()
    session.take(bench.filmed(0))
    session.take(CameraLost("no picture for 3 s"))
    session.take(CameraBack())
    session.take(bench.filmed(9))
    assert bench.gaps() == [(2, 9, "camera lost: no picture for 3 s")]
    assert bench.events() == ["epoch_open", "camera_lost", "camera_back"]


def test_a_clock_that_went_back_over_a_reboot_is_said_in_the_gap(bench: Bench) -> None:
    bench.begin(after=None).take(bench.filmed(0))
    bench.stop()
    assert bench.session is not None
    bench.session.close()
    bench.desk.played.clear()
    bench.store._connection.execute("UPDATE sessions SET boot_id = ?", ("c" * 32,))
    bench.clock.step_wall(-600)
    session = bench.begin(after=Interruption(2 * S, "node restarted"))
    session.take(bench.filmed(5))
    assert bench.gaps() == [(2, 5, "node restarted; for how long is not known, the clock was behind")]


def test_after_a_reboot_the_wall_clock_bridges_once_however_often_the_process_begins_anew(
    bench: Bench,
) -> None:
    """A board without a battery boots behind and is set by NTP later: what happens then is two seconds, not an hour."""
    bench.begin(after=None).take(bench.filmed(0))
    bench.store._connection.execute("UPDATE sessions SET boot_id = ?", ("c" * 32,))
    origins = []
    for covered_s, step_s in ((2, 0), (4, 3600)):
        assert bench.session is not None
        bench.stop()
        bench.session.close()
        bench.desk.played.clear()
        bench.clock.step_wall(step_s)
        bench.clock.advance(2)
        bench.begin(after=Interruption(covered_s * S, "restarted"))
        origins.append(bench.session._timeline.origin_mono_ns)
    assert origins[0] == origins[1]


def test_f042_ring_only_where_a_model_may_look(bench: Bench) -> None:
    bench.begin(face=False)
    assert not (bench.memory / "frames").exists()


def test_ring_goes_with_the_session(bench: Bench) -> None:
    session = bench.begin()
    assert (bench.memory / "frames").exists()
    bench.stop()
    session.close()
    assert not (bench.memory / "frames").exists()


def test_recording_goes_on_without_a_ring(bench: Bench) -> None:
    session = bench.begin(ring_path=bench.root / "frames")
    assert session.take(bench.filmed(0))
    assert "no room in memory for the frames that the models look at" in session.faults()


def test_assessment_is_an_event_only_when_it_changes(bench: Bench) -> None:
    session = bench.begin()
    for rate_hz in (None, 5.0, 4.9, None, None, 5.0):
        session.assessed(rate_hz)
    assert bench.events() == ["epoch_open", "assessment_began", "assessment_stopped", "assessment_began"]


def test_observations_that_the_disk_refused_follow_the_next_fragment(bench: Bench) -> None:
    session = bench.begin()
    session.take(bench.filmed(0))
    bench.disk.refuse("fdatasync")
    session.take(Observed(1, 0, REPORT))
    session.take(ObserverGone(1))
    assert [message["type"] for message in bench.told].count("observation") == 0
    bench.disk.refuse("")
    session.take(bench.filmed(2))
    phases = [each["report"]["phase"] for each in bench.told if each["type"] == "observation"]
    assert phases == ["opened", "closed"]


def test_an_end_that_the_disk_refuses_is_tried_again_with_nothing_lost(bench: Bench) -> None:
    session = bench.begin()
    session.take(bench.filmed(0))
    bench.clock.advance(8)
    bench.disk.refuse("commit")
    bench.stop()
    session.close()
    with pytest.raises(StoreFailed):
        session.end()
    assert session.closed
    session.require_filming()
    bench.disk.refuse("")
    ended = bench.clock.wall()
    bench.clock.advance(60)
    session.end()
    assert bench.gaps() == [(2, 10, "camera delivered no frames")]
    view = RecordingView(bench.root)
    row = view.session(SID)
    view.close()
    assert row is not None
    assert row.ended == ended.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    assert bench.events()[-1] == "epoch_close"


def test_filming_that_ends_by_itself_is_an_error(bench: Bench) -> None:
    session = bench.begin()
    session.require_filming()
    bench.stop()
    with pytest.raises(CameraUnavailable, match="by itself"):
        session.require_filming()


@pytest.mark.parametrize(
    ("codes", "face", "gaze"),
    [((), True, True), (("gaze_wide", "no_gaze"), True, False), (("human_only",), False, False)],
    ids=["none", "no gaze", "human only"],
)
def test_f042_f046_inference_is_told_what_is_left_of_face_and_gaze_and_by_which_codes(
    bench: Bench, codes: tuple[Accommodation, ...], face: bool, gaze: bool
) -> None:
    session = bench.begin(gaze=True, accommodations=codes)
    said = (session.message["face"], session.message["gaze"], session.message["accommodations"])
    assert said == (face, gaze, list(codes))
    assert session.message["policy"] == "statistics-1 v3"


def test_f133_at_a_seat_of_people_only_it_records_without_a_frame_for_any_model(bench: Bench) -> None:
    session = bench.begin(accommodations=("human_only",))
    assert session.take(bench.filmed(0))
    session.assessed(None)
    assert not (bench.memory / "frames").exists()
    assert not [fault for fault in session.faults() if "face" in fault or "models" in fault]
    assert bench.events() == ["epoch_open"]


def test_codes_stand_in_the_encrypted_log_and_in_no_event_that_the_manifest_shows(bench: Bench) -> None:
    bench.begin(accommodations=("breaks_free", "no_gaze"))
    [told] = [each["report"] for each in bench.told if each["type"] == "observation"]
    assert told["measured"] == {"accommodations": "breaks_free,no_gaze"}
    view = RecordingView(bench.root)
    segments = [segment for segment in view.segments(SID) if segment.track == "log"]
    bodies = [event.body for event in view.events(SID)]
    view.close()
    assert len(segments) == 1
    assert "no_gaze" not in str(bodies)
    stored = b"".join(path.read_bytes() for path in bench.root.rglob("*") if path.is_file())
    assert b"no_gaze" not in stored


def test_a_seat_without_codes_writes_no_entry(bench: Bench) -> None:
    bench.begin()
    assert [each["type"] for each in bench.told] == ["durable"]


@pytest.mark.parametrize(
    ("rate_hz", "problem", "fault"),
    [
        (5.0, None, None),
        (1.0, None, None),
        (0.5, None, "face and gaze are looked at only every 2.0 s"),
        (0.0, None, "face and gaze are looked at only every 100.0 s"),
        (None, None, "face and gaze are not being assessed"),
        (
            None,
            "this desk's processor gives other numbers",
            "face and gaze are not being assessed: this desk's processor gives other numbers",
        ),
    ],
)
def test_the_room_is_told_when_the_models_look_rarely_or_not_at_all(
    bench: Bench, rate_hz: float | None, problem: str | None, fault: str | None
) -> None:
    session = bench.begin()
    assert "face and gaze are not being assessed" in session.faults()
    session.assessed(rate_hz, problem)
    assert [each for each in session.faults() if each.startswith("face and gaze")] == (
        [fault] if fault else []
    )


def test_f035_the_room_is_told_while_no_voice_is_listened_for_and_the_recording_keeps_from_when_to_when(
    bench: Bench,
) -> None:
    session = bench.begin(face=False, voice=True)
    assert session.message["voice"]
    session.listened("there is no microphone at this desk")
    assert "voices are not being listened for: there is no microphone at this desk" in session.faults()
    session.listened(None)
    assert not [fault for fault in session.faults() if "voices" in fault]
    session.listened("the microphone gives no sound")
    assert bench.events() == ["epoch_open", "listening_began", "listening_stopped"]


@pytest.mark.parametrize("codes", [(), ("reader_voice",)], ids=["off", "reader_voice"])
def test_f033_f031_where_voices_are_off_nobody_is_told_to_listen_and_nothing_is_missing(
    bench: Bench, codes: tuple[Accommodation, ...]
) -> None:
    session = bench.begin(face=False, voice=bool(codes), accommodations=codes)
    assert session.message["voice"] is False
    session.listened("there is no microphone at this desk")
    assert not [fault for fault in session.faults() if "voices" in fault]
    assert bench.events() == ["epoch_open"]
