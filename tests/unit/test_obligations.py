"""docs/obligations.md says of each promise whether it is kept, and by which test; the tests name the same ones."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tests.obligations import LAST, OUT_OF_SCOPE, named

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "obligations.md"
ROW = re.compile(r"^\| F(\d{3}) \| ([^|]+) \| (kept|open|not ours) \| ([^|]+) \|$", re.MULTILINE)
PLACE = re.compile(r"`(tests/[\w/]+\.py(?:::test_\w+)?)`")
NUMBER = re.compile(r"\bF(\d{3})\b")


def rows(text: str) -> list[tuple[int, str, str]]:
    """Number, state and the last column of each row."""
    return [(int(number), state, rest) for number, _promise, state, rest in ROW.findall(text)]


def contradictions(text: str, tests: dict[int, list[str]]) -> list[str]:
    """What the page says and the tests do not, and the other way round. A place is a test, or a whole module."""
    found = []
    for number, state, rest in rows(text):
        shown = PLACE.findall(rest)
        foreign = sorted(set(shown) - set(tests.get(number, ())))
        found += [f"F{number:03d}: {place} does not carry it" for place in foreign]
        if state == "kept" and not shown:
            found.append(f"F{number:03d}: kept, and no test is named")
        if state == "open" and tests.get(number) and not shown:
            found.append(f"F{number:03d}: open, and the test that carries it is not named")
        if state == "not ours" and tests.get(number):
            found.append(f"F{number:03d}: not ours, and a test carries it")
    return found


def test_every_promise_stands_in_the_table_once() -> None:
    table = rows(PAGE.read_text())
    assert [number for number, _, _ in table] == list(range(1, LAST + 1))
    assert PAGE.read_text().count("\n| F") == LAST
    states = Counter(state for number, state, _ in table if number not in OUT_OF_SCOPE)
    told = f"{states['kept']} are kept, {states['open']} are open, {states['not ours']} are not ours"
    assert f"Of the {states.total()} in scope {told}." in PAGE.read_text()
    assert f"{states['kept']} are kept" in " ".join((ROOT / "README.md").read_text().split())


def test_page_and_tests_agree() -> None:
    assert contradictions(PAGE.read_text(), named()) == []


def test_no_test_mentions_a_number_that_is_nobodys() -> None:
    """Also outside of docstrings, in parameters and comments: kept, or open with the part that a test shows."""
    states = {number: (state, rest) for number, state, rest in rows(PAGE.read_text())}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for number in {int(match) for match in NUMBER.findall(path.read_text())}:
            state, rest = states[number]
            assert state == "kept" or (state == "open" and PLACE.search(rest)), (path, number)


def test_a_table_that_says_too_much_or_too_little_is_noticed() -> None:
    """Control."""
    text, tests = PAGE.read_text(), named()
    assert contradictions(text.replace("test_empty_policy_records_nothing", "test_of_nobody"), tests) != []
    assert contradictions(text, {**tests, 5: []}) != []
    assert contradictions(text, {**tests, 2: ["tests/unit/test_policy.py"]}) != []
    assert contradictions(text, {**tests, 96: ["tests/unit/test_policy.py"]}) != []
    assert len(rows(text.replace("| F083 |", "| F83 |"))) == LAST - 1
