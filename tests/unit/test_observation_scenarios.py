"""Nine scenes of an exam in words: what is observed, and what must not be.

Each is played with the jitter of real measurements, at two rates, and has a control: the same
scene with the one thing changed that makes it an observation, or an innocent one.
"""

import math
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import pytest

from appliance.inference.observations import Observation, ObservationPolicy
from appliance.inference.rules import DEFAULT_RULES
from appliance.inference.signals import Signals
from tests.signals import GONE, HIDDEN, NO_EYES, WORKING, Part, closed, head, looking, play

SETTLED: Part = (20, {})


@pytest.fixture(params=[(15.0, 1), (4.0, 2)], ids=lambda param: f"{param[0]:g}Hz-seed{param[1]}")
def observed(request: pytest.FixtureRequest) -> Any:
    """Plays a scene and says which kinds were observed, and for how many seconds."""
    rate_hz, seed = request.param
    return lambda *parts: seen_by(play([SETTLED, *parts, SETTLED], rate_hz, seed=seed))


def seen_by(events: Iterable[Observation]) -> dict[str, float]:
    """Kind and seconds; a kind that was observed twice fails."""
    pairs = closed(events)
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


def moving(start: dict[str, Any], end: dict[str, Any], seconds: float, steps: int = 10) -> list[Part]:
    """From one reading to another as a head moves: smoothly, angles only."""
    parts = []
    for step in range(steps):
        share = (1.0 - math.cos(math.pi * (step + 0.5) / steps)) / 2.0
        mixed = {
            name: start[name] + share * (end[name] - start[name])
            for name in end
            if start.get(name) is not None
        }
        parts.append((seconds / steps, end | mixed))
    return parts


def test_reads_own_paper(observed: Any) -> None:
    """Straight below, beside the keyboard, head bent, and bent so low that the face is lost."""
    below, beside, low = head(0, -35), head(-35, -30) | looking(-50, -40), head(5, -45)
    assert observed(*moving(WORKING, below, 1), (60, below), *moving(below, WORKING, 1), (5, {})) == {}
    assert observed((60, beside), (5, {}), (60, head(50, -30))) == {}
    assert observed((5, low), (25, GONE), (10, low), (5, {})) == {}
    # Control: the same side, held up.
    assert set(observed((60, head(-35, 0) | looking(-50, 0)))) == {"gaze_outside_work_area"}


def test_neighbour_walks_past(observed: Any) -> None:
    """F043: two seconds of a second face, there and back, and a glance after them."""
    passing = (2, {"faces": 2})
    assert observed(passing, (1.5, looking(45, 0)), (20, {}), passing, (10, {})) == {}
    # Control: somebody who stays.
    assert observed((8, {"faces": 2})) == {"several_people": 8}


def test_leans_out_of_view(observed: Any) -> None:
    """A fallen pen: the face slides out of the picture and is gone for eight seconds; cut by its edge before, for
    fifteen. Neither is an empty seat, a turned head or a gaze."""
    leaning = head(10, -15) | {"head_roll_deg": 30.0}
    assert observed(*moving(WORKING, leaning, 1), (8, GONE), *moving(leaning, WORKING, 1)) == {}
    assert observed((1, leaning), (1.5, HIDDEN), (15, GONE), (1, HIDDEN)) == {}
    # Control: out of view for longer than anybody looks for a pen.
    assert observed((1, leaning), (30, GONE)) == {"nobody_at_desk": 30}


def test_rests_head_on_hand(observed: Any) -> None:
    """Head tilted, one eye squeezed, the hand over half the face: a minute and a half of nothing, and no absence."""
    tilted = {"head_roll_deg": 25.0, "head_yaw_deg": 12.0, "head_pitch_deg": -8.0}
    assert observed((30, tilted | looking(38, 5, unsure=20.0)), (30, tilted | NO_EYES), (30, HIDDEN)) == {}
    assert observed((10, tilted), (20, HIDDEN), (15, GONE), (10, tilted)) == {}
    # Control: the same posture, both eyes readable and turned outside.
    assert observed((30, tilted | looking(45, 5))) == {"gaze_outside_work_area": 30}


