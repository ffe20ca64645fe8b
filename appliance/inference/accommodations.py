"""What one seat's accommodations do to the rules: rules in, rules out. Pure.

A code only ever takes away or widens: whatever it leaves to be observed would be observed without it too
(`tests/unit/test_accommodations.py` holds that for any scene). What loads no model is decided before, by
`ExamPolicy.for_seat` in the camera process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from appliance.inference.rules import ANGLE_KINDS, SOUND_KINDS, Rule, expecting
from appliance.policy import Accommodation

# As far as a baseline may be moved (CLAMP_YAW_DEG): looks between the usual and the wider limit are learned from in the
# first minute, and even then the limits of somebody who usually looks straight ahead lie no nearer than without the
# code. 32 and 15 are also the far edge of the second of two 24 inch screens side by side at 60 cm (41) and 6 of error.
GAZE_WIDER_DEG = 15.0
GAZE_DWELL_TIMES = 1.5
# A movement that comes and goes returns within seconds; ten without any return are a look.
HEAD_DWELL_TIMES = 2.5


def accommodated(rules: Sequence[Rule], codes: Collection[Accommodation]) -> tuple[Rule, ...]:
    """The rules as they apply at a seat with these codes, whatever their order."""
    if "human_only" in codes:
        # No model runs at such a seat; this says the same to whoever asks for its rules.
        return ()
    for code, change in _CHANGES.items():
        if code in codes:
            rules = [changed for rule in rules if (changed := change(rule)) is not None]
    return tuple(rules)


def _breaks_free(rule: Rule) -> Rule | None:
    # Leaving is allowed at any time, so nothing asks for a person; the recording still says from when to when.
    return replace(rule, level="green") if rule.kind == "nobody_at_desk" else rule


def _gaze_wide(rule: Rule) -> Rule | None:
    if rule.kind != "gaze_outside_work_area":
        return rule
    return replace(
        rule,
        enter=rule.enter + GAZE_WIDER_DEG,
        leave=rule.leave + GAZE_WIDER_DEG,
        up_enter=None if rule.up_enter is None else rule.up_enter + GAZE_WIDER_DEG,
        dwell_s=rule.dwell_s * GAZE_DWELL_TIMES,
    )


def _head_tic(rule: Rule) -> Rule | None:
    # Not a longer smoothing: that would join two looks, each too short to be observed, into one that is.
    if rule.kind not in ANGLE_KINDS:
        return rule
    return replace(rule, dwell_s=rule.dwell_s * HEAD_DWELL_TIMES, starts_anew=True)


def _no_gaze(rule: Rule) -> Rule | None:
    return None if rule.kind == "gaze_outside_work_area" else rule


def _posture_free(rule: Rule) -> Rule | None:
    # Unsaid, not dropped: without it the rule for gaze would take the turned head over and report that instead, and
    # the baseline would learn from it.
    return replace(rule, reported=False) if rule.kind == "head_turned_away" else rule


def _second_person_ok(rule: Rule) -> Rule | None:
    # A third person is still one too many. Directions are not judged while two are in view: they may be the other's,
    # and who works with somebody turns to them.
    # Where the exam expects two anyhow, or more, the second person is one of them.
    return expecting((rule,), 2)[0]


def _reader_voice(rule: Rule) -> Rule | None:
    # The microphone is not even opened (ExamPolicy.for_seat); this says the same to whoever asks for a seat's rules.
    return None if rule.kind in SOUND_KINDS else rule


_CHANGES: dict[Accommodation, Callable[[Rule], Rule | None]] = {
    "breaks_free": _breaks_free,
    "gaze_wide": _gaze_wide,
    "head_tic": _head_tic,
    "no_gaze": _no_gaze,
    "posture_free": _posture_free,
    "reader_voice": _reader_voice,
    "second_person_ok": _second_person_ok,
}
