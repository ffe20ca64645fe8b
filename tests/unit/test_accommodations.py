"""What each accommodation takes away or widens at a seat, and that none of them ever adds an observation."""

from __future__ import annotations

import itertools
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from appliance.camera.accommodations import accommodations_report
from appliance.camera.orders import RecordingOrder
from appliance.clock import SystemClock
from appliance.errors import BadInput
from appliance.frames import FrameRingReader
from appliance.inference.accommodations import accommodated
from appliance.inference.observations import Observation, ObservationPolicy
from appliance.inference.process import Assessor
from appliance.inference.rules import ANGLE_KINDS, DEFAULT_RULES, KINDS, SOUND_KINDS, SOUND_RULES, Rule
from appliance.local_link import Message
from appliance.policy import ACCOMMODATION_WORDS, ACCOMMODATIONS, Accommodation
from appliance.protocol import (
    COMMAND_PURPOSE,
    Command,
    StartSession,
    decode,
    encode,
    sign_message,
    verify_message,
)
from tests.signals import DARK, GONE, HIDDEN, Part, closed, head, looking, play
from tests.unit.test_store_builders import SID
from tests.unit.test_sync_room import READY, Bench, policy

SEVERITY = {None: 0, "green": 0, "yellow": 1, "red": 2}
# A minute of plain work, so that the usual direction stands; then three scenes that are observed without any code.
USUAL: Part = (61.0, {})
WORK: Part = (10.0, {})


def rules(*codes: Accommodation) -> dict[str, Rule]:
    return {rule.kind: rule for rule in accommodated(DEFAULT_RULES, codes)}


def seen(scene: list[Part], *codes: Accommodation) -> list[Observation]:
    return play([USUAL, *scene], rate_hz=5.0, policy=ObservationPolicy(accommodated(DEFAULT_RULES, codes)))


def start(**changes: Any) -> StartSession:
    return StartSession.model_validate({"sid": SID, "candidate_code": "C-17", "policy": {}} | changes)


# --- what each code does --------------------------------------------------------------------------------------------


def test_no_code_changes_nothing() -> None:
    assert accommodated(DEFAULT_RULES, ()) == DEFAULT_RULES


def test_no_gaze_takes_the_rule_for_gaze_away() -> None:
    """F042."""
    scene = [(20.0, looking(60)), WORK]
    assert closed(seen(scene)) == [("gaze_outside_work_area", 20)]
    assert closed(seen(scene, "no_gaze")) == []
    assert set(rules("no_gaze")) == set(KINDS) - {"gaze_outside_work_area", *SOUND_KINDS}


@pytest.mark.parametrize(
    "direction", [looking(40), looking(-40), looking(0, 40)], ids=["left", "right", "up"]
)
def test_gaze_wide_leaves_a_look_alone_that_lies_within_the_wider_limit(direction: dict[str, Any]) -> None:
    assert closed(seen([(20.0, direction), WORK])) == [("gaze_outside_work_area", 20)]
    assert closed(seen([(20.0, direction), WORK], "gaze_wide")) == []


def test_gaze_wide_still_sees_a_long_look_far_outside_and_says_its_limits() -> None:
    [opened, _] = seen([(20.0, looking(60)), WORK], "gaze_wide")
    assert "more than 47 degrees to the side or 45 degrees up" in opened.rule
    assert opened.measured["threshold_deg"] == 47
    assert closed(seen([(5.5, looking(60)), WORK], "gaze_wide")) == []
    assert closed(seen([(5.5, looking(60)), WORK])) == [("gaze_outside_work_area", 6)]


def test_head_tic_leaves_movements_alone_that_return() -> None:
    """Half a minute of jerks that hardly come to rest between."""
    bout: list[Part] = [(0.6, head(60)), (0.2, {})] * 40
    assert [kind for kind, _ in closed(seen([*bout, WORK]))] == ["head_turned_away"]
    assert closed(seen([*bout, WORK], "head_tic")) == []


def test_head_tic_claims_nothing_of_a_time_that_nobody_saw() -> None:
    """Each of them may have returned while the face was hidden."""
    assert closed(seen([*[(0.6, head(60)), (3.0, HIDDEN)] * 20, WORK], "head_tic")) == []


