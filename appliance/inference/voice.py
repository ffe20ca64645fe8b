"""From how sure a network is of a voice, piece by piece, to observations "voice nearby". Pure; nothing of it is stored.

A moment is half a second: the share of its pieces that hold a voice, and so yes or no. What could not be heard counts
neither way: it never becomes "no voice". No sound, no words and nothing of a speaker comes as far as here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.inference.observations import Ended, Observation, observation_of
from appliance.inference.rules import Rule
from appliance.inference.span import Span

# 16 pieces of 32 ms. Shorter, and the pause between two words is a moment of its own; longer, and a cough fills one.
PIECES_PER_MOMENT = 16
# The network's own middle: its authors' threshold. Of 12,500 pieces of 20 noises none went above 0.37.
SURE = 0.5
# Most of a moment, so that one short sound inside it is none.
YES_SHARE = 0.5
HEARD, UNHEARD = "heard", "unheard"


@dataclass(frozen=True)
class Moment:
    """The half second that ended at `ended_mono_ns`: share of it with a voice, 0..1; None where it was not heard."""

    ended_mono_ns: int
    share: float | None


class Moments:
    """Gathers pieces into moments."""

    def __init__(self) -> None:
        self._pieces: list[float | None] = []

    def add(self, sure: float | None, ended_mono_ns: int) -> Moment | None:
        """One piece: how sure of a voice, 0..1, or None for one without any sound; the moment that it completes."""
        self._pieces.append(sure)
        if len(self._pieces) < PIECES_PER_MOMENT:
            return None
        heard = [each for each in self._pieces if each is not None]
        self._pieces = []
        if len(heard) < PIECES_PER_MOMENT / 2:
            return Moment(ended_mono_ns, None)
        return Moment(ended_mono_ns, sum(each >= SURE for each in heard) / len(heard))


class VoiceObserver:
    """Turns one session's moments into observations by its one rule; without the rule it observes nothing."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._spans = [Span(rule) for rule in rules if rule.kind == "voice_nearby"]

    def process(self, moment: Moment) -> list[Observation]:
        """Take in the next moment, in time order; returns what opened or closed."""
        events = []
        for span in self._spans:
            share, now_ns = moment.share, moment.ended_mono_ns
            if share is None:
                change = span.step(now_ns, None, {}, UNHEARD)
            else:
                change = span.step(now_ns, float(share >= YES_SHARE), {"voice_share": share}, HEARD)
            if change:
                events.append(_observation(span, None if change == "opened" else "unseen", now_ns))
            if change == "closed":
                span.clear()
        return events

    def close(self, now_mono_ns: int) -> list[Observation]:
        """End of the session: what is open closes where a voice was last heard."""
        events = [_observation(span, "stopped", now_mono_ns) for span in self._spans if span.is_open]
        for span in self._spans:
            span.clear()
        return events


def _observation(span: Span, ended: Ended | None, now_ns: int) -> Observation:
    measured = {name: round(value, 2) for name, value in span.means().items()}
    measured["assessed_share"] = round(span.assessed_share(), 2)
    return observation_of(span, ended, now_ns, measured)
