"""What staff are asked to do in the room acceptance test, how each step is judged, and what they are advised."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.acceptance.figures import (
    LIGHT_ADVICE,
    YAW_WITHIN_DEG_AT_PX,
    Eyes,
    advice,
    measure_eyes,
    usable_gaze,
)
from appliance.acceptance.judging import Judged, judge
from appliance.acceptance.looking import Looking, Sample, Seen, eye_distance_px
from appliance.acceptance.script import NOT_STAGED, PRACTICE_S, SCRIPT, Expected, Step, chosen, duration_s
from appliance.acceptance.walk import Mark
from appliance.camera.source import Frame
from appliance.errors import BadInput
from appliance.inference.cards import QUALITY_WORDS
from appliance.inference.pace import Pace
from appliance.inference.rules import DEFAULT_RULES
from appliance.inference.signals import Signals
from tests.acting import BLANK, CALM, LEFT, NEAR, RIGHT, What
from tests.manual_clock import ManualClock
from tests.signals import DARK, GONE, HIDDEN, WORKING, head, looking, scripted

# --- the script -------------------------------------------------------------------------------------------------------


def test_twelve_staged_and_twelve_innocent_in_fifteen_minutes() -> None:
    assert [step.number for step in SCRIPT] == list(range(1, 25))
    assert [sum(step.expected is None for step in SCRIPT), len(SCRIPT)] == [12, 24]
    assert duration_s(SCRIPT) == 15 * 60
    assert PRACTICE_S >= 60  # the baseline's minute
    assert all(len(step.say) < 160 and step.say.endswith(".") for step in SCRIPT)


def test_every_reported_rule_is_staged_and_every_side_of_directions() -> None:
    staged = {step.expected.kind for step in SCRIPT if step.expected}
    assert staged == {rule.kind for rule in DEFAULT_RULES if rule.reported} - set(NOT_STAGED)
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
        ("camera_moved", {"moved": None}, "in 0% of the pictures enough of the background was seen"),
        ("camera_covered", {"quality": "blur"}, "the picture was out of focus 100% of the time"),
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
        ({"eyes": Eyes(27.0, 24.0, 900)}, "eyes are 27 pixels apart; at 25 .* to 5.2 .*, at 50 to 3.9: bring the"),
        ({"eyes": Eyes(12.0, 10.0, 9)}, "eyes are 12 pixels apart; at 16 .* to 5.4"),
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


def test_every_quality_of_a_picture_has_its_advice() -> None:
    """A camera that repeats its picture, too: its report is written like any other."""
    assert set(LIGHT_ADVICE) == set(QUALITY_WORDS) - {"good", "no frame"}
    found = advice(NEAR, {"frozen": 0.2, "good": 0.8}, 1.0, (5.0, 5.0), CALM, [], [])
    assert found == [
        "the picture was frozen 20% of the time, and then little can be assessed: the camera repeats one picture: "
        "plug it in anew"
    ]


def test_a_face_whose_direction_is_unknown_is_not_before_the_camera() -> None:
    """Neither for the distance between its eyes nor for its gaze."""
    unknown = [Sample(Signals(0, 1, True, "good"), 61.0)]
    assert (measure_eyes(unknown).frames, usable_gaze(unknown)) == (0, None)


def test_up_is_told_as_the_rule_counts_it() -> None:
    """From the usual pitch, and not below the angle from which pitch alone counts at all."""
    measured = {"yaw_deg": 33.0, "baseline_yaw_deg": 0.0, "pitch_deg": 34.0}
    high = Seen("gaze_outside_work_area", 0, 0, usual_pitch_deg=10.0, measured=measured)
    level = Seen("gaze_outside_work_area", 0, 0, measured=measured)
    assert (high.side, level.side) == ("left", "up")
    slight = Seen("gaze_outside_work_area", 0, 0, measured=measured | {"yaw_deg": 10.0, "pitch_deg": 14.0})
    assert slight.side == "left"


def test_degrees_by_pixels_are_those_of_the_documentation() -> None:
    """Each the largest that the documentation's table has for so many pixels or more."""
    lines = Path("docs/observations.md").read_text(encoding="utf-8").splitlines()
    heading = next(
        number for number, line in enumerate(lines) if line.startswith("| Pixels between the eyes")
    )
    pixels, degrees = (
        [float(cell.strip(" °")) for cell in lines[number].split("|")[2:-1]]
        for number in (heading, heading + 2)
    )
    told = dict(zip(pixels, degrees, strict=True))
    for px, within_deg in YAW_WITHIN_DEG_AT_PX.items():
        assert within_deg == max(
            degree for at, degree in told.items() if px <= at <= max(YAW_WITHIN_DEG_AT_PX)
        )
