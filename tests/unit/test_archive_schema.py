"""The published schemas of what machines read: real documents keep to them, spoilt ones do not (F072, F132)."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from appliance.archive.cli import app
from appliance.archive.observations import NOTICE
from appliance.evidence.manifest import Gap
from appliance.inference.inspect import inspect
from appliance.inference.rules import KINDS, SOUND_KINDS
from tests.sessions import CARD, RATE, Plan, build_session, observation

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
EXPLAINS = {"$schema", "title", "description", "$defs"}
CHECKS = {
    "$ref", "oneOf", "type", "properties", "required", "additionalProperties", "items", "enum", "const",
    "pattern", "minimum",
}  # fmt: skip


def schema(name: str) -> dict[str, Any]:
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text())


def problems(value: Any, rule: dict[str, Any], root: dict[str, Any], at: str = "$") -> list[str]:
    """What the part of JSON Schema that our two files use says of a value; another keyword fails the test."""
    assert set(rule) <= EXPLAINS | CHECKS, set(rule) - EXPLAINS - CHECKS
    if "$ref" in rule:
        return problems(value, root["$defs"][rule["$ref"].removeprefix("#/$defs/")], root, at)
    if "oneOf" in rule:
        fitting = [one for one in rule["oneOf"] if not problems(value, one, root, at)]
        return [] if len(fitting) == 1 else [f"{at}: {len(fitting)} of the alternatives fit"]
    found = []
    wanted = rule.get("type", list(TYPES))
    names = [wanted] if isinstance(wanted, str) else wanted
    if not any(_is_a(value, name) for name in names):
        return [f"{at}: no {wanted}"]
    if "const" in rule and value != rule["const"]:
        found.append(f"{at}: not the constant")
    if "enum" in rule and value not in rule["enum"]:
        found.append(f"{at}: not in the enum")
    if "pattern" in rule and not re.search(rule["pattern"], value):
        found.append(f"{at}: pattern")
    if "minimum" in rule and value is not None and value < rule["minimum"]:
        found.append(f"{at}: below the minimum")
    if isinstance(value, dict):
        found += [f"{at}.{name}: missing" for name in rule.get("required", ()) if name not in value]
        for name, each in value.items():
            known = rule.get("properties", {}).get(name, rule.get("additionalProperties", {}))
            found += (
                [f"{at}.{name}: unknown"] if known is False else problems(each, known, root, f"{at}.{name}")
            )
    if isinstance(value, list):
        for number, each in enumerate(value):
            found += problems(each, rule.get("items", {}), root, f"{at}[{number}]")
    return found


def _is_a(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


@pytest.fixture
def events(tmp_path: Path) -> dict[str, Any]:
    """One with every part filled: a gap, a cut file, an unwitnessed span, all kinds of observation."""
    log = (
        observation(1, "gaze_outside_work_area", 3.5, 9.75, card=CARD),
        observation(
            2, "camera_covered", 44, 50.25, None, technical=True, measured={"gain": None, "why": "dark"}
        ),
        observation(3, "nobody_at_desk", 50, None, "red"),
    )
    unwitnessed = Gap(2 * RATE, 4 * RATE, "room controller was not reachable", True)
    noted = ({"kind": "picture", "finding": "covered", "from_90k": RATE, "to_90k": 2 * RATE},)
    built = build_session(tmp_path, Plan(observations=log, unwitnessed=(unwitnessed,), noted=noted))
    path = built.segment("1-video-1.evf")
    path.write_bytes(path.read_bytes()[:-120])
    target = tmp_path / "events.json"
    arguments = built.arguments("open", "--out", tmp_path / "exam.mp4", "--events", target)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.exception
    document: dict[str, Any] = json.loads(target.read_text())
    assert [one["card"] for one in document["observations"]] == [CARD, None, None]
    assert len(document["gaps"]) == 2
    assert len(document["findings"]) == 1
    assert document["complete"] is False
    return document


def test_real_events_document_keeps_to_the_published_schema(events: dict[str, Any]) -> None:
    """F072, F132."""
    rule = schema("events")
    assert problems(events, rule, rule) == []
    with_loss = {**events, "lost": [{"time_s": 3.0, "cause": "disk could not be read"}]}
    assert problems(with_loss, rule, rule) == []
    assert rule["properties"]["notice"]["const"] == NOTICE


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        (lambda it: it.pop("gaps"), "$.gaps: missing"),
        (lambda it: it.update(name="A. Person"), "$.name: unknown"),
        (lambda it: it.update(sid="5E" * 16), "$.sid: pattern"),
        (lambda it: it.update(notice="proof"), "$.notice: not the constant"),
        (lambda it: it["policy"].update(version="3"), "$.policy.version: no integer"),
        (lambda it: it["policy"].update(version=True), "$.policy.version: no integer"),
        (lambda it: it["gaps"][1].update(start_s=-1), "$.gaps[1].start_s: below the minimum"),
        (lambda it: it["findings"][0].update(kind="dull"), "$.findings[0].kind: not in the enum"),
        (lambda it: it["observations"][0].update(level="purple"), "$.observations[0].level: not in the enum"),
        (lambda it: it["observations"][2].pop("rule"), "$.observations[2].rule: missing"),
        (
            lambda it: it["observations"][0]["measured"].update(points=[1, 2]),
            "$.observations[0].measured.points",
        ),
        (lambda it: it["observations"][1].update(technical=0), "$.observations[1].technical: no boolean"),
        (lambda it: it["lost"].append("x"), "$.lost[0]: no object"),
        (lambda it: it.update(version=1), "$.version: not the constant"),
        (lambda it: it["observations"][1].pop("card"), "$.observations[1].card: missing"),
        (lambda it: it["observations"][0]["card"].pop("light"), "$.observations[0].card.light: missing"),
        (
            lambda it: it["observations"][0]["card"].update(policy=""),
            "$.observations[0].card.policy: pattern",
        ),
    ],
)
def test_spoilt_events_document_does_not(
    events: dict[str, Any], spoil: Callable[[dict[str, Any]], object], where: str
) -> None:
    rule = schema("events")
    spoilt = copy.deepcopy(events)
    spoil(spoilt)
    found = problems(spoilt, rule, rule)
    assert len(found) == 1
    assert found[0].startswith(where)


def test_inspect_lines_keep_to_the_published_schema(tmp_path: Path) -> None:
    """A grey picture, and two seconds of it held for a clip: frames and, last, the clip's observations."""
    picture, clip = tmp_path / "grey.png", tmp_path / "grey.avi"
    grey = np.full((240, 320, 3), 90, np.uint8)
    cv2.imwrite(str(picture), grey)
    film = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 2.0, (320, 240))
    for _ in range(40):
        film.write(grey)
    film.release()
    written: list[str] = []
    inspect([picture, clip], True, written.append)
    lines = [json.loads(line) for line in written]
    rule = schema("inspect")
    assert [problems(line, rule, rule) for line in lines] == [[]] * len(lines)
    assert lines[-1]["observations"], "twenty seconds without contrast are an observation"
    for spoilt in (
        {**lines[0], "embedding": [0.1]},
        {**lines[0], "quality": "fine"},
        {name: value for name, value in lines[0].items() if name != "faces"},
        {**lines[-1], "observations": [{**lines[-1]["observations"][0], "kind": "thinking"}]},
        {**lines[-1], "observations": [{**lines[-1]["observations"][0], "phase": "opened"}]},
    ):
        assert problems(spoilt, rule, rule)


def test_schema_lists_the_kinds_that_the_rules_know() -> None:
    kinds = schema("inspect")["$defs"]["observation"]["properties"]["kind"]["enum"]
    assert kinds == [kind for kind in KINDS if kind not in SOUND_KINDS]
    told = schema("events")["$defs"]["observation"]["properties"]["kind"]["description"]
    assert told.split(", ") == list(KINDS)
