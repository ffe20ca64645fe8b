"""Observations as messages for the camera process. Pure."""

from __future__ import annotations

from appliance.inference.cards import explain
from appliance.inference.observations import Observation
from appliance.local_link import Message


class Reports:
    """One session's: each observation that opens gets a key of its own, by which its end is known."""

    def __init__(self, session: Message, first_key: int = 0) -> None:
        """`first_key`: whoever else reports in this process has other keys."""
        self._started_mono_ns = int(session["started_mono_ns"])
        self._exam_policy = str(session["policy"])
        self._keys: dict[str, int] = {}
        self._next_key = first_key

    def message(self, observation: Observation) -> Message:
        """One observation that opened or closed."""
        if observation.phase == "opened":
            self._keys[observation.kind] = self._next_key
            self._next_key += 1
        return {
            "type": "observation",
            "key": self._keys[observation.kind],
            "report": {
                "kind": observation.kind,
                "words": observation.fact,
                "phase": observation.phase,
                "start_90k": self._session_90k(observation.start_mono_ns),
                "end_90k": None
                if observation.end_mono_ns is None
                else self._session_90k(observation.end_mono_ns),
                "duration_s": round(observation.duration_s, 1),
                "level": observation.level,
                "technical": observation.technical,
                "rule": observation.rule,
                "measured": dict(observation.measured),
                "uncertainty": uncertainty_words(observation),
                "card": explain(observation, self._exam_policy).model_dump(),
            },
        }

    def _session_90k(self, mono_ns: int) -> int:
        return max(0, (mono_ns - self._started_mono_ns) * 9 // 100_000)


def uncertainty_words(observation: Observation) -> str:
    """How unsure the measurement is, for a person."""
    share = observation.measured.get("assessed_share")
    seen = "" if share is None else f"assessed {float(share):.0%} of the time"
    if observation.uncertainty is None:
        return seen
    return f"direction within about {observation.uncertainty:.0f} degrees; {seen}".rstrip("; ")
