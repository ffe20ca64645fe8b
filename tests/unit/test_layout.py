"""Imports point one way, modules stay small, units stand in names."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("camera", "inference", "sync", "room", "archive")
SHARED = {
    "evf", "store", "evidence",
    "errors", "clock", "config", "policy", "protocol", "service", "hardening", "trust", "frames", "local_link",
    "light", "one_thread", "picture_quality", "card", "tls", "timecode", "command_line", "reading",
    "__version__",
}  # fmt: skip
MOST_LINES = 400


def product_modules() -> list[Path]:
    return sorted([*(ROOT / "appliance").rglob("*.py"), *(ROOT / "provisioning").rglob("*.py")])


def imported(module: Path) -> set[str]:
    """Names under `appliance`/`provisioning` that a module imports, e.g. `evf`, `room`, `provisioning`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in found:
            parts = name.split(".")
            if parts[0] == "provisioning":
                names.add("provisioning")
            elif parts[0] == "appliance" and len(parts) > 1:
                names.add(parts[1])
    return names


def allowed(module: Path) -> set[str] | None:
    parts = module.relative_to(ROOT).parts
    if parts[0] == "provisioning":
        return SHARED | {"provisioning"}
    if parts[1] == "evf":
        return {"evf"}
    if parts[1] == "evidence":
        return {"evf", "evidence", "errors", "clock", "timecode"}
    if parts[1] == "store":
        return {"evf", "store", "errors", "clock", "timecode"}
    if parts[1] in PARTS:
        return SHARED | {parts[1]}
    if parts[1] == "acceptance":
        # It puts the two together as an exam does, in one process.
        return SHARED | {"acceptance", "camera", "inference"}
    return None


def strays(module: Path) -> set[str]:
    may = allowed(module)
    return set() if may is None else imported(module) - may


@pytest.mark.parametrize("module", product_modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(module: Path) -> None:
    assert strays(module) == set()


def test_a_stray_import_is_noticed(tmp_path: Path) -> None:
    stray = tmp_path / "stray.py"
    stray.write_text("from appliance.room.app import anything\nimport appliance.sync.process\n")
    assert imported(stray) - SHARED == {"room", "sync"}


@pytest.mark.parametrize("module", product_modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_stay_small(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= MOST_LINES


VERIFIER = ROOT / "verifier" / "verify_session.py"
MOST_SECTION_LINES, MOST_STEP_LINES = 125, 32


def test_the_stand_alone_verifier_is_read_in_the_order_of_its_contents() -> None:
    """It must stay one file, so its table of contents stands for the modules that it cannot have."""
    lines = VERIFIER.read_text().splitlines()
    contents = [
        (int(found[1]), found[2]) for line in lines if (found := re.match(r"#  +(\d+)  (.+?)(?:  |$)", line))
    ]
    sections = [
        (int(found[1]), re.split(r" \(|:", found[2])[0], number)
        for number, line in enumerate(lines)
        if (found := re.match(r"# --- (\d+)  (.+)", line))
    ]
    assert [(number, title) for number, title, _ in sections] == contents
    assert [number for number, _ in contents] == list(range(1, len(contents) + 1))
    starts = [start for *_, start in sections] + [len(lines)]
    assert max(end - start for start, end in itertools.pairwise(starts)) <= MOST_SECTION_LINES
    for step in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(step, ast.FunctionDef) and step.end_lineno is not None:
            assert step.end_lineno - step.lineno < MOST_STEP_LINES, step.name
