"""The log track as `open --events` writes it: a golden file, and what is no observation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance.archive.cli import app
from appliance.archive.observations import NOTICE, ObservationLog
from appliance.errors import EvidenceBroken
from appliance.evf.canonical import canonical
from appliance.evidence.manifest import Gap
from tests.sessions import (
    CANDIDATE,
    EXAM,
    GAP_CAUSE,
    POLICY_ID,
    POLICY_VERSION,
    RATE,
    SID,
    Built,
    Plan,
    build_session,
    observation,
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "exam.mp4"


def opened(built: Built, out: Path, events: Path) -> str:
    result = CliRunner().invoke(app, built.arguments("open", "--out", out, "--events", events))
    assert result.exit_code == 0, result.exception
    return result.output


def test_golden_events(tmp_path: Path, out: Path) -> None:
    """F072, F132: every fact of every observation, the gaps, and the sentence of F068; times in seconds."""
    unwitnessed = Gap(2 * RATE, 4 * RATE, "room controller was not reachable", True)
    events = (
        observation(1, "gaze_outside_work_area", 3.5, None),
        observation(
            2, "low_light", 44, 50.25, None, technical=True, measured={"mean_luma": 11, "exposure_s": None}
        ),
        observation(1, "gaze_outside_work_area", 3.5, 9.75),
        observation(3, "nobody_at_desk", 50, None, "red"),
    )
    built = build_session(tmp_path, Plan(observations=events, unwitnessed=(unwitnessed,)))
    target = tmp_path / "events.json"
    said = opened(built, out, target)
    assert NOTICE in said
    common = {
        "rule": "yaw over 25 degrees for 4 s",
        "measured": {"yaw_deg": 31.5, "frames": 31},
        "uncertainty": "3.1 degrees of yaw",
        "technical": False,
        "card": None,
    }
    assert json.loads(target.read_text()) == {
        "version": 2,
        "sid": SID,
        "exam": EXAM,
        "candidate_code": CANDIDATE,
        "policy": {"id": POLICY_ID, "version": POLICY_VERSION},
        "observations": [
            {
                **common,
                "start_s": 3.5,
                "end_s": 9.75,
                "duration_s": 6.25,
                "kind": "gaze_outside_work_area",
                "words": "gaze outside work area",
                "level": "yellow",
            },
            {
                **common,
                "start_s": 44.0,
                "end_s": 50.25,
                "duration_s": 6.25,
                "kind": "low_light",
                "words": "low light",
                "level": None,
                "technical": True,
                "measured": {"mean_luma": 11, "exposure_s": None},
            },
            {
                **common,
                "start_s": 50.0,
                "end_s": None,
                "duration_s": 4.0,
                "kind": "nobody_at_desk",
                "words": "nobody at desk",
                "level": "red",
            },
        ],
        "complete": False,
        "findings": [],
        "gaps": [{"start_s": 12.0, "end_s": 42.0, "cause": GAP_CAUSE}],
        "unwitnessed": [{"start_s": 2.0, "end_s": 4.0, "cause": "room controller was not reachable"}],
        "lost": [],
        "notice": "An indication is not proof of anything. It says where a person may want to look.",
    }


def test_session_without_observations_has_an_empty_log(out: Path, tmp_path: Path) -> None:
    built = build_session(tmp_path)
    opened(built, out, tmp_path / "events.json")
    assert json.loads((tmp_path / "events.json").read_text())["observations"] == []


def test_closed_observation_is_not_reopened() -> None:
    log = ObservationLog()
    for event in (observation(4, "head_turned_away", 1, 6), observation(4, "head_turned_away", 1, None)):
        log.add(canonical({**event, "phase": event["report"]["phase"]}))
    assert [report.phase for report in log.reports()] == ["closed"]


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"[]",
        b"{}",
        canonical({**observation(1, "nobody_at_desk", 1, 2), "more": 1}),
        canonical({**observation(1, "nobody_at_desk", 1, 2), "phase": "opened"}),
        canonical(observation(1, "nobody_at_desk", 1, 2, "purple")),
    ],
)
def test_record_that_is_no_observation(plaintext: bytes) -> None:
    with pytest.raises(EvidenceBroken):
        ObservationLog().add(plaintext)
