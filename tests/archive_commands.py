"""`invigil archive` on a session that a test built: its commands, and what they must leave behind when they refuse."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from appliance.archive.cli import app
from appliance.errors import EvidenceBroken
from tests.sessions import Built


def verify(built: Built) -> Result:
    return CliRunner().invoke(app, ["verify", str(built.folder), "--config", str(built.config)])


def run(built: Built, command: str, *more: str | Path) -> Result:
    return CliRunner().invoke(app, built.arguments(command, *more))


def opened(built: Built, out: Path) -> tuple[str, dict[str, list[dict[str, object]]]]:
    events = out.with_name("events.json")
    result = run(built, "open", "--out", out, "--events", events)
    assert result.exit_code == 0, result.exception
    return result.stdout, json.loads(events.read_text())


def refused(built: Built, out: Path) -> str:
    result = run(built, "open", "--out", out)
    assert isinstance(result.exception, EvidenceBroken), result.output
    assert result.exception.hint
    assert "\n" not in str(result.exception)
    assert not out.exists()
    assert not list(out.parent.glob(".*.part"))
    return str(result.exception)
