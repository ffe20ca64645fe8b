"""The local copy's end: when it may go, and its durable removal, with a signed receipt (F114, F115).

The camera process runs it in idle turns, as the one writer of index.db. Each step may be taken again: the mark in the
row stays until all is done, so that a start after a crash goes on with it. Nothing without a row is touched.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from appliance.clock import parse_utc, utc_text
from appliance.errors import StoreFailed
from appliance.evf.canonical import canonical
from appliance.store.backup import remove_backups_of
from appliance.store.database import Transactions
from appliance.store.durable import FileOps, fsync_dir, store_failure, write_file_durably
from appliance.store.layout import Layout
from appliance.store.ledger import OrderedSession
from appliance.store.rows import SessionRow, read_session

log = logging.getLogger(__name__)

PURPOSE = "purge-receipt"
NOT_RELEASED = ("ended", "held", "discarded")
Sign = Callable[[dict[str, Any]], dict[str, Any]]


def agreed_time(own: datetime, room_time: str | None) -> datetime | None:
    """The earlier of the desk's clock and the newest time heard from the room; None before the room was ever heard.

    A desk's clock that is years ahead must not take away a recording whose date has not come.
    """
    return None if room_time is None else min(own, parse_utc(room_time))


def reason_to_purge(row: SessionRow, order: OrderedSession, purge_after_h: int, now: datetime) -> str | None:
    """Why the local copy may go now, in words; None while it must stay. `now`: aware UTC.

    Synced, and the policy's hours since then are over; or not released, and the retention date has begun (UTC).
    """
    if row.ended is None or row.local_copy != "there" or row.sid != order.sid:
        return None
    if order.state == "synced" and order.synced_at is not None:
        due = parse_utc(order.synced_at) + timedelta(hours=purge_after_h)
        return f"in the institution's storage since {order.synced_at}" if now >= due else None
    if order.state in NOT_RELEASED:
        due = datetime.combine(date.fromisoformat(row.retain_until), time(), UTC)
        return f"not released, and kept until {row.retain_until}" if now >= due else None
    return None


class Purge:
    """Removes one session's local copy. StoreFailed if the disk refuses; then call it again."""

    def __init__(self, layout: Layout, transactions: Transactions, file_ops: FileOps, sign: Sign) -> None:
        self._layout = layout
        self._transactions = transactions
        self._file_ops = file_ops
        self._sign = sign

    def begin(self, sid: str, reason: str) -> None:
        """Mark the row: from here on the copy counts as gone. StoreFailed while any session records."""
        with self._transactions.begin(f"the purge of session {sid}") as connection:
            (recording,) = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM sessions WHERE ended IS NULL)"
            ).fetchone()
            if recording:
                raise StoreFailed("nothing is purged while a session records", "wait for its end")
            changed = connection.execute(
                "UPDATE sessions SET local_copy = 'purging', purge_reason = ?"
                " WHERE sid = ? AND local_copy = 'there' AND ended IS NOT NULL",
                (reason, sid),
            ).rowcount
            if not changed:
                raise StoreFailed(f"session {sid} cannot be purged now", "")

    def under_way(self) -> list[SessionRow]:
        """Marked sessions, oldest first."""
        with self._transactions.begin("the purges under way") as connection:
            return read_session(connection, "s.local_copy = 'purging'")

    def finish(self, row: SessionRow, now: datetime) -> None:
        """Every step after the mark, in an order in which a crash leaves nothing readable for longer."""
        try:
            self._remove_wraps(row.sid)
            self._remove_segments(row.sid)
            self._write_receipt(row, now)
        except OSError as error:
            if isinstance(error, StoreFailed):
                raise
            raise store_failure(f"cannot purge session {row.sid}", error) from error
        remove_backups_of(self._layout.index_db, "sessions", row.sid, self._file_ops)
        self._drop_rows(row.sid, now)
        self._transactions.empty_log()
        log.info("session.purged sid=%s reason=%s", row.sid, row.purge_reason)

    def _remove_wraps(self, sid: str) -> None:
        for name in self._names("wraps", sid):
            self._file_ops.unlink(self._layout.wrap(name))
        fsync_dir(self._layout.wraps, self._file_ops)

    def _remove_segments(self, sid: str) -> None:
        folder = self._layout.segments / sid
        if not folder.is_dir():
            return
        for name in self._names("segments", sid):
            self._file_ops.unlink(folder / name)
        fsync_dir(folder, self._file_ops)
        with suppress(OSError):  # a file that nobody knows keeps its folder
            folder.rmdir()
        fsync_dir(self._layout.segments, self._file_ops)

    def _write_receipt(self, row: SessionRow, now: datetime) -> None:
        """After the files are gone and before their rows, which say how many there were."""
        manifest = self._layout.manifest(row.sid)
        body = {
            "sid": row.sid,
            "institution": row.institution,
            "room": row.room,
            "desk": row.desk,
            "what": "wrapped keys and segments of the desk's own copy",
            "wraps": len(self._names("wraps", row.sid)),
            "segments": len(self._names("segments", row.sid)),
            "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest()
            if manifest.is_file()
            else None,
            "when": utc_text(now),
            "why": row.purge_reason,
        }
        write_file_durably(self._layout.receipt(row.sid), canonical(self._sign(body)), self._file_ops)

    def _drop_rows(self, sid: str, now: datetime) -> None:
        """What remains: the session's row, without the candidate's code."""
        with self._transactions.begin(f"the purge of session {sid}") as connection:
            connection.execute(
                "DELETE FROM records WHERE segment_id IN (SELECT id FROM segments WHERE sid = ?)", (sid,)
            )
            for table in ("leaves", "events", "gaps", "segments", "wraps", "epochs"):
                connection.execute(f"DELETE FROM {table} WHERE sid = ?", (sid,))  # noqa: S608 (our own names)
            connection.execute("DELETE FROM meta WHERE key GLOB ?", (f"origin {sid} *",))
            connection.execute(
                "UPDATE sessions SET local_copy = 'purged', purged = ?, candidate_code = '' WHERE sid = ?",
                (utc_text(now), sid),
            )

    def _names(self, table: str, sid: str) -> list[str]:
        with self._transactions.begin(f"the files of session {sid}") as connection:
            rows = connection.execute(
                f"SELECT name FROM {table} WHERE sid = ? ORDER BY name",  # noqa: S608 (our own names)
                (sid,),
            ).fetchall()
        return [row[0] for row in rows]
