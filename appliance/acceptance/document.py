"""The report as one JSON document (docs/schemas/acceptance.schema.json); the page is drawn from it. Pure.

Seconds count from the beginning of the run. Sides are those of the person who sits.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from appliance import __version__
from appliance.acceptance.figures import advice, measure_eyes, undisturbed, usable_gaze
from appliance.acceptance.judging import Judged, judge, share
from appliance.acceptance.looking import Looking, Seen, measure_light
from appliance.acceptance.script import Step
from appliance.acceptance.walk import Run
from appliance.clock import utc_text
from appliance.inference.models import ALLOWED
from appliance.inference.report import rate

VERSION = 1
DOES_NOT_SHOW = (
    "how other people, other light or another hour are read: one person acted here, once",
    "how often a rule is right: twelve behaviours give wide intervals, and acted ones are clearer than real ones",
    "that no observation would arise in an exam of hours: innocent behaviours took minutes here",
    "anything about the people who acted: no picture was kept, and nothing here describes a person",
    "recording, sending, room and storage: only what models and rules observe was tried",
)


@dataclass(frozen=True)
class Place:
    """What was tested, and with what. `light`: whether the desk has an indicator light of ours."""

    institution: str
    room: str
    desk: str
    camera: str
    camera_px: tuple[int, int]
    camera_hz: float
    models_px: tuple[int, int]
    set_hz: float
    cpu_percent: int
    light: bool
    runtime: str


def document(
    place: Place, script: tuple[Step, ...], run: Run, looking: Looking, began: datetime, ended: datetime
) -> dict[str, Any]:
    """Everything that the report says; `script` are all steps that a full acceptance has."""
    # What was acted in a step that was broken off says nothing of the place.
    seen = [one for one in looking.seen if one.start_ns < run.broken_off_ns]
    samples = [one for one in looking.samples if one.signals.taken_mono_ns < run.broken_off_ns]
    judged, between = judge(run.marks, seen, samples)
    calm = undisturbed(samples, judged)
    eyes, light, gaze_share = measure_eyes(calm), measure_light(calm), usable_gaze(calm)
    spent_s = (run.end_ns - run.begin_ns) / 1e9
    reached_hz = len(looking.samples) / spent_s if spent_s else 0.0
    baseline = looking.baseline
    told = (
        advice(eyes, light, gaze_share, (reached_hz, place.set_hz), baseline, judged, between)
        if run.marks
        else []
    )
    return {
        "version": VERSION,
        "institution": place.institution,
        "room": place.room,
        "desk": place.desk,
        "began": utc_text(began),
        "ended": utc_text(ended),
        "full": len(run.marks) == len(script),
        "stopped": run.stopped,
        "not_run": sorted({step.number for step in script} - {mark.step.number for mark in run.marks}),
        "totals": _totals(judged, script),
        "advice": told,
        "steps": [_step(each, run.begin_ns) for each in judged],
        "between_steps": [_seen(one, run.begin_ns) for one in between],
        "eyes": {
            "median_px": _rounded(eyes.median_px, 1),
            "p10_px": _rounded(eyes.p10_px, 1),
            "frames": eyes.frames,
        },
        "gaze_usable_share": _rounded(gaze_share, 3),
        "light": {quality: round(part, 3) for quality, part in light.items()},
        "frames": {
            "assessed": len(looking.samples),
            "seconds": round(spent_s, 1),
            "reached_hz": round(reached_hz, 2),
            "set_hz": place.set_hz,
            "cpu_percent": place.cpu_percent,
        },
        "baseline": {name: round(value, 1) for name, value in baseline.items()},
        "camera": {
            "source": place.camera,
            "width_px": place.camera_px[0],
            "height_px": place.camera_px[1],
            "frame_rate_hz": place.camera_hz,
            "models_width_px": place.models_px[0],
            "models_height_px": place.models_px[1],
            "indicator_light": place.light,
        },
        "models": {model.file: model.sha256 for model in ALLOWED},
        "runtime": place.runtime,
        "software": f"invigil {__version__}",
        "does_not_show": list(DOES_NOT_SHOW),
    }


def _totals(judged: tuple[Judged, ...], script: tuple[Step, ...]) -> dict[str, Any]:
    staged = [each for each in judged if each.step.expected is not None]
    innocent = [each for each in judged if each.step.expected is None]
    hits = sum(each.outcome == "hit" for each in staged)
    with_false = [each for each in innocent if each.others]
    return {
        "staged": {
            "of": sum(step.expected is not None for step in script),
            "ran": len(staged),
            "hits": hits,
            "interval_95": _interval(hits, len(staged)),
        },
        "innocent": {
            "of": sum(step.expected is None for step in script),
            "ran": len(innocent),
            "with_false_observation": len(with_false),
            "interval_95": _interval(len(with_false), len(innocent)),
            "false_observations": sum(len(each.others) for each in with_false),
            "seconds": round(sum(each.step.seconds for each in innocent), 1),
        },
    }


def _interval(count: int, of: int) -> list[float]:
    found = rate(count, of)
    return (
        [0.0, 1.0] if found.low is None or found.high is None else [round(found.low, 3), round(found.high, 3)]
    )


def _step(each: Judged, begin_ns: int) -> dict[str, Any]:
    expected, mark = each.step.expected, each.mark
    qualities = measure_light(each.samples)
    return {
        "number": each.step.number,
        "title": each.step.title,
        "said": each.step.say,
        "staged": expected is not None,
        "expected": None if expected is None else {"kind": expected.kind, "side": expected.side},
        "outcome": each.outcome,
        "why": each.why,
        "announced_s": _at(mark.told_ns, begin_ns),
        "began_s": _at(mark.begin_ns, begin_ns),
        "ended_s": _at(mark.end_ns, begin_ns),
        "observed": None if each.expected_seen is None else _seen(each.expected_seen, begin_ns),
        "others": [_seen(one, begin_ns) for one in each.others],
        "frames": len(each.samples),
        "assessed_share": round(share(each.samples, lambda signals: signals.assessable), 3),
        "light": {quality: round(part, 3) for quality, part in qualities.items()},
    }


def _seen(one: Seen, begin_ns: int) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "words": one.words,
        "side": one.side,
        "from_s": _at(one.start_ns, begin_ns),
        "opened_s": _at(one.opened_ns, begin_ns),
        "to_s": None if one.end_ns is None else _at(one.end_ns, begin_ns),
        "measured": dict(one.measured),
    }


def _at(mono_ns: int, begin_ns: int) -> float:
    return round((mono_ns - begin_ns) / 1e9, 1)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
