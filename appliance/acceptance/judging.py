"""What was observed against what was acted, step by step. Pure.

An observation belongs to the step in which it began, however late it opened; what began in none is between steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from appliance.acceptance.looking import Sample, Seen, measure_light
from appliance.acceptance.script import Expected, Step
from appliance.acceptance.walk import Mark
from appliance.inference.cards import QUALITY_WORDS
from appliance.inference.observations import MAX_GAZE_UNCERTAINTY_DEG
from appliance.inference.rules import DEFAULT_RULES, KINDS
from appliance.inference.signals import Signals

# People begin a little before the countdown ends. Only for innocent steps: a staged one counts from its announcement.
EARLY_NS = 2_000_000_000
# And take so long to come back. What opens later was not the step's doing any more.
LATE_NS = 5_000_000_000
# Less than half of the time is what a sentence names first: the rule could not be right then.
HALF = 0.5

Outcome = Literal["hit", "other side", "had begun before", "miss", "nothing observed", "false observation"]


@dataclass(frozen=True)
class Judged:
    """One step that ran: `expected_seen` made it a hit, `others` are of any other kind or, in an innocent step, all."""

    step: Step
    mark: Mark
    outcome: Outcome
    expected_seen: Seen | None
    others: tuple[Seen, ...]
    samples: tuple[Sample, ...]
    why: str | None


def judge(
    marks: Sequence[Mark], seen: Sequence[Seen], samples: Sequence[Sample]
) -> tuple[tuple[Judged, ...], tuple[Seen, ...]]:
    """Every step that ran, and the observations that began in none of them."""
    judged = tuple(_judge(mark, seen, samples) for mark in marks)
    taken = {id(one) for each in judged for one in (each.expected_seen, *each.others)}
    return judged, tuple(one for one in seen if id(one) not in taken)


def share(samples: Sequence[Sample], true_of: Callable[[Signals], bool]) -> float:
    """Part of the readings for which something holds; 0 of none."""
    return sum(true_of(sample.signals) for sample in samples) / len(samples) if samples else 0.0


def gaze_is_usable(signals: Signals) -> bool:
    """Whether the rule would use this frame's gaze."""
    unsure_deg = signals.gaze_uncertainty_deg
    return signals.assessable and unsure_deg is not None and unsure_deg <= MAX_GAZE_UNCERTAINTY_DEG


def _judge(mark: Mark, seen: Sequence[Seen], samples: Sequence[Sample]) -> Judged:
    expected = mark.step.expected
    from_ns = mark.begin_ns - EARLY_NS if expected is None else mark.told_ns
    began = [one for one in seen if from_ns <= one.start_ns < mark.end_ns]
    during = tuple(s for s in samples if mark.begin_ns <= s.signals.taken_mono_ns < mark.end_ns)
    if expected is None:
        outcome: Outcome = "false observation" if began else "nothing observed"
        return Judged(mark.step, mark, outcome, None, tuple(began), during, None)
    fitting = [one for one in began if _fits(one, expected)]
    found = next((one for one in fitting if one.opened_ns <= mark.end_ns + LATE_NS), None)
    others = tuple(one for one in began if one is not found)
    if found is not None:
        return Judged(mark.step, mark, "hit", found, others, during, None)
    if fitting:
        late_s = (fitting[0].opened_ns - mark.end_ns) / 1e9
        return Judged(
            mark.step, mark, "miss", None, others, during, f"said {late_s:.0f} s after the step had ended"
        )
    return Judged(
        mark.step, mark, _miss(expected, mark, seen, began), None, others, during, _why(expected, during)
    )


def _fits(one: Seen, expected: Expected) -> bool:
    return one.kind == expected.kind and expected.side in (None, one.side)


def _miss(expected: Expected, mark: Mark, seen: Sequence[Seen], began: Sequence[Seen]) -> Outcome:
    if any(one.kind == expected.kind for one in began):
        return "other side"
    same_kind = (one for one in seen if one.kind == expected.kind and one.start_ns < mark.told_ns)
    if any(one.end_ns is None or one.end_ns > mark.begin_ns for one in same_kind):
        return "had begun before"
    return "miss"


def _why(expected: Expected, during: Sequence[Sample]) -> str:
    """What was measured in a step whose behaviour was not observed, for staff to see why."""
    if not during:
        return "no picture was looked at"
    rule = next(rule for rule in DEFAULT_RULES if rule.kind == expected.kind)
    if rule.kind == "camera_moved":
        told = share(during, lambda s: s.moved is not None)
        return (
            f"in {told:.0%} of the pictures enough of the background was seen to tell where the camera stands"
        )
    if KINDS[rule.kind].technical:
        words = ", ".join(
            f"{QUALITY_WORDS[quality]} {part:.0%}" for quality, part in measure_light(during).items()
        )
        return f"the picture was {words} of the time"
    if expected.kind == "nobody_at_desk":
        seen_share = share(during, lambda s: s.faces > 0)
        if seen_share > HALF:
            return f"a face was seen in {seen_share:.0%} of the pictures"
    readable = share(during, lambda s: s.assessable)
    if readable < HALF:
        return f"{readable:.0%} of the pictures could be assessed"
    if expected.kind == "nobody_at_desk":
        return "a face that was turned, cut or bent low just before counts neither way for 10 to 60 s"
    if expected.kind == "several_people":
        return f"more than one face was counted in {share(during, lambda s: s.faces > 1):.0%} of the pictures"
    name = "head" if expected.kind == "head_turned_away" else "gaze"
    faced = share(during, lambda s: s.head_yaw_deg is not None)
    if faced < HALF:
        return f"a face was followed in {faced:.0%} of the pictures"
    usable = [s.signals for s in during if name == "head" or gaze_is_usable(s.signals)]
    if len(usable) < HALF * len(during):
        return f"the gaze was sure enough to be used in {len(usable) / len(during):.0%} of the pictures"
    across, up = (
        spread_deg([getattr(s, f"{name}_yaw_deg") for s in usable]),
        spread_deg([getattr(s, f"{name}_pitch_deg") for s in usable]),
    )
    return (
        f"the {name} went from {across[0]:.0f} to {across[1]:.0f} degrees across and from {up[0]:.0f} to {up[1]:.0f} "
        f"up; the rule: {rule.words().partition(';')[0]}"
    )


def spread_deg(values: Sequence[float | None]) -> tuple[float, float]:
    """5th and 95th percentile of what could be read; (0, 0) of nothing."""
    known = [value for value in values if value is not None]
    low, high = np.percentile(known, (5, 95)) if known else (0.0, 0.0)
    return float(low), float(high)
