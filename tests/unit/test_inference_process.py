"""The inference process between ring and link: messages, levels, rate, sessions that change, rings that go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import ModelMissing, ModelsDiffer
from appliance.frames import FrameRingReader, FrameRingWriter, RingFrame
from appliance.inference.observations import KINDS, Observation
from appliance.inference.pace import Pace
from appliance.inference.process import IDLE_S, Assessment, Assessor
from appliance.inference.reports import Reports, uncertainty_words
from appliance.inference.rules import DEFAULT_RULES, with_levels
from appliance.local_link import Message
from appliance.protocol import ObservationReport
from tests.manual_clock import ManualClock
from tests.scenes import filmed
from tests.unit.test_store_builders import OTHER_SID, SID

WIDTH_PX, HEIGHT_PX = 640, 360
SESSION: Message = {
    "type": "session", "sid": SID, "face": True, "gaze": False, "started_mono_ns": 10**9, "levels": {},
    "policy": "stat-2026 v3",
}  # fmt: skip
NO_SESSION: Message = {"type": "session", "sid": None}


def empty_seat() -> np.ndarray:
    """A sharp, well lit picture with nobody in it: a wall of tiles."""
    rows, columns = np.indices((HEIGHT_PX, WIDTH_PX)) // 8
    return np.repeat(np.where((rows + columns) % 2, 150, 100)[..., None], 3, axis=2).astype(np.uint8)


class Desk:
    """The camera's end: a ring, and what was said to it."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.path = folder / "frames"
        self.ring = FrameRingWriter(self.path, WIDTH_PX, HEIGHT_PX)
        self.reader = FrameRingReader(self.path)
        self.said: list[Message] = []
        self.cpu_ns = 0
        self.assessor = self.assess_with(Pace(5.0, 0.6))
        self.picture = empty_seat()

    def assess_with(self, pace: Pace, begin: Callable[[Message], Assessment] = Assessment) -> Assessor:
        self.assessor = Assessor(self.reader, self, self.clock, pace, lambda: self.cpu_ns, begin)
        return self.assessor

    def send(self, message: Message) -> bool:
        self.said.append(message)
        return True

    def film(self, seconds: float, rate_hz: float = 5.0) -> int:
        """Frames into the ring; the assessor steps whenever it asked to. Returns the frames assessed."""
        assessed = 0
        for _ in range(round(seconds * rate_hz)):
            self.ring.write(filmed(self.picture), self.clock.mono_ns())
            before = self.assessor._newest
            self.assessor.step()
            assessed += self.assessor._newest != before
            self.clock.advance(1 / rate_hz)
        return assessed

    def reports(self) -> list[tuple[int, ObservationReport]]:
        return [
            (each["key"], ObservationReport.model_validate(each["report"]))
            for each in self.said
            if each["type"] == "observation"
        ]


@pytest.fixture
def desk() -> Iterator[Desk]:
    folder = Path(tempfile.mkdtemp(prefix="invigil-", dir="/dev/shm"))
    made = Desk(folder)
    yield made
    made.reader.close()
    made.ring.close()
    shutil.rmtree(folder)


