"""`invigil store check`: every row against its file, every file against its row. Changes nothing.

Meant for a node that is not recording; during an exam a file just created may be named as one without a row.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.errors import StoreFailed
from appliance.evf.errors import EvfError
from appliance.evf.reader import scan_segment
from appliance.store.database import connect_reader, schema_version
from appliance.store.layout import Layout, read_uuid
from appliance.store.ledger import LEDGER_STEPS
from appliance.store.rows import Digests, digest_file
from appliance.store.schema import INDEX_STEPS
from appliance.store.tail import reason_of


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be; `where` is a path under the root or a session.

    `set_aside`: it stands in the quarantine, with its row; a person has to look, and nothing is to be mended.
    """

    where: str
    what: str
    set_aside: bool = False


def check_store(root: Path) -> list[Problem]:
    """Everything that is wrong with the store, in a stable order; empty when all is well."""
    layout = Layout(root)
    problems = list(_check_ledger(layout))
    if not layout.index_db.exists():
        if layout.uuid_file.exists() or layout.holds_files():
            problems.append(Problem("index.db", "is missing, but there are files"))
        return problems
    try:
        connection = connect_reader(layout.index_db, len(INDEX_STEPS))
    except StoreFailed as error:
        return [*problems, Problem("index.db", str(error))]
    try:
        # One read transaction: rows that the camera process adds meanwhile do not confuse the comparison.
        connection.execute("BEGIN")
        broken = list(_check_database(connection, "index.db"))
        problems += broken
        if not broken:
            problems += _check_uuid(layout, connection)
            problems += _check_segments(layout, connection)
            problems += _check_wraps(layout, connection)
            problems += _check_receipts(layout, connection)
            problems += _check_leaves(connection)
            problems += _check_quarantine(layout, connection)
    except (sqlite3.Error, OSError) as error:
        problems.append(Problem(str(root), f"cannot be read: {error}"))
    finally:
        connection.close()
    return problems


def _check_ledger(layout: Layout) -> Iterator[Problem]:
    if not layout.ledger_db.exists():
        return
    try:
        connection = connect_reader(layout.ledger_db, len(LEDGER_STEPS))
    except StoreFailed as error:
        yield Problem("ledger.db", str(error))
        return
    try:
        yield from _check_database(connection, "ledger.db")
        row = connection.execute("SELECT value FROM kv WHERE key = 'store_uuid'").fetchone()
        if row and row[0] != read_uuid(layout):
            yield Problem("ledger.db", "belongs to another store")
    except sqlite3.Error as error:
        yield Problem("ledger.db", f"cannot be read: {error}")
    finally:
        connection.close()


def _check_database(connection: sqlite3.Connection, name: str) -> Iterator[Problem]:
    for (answer,) in connection.execute("PRAGMA integrity_check"):
        if answer != "ok":
            yield Problem(name, str(answer))


def _check_uuid(layout: Layout, connection: sqlite3.Connection) -> Iterator[Problem]:
    row = connection.execute("SELECT value FROM meta WHERE key = 'store_uuid'").fetchone()
    if row is None or row[0] != read_uuid(layout):
        yield Problem("store.uuid", "is not the one in index.db: files and database do not belong together")


def _check_segments(layout: Layout, connection: sqlite3.Connection) -> Iterator[Problem]:
    rows = connection.execute(
        "SELECT id, sid, name, state, prefix_bytes, size_bytes, sha256, md5 FROM segments ORDER BY id"
    ).fetchall()
    known = {(sid, name) for _, sid, name, *_ in rows}
    going = _going(connection)
    for segment_id, sid, name, state, prefix_bytes, size_bytes, sha256, md5 in rows:
        records = connection.execute(
            "SELECT r.record_index, r.offset_bytes, r.length_bytes, r.time_90k,"
            " l.leaf, l.segment_id, l.record_index"
            " FROM records r LEFT JOIN leaves l ON l.sid = ? AND l.leaf_index = r.leaf_index"
            " WHERE r.segment_id = ? ORDER BY r.record_index",
            (sid, segment_id),
        ).fetchall()
        where = f"segments/{sid}/{name}"
        path = layout.segment(sid, name)
        if sid in going:
            continue
        if not path.is_file():
            yield Problem(where, "is missing")
        elif state == "missing":
            yield Problem(where, "was missing at a start and is back")
        else:
            try:
                for what in _check_segment(
                    path, segment_id, state, prefix_bytes, size_bytes, (sha256, md5), records
                ):
                    yield Problem(where, what)
            except OSError as error:
                yield Problem(where, reason_of(error))
    for path in sorted(layout.segments.rglob("*")):
        if not path.is_dir() and (path.parent.name, path.name) not in known:
            yield Problem(str(path.relative_to(layout.root)), "has no row in index.db")


