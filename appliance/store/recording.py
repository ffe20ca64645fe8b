"""The camera process's side of the store; sole writer of index.db.

Opening it runs recovery, so that start-up after SIGKILL or a power cut is the ordinary start-up.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import ExitStack, suppress
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from appliance.clock import Clock, utc_text
from appliance.errors import NoSpace, StoreFailed
from appliance.evf.canonical import canonical
from appliance.evf.format import Header, check_class, check_sid
from appliance.evf.wraps import wrap_name
from appliance.store.database import Transactions, connect_writer, migrate
from appliance.store.durable import (
    OPERATING_SYSTEM,
    FileOps,
    fsync_dir,
    make_dir_durably,
    store_failure,
    write_all,
    write_file_durably,
)
from appliance.store.layout import Layout, pair, require_database, segment_name
from appliance.store.purge import Purge, Sign
from appliance.store.recovery import RecoveryReport, recover
from appliance.store.reserve import Reserve
from appliance.store.rows import Digests, NewSession, SessionRow, insert_gap, insert_leaf, read_session
from appliance.store.schema import INDEX_STEPS
from appliance.store.segment_file import SegmentFile

__all__ = ["NewSession", "RecordingStore", "RecoveryReport", "SegmentFile", "SessionRow"]

_SESSION_COLUMNS = ", ".join(field.name for field in fields(NewSession))
_SESSION_PLACES = ", ".join("?" for _ in fields(NewSession))


class RecordingStore:
    """One writer for one store. Methods raise StoreFailed or NoSpace; any thread may call them."""

    def __init__(self, root: Path, clock: Clock, file_ops: FileOps = OPERATING_SYSTEM) -> None:
        self.layout = Layout(root)
        self._clock = clock
        self._file_ops = file_ops
        self._growing: list[SegmentFile] = []
        # First of all, so that a disk filled since the last life can be recovered on.
        self._reserve = Reserve(self.layout.reserve, file_ops)
        self._reserve.make_room()
        self.layout.prepare(file_ops)
        require_database(self.layout)
        migrate(self.layout.index_db, INDEX_STEPS, file_ops)
        self._connection = connect_writer(self.layout.index_db)
        self._transactions = Transactions(self._connection, file_ops, self._reserve.make_room)
        with ExitStack() as undo:
            undo.callback(self._connection.close)
            self.uuid = pair(self.layout, self._transactions, file_ops)
            self.recovery = recover(self.layout, self._transactions, file_ops, clock, self._reserve.make_room)
            if not self.recovery.interrupted_sessions:
                self._reserve.release()
            undo.pop_all()

    def begin_session(self, session: NewSession, footage_bytes: int = 0) -> None:
        """Commit a new session; StoreFailed while another is active or if known already, EvfError for its sid.

        `footage_bytes` are reserved first, with what rows need; NoSpace with the bytes missing, and no session.
        """
        check_sid(session.sid)  # it becomes a directory's name
        active = self.active_session()
        if active is not None:
            raise StoreFailed(f"session {active.sid} is still recording", "end it before another begins")
        if footage_bytes:
            self._reserve.hold(footage_bytes)
        try:
            self._insert_session(session)
        except StoreFailed:
            self._reserve.release()
            raise

    def reserve_again(self, footage_bytes: int) -> int:
        """For a session that goes on after a restart: reserve as far as the disk has room; bytes held."""
        self._reserve.hold_again(footage_bytes)
        return self._reserve.held_bytes

    def footage_bytes_left(self) -> int:
        """What the active session's footage may still take: its reserve and the disk's free room."""
        return self._reserve.footage_bytes()

    def begin_epoch(self, sid: str, boot_id: str) -> int:
        """Commit the next life of the recording process within a session: 0, 1, 2 …"""
        with self._transactions.begin(f"an epoch of session {sid}") as connection:
            self._require_active(connection, sid)
            (epoch,) = connection.execute(
                "SELECT COALESCE(MAX(epoch) + 1, 0) FROM epochs WHERE sid = ?", (sid,)
            ).fetchone()
            connection.execute(
                "INSERT INTO epochs (sid, epoch, boot_id, started, started_mono_ns) VALUES (?, ?, ?, ?, ?)",
                (sid, epoch, boot_id, utc_text(self._clock.wall()), self._clock.mono_ns()),
            )
        return int(epoch)

    def origin(self, session: SessionRow, boot_id: str) -> int | None:
        """CLOCK_BOOTTIME of session time 0 in that boot; None in a later one than the first until it is kept."""
        if session.boot_id == boot_id:
            return session.started_mono_ns
        with self._transactions.begin("the session's time") as connection:
            row = connection.execute(
                "SELECT value FROM meta WHERE key = ?", (f"origin {session.sid} {boot_id}",)
            )
            found = row.fetchone()
        return None if found is None else int(found[0])

    def keep_origin(self, sid: str, boot_id: str, origin_mono_ns: int) -> None:
        """So that the wall clock bridges a reboot once, however often the process begins anew after it."""
        with self._transactions.begin("the session's time") as connection:
            key = f"origin {sid} {boot_id}"
            connection.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (key, str(origin_mono_ns)))

    def write_wrap(self, sid: str, epoch: int, cls: str, data: bytes) -> None:
        """Make the wrapped key of (session, epoch, class) durable: file, then row. Never overwrites one."""
        check_sid(sid)
        check_class(cls)
        name = wrap_name(sid, epoch, cls)
        path = self.layout.wrap(name)
        self._reserve.make_room(len(data))
        if path.exists():
            raise StoreFailed(f"wrap {name} exists already", "an epoch's key is wrapped once on the node")
        write_file_durably(path, data, self._file_ops)
        digests = Digests()
        digests.update(data)
        with self._transactions.begin(f"wrap {name}") as connection:
            connection.execute(
                "INSERT INTO wraps (sid, epoch, cls, name, size_bytes, sha256, md5, state)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 'there')",
                (sid, epoch, cls, name, len(data), digests.sha256, digests.md5),
            )

    def open_segment(self, header: Header, prefix: bytes) -> SegmentFile:
        """Create a segment: file with `prefix` (HEADER || COMMIT), fsync, fsync directory, row."""
        name = segment_name(header.epoch, header.track, header.seg)
        path = self.layout.segment(header.sid, name)
        self._reserve.make_room(len(prefix), footage=header.cls == "media")
        try:
            fd = self._file_ops.create(path)
        except OSError as error:
            raise store_failure(f"cannot create {name}", error) from error
        try:
            write_all(fd, prefix, self._file_ops)
            self._file_ops.fsync(fd)
            fsync_dir(path.parent, self._file_ops)
            with self._transactions.begin(f"segment {name}") as connection:
                self._require_active(connection, header.sid)
                cursor = connection.execute(
                    "INSERT INTO segments (sid, epoch, track, cls, seg, name, prefix_bytes, state)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, 'open')",
                    (header.sid, header.epoch, header.track, header.cls, header.seg, name, len(prefix)),
                )
                segment_id = int(cursor.lastrowid or 0)
        except (StoreFailed, OSError) as error:
            self._file_ops.close(fd)
            # It holds no record; left there, a full disk would collect one for each fragment that it refused. Not after
            # another failure of the commit: the row might stand all the same.
            if isinstance(error, NoSpace) or not isinstance(error, StoreFailed):
                with suppress(OSError):
                    path.unlink()
            if isinstance(error, StoreFailed):
                raise
            raise store_failure(f"cannot create {name}", error) from error
        segment = SegmentFile(
            fd,
            segment_id,
            name,
            header,
            prefix,
            self._transactions,
            self._file_ops,
            self._clock,
            self._reserve,
        )
        self._growing = [*(other for other in self._growing if not other.finished), segment]
        return segment

    def append_event(self, sid: str, body: dict[str, Any]) -> int:
        """Commit an event leaf, SHA256(0x00 || canonical(body)), and return its place.

        The body stands in clear: only what happened to the recording, nothing that was seen. EvfError for
        a value without canonical form.
        """
        text = canonical(body)
        with self._transactions.begin(f"an event of session {sid}") as connection:
            leaf_index = insert_leaf(connection, sid, hashlib.sha256(b"\0" + text).digest(), None, None)
            connection.execute(
                "INSERT INTO events (sid, leaf_index, body) VALUES (?, ?, ?)",
                (sid, leaf_index, text.decode("ascii")),
            )
        return leaf_index

    def add_gap(self, sid: str, start_90k: int, end_90k: int, cause: str) -> None:
        """Commit a span without footage, in 90 kHz from the session's start."""
        with self._transactions.begin(f"a gap of session {sid}") as connection:
            insert_gap(connection, sid, start_90k, end_90k, cause)

    def end_session(self, sid: str, ended: str) -> None:
        """Commit the end (UTC text); segments still growing are left open-ended first."""
        for segment in self._growing:
            if segment.sid == sid:
                segment.abandon("session ended")
        with self._transactions.begin(f"the end of session {sid}") as connection:
            self._require_active(connection, sid)
            connection.execute("UPDATE sessions SET ended = ? WHERE sid = ?", (ended, sid))
        self._reserve.release()

    def purge(self, sid: str, reason: str, sign: Sign) -> None:
        """Remove an ended session's local copy; `sign` makes the receipt's document of its body.

        StoreFailed while anything records, or if the disk refuses: `finish_purges` goes on with it.
        """
        work = Purge(self.layout, self._transactions, self._file_ops, sign)
        work.begin(sid, reason)
        self.finish_purges(sign)

    def finish_purges(self, sign: Sign) -> None:
        """Take up what a crash or a failing disk interrupted."""
        work = Purge(self.layout, self._transactions, self._file_ops, sign)
        for row in work.under_way():
            work.finish(row, self._clock.wall())

    def active_session(self) -> SessionRow | None:
        """The session that has begun and not ended, also after a restart."""
        try:
            rows = read_session(self._connection, "s.ended IS NULL")
        except sqlite3.Error as error:
            raise store_failure("cannot read the sessions", error) from error
        return rows[-1] if rows else None

    def close(self) -> None:
        """Give descriptors and database back. A growing segment stays open in its row for recovery."""
        for segment in self._growing:
            segment.release()
        self._growing = []
        self._connection.close()

    def _insert_session(self, session: NewSession) -> None:
        self._reserve.make_room()
        try:
            make_dir_durably(self.layout.segments / session.sid, self._file_ops)
        except OSError as error:
            raise store_failure(f"cannot make a place for session {session.sid}", error) from error
        with self._transactions.begin(f"session {session.sid}") as connection:
            connection.execute(
                f"INSERT INTO sessions ({_SESSION_COLUMNS}) VALUES ({_SESSION_PLACES})",  # noqa: S608 (our own names)
                astuple(session),
            )

    def _require_active(self, connection: sqlite3.Connection, sid: str) -> None:
        row = connection.execute("SELECT ended FROM sessions WHERE sid = ?", (sid,)).fetchone()
        if row is None:
            raise StoreFailed(f"session {sid} is not in this store", "begin it first")
        if row[0] is not None:
            raise StoreFailed(f"session {sid} ended at {row[0]}", "begin a new session")
