"""Imports point one way, modules stay small, units stand in names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("camera", "inference", "sync", "room", "archive")
SHARED = {
    "evf", "store", "evidence",
    "errors", "clock", "config", "policy", "protocol", "service", "hardening", "trust", "frames", "local_link",
    "picture_quality", "tls", "timecode", "command_line", "reading",
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
