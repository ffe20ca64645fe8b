"""The room acceptance test: its script, how steps are judged, the whole walk with scripted people, and the command."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.acceptance.desk import Equipment, accept, accept_here, hold_desk
from appliance.acceptance.document import Place, document
from appliance.acceptance.figures import Eyes, advice, measure_eyes
from appliance.acceptance.judging import Judged, judge
from appliance.acceptance.looking import Looking, Sample, Seen, eye_distance_px
from appliance.acceptance.page import render, summary
from appliance.acceptance.script import PRACTICE_S, SCRIPT, Expected, Step, chosen, duration_s
from appliance.acceptance.walk import Mark, Run, Walk
from appliance.camera.clip import ClipSource
from appliance.camera.source import Frame
from appliance.config import NodeConfig
from appliance.errors import BadInput, CameraUnavailable, Refused
from appliance.inference.pace import Pace
from appliance.inference.rules import DEFAULT_RULES
from appliance.inference.signals import Signals
from appliance.store.recording import RecordingStore
from tests.manual_clock import ManualClock
from tests.signals import DARK, GONE, HIDDEN, WORKING, head, looking, scripted
from tests.unit.test_archive_schema import problems, schema
from tests.unit.test_store_builders import SID, new_session

CLIP = Path(__file__).resolve().parents[2] / "build" / "clips" / "single_face.mp4"
PLACE = Place(
    "uni", "room-2.14", "desk-7", "v4l2:/dev/video0", (1280, 720), 15, (640, 360), 5.0, 60, True, "litert 2"
)
CALM = {"yaw_deg": 1.0, "pitch_deg": 0.0, "learned_s": 60.0}
NEAR = Eyes(61.0, 58.0, 900)
BLANK = Frame.from_bgr(np.zeros((2, 2, 3), np.uint8), 0, 1).picture
What = dict[str, Any]

# --- the script -------------------------------------------------------------------------------------------------------


def test_twelve_staged_and_twelve_innocent_in_fifteen_minutes() -> None:
    assert [step.number for step in SCRIPT] == list(range(1, 25))
    assert [sum(step.expected is None for step in SCRIPT), len(SCRIPT)] == [12, 24]
    assert duration_s(SCRIPT) == 15 * 60
    assert PRACTICE_S >= 60  # the baseline's minute
    assert all(len(step.say) < 160 and step.say.endswith(".") for step in SCRIPT)


def test_every_reported_rule_is_staged_and_every_side_of_directions() -> None:
    staged = {step.expected.kind for step in SCRIPT if step.expected}
    assert staged == {rule.kind for rule in DEFAULT_RULES if rule.reported}
    sides = {
        (step.expected.kind, step.expected.side) for step in SCRIPT if step.expected and step.expected.side
    }
    assert {
        (kind, side) for kind in ("head_turned_away", "gaze_outside_work_area") for side in ("left", "right")
    } < sides
    assert ("gaze_outside_work_area", "up") in sides


def test_staged_steps_last_as_long_as_their_rule_needs() -> None:
    """Dwell and smoothing; an empty seat also the ten seconds for which a turned face that was lost is believed."""
    rules = {rule.kind: rule for rule in DEFAULT_RULES}
    for step in SCRIPT:
        if step.expected:
            rule = rules[step.expected.kind]
            doubt_s = 10.0 if rule.kind == "nobody_at_desk" else 0.0
            assert step.seconds >= rule.dwell_s + 3 * rule.smooth_s + doubt_s + 3.0, step.title


def test_innocent_steps_last_longer_than_any_dwell_of_a_direction() -> None:
    assert min(step.seconds for step in SCRIPT if step.expected is None) > 10.0


def test_some_steps_are_chosen_by_number_in_the_scripts_order() -> None:
    assert [step.number for step in chosen(SCRIPT, " 7,3")] == [3, 7]
    assert chosen(SCRIPT, None) == SCRIPT


@pytest.mark.parametrize("numbers", ["", "0", "25", "3,", "3;7", "three", "-1", "3-7", "٣"])
def test_a_step_that_does_not_exist_is_refused(numbers: str) -> None:
    with pytest.raises(BadInput, match="there is no step") as refused:
        chosen(SCRIPT, numbers)
    assert "1 to 24" in refused.value.hint


# --- judging ----------------------------------------------------------------------------------------------------------

STAGED = Step(1, "turns the head left", "Turn.", 10, Expected("head_turned_away", "left"))
GAZE_UP = Step(1, "looks up", "Look up.", 10, Expected("gaze_outside_work_area", "up"))
INNOCENT = Step(1, "drinks", "Drink.", 10)
LEFT, RIGHT = head(yaw=55.0), head(yaw=-55.0)


def watched(*parts: tuple[float, What]) -> Looking:
    """A scene from 0 s on, looked at five times a second."""
    clock = ManualClock(now_mono_ns=0)
    coming = {signals.taken_mono_ns: signals for signals in scripted(parts, rate_hz=5.0, start_s=0.0)}
    seen = Looking(lambda frame: Sample(coming[frame.taken_mono_ns], 61.0), Pace(30.0, 1.0), clock, lambda: 0)
    for taken_ns in coming:
        clock.now_mono_ns = taken_ns
        seen.take(Frame(taken_ns, 1, BLANK))
    seen.finish(clock.mono_ns())
    return seen


def acted(step: Step, *parts: tuple[float, What]) -> tuple[Judged, tuple[Seen, ...]]:
    """`step`, announced at 100 s, begun at 110, ended at 120; `parts` of the scene from 100 s on, then 20 s of work."""
    scene = watched((100.0, {}), *parts, (20.0, {}))
    (judged,), between = judge([mark_of(step)], scene.seen, scene.samples)
    return judged, between


def mark_of(step: Step, told_s: float = 100.0) -> Mark:
    told_ns = round(told_s * 1e9)
    return Mark(step, told_ns, told_ns + 10 * 10**9, told_ns + 20 * 10**9)


def test_what_was_acted_and_observed_is_a_hit_with_its_side() -> None:
    judged, between = acted(STAGED, (11.0, {}), (9.0, LEFT))
    assert (judged.outcome, judged.why, judged.others, between) == ("hit", None, (), ())
    assert judged.expected_seen is not None
    assert (judged.expected_seen.kind, judged.expected_seen.side) == ("head_turned_away", "left")
    assert 111 <= judged.expected_seen.start_ns / 1e9 < judged.expected_seen.opened_ns / 1e9 - 3.9 < 112


def test_who_begins_during_the_countdown_has_acted_too() -> None:
    assert acted(STAGED, (7.0, {}), (10.0, LEFT))[0].outcome == "hit"


def test_what_was_acted_and_not_observed_is_a_miss_that_says_what_was_measured() -> None:
    judged, _ = acted(STAGED, (11.0, {}), (9.0, head(yaw=31.0)))
    assert (judged.outcome, judged.expected_seen) == ("miss", None)
    assert judged.why is not None
    assert "from 0 to 31 degrees across" in judged.why
    assert "more than 40 degrees to the side" in judged.why


def test_the_other_side_is_no_hit() -> None:
    judged, _ = acted(STAGED, (11.0, {}), (9.0, RIGHT))
    assert (judged.outcome, [one.side for one in judged.others]) == ("other side", ["right"])


@pytest.mark.parametrize(("yaw", "pitch", "outcome"), [(3.0, 38.0, "hit"), (45.0, 5.0, "other side")])
def test_up_is_told_from_aside(yaw: float, pitch: float, outcome: str) -> None:
    assert acted(GAZE_UP, (11.0, {}), (9.0, looking(yaw, pitch)))[0].outcome == outcome


def test_an_observation_in_an_innocent_step_is_a_false_one_also_if_it_opens_later() -> None:
    judged, between = acted(INNOCENT, (18.0, {}), (8.0, LEFT))
    assert (judged.outcome, between) == ("false observation", ())
    assert [(one.kind, one.opened_ns > judged.mark.end_ns) for one in judged.others] == [
        ("head_turned_away", True)
    ]
    assert acted(INNOCENT, (18.0, {}))[0].outcome == "nothing observed"


def test_what_began_before_an_innocent_step_is_none_of_its_doing() -> None:
    judged, between = acted(INNOCENT, (4.0, {}), (10.0, LEFT))
    assert judged.outcome == "nothing observed"
    assert [one.kind for one in between] == ["head_turned_away"]


def test_what_began_before_a_staged_step_was_announced_is_no_hit_of_it() -> None:
    scene = watched((95.0, {}), (25.0, LEFT), (20.0, {}))
    (judged,), between = judge([mark_of(STAGED)], scene.seen, scene.samples)
    assert (judged.outcome, [one.kind for one in between]) == ("had begun before", ["head_turned_away"])


def test_what_opens_long_after_a_staged_step_is_no_hit_of_it() -> None:
    """Somebody who left and did not come back when told to."""
    step = replace(STAGED, expected=Expected("nobody_at_desk"))
    judged, _ = acted(step, (18.0, {}), (20.0, GONE))
    assert (judged.outcome, judged.why) == ("miss", "said 8 s after the step had ended")
    assert [one.kind for one in judged.others] == ["nobody_at_desk"]


def test_another_kind_in_a_staged_step_is_named_and_counts_as_no_hit() -> None:
    judged, _ = acted(STAGED, (10.0, {}), (10.0, {"faces": 2}))
    assert (judged.outcome, [one.kind for one in judged.others]) == ("miss", ["several_people"])


@pytest.mark.parametrize(
    ("kind", "what", "why"),
    [
        ("nobody_at_desk", {}, "a face was seen in 100% of the pictures"),
        ("nobody_at_desk", DARK, "0% of the pictures could be assessed"),
        ("several_people", {}, "more than one face was counted in 0% of the pictures"),
        ("gaze_outside_work_area", looking(40.0, 0.0, unsure=25.0), "sure enough to be used in 0% of the pictures"),
        ("head_turned_away", HIDDEN, "0% of the pictures could be assessed"),
        ("camera_covered", {"quality": "blur"}, "the picture was blur 100% of the time"),
    ],
)  # fmt: skip
def test_a_miss_says_what_stood_in_its_way(kind: str, what: What, why: str) -> None:
    judged, _ = acted(replace(STAGED, expected=Expected(kind)), (10.0, {}), (10.0, what))
    assert judged.outcome == "miss"
    assert why in str(judged.why)


def test_a_step_without_a_picture_says_so() -> None:
    ((judged,), _) = judge([mark_of(STAGED)], [], [])
    assert (judged.outcome, judged.why, judged.samples) == ("miss", "no picture was looked at", ())


# --- what staff can do ------------------------------------------------------------------------------------------------


def told(**changes: Any) -> list[str]:
    facts: dict[str, Any] = {
        "eyes": NEAR, "light": {"good": 1.0}, "gaze_share": 0.95, "rate_hz": (4.9, 5.0), "baseline": CALM,
        "judged": (), "between": (),
    }  # fmt: skip
    return advice(**(facts | changes))


def test_nothing_is_asked_for_where_nothing_is_wrong() -> None:
    assert told() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eyes": Eyes(31.0, 28.0, 900)}, "eyes are 31 pixels apart; at 30 .* in 22% .*, at 50 in 5%: bring the"),
        ({"eyes": Eyes(12.0, 10.0, 9)}, "eyes are 12 pixels apart; at 20 .* in 69%"),
        ({"eyes": Eyes(None, None, 0)}, "no face that looks at the camera"),
        ({"light": {"good": 0.7, "dark": 0.3}}, "dark 30% of the time.*more light on the face"),
        ({"light": {"good": 0.8, "glare": 0.2}}, "glare 20%.*away from the lens"),
        ({"gaze_share": 0.4}, "sure to 16 degrees in 40% of the pictures"),
        ({"rate_hz": (2.4, 5.0)}, "2.4 pictures a second were looked at, 5 are set"),
        ({"baseline": CALM | {"learned_s": 20.0}}, "learned over 20 of 60 s"),
        ({"baseline": CALM | {"yaw_deg": -15.0}}, "15 degrees or more to the right of the camera"),
        ({"between": (Seen("several_people", 0, 1),)}, "one observation began between the steps"),
    ],
)  # fmt: skip
def test_each_measurement_that_asks_for_a_change_says_which(changes: What, words: str) -> None:
    (sentence,) = told(**changes)
    assert re.search(words, sentence)


def test_left_and_right_exchanged_asks_for_the_mirror() -> None:
    sides = [acted(STAGED, (11.0, {}), (9.0, RIGHT))[0]] * 2
    assert any("mirrored" in sentence for sentence in told(judged=sides))
    assert not any("mirrored" in sentence for sentence in told(judged=sides[:1]))


def test_eyes_are_measured_of_a_head_that_faces_the_camera() -> None:
    frames = [({}, 60.0), ({}, 40.0), (head(yaw=50.0), 20.0), (GONE, None)]
    samples = [Sample(Signals(number, **(WORKING | what)), px) for number, (what, px) in enumerate(frames)]
    assert measure_eyes(samples) == Eyes(50.0, 42.0, 2)
    points = np.zeros((468, 3), np.float32)
    points[[33, 133, 263, 362], :2] = [(100, 50), (120, 50), (190, 80), (170, 80)]
    assert eye_distance_px(points) == pytest.approx(np.hypot(70, 30))


# --- the walk ---------------------------------------------------------------------------------------------------------

COVERED = HIDDEN | {"quality": "covered"}
# What a camera would say of somebody who does as told, by seconds since NOW, and for how long.
DOES: dict[int, tuple[float, float, What]] = {
    1: (0, 99, head(pitch=-30.0)), 2: (1, 99, LEFT), 3: (0, 99, head(pitch=-28.0)), 4: (1, 99, RIGHT),
    5: (3, 3, HIDDEN), 6: (1, 99, looking(45.0)), 7: (2, 6, HIDDEN), 8: (1, 99, looking(-45.0)),
    9: (2, 2, head(yaw=60.0)), 10: (1, 99, looking(0.0, 38.0)), 11: (2, 2, looking(0.0, 35.0)), 12: (5, 99, GONE),
    13: (0, 99, head(pitch=8.0)), 14: (4, 99, GONE), 15: (0, 99, {"head_roll_deg": 20.0}), 16: (3, 99, {"faces": 2}),
    17: (5, 2.5, {"faces": 2}), 18: (3, 99, {"faces": 2}), 19: (2, 5, GONE), 20: (1, 99, COVERED),
    21: (1, 3, head(pitch=-30.0)), 22: (1, 99, COVERED), 23: (1, 3, HIDDEN), 24: (2, 99, HIDDEN | {"quality": "blur"}),
}  # fmt: skip


class Room:
    """Two people who hear what the terminal says and act it, before a camera of 15 frames a second. No picture."""

    description = "people"
    dropped_frames = 0

    def __init__(self, does: dict[int, tuple[float, float, What]], lost_at_s: float = 1e9) -> None:
        self.clock = ManualClock()
        self.words = ""
        self.stop = threading.Event()
        self.looking = Looking(self.read_frame, Pace(5.0, 0.6), self.clock, lambda: 0)
        self._does = does
        self._lost_ns = self.clock.now_mono_ns + round(lost_at_s * 1e9)
        self._step = 0
        self._now_ns: int | None = None

    def hear(self, words: str) -> None:
        """The terminal."""
        self.words += words
        if announced := re.search(r"STEP (\d+)", words):
            self._step = int(announced[1])
        if "NOW" in words:
            self._now_ns = self.clock.mono_ns()
        if "STOP" in words:
            self._now_ns = None

    def read(self, timeout_s: float) -> Frame | None:
        """The camera."""
        if self.clock.mono_ns() >= self._lost_ns:
            raise CameraUnavailable("camera /dev/video0 is gone", "check its cable")
        self.clock.advance(1 / 15)
        return Frame(self.clock.mono_ns(), 1, BLANK)

    def read_frame(self, frame: Frame) -> Sample:
        """The models."""
        what: What = {}
        if self._now_ns is not None and self._step in self._does:
            after_s, lasts_s, acted = self._does[self._step]
            since_s = (frame.taken_mono_ns - self._now_ns) / 1e9
            what = acted if after_s <= since_s < after_s + lasts_s else {}
        return Sample(Signals(frame.taken_mono_ns, **(WORKING | what)), 61.0)

    def walk(self, steps: tuple[Step, ...] = SCRIPT) -> tuple[Run, dict[str, Any]]:
        """All of it, and its report."""
        began = self.clock.wall()
        run = Walk(steps, self, self.looking, self.clock, self.hear, self.stop).run()  # type: ignore[arg-type]
        return run, document(PLACE, SCRIPT, run, self.looking, began, self.clock.wall())


@pytest.fixture(scope="module")
def whole() -> tuple[Room, dict[str, Any]]:
    room = Room(DOES)
    _, report = room.walk()
    return room, report


def test_people_who_do_as_told_are_observed_in_each_staged_step_and_in_no_other(
    whole: tuple[Room, Any],
) -> None:
    room, report = whole
    outcomes = {step["number"]: step["outcome"] for step in report["steps"]}
    assert outcomes == {step.number: "hit" if step.expected else "nothing observed" for step in SCRIPT}
    assert report["totals"]["staged"] == {"of": 12, "ran": 12, "hits": 12, "interval_95": [0.758, 1.0]}
    assert report["totals"]["innocent"]["false_observations"] == 0
    assert (report["full"], report["stopped"], report["not_run"], report["advice"]) == (True, None, [], [])
    assert report["between_steps"] == []
    assert report["frames"]["seconds"] == pytest.approx(15 * 60, abs=5)
    assert report["frames"]["reached_hz"] == pytest.approx(5.0, abs=0.1)
    assert report["light"] == {"good": 1.0}
    assert "observed: nobody seen at the desk" in room.words


def test_people_who_sit_still_are_told_of_twelve_misses() -> None:
    """Control: nothing comes from the script itself."""
    _, report = Room({}).walk()
    assert report["totals"]["staged"]["hits"] == 0
    assert sum("not observed" in sentence for sentence in report["advice"]) == 12
    assert summary(report)[1] == "staged behaviours observed: 0 of 12 (95 % interval 0 to 24 %)"


def test_a_neighbour_who_stays_and_a_long_look_at_the_clock_are_false_observations() -> None:
    _, report = Room(DOES | {17: (5, 99, {"faces": 2}), 9: (2, 99, head(yaw=60.0))}).walk()
    assert report["totals"]["innocent"]["with_false_observation"] == 2
    assert report["totals"]["staged"]["hits"] == 12
    assert sum("is innocent and was observed" in sentence for sentence in report["advice"]) == 2


def test_a_step_is_announced_large_and_counted_down(whole: tuple[Room, Any]) -> None:
    words = whole[0].words
    assert max(len(line) for line in words.splitlines()) <= 90
    assert re.fullmatch(r"[ -~\n]*", words)
    shown = words[words.index("STEP 12") : words.index("STEP 13")]
    assert "STEP 12 (12 of 24), 48 seconds" in shown
    assert "Face the screen, rise without bending forward" in shown
    assert "begins in 10 9 8 7 6 5 4 3 2 1\n    NOW\n    seconds left 45 40 35 30" in shown
    assert "3 2 1\n    STOP. Back to work" in shown


def test_the_next_step_waits_until_nothing_is_observed_any_more() -> None:
    """Somebody who comes back late: the second person is still there when the next step would be announced."""
    room = Room(DOES)
    stays = room.read_frame

    def late(frame: Frame) -> Sample:
        sample = stays(frame)
        since_stop = room.words.rpartition("STOP")[2]
        lingers = "STEP" not in since_stop and room.words.count("STOP") == 1
        return replace(sample, signals=replace(sample.signals, faces=2)) if lingers else sample

    room.looking = Looking(late, Pace(5.0, 0.6), room.clock, lambda: 0)
    run, _ = room.walk(chosen(SCRIPT, "16,18"))
    assert "Wait, face the screen. Still observed: more than one person in view" in room.words
    assert (run.marks[1].told_ns - run.marks[0].end_ns) / 1e9 == pytest.approx(10.0, abs=0.2)


def test_some_steps_are_no_full_acceptance() -> None:
    _, report = Room(DOES).walk(chosen(SCRIPT, "2,12"))
    assert (report["full"], report["stopped"], len(report["not_run"])) == (False, None, 22)
    assert summary(report)[0] == "2 of 24 steps ran: not a full acceptance"


def test_somebody_who_stops_after_two_steps_gets_a_report_of_two() -> None:
    room = Room(DOES)
    hear = room.hear

    def stop_in_step_three(words: str) -> None:
        hear(words)
        if "STEP 3" in words:
            room.stop.set()

    room.hear = stop_in_step_three  # type: ignore[method-assign]
    run, report = room.walk()
    assert [mark.step.number for mark in run.marks] == [1, 2]
    assert report["not_run"] == list(range(3, 25))
    assert summary(report)[0] == "stopped after step 2 (by hand); 2 of 24 steps ran: not a full acceptance"
    assert not problems(report, schema("acceptance"), schema("acceptance"))


def test_a_camera_that_is_lost_ends_the_walk_with_what_was_done() -> None:
    run, report = Room(DOES, lost_at_s=PRACTICE_S + 60).walk()
    assert (len(run.marks), run.stopped) == (1, "camera /dev/video0 is gone")
    assert "stopped after step 1 (camera /dev/video0 is gone)" in summary(report)[0]


def test_a_terminal_that_goes_away_stops_the_walk() -> None:
    room = Room(DOES)

    def hang_up(words: str) -> None:
        raise BrokenPipeError

    room.hear = hang_up  # type: ignore[method-assign]
    run, report = room.walk()
    assert (run.marks, run.stopped, report["advice"]) == ([], "the terminal is gone", [])
    assert "stopped before the first step had ended" in summary(report)[0]
    assert report["totals"]["staged"] == {"of": 12, "ran": 0, "hits": 0, "interval_95": [0.0, 1.0]}


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_report_keeps_to_its_schema_and_a_spoilt_one_does_not(whole: tuple[Room, Any]) -> None:
    _, report = whole
    rule = schema("acceptance")
    assert problems(json.loads(json.dumps(report)), rule, rule) == []
    assert problems(report | {"score": 1}, rule, rule) == ["$.score: unknown"]
    assert problems(report | {"version": 2}, rule, rule) == ["$.version: not the constant"]
    assert set(rule["required"]) == set(rule["properties"]) == set(report)


def test_the_page_has_every_step_number_and_limit_and_fetches_nothing(whole: tuple[Room, Any]) -> None:
    _, report = whole
    page = render(report | {"room": "<script>alert(1)</script>"})
    assert page.count("<tr><td>") == 24
    for step in SCRIPT:
        assert step.title in page
    for sentence in [*summary(report), *report["does_not_show"], *report["models"].values(), "61 (a tenth"]:
        assert sentence in page
    assert not re.search(r"<script|https?:|\b(pass|passed|failed)\b|src=", page)
    assert "&lt;script&gt;" in page


# --- at a desk --------------------------------------------------------------------------------------------------------

SHORT = (
    Step(1, "reads from the screen", "Read.", 2, None, ready_s=1),
    Step(2, "leaves the seat", "Leave.", 2, Expected("nobody_at_desk"), ready_s=1),
)


@dataclass
class Lamp:
    """A lamp; `history` of what was asked of it."""

    is_lit: bool = False
    history: str = ""

    def on(self) -> None:
        self.is_lit, self.history = True, self.history + "1"

    def off(self) -> None:
        self.is_lit, self.history = False, self.history + "0"


def node(folder: Path, **changes: Any) -> NodeConfig:
    values: dict[str, Any] = {
        "institution": "uni", "room": "room-2.14", "desk": "desk-7", "broker_host": "10.0.0.5",
        "camera": f"clip:{CLIP}", "store": folder / "store", "run_dir": folder / "run",
    }  # fmt: skip
    return NodeConfig(**(values | changes))


def equipped(lamp: Lamp, clock: ManualClock, write: Callable[[str], object], clip: Path = CLIP) -> Equipment:
    return Equipment(
        lambda video: ClipSource(
            clip, video.width_px, video.height_px, video.frame_rate_hz, clock, sleep=clock.advance
        ),
        lamp,
        clock,
        write,
        lambda: write("[waits]"),
    )


def test_a_desk_with_a_real_clip_writes_two_files_and_nothing_else(tmp_path: Path) -> None:
    """The same camera source, picture for the models, tracker, rules and pace as in an exam."""
    lamp, words = Lamp(), []
    whole = accept(node(tmp_path), SHORT, SHORT, tmp_path, equipped(lamp, ManualClock(), words.append), 2.0)
    assert whole is True
    names = sorted(path.name for path in tmp_path.rglob("*"))
    stem = "acceptance-desk-7-2026-11-22T09-00-00Z"
    assert names == [f"{stem}.html", f"{stem}.json"]
    report = json.loads((tmp_path / names[1]).read_text())
    rule = schema("acceptance")
    assert problems(report, rule, rule) == []
    assert [step["outcome"] for step in report["steps"]] == ["nothing observed", "miss"]
    assert report["steps"][1]["why"] == "a face was seen in 100% of the pictures"
    assert 30 < report["eyes"]["median_px"] < 150
    assert report["frames"]["reached_hz"] == pytest.approx(5.0, abs=0.4)
    assert report["camera"]["models_width_px"] == 640
    # Lit for the look whether there is a camera, and for the run; out after each.
    assert (lamp.history, lamp.is_lit) == ("1010", False)
    said = "".join(words)
    assert said.index("The camera is on while you act") < said.index("[waits]") < said.index("PRACTICE")


def test_without_a_camera_nobody_has_to_act(tmp_path: Path) -> None:
    lamp, words = Lamp(), []
    missing = equipped(lamp, ManualClock(), words.append, tmp_path / "absent.mp4")
    with pytest.raises(BadInput, match=r"clip cannot be read: .*absent\.mp4"):
        accept(node(tmp_path), SHORT, SHORT, tmp_path, missing)
    assert (words, lamp.history, list(tmp_path.iterdir())) == ([], "10", [])


def test_a_folder_that_is_not_there_is_refused_before_anything_begins(tmp_path: Path) -> None:
    lamp = Lamp()
    with pytest.raises(BadInput, match="no folder"):
        accept(node(tmp_path), SHORT, SHORT, tmp_path / "no", equipped(lamp, ManualClock(), str))
    assert lamp.history == ""


def test_refused_while_the_camera_service_has_the_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    service = RecordingStore(store, ManualClock())
    with ExitStack() as held, pytest.raises(Refused, match="camera service is running") as refused:
        hold_desk(store, held)
    assert "systemctl stop invigil-camera" in refused.value.hint
    service.close()
    with ExitStack() as held:
        hold_desk(store, held)
        with pytest.raises(Exception, match="being written by another process"):
            RecordingStore(store, ManualClock())  # nor can it start meanwhile
    RecordingStore(store, ManualClock()).close()


def test_refused_while_a_session_has_not_ended_though_the_service_is_stopped(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    service = RecordingStore(store, ManualClock())
    service.begin_session(new_session())
    service.close()
    with ExitStack() as held, pytest.raises(Refused, match=f"session {SID} has not ended"):
        hold_desk(store, held)


def test_a_desk_that_was_never_started_has_nothing_to_keep(tmp_path: Path) -> None:
    with ExitStack() as held:
        hold_desk(tmp_path / "store", held)
    assert list(tmp_path.iterdir()) == []


def node_toml(folder: Path) -> Path:
    lines = (
        f'{name} = "{value}"\n'
        for name, value in node(folder).model_dump(mode="json").items()
        if name in TEXTS
    )
    path = folder / "node.toml"
    path.write_text("".join(lines))
    return path


TEXTS = ("institution", "room", "desk", "broker_host", "camera", "store", "run_dir")


def test_without_a_terminal_and_without_yes_it_does_not_begin(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no terminal") as refused:
        accept_here(node_toml(tmp_path), tmp_path, "3", begin_at_once=False)
    assert "--yes" in refused.value.hint


def test_the_real_command_stopped_with_ctrl_c_says_how_far_it_came(tmp_path: Path) -> None:
    """In the first minute of a run of step 3: exit code 7, a report, no traceback."""
    command = [sys.executable, "-m", "appliance.cli", "node", "accept", "--config", str(node_toml(tmp_path))]
    running = subprocess.Popen(
        [*command, "--out", str(tmp_path), "--steps", "3", "--yes"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    first = "".join(iter(lambda: running.stdout.readline(), "        Nothing is tested in this minute.\n"))
    assert "ROOM ACCEPTANCE of desk-7: 1 step, 2 minutes" in first
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (7, "")
    assert (
        "stopped before the first step had ended (by hand); 0 of 24 steps ran: not a full acceptance" in out
    )
    (report,) = (json.loads(path.read_text()) for path in tmp_path.glob("acceptance-desk-7-*.json"))
    assert (report["full"], report["steps"], report["stopped"]) == (False, [], "by hand")
