"""Start-up recovery: brings index.db and files to one truth after SIGKILL or a power cut. Deletes nothing.

Idempotent: killed half-way, it does the same again. Run by `RecordingStore` in the camera process only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from appliance.clock import Clock, utc_text
from appliance.errors import NoSpace, StoreFailed
from appliance.evf.errors import EvfError
from appliance.evf.reader import ScannedRecord, scan_segment
from appliance.store.database import Transactions
from appliance.store.durable import TEMPORARY_SUFFIX, FileOps, fdatasync, store_failure, write_file_durably
from appliance.store.layout import Layout, parse_wrap_name, segment_name
from appliance.store.quarantine import Quarantine
from appliance.store.reserve import FLOOR_BYTES
from appliance.store.rows import RecordPlace, digest_file, finish_segment, insert_gap, insert_record
from appliance.store.tail import SegmentFound, Tail, is_readable, read_tail, reason_of

# What a gap is about: film. A lost record of another track is a lost leaf, and the film runs on.
_FOOTAGE_TRACK = "video"

# A purge that has begun is finished by the camera process; its missing files are no gaps.
_KEPT = "SELECT sid FROM sessions WHERE local_copy = 'there'"


@dataclass
class RecoveryReport:
    """What start-up found and did. `quarantined`, `missing`, `damaged`: paths relative to the root."""

    adopted_records: int = 0
    adopted_segments: int = 0
    truncated_bytes: int = 0
    interrupted_sessions: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def recover(
    layout: Layout,
    transactions: Transactions,
    file_ops: FileOps,
    clock: Clock,
    make_room: Callable[[int], None] | None = None,
) -> RecoveryReport:
    """Run once before anything is recorded. StoreFailed or NoSpace if the disk refuses a write; what it does not let
    read is set aside. `make_room` is asked for bytes before a copy."""
    work = _Recovery(layout, transactions, file_ops, clock, make_room)
    try:
        work.settle_strangers()
        work.settle_wraps()
        work.settle_open_segments()
        work.settle_finished_segments()
    except StoreFailed:
        raise
    except OSError as error:
        raise store_failure("cannot recover the store", error) from error
    return work.finish()


def missing_cause(name: str) -> str:
    """Cause of a gap over a segment whose file is gone."""
    return f"segment file {name} is missing"


class _Recovery:
    def __init__(
        self,
        layout: Layout,
        transactions: Transactions,
        file_ops: FileOps,
        clock: Clock,
        make_room: Callable[[int], None] | None,
    ) -> None:
        self._layout = layout
        self._transactions = transactions
        self._file_ops = file_ops
        self._clock = clock
        self._make_room = make_room
        self._quarantine = Quarantine(layout, transactions, file_ops, clock)
        self.report = RecoveryReport()

    def settle_strangers(self) -> None:
        """Segment files without a row: adopted if their header says where they belong, else to quarantine."""
        with self._transactions.begin("recovered segments") as connection:
            known = {(sid, name) for sid, name in connection.execute("SELECT sid, name FROM segments")}
            epochs = set(connection.execute("SELECT sid, epoch FROM epochs"))
        for path in sorted(self._layout.segments.glob("*/*")):
            sid, name = path.parent.name, path.name
            if (sid, name) in known or not path.is_file() or path.is_symlink():
                continue
            try:
                with path.open("rb") as stream:
                    scan = scan_segment(stream)
            except (EvfError, OSError) as error:
                self._quarantine.take(path, f"no row, and {reason_of(error)}")
                continue
            header = scan.header
            if (header.sid, header.epoch) not in epochs or header.sid != sid:
                self._quarantine.take(path, "no row, and its header names no epoch of this store")
            elif name != segment_name(header.epoch, header.track, header.seg):
                self._quarantine.take(path, "no row, and its header names another file")
            else:
                with self._transactions.begin(f"recovered segment {name}") as connection:
                    connection.execute(
                        "INSERT INTO segments (sid, epoch, track, cls, seg, name, prefix_bytes, state)"
                        " VALUES (?, ?, ?, ?, ?, ?, ?, 'open')",
                        (sid, header.epoch, header.track, header.cls, header.seg, name, scan.prefix_bytes),
                    )
                self.report.adopted_segments += 1

    def settle_wraps(self) -> None:
        """Wrap files without a row are adopted by their name; a row without a file is marked missing."""
        with self._transactions.begin("recovered wraps") as connection:
            rows = dict(connection.execute("SELECT name, state FROM wraps"))
            going = {
                name
                for (name,) in connection.execute(f"SELECT name FROM wraps WHERE sid NOT IN ({_KEPT})")  # noqa: S608
            }
            epochs = set(connection.execute("SELECT sid, epoch FROM epochs"))
        for path in sorted(self._layout.wraps.iterdir()):
            if path.name in rows or not path.is_file() or path.is_symlink():
                continue
            parts = parse_wrap_name(path.name)
            if parts is None or parts[:2] not in epochs:
                self._quarantine.take(path, "a wrap of no epoch of this store, or one never finished")
                continue
            try:
                digests = digest_file(path, path.stat().st_size)
            except OSError as error:
                self._quarantine.take(path, f"no row, and {reason_of(error)}")
                continue
            with self._transactions.begin(f"recovered wrap {path.name}") as connection:
                connection.execute(
                    "INSERT INTO wraps (sid, epoch, cls, name, size_bytes, sha256, md5, state)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, 'there')",
                    (*parts, path.name, path.stat().st_size, digests.sha256, digests.md5),
                )
        for name, state in rows.items():
            if name not in going and state == "there" and not self._layout.wrap(name).is_file():
                with self._transactions.begin(f"missing wrap {name}") as connection:
                    connection.execute("UPDATE wraps SET state = 'missing' WHERE name = ?", (name,))
                self.report.missing.append(f"wraps/{name}")

    def settle_open_segments(self) -> None:
        """Scan what was growing; adopt the whole records of all tracks in order of time; finish the rows."""
        tails: list[Tail] = []
        for row in self._rows("state = 'open'"):
            path = self._layout.segment(row.sid, row.name)
            if not path.is_file():
                self._mark_missing(row)
            elif (tail := self._examine(row, path)) is not None:
                tails.append(tail)
        # The running maximum keeps each file's own order even if a time in it stepped back.
        order: list[tuple[int, str, int, int, Tail, ScannedRecord]] = []
        for tail in tails:
            reached_90k = 0
            for record in tail.records:
                reached_90k = max(reached_90k, record.time_90k)
                order.append((reached_90k, tail.row.track, tail.row.id, record.index, tail, record))
        order.sort(key=lambda item: item[:4])
        now_mono_ns, now_wall = self._clock.mono_ns(), utc_text(self._clock.wall())
        with self._transactions.begin("recovered records") as connection:
            for *_, tail, record in order:
                insert_record(connection, tail.row.sid, tail.row.id, _place(record), now_mono_ns, now_wall)
            for tail in tails:
                finish_segment(connection, tail.row.id, tail.state, tail.keep_bytes, tail.digests, tail.cause)
                if tail.damaged:
                    self._gap_over_rows(tail.row, tail.keep_bytes, tail.cause)
        self.report.adopted_records += len(order)

    def settle_finished_segments(self) -> None:
        """A finished one without its file is missing. Behind an open-ended segment's size a torn record is cut; the
        file goes to quarantine if more stands there."""
        for row in self._rows("state IN ('closed', 'open_ended')"):
            path = self._layout.segment(row.sid, row.name)
            if not path.is_file():
                self._mark_missing(row)
            elif (
                row.state == "open_ended"
                and row.size_bytes is not None
                and path.stat().st_size > row.size_bytes
            ):
                if self._holds_more(row, path, row.size_bytes):
                    self._set_aside(row, path, row.size_bytes)
                else:
                    self._cut(path, row.size_bytes)

    def finish(self) -> RecoveryReport:
        """Name the sessions that the last life of the process left active."""
        with self._transactions.begin("the sessions") as connection:
            rows = connection.execute(
                "SELECT sid FROM sessions WHERE ended IS NULL ORDER BY number"
            ).fetchall()
        self.report.quarantined = self._quarantine.taken
        self.report.interrupted_sessions = [row[0] for row in rows]
        return self.report

    def _examine(self, row: SegmentFound, path: Path) -> Tail | None:
        """None when not even the header is to be had: then the file goes to quarantine, where a salvage reads on."""
        with self._transactions.begin(f"the rows of {row.name}") as connection:
            known = connection.execute(
                "SELECT r.offset_bytes + r.length_bytes, l.leaf FROM records r JOIN leaves l ON l.sid = ?"
                " AND l.leaf_index = r.leaf_index WHERE r.segment_id = ? ORDER BY r.record_index",
                (row.sid, row.id),
            ).fetchall()
        try:
            tail = read_tail(row, path, known)
        except (EvfError, OSError) as error:
            what = reason_of(error) if isinstance(error, OSError) else "its header is not what was recorded"
            self.report.damaged.append(str(path.relative_to(self._layout.root)))
            self._quarantine.take(path, f"{row.name}: {what}")
            self._mark_missing(row)
            return None
        if tail.damaged:
            self.report.damaged.append(str(path.relative_to(self._layout.root)))
        self._sync(path)
        return tail

    def _holds_more(self, row: SegmentFound, path: Path, size_bytes: int) -> bool:
        """True if behind `size_bytes` stands more than a torn record: acknowledged ones, or nobody can tell what."""
        with self._transactions.begin(f"the rows of {row.name}") as connection:
            (acknowledged,) = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM records WHERE segment_id = ? AND offset_bytes >= ?)",
                (row.id, size_bytes),
            ).fetchone()
        # A second name: an earlier start has begun to set it aside.
        return bool(acknowledged) or path.stat().st_nlink > 1 or not is_readable(path, size_bytes)

    def _set_aside(self, row: SegmentFound, path: Path, size_bytes: int) -> None:
        """The file as found goes to quarantine, its agreed beginning is written anew: neither has to read the rest.

        Room is needed for the beginning alone, a minute of film at most; without it all stays as it is, since a start
        must not fail for it, and a later start tries again.
        """
        needed_bytes = size_bytes + FLOOR_BYTES
        if self._make_room is not None:
            self._make_room(needed_bytes)
        if self._file_ops.free_bytes(path.parent) < needed_bytes:
            return
        try:
            with path.open("rb") as stream:
                beginning = stream.read(size_bytes)
        except OSError:  # by now that has gone as well
            return
        self._quarantine.link(path, row.cause)
        try:
            write_file_durably(path, beginning, self._file_ops)
        except NoSpace:
            self._file_ops.unlink(path.with_name(path.name + TEMPORARY_SUFFIX))

    def _cut(self, path: Path, keep_bytes: int) -> None:
        self.report.truncated_bytes += path.stat().st_size - keep_bytes
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            self._file_ops.truncate(fd, keep_bytes)
            self._file_ops.fsync(fd)
        finally:
            self._file_ops.close(fd)

    def _sync(self, path: Path) -> None:
        # An adopted record may so far stand in memory alone, if the process died between write and sync.
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            fdatasync(fd, self._file_ops)
        finally:
            self._file_ops.close(fd)

    def _mark_missing(self, row: SegmentFound) -> None:
        cause = missing_cause(row.name)
        with self._transactions.begin(cause) as connection:
            self._gap_over_rows(row, 0, cause)
            connection.execute(
                "UPDATE segments SET state = 'missing', cause = ? WHERE id = ?", (cause, row.id)
            )
        self.report.missing.append(f"segments/{row.sid}/{row.name}")

    def _gap_over_rows(self, row: SegmentFound, from_bytes: int, cause: str) -> None:
        with self._transactions.begin(cause) as connection:
            start_90k, end_90k = connection.execute(
                "SELECT MIN(time_90k), MAX(end_90k) FROM records WHERE segment_id = ? AND offset_bytes >= ?",
                (row.id, from_bytes),
            ).fetchone()
            if start_90k is not None and row.track == _FOOTAGE_TRACK:
                insert_gap(connection, row.sid, start_90k, end_90k, cause)

    def _rows(self, where: str) -> list[SegmentFound]:
        with self._transactions.begin("the segments") as connection:
            found = connection.execute(
                "SELECT id, sid, name, track, state, prefix_bytes, size_bytes, cause"  # noqa: S608 (`where` is ours)
                f" FROM segments WHERE {where} AND sid IN ({_KEPT}) ORDER BY id"
            ).fetchall()
        return [SegmentFound(*values) for values in found]


def _place(record: ScannedRecord) -> RecordPlace:
    # Where the footage of an adopted record ends is unknown without its key: its own time is what is sure.
    return RecordPlace(
        record.index,
        record.kind,
        record.key_frame,
        record.time_90k,
        record.time_90k,
        record.offset_bytes,
        record.length_bytes,
        record.leaf,
    )
