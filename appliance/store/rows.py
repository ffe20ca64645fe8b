"""Rows of index.db as values, and the few statements that the recording path and recovery share."""

from __future__ import annotations

import base64
import hashlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

_CHUNK_BYTES = 1 << 20
FRAGMENT = 2  # RecordKind.FRAGMENT as it stands in the rows


@dataclass(frozen=True)
class NewSession:
    """What is known when recording begins. 90 kHz times count from `started` (UTC text)."""

    sid: str
    candidate_code: str
    exam: str
    institution: str
    policy_id: str
    policy_version: int
    retain_until: str
    started: str
    started_mono_ns: int
    boot_id: str
    room: str
    desk: str
    recipient_set_version: int


@dataclass(frozen=True)
class SessionRow(NewSession):
    """`ended` is None while it records; `epoch` is the newest one, None before the first.

    `local_copy` is there, purging or purged; `purge_reason` why it goes, in words.
    """

    ended: str | None
    epoch: int | None
    local_copy: str = "there"
    purge_reason: str = ""


class LeafRun(NamedTuple):
    """`length` leaves from `first` on, in one piece of the session's sequence."""

    first: int
    length: int


@dataclass(frozen=True)
class SegmentRow:
    """One segment file; `state` is open, closed, open_ended or missing.

    Times: 90 kHz from the session's start, None without records. `size_bytes` counts acknowledged bytes.
    `sha256` is hex, `md5` base64 as Content-MD5 wants it, both None while open. `leaf_runs`: where its
    records, in order, stand among the session's leaves.
    """

    name: str
    track: str
    cls: str
    epoch: int
    seg: int
    state: str
    size_bytes: int
    sha256: str | None
    md5: str | None
    records: int
    start_90k: int | None
    end_90k: int | None
    leaf_runs: tuple[LeafRun, ...]
    cause: str


@dataclass(frozen=True)
class WrapRow:
    """One wrap file; `state` is there or missing. Digests as in SegmentRow."""

    name: str
    epoch: int
    cls: str
    size_bytes: int
    sha256: str
    md5: str
    state: str


@dataclass(frozen=True)
class EventRow:
    """An event leaf: SHA256(0x00 || canonical(body))."""

    leaf_index: int
    body: dict[str, Any]


@dataclass(frozen=True)
class GapRow:
    """A span without footage, 90 kHz from the session's start, with its cause in words."""

    start_90k: int
    end_90k: int
    cause: str


class LostRow(NamedTuple):
    """A committed record whose bytes are gone: its leaf, the file that held it, when its footage began, and why."""

    leaf_index: int
    leaf: bytes
    name: str
    time_90k: int
    cause: str


class NewestFragment(NamedTuple):
    """The newest durable fragment: its end, and when it became durable on both clocks (wall: UTC text)."""

    time_90k_end: int
    durable_mono_ns: int
    wall: str


class Totals(NamedTuple):
    """Acknowledged fragments and bytes of one session."""

    fragments: int
    bytes: int


class RecordPlace(NamedTuple):
    """One record as the index keeps it."""

    record_index: int
    kind: int
    key_frame: bool
    time_90k: int
    end_90k: int
    offset_bytes: int
    length_bytes: int
    leaf: bytes


class Digests:
    """SHA-256 and MD5 side by side, fed as a file grows. MD5 only because storage asks for Content-MD5."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._sha256.update(data)
        self._md5.update(data)

    def copy(self) -> Digests:
        """The same state, to go on separately."""
        twin = Digests()
        twin._sha256, twin._md5 = self._sha256.copy(), self._md5.copy()
        return twin

    @property
    def sha256(self) -> str:
        """Hex."""
        return self._sha256.hexdigest()

    @property
    def md5(self) -> str:
        """Base64, as in Content-MD5."""
        return base64.b64encode(self._md5.digest()).decode("ascii")


def digest_file(path: Path, size_bytes: int) -> Digests:
    """Of the first `size_bytes` of a file, or of all of a shorter one."""
    digests = Digests()
    left = size_bytes
    with path.open("rb") as stream:
        while left and (chunk := stream.read(min(left, _CHUNK_BYTES))):
            digests.update(chunk)
            left -= len(chunk)
    return digests


def insert_leaf(
    connection: sqlite3.Connection, sid: str, leaf: bytes, segment_id: int | None, record_index: int | None
) -> int:
    """Append to the session's one sequence of leaves and return the place, from 0."""
    (leaf_index,) = connection.execute(
        "SELECT COALESCE(MAX(leaf_index) + 1, 0) FROM leaves WHERE sid = ?", (sid,)
    ).fetchone()
    connection.execute(
        "INSERT INTO leaves (sid, leaf_index, leaf, segment_id, record_index) VALUES (?, ?, ?, ?, ?)",
        (sid, leaf_index, leaf, segment_id, record_index),
    )
    return int(leaf_index)


def insert_record(
    connection: sqlite3.Connection,
    sid: str,
    segment_id: int,
    place: RecordPlace,
    durable_mono_ns: int,
    durable_wall: str,
) -> int:
    """Record row and leaf row; returns the leaf's place."""
    leaf_index = insert_leaf(connection, sid, place.leaf, segment_id, place.record_index)
    connection.execute(
        "INSERT INTO records (segment_id, record_index, kind, key_frame, time_90k, end_90k, offset_bytes,"
        " length_bytes, leaf_index, durable_mono_ns, durable_wall) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            segment_id,
            place.record_index,
            int(place.kind),
            int(place.key_frame),
            place.time_90k,
            place.end_90k,
            place.offset_bytes,
            place.length_bytes,
            leaf_index,
            durable_mono_ns,
            durable_wall,
        ),
    )
    return leaf_index


def finish_segment(
    connection: sqlite3.Connection, segment_id: int, state: str, size_bytes: int, digests: Digests, cause: str
) -> None:
    """The row's last word on a segment: closed or open_ended, with size and digests."""
    connection.execute(
        "UPDATE segments SET state = ?, size_bytes = ?, sha256 = ?, md5 = ?, cause = ? WHERE id = ?",
        (state, size_bytes, digests.sha256, digests.md5, cause, segment_id),
    )


def insert_gap(connection: sqlite3.Connection, sid: str, start_90k: int, end_90k: int, cause: str) -> None:
    """A span without footage."""
    connection.execute(
        "INSERT INTO gaps (sid, start_90k, end_90k, cause) VALUES (?, ?, ?, ?)",
        (sid, start_90k, end_90k, cause),
    )


def read_session(connection: sqlite3.Connection, where: str, *values: object) -> list[SessionRow]:
    """Sessions that match a fixed SQL condition on `s`, oldest first."""
    rows = connection.execute(
        "SELECT s.sid, s.candidate_code, s.exam, s.institution,"  # noqa: S608 (`where` is ours)
        " s.policy_id, s.policy_version, s.retain_until, s.started,"
        " s.started_mono_ns, s.boot_id, s.room, s.desk, s.recipient_set_version, s.ended,"
        " (SELECT MAX(e.epoch) FROM epochs e WHERE e.sid = s.sid), s.local_copy, s.purge_reason"
        f" FROM sessions s WHERE {where} ORDER BY s.number",
        values,
    )
    return [SessionRow(*row) for row in rows]