def test_head_tic_still_sees_a_head_that_stays_turned() -> None:
    assert closed(seen([(9.0, head(60)), WORK], "head_tic")) == []
    events = seen([(30.0, head(60)), WORK], "head_tic")
    assert closed(events) == [("head_turned_away", 30)]
    assert "for at least 10 s without a return" in events[0].rule


def test_breaks_free_keeps_an_absence_as_a_fact_without_a_level() -> None:
    usual, free = seen([(40.0, GONE), WORK]), seen([(40.0, GONE), WORK], "breaks_free")
    assert closed(usual) == closed(free) == [("nobody_at_desk", 40)]
    assert {event.level for event in usual} == {"red"}
    assert {event.level for event in free} == {"green"}


def test_second_person_ok_counts_from_the_third_on() -> None:
    two, three = [(20.0, {"faces": 2}), WORK], [(20.0, {"faces": 3}), WORK]
    assert closed(seen(two)) == [("several_people", 20)]
    assert closed(seen(two, "second_person_ok")) == []
    events = seen(three, "second_person_ok")
    assert closed(events) == [("several_people", 20)]
    assert events[0].rule.startswith("more than 2 people in view")


def test_second_person_ok_judges_no_direction_while_two_are_in_view() -> None:
    """Nobody knows whose it is; alone again, it counts as usual."""
    turned = [(20.0, head(60) | {"faces": 2}), WORK]
    assert "head_turned_away" in dict(closed(seen(turned)))
    assert closed(seen(turned, "second_person_ok")) == []
    assert closed(seen([(20.0, head(60)), WORK], "second_person_ok")) == [("head_turned_away", 20)]
    # Nor does the time with two join what lies before it to what comes after.
    two_looks: list[Part] = [(3.0, looking(60)), (5.0, {"faces": 2}), (3.0, looking(60)), WORK]
    assert "gaze_outside_work_area" not in dict(closed(seen(two_looks)))
    assert closed(seen(two_looks, "second_person_ok")) == []


def test_second_person_ok_learns_nobody_elses_habit() -> None:
    """A helper who sits to the side for the first minute moves nothing."""
    learned = ObservationPolicy(accommodated(DEFAULT_RULES, ("second_person_ok",)))
    play([(60.0, looking(14) | {"faces": 2})], rate_hz=5.0, policy=learned)
    assert learned.baseline["learned_s"] == 0


def test_posture_free_says_nothing_of_a_turned_head_nor_does_the_rule_for_gaze() -> None:
    """F046: with the head's rule merely dropped the one for gaze would go by the head and report it."""
    scene = [(20.0, head(60)), WORK]
    assert closed(seen(scene)) == [("head_turned_away", 20)]
    assert closed(seen(scene, "posture_free")) == []
    dropped = ObservationPolicy([rule for rule in DEFAULT_RULES if rule.kind != "head_turned_away"])
    assert closed(play([USUAL, *scene], rate_hz=5.0, policy=dropped)) == [("gaze_outside_work_area", 20)]
    assert closed(seen([(20.0, looking(60)), WORK], "posture_free")) == [("gaze_outside_work_area", 20)]


def test_posture_free_raises_no_level_and_is_closed_in_silence() -> None:
    free = ObservationPolicy(accommodated(DEFAULT_RULES, ("posture_free",)))
    assert play([USUAL, (20.0, head(60))], rate_hz=5.0, policy=free) == []


def test_reader_voice_takes_the_rule_for_voices_away_and_no_other() -> None:
    assert accommodated(DEFAULT_RULES, ("reader_voice",)) == DEFAULT_RULES
    assert accommodated(SOUND_RULES, ("reader_voice",)) == ()
    exam = policy(face=True, voice=True)
    assert [exam.for_seat(codes).voice for codes in ((), ("no_gaze",), ("reader_voice",))] == [
        True,
        True,
        False,
    ]


def test_human_only_leaves_no_rule_and_no_model() -> None:
    """F133."""
    assert accommodated(DEFAULT_RULES, ("human_only",)) == ()
    seat = policy(face=True, gaze=True, voice=True).for_seat(("human_only",))
    assert (seat.face, seat.gaze, seat.voice, seat.record_video) == (False, False, False, True)


