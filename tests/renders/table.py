"""The block of docs/observations.md between its markers, which `python -m tests.renders` writes."""

from __future__ import annotations

import re
from pathlib import Path

from appliance.inference.report import Report
from appliance.inference.report_text import Direction, as_markdown

FOLDER = Path(__file__).resolve().parent
DOCS = FOLDER.parents[1] / "docs" / "observations.md"
BEGIN, END = "<!-- fairness:begin -->\n", "<!-- fairness:end -->\n"
# "gaze" belongs here as soon as the eyes' network stays what it is.
DIRECTIONS: tuple[Direction, ...] = ("head_yaw", "head_pitch")
_BLOCK = re.compile(re.escape(BEGIN) + "(.*?)" + re.escape(END), re.DOTALL)


def fresh(report: Report) -> str:
    """What the block should be."""
    return as_markdown(report, DIRECTIONS)


def written() -> str:
    """What it is."""
    found = _BLOCK.search(DOCS.read_text())
    assert found, f"{DOCS} has no block between {BEGIN.strip()} and {END.strip()}"
    return found[1]


def write(report: Report) -> None:
    """Put today's table between the markers."""
    DOCS.write_text(_BLOCK.sub(lambda _: BEGIN + fresh(report) + END, DOCS.read_text()))


def rows(block: str) -> dict[tuple[str, str], list[str]]:
    """(heading, first cell) -> the other cells of each row of its tables."""
    found: dict[tuple[str, str], list[str]] = {}
    heading = ""
    for line in block.splitlines():
        if not line.startswith("|"):
            heading = ""
            continue
        first, *others = (cell.strip() for cell in line.strip("|").split("|"))
        heading = heading or first
        if set(first) != {"-"}:
            found[heading, first] = others
    return found
