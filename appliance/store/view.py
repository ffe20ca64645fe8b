"""What was recorded, read-only: for the sync process and the command line while the camera process writes."""

from __future__ import annotations

import json
import sqlite3
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from appliance.clock import Clock, parse_utc
from appliance.store.database import connect_settled
from appliance.store.durable import store_failure
from appliance.store.layout import Layout
from appliance.store.rows import (
    FRAGMENT,
    EventRow,
    GapRow,
    LeafRun,
    LostRow,
    NewestFragment,
    SegmentRow,
    SessionRow,
    Totals,
    WrapRow,
    read_session,
)
from appliance.store.schema import INDEX_STEPS

__all__ = [
    "EventRow",
    "GapRow",
    "LeafRun",
    "LostRow",
    "NewestFragment",
    "RecordingView",
    "SegmentRow",
    "SessionRow",
    "Totals",
    "WrapRow",
]

# A record that recovery found damaged keeps its leaf but no longer counts: it lies behind `size_bytes`.
_COUNTS = "(s.size_bytes IS NULL OR r.offset_bytes + r.length_bytes <= s.size_bytes) AND s.state != 'missing'"


class RecordingView:
    """Each call sees one state of index.db; empty answers while there is none. StoreFailed otherwise."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self._connection: sqlite3.Connection | None = None

    def sessions(self) -> list[SessionRow]:
        """All sessions, oldest first."""
        return self._sessions("1")

    def session(self, sid: str) -> SessionRow | None:
        """One session."""
        rows = self._sessions("s.sid = ?", sid)
        return rows[0] if rows else None

    def purged(self) -> set[str]:
        """Sessions whose local copy is gone or going."""
        return {row[0] for row in self._rows("SELECT sid FROM sessions WHERE local_copy != 'there'")}

    def active_session(self) -> SessionRow | None:
        """The session that has begun and not ended."""
        rows = self._sessions("s.ended IS NULL")
        return rows[-1] if rows else None

    def segments(self, sid: str) -> list[SegmentRow]:
        """Segments in the order of their creation."""
        # One row a run of leaves, in one query so that all of it is one state. Within a segment both numbers
        # grow, and by the same step inside a run: their difference names the run.
        rows = self._rows(
            "SELECT s.id, s.name, s.track, s.cls, s.epoch, s.seg, s.state,"  # noqa: S608 (a constant)
            " COALESCE(s.size_bytes, s.prefix_bytes), s.sha256, s.md5, s.cause,"
            " MIN(r.leaf_index), COUNT(r.record_index), MIN(r.time_90k), MAX(r.end_90k),"
            " MAX(r.offset_bytes + r.length_bytes)"
            f" FROM segments s LEFT JOIN records r ON r.segment_id = s.id AND {_COUNTS}"
            " WHERE s.sid = ? GROUP BY s.id, r.leaf_index - r.record_index ORDER BY s.id, MIN(r.leaf_index)",
            sid,
        )
        return [_segment(list(runs)) for _, runs in groupby(rows, key=itemgetter(0))]

    def wraps(self, sid: str) -> list[WrapRow]:
        """Wrap files of a session."""
        rows = self._rows(
            "SELECT name, epoch, cls, size_bytes, sha256, md5, state FROM wraps"
            " WHERE sid = ? ORDER BY epoch, cls",
            sid,
        )
        return [WrapRow(*row) for row in rows]

    def leaves(self, sid: str, start: int = 0, limit: int | None = None) -> list[bytes]:
        """Leaf hashes (32 bytes each) from place `start` on, in commit order."""
        rows = self._rows(
            "SELECT leaf FROM leaves WHERE sid = ? AND leaf_index >= ? ORDER BY leaf_index LIMIT ?",
            sid,
            start,
            -1 if limit is None else limit,
        )
        return [row[0] for row in rows]

    def lost(self, sid: str) -> list[LostRow]:
        """Leaves whose record no file backs any more, in order: recovery found its bytes changed or its file gone."""
        rows = self._rows(
            "SELECT l.leaf_index, l.leaf, s.name, r.time_90k, s.cause FROM leaves l"  # noqa: S608 (a constant)
            " JOIN records r ON r.segment_id = l.segment_id AND r.record_index = l.record_index"
            f" JOIN segments s ON s.id = r.segment_id WHERE l.sid = ? AND NOT ({_COUNTS})"
            " ORDER BY l.leaf_index",
            sid,
        )
        return [LostRow(*row) for row in rows]

    def leaf_count(self, sid: str) -> int:
        """Number of leaves; they are numbered from 0 without a hole."""
        rows = self._rows("SELECT COALESCE(MAX(leaf_index) + 1, 0) FROM leaves WHERE sid = ?", sid)
        return int(rows[0][0]) if rows else 0

    def events(self, sid: str) -> list[EventRow]:
        """Event leaves in order."""
        rows = self._rows("SELECT leaf_index, body FROM events WHERE sid = ? ORDER BY leaf_index", sid)
        return [EventRow(leaf_index, json.loads(body)) for leaf_index, body in rows]

    def gaps(self, sid: str) -> list[GapRow]:
        """Spans without footage, by their start."""
        rows = self._rows(
            "SELECT start_90k, end_90k, cause FROM gaps WHERE sid = ? ORDER BY start_90k, id", sid
        )
        return [GapRow(*row) for row in rows]

    def newest_fragment(self, sid: str) -> NewestFragment | None:
        """The newest durable fragment of any track; None before the first."""
        row = self._newest(sid)
        return NewestFragment(*row[:3]) if row else None

    def recording_age_s(self, sid: str, clock: Clock, boot_id: str) -> float | None:
        """Seconds since the newest fragment became durable; None before the first.

        Monotonic time within one boot; across a reboot the wall clock, never below 0.
        """
        row = self._newest(sid)
        if row is None:
            return None
        durable_mono_ns, wall, fragment_boot_id = int(row[1]), str(row[2]), row[3]
        if fragment_boot_id == boot_id:
            return (clock.mono_ns() - durable_mono_ns) / 1e9
        return max(0.0, (clock.wall() - parse_utc(wall)).total_seconds())

    def totals(self, sid: str) -> Totals:
        """Acknowledged fragments and bytes, headers included."""
        rows = self._rows(
            "SELECT COALESCE(SUM(r.kind = ?), 0), COALESCE(SUM(r.length_bytes), 0)"  # noqa: S608 (a constant)
            " + (SELECT COALESCE(SUM(prefix_bytes), 0) FROM segments WHERE sid = ? AND state != 'missing')"
            f" FROM segments s JOIN records r ON r.segment_id = s.id WHERE s.sid = ? AND {_COUNTS}",
            FRAGMENT,
            sid,
            sid,
        )
        return Totals(*rows[0]) if rows else Totals(0, 0)

    def close(self) -> None:
        """Give the connection back; the next call opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _newest(self, sid: str) -> Any | None:
        rows = self._rows(
            "SELECT r.end_90k, r.durable_mono_ns, r.durable_wall, e.boot_id FROM leaves l"
            " JOIN records r ON r.segment_id = l.segment_id AND r.record_index = l.record_index"
            " JOIN segments s ON s.id = r.segment_id JOIN epochs e ON e.sid = s.sid AND e.epoch = s.epoch"
            " WHERE l.sid = ? AND r.kind = ? ORDER BY l.leaf_index DESC LIMIT 1",
            sid,
            FRAGMENT,
        )
        return rows[0] if rows else None

    def _sessions(self, where: str, *values: object) -> list[SessionRow]:
        connection = self._connected()
        if connection is None:
            return []
        try:
            return read_session(connection, where, *values)
        except sqlite3.Error as error:
            raise store_failure("cannot read index.db", error) from error

    def _rows(self, query: str, *values: object) -> list[Any]:
        connection = self._connected()
        if connection is None:
            return []
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise store_failure("cannot read index.db", error) from error

    def _connected(self) -> sqlite3.Connection | None:
        if self._connection is not None:
            return self._connection
        used = self.layout.uuid_file.exists()
        self._connection = connect_settled(self.layout.index_db, len(INDEX_STEPS), used=used)
        return self._connection


def _segment(runs: list[Any]) -> SegmentRow:
    _, name, track, cls, epoch, seg, state, size_bytes, sha256, md5, cause = runs[0][:11]
    held = [run[11:] for run in runs if run[12]]
    return SegmentRow(
        name=name,
        track=track,
        cls=cls,
        epoch=epoch,
        seg=seg,
        state=state,
        size_bytes=max(end for *_, end in held) if held and state == "open" else size_bytes,
        sha256=sha256,
        md5=md5,
        records=sum(count for _, count, *_ in held),
        start_90k=min(start for _, _, start, _, _ in held) if held else None,
        end_90k=max(end for _, _, _, end, _ in held) if held else None,
        leaf_runs=tuple(LeafRun(first, count) for first, count, *_ in held),
        cause=cause,
    )
