"""The staff's audit log notices every change (F103)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from appliance.errors import EvidenceBroken
from appliance.evf.errors import EvfError
from appliance.evidence.audit import AuditCheckpoint, AuditLog
from tests.manual_clock import ManualClock


@pytest.fixture(params=["", None])
def connection(request: pytest.FixtureRequest) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=request.param)) as database:
        yield database


def filled(connection: sqlite3.Connection) -> AuditLog:
    clock = ManualClock()
    log = AuditLog(connection, clock)
    for number in range(1, 6):
        clock.advance(1)
        assert log.append("proctor-1", "watch", "desk/7", {"from_s": number, "to_s": number + 40}) == number
    return log


def tamper(connection: sqlite3.Connection, statement: str) -> None:
    connection.executescript(f"DROP TRIGGER audit_keeps_rows; DROP TRIGGER audit_keeps_values; {statement}")


def test_untouched_log_verifies(connection: sqlite3.Connection) -> None:
    """F103: an entry says who did what to which span."""
    log = filled(connection)
    log.verify()
    log.verify(log.checkpoint())
    assert not connection.in_transaction
    first = next(iter(log.rows()))
    assert (first.row, first.actor, first.action, first.object) == (1, "proctor-1", "watch", "desk/7")
    assert first.detail == {"from_s": 1, "to_s": 41}
    assert first.at == "2026-11-22T09:00:01.000Z"


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("UPDATE audit SET actor = 'proctor-2' WHERE row = 3", 3),
        ("UPDATE audit SET detail = '{}' WHERE row = 3", 3),
        ("UPDATE audit SET detail = 'no json' WHERE row = 3", 3),
        ("UPDATE audit SET at = '2026-11-22T09:00:09.000Z' WHERE row = 1", 1),
        ("UPDATE audit SET hash = zeroblob(32) WHERE row = 2", 2),
        ("DELETE FROM audit WHERE row = 2", 2),
        ("DELETE FROM audit WHERE row = 1", 1),
        ("DELETE FROM audit WHERE row = 2; UPDATE audit SET row = row - 1 WHERE row > 2", 2),
        (
            "UPDATE audit SET row = 99 WHERE row = 2; UPDATE audit SET row = 2 WHERE row = 3;"
            "UPDATE audit SET row = 3 WHERE row = 99",
            2,
        ),
    ],
)
def test_changed_deleted_and_reordered_rows_are_named(
    connection: sqlite3.Connection, statement: str, row: int
) -> None:
    """F103: `verify` fails with the row's number."""
    log = filled(connection)
    tamper(connection, statement)
    with pytest.raises(EvidenceBroken, match=rf"row {row}\b"):
        log.verify()


def test_a_cut_end_is_noticed_against_a_stored_checkpoint(connection: sqlite3.Connection) -> None:
    log = filled(connection)
    stored = log.checkpoint()
    tamper(connection, "DELETE FROM audit WHERE row > 3")
    log.verify()
    with pytest.raises(EvidenceBroken, match="row 4 is missing"):
        log.verify(stored)


def test_a_rewritten_log_is_noticed_against_a_stored_checkpoint(connection: sqlite3.Connection) -> None:
    log = filled(connection)
    stored = log.checkpoint()
    tamper(connection, "DELETE FROM audit WHERE row > 3")
    for _ in range(3):
        log.append("proctor-1", "other", "desk/8", {})
    log.verify()
    with pytest.raises(EvidenceBroken, match="stored checkpoint"):
        log.verify(stored)


def test_growth_after_a_checkpoint_is_fine(connection: sqlite3.Connection) -> None:
    log = filled(connection)
    stored = log.checkpoint()
    log.append("a", "b", "c", {})
    log.verify(stored)
    assert log.checkpoint().size == 6
    log.verify(AuditCheckpoint(0, b""))


def test_the_table_itself_refuses_changes(connection: sqlite3.Connection) -> None:
    filled(connection)
    for statement in ("DELETE FROM audit", "UPDATE audit SET actor = 'x'"):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(statement)


def test_an_entry_joins_the_callers_transaction(connection: sqlite3.Connection) -> None:
    log = filled(connection)
    connection.execute("BEGIN")
    log.append("a", "b", "c", {})
    connection.execute("ROLLBACK")
    assert log.checkpoint().size == 5
    assert log.append("a", "b", "c", {}) == 6
    log.verify()


def test_what_has_no_canonical_form_leaves_no_row(connection: sqlite3.Connection) -> None:
    log = filled(connection)
    with pytest.raises(EvfError):
        log.append("a", "b", "c", {"x": object()})
    assert not connection.in_transaction
    assert log.checkpoint().size == 5


def test_a_second_process_continues_the_chain(connection: sqlite3.Connection) -> None:
    filled(connection)
    again = AuditLog(connection, ManualClock())
    assert again.append("a", "b", "c", {}) == 6
    again.verify()


def test_a_log_can_be_made_inside_a_transaction(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    log = AuditLog(connection, ManualClock())
    log.append("a", "b", "c", {})
    connection.execute("COMMIT")
    log.verify()
    assert log.checkpoint().size == 1
