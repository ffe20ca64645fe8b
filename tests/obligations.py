"""Which obligations (F001 to F176) a test names: `python -m tests.obligations [--tests]`.

A number counts when it stands in the name or docstring of a test, or in that of its module. That a test names it
does not say that it shows all of it; that no test names one does say that it is not shown.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parent
LAST = 176
# Out of scope on purpose: exam-PC control, websites, payments, other people's certificates; see docs/privacy.md
OUT_OF_SCOPE = frozenset({13, 27, 28, 29, 49, 52, 63, 64, 96, 126, 127, 145, 154, *range(160, 177)})
NUMBER = re.compile(r"\bF(\d{3})\b")


def named() -> dict[int, list[str]]:
    """Obligation -> tests (or modules) that name it, ordered."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for name, text in _docstrings(path):
            for number in sorted({int(match) for match in NUMBER.findall(text)}):
                found.setdefault(number, []).append(name)
    return dict(sorted(found.items()))


def _docstrings(path: Path) -> Iterator[tuple[str, str]]:
    module = ast.parse(path.read_text())
    place = str(path.relative_to(TESTS.parent))
    yield place, ast.get_docstring(module) or ""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            in_name = node.name.replace("_f", " F").replace("_", " ")
            yield f"{place}::{node.name}", f"{in_name} {ast.get_docstring(node) or ''}"


def main(show_tests: bool) -> None:
    """Print the two lists."""
    wanted = [number for number in range(1, LAST + 1) if number not in OUT_OF_SCOPE]
    tests = named()
    covered = [number for number in wanted if number in tests]
    missing = [number for number in wanted if number not in tests]
    print(f"{len(wanted)} obligations in scope: {len(covered)} named by a test, {len(missing)} by none")
    print("named:", " ".join(f"F{number:03d}" for number in covered))
    print("none: ", " ".join(f"F{number:03d}" for number in missing))
    beside = [number for number in tests if number not in wanted]
    if beside:
        print("out of scope, tested all the same:", " ".join(f"F{number:03d}" for number in beside))
    if show_tests:
        for number, places in tests.items():
            print(f"F{number:03d}")
            for place in places:
                print(f"    {place}")


if __name__ == "__main__":
    main("--tests" in sys.argv[1:])
