"""Camera covered, moved or frozen; a seat that is left and taken again; how many people are expected."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.inference.accommodations import accommodated
from appliance.inference.observations import Observation, ObservationPolicy
from appliance.inference.process import Assessment
from appliance.inference.reports import Reports
from appliance.inference.rules import DEFAULT_RULES, expecting
from tests.signals import DARK, FROZEN, GONE, MOVED, Part, closed, head, looking, play, scripted
from tests.unit.test_store_builders import SID

COVERED: dict[str, Any] = GONE | {"quality": "covered", "assessable": False, "moved": None}
# A view that is the usual one from now on: there is nothing yet to compare it with.
SETTLED: dict[str, Any] = {"moved": False, "in_place_percent": None}
BLURRED: dict[str, Any] = GONE | {"quality": "blur", "assessable": False, "moved": None}
GLARE: dict[str, Any] = GONE | {"quality": "glare", "assessable": False, "moved": None}
# The picture is judged again up to this much after it changed (Tracker's and Watch's interval).
LOOK_S = 0.5


def opened_after_s(parts: list[Part], kind: str, rate_hz: float) -> float | None:
    """When `kind` is said, in seconds after the first 10 s."""
    policy = ObservationPolicy()
    for signals in scripted([(10.0, {}), *parts], rate_hz):
        if any(event.kind == kind for event in policy.process(signals)):
            return signals.taken_mono_ns / 1e9 - 110.0
    return None


# --- covered ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [5.0, 15.0])
def test_a_covered_camera_is_said_within_three_seconds_of_the_cover(rate_hz: float) -> None:
    """Whenever the next look is due."""
    for late_s in (0.0, 0.2, LOOK_S):
        after_s = opened_after_s([(late_s, {}), (10.0, COVERED)], "camera_covered", rate_hz)
        assert after_s is not None
        assert 2.0 < after_s <= 3.0


@pytest.mark.parametrize("rate_hz", [5.0, 15.0])
def test_a_hand_that_passes_the_lens_for_a_second_raises_nothing(rate_hz: float) -> None:
    """Negative control: counted for half a second longer than it was there; three times in a row; and two seconds."""
    hand: list[Part] = [(1.0 + LOOK_S, COVERED), (2.0, {})]
    assert play([(10, {}), *hand * 3, (10, {})], rate_hz) == []
    assert play([(10, {}), (2.0, COVERED), (10, {})], rate_hz) == []


# --- moved ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [2.0, 5.0, 15.0])
def test_a_moved_camera_is_said_within_three_seconds_and_is_technical(rate_hz: float) -> None:
    """Turned for half a second, in which nothing can be told, and known with the second look after it."""
    scene: list[Part] = [
        (0.5, {"quality": "blur", "assessable": False, "moved": None}),
        (1.0, {"moved": None}),
    ]
    after_s = opened_after_s([*scene, (5.0, MOVED)], "camera_moved", rate_hz)
    assert after_s is not None
    assert after_s <= 3.0
    events = play([(10, {}), *scene, (5.0, MOVED), (10, {})], rate_hz)
    assert closed(events) == [("camera_moved", 5)]
    assert all(event.technical and event.level is None for event in events)
    assert events[0].measured["background_in_place_percent"] == 10.0


def test_one_look_that_errs_moves_no_camera() -> None:
    assert play([(10, {}), (0.5, MOVED), (10, {})]) == []


def test_after_a_movement_the_usual_direction_is_learned_anew() -> None:
    """Directions are against the camera: the minute before the movement says nothing of those after it."""
    policy = ObservationPolicy()
    play([(70, looking(12))], policy=policy)
    assert policy.baseline["yaw_deg"] == pytest.approx(12.0)
    events = play([(6, MOVED | looking(60)), (70, looking(-10))], policy=policy, start_s=170.0)
    assert closed(events) == [("camera_moved", 6)]
    assert policy.baseline["yaw_deg"] == pytest.approx(-10.0)
    assert policy.baseline["learned_s"] == 60.0


def test_while_the_camera_is_being_moved_no_direction_is_judged() -> None:
    turned = head(60)
    assert closed(play([(10, {}), (8, MOVED | turned), (10, {})])) == [("camera_moved", 8)]
    # Control: the same head before a camera that stands.
    assert closed(play([(10, {}), (8, turned), (10, {})])) == [("head_turned_away", 8)]


def test_a_camera_turned_to_the_wall_sees_no_absence_until_somebody_was_seen_again() -> None:
    """F041: "unassessable", not "absent"."""
    wall: list[Part] = [(10, {}), (6, MOVED | GONE), (0.5, SETTLED | GONE), (60, GONE)]
    assert closed(play(wall)) == [("camera_moved", 6)]
    assert closed(play([*wall, (5, {}), (20, GONE), (5, {})])) == [
        ("camera_moved", 6),
        ("nobody_at_desk", 20),
    ]


def test_a_camera_that_was_turned_back_sees_an_absence_again() -> None:
    assert closed(play([(10, {}), (6, MOVED | GONE), (40, GONE), (5, {})])) == [
        ("camera_moved", 6),
        ("nobody_at_desk", 40),
    ]


@pytest.mark.parametrize(("before_s", "away_s"), [(0, 60), (30, 91)])
def test_somebody_who_bumps_the_desk_when_leaving_is_gone_all_the_same(before_s: float, away_s: int) -> None:
    """One look that finds the view moved is no moved camera, and ends no absence."""
    events = play([(10, {}), (before_s, GONE), (0.5, MOVED | GONE), (60, GONE), (5, {})])
    assert closed(events) == [("nobody_at_desk", away_s)]


@pytest.mark.parametrize(
    ("kind", "what", "between"),
    [
        ("camera_blurred", BLURRED, DARK),
        ("camera_blurred", BLURRED, GLARE),
        ("camera_covered", COVERED, DARK),
        ("camera_covered", COVERED, GLARE),
    ],
)
def test_what_cannot_be_told_in_the_dark_or_in_glare_is_not_over(
    kind: str, what: dict[str, Any], between: dict[str, Any]
) -> None:
    events = play([(10, {}), (20, what), (4, between), (20, what), (10, {})])
    assert closed(events) == [(kind, 44)]
    assert events[1].measured["assessed_share"] == pytest.approx(40 / 44, abs=0.02)


# --- frozen -----------------------------------------------------------------------------------------------------------


def test_while_the_picture_is_frozen_nothing_else_is_observed_or_learned() -> None:
    policy = ObservationPolicy()
    play([(20, looking(5))], policy=policy)
    before = policy.baseline
    assert closed(play([(60, FROZEN), (1, {})], policy=policy, start_s=120.0)) == [("picture_frozen", 60)]
    assert policy.baseline["learned_s"] <= before["learned_s"] + 1.0


def test_an_absence_ends_where_it_was_last_seen_when_the_picture_freezes() -> None:
    events = play([(10, {}), (20, GONE), (60, FROZEN), (5, {})])
    assert closed(events) == [("nobody_at_desk", 20), ("picture_frozen", 60)]
    assert events[2].fact == "nobody seen at the desk until it could not be seen any more"


# --- a seat that is left ----------------------------------------------------------------------------------------------


def absence(*parts: Part, **changes: Any) -> Observation:
    [_, ended] = [event for event in play([(10, {}), *parts], **changes) if event.kind == "nobody_at_desk"]
    return ended


def test_a_seat_left_and_taken_again_says_after_how_long() -> None:
    """F048. Nobody compares faces: somebody, not the candidate."""
    ended = absence((45, GONE), (10, {}))
    assert (ended.ended, ended.words) == ("over", "nobody seen at the desk until somebody came, 45.0 s")
    assert (ended.end_mono_ns, ended.start_mono_ns) == (155_000_000_000, 110_000_000_000)


def test_a_seat_that_stays_empty_is_told_apart() -> None:
    assert absence((45, GONE)).words == "nobody seen at the desk until the end, 44.9 s"
    assert absence((45, GONE), (1, {})).ended == "over"


def test_an_absence_that_could_not_be_followed_says_neither() -> None:
    ended = absence((20, GONE), (60, DARK), (5, {}))
    assert (ended.ended, ended.fact) == (
        "unseen",
        "nobody seen at the desk until it could not be seen any more",
    )


def test_an_inference_process_that_was_away_claims_no_return() -> None:
    """A minute without frames, and then still nobody: the first absence ended where it was last seen."""
    policy = ObservationPolicy()
    first = [event for s in scripted([(10, {}), (20, GONE)]) for event in policy.process(s)]
    again = [event for s in scripted([(30, GONE)], start_s=190.0) for event in policy.process(s)]
    assert [event.ended for event in [*first, *again]] == [None, "unseen", None]


def test_breaks_free_says_the_same_without_a_level() -> None:
    policy = ObservationPolicy(accommodated(DEFAULT_RULES, ("breaks_free",)))
    ended = absence((45, GONE), (10, {}), policy=policy)
    assert (ended.level, ended.fact) == ("green", "nobody seen at the desk until somebody came")


def test_the_report_carries_the_words() -> None:
    """What the room's screen, the log and the archive show."""
    reports = Reports({"sid": SID, "started_mono_ns": 10**9, "policy": "p v1"})
    told = [reports.message(event)["report"]["words"] for event in play([(10, {}), (45, GONE), (10, {})])]
    assert told == ["nobody seen at the desk", "nobody seen at the desk until somebody came"]


