"""Session rows of `room.db` as values."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from appliance.errors import BadInput
from appliance.room.database import NOT_OVER
from appliance.room.desk import Decisions

# Both read what an index names, never every session.
_STANDING = (
    f"SELECT sid FROM sessions WHERE {NOT_OVER} UNION "  # noqa: S608 - no input
    "SELECT sid FROM (SELECT desk, max(started_at) AS newest FROM sessions GROUP BY desk) AS last "
    "JOIN sessions ON sessions.desk = last.desk AND started_at = newest"
)
_LISTED = (
    f"SELECT sid FROM sessions WHERE {NOT_OVER} UNION "  # noqa: S608 - no input
    "SELECT sid FROM sessions WHERE started_at >= ?"
)
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


def load_standing(connection: sqlite3.Connection) -> list[tuple[str, Decisions]]:
    """What is not over, and each desk's newest session; oldest first."""
    rows = connection.execute(f"{_SELECT} WHERE s.sid IN ({_STANDING}) ORDER BY s.started_at").fetchall()
    return [(row["desk"], _decisions(row)) for row in rows]


def reviews_of(connection: sqlite3.Connection, sids: Iterable[str]) -> dict[str, dict[int, str]]:
    """What people said of each session's observations, by number."""
    query = "SELECT number, outcome FROM reviews WHERE sid = ?"
    return {sid: dict(connection.execute(query, (sid,)).fetchall()) for sid in sids}


def listed(connection: sqlite3.Connection, since: str) -> list[sqlite3.Row]:
    """What is not over, however old, and what began since `since` (UTC text) in the order in which it began."""
    return connection.execute(
        f"{_SELECT} WHERE s.sid IN ({_LISTED}) AND start_refused IS NULL ORDER BY started_at", (since,)
    ).fetchall()


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
