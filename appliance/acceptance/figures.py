"""What the whole run says of the place: size of the face, light, rate, usual direction; and what staff can do. Pure.

Every sentence carries its number; none says that a room is good or bad.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from appliance.acceptance.judging import Judged, gaze_is_usable, share
from appliance.acceptance.looking import Sample, Seen
from appliance.inference.baseline import CLAMP_YAW_DEG, LEARN_S
from appliance.inference.cards import GOOD_LIGHT_SHARE, QUALITY_WORDS
from appliance.inference.observations import MAX_GAZE_UNCERTAINTY_DEG
from appliance.inference.rules import KINDS
from appliance.inference.signals import Signals

# A head turned further shows the distance between its eyes shortened by more than 6 %.
FRONTAL_DEG = 20.0
# Within how many degrees of yaw nine of ten renders are read, with so many pixels between the eyes or more
# (docs/observations.md, room acceptance; clean pictures, so a camera's noise comes on top).
YAW_WITHIN_DEG_AT_PX = {50: 3.9, 40: 4.1, 35: 4.1, 30: 4.3, 25: 5.2, 20: 5.4, 16: 5.4}
# The eyes' network learned from 26 on.
NEAR_ENOUGH_PX = 30
# Leaves a look of 6 s its dwell of 4 s.
USABLE_SHARE = 0.67
# Of the rate that is set. Below one a second the room calls it a fault.
RATE_SHARE = 0.8
LEARNED_SHARE = 0.75
LIGHT_ADVICE = {
    "dark": "put more light on the face",
    "glare": "turn the lamp or the window's light away from the lens",
    "blur": "clean or focus the lens",
    "covered": "clear what stands before the lens",
    "frozen": "the camera repeats one picture: plug it in anew",
}


@dataclass(frozen=True)
class Eyes:
    """Pixels between the eyes of a head that faces the camera: median and 10th percentile of `frames`."""

    median_px: float | None
    p10_px: float | None
    frames: int


def measure_eyes(samples: Sequence[Sample]) -> Eyes:
    """Of the frames in which the head was within 20 degrees of the camera."""
    found = [s.eye_px for s in samples if s.eye_px is not None and _is_frontal(s.signals)]
    if not found:
        return Eyes(None, None, 0)
    return Eyes(float(np.median(found)), float(np.percentile(found, 10)), len(found))


def undisturbed(samples: Sequence[Sample], judged: Sequence[Judged]) -> list[Sample]:
    """Without the steps in which somebody was asked to spoil the picture, from announcement to a while after."""
    spans = [
        (each.mark.told_ns, each.mark.end_ns + 5_000_000_000)
        for each in judged
        if each.step.expected is not None and KINDS[each.step.expected.kind].technical
    ]
    return [s for s in samples if not any(low <= s.signals.taken_mono_ns < high for low, high in spans)]


def usable_gaze(samples: Sequence[Sample]) -> float | None:
    """Part of the frames with one face before the camera whose gaze the rule would use."""
    faces = [s for s in samples if s.signals.faces == 1 and _is_frontal(s.signals)]
    return share(faces, gaze_is_usable) if faces else None


def _is_frontal(signals: Signals) -> bool:
    return signals.head_yaw_deg is not None and abs(signals.head_yaw_deg) <= FRONTAL_DEG


def advice(
    eyes: Eyes,
    light: dict[str, float],
    gaze_share: float | None,
    rate_hz: tuple[float, float],
    baseline: dict[str, float],
    judged: Sequence[Judged],
    between: Sequence[Seen],
) -> list[str]:
    """Sentences that staff can act on; `rate_hz` reached and set."""
    found = [*_of_eyes(eyes), *_of_light(light), *_of_gaze(gaze_share), *_of_rate(*rate_hz)]
    return [*found, *_of_baseline(baseline), *_of_steps(judged), *_of_between(between)]


def _of_eyes(eyes: Eyes) -> list[str]:
    if eyes.median_px is None:
        return ["no face that looks at the camera was followed: point the camera at the seat"]
    if eyes.median_px >= NEAR_ENOUGH_PX:
        return []
    within_deg = YAW_WITHIN_DEG_AT_PX
    like_px = max((px for px in within_deg if px <= eyes.median_px), default=min(within_deg))
    near_px = max(within_deg)
    return [
        f"the eyes are {eyes.median_px:.0f} pixels apart; at {like_px} nine of ten gazes of clean pictures were "
        f"right to {within_deg[like_px]} degrees to the side, at {near_px} to {within_deg[near_px]}: bring the camera "
        "nearer"
    ]


def _of_light(light: dict[str, float]) -> list[str]:
    if light.get("good", 0.0) >= GOOD_LIGHT_SHARE:
        return []
    return [
        f"the picture was {QUALITY_WORDS[quality]} {part:.0%} of the time, and then little can be assessed: "
        f"{LIGHT_ADVICE[quality]}"
        for quality, part in light.items()
        if quality != "good" and part >= (1 - GOOD_LIGHT_SHARE) / 2
    ]


def _of_gaze(gaze_share: float | None) -> list[str]:
    if gaze_share is None or gaze_share >= USABLE_SHARE:
        return []
    return [
        f"the gaze of a face before the camera was sure to {MAX_GAZE_UNCERTAINTY_DEG:.0f} degrees in {gaze_share:.0%} "
        "of the pictures, and is not used in the others: try more even light, a nearer camera, no mirroring glasses"
    ]


def _of_rate(reached_hz: float, set_hz: float) -> list[str]:
    if reached_hz >= RATE_SHARE * set_hz:
        return []
    return [
        f"{reached_hz:.1f} pictures a second were looked at, {set_hz:g} are set: the board is busy or slow, or the "
        "camera delivers fewer"
    ]


def _of_baseline(baseline: dict[str, float]) -> list[str]:
    if baseline["learned_s"] < LEARNED_SHARE * LEARN_S:
        return [
            f"the usual direction was learned over {baseline['learned_s']:.0f} of {LEARN_S:.0f} s: face the screen in "
            "the first minute, and see that the face can be read"
        ]
    if abs(baseline["yaw_deg"]) >= CLAMP_YAW_DEG:
        side = "left" if baseline["yaw_deg"] > 0 else "right"
        return [
            f"the usual direction lies {CLAMP_YAW_DEG:.0f} degrees or more to the {side} of the camera, as the sitting "
            f"person sees it: put the camera nearer to the screen's middle"
        ]
    return []


def _of_steps(judged: Sequence[Judged]) -> list[str]:
    staged = [each for each in judged if each.outcome in ("miss", "other side", "had begun before")]
    found = [
        f"step {each.step.number} ({each.step.title}): {_missed(each)}; act it again with --steps {each.step.number}"
        for each in staged
    ]
    sides = [each for each in judged if each.step.expected and each.step.expected.side in ("left", "right")]
    if len(sides) > 1 and all(each.outcome == "other side" for each in sides):
        found.append("left and right were exchanged in every step: is the camera's picture mirrored?")
    found += [
        f"step {each.step.number} ({each.step.title}) is innocent and was observed as "
        f"{', '.join(one.words for one in each.others)}: expect that of candidates too"
        for each in judged
        if each.outcome == "false observation"
    ]
    return found


def _missed(each: Judged) -> str:
    words = {
        "miss": "not observed",
        "other side": "observed on another side",
        "had begun before": "it had begun before",
    }
    return f"{words[each.outcome]}, {each.why}"


def _of_between(between: Sequence[Seen]) -> list[str]:
    if not between:
        return []
    count = "one observation" if len(between) == 1 else f"{len(between)} observations"
    return [
        f"{count} began between the steps, where nothing was asked for: look at the times and what was done then"
    ]
