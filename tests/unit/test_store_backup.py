"""Before a migration changes a database it is kept beside itself; what cannot be read is never taken for empty."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlite_utils

from appliance.errors import NoSpace, StoreFailed
from appliance.evf import RecordKind
from appliance.room.database import Database, migrations
from appliance.store.backup import back_up, backups
from appliance.store.database import connect_writer, migrate
from appliance.store.durable import FileOps
from appliance.store.ledger import LEDGER_STEPS, LedgerView
from appliance.store.schema import INDEX_STEPS
from appliance.store.view import RecordingView
from tests.unit.test_store_builders import OTHER_SID, SID, Desk


def first(database: sqlite_utils.Database) -> None:
    database.execute("CREATE TABLE one (a)")


def second(database: sqlite_utils.Database) -> None:
    database.execute("ALTER TABLE one ADD COLUMN b")


def third(database: sqlite_utils.Database) -> None:
    database.execute("DROP TABLE one")


def fails(database: sqlite_utils.Database) -> None:
    database.execute("DROP TABLE one")
    database.execute("INSERT INTO nowhere VALUES (1)")


def rows(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM one").fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of schema 1 with one row, which so far stands in the log alone."""
    path = tmp_path / "a.db"
    migrate(path, (first,))
    writer = connect_writer(path)
    writer.execute("INSERT INTO one VALUES ('kept')")
    writer.close()
    return path


def names(path: Path) -> list[str]:
    return [each.name for each in backups(path)]


def test_a_new_database_has_nothing_to_keep(path: Path) -> None:
    assert names(path) == []


