"""`invigil store check --repair`: what start-up recovery does, and what only a person should ask for. Deletes no bytes.

Refused while a service holds a database. Each step may be taken again, and a second run finds nothing to do. A session
with a signed manifest is left as the manifest says; what cannot be mended stays named.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from appliance.clock import Clock, utc_text
from appliance.errors import NoSpace, StoreFailed
from appliance.store.backup import back_up, backups
from appliance.store.check import Problem, check_store
from appliance.store.database import Transactions, connect_writer, hold_lock, schema_version
from appliance.store.durable import OPERATING_SYSTEM, FileOps, store_failure, write_file_durably
from appliance.store.layout import Layout, read_uuid
from appliance.store.quarantine import Quarantine
from appliance.store.recovery import missing_cause, recover
from appliance.store.rows import digest_file
from appliance.store.schema import INDEX_STEPS
from appliance.store.tail import scan_file

BACKUP_LABEL = "before-repair"
SALVAGE_HINT = "invigil store salvage copies what can still be read into another folder"


@dataclass
class Repair:
    """What was done, in order, and what a person is left with."""

    done: list[Problem] = field(default_factory=list)
    left: list[Problem] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """True when files and databases agree and nothing is lost; what is set aside may be."""
        return all(problem.set_aside for problem in self.left)


def repair_store(root: Path, clock: Clock, file_ops: FileOps = OPERATING_SYSTEM) -> Repair:
    """Mend what can be mended. StoreFailed when a service runs, or when only a salvage helps; NoSpace for the backup.

    The index as it was found is kept as index.db.before-repair if anything in it is changed.
    """
    layout = Layout(root)
    if not layout.index_db.is_file():
        raise StoreFailed(f"{layout.index_db} is missing", SALVAGE_HINT)
    with ExitStack() as held:
        if layout.ledger_db.exists():
            held.enter_context(hold_lock(layout.ledger_db))
        connection = connect_writer(layout.index_db)
        held.callback(connection.close)
        _require_schema(layout, connection)
        before = set(backups(layout.index_db))
        try:
            kept = back_up(connection, layout.index_db, BACKUP_LABEL, file_ops)
        except NoSpace:
            raise
        except StoreFailed as error:  # a damaged table cannot be copied
            raise StoreFailed(str(error), SALVAGE_HINT) from error
        changes = connection.total_changes
        work = _Repair(layout, connection, file_ops, clock)
        try:
            work.run()
        except (OSError, sqlite3.Error) as error:
            if isinstance(error, StoreFailed):
                raise
            raise store_failure("cannot repair the store", error) from error
        if connection.total_changes != changes or work.rebuilt:
            work.say(kept.name, "keeps the index as it was found")
        elif kept not in before:
            file_ops.unlink(kept)
        repair = Repair(work.done)
        # Inside the locks: nobody begins to record between the last step and the last look.
        repair.left = check_store(root)
    return repair


def _require_schema(layout: Layout, connection: sqlite3.Connection) -> None:
    version = schema_version(connection)
    if version > len(INDEX_STEPS):
        raise StoreFailed(
            f"index.db has schema {version}, this software knows {len(INDEX_STEPS)}",
            "install the newer software again",
        )
    if version < len(INDEX_STEPS):
        raise StoreFailed(
            f"index.db has schema {version}, not {len(INDEX_STEPS)}",
            "start the camera process once: it brings the database forward, with a backup",
        )
    in_files = read_uuid(layout)
    row = connection.execute("SELECT value FROM meta WHERE key = 'store_uuid'").fetchone()
    if in_files is not None and (row is None or row[0] != in_files):
        raise StoreFailed("the files and index.db do not belong together", SALVAGE_HINT)


@dataclass(frozen=True)
class _Row:
    id: int
    sid: str
    name: str
    state: str
    size_bytes: int | None
    sha256: str | None


class _Repair:
    def __init__(
        self, layout: Layout, connection: sqlite3.Connection, file_ops: FileOps, clock: Clock
    ) -> None:
        self._layout = layout
        self._connection = connection
        self._transactions = Transactions(connection, file_ops)
        self._file_ops = file_ops
        self._clock = clock
        self._quarantine = Quarantine(layout, self._transactions, file_ops, clock)
        self.done: list[Problem] = []
        self.rebuilt = False

    def run(self) -> None:
        self.rebuild_lookups()
        self.write_lost_uuid()
        self.take_back_segments()
        self.take_back_wraps()
        self.reopen_damaged()
        self.cut_closed()
        self.recover()
        self.set_strays_aside()
        self.settle_quarantine_rows()

    def say(self, where: str, what: str) -> None:
        self.done.append(Problem(where, what))

    # --- the database ----------------------------------------------------------------------------------------------

    def rebuild_lookups(self) -> None:
        """SQLite's own indexes are made of the tables again; damage of any other kind is refused."""
        if self._integrity() == "ok":
            return
        with self._transactions.begin("the lookups of index.db") as connection:
            connection.execute("REINDEX")
        after = self._integrity()
        if after != "ok":
            raise StoreFailed(f"index.db is damaged: {after}", SALVAGE_HINT)
        self.rebuilt = True
        self.say("index.db", "its lookups were damaged and are made anew from its tables")

    def write_lost_uuid(self) -> None:
        """store.uuid alone is gone, and every file whose digest the index knows is the one it knows."""
        if read_uuid(self._layout) is not None:
            return
        row = self._connection.execute("SELECT value FROM meta WHERE key = 'store_uuid'").fetchone()
        rows = [row for row in self._rows("state IN ('closed', 'open_ended')") if self._path(row).is_file()]
        if row is None or not rows or not all(self._is_as_recorded(each) for each in rows):
            raise StoreFailed(
                "store.uuid is missing, and nothing shows that the files are those of index.db", SALVAGE_HINT
            )
        write_file_durably(self._layout.uuid_file, f"{row[0]}\n".encode("ascii"), self._file_ops)
        self.say("store.uuid", f"was missing; written again, since {len(rows)} files are those of index.db")

    # --- files that are back, files that have changed ---------------------------------------------------------------

    def take_back_segments(self) -> None:
        """A file that was missing at a start stands in its place again, with every record that its rows name."""
        for row in self._rows("state = 'missing'"):
            path = self._path(row)
            if not path.is_file() or self._certified(row.sid):
                continue
            if row.size_bytes is not None and not self._is_as_recorded(row):
                continue
            scan, leaves = scan_file(path), self._leaves(row)
            if scan is None or [record.leaf for record in scan.records[: len(leaves)]] != leaves:
                continue
            self._open_again(row, missing_cause(row.name))
            self.say(
                self._where(row), f"was missing and is back, {len(leaves)} records as they were recorded"
            )

    def take_back_wraps(self) -> None:
        """The same for a wrap, by its digest."""
        with self._transactions.begin("wraps that are back") as connection:
            rows = connection.execute(
                "SELECT name, sid, size_bytes, sha256 FROM wraps WHERE state = 'missing' ORDER BY name"
            ).fetchall()
            for name, sid, size_bytes, sha256 in rows:
                path = self._layout.wrap(name)
                if not path.is_file() or self._certified(sid) or path.stat().st_size != size_bytes:
                    continue
                if digest_file(path, size_bytes).sha256 == sha256:
                    connection.execute("UPDATE wraps SET state = 'there' WHERE name = ?", (name,))
                    self.say(f"wraps/{name}", "was missing and is back, as it was written")

    def reopen_damaged(self) -> None:
        """A finished segment has records that are not what was recorded: recovery looks at it as at an open one.

        It keeps a copy in the quarantine, ends the segment before the first such record and names the rest as a gap.
        """
        for row in self._rows("state IN ('closed', 'open_ended')"):
            path = self._path(row)
            if not path.is_file() or self._certified(row.sid) or self._is_as_recorded(row):
                continue
            scan, leaves = scan_file(path), self._leaves(row)
            found = [] if scan is None else [record.leaf for record in scan.records[: len(leaves)]]
            # With all its records, only its header differs: that is no reason to take its word for another digest.
            if found != leaves:
                self._open_again(row, None)
                self.say(self._where(row), "has changed since it was finished; examined again")

    def cut_closed(self) -> None:
        """Bytes behind the end of a closed segment are nobody's record; the file as found is kept."""
        for row in self._rows("state = 'closed'"):
            path = self._path(row)
            if row.size_bytes is None or not path.is_file() or path.stat().st_size <= row.size_bytes:
                continue
            if not self._is_as_recorded(row):
                continue
            extra_bytes = path.stat().st_size - row.size_bytes
            kept = self._quarantine.note(path, f"{extra_bytes} bytes stood behind its end")
            write_file_durably(kept, path.read_bytes(), self._file_ops)
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                self._file_ops.truncate(fd, row.size_bytes)
                self._file_ops.fsync(fd)
            finally:
                self._file_ops.close(fd)
            self.say(self._where(row), f"{extra_bytes} bytes behind its end are cut; {kept.name} keeps them")

    def recover(self) -> None:
        """As at every start."""
        report = recover(self._layout, self._transactions, self._file_ops, self._clock)
        if report.adopted_segments:
            self.say("segments", f"{report.adopted_segments} files without a row adopted by their headers")
        if report.adopted_records:
            self.say("segments", f"{report.adopted_records} whole records without a row adopted")
        if report.truncated_bytes:
            self.say("segments", f"{report.truncated_bytes} bytes of torn records cut")
        for where in report.missing:
            self.say(where, "is gone; marked missing, its time is a gap")
        for where in report.damaged:
            self.say(where, "ends before its first changed record; a gap names the rest")
        for where in report.quarantined:
            self.say(where, "set aside in the quarantine, as it was found")

    # --- the quarantine ----------------------------------------------------------------------------------------------

    def set_strays_aside(self) -> None:
        """What recovery does not look at: files at another depth, links, anything that is no plain file."""
        segments = set(self._connection.execute("SELECT sid, name FROM segments"))
        wraps = {name for (name,) in self._connection.execute("SELECT name FROM wraps")}
        strays = [
            *(
                path
                for path in self._files(self._layout.segments)
                if path.is_symlink()
                or path.parent.parent != self._layout.segments
                or (path.parent.name, path.name) not in segments
            ),
            *(
                path
                for path in self._files(self._layout.wraps)
                if path.is_symlink() or path.parent != self._layout.wraps or path.name not in wraps
            ),
        ]
        for path in strays:
            where = str(path.relative_to(self._layout.root))
            self._quarantine.take(path, "no row, and not where a recording's file stands")
            self.say(where, "set aside in the quarantine, as it was found")

    def settle_quarantine_rows(self) -> None:
        """A file without a row gets one; a row whose file a person took away goes."""
        with self._transactions.begin("the quarantine") as connection:
            rows = dict(connection.execute("SELECT stored_as, original FROM quarantine ORDER BY stored_as"))
            there = {path.name for path in self._layout.quarantine.iterdir()}
            for name in sorted(there - set(rows)):
                connection.execute(
                    "INSERT INTO quarantine (stored_as, original, reason, moved)"
                    " VALUES (?, ?, 'found here without a row', ?)",
                    (name, f"quarantine/{name}", utc_text(self._clock.wall())),
                )
                self.say(f"quarantine/{name}", "had no row in index.db and has one now")
            for name in sorted(set(rows) - there):
                connection.execute("DELETE FROM quarantine WHERE stored_as = ?", (name,))
                self.say(
                    f"quarantine/{name}", f"was taken away by hand; its row (of {rows[name]}) is removed"
                )

    # --- what the steps ask ------------------------------------------------------------------------------------------

    def _integrity(self) -> str:
        return str(self._connection.execute("PRAGMA integrity_check").fetchone()[0])

    def _rows(self, where: str) -> list[_Row]:
        rows = self._connection.execute(
            "SELECT id, sid, name, state, size_bytes, sha256 FROM segments"  # noqa: S608 (`where` is ours)
            f" WHERE {where} AND sid IN (SELECT sid FROM sessions WHERE local_copy = 'there') ORDER BY id"
        ).fetchall()
        return [_Row(*values) for values in rows]

    def _leaves(self, row: _Row) -> list[bytes]:
        """Of the records that still count: a loss that is named already is no reason to look again."""
        rows = self._connection.execute(
            "SELECT l.leaf FROM records r JOIN leaves l ON l.sid = ? AND l.leaf_index = r.leaf_index"
            " WHERE r.segment_id = ? AND (? IS NULL OR r.offset_bytes + r.length_bytes <= ?)"
            " ORDER BY r.record_index",
            (row.sid, row.id, row.size_bytes, row.size_bytes),
        ).fetchall()
        return [leaf for (leaf,) in rows]

    def _open_again(self, row: _Row, gap_cause: str | None) -> None:
        with self._transactions.begin(f"another look at {row.name}") as connection:
            connection.execute(
                "UPDATE segments SET state = 'open', size_bytes = NULL, sha256 = NULL, md5 = NULL, cause = ''"
                " WHERE id = ?",
                (row.id,),
            )
            connection.execute("DELETE FROM gaps WHERE sid = ? AND cause = ?", (row.sid, gap_cause))

    def _is_as_recorded(self, row: _Row) -> bool:
        path = self._path(row)
        if row.size_bytes is None or path.stat().st_size < row.size_bytes:
            return False
        try:
            return digest_file(path, row.size_bytes).sha256 == row.sha256
        except OSError:
            return False

    def _certified(self, sid: str) -> bool:
        return self._layout.manifest(sid).is_file()

    def _path(self, row: _Row) -> Path:
        return self._layout.segment(row.sid, row.name)

    def _where(self, row: _Row) -> str:
        return f"segments/{row.sid}/{row.name}"

    @staticmethod
    def _files(folder: Path) -> Iterator[Path]:
        return (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
