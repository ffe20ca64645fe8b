"""What staff did: an append-only table in which each row carries its predecessor's hash (F103).

Owned by the controller. The chain shows a changed, deleted or moved row; a stored checkpoint shows a cut end.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from appliance.clock import Clock, utc_text
from appliance.errors import BadInput, EvidenceBroken
from appliance.evf.canonical import canonical
from appliance.evf.errors import EvfError
from appliance.evidence.merkle import Frontier, leaf_hash

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS audit (row INTEGER PRIMARY KEY, at TEXT NOT NULL, actor TEXT NOT NULL,"
    " action TEXT NOT NULL, object TEXT NOT NULL, detail TEXT NOT NULL, hash BLOB NOT NULL) STRICT",
    "CREATE TRIGGER IF NOT EXISTS audit_keeps_rows BEFORE DELETE ON audit"
    " BEGIN SELECT RAISE(ABORT, 'audit rows are not deleted'); END",
    "CREATE TRIGGER IF NOT EXISTS audit_keeps_values BEFORE UPDATE ON audit"
    " BEGIN SELECT RAISE(ABORT, 'audit rows are not changed'); END",
)
_FIRST = bytes(32)


@dataclass(frozen=True)
class AuditCheckpoint:
    """Size and Merkle root of the log at one moment; keep it somewhere else than the log."""

    size: int
    root: bytes


@dataclass(frozen=True)
class AuditRow:
    """One entry; `hash` is its Merkle leaf and the link that the next entry carries."""

    row: int
    at: str
    actor: str
    action: str
    object: str
    detail: dict[str, Any]
    hash: bytes


class AuditLog:
    """Rows count from 1. Joins the caller's transaction if there is one, else commits by itself."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        for statement in _SCHEMA:
            connection.execute(statement)

    def append(self, actor: str, action: str, object: str, detail: Mapping[str, Any]) -> int:
        """Write one entry and return its row number; `detail` must have a canonical form (EvfError)."""
        at = utc_text(self._clock.wall())
        self._connection.execute("SAVEPOINT audit_append")
        with ExitStack() as ending, ExitStack() as undo:
            ending.callback(self._connection.execute, "RELEASE audit_append")
            undo.callback(self._connection.execute, "ROLLBACK TO audit_append")
            last = self._connection.execute(
                "SELECT row, hash FROM audit ORDER BY row DESC LIMIT 1"
            ).fetchone()
            row, previous = (last[0] + 1, bytes(last[1])) if last else (1, _FIRST)
            digest = _entry_hash(row, at, actor, action, object, dict(detail), previous)
            self._connection.execute(
                "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?)",
                (row, at, actor, action, object, canonical(dict(detail)).decode(), digest),
            )
            undo.pop_all()
        return int(row)

    def rows(self, first: int = 1) -> Iterator[AuditRow]:
        """Entries in order from row `first` on; BadInput for what cannot be a row's number."""
        if not 0 < first < 2**63:
            raise BadInput(f"there is no audit row {first}", "rows count from 1")
        cursor = self._connection.execute(
            "SELECT row, at, actor, action, object, detail, hash FROM audit WHERE row >= ? ORDER BY row",
            (first,),
        )
        for row, at, actor, action, subject, detail, digest in cursor:
            try:
                fields = json.loads(detail)
            except (ValueError, RecursionError) as error:
                raise EvidenceBroken(f"audit row {row} was changed") from error
            yield AuditRow(row, at, actor, action, subject, fields, bytes(digest))

    def verify(self, stored: AuditCheckpoint | None = None) -> None:
        """Raise EvidenceBroken naming the first row that was changed, deleted, inserted or reordered.

        With a `stored` checkpoint also when rows it covers are missing at the end or were rewritten.
        """
        frontier = Frontier()
        previous = _FIRST
        for entry in self.rows():
            expected_row = frontier.size + 1
            if entry.row != expected_row:
                raise EvidenceBroken(f"audit row {expected_row} is missing", "compare with the last backup")
            try:
                digest = _entry_hash(
                    entry.row, entry.at, entry.actor, entry.action, entry.object, entry.detail, previous
                )
            except EvfError as error:
                raise EvidenceBroken(f"audit row {entry.row} was changed") from error
            if digest != entry.hash:
                raise EvidenceBroken(
                    f"audit row {entry.row} was changed or moved", "compare with the last backup"
                )
            previous = entry.hash
            frontier.append(digest)
            if stored is not None and frontier.size == stored.size and frontier.root() != stored.root:
                raise EvidenceBroken(f"audit rows up to {entry.row} are not those of the stored checkpoint")
        if stored is not None and frontier.size < stored.size:
            raise EvidenceBroken(
                f"audit row {frontier.size + 1} is missing: {stored.size} rows were witnessed",
                "compare with the last backup",
            )

    def checkpoint(self) -> AuditCheckpoint:
        """Size and root over the stored hashes; call `verify` to know that they are true."""
        frontier = Frontier()
        for (digest,) in self._connection.execute("SELECT hash FROM audit ORDER BY row"):
            frontier.append(bytes(digest))
        return AuditCheckpoint(frontier.size, frontier.root())


def _entry_hash(
    row: int, at: str, actor: str, action: str, subject: str, detail: Any, previous: bytes
) -> bytes:
    return leaf_hash(
        canonical(
            {
                "row": row,
                "at": at,
                "actor": actor,
                "action": action,
                "object": subject,
                "detail": detail,
                "previous": previous.hex(),
            }
        )
    )