def test_sneezes(observed: Any) -> None:
    """Head down, a hand up, the face gone for a second and a half; three times in a row."""
    sneeze = [(0.4, head(5, -30)), (1.5, GONE), (0.5, HIDDEN), (2, {})]
    assert observed(*sneeze, *sneeze, *sneeze) == {}
    # Without the head going down first, and blurred by the movement.
    assert observed((0.3, {"quality": "blur", "assessable": False}), (3, GONE), (5, {})) == {}


def test_turns_to_the_clock(observed: Any) -> None:
    """To the side wall for two and a half seconds, eight times; or up to the front wall."""
    clock = head(50, 12)
    glance = [*moving(WORKING, clock, 0.4), (1.7, clock), *moving(clock, WORKING, 0.4), (20, {})]
    assert observed(*glance * 8) == {}
    assert observed((3, looking(0, 40)), (20, {}), (3, looking(0, 40))) == {}
    # Control: eight seconds are one observation of the head, and none of the eyes.
    assert observed(*moving(WORKING, clock, 0.4), (8, clock), *moving(clock, WORKING, 0.4)) == {
        "head_turned_away": 8
    }


@pytest.mark.parametrize(("jerk_s", "rest_s"), [(0.3, 2.0), (0.4, 0.6), (0.25, 0.25)])
def test_tic(observed: Any, jerk_s: float, rest_s: float) -> None:
    """Jerks of the head to one side for two minutes: nothing, and no other zero than before."""
    jerks = [(jerk_s, head(50, 5)), (rest_s, {})] * round(120 / (jerk_s + rest_s))
    assert observed(*jerks) == {}
    policy = ObservationPolicy()
    play([SETTLED, *jerks], policy=policy, seed=4)
    assert policy.baseline["yaw_deg"] == pytest.approx(0.0, abs=3.0)
    # Control: as much turning in one piece.
    assert observed((10, head(50, 5))) == {"head_turned_away": 10}


def test_leaves_for_forty_seconds(observed: Any) -> None:
    """F048: exactly one observation, as long as the absence; ten seconds less where the face was lost while turned."""
    assert observed((40, GONE)) == {"nobody_at_desk": 40}
    turning = moving(WORKING, head(70, 0), 1.0)
    assert observed(*turning, (40, GONE)) == {"nobody_at_desk": pytest.approx(30, abs=1)}
    opened, ended = play([SETTLED, (40, GONE), SETTLED])
    assert (opened.phase, ended.phase) == ("opened", "closed")
    assert (opened.start_mono_ns, ended.end_mono_ns) == (120_000_000_000, 160_000_000_000)
    # Control: eight seconds are a fallen pen.
    assert observed((8, GONE)) == {}


def test_swaps_with_somebody(observed: Any) -> None:
    """F038: who sits there is not known. A gap of three seconds and another face, another height, another habit are no
    observation; a gap of twenty is an empty seat and nothing more."""
    other = head(9, -6) | looking(12, -4)
    assert observed((3, GONE), (60, other)) == {}
    assert observed((20, GONE), (60, other)) == {"nobody_at_desk": 20}
    # Seen together for long enough, they are two people in view.
    assert observed((6, {"faces": 2}), (60, other)) == {"several_people": 6}
    # Nothing that could tell one face from another ever reaches the policy.
    assert {field.name for field in fields(Signals)} == {"taken_mono_ns", *WORKING}


def test_scenes_are_judged_alike_by_somebody_who_sits_aside() -> None:
    """F051: with an own zero of ten degrees the same turn of the body is the same observation, left and right."""
    for side in (-10.0, 10.0):
        habit = head(side, 4)
        for turn, kinds in ((25, set()), (45, {"gaze_outside_work_area"})):
            for way in (-1, 1):
                away = habit | looking(side + way * turn, 4)
                assert set(seen_by(play([(70, habit), (10, away), (5, habit)], seed=5))) == kinds


def test_a_scene_can_fail() -> None:
    """Negative control: with half the dwell the neighbour, the pen and the clock would be observations."""
    hasty = ObservationPolicy([replace(rule, dwell_s=rule.dwell_s / 2) for rule in DEFAULT_RULES])
    scene = [SETTLED, (3, {"faces": 2}), (20, {}), (8, GONE), (20, {}), (2.5, head(50, 12)), (20, {})]
    assert set(seen_by(play(scene, policy=hasty))) == {"several_people", "nobody_at_desk", "head_turned_away"}
    assert play(scene) == []