# --- people expected --------------------------------------------------------------------------------------------------


def people(count: int, expected: int, *codes: Any) -> list[Observation]:
    policy = ObservationPolicy(accommodated(expecting(DEFAULT_RULES, expected), codes))
    return play([(10, {}), (20, {"faces": count}), (10, {})], policy=policy)


@pytest.mark.parametrize(
    ("count", "expected", "seen"),
    [(1, 1, False), (2, 1, True), (1, 2, False), (2, 2, False), (3, 2, True), (3, 4, False)],
)
def test_more_than_expected_is_observed_and_fewer_is_not(count: int, expected: int, seen: bool) -> None:
    assert [kind for kind, _ in closed(people(count, expected))] == ["several_people"] * seen


def test_nobody_is_observed_however_many_are_expected() -> None:
    policy = ObservationPolicy(expecting(DEFAULT_RULES, 2))
    assert closed(play([(10, {}), (20, GONE), (5, {})], policy=policy)) == [("nobody_at_desk", 20)]


def test_the_words_name_the_number_that_is_expected() -> None:
    assert people(3, 2)[0].fact == "more than 2 people in view"
    assert people(3, 2)[0].rule.startswith("more than 2 people in view for at least 4 s")
    assert people(2, 1)[0].fact == "more than one person in view"


def test_a_second_person_at_a_seat_adds_none_to_those_that_the_exam_expects() -> None:
    assert people(2, 2, "second_person_ok") == []
    assert closed(people(3, 2, "second_person_ok")) == [("several_people", 20)]
    assert people(3, 3, "second_person_ok") == []


def test_the_session_brings_the_number_to_the_rules() -> None:
    """From the signed policy by the camera process's message."""
    session = {"sid": SID, "started_mono_ns": 0, "gaze": False, "policy": "p v1", "levels": {}}
    for message, count in ((session, 1), (session | {"expected_people": 3}, 3)):
        spans = Assessment(message)._policy._spans
        assert spans["several_people"].rule.expected_people == count
        assert spans["head_turned_away"].rule.expected_people == count
