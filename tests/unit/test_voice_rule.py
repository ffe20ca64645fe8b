"""The rule "voice nearby" over half seconds of yes, no or not heard, told in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from appliance.inference.accommodations import accommodated
from appliance.inference.observations import Observation
from appliance.inference.rules import SOUND_KINDS, SOUND_RULES, with_levels
from appliance.inference.voice import PIECES_PER_MOMENT, Moment, Moments, VoiceObserver

MOMENT_S = PIECES_PER_MOMENT * 0.032
# (seconds, share of each half second with a voice; None: not heard)
Part = tuple[float, float | None]
QUIET, TALK, NOT_HEARD = 0.0, 0.9, None


def play(*parts: Part, observer: VoiceObserver | None = None) -> list[Observation]:
    observer = observer or VoiceObserver(SOUND_RULES)
    events, now_ns = [], 100 * 10**9
    for seconds, share in parts:
        for _ in range(round(seconds / MOMENT_S)):
            now_ns += round(MOMENT_S * 1e9)
            events += observer.process(Moment(now_ns, share))
    return events


def phases(events: Iterable[Observation]) -> list[str]:
    return [event.phase for event in events]


def test_a_talk_is_one_observation_with_its_span_and_share() -> None:
    opened, closed = play((10, QUIET), (8, TALK), (10, QUIET))
    assert (opened.kind, opened.level, opened.technical, opened.uncertainty) == (
        "voice_nearby", "yellow", False, None,
    )  # fmt: skip
    assert opened.words == f"voice nearby, {opened.duration_s:.1f} s"
    assert 3.0 <= opened.duration_s <= 4.0
    assert closed.duration_s == pytest.approx(8.0, abs=0.6)
    assert closed.measured == {"voice_share": 0.9, "assessed_share": 1.0}
    assert closed.end_mono_ns is not None
    assert closed.end_mono_ns == pytest.approx(118 * 10**9, abs=1_000_000_000)


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0])
def test_a_cough_a_sneeze_or_a_word_is_none(seconds: float) -> None:
    assert play((10, QUIET), (seconds, TALK), (10, QUIET)) == []


def test_a_word_every_few_seconds_is_none() -> None:
    assert play(*[(1.0, TALK), (4.0, QUIET)] * 20) == []


def test_a_breath_between_two_sentences_does_not_make_two_of_one_talk() -> None:
    assert phases(play((6, TALK), (1.5, QUIET), (6, TALK), (10, QUIET))) == ["opened", "closed"]
    assert phases(play((6, TALK), (8, QUIET), (6, TALK), (10, QUIET))) == ["opened", "closed"] * 2


def test_less_than_half_of_a_moment_is_no_voice() -> None:
    assert play((30, 0.45)) == []


def test_what_was_not_heard_counts_neither_way() -> None:
    """F041: a muted or lost microphone neither opens nor closes anything, and its time is left out of the dwell."""
    assert play((60, NOT_HEARD)) == []
    assert phases(play((6, TALK), (5, NOT_HEARD))) == ["opened"]
    assert phases(play((6, TALK), (5, NOT_HEARD), (4, TALK))) == ["opened"]
    opened, closed = play((6, TALK), (12, NOT_HEARD))
    assert closed.end_mono_ns is not None
    assert closed.end_mono_ns - opened.start_mono_ns < 6.5e9
    assert closed.measured["assessed_share"] < 0.5
    assert play((2, TALK), (5, NOT_HEARD), (2, QUIET)) == []


def test_the_end_of_the_session_closes_it() -> None:
    observer = VoiceObserver(SOUND_RULES)
    [opened] = play((6, TALK), observer=observer)
    [closed] = observer.close(opened.start_mono_ns + 7 * 10**9)
    assert (closed.phase, observer.close(200 * 10**9)) == ("closed", [])


def test_half_the_dwell_would_take_a_word_for_a_talk() -> None:
    """Negative control of the test of coughs."""
    hasty = VoiceObserver([replace(rule, dwell_s=rule.dwell_s / 2) for rule in SOUND_RULES])
    assert phases(play((10, QUIET), (2.0, TALK), (10, QUIET), observer=hasty)) == ["opened", "closed"]


def test_the_institutions_level_and_the_seats_codes_apply() -> None:
    """F066, F133."""
    [rule] = with_levels(SOUND_RULES, {"voice_nearby": "red"})
    assert rule.level == "red"
    assert [rule.kind for rule in SOUND_RULES] == list(SOUND_KINDS)
    for code in ("reader_voice", "human_only"):
        assert accommodated(SOUND_RULES, (code,)) == ()
    assert accommodated(SOUND_RULES, ("no_gaze", "second_person_ok", "breaks_free")) == SOUND_RULES
    assert play((20, TALK), observer=VoiceObserver(())) == []


def test_a_moment_is_the_share_of_its_pieces_and_unheard_when_most_are_without_sound() -> None:
    moments = Moments()
    for number in range(PIECES_PER_MOMENT - 1):
        assert moments.add(0.9 if number % 2 else 0.1, number) is None
    assert moments.add(0.5, 99) == Moment(99, 0.5)
    for number in range(PIECES_PER_MOMENT):
        last = moments.add(None if number < 9 else 0.9, number)
    assert last == Moment(PIECES_PER_MOMENT - 1, None)
