"""A copy of a database before something changes it for good: durable before it has its name, never overwritten.

Taken by the database's one writer. It is one file without a log; its content is that of the last commit.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from appliance.errors import NoSpace, StoreFailed
from appliance.store.durable import OPERATING_SYSTEM, TEMPORARY_SUFFIX, FileOps, fsync_dir, store_failure

# What a migration may write beside the copy is at most the database again, in its log; with a little for both files.
_FIXED_BYTES = 1 << 20


def back_up(
    connection: sqlite3.Connection, path: Path, label: str, file_ops: FileOps = OPERATING_SYSTEM
) -> Path:
    """Copy the open database `path` to <name>.<label>; returns where it stands.

    One that is there already with the same content is kept as it is; one with another content stays too, and this one
    gets a number. NoSpace, before anything is written, unless copy and change fit; StoreFailed if the disk refuses.
    """
    _require_room(connection, path, file_ops)
    temporary = path.with_name(f"{path.name}.{label}{TEMPORARY_SUFFIX}")
    try:
        file_ops.unlink(temporary)  # one that a crash left
        _copy(connection, temporary)
        target = _free_name(path.with_name(f"{path.name}.{label}"), _sha256(temporary))
        if target.exists():
            return target
        fd = os.open(temporary, os.O_WRONLY | os.O_CLOEXEC)
        try:
            file_ops.fsync(fd)
        finally:
            file_ops.close(fd)
        file_ops.rename(temporary, target)
        fsync_dir(path.parent, file_ops)
    except StoreFailed:
        raise
    except (OSError, sqlite3.Error) as error:
        raise store_failure(f"cannot back up {path.name}", error) from error
    finally:
        with suppress(OSError):
            file_ops.unlink(temporary)
    return target


def backups(path: Path) -> list[Path]:
    """Every backup of a database, and what a crash left of one, by name."""
    found = (*path.parent.glob(f"{path.name}.schema-*"), *path.parent.glob(f"{path.name}.before-*"))
    return sorted(found)


def remove_backups_of(path: Path, table: str, sid: str, file_ops: FileOps) -> None:
    """Remove each backup of the database `path` that holds the session in `table`, for good: it would keep what the
    database itself forgets. StoreFailed if the disk refuses."""
    try:
        for backup in backups(path):
            if _names_session(backup, table, sid):
                file_ops.unlink(backup)
        fsync_dir(path.parent, file_ops)
    except StoreFailed:
        raise
    except OSError as error:
        raise store_failure(f"cannot remove the backups of session {sid}", error) from error


def _names_session(backup: Path, table: str, sid: str) -> bool:
    """True also when it cannot be read, since nobody could say no."""
    try:
        with closing(sqlite3.connect(backup.resolve().as_uri() + "?mode=ro", uri=True)) as copy:
            return copy.execute(f"SELECT 1 FROM {table} WHERE sid = ?", (sid,)).fetchone() is not None  # noqa: S608 (our own names)
    except sqlite3.Error:
        return True


def _require_room(connection: sqlite3.Connection, path: Path, file_ops: FileOps) -> None:
    try:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        free_bytes = file_ops.free_bytes(path.parent)
    except (OSError, sqlite3.Error) as error:
        raise store_failure(f"cannot back up {path.name}", error) from error
    needed_bytes = 2 * pages * page_bytes + _FIXED_BYTES
    if free_bytes < needed_bytes:
        raise NoSpace(
            f"{needed_bytes - free_bytes} bytes missing to back up {path.name} before it is changed",
            "free space on the disk; nothing was changed",
        )


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    # Made here for its owner and group alone; SQLite keeps the mode of a file that is there.
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        connection.backup(copy)
        copy.execute(
            "PRAGMA journal_mode = DELETE"
        )  # the copied header asks for a log, which a backup has not
        (answer,) = copy.execute("PRAGMA quick_check").fetchone()
    if answer != "ok":
        raise StoreFailed(
            f"{target.name.removesuffix(TEMPORARY_SUFFIX)} would be a backup of a damaged database: {answer}",
            "nothing was changed; invigil store salvage copies what can still be read",
        )


def _free_name(wanted: Path, sha256: str) -> Path:
    """`wanted`, or with a number after the name, where nothing stands or the same content."""
    target, number = wanted, 1
    while target.exists() and _sha256(target) != sha256:
        number += 1
        target = wanted.with_name(f"{wanted.name}.{number}")
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
