"""The walk through the room acceptance test with scripted people, and its report."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from appliance.acceptance.looking import Looking, Sample
from appliance.acceptance.page import render, summary
from appliance.acceptance.script import PRACTICE_S, SCRIPT, chosen
from appliance.camera.source import Frame
from appliance.inference.pace import Pace
from tests.acting import DOES, People
from tests.signals import head
from tests.unit.test_archive_schema import problems, schema

# --- the walk ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> tuple[People, dict[str, Any]]:
    room = People(DOES)
    _, report = room.walk()
    return room, report


def test_people_who_do_as_told_are_observed_in_each_staged_step_and_in_no_other(
    whole: tuple[People, Any],
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
    _, report = People({}).walk()
    assert report["totals"]["staged"]["hits"] == 0
    assert sum("not observed" in sentence for sentence in report["advice"]) == 12
    assert summary(report)[1] == "staged behaviours observed: 0 of 12 (95 % interval 0 to 24 %)"


def test_a_neighbour_who_stays_and_a_long_look_at_the_clock_are_false_observations() -> None:
    _, report = People(DOES | {17: (5, 99, {"faces": 2}), 9: (2, 99, head(yaw=60.0))}).walk()
    assert report["totals"]["innocent"]["with_false_observation"] == 2
    assert report["totals"]["staged"]["hits"] == 12
    assert sum("is innocent and was observed" in sentence for sentence in report["advice"]) == 2


def test_a_step_is_announced_large_and_counted_down(whole: tuple[People, Any]) -> None:
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
    room = People(DOES)
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
    _, report = People(DOES).walk(chosen(SCRIPT, "2,12"))
    assert (report["full"], report["stopped"], len(report["not_run"])) == (False, None, 22)
    assert summary(report)[0] == "2 of 24 steps ran: not a full acceptance"


def test_somebody_who_stops_after_two_steps_gets_a_report_of_two() -> None:
    room = People(DOES)
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


def test_what_was_acted_in_a_step_that_broke_off_is_no_surprise() -> None:
    """The camera is lost while the head is turned in step 2, after that was observed. Control: below."""
    whole = People(DOES)
    run, _ = whole.walk(chosen(SCRIPT, "1,2"))
    began_s = (run.marks[1].begin_ns - run.begin_ns) / 1e9
    room = People(DOES, lost_at_s=began_s + 9)
    broken, report = room.walk(chosen(SCRIPT, "1,2"))
    assert [mark.step.number for mark in broken.marks] == [1]
    assert "head turned to the side" in [one.words for one in room.looking.seen]
    assert report["between_steps"] == []
    assert not any("between the steps" in sentence for sentence in report["advice"])


def test_negative_control_what_nobody_asked_for_is_told() -> None:
    """Somebody turns away in the practice, and between two steps nothing was asked for."""
    room = People(DOES)
    does = room.read_frame

    def restless(frame: Frame) -> Sample:
        sample = does(frame)
        turned = (
            room.words.startswith("\n") and "STEP" not in room.words and frame.taken_mono_ns % 60e9 > 40e9
        )
        return replace(sample, signals=replace(sample.signals, head_yaw_deg=60.0)) if turned else sample

    room.looking = Looking(restless, Pace(5.0, 0.6), room.clock, lambda: 0)
    _, report = room.walk(chosen(SCRIPT, "1"))
    assert len(report["between_steps"]) >= 1
    assert any("between the steps" in sentence for sentence in report["advice"])


def test_a_camera_that_is_lost_ends_the_walk_with_what_was_done() -> None:
    run, report = People(DOES, lost_at_s=PRACTICE_S + 60).walk()
    assert (len(run.marks), run.stopped) == (1, "camera /dev/video0 is gone")
    assert "stopped after step 1 (camera /dev/video0 is gone)" in summary(report)[0]


def test_a_terminal_that_goes_away_stops_the_walk() -> None:
    room = People(DOES)

    def hang_up(words: str) -> None:
        raise BrokenPipeError

    room.hear = hang_up  # type: ignore[method-assign]
    run, report = room.walk()
    assert (run.marks, run.stopped, report["advice"]) == ([], "the terminal is gone", [])
    assert "stopped before the first step had ended" in summary(report)[0]
    assert report["totals"]["staged"] == {"of": 12, "ran": 0, "hits": 0, "interval_95": [0.0, 1.0]}


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_report_keeps_to_its_schema_and_a_spoilt_one_does_not(whole: tuple[People, Any]) -> None:
    _, report = whole
    rule = schema("acceptance")
    assert problems(json.loads(json.dumps(report)), rule, rule) == []
    assert problems(report | {"score": 1}, rule, rule) == ["$.score: unknown"]
    assert problems(report | {"version": 2}, rule, rule) == ["$.version: not the constant"]
    assert set(rule["required"]) == set(rule["properties"]) == set(report)


def test_the_page_has_every_step_number_and_limit_and_fetches_nothing(whole: tuple[People, Any]) -> None:
    _, report = whole
    page = render(report | {"room": "<script>alert(1)</script>"})
    assert page.count("<tr><td>") == 24
    for step in SCRIPT:
        assert step.title in page
    for sentence in [*summary(report), *report["does_not_show"], *report["models"].values(), "61 (a tenth"]:
        assert sentence in page
    assert not re.search(r"<script|https?:|\b(pass|passed|failed)\b|src=", page)
    assert "&lt;script&gt;" in page