def test_each_step_keeps_the_database_that_it_found(path: Path) -> None:
    migrate(path, (first, second, third))
    assert names(path) == ["a.db.schema-1", "a.db.schema-2"]
    assert rows(path.with_name("a.db.schema-1")) == [("kept",)]
    assert rows(path.with_name("a.db.schema-2")) == [("kept", None)]
    for each in backups(path):
        with closing(sqlite3.connect(each)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (int(each.name[-1]),)
    assert {each.name for each in path.parent.iterdir()} == {
        "a.db", "a.db-wal", "a.db-shm", "a.db.lock", "a.db.schema-1", "a.db.schema-2",
    }  # fmt: skip
    migrate(path, (first, second, third))  # nothing to do, nothing to keep
    assert len(names(path)) == 2


def test_a_step_that_fails_again_and_again_keeps_one_backup(path: Path) -> None:
    for _ in range(3):
        with pytest.raises(StoreFailed, match="schema 2"):
            migrate(path, (first, fails))
    assert names(path) == ["a.db.schema-1"]
    assert rows(path) == rows(path.with_name("a.db.schema-1")) == [("kept",)]


def test_a_backup_is_never_overwritten(path: Path) -> None:
    with pytest.raises(StoreFailed):
        migrate(path, (first, fails))
    writer = connect_writer(path)  # the older software went on for a while
    writer.execute("INSERT INTO one VALUES ('later')")
    writer.close()
    migrate(path, (first, second))
    assert rows(path.with_name("a.db.schema-1")) == [("kept",)]
    assert rows(path.with_name("a.db.schema-1.2")) == [("kept",), ("later",)]


class Full(FileOps):
    def free_bytes(self, path: Path) -> int:
        return 1 << 20


def test_without_room_for_the_backup_nothing_is_changed(path: Path) -> None:
    with pytest.raises(NoSpace, match=r"bytes missing to back up a\.db"):
        migrate(path, (first, second), Full())
    assert names(path) == []
    assert rows(path) == [("kept",)]
    migrate(path, (first, second))  # control: with room
    assert names(path) == ["a.db.schema-1"]


def test_a_damaged_database_is_not_migrated(path: Path) -> None:
    writer = connect_writer(path)
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    writer.close()
    data = bytearray(path.read_bytes())
    data[4096:4200] = b"\xff" * 104  # the table's own page
    path.write_bytes(data)
    with pytest.raises(StoreFailed, match=r"damaged|malformed"):
        migrate(path, (first, second))
    assert names(path) == []
    assert path.read_bytes() == bytes(data)


def test_a_purge_takes_the_backups_that_name_the_session(tmp_path: Path) -> None:
    """F114: no copy of the candidate's code outlives the recording."""
    desk = Desk(tmp_path)
    desk.begin()
    desk.store.end_session(SID, "2026-11-22T12:00:00.000Z")
    desk.store.close()
    writer = connect_writer(tmp_path / "index.db")
    with_session = back_up(writer, tmp_path / "index.db", "schema-1")
    writer.execute("PRAGMA foreign_keys = OFF")
    writer.execute("UPDATE sessions SET sid = ?", (OTHER_SID,))
    of_another = back_up(writer, tmp_path / "index.db", "schema-2")
    writer.execute("UPDATE sessions SET sid = ?", (SID,))
    writer.close()
    desk = Desk(tmp_path)
    desk.store.purge(SID, "kept until then", lambda body: body)
    desk.store.close()
    assert backups(tmp_path / "index.db") == [of_another]
    assert not with_session.exists()


# --- a reader and a database that is being made, or that a crash left ------------------------------------------------


def hot_journal(path: Path) -> None:
    """What a crash in the first pages of a new database leaves: a rollback journal that a reader cannot play back."""
    made = path.with_name("made")
    with closing(sqlite3.connect(made, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 2")
        connection.execute("CREATE TABLE one (a)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO one VALUES (?)", [("x" * 900,)] * 300)
        shutil.copy(made, path)
        shutil.copy(made.with_name("made-journal"), path.with_name(f"{path.name}-journal"))


def used(root: Path) -> Path:
    desk = Desk(root)
    desk.begin()
    desk.segment().put(RecordKind.FRAGMENT, 900, 0)
    desk.store.close()
    return root


def test_a_store_that_is_only_being_made_holds_nothing_yet(tmp_path: Path) -> None:
    view = RecordingView(tmp_path)
    (tmp_path / "index.db").touch()
    assert view.sessions() == []
    hot_journal(tmp_path / "index.db")
    assert view.sessions() == []
    view.close()


@pytest.mark.parametrize("damage", ["hot journal", "lost log", "older schema"])
def test_a_store_in_use_is_never_read_as_empty(tmp_path: Path, damage: str) -> None:
    root = used(tmp_path / "store")
    view = RecordingView(root)
    assert [row.sid for row in view.sessions()] == [SID]  # control
    view.close()
    if damage == "hot journal":
        for path in root.glob("index.db*"):
            path.unlink()
        hot_journal(root / "index.db")
    elif damage == "lost log":
        for path in root.glob("index.db*"):
            path.unlink()
        (root / "index.db").touch()
    else:
        with closing(sqlite3.connect(root / "index.db")) as connection:
            connection.execute("PRAGMA user_version = 1")
    with pytest.raises(StoreFailed, match=r"index\.db"):
        view.sessions()
    with pytest.raises(StoreFailed, match=r"index\.db"):
        view.leaf_count(SID)


def test_a_ledger_that_cannot_be_read_is_no_ledger_without_orders(tmp_path: Path) -> None:
    """The camera process would end a session that no order stands behind."""
    ledger = LedgerView(tmp_path / "ledger.db")
    assert ledger.order(SID) is None  # none was ever made
    hot_journal(tmp_path / "ledger.db")
    with pytest.raises(StoreFailed, match=r"cannot read ledger\.db"):
        ledger.order(SID)


def test_both_databases_of_the_first_release_are_brought_forward_with_a_backup(tmp_path: Path) -> None:
    for name, steps in (("index.db", INDEX_STEPS), ("ledger.db", LEDGER_STEPS)):
        migrate(tmp_path / name, steps[:1])
        migrate(tmp_path / name, steps)
        assert names(tmp_path / name) == [f"{name}.schema-{number}" for number in range(1, len(steps))]


# --- the room's database ---------------------------------------------------------------------------------------------


def room_of_the_first_release(path: Path) -> None:
    every = [step.name for step in migrations._migrations]
    with closing(sqlite3.connect(path)) as connection:
        migrations.apply(sqlite_utils.Database(connection), stop_before=every[1:])
        connection.execute(
            "INSERT INTO notes (sid, at, by, text) VALUES (?, '2026-11-22T09:00:00Z', 'm.jansen', 'kept')",
            (SID,),
        )
        connection.commit()


def test_the_rooms_database_is_kept_before_it_is_brought_forward(tmp_path: Path) -> None:
    path = tmp_path / "room.db"
    room_of_the_first_release(path)
    Database(path).close()
    steps = len(migrations._migrations)
    assert names(path) == [f"room.db.schema-{number}" for number in range(1, steps)]
    for each in (path, *backups(path)):
        with closing(sqlite3.connect(each)) as connection:
            assert connection.execute("SELECT text FROM notes").fetchall() == [("kept",)]
    Database(path).close()
    assert len(names(path)) == steps - 1


def test_a_new_room_has_no_backups_and_a_newer_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "room.db"
    Database(path).close()
    Database(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('room', '9999_later', 'x')"
        )
        connection.commit()
    with pytest.raises(StoreFailed, match="9999_later") as refusal:
        Database(path)
    assert "newer software" in refusal.value.hint
    assert names(path) == []
