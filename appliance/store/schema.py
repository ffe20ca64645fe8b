"""Tables of index.db: what was recorded. Pseudonyms, places, sizes, times; nothing that was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database

# `segments.size_bytes` and the digests stand only in rows that are no longer open: while a segment grows, its
# size is where its last acknowledged record ends; a second row changed for each record would cost more.
_FIRST = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY,
    sid TEXT NOT NULL UNIQUE,
    candidate_code TEXT NOT NULL,
    exam TEXT NOT NULL,
    institution TEXT NOT NULL,
    policy_id TEXT NOT NULL,
    policy_version INTEGER NOT NULL,
    retain_until TEXT NOT NULL,
    started TEXT NOT NULL,
    started_mono_ns INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    room TEXT NOT NULL,
    desk TEXT NOT NULL,
    recipient_set_version INTEGER NOT NULL,
    ended TEXT
) STRICT;
CREATE TABLE epochs (
    sid TEXT NOT NULL REFERENCES sessions (sid),
    epoch INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    started TEXT NOT NULL,
    started_mono_ns INTEGER NOT NULL,
    PRIMARY KEY (sid, epoch)
) STRICT;
CREATE TABLE wraps (
    sid TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    cls TEXT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    size_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    md5 TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('there', 'missing')),
    PRIMARY KEY (sid, epoch, cls),
    FOREIGN KEY (sid, epoch) REFERENCES epochs (sid, epoch)
) STRICT;
CREATE TABLE segments (
    id INTEGER PRIMARY KEY,
    sid TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    track TEXT NOT NULL,
    cls TEXT NOT NULL,
    seg INTEGER NOT NULL,
    name TEXT NOT NULL,
    prefix_bytes INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'closed', 'open_ended', 'missing')),
    size_bytes INTEGER,
    sha256 TEXT,
    md5 TEXT,
    cause TEXT NOT NULL DEFAULT '',
    UNIQUE (sid, name),
    FOREIGN KEY (sid, epoch) REFERENCES epochs (sid, epoch),
    CHECK (state IN ('open', 'missing') OR (size_bytes + length(sha256) + length(md5)) IS NOT NULL)
) STRICT;
CREATE TABLE records (
    segment_id INTEGER NOT NULL REFERENCES segments (id),
    record_index INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    key_frame INTEGER NOT NULL,
    time_90k INTEGER NOT NULL,
    end_90k INTEGER NOT NULL,
    offset_bytes INTEGER NOT NULL,
    length_bytes INTEGER NOT NULL,
    leaf_index INTEGER NOT NULL,
    durable_mono_ns INTEGER NOT NULL,
    durable_wall TEXT NOT NULL,
    PRIMARY KEY (segment_id, record_index)
) STRICT, WITHOUT ROWID;
CREATE TABLE leaves (
    sid TEXT NOT NULL REFERENCES sessions (sid),
    leaf_index INTEGER NOT NULL,
    leaf BLOB NOT NULL CHECK (length(leaf) = 32),
    segment_id INTEGER,
    record_index INTEGER,
    PRIMARY KEY (sid, leaf_index)
) STRICT, WITHOUT ROWID;
CREATE TABLE events (
    sid TEXT NOT NULL REFERENCES sessions (sid),
    leaf_index INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (sid, leaf_index)
) STRICT, WITHOUT ROWID;
CREATE TABLE gaps (
    id INTEGER PRIMARY KEY,
    sid TEXT NOT NULL REFERENCES sessions (sid),
    start_90k INTEGER NOT NULL,
    end_90k INTEGER NOT NULL,
    cause TEXT NOT NULL
) STRICT;
CREATE TABLE quarantine (
    stored_as TEXT PRIMARY KEY,
    original TEXT NOT NULL,
    reason TEXT NOT NULL,
    moved TEXT NOT NULL
) STRICT;
CREATE INDEX segments_open ON segments (state) WHERE state = 'open';
"""


def run_statements(database: Database, script: str) -> None:
    """Each statement alone, since executescript would commit the migration's transaction half-way."""
    for statement in script.split(";\n"):
        if statement.strip():
            database.execute(statement)


def _first(database: Database) -> None:
    run_statements(database, _FIRST)


# `local_copy`: there, purging (a purge has begun and must be finished) or purged (this row alone remains).
_PURGE = """
ALTER TABLE sessions ADD COLUMN local_copy TEXT NOT NULL DEFAULT 'there'
    CHECK (local_copy IN ('there', 'purging', 'purged'));
ALTER TABLE sessions ADD COLUMN purge_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN purged TEXT
"""


def _purge(database: Database) -> None:
    run_statements(database, _PURGE)


INDEX_STEPS = (_first, _purge)