def _check_segment(
    path: Path,
    segment_id: int,
    state: str,
    prefix_bytes: int,
    size_bytes: int | None,
    wanted: tuple[str | None, str | None],
    records: list[Any],
) -> Iterator[str]:
    on_disk_bytes = path.stat().st_size
    acknowledged_bytes = size_bytes if size_bytes is not None else _end_of(records, prefix_bytes)
    if on_disk_bytes < acknowledged_bytes or (state != "open" and on_disk_bytes > acknowledged_bytes):
        yield f"holds {on_disk_bytes} bytes where the row says {acknowledged_bytes}"
    if size_bytes is not None:
        digests = digest_file(path, size_bytes)
        if (digests.sha256, digests.md5) != wanted:
            yield "is not the file that was recorded: its digest differs"
    try:
        with path.open("rb") as stream:
            scan = scan_segment(stream)
    except EvfError as error:
        yield f"has no readable header: {error}"
        return
    if scan.prefix_bytes != prefix_bytes:
        yield f"has a header of {scan.prefix_bytes} bytes where the row says {prefix_bytes}"
    on_disk = [
        record for record in scan.records if record.offset_bytes + record.length_bytes <= acknowledged_bytes
    ]
    if len(on_disk) != len(records):
        yield f"holds {len(on_disk)} whole records where the rows say {len(records)}"
    if state == "closed" and not scan.ended:
        yield f"is closed in its row, but {scan.reason}"
    found = {record.index: record for record in on_disk}
    for index, offset_bytes, length_bytes, time_90k, leaf, leaf_segment_id, leaf_record in records:
        record = found.get(index)
        if leaf is None or (leaf_segment_id, leaf_record) != (segment_id, index):
            yield f"record {index} has no leaf of its own"
        elif record is not None and record.leaf != leaf:
            yield f"record {index} is not what was recorded: its leaf differs"
        if record is not None and (record.offset_bytes, record.length_bytes, record.time_90k) != (
            offset_bytes,
            length_bytes,
            time_90k,
        ):
            yield f"record {index} stands elsewhere than its row says"


def _end_of(records: list[Any], prefix_bytes: int) -> int:
    return int(records[-1][1] + records[-1][2]) if records else prefix_bytes


def _check_wraps(layout: Layout, connection: sqlite3.Connection) -> Iterator[Problem]:
    rows = connection.execute(
        "SELECT name, sid, size_bytes, sha256, md5, state FROM wraps ORDER BY name"
    ).fetchall()
    going = _going(connection)
    for name, sid, size_bytes, sha256, md5, state in rows:
        if sid in going:
            continue
        path = layout.wrap(name)
        if not path.is_file():
            yield Problem(
                f"wraps/{name}", "is missing: without it the segments of its epoch cannot be opened"
            )
            continue
        try:
            data = path.read_bytes()
        except OSError as error:
            yield Problem(f"wraps/{name}", reason_of(error))
            continue
        digests = Digests()
        digests.update(data)
        if (len(data), digests.sha256, digests.md5) != (size_bytes, sha256, md5):
            yield Problem(f"wraps/{name}", "is not the file that was written: its digest differs")
        elif state == "missing":
            yield Problem(f"wraps/{name}", "was missing at a start and is back")
    known = {row[0] for row in rows}
    for path in sorted(layout.wraps.rglob("*")):
        if not path.is_dir() and path.name not in known:
            yield Problem(str(path.relative_to(layout.root)), "has no row in index.db")


def _going(connection: sqlite3.Connection) -> set[str]:
    """Sessions whose purge has begun: their files may be gone, the camera process goes on with it."""
    if schema_version(connection) < len(INDEX_STEPS):
        return set()
    return {row[0] for row in connection.execute("SELECT sid FROM sessions WHERE local_copy = 'purging'")}


def _check_receipts(layout: Layout, connection: sqlite3.Connection) -> Iterator[Problem]:
    if schema_version(connection) < len(INDEX_STEPS):
        return
    for (sid,) in connection.execute("SELECT sid FROM sessions WHERE local_copy = 'purged' ORDER BY number"):
        if not layout.receipt(sid).is_file():
            yield Problem(f"session {sid}", "was purged, but its receipt is missing")


def _check_leaves(connection: sqlite3.Connection) -> Iterator[Problem]:
    for sid, count, newest in connection.execute(
        "SELECT sid, COUNT(*), MAX(leaf_index) FROM leaves GROUP BY sid ORDER BY sid"
    ).fetchall():
        if newest + 1 != count:
            yield Problem(f"session {sid}", f"has {count} leaves, but they are numbered up to {newest}")
    for sid, leaf_index in connection.execute(
        "SELECT l.sid, l.leaf_index FROM leaves l"
        " LEFT JOIN records r ON r.segment_id = l.segment_id AND r.record_index = l.record_index"
        " LEFT JOIN events e ON e.sid = l.sid AND e.leaf_index = l.leaf_index"
        " WHERE r.leaf_index IS NOT l.leaf_index AND e.leaf_index IS NULL"
    ).fetchall():
        yield Problem(f"session {sid}", f"leaf {leaf_index} belongs to no record and no event")
    for sid, leaf_index, body, leaf in connection.execute(
        "SELECT e.sid, e.leaf_index, e.body, l.leaf FROM events e"
        " LEFT JOIN leaves l ON l.sid = e.sid AND l.leaf_index = e.leaf_index"
    ).fetchall():
        if leaf != hashlib.sha256(b"\0" + body.encode("ascii")).digest():
            yield Problem(f"session {sid}", f"event at leaf {leaf_index} is not what was recorded")


def _check_quarantine(layout: Layout, connection: sqlite3.Connection) -> Iterator[Problem]:
    rows = connection.execute(
        "SELECT stored_as, original, reason FROM quarantine ORDER BY stored_as"
    ).fetchall()
    for stored_as, original, reason in rows:
        there = os.path.lexists(layout.quarantine / stored_as)
        yield Problem(
            f"quarantine/{stored_as}", f"was {original}: {reason}" if there else "is missing", set_aside=there
        )
    known = {row[0] for row in rows}
    for path in sorted(layout.quarantine.iterdir()):
        if path.name not in known:
            yield Problem(f"quarantine/{path.name}", "has no row in index.db")
