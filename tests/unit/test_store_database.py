"""One writer, readers that never write, forward-only schema, and the UUID that ties files to their database."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from appliance.errors import StoreFailed
from appliance.evf import RecordKind
from appliance.store.database import Transactions, connect_reader, connect_writer, migrate, schema_version
from appliance.store.ledger import Ledger
from appliance.store.recording import RecordingStore
from appliance.store.schema import INDEX_STEPS
from appliance.store.view import RecordingView
from tests.manual_clock import ManualClock
from tests.unit.test_store_builders import SID, Desk


def recorded(root: Path) -> None:
    desk = Desk(root)
    desk.begin()
    desk.segment().put(RecordKind.FRAGMENT, 900, 0)
    desk.store.close()


def files_of(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for folder in ("segments", "wraps", "quarantine")
        for path in (root / folder).rglob("*")
        if path.is_file()
    }


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    first = connect_writer(tmp_path / "a.db")
    with pytest.raises(StoreFailed, match="another process"):
        connect_writer(tmp_path / "a.db")
    first.close()
    connect_writer(tmp_path / "a.db").close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    recorded(tmp_path)
    reader = connect_reader(tmp_path / "index.db", len(INDEX_STEPS))
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM leaves")
    reader.close()


def test_a_reader_does_not_checkpoint_when_it_closes(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    wal = tmp_path / "index.db-wal"
    before = (wal.stat().st_size, (tmp_path / "index.db").read_bytes())
    view = RecordingView(tmp_path)
    assert view.session(SID) is not None
    view.close()
    assert (wal.stat().st_size, (tmp_path / "index.db").read_bytes()) == before
    desk.store.close()


def test_migrations_run_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    def first(database: object) -> None:
        database.execute("CREATE TABLE one (a)")

    def second(database: object) -> None:
        database.execute("CREATE TABLE two (a)")
        database.execute("INSERT INTO nowhere VALUES (1)")

    migrate(path, (first,))
    migrate(path, (first,))
    with pytest.raises(StoreFailed, match="schema 2"):
        migrate(path, (first, second))
    connection = connect_writer(path)
    assert schema_version(connection) == 1
    assert [row[0] for row in connection.execute("SELECT name FROM sqlite_master")] == ["one"]
    connection.close()


@pytest.mark.parametrize("name", ["index.db", "ledger.db"])
def test_a_newer_schema_is_refused_by_writer_and_reader(tmp_path: Path, name: str) -> None:
    recorded(tmp_path)
    Ledger(tmp_path / "ledger.db").close()
    connection = sqlite3.connect(tmp_path / name)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreFailed, match="schema 99") as writer:
        RecordingStore(tmp_path, ManualClock()) if name == "index.db" else Ledger(tmp_path / name)
    assert "newer software" in writer.value.hint
    with pytest.raises(StoreFailed, match="schema 99"):
        connect_reader(tmp_path / name, 1)


def test_control_the_known_schema_opens(tmp_path: Path) -> None:
    recorded(tmp_path)
    RecordingStore(tmp_path, ManualClock()).close()


def test_another_stores_files_are_refused_and_kept(tmp_path: Path) -> None:
    recorded(tmp_path / "a")
    recorded(tmp_path / "b")
    shutil.copy(tmp_path / "b/store.uuid", tmp_path / "a/store.uuid")
    before = files_of(tmp_path / "a")
    with pytest.raises(StoreFailed, match="do not belong together") as refusal:
        RecordingStore(tmp_path / "a", ManualClock())
    assert "invigil store check" in refusal.value.hint
    assert files_of(tmp_path / "a") == before != {}
    RecordingStore(tmp_path / "b", ManualClock()).close()


@pytest.mark.parametrize("lost", ["index.db", "store.uuid"])
def test_files_without_their_other_half_are_refused_and_kept(tmp_path: Path, lost: str) -> None:
    recorded(tmp_path)
    for path in tmp_path.glob(f"{lost}*"):
        path.unlink()
    before = files_of(tmp_path)
    for _ in range(2):  # the refusal itself must not make the next start work
        with pytest.raises(StoreFailed, match=r"index\.db"):
            RecordingStore(tmp_path, ManualClock())
    assert files_of(tmp_path) == before != {}


def test_a_store_whose_creation_was_cut_is_finished(tmp_path: Path) -> None:
    RecordingStore(tmp_path, ManualClock()).close()
    uuid = (tmp_path / "store.uuid").read_text()
    (tmp_path / "store.uuid").unlink()
    store = RecordingStore(tmp_path, ManualClock())
    assert (tmp_path / "store.uuid").read_text() == uuid == f"{store.uuid}\n"
    store.close()


def test_a_ledger_of_another_store_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        recorded(tmp_path / name)
        Ledger(tmp_path / name / "ledger.db").close()
    Ledger(tmp_path / "a/ledger.db").close()
    shutil.copy(tmp_path / "b/ledger.db", tmp_path / "a/ledger.db")
    with pytest.raises(StoreFailed, match="another store"):
        Ledger(tmp_path / "a/ledger.db")


def test_a_transaction_is_all_or_nothing_also_when_nested(tmp_path: Path) -> None:
    connection = connect_writer(tmp_path / "a.db")
    connection.execute("CREATE TABLE one (a)")
    transactions = Transactions(connection)

    def fail_after_an_inner_one() -> None:
        with transactions.begin("outer"):
            with transactions.begin("inner") as inner:
                inner.execute("INSERT INTO one VALUES (1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_an_inner_one()
    with transactions.begin("again") as again:
        again.execute("INSERT INTO one VALUES (2)")
    assert connection.execute("SELECT a FROM one").fetchall() == [(2,)]
    connection.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(b"not a database at all " * 300)
    with pytest.raises(StoreFailed, match="not a database"):
        RecordingStore(tmp_path, ManualClock())
