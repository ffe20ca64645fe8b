"""System calls refused, cut short or never returning, at the n-th call for every n (issue 3): no silent loss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.power.injected import run_faults

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fault", ["sync-eio", "fsync-eio", "write-enospc", "short-write"])
def test_a_refused_call_is_told_and_nothing_acknowledged_is_lost(tmp_path: Path, fault: str) -> None:
    """F146: EIO, ENOSPC and a short write, at each call of a whole recording; then the power goes as well."""
    runs = run_faults(tmp_path, fault)
    print(json.dumps(runs.line()))
    assert runs.lost == runs.silent == runs.wrong == []
    assert runs.runs - 1 == runs.reported + runs.unharmed
    assert runs.reported > 10
    assert runs.died == 0
    assert runs.acknowledged > 100


@pytest.mark.parametrize(("fault", "step"), [("database-enospc", 9), ("database-kill", 17)])
def test_the_database_refused_or_killed_at_a_write_of_its_own(tmp_path: Path, fault: str, step: int) -> None:
    """Every 9th and 17th pwrite64 here; all of them in tests.deep."""
    runs = run_faults(tmp_path, fault, first=step, step=step)
    print(json.dumps(runs.line()))
    assert runs.lost == runs.silent == runs.wrong == []
    assert runs.runs - 1 == runs.reported + runs.unharmed + runs.died
    assert (runs.reported if fault == "database-enospc" else runs.died) > 10
    assert runs.acknowledged > 50


def test_a_kill_at_each_fdatasync_loses_nothing_acknowledged(tmp_path: Path) -> None:
    runs = run_faults(tmp_path, "sync-kill")
    print(json.dumps(runs.line()))
    assert runs.lost == runs.silent == runs.wrong == []
    assert runs.died == runs.runs - 1 > 40
    assert runs.acknowledged > 100


def test_a_system_that_takes_a_part_of_each_write_gets_the_rest(tmp_path: Path) -> None:
    runs = run_faults(tmp_path, "none", "short-writes")
    assert runs.lost == runs.wrong == []
    assert runs.reported == 0
    assert runs.acknowledged == 20


@pytest.mark.parametrize(
    ("fault", "conduct", "first"),
    [
        ("sync-eio", "ignores-sync-errors", 40),
        ("write-enospc", "ignores-write-errors", 4),
        ("write-lies", "product", 4),
    ],
)
def test_control_ignored_errors_and_a_lying_kernel_lose(
    tmp_path: Path, fault: str, conduct: str, first: int
) -> None:
    """A result without the call (`retval`) is a lie that no writer can see; the comparison must see it."""
    runs = run_faults(tmp_path, fault, conduct, first)
    print(json.dumps(runs.line()))
    assert runs.lost != []
    assert runs.silent != []
