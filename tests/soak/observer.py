"""Who watches a desk from outside: notes each record as soon as its row says that it is durable, with its bytes' hash.

Reads index.db and the segment files with nothing of the product's: what it noted must be there at the end.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

POLL_S = 0.3
FRAGMENT, END = 2, 0xFF  # FORMAT.md, record types


class Place(NamedTuple):
    """Where a record stands."""

    segment: str
    record: int


class Noted(NamedTuple):
    """What the desk acknowledged: kind, time and length of its row; `sha256` of the sealed bytes in the file."""

    kind: int
    time_90k: int
    length_bytes: int
    sha256: bytes


@dataclass
class Acknowledged:
    """One session as the observer saw it grow."""

    desk: str
    sid: str
    records: dict[Place, Noted] = field(default_factory=dict)
    last_leaf: int = -1
    local_copy: str = "there"
    problems: list[str] = field(default_factory=list)

    @property
    def fragments(self) -> int:
        """Fragments among the records."""
        return sum(noted.kind == FRAGMENT for noted in self.records.values())


class Observer(threading.Thread):
    """One desk. `sessions` only grows; `forget` empties what was accounted for."""

    def __init__(self, desk: str, store: Path) -> None:
        super().__init__(daemon=True, name=f"observe-{desk}")
        self.desk = desk
        self.sessions: dict[str, Acknowledged] = {}
        self.fragments = 0
        self.busy = 0
        self._store = store
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(POLL_S):
            self.look()

    def stop(self) -> None:
        """Look a last time."""
        self._stopping.set()
        self.join()
        self.look()

    def forget(self, sid: str) -> None:
        """Its records were all found."""
        self.sessions[sid].records = {}

    def look(self) -> None:
        """Take over every row that was not there before."""
        index = self._store / "index.db"
        try:
            with closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True, timeout=1)) as connection:
                self._take(connection)
        except sqlite3.OperationalError:
            # Not made yet, or locked by a recovery: the rows are still there the next time.
            self.busy += 1

    def _take(self, connection: sqlite3.Connection) -> None:
        copies = connection.execute("SELECT sid, local_copy FROM sessions ORDER BY number").fetchall()
        for sid, local_copy in copies:
            session = self.sessions.setdefault(sid, Acknowledged(self.desk, sid))
            if session.local_copy == "there" and local_copy == "there":
                self._read(connection, session)
            session.local_copy = local_copy

    def _read(self, connection: sqlite3.Connection, session: Acknowledged) -> None:
        rows = connection.execute(
            "SELECT r.leaf_index, s.name, r.record_index, r.kind, r.time_90k, r.offset_bytes, r.length_bytes"
            " FROM segments s JOIN records r ON r.segment_id = s.id"
            " WHERE s.sid = ? AND r.leaf_index > ? ORDER BY r.leaf_index",
            (session.sid, session.last_leaf),
        ).fetchall()
        for leaf, name, index, kind, time_90k, offset, length in rows:
            session.last_leaf = leaf
            if kind == END:
                continue
            path = self._store / "segments" / session.sid / name
            try:
                with path.open("rb") as segment:
                    segment.seek(offset)
                    data = segment.read(length)
            except OSError as error:
                data = b""
                session.problems.append(f"{name} record {index} is acknowledged, but {error.strerror}")
            session.records[Place(name, index)] = Noted(kind, time_90k, length, hashlib.sha256(data).digest())
            self.fragments += kind == FRAGMENT
