"""The observation policy: signals in, observations out. Pure; one per candidate and session, nothing of it
is stored.

An observation is a physical fact with a span, a rule, what was measured and how unsure it is, for a person
to look at. What cannot be assessed counts neither way: it never becomes "nobody" or "away" (F041).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from appliance.inference.baseline import Baseline
from appliance.inference.rules import ANGLE_KINDS, DEFAULT_RULES, KINDS, Kind, Rule, words_of
from appliance.inference.signals import Signals
from appliance.inference.span import Span
from appliance.policy import Level

__all__ = ["KINDS", "Kind", "Observation", "ObservationPolicy"]

# From here the head's direction is more to be trusted than the eyes' (far eye half hidden).
HEAD_DECIDES_YAW_DEG = 40.0
# Twice the mean gaze error (docs/observations.md): beyond it 32 degrees of gaze could as well be 16.
MAX_GAZE_UNCERTAINTY_DEG = 16.0
# So far below the usual direction is the desk: writing and reading own paper raise nothing, whatever the
# side.
LOOKING_DOWN_DEG = 15.0
# Pitch alone says nothing below this, whatever levels a rule has: it is the least certain angle (8 to 10 degrees of it
# are the difference between real eyelids and rendered ones). The side decides.
PITCH_ALONE_DEG = 15.0
# A face that goes missing right after it was turned, cut or covered is probably still there, unseen; head
# bent over the desk is how people write, and writing lasts.
DOUBT_AFTER_TURNED_S = 10.0
DOUBT_AFTER_BENT_S = 60.0
# Only a face that has been followed for a while leaves such a doubt: the detector sees one in an empty scene now and
# then for a few frames (measured: 0.6 s of every 4 s in a clip of a blurred logo), and each would cost ten seconds.
STEADY_FACE_S = 2.0
FACE_HOLE_S = 1.0
TURNED_YAW_DEG = 35.0
BENT_PITCH_DEG = -20.0
# What the camera's own kinds look for in the picture, and in which pictures it cannot be told.
QUALITY_SOUGHT = {"camera_covered": "covered", "camera_blurred": "blur", "picture_frozen": "frozen"}
QUALITY_UNCLEAR = {
    "camera_covered": ("dark", "glare", "frozen"),
    "camera_blurred": ("dark", "glare", "covered", "frozen"),
    "picture_frozen": ("covered", "dark"),
}
# 95 % of head yaws are closer than this to the truth (docs/observations.md).
HEAD_UNCERTAINTY_DEG = 5.0

# How an observation came to its end: it was seen to be over, could not be assessed any more, or nobody looked any more.
Ended = Literal["over", "unseen", "stopped"]
# Nobody compares faces: it is somebody, not the same person.
AFTER_NOBODY: dict[Ended | None, str] = {
    None: "",
    "over": " until somebody came",
    "unseen": " until it could not be seen any more",
    "stopped": " until the end",
}


@dataclass(frozen=True)
class Observation:
    """One opened or closed span (F045). `uncertainty` is in degrees for directions, None for yes or no.

    `measured` holds the mean readings while inside, for directions also the largest deviation, the level and
    the baseline it is judged against, and `assessed_share`, the part of the time that could be assessed.
    `quality_s` is the span's time by picture quality, `hidden_s` the part of it in which the picture was good
    and still nothing could be assessed. `ended` is None while it is open.
    """

    kind: str
    phase: Literal["opened", "closed"]
    start_mono_ns: int
    end_mono_ns: int | None
    duration_s: float
    rule: str
    level: Level | None
    technical: bool
    uncertainty: float | None
    measured: dict[str, float] = field(default_factory=dict)
    quality_s: dict[str, float] = field(default_factory=dict)
    hidden_s: float = 0.0
    ended: Ended | None = None
    expected_people: int = 1

    @property
    def fact(self) -> str:
        """What was seen, and of an empty seat also whether it was taken again."""
        after = AFTER_NOBODY[self.ended] if self.kind == "nobody_at_desk" else ""
        return words_of(self.kind, self.expected_people) + after

    @property
    def words(self) -> str:
        """What a person reads: "looking outside the work area, 6.2 s"."""
        return f"{self.fact}, {self.duration_s:.1f} s"


@dataclass(frozen=True)
class _Reading:
    value: float | None
    details: dict[str, float] = field(default_factory=dict)


_UNASSESSABLE = _Reading(None)


class ObservationPolicy:
    """Turns one candidate's signals into observations by `rules`, at most one of each kind."""

    def __init__(self, rules: Sequence[Rule] = DEFAULT_RULES) -> None:
        self._spans = {rule.kind: Span(rule) for rule in rules}
        self._head, self._gaze = Baseline(), Baseline()
        self._face_ns = 0
        self._face_since_ns: int | None = None
        self._doubt_until_ns = 0
        self._moved = False
        self._view_unknown = False
        self._last_ns: int | None = None

    @property
    def baseline(self) -> dict[str, float]:
        """State of the candidate's baseline, to be shown.

        Usual gaze direction in degrees, seconds learned of 60.
        """
        return {
            "yaw_deg": self._gaze.yaw_deg,
            "pitch_deg": self._gaze.pitch_deg,
            "learned_s": max(self._gaze.learned_s, self._head.learned_s),
        }

    def process(self, signals: Signals) -> list[Observation]:
        """Take in one frame's signals, in time order; returns what opened or closed."""
        now_ns = signals.taken_mono_ns
        elapsed_s = 0.0 if self._last_ns is None else (now_ns - self._last_ns) / 1e9
        self._last_ns = now_ns
        self._remember_face(signals)
        self._remember_view(signals)
        events = []
        for kind, span in self._spans.items():
            reading = self._reading(kind, span.rule, signals)
            change = span.step(now_ns, reading.value, reading.details, signals.quality)
            if change and span.rule.reported:
                events.append(self._observation(span, None if change == "opened" else "unseen", now_ns))
            if change == "closed":
                span.clear()
            elif change == "opened" and kind == "camera_moved":
                # Directions are against the camera: what is usual from its new place is learned from there.
                self._head, self._gaze = Baseline(), Baseline()
                self._view_unknown = True
        self._learn(signals, min(max(elapsed_s, 0.0), 1.0))
        return events

    def close_all(self, now_mono_ns: int) -> list[Observation]:
        """End of session or break: whatever is open closes where it was last seen."""
        events = [
            self._observation(span, "stopped", now_mono_ns)
            for span in self._spans.values()
            if span.is_open and span.rule.reported
        ]
        for span in self._spans.values():
            span.clear()
        return events

    def _reading(self, kind: str, rule: Rule, signals: Signals) -> _Reading:
        if kind == "nobody_at_desk":
            return self._nobody(signals)
        if kind == "several_people":
            if signals.quality != "good":
                return _UNASSESSABLE
            return _Reading(float(signals.faces > rule.expected_people), {"faces": float(signals.faces)})
        if kind == "camera_moved":
            return _moved(signals)
        if kind in ANGLE_KINDS and signals.moved:
            return _UNASSESSABLE
        if kind in ANGLE_KINDS and rule.expected_people > 1 and signals.faces > 1:
            # It may be the other person's; and a pause instead would join a look before it to one after it.
            return _Reading(0.0)
        if kind == "head_turned_away":
            return self._head_turned(rule, signals)
        if kind == "gaze_outside_work_area":
            return self._gaze_outside(rule, signals)
        if signals.quality in QUALITY_UNCLEAR[kind]:
            return _UNASSESSABLE
        return _Reading(float(signals.quality == QUALITY_SOUGHT[kind]))

    def _nobody(self, signals: Signals) -> _Reading:
        if signals.faces >= 1:
            # However poor the picture, a face in it is somebody.
            return _Reading(0.0)
        # A camera that was turned to the wall sees nobody either.
        in_doubt = signals.taken_mono_ns < self._doubt_until_ns or signals.moved or self._view_unknown
        return _UNASSESSABLE if in_doubt or not signals.assessable else _Reading(1.0, {"faces": 0.0})

    def _head_turned(self, rule: Rule, signals: Signals) -> _Reading:
        yaw, pitch = signals.head_yaw_deg, signals.head_pitch_deg
        if not signals.assessable or yaw is None or pitch is None:
            return _UNASSESSABLE
        sideways, upward = yaw - self._head.yaw_deg, pitch - self._head.pitch_deg
        details = {"yaw_deg": yaw, "pitch_deg": pitch} | _baseline_details(self._head)
        # Bent over a sheet beside the keyboard.
        return _Reading(0.0 if upward < BENT_PITCH_DEG else _deviation(rule, sideways, upward), details)

    def _gaze_outside(self, rule: Rule, signals: Signals) -> _Reading:
        if not signals.assessable or signals.head_yaw_deg is None or signals.head_pitch_deg is None:
            return _UNASSESSABLE
        yaw, pitch, unsure = signals.gaze_yaw_deg, signals.gaze_pitch_deg, signals.gaze_uncertainty_deg
        base = self._gaze
        turned_deg = abs(signals.head_yaw_deg - self._head.yaw_deg)
        if turned_deg > HEAD_DECIDES_YAW_DEG and "head_turned_away" in self._spans:
            # That rule reports it; two observations of one movement would be one too many.
            return _UNASSESSABLE
        # Against the camera, not the usual direction: the camera is what the far eye hides from.
        if max(turned_deg, abs(signals.head_yaw_deg)) > HEAD_DECIDES_YAW_DEG:
            yaw, pitch, unsure, base = (
                signals.head_yaw_deg,
                signals.head_pitch_deg,
                HEAD_UNCERTAINTY_DEG,
                self._head,
            )
        if yaw is None or pitch is None or unsure is None or unsure > MAX_GAZE_UNCERTAINTY_DEG:
            return _UNASSESSABLE
        details = {"yaw_deg": yaw, "pitch_deg": pitch, "uncertainty_deg": unsure} | _baseline_details(base)
        sideways, upward = yaw - base.yaw_deg, pitch - base.pitch_deg
        lowest_deg = -LOOKING_DOWN_DEG if base is self._gaze else BENT_PITCH_DEG
        return _Reading(0.0 if upward < lowest_deg else _deviation(rule, sideways, upward), details)

    def _remember_face(self, signals: Signals) -> None:
        now_ns = signals.taken_mono_ns
        if signals.faces == 0:
            # Frames may be further apart than this; only one without a face makes a hole.
            if now_ns - self._face_ns > FACE_HOLE_S * 1e9:
                self._face_since_ns = None
            return
        if self._face_since_ns is None:
            self._face_since_ns = now_ns
        self._face_ns = now_ns
        if self._is_bent(signals):
            # Once is enough: who copies from screen to paper looks up for a second at a time.
            self._doubt_until_ns = now_ns + round(DOUBT_AFTER_BENT_S * 1e9)
        elif now_ns - self._face_since_ns >= STEADY_FACE_S * 1e9:
            yaw = signals.head_yaw_deg
            unsure = not signals.assessable or yaw is None or abs(yaw) > TURNED_YAW_DEG
            self._doubt_until_ns = now_ns + (round(DOUBT_AFTER_TURNED_S * 1e9) if unsure else 0)

    def _remember_view(self, signals: Signals) -> None:
        """What a turned camera shows is not known until somebody is in it, or it shows what it did before."""
        was_moved, self._moved = self._moved, bool(signals.moved)
        # A view that is the usual one from now on has nothing to be compared with.
        back = was_moved and signals.moved is False and signals.in_place_percent is not None
        if back or (signals.faces > 0 and not signals.moved):
            self._view_unknown = False

    def _is_bent(self, signals: Signals) -> bool:
        pitch = signals.head_pitch_deg
        return pitch is not None and pitch - self._head.pitch_deg < BENT_PITCH_DEG

    def _learn(self, signals: Signals, step_s: float) -> None:
        angle_spans = [self._spans[kind] for kind in ANGLE_KINDS if kind in self._spans]
        if signals.faces > 1 and any(span.rule.expected_people > 1 for span in angle_spans):
            return
        # Frozen while something is open or about to be: looking away would become the habit that it is judged by, and
        # of two people in view nobody knows whose direction is read.
        about_people = [span for span in self._spans.values() if not KINDS[span.rule.kind].technical]
        busy = signals.moved or any(span.start_ns is not None for span in about_people)
        if not signals.assessable or busy:
            return
        if signals.head_yaw_deg is not None and signals.head_pitch_deg is not None:
            self._head.learn(signals.head_yaw_deg, signals.head_pitch_deg, step_s)
        unsure = signals.gaze_uncertainty_deg
        if unsure is None or unsure > MAX_GAZE_UNCERTAINTY_DEG:
            return
        if signals.gaze_yaw_deg is not None and signals.gaze_pitch_deg is not None:
            self._gaze.learn(signals.gaze_yaw_deg, signals.gaze_pitch_deg, step_s)

    def _observation(self, span: Span, ended: Ended | None, now_ns: int) -> Observation:
        rule = span.rule
        measured = {name: round(value, 1) for name, value in span.means().items()}
        share = span.assessed_share()
        uncertainty = None
        if rule.kind in ANGLE_KINDS:
            measured |= {"peak_deviation_deg": round(span.peak, 1), "threshold_deg": rule.enter}
            uncertainty = measured.pop("uncertainty_deg", HEAD_UNCERTAINTY_DEG)
        measured["assessed_share"] = round(share, 2)
        quality_s = span.quality_s()
        if rule.kind in QUALITY_SOUGHT:
            sought = QUALITY_SOUGHT[rule.kind]
            measured[f"{sought}_share"] = round(
                quality_s.get(sought, 0.0) / (sum(quality_s.values()) or 1.0), 2
            )
        return observation_of(span, ended, now_ns, measured, uncertainty)


