"""F047: a recorded trace of half seconds gives the observations that a person approved, to a tenth of a second."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.inference.rules import SOUND_RULES
from appliance.inference.voice import VoiceObserver
from tests.replay import heard

HOW = "heard: python -m tests.replay.heard, then approve in tests/replay/heard.json"


def test_replay_of_what_was_heard_gives_what_was_approved() -> None:
    moments, document = heard.stored()
    assert heard.replay(moments) == document["approved_s"], f"{document['why']}\n{HOW}"
    assert len(document["why"].split()) >= 5


def test_todays_network_hears_what_was_recorded() -> None:
    moments, _ = heard.stored()
    now = heard.hear(heard.sound())
    assert [each.share is None for each in now] == [each.share is None for each in moments]
    assert [each.share for each in now] == pytest.approx([each.share for each in moments], abs=0.13)


def test_half_the_dwell_makes_the_replay_differ() -> None:
    """Negative control: then a sentence's first words are a talk."""
    hasty = VoiceObserver([replace(rule, dwell_s=rule.dwell_s / 2) for rule in SOUND_RULES])
    moments, document = heard.stored()
    assert heard.replay(moments, hasty) != document["approved_s"]


def test_the_trace_holds_times_and_shares_only() -> None:
    """F039, F047: two numbers each half second; no sound could be made of it."""
    _, document = heard.stored()
    assert set(document) == {"why", "approved_s", "moments_ms_share"}
    for at_ms, share in document["moments_ms_share"]:
        assert isinstance(at_ms, int)
        assert share is None or 0 <= share <= 1
    assert heard.TRACE.stat().st_size < 10_000
