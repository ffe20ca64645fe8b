"""ledger.db: what the room asked and what was uploaded. Written by the sync process, read by the camera.

Survives restarts so that a command is obeyed once and an older one never.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from appliance.errors import StoreFailed
from appliance.store.backup import remove_backups_of
from appliance.store.database import (
    CHECK_HINT,
    Transactions,
    connect_settled,
    connect_writer,
    migrate,
)
from appliance.store.durable import OPERATING_SYSTEM, FileOps, store_failure
from appliance.store.layout import Layout, read_uuid
from appliance.store.schema import run_statements

if TYPE_CHECKING:
    from sqlite_utils import Database

# Key of the newest time that the room's controller was heard to say (UTC text); a purge goes by it.
ROOM_TIME = "room_time"

OrderState = Literal["ordered", "ended", "released", "held", "discarded", "synced"]

_FIRST = """
CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE session_order (
    number INTEGER PRIMARY KEY,
    sid TEXT NOT NULL UNIQUE,
    desk TEXT NOT NULL,
    start_command TEXT NOT NULL,
    end_command TEXT,
    state TEXT NOT NULL CHECK (state IN ('ordered', 'ended', 'released', 'held', 'discarded', 'synced')),
    reason TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE connections (boot_id TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT;
CREATE TABLE witness (
    sid TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    cosignature TEXT NOT NULL,
    note TEXT NOT NULL
) STRICT;
CREATE TABLE approval (sid TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
CREATE TABLE uploads (
    sid TEXT NOT NULL,
    name TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (sid, name)
) STRICT
"""


def _first(database: Database) -> None:
    run_statements(database, _FIRST)


# A session synced before this column was there counts from the moment it is added.
_SYNCED_AT = """
ALTER TABLE session_order ADD COLUMN synced_at TEXT;
UPDATE session_order SET synced_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE state = 'synced'
"""


def _synced_at(database: Database) -> None:
    run_statements(database, _SYNCED_AT)


LEDGER_STEPS = (_first, _synced_at)


@dataclass(frozen=True)
class OrderedSession:
    """What the room ordered; commands are the verified documents' bodies, {} once it is forgotten. `synced_at`: UTC
    text."""

    sid: str
    desk: str
    start_command: dict[str, Any]
    end_command: dict[str, Any] | None
    state: OrderState
    reason: str
    synced_at: str | None = None


class Witness(NamedTuple):
    """The newest checkpoint the controller cosigned: leaves covered, its signature line, the note."""

    size: int
    cosignature: str
    note: str


@dataclass(frozen=True)
class Upload:
    """One object on its way; `state` is the uploader's own word, `reason` why the last attempt failed."""

    sid: str
    name: str
    size_bytes: int
    sha256: str
    state: str
    attempts: int
    reason: str


class LedgerView:
    """Read-only; empty answers while there is no ledger. StoreFailed if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    def wanted_session(self) -> OrderedSession | None:
        """The newest session that is ordered and not ended: the one to record."""
        found = self._orders("state = 'ordered' AND end_command IS NULL")
        return found[-1] if found else None

    def ended_sessions(self) -> list[OrderedSession]:
        """Those that the room ended and has not decided about, oldest first."""
        return self._orders("state = 'ended'")

    def is_ended(self, sid: str) -> bool:
        """True once the room ordered its end or what comes after; False if the session is unknown."""
        return bool(self._orders("sid = ? AND (state != 'ordered' OR end_command IS NOT NULL)", sid))

    def order(self, sid: str) -> OrderedSession | None:
        """One session's order."""
        found = self._orders("sid = ?", sid)
        return found[0] if found else None

    def orders(self) -> list[OrderedSession]:
        """All orders, oldest first."""
        return self._orders("1")

    def last_serial(self) -> int:
        """Serial of the newest accepted command; 0 before the first."""
        return int(self.get("last_serial") or 0)

    def recipient_set_version(self) -> int:
        """Newest recipient-set version seen; 0 before the first."""
        return int(self.get("recipient_set_version") or 0)

    def witness(self, sid: str) -> Witness | None:
        """Newest cosigned checkpoint of a session."""
        rows = self._rows("SELECT size, cosignature, note FROM witness WHERE sid = ?", sid)
        return Witness(*rows[0]) if rows else None

    def approval(self, sid: str) -> dict[str, Any] | None:
        """The signed approval document of a session."""
        rows = self._rows("SELECT document FROM approval WHERE sid = ?", sid)
        return dict(json.loads(rows[0][0])) if rows else None

    def uploads(self, sid: str) -> list[Upload]:
        """Objects of a session, by name."""
        rows = self._rows(
            "SELECT sid, name, size_bytes, sha256, state, attempts, reason FROM uploads"
            " WHERE sid = ? ORDER BY name",
            sid,
        )
        return [Upload(*row) for row in rows]

    def get(self, key: str) -> str | None:
        """A small value kept across restarts."""
        rows = self._rows("SELECT value FROM kv WHERE key = ?", key)
        return str(rows[0][0]) if rows else None

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _orders(self, where: str, *values: object) -> list[OrderedSession]:
        rows = self._rows(
            "SELECT sid, desk, start_command, end_command, state, reason, synced_at"  # noqa: S608 (`where` is ours)
            f" FROM session_order WHERE {where} ORDER BY number",
            *values,
        )
        return [
            OrderedSession(sid, desk, json.loads(start), json.loads(end) if end else None, *rest)
            for sid, desk, start, end, *rest in rows
        ]

    def _rows(self, query: str, *values: object) -> list[Any]:
        connection = self._connected()
        if connection is None:
            return []
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise store_failure("cannot read ledger.db", error) from error

    def _connected(self) -> sqlite3.Connection | None:
        if self._connection is not None:
            return self._connection
        # The camera process ends a session that no order stands behind: what cannot be read is never taken for empty.
        self._connection = connect_settled(self.path, len(LEDGER_STEPS), used=True)
        return self._connection


class Ledger(LedgerView):
    """The one writer. Every method commits before it returns; inside `transaction` they commit together."""

    def __init__(self, path: Path, file_ops: FileOps = OPERATING_SYSTEM) -> None:
        super().__init__(path)
        self._file_ops = file_ops
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise store_failure(f"cannot create {path.parent}", error) from error
        migrate(path, LEDGER_STEPS, file_ops)
        self._writer = connect_writer(path)
        self._connection = self._writer
        self._transactions = Transactions(self._writer, file_ops)
        with ExitStack() as undo:
            undo.callback(self._writer.close)
            self._require_same_store()
            undo.pop_all()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside become durable together: a command's serial and what it ordered."""
        with self._transactions.begin("what the room asked"):
            yield

    def accept_serial(self, serial: int) -> bool:
        """True, and durable, if `serial` is newer than every one before; False for an older or equal one."""
        return self._raise_number("last_serial", serial, allow_equal=False)

    def accept_recipient_set_version(self, version: int) -> bool:
        """True if `version` is the newest seen or equal to it; False for an older recipient set."""
        return self._raise_number("recipient_set_version", version, allow_equal=True)

    def connection_number(self, boot_id: str) -> int:
        """The next connection number of this boot, from 1, durable before it is used."""
        with self._transactions.begin("a connection number") as connection:
            row = connection.execute(
                "INSERT INTO connections (boot_id, number) VALUES (?, 1)"
                " ON CONFLICT (boot_id) DO UPDATE SET number = number + 1 RETURNING number",
                (boot_id,),
            ).fetchone()
        return int(row[0])

    def order_start(self, sid: str, desk: str, start_command: Mapping[str, Any]) -> None:
        """Keep the order to record; a repeat for a known session changes nothing."""
        self._write(
            "INSERT OR IGNORE INTO session_order (sid, desk, start_command, state)"
            " VALUES (?, ?, ?, 'ordered')",
            sid,
            desk,
            json.dumps(start_command),
        )

    def order_end(self, sid: str, end_command: Mapping[str, Any]) -> None:
        """Keep the order to end; StoreFailed if the session was never ordered."""
        changed = self._write(
            "UPDATE session_order SET end_command = COALESCE(end_command, ?),"
            " state = CASE state WHEN 'ordered' THEN 'ended' ELSE state END WHERE sid = ?",
            json.dumps(end_command),
            sid,
        )
        self._require_known(sid, changed)

    def set_state(self, sid: str, state: OrderState, reason: str = "") -> None:
        """Where the session stands with the room; StoreFailed if never ordered or no such state."""
        changed = self._write(
            "UPDATE session_order SET state = ?, reason = ? WHERE sid = ?", state, reason, sid
        )
        self._require_known(sid, changed)

    def set_synced(self, sid: str, at: str) -> None:
        """Everything was read back from the storage; a repeat keeps the first time (UTC text)."""
        changed = self._write(
            "UPDATE session_order SET state = 'synced', reason = '',"
            " synced_at = COALESCE(synced_at, ?) WHERE sid = ?",
            at,
            sid,
        )
        self._require_known(sid, changed)

    def forget(self, sid: str) -> None:
        """Of a purged session keep what became of it, without the order: it holds the candidate's code and the seat's
        accommodations. Backups that hold it go first."""
        remove_backups_of(self.path, "session_order", sid, self._file_ops)
        self._write("UPDATE session_order SET start_command = '{}' WHERE sid = ?", sid)
        self._transactions.empty_log()

    def set_witness(self, sid: str, size: int, cosignature: str, note: str) -> bool:
        """Keep a cosigned checkpoint; False, and no change, if it covers fewer leaves than the one kept."""
        return bool(
            self._write(
                "INSERT INTO witness (sid, size, cosignature, note) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (sid) DO UPDATE SET size = excluded.size,"
                " cosignature = excluded.cosignature, note = excluded.note"
                " WHERE excluded.size >= witness.size",
                sid,
                size,
                cosignature,
                note,
            )
        )

    def set_approval(self, sid: str, document: Mapping[str, Any]) -> None:
        """Keep the signed approval as it came."""
        self._write(
            "INSERT OR REPLACE INTO approval (sid, document) VALUES (?, ?)", sid, json.dumps(document)
        )

    def set_uploads(self, sid: str, objects: Iterable[tuple[str, int, str]]) -> None:
        """Exactly these objects are to upload (name, size in bytes, SHA-256); one that is as before keeps its state."""
        wanted = list(objects)
        with self._transactions.begin("what is to be uploaded"):
            gone = {row.name for row in self.uploads(sid)} - {name for name, _, _ in wanted}
            for name in gone:
                self._write("DELETE FROM uploads WHERE sid = ? AND name = ?", sid, name)
            for name, size_bytes, sha256 in wanted:
                self._write(
                    "INSERT INTO uploads (sid, name, size_bytes, sha256, state) VALUES (?, ?, ?, ?, 'waiting')"
                    " ON CONFLICT (sid, name) DO UPDATE SET size_bytes = excluded.size_bytes,"
                    " sha256 = excluded.sha256, state = 'waiting', reason = ''"
                    " WHERE (size_bytes, sha256) <> (excluded.size_bytes, excluded.sha256)",
                    sid,
                    name,
                    size_bytes,
                    sha256,
                )

    def set_upload(self, sid: str, name: str, state: str, reason: str = "", attempted: bool = False) -> None:
        """Change an object's state; `attempted` counts one more try. StoreFailed if it is unknown."""
        changed = self._write(
            "UPDATE uploads SET state = ?, reason = ?, attempts = attempts + ? WHERE sid = ? AND name = ?",
            state,
            reason,
            int(attempted),
            sid,
            name,
        )
        if not changed:
            raise StoreFailed(f"upload {name} of session {sid} is not in the ledger", "")

    def set(self, key: str, value: str) -> None:
        """Keep a small value across restarts."""
        self._write("INSERT OR REPLACE INTO kv (key, value) VALUES (?, ?)", key, value)

    def _raise_number(self, key: str, number: int, allow_equal: bool) -> bool:
        with self._transactions.begin(key.replace("_", " ")):
            known = int(self.get(key) or 0)
            if number < known or (number == known and not allow_equal):
                return False
            self.set(key, str(number))
        return True

    def _write(self, statement: str, *values: object) -> int:
        with self._transactions.begin("what the room asked") as connection:
            return connection.execute(statement, values).rowcount

    def _require_known(self, sid: str, changed: int) -> None:
        if not changed:
            raise StoreFailed(f"session {sid} was never ordered on this node", "")

    def _require_same_store(self) -> None:
        """A ledger beside another store's files would answer for recordings it knows nothing of."""
        in_files, kept = read_uuid(Layout(self.path.parent)), self.get("store_uuid")
        if in_files is None or in_files == kept:
            return
        if kept is not None:
            raise StoreFailed("ledger.db belongs to another store", CHECK_HINT)
        self.set("store_uuid", in_files)