def observation_of(
    span: Span, ended: Ended | None, now_ns: int, measured: dict[str, float], uncertainty: float | None = None
) -> Observation:
    """The span as it stands, open where `ended` is None; one that was seen to be over says so however it was closed."""
    assert span.start_ns is not None  # noqa: S101
    rule = span.rule
    end_ns = None if ended is None else min(span.end_ns(), now_ns)
    if ended is not None and not span.is_inside:
        ended = "over"
    return Observation(
        rule.kind,
        "opened" if ended is None else "closed",
        span.start_ns,
        end_ns,
        ((end_ns if end_ns is not None else now_ns) - span.start_ns) / 1e9,
        rule.words(),
        rule.level,
        KINDS[rule.kind].technical,
        uncertainty,
        measured,
        {name: round(spent_s, 2) for name, spent_s in span.quality_s().items()},
        round(span.hidden_s(), 2),
        ended,
        rule.expected_people,
    )


def _moved(signals: Signals) -> _Reading:
    if signals.moved is None:
        return _UNASSESSABLE
    percent = signals.in_place_percent
    return _Reading(float(signals.moved), {} if percent is None else {"background_in_place_percent": percent})


def _baseline_details(base: Baseline) -> dict[str, float]:
    return {"baseline_yaw_deg": base.yaw_deg, "baseline_learned_s": base.learned_s}


def _deviation(rule: Rule, sideways_deg: float, upward_deg: float) -> float:
    """Degrees on the scale of the rule's levels."""
    return max(abs(sideways_deg), upward_deviation_deg(rule, upward_deg))


def upward_deviation_deg(rule: Rule, upward_deg: float) -> float:
    """A turn upward on the scale of the rule's level for the side; 0 where it does not count."""
    if rule.up_enter is None or upward_deg < PITCH_ALONE_DEG:
        return 0.0
    return upward_deg * rule.enter / rule.up_enter
