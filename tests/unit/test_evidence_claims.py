"""The handbook claims nothing by a test that does not exist, and links no page that is not there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEST_NAME = re.compile(r"`(?:[\w/]*/)?(test_\w+)(?:\.py)?`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
LATER = {"docs/room.png"}  # made by the demo's screenshots


def known_tests() -> set[str]:
    names: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        names.add(path.stem)
        tree = ast.parse(path.read_text())
        names |= {
            node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_named_test_exists(page: Path) -> None:
    assert set(TEST_NAME.findall(page.read_text())) - known_tests() == set()


def test_threat_model_names_many_and_a_wrong_name_is_seen() -> None:
    """Control: the search finds names, and one that nobody wrote is not among the tests."""
    named = set(TEST_NAME.findall((ROOT / "docs" / "threat-model.md").read_text()))
    assert len(named) > 40
    assert set(TEST_NAME.findall("| `test_what_nobody_wrote` |")) - known_tests() == {
        "test_what_nobody_wrote"
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = {(page.parent / target).resolve() for target in LINK.findall(page.read_text())}
    missing = {str(target.relative_to(ROOT)) for target in targets if not target.exists()}
    assert missing - LATER == set()