def observation(**changes: object) -> Observation:
    made = Observation(
        "gaze_outside_work_area", "opened", 3 * 10**9, None, 4.26, "beyond 32 degrees for 4 s", "yellow",
        False, 7.4,
        {"yaw_deg": 40.1, "baseline_yaw_deg": 2.0, "baseline_learned_s": 60.0, "assessed_share": 0.91},
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def test_an_empty_seat_is_reported_once_and_closed_at_the_end(desk: Desk) -> None:
    desk.assessor.follow(SESSION)
    desk.film(15)
    [(key, opened)] = desk.reports()
    assert (opened.kind, opened.phase, opened.level, opened.end_90k) == (
        "nobody_at_desk", "opened", "red", None,
    )  # fmt: skip
    assert 0 <= opened.start_90k < 2 * 90_000
    desk.assessor.follow(NO_SESSION)
    [_, (closed_key, closed)] = desk.reports()
    assert (closed_key, closed.phase) == (key, "closed")
    assert closed.end_90k is not None
    assert 13 * 90_000 < closed.end_90k < 16 * 90_000
    assert desk.assessor.step() == IDLE_S


def test_a_seat_whose_picture_hangs_is_frozen_and_not_empty(desk: Desk) -> None:
    """F041: control of the test above; the one thing that differs is the sensor's noise."""
    desk.assessor.follow(SESSION)
    for _ in range(15 * 5):
        desk.ring.write(desk.picture, desk.clock.mono_ns())
        desk.assessor.step()
        desk.clock.advance(0.2)
    assert [(report.kind, report.level, report.technical) for _, report in desk.reports()] == [
        ("picture_frozen", None, True)
    ]


def test_another_session_closes_what_the_first_left_open(desk: Desk) -> None:
    desk.assessor.follow(SESSION)
    desk.film(15)
    started = desk.clock.mono_ns()
    desk.assessor.follow(SESSION | {"sid": OTHER_SID, "started_mono_ns": started})
    assert [report.phase for _, report in desk.reports()] == ["opened", "closed"]
    desk.film(15)
    assert [report.phase for _, report in desk.reports()] == ["opened", "closed", "opened"]
    assert desk.reports()[-1][1].start_90k < 2 * 90_000


def test_the_same_session_again_opens_anew_what_goes_on(desk: Desk) -> None:
    """The camera process was restarted in the middle of it: its life before closed what was open, and told so."""
    desk.assessor.follow(SESSION)
    desk.film(15)
    assessment = desk.assessor._assessment
    desk.assessor.follow(SESSION)
    again_90k = (desk.clock.mono_ns() - SESSION["started_mono_ns"]) * 9 // 100_000
    desk.film(5)
    assert [report.phase for _, report in desk.reports()] == ["opened"]
    desk.film(10)
    (first, _), (second, report) = desk.reports()
    assert (report.phase, second) == ("opened", first + 1)
    assert report.start_90k >= again_90k
    assert desk.assessor._assessment is assessment  # the candidate's zero is in it


def test_a_model_that_is_missing_is_told_and_ends_nothing(desk: Desk) -> None:
    """F041: voices are listened for all the same, and the room hears why no face is looked for."""

    def cannot(_: Message) -> Assessment:
        raise ModelMissing("face_landmark.tflite is missing", "install the models")

    assessor = desk.assess_with(Pace(5.0, 0.6), cannot)
    assessor.follow(SESSION)
    desk.film(2)
    assert {each["problem"] for each in desk.said} == {"face_landmark.tflite is missing"}


def test_f066_levels_are_the_institutions(desk: Desk) -> None:
    desk.assessor.follow(SESSION | {"levels": {"nobody_at_desk": "yellow"}})
    desk.film(15)
    assert [report.level for _, report in desk.reports()] == ["yellow"]


def test_f066_technical_kinds_have_no_level_whatever_the_policy_says() -> None:
    rules = with_levels(DEFAULT_RULES, dict.fromkeys(KINDS, "red"))
    assert {rule.kind for rule in rules if rule.level is None} == {
        kind for kind in KINDS if KINDS[kind].technical
    }
    assert with_levels(DEFAULT_RULES, {}) == DEFAULT_RULES


def test_every_message_is_a_report_as_the_room_reads_it() -> None:
    reports = Reports(SESSION)
    for each in (
        observation(),
        observation(
            kind="camera_covered",
            level=None,
            technical=True,
            uncertainty=None,
            measured={"assessed_share": 1.0},
        ),
        observation(phase="closed", end_mono_ns=9 * 10**9),
        observation(start_mono_ns=10**8),
    ):
        if each.phase == "closed":
            reports.message(observation())
        message = reports.message(each)
        report = ObservationReport.model_validate(message["report"])
        assert message["type"] == "observation"
        assert report.words == KINDS[each.kind].words
        assert report.start_90k == max(0, each.start_mono_ns - 10**9) * 9 // 100_000
        assert report.duration_s == 4.3


def test_uncertainty_in_words() -> None:
    assert uncertainty_words(observation()) == "direction within about 7 degrees; assessed 91% of the time"
    assert uncertainty_words(observation(uncertainty=None)) == "assessed 91% of the time"
    assert uncertainty_words(observation(measured={})) == "direction within about 7 degrees"
    assert uncertainty_words(observation(uncertainty=None, measured={})) == ""


def test_it_runs_at_most_at_its_rate(desk: Desk) -> None:
    desk.assessor.follow(SESSION)
    assert 20 <= desk.film(4, rate_hz=30) <= 23
    rates = [each["rate_hz"] for each in desk.said if each["type"] == "inference"]
    assert 3 <= len(rates) <= 5
    assert rates[-1] == pytest.approx(5.0, abs=0.7)


class Dear(Assessment):
    """Each frame costs this much CPU; the node's own tracker and rules do the rest."""

    def __init__(self, desk: Desk, session: Message, cost_s: float) -> None:
        super().__init__(session)
        self.desk, self.cost_s = desk, cost_s

    def process(self, frame: RingFrame) -> list[Message] | None:
        self.desk.cpu_ns += round(self.cost_s * 1e9)
        self.desk.clock.advance(self.cost_s)
        return super().process(frame)


def live(desk: Desk, seconds: float, rate_hz: float = 15.0) -> list[float]:
    """A camera that goes on at its rate while the assessor works and waits as it says; how old each frame was, in s."""
    period_ns = round(1e9 / rate_hz)
    ages: list[float] = []
    due_ns = desk.clock.mono_ns()
    until_ns = due_ns + round(seconds * 1e9)
    while desk.clock.mono_ns() < until_ns:
        while due_ns <= desk.clock.mono_ns():
            desk.ring.write(desk.picture, due_ns)
            due_ns += period_ns
        before, now_ns = desk.assessor._newest, desk.clock.mono_ns()
        wait_s = desk.assessor.step()
        if desk.assessor._newest != before:
            taken_ns = due_ns - period_ns
            ages.append((now_ns - taken_ns) / 1e9)
        desk.clock.advance(max(wait_s, 1e-4))
    return ages


def rates(desk: Desk) -> list[float]:
    return [each["rate_hz"] for each in desk.said if "rate_hz" in each]


def test_a_slow_board_keeps_its_budget_stays_live_and_says_its_rate(desk: Desk) -> None:
    """250 ms a frame and 60 % of a core are 2.4 frames a second, each of them the newest."""
    desk.assess_with(Pace(15.0, 0.6), lambda session: Dear(desk, session, 0.25))
    desk.assessor.follow(SESSION)
    ages = live(desk, 20)
    assert desk.cpu_ns <= 0.6 * 20e9 + 0.25e9
    assert len(ages) == pytest.approx(2.4 * 20, abs=1)
    assert max(ages) < 1 / 15
    assert rates(desk)[-1] == pytest.approx(2.4, abs=0.1)


def test_the_rate_that_is_said_is_the_rate_of_the_last_seconds(desk: Desk) -> None:
    """A board that another program slows down: not the mean of better times."""
    desk.assess_with(Pace(15.0, 0.6), lambda session: Dear(desk, session, 0.01))
    desk.assessor.follow(SESSION)
    live(desk, 8)
    assert rates(desk)[-1] == pytest.approx(15, abs=0.5)
    desk.assessor._assessment.cost_s = 1.2
    live(desk, 10)
    assert rates(desk)[-1] == pytest.approx(0.5, abs=0.05)
    desk.assessor._assessment.cost_s = 0.01
    live(desk, 8)
    assert rates(desk)[-1] == pytest.approx(15, abs=0.5)


def test_however_much_is_owed_a_turn_ends_and_the_session_with_it(desk: Desk) -> None:
    """The watchdog is fed and the camera followed while a frame of 30 s of CPU is paid back."""
    desk.assess_with(Pace(5.0, 0.6), lambda session: Dear(desk, session, 30.0))
    desk.assessor.follow(SESSION)
    desk.ring.write(desk.picture, desk.clock.mono_ns())
    assert desk.assessor.step() == 0
    desk.ring.write(desk.picture, desk.clock.mono_ns())
    assert 0 < desk.assessor.step() <= IDLE_S
    desk.assessor.follow(NO_SESSION)
    assert desk.assessor.step() == IDLE_S


class Overtaken(Assessment):
    """While the models look, the camera writes this many frames."""

    def __init__(self, desk: Desk, session: Message, frames: int) -> None:
        super().__init__(session)
        self.desk, self.frames = desk, frames
        self.looked_at: list[np.ndarray] = []
        follow = self._watch.process

        def slowly(image: np.ndarray, taken_mono_ns: int) -> object:
            for number in range(self.frames):
                desk.ring.write(np.full_like(desk.picture, number), desk.clock.mono_ns())
            self.looked_at.append(image)
            return follow(image, taken_mono_ns)

        self._watch.process = slowly  # type: ignore[method-assign]


def test_a_frame_that_is_written_over_while_the_models_look_counts_for_nothing(desk: Desk) -> None:
    """The next is copied first, so that a board slower than the ring assesses too; a late copy is noticed as well."""
    assessment = Overtaken(desk, SESSION, frames=7)
    desk.ring.write(desk.picture, desk.clock.mono_ns())
    assert assessment.process(desk.reader.latest(0)) is None
    assert assessment.process(desk.reader.latest(0)) == []
    desk.ring.write(desk.picture, desk.clock.mono_ns())
    frame = desk.reader.latest(0)
    for _ in range(7):
        desk.ring.write(desk.picture, desk.clock.mono_ns())
    assert assessment.process(frame) is None


def test_negative_control_a_frame_that_is_still_there_counts(desk: Desk) -> None:
    assessment = Overtaken(desk, SESSION, frames=6)
    desk.ring.write(desk.picture, desk.clock.mono_ns())
    frame = desk.reader.latest(0)
    assert assessment.process(frame) == []
    assert np.shares_memory(assessment.looked_at[0], frame.image)


def other_numbers(_session: Message) -> Assessment:
    raise ModelsDiffer("this desk's processor gives other numbers", "see the log")


def test_a_processor_with_other_numbers_assesses_nothing_and_says_why(desk: Desk) -> None:
    desk.assess_with(Pace(5.0, 0.6), other_numbers)
    desk.assessor.follow(SESSION)
    assert desk.film(5) == 0
    assert desk.said == [{"type": "inference", "problem": "this desk's processor gives other numbers"}] * 5
    desk.assessor.follow(NO_SESSION)
    desk.film(5)
    assert len(desk.said) == 5


def test_frames_from_before_the_session_are_not_looked_at(desk: Desk) -> None:
    desk.ring.write(desk.picture, desk.clock.mono_ns())
    desk.clock.advance(1)
    desk.assessor.follow(SESSION | {"started_mono_ns": desk.clock.mono_ns()})
    desk.assessor.step()
    assert not desk.assessor._finished_ns
    desk.film(0.4)
    assert len(desk.assessor._finished_ns) == 2


def test_a_ring_that_goes_and_comes_back_is_followed(desk: Desk) -> None:
    desk.assessor.follow(SESSION)
    desk.film(2)
    desk.ring.close()
    assert 0 < desk.assessor.step() < 0.2
    desk.clock.advance(3)
    assert 0 < desk.assessor.step() < 0.2
    desk.ring = FrameRingWriter(desk.path, WIDTH_PX, HEIGHT_PX)
    assert desk.film(1) == 5


def test_f042_with_face_off_nothing_is_assessed(desk: Desk) -> None:
    desk.assessor.follow(SESSION | {"face": False, "gaze": False})
    assert desk.film(15) == 0
    assert desk.said == []


LOADED = """
import sys
from pathlib import Path
from appliance.clock import SystemClock
from appliance.frames import FrameRingReader
from appliance.inference import models
from appliance.inference.pace import Pace
from appliance.inference.process import Assessor
loaded = []
read = models.read_verified
models.read_verified = lambda path, sha256: (loaded.append(path.name), read(path, sha256))[1]
session = {"type": "session", "sid": "5e" * 16, "started_mono_ns": 0, "levels": {}, "policy": "p v1"}
assessor = Assessor(FrameRingReader(Path("/dev/shm/none")), None, SystemClock(), Pace(5.0, 0.6))
assessor.follow(session | {"face": sys.argv[1] == "1", "gaze": sys.argv[2] == "1"})
print(" ".join(loaded))
"""


@pytest.mark.parametrize(
    ("face", "gaze", "models"),
    [("0", "0", 0), ("1", "0", 3), ("1", "1", 4)],
    ids=["both off", "gaze off", "both on"],
)
def test_f042_models_loaded_by_the_switches(face: str, gaze: str, models: int) -> None:
    """In a process of its own, where no other test has loaded one."""
    run = subprocess.run(
        [sys.executable, "-c", LOADED, face, gaze],
        capture_output=True, text=True, check=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    loaded = run.stdout.split()
    assert len(loaded) == models
    assert ("eyes.tflite" in loaded) is (gaze == "1")