# --- never more than without ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("face", "gaze", "voice"),
    [
        (False, False, False),
        (True, False, False),
        (True, True, False),
        (False, False, True),
        (True, True, True),
    ],
)
def test_f042_codes_turn_nothing_on_that_the_policy_left_off(face: bool, gaze: bool, voice: bool) -> None:
    exam = policy(face=face, gaze=gaze, voice=voice)
    for codes in itertools.chain.from_iterable(itertools.combinations(ACCOMMODATIONS, n) for n in range(9)):
        seat = exam.for_seat(codes)
        assert (seat.face <= face, seat.gaze <= gaze, seat.gaze <= seat.face) == (True, True, True)
        assert seat.voice <= voice
        assert seat.model_copy(update={"face": face, "gaze": gaze, "voice": voice}) == exam
    assert exam.for_seat(()) == exam


PARTS = st.one_of(
    st.builds(looking, st.sampled_from([-70, -50, -46, -35, 0, 20, 35, 46, 70]), st.sampled_from([-30, 0, 35, 50])),
    st.builds(head, st.sampled_from([-60, -45, -35, 0, 35, 45, 60]), st.sampled_from([-25, 0, 45])),
    st.sampled_from([{}, GONE, DARK, HIDDEN]),
)  # fmt: skip
SCENES = st.lists(
    st.builds(
        lambda seconds, what, faces: (seconds, what if what.get("faces") == 0 else what | {"faces": faces}),
        st.sampled_from([0.2, 0.6, 1.0, 2.0, 3.0, 5.0, 11.0, 16.0]),
        PARTS,
        st.sampled_from([1, 1, 1, 2, 3]),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(SCENES, st.sets(st.sampled_from(ACCOMMODATIONS), min_size=1))
def test_whatever_is_observed_with_codes_is_observed_without_them_too(
    scene: list[Part], codes: set[Accommodation]
) -> None:
    """In any scene, once the usual direction is learned: the same kind, at the same time, at no higher a level."""
    usual = [event for event in seen(scene) if event.phase == "closed"]
    for event in seen(scene, *codes):
        if event.phase == "opened":
            assert any(
                other.kind == event.kind
                and other.start_mono_ns <= event.start_mono_ns <= (other.end_mono_ns or 0)
                and SEVERITY[event.level] <= SEVERITY[other.level]
                for other in usual
            )


def test_a_rule_with_longer_smoothing_would_have_added_one() -> None:
    """Control, and why `head_tic` has none: three short looks become one long one."""
    scene: list[Part] = [(3.0, looking(80)), (1.4, {})] * 4
    smooth = [
        replace(rule, dwell_s=10.0, smooth_s=2.0) if rule.kind in ANGLE_KINDS else rule
        for rule in DEFAULT_RULES
    ]
    assert closed(seen(scene)) == []
    assert len(closed(play([USUAL, *scene], rate_hz=5.0, policy=ObservationPolicy(smooth)))) == 1


def test_technical_rules_are_touched_by_no_code_but_human_only() -> None:
    codes = [code for code in ACCOMMODATIONS if code != "human_only"]
    for kind, rule in rules(*codes).items():
        if KINDS[kind].technical:
            assert rule == rules()[kind]


# --- models ---------------------------------------------------------------------------------------------------------


OPENED: list[str] = []


def _notice(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and str(args[0]).endswith(".tflite"):
        OPENED.append(Path(str(args[0])).name)


sys.addaudithook(_notice)


class Deaf:
    """The camera's end of the link."""

    def send(self, _message: Message) -> bool:
        return True


def models_opened(**switches: Any) -> set[str]:
    """Model files that a session's real beginning opens, as the interpreter's own audit sees it."""
    OPENED.clear()
    seat = policy(face=True, gaze=True).for_seat(switches.get("accommodations", ()))
    session = {
        "type": "session", "sid": SID, "face": seat.face, "gaze": seat.gaze, "started_mono_ns": 0, "levels": {},
        "policy": "statistics-1 v3", "accommodations": [], **switches,
    }  # fmt: skip
    Assessor(FrameRingReader(Path("/dev/shm/none")), Deaf(), SystemClock(), 5.0).follow(session)
    return set(OPENED)


def test_f042_no_gaze_opens_no_model_for_the_eyes_and_human_only_opens_none() -> None:
    """F133. The same as where the policy itself leaves gaze or face off."""
    everything, without_gaze = models_opened(), models_opened(gaze=False)
    assert without_gaze < everything
    assert models_opened(accommodations=["no_gaze"]) == without_gaze
    assert models_opened(accommodations=["human_only"]) == set()
    assert models_opened(accommodations=["gaze_wide"]) == everything


# --- codes on the wire ----------------------------------------------------------------------------------------------


def test_codes_survive_the_signed_round_trip_once_each_and_in_order() -> None:
    key = Ed25519PrivateKey.generate()
    order = start(accommodations=["no_gaze", "gaze_wide", "no_gaze"])
    command = Command(room="r", desk="d", serial=1, issued="2026-11-22T09:00:00.000Z", order=order)
    payload = sign_message(COMMAND_PURPOSE, command, key)
    read = verify_message(COMMAND_PURPOSE, Command, payload, key.public_key()).order
    assert isinstance(read, StartSession)
    assert read.accommodations == ("gaze_wide", "no_gaze")
    assert StartSession.model_validate(read.model_dump(mode="json")) == order


def test_the_desk_keeps_the_codes_with_its_order_and_the_camera_reads_them_there(tmp_path: Path) -> None:
    """So that they hold again after a restart of the desk."""
    with closing(Bench(tmp_path)) as bench:
        order = bench.start(face=True, gaze=True).model_copy(update={"accommodations": ("no_gaze",)})
        answer = bench.orders.take(bench.command(order), READY)
        assert answer is not None
        assert answer.accepted
        bench.ledger.close()
        bench.open_ledger()
        kept = bench.ledger.order(SID)
        assert kept is not None
        assert RecordingOrder.read(kept, bench.root_key.public_key()).start.accommodations == ("no_gaze",)


def test_an_order_without_codes_is_the_one_that_older_desks_know() -> None:
    assert "accommodations" not in start().model_dump(mode="json")
    assert decode(StartSession, encode(start())).accommodations == ()


@pytest.mark.parametrize("codes", [["dyslexia"], ["no_gaze", "NO_GAZE"], [""], [1], "no_gaze", [["no_gaze"]]])
def test_f026_anything_but_a_known_code_is_refused_by_name(codes: Any) -> None:
    with pytest.raises(ValidationError):
        start(accommodations=codes)
    with pytest.raises(BadInput, match="accommodations"):
        decode(StartSession, encode(start()).replace(b'"kind"', b'"accommodations":["x"],"kind"'))


def test_f026_words_say_what_is_done_and_never_why() -> None:
    """One short line for each code, no condition of a person in any."""
    assert set(ACCOMMODATION_WORDS) == set(get_args(Accommodation)) == set(ACCOMMODATIONS)
    assert tuple(sorted(ACCOMMODATIONS)) == ACCOMMODATIONS
    text = " ".join(ACCOMMODATION_WORDS.values()).lower()
    for word in [
        "disab",
        "diagnos",
        "disorder",
        "syndrom",
        "autis",
        "adhd",
        "dyslex",
        "blind",
        "epilep",
        "tic",
    ]:
        assert word not in text
    assert all(len(words) <= 60 for words in ACCOMMODATION_WORDS.values())


def test_the_recording_says_which_apply_in_one_technical_entry() -> None:
    """Also with all eight it fits a report."""
    report = accommodations_report(ACCOMMODATIONS, policy(), 90_000)
    assert (report.phase, report.level, report.technical) == ("closed", None, True)
    assert report.measured == {"accommodations": ",".join(ACCOMMODATIONS)}
    assert report.rule.split("; ")[0] == ACCOMMODATION_WORDS[ACCOMMODATIONS[0]]
    assert report.card is not None
    assert report.kind not in KINDS
    assert set(ANGLE_KINDS) <= set(KINDS)
