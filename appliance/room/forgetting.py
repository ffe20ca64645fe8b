"""What the room keeps of a session ends: a seat's codes with the recording, everything else on the policy's own day.

The audit log stays, on purpose longer: who did what to which session, with neither a candidate's nor a seat's code.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from datetime import date

from appliance.errors import StoreFailed
from appliance.evidence.audit import AuditLog
from appliance.policy import parse_policy
from appliance.room.accounts import forget_logins
from appliance.room.core import Room
from appliance.room.database import NOT_OVER
from appliance.store.backup import remove_backups_of
from appliance.store.durable import OPERATING_SYSTEM

log = logging.getLogger(__name__)

LOOK_S = 3600.0
OF_A_SESSION = ("notes", "reviews", "witnessed", "commands", "sessions")


async def forget_when_due(room: Room) -> None:
    """Look every hour, for ever. A disk that refuses is asked again."""
    while True:
        try:
            await forget_due(room)
            await room.database.empty_log()
        except StoreFailed as error:
            log.warning("room.not_forgotten reason=%s", error)
        await asyncio.sleep(LOOK_S)


async def forget_due(room: Room) -> list[str]:
    """Forget each session that is over and whose retention date has begun (UTC); returns their sids. Old log-ins, too.

    One that still waits for a person, or for its desk's answer, stays until it has it. Raises StoreFailed."""
    now = room.clock.wall()
    await room.database.run(lambda connection: forget_logins(connection, now.timestamp()))
    due = await room.database.run(lambda connection: _due(connection, now.date()))
    for sid in due:
        await room.database.run(lambda connection, sid=sid: _forget(connection, room, sid))  # type: ignore[misc]
        room.live.drop_session(sid)
    return due


def _due(connection: sqlite3.Connection, today: date) -> list[str]:
    policies = connection.execute("SELECT DISTINCT policy FROM sessions").fetchall()  # one an exam
    ended = [p for (p,) in policies if parse_policy(json.loads(p)["body"]).retention_end <= today]
    return [
        sid
        for policy in ended
        for (sid,) in connection.execute(
            f"SELECT sid FROM sessions WHERE policy = ? AND NOT ({NOT_OVER})"  # noqa: S608 - no input
            " AND sid NOT IN (SELECT sid FROM commands WHERE outcome IS NULL)",
            (policy,),
        )
    ]


def _forget(connection: sqlite3.Connection, room: Room, sid: str) -> None:
    remove_backups_of(room.config.data / "room.db", "sessions", sid, OPERATING_SYSTEM)
    for table in OF_A_SESSION:
        connection.execute(f"DELETE FROM {table} WHERE sid = ?", (sid,))  # noqa: S608 - our own names
    AuditLog(connection, room.clock).append("room", "session.forget", f"session/{sid}", {})
