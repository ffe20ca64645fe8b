"""A migration killed at every step: the database is the old one or the new one, and its backup whole or not there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import sqlite_utils

from appliance.store import backup, database
from appliance.store.backup import backups
from appliance.store.database import connect_writer, migrate
from appliance.store.durable import FileOps
from tests.killed_at import KilledAt, how_they_ended, lives

ROWS = 400


def first(made: sqlite_utils.Database) -> None:
    made.execute("CREATE TABLE one (a)")


class Migration:
    """Its own statements are steps that a kill can fall on, as are those of the file system."""

    def __init__(self, step: int) -> None:
        self.file_ops = KilledAt(step)

    def second(self, made: sqlite_utils.Database) -> None:
        for statement in (
            "ALTER TABLE one ADD COLUMN b TEXT NOT NULL DEFAULT 'new'",
            "DELETE FROM one WHERE a > 10",
            "CREATE INDEX one_b ON one (b)",
        ):
            self.file_ops._step()
            made.execute(statement)
            self.file_ops._step()


def old_database(path: Path) -> None:
    migrate(path, (first,))
    writer = connect_writer(path)
    writer.executemany("INSERT INTO one VALUES (?)", [(number,) for number in range(ROWS)])
    writer.close()


def leave_killed_migrations(folder: Path, control: bool) -> None:
    """In a process of its own: one migration a step until one lives to the end; prints how each ended."""
    (folder / "old").mkdir()
    old_database(folder / "old/a.db")

    def live(step: int) -> None:
        path = Path(shutil.copytree(folder / "old", folder / str(step))) / "a.db"
        if control:
            write_backups_straight_under_their_name()
        work = Migration(step)
        migrate(path, (first, work.second), work.file_ops)

    print(json.dumps(list(lives(live))))


def write_backups_straight_under_their_name() -> None:
    """Negative control: no temporary file, and the migration killed in its middle finds half a backup."""

    def careless(connection: sqlite3.Connection, path: Path, label: str, file_ops: FileOps) -> Path:
        target = path.with_name(f"{path.name}.{label}")
        whole = path.with_name("whole")
        backup._copy(connection, whole)
        data = whole.read_bytes()
        target.write_bytes(data[: len(data) // 2])
        file_ops.fsync(os.open(target, os.O_RDONLY))
        target.write_bytes(data)
        return target

    database.back_up = careless


def rows(path: Path) -> int | None:
    """Rows of the table in a whole database; None for one that is not whole."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                return None
            return int(connection.execute("SELECT COUNT(*) FROM one").fetchone()[0])
        except sqlite3.Error:
            return None


def found(folder: Path, steps: int) -> list[tuple[int | None, list[int | None]]]:
    """After each kill: rows of the database, and of each backup that has its name."""
    return [
        (
            rows(folder / str(step) / "a.db"),
            [
                rows(each)
                for each in backups(folder / str(step) / "a.db")
                if not each.name.endswith((".tmp", "-journal"))
            ],
        )
        for step in range(1, steps + 1)
    ]


def test_a_migration_killed_at_every_step_keeps_the_old_database_or_has_the_new_one(tmp_path: Path) -> None:
    ended = how_they_ended(
        f"leave_killed_migrations(Path({str(tmp_path)!r}), False)", "test_store_migration_kill"
    )
    assert ended[-1] == 0
    assert ended.count(-signal.SIGKILL) == len(ended) - 1 >= 9
    for step, (here, kept) in enumerate(found(tmp_path, len(ended)), start=1):
        assert (here, kept) in [(ROWS, []), (ROWS, [ROWS]), (11, [ROWS])], f"step {step}"
        path = tmp_path / str(step) / "a.db"
        migrate(path, (first, Migration(0).second))
        assert rows(path) == 11, f"step {step}"
        assert [rows(each) for each in backups(path)] == [ROWS], f"step {step}"


def test_control_a_backup_without_a_temporary_file_is_seen_half_written(tmp_path: Path) -> None:
    ended = how_they_ended(
        f"leave_killed_migrations(Path({str(tmp_path)!r}), True)", "test_store_migration_kill"
    )
    assert any(None in kept for _, kept in found(tmp_path, len(ended)))
