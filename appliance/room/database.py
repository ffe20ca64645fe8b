"""`room.db`: what people decided and what the room has witnessed; one connection, used by one thread only.

WAL with synchronous=FULL, so that a decision that was answered survives a power cut. When the process dies,
the next start opens the file and carries on. Pseudonyms only: no name, no picture, nothing seen.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import sqlite_utils

from appliance.clock import SystemClock
from appliance.errors import StoreFailed
from appliance.evidence.audit import AuditLog
from appliance.store.backup import back_up

Result = TypeVar("Result")
BUSY_TIMEOUT_MS = 5000
migrations = sqlite_utils.Migrations("room")
# `Decisions.is_over`, for SQLite; an index has these very words, so other ones need a migration of their own.
NOT_OVER = "synced_at IS NULL AND discarded_at IS NULL AND set_aside_at IS NULL AND start_refused IS NULL"


def _create(
    db: sqlite_utils.Database,
    table: str,
    columns: dict[str, Any],
    pk: str | tuple[str, ...],
    required: set[str],
) -> None:
    db.table(table).create(columns, pk=pk, not_null=required, strict=True)


@migrations(name="0001_first")
def _first(db: sqlite_utils.Database) -> None:
    _create(
        db,
        "accounts",
        {"id": int, "name": str, "role": str, "password_hash": str, "second_factor": str, "created": str},
        "id",
        {"name", "role", "password_hash", "created"},
    )
    db.table("accounts").create_index(["name"], unique=True)
    _create(
        db,
        "login_failures",
        {"name": str, "failures": int, "last_wall_s": float},
        "name",
        {"failures", "last_wall_s"},
    )
    _create(
        db,
        "logins",
        {"token_sha256": str, "account": int, "expires_wall_s": float},
        "token_sha256",
        {"account", "expires_wall_s"},
    )
    _create(db, "serials", {"desk": str, "serial": int}, "desk", {"serial"})
    _create(
        db,
        "commands",
        {
            "desk": str,
            "serial": int,
            "sid": str,
            "kind": str,
            "payload": bytes,
            "issued": str,
            "outcome": str,
            "reason": str,
        },
        ("desk", "serial"),
        {"sid", "kind", "payload", "issued"},
    )
    _create(
        db,
        "sessions",
        {
            "sid": str,
            "desk": str,
            "candidate_code": str,
            "policy": str,
            "started_at": str,
            "started_by": str,
            "start_refused": str,
            "break_since": str,
            "ended_at": str,
            "ended_by": str,
            "manifest": str,
            "manifest_sha256": str,
            "manifest_problem": str,
            "gaps": str,
            "complete": int,
            "approved_at": str,
            "approved_by": str,
            "release": bytes,
            "held_at": str,
            "held_by": str,
            "held_reason": str,
            "synced_at": str,
            "discard_asked_by": str,
            "discarded_at": str,
            "discarded_by": str,
            "set_aside_at": str,
            "set_aside_by": str,
            "set_aside_reason": str,
        },
        "sid",
        {"desk", "candidate_code", "policy", "started_at", "started_by"},
    )
    db.table("sessions").create_index(["desk", "started_at"])
    _create(
        db,
        "notes",
        {"id": int, "sid": str, "at": str, "by": str, "text": str},
        "id",
        {"sid", "at", "by", "text"},
    )
    _create(
        db,
        "reviews",
        {"sid": str, "number": int, "at": str, "by": str, "outcome": str},
        ("sid", "number"),
        {"at", "by", "outcome"},
    )
    _create(db, "witnessed", {"sid": str, "state": bytes, "refused": str}, "sid", {"state"})


@migrations(name="0002_certificate")
def _certificate(db: sqlite_utils.Database) -> None:
    sessions = db.table("sessions")
    sessions.add_column("certificate", str)
    sessions.add_column("certificate_problem", str)
    # what a gap is was a yes or no (unwitnessed); now it is one of several kinds
    kinds = {True: "unwitnessed", False: "gap"}
    for row in list(sessions.rows_where("gaps IS NOT NULL", select="sid, gaps")):
        lines = [
            [start, end, cause, kinds.get(kind, kind)] for start, end, cause, kind in json.loads(row["gaps"])
        ]
        sessions.update(row["sid"], {"gaps": json.dumps(lines)})


@migrations(name="0003_accommodations")
def _accommodations(db: sqlite_utils.Database) -> None:
    db.table("sessions").add_column("accommodations", str)


@migrations(name="0004_what_is_not_over")
def _what_is_not_over(db: sqlite_utils.Database) -> None:
    # A room has thousands of sessions after a year, each with its manifest: pages and starts read the few that matter.
    db.execute("CREATE INDEX sessions_by_start ON sessions (started_at)")
    db.execute(f"CREATE INDEX sessions_not_over ON sessions (sid) WHERE {NOT_OVER}")


class Database:
    """The only connection; every call is one transaction in the database's own thread."""

    def __init__(self, path: Path, *, may_checkpoint: bool = True) -> None:
        """Open or create `path`; raises StoreFailed.

        A second process (the account command) opens with `may_checkpoint=False`: SQLite 3.40's WAL-reset
        fault needs two connections that both checkpoint.
        """
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="room-db")
        try:
            self._connection = self._thread.submit(_open, path, may_checkpoint).result()
        except StoreFailed:
            self._thread.shutdown()
            raise
        except (sqlite3.Error, OSError) as error:
            self._thread.shutdown()
            reason = ((error.strerror if isinstance(error, OSError) else None) or str(error)).lower()
            raise StoreFailed(
                f"cannot open {path}: {reason}", "check the folder's owner and free space"
            ) from error

    def transact(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run `work` in one transaction and wait; any exception rolls back and is raised here."""
        return self._thread.submit(self._run, work).result()

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """The same for the event loop, which is not held up by the disk."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    async def empty_log(self) -> None:
        """Leave nothing of what was forgotten in the write-ahead log either, unless a reader still needs it."""

        def work() -> None:
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Finish what is queued and close."""
        self._thread.submit(self._connection.close).result()
        self._thread.shutdown()

    def _run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(self._connection)
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:  # a full disk, or one that fails
            raise StoreFailed(f"room.db cannot be used: {error}", "look at the controller's disk") from error
        return result


def _open(path: Path, may_checkpoint: bool) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    connection = sqlite3.connect(path, isolation_level=None)
    with ExitStack() as undo:
        undo.callback(connection.close)
        path.chmod(0o600)
        connection.row_factory = sqlite3.Row
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # what is forgotten is not left in a free page
        if not may_checkpoint:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        _migrate(connection, path)
        AuditLog(connection, SystemClock())  # makes its table; later ones work inside a transaction
        undo.pop_all()
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Forward only, a transaction a step; before each the database as it stands is kept as <name>.schema-<steps>.

    StoreFailed for a step that this software does not know, NoSpace when there is no room for the backup.
    """
    database = sqlite_utils.Database(connection)
    with closing(sqlite3.connect(":memory:")) as empty:
        every = [step.name for step in migrations.pending(sqlite_utils.Database(empty))]
    applied = [step.name for step in migrations.applied(database)]
    newer = [name for name in applied if name not in every]
    if newer:
        raise StoreFailed(
            f"{path.name} has the schema step {newer[-1]}, which this software does not know",
            "install the newer software again",
        )
    pending = [name for name in every if name not in applied]
    for done in range(len(pending)):
        if applied:
            back_up(connection, path, f"schema-{len(applied) + done}")
        migrations.apply(database, stop_before=pending[done + 1 :])
