"""Session rows of `room.db` as values."""

from __future__ import annotations

import json
import sqlite3

from appliance.errors import BadInput
from appliance.room.desk import Decisions

_SELECT = "SELECT s.*, w.refused AS witness_refused FROM sessions s LEFT JOIN witnessed w ON w.sid = s.sid"


def session_row(connection: sqlite3.Connection, sid: str) -> sqlite3.Row:
    """One session with what the witness said; raises BadInput for an unknown one."""
    row: sqlite3.Row | None = connection.execute(f"{_SELECT} WHERE s.sid = ?", (sid,)).fetchone()
    if row is None:
        raise BadInput("this room has no such session", "sessions are listed at /api/room")
    return row


def decisions_of(connection: sqlite3.Connection, sid: str) -> tuple[str, Decisions] | None:
    """Desk and decisions of one session, None for an unknown one."""
    row = connection.execute(f"{_SELECT} WHERE s.sid = ?", (sid,)).fetchone()
    return (row["desk"], _decisions(row)) if row else None


def load_all(connection: sqlite3.Connection) -> list[tuple[str, Decisions]]:
    """Every session, oldest first."""
    rows = connection.execute(f"{_SELECT} ORDER BY s.started_at").fetchall()
    return [(row["desk"], _decisions(row)) for row in rows]


def _decisions(row: sqlite3.Row) -> Decisions:
    return Decisions(
        sid=row["sid"],
        candidate_code=row["candidate_code"],
        started_at=row["started_at"],
        start_refused=row["start_refused"],
        break_since=row["break_since"],
        ended_at=row["ended_at"],
        manifest_sha256=row["manifest_sha256"],
        manifest_problem=row["manifest_problem"],
        complete=bool(row["complete"]),
        certificate_problem=row["certificate_problem"],
        approved_at=row["approved_at"],
        held_reason=row["held_reason"],
        synced_at=row["synced_at"],
        discarded_at=row["discarded_at"],
        set_aside_at=row["set_aside_at"],
        witness_refused=row["witness_refused"],
        accommodations=tuple(json.loads(row["accommodations"] or "[]")),
    )
