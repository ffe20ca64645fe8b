"""SQLite as the store uses it: WAL, synchronous=FULL, one writer connection a file, readers that never write.

The writer holds a lock file: a second process stops here rather than repair what the first still writes.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.errors import StoreFailed
from appliance.store.backup import back_up
from appliance.store.durable import OPERATING_SYSTEM, FileOps, fsync_dir, store_failure

if TYPE_CHECKING:
    from sqlite_utils import Database

_BUSY_S = 5.0
CHECK_HINT = "run invigil store check; nothing was changed or deleted"


class WriterConnection(sqlite3.Connection):
    """The one writing connection of a database file; closing it gives the lock back."""

    lock_fd: int | None = None
    path: Path

    def close(self) -> None:
        """Close and unlock; may be called twice."""
        if self.lock_fd is None:
            super().close()
            return
        # The last connection to close would delete the log, without which a reader under another user, who may not
        # create it, cannot open the database. A reader that closes last leaves it, here emptied.
        with suppress(sqlite3.Error), closing(_open_read_only(self.path)) as last:
            last.execute("PRAGMA user_version").fetchone()
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            super().close()
        super().close()
        os.close(self.lock_fd)
        self.lock_fd = None


def connect_writer(path: Path) -> WriterConnection:
    """Open or create `path` for writing. StoreFailed if another process writes it or it is no database.

    Usable from any thread; `Transactions` keeps them apart. Transactions are explicit (isolation_level None).
    """
    lock_fd = _lock(path)
    try:
        connection = sqlite3.connect(
            path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, factory=WriterConnection
        )
    except sqlite3.Error as error:
        os.close(lock_fd)
        raise store_failure(f"cannot open {path.name}", error) from error
    connection.lock_fd, connection.path = lock_fd, path
    try:
        # SQLite gives -wal and -shm the database's own mode: whichever process makes them, its group can use them.
        path.chmod(0o660)
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreFailed(f"{path.name} cannot use a write-ahead log", "keep the store on a local disk")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what is removed is not left in a free page
    except (sqlite3.Error, OSError) as error:
        connection.close()
        raise store_failure(f"cannot open {path.name}", error) from error
    except StoreFailed:
        connection.close()
        raise
    return connection


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Keep every writer of `path` away without opening it; StoreFailed if there is one."""
    fd = _lock(path)
    try:
        yield
    finally:
        os.close(fd)


def connect_reader(path: Path, newest_schema: int) -> sqlite3.Connection:
    """Open an existing database: never checkpoints, never writes. StoreFailed if its schema is newer."""
    try:
        connection = _open_read_only(path)
    except sqlite3.Error as error:
        raise store_failure(f"cannot read {path.name}", error) from error
    try:
        connection.execute("PRAGMA query_only = ON")
        _require_known(path, schema_version(connection), newest_schema)
    except sqlite3.Error as error:
        connection.close()
        raise store_failure(f"cannot read {path.name}", error) from error
    except StoreFailed:
        connection.close()
        raise
    return connection


def schema_version(connection: sqlite3.Connection) -> int:
    """PRAGMA user_version; 0 before the first migration."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def connect_settled(path: Path, newest_schema: int, *, used: bool) -> sqlite3.Connection | None:
    """A reader's connection to a database that another process writes; None while that one is only making it.

    `used`: the store has been in use. Then a database without tables, or one whose making a crash cut in half
    (SQLITE_READONLY_ROLLBACK, SQLITE_CANTOPEN), is none that holds nothing: StoreFailed, as for a schema that its
    writer has yet to bring forward.
    """
    if not path.exists():
        return None
    try:
        connection = connect_reader(path, newest_schema)
    except StoreFailed as error:
        if used or not _being_made(error):
            raise
        return None
    try:
        version = schema_version(connection)
    except sqlite3.Error as error:
        connection.close()
        raise store_failure(f"cannot read {path.name}", error) from error
    if version == newest_schema:
        return connection
    connection.close()
    if not used:
        return None
    if version == 0:
        raise StoreFailed(f"{path.name} holds no tables, not yet or no longer", CHECK_HINT)
    raise StoreFailed(
        f"{path.name} has schema {version}, and its process has not yet brought it to {newest_schema}",
        "start that process; it does so first of all",
    )


def _being_made(error: StoreFailed) -> bool:
    """True for what a reader meets while a new database's first pages are written, or after a crash in it."""
    code = getattr(error.__cause__, "sqlite_errorcode", None)
    return code in (sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY)


def migrate(
    path: Path, steps: Sequence[Callable[[Database], None]], file_ops: FileOps = OPERATING_SYSTEM
) -> None:
    """Bring `path` forward to version len(steps), a transaction a step. StoreFailed if it is newer.

    Before each step the database as it stands is kept as <name>.schema-<version>; a new one has nothing to keep.
    """
    connection = connect_writer(path)
    try:
        version = schema_version(connection)
        _require_known(path, version, len(steps))
        if version == len(steps):
            return
        # Imported only when a migration is due: a restart in an exam must not wait for it.
        from sqlite_utils import Database

        database = Database(connection)
        for number, step in enumerate(steps[version:], start=version + 1):
            if version:
                back_up(connection, path, f"schema-{number - 1}", file_ops)
            with database.atomic():
                step(database)
                database.execute(f"PRAGMA user_version = {number}")
        fsync_dir(path.parent, file_ops)
    except StoreFailed:
        raise
    except (sqlite3.Error, OSError) as error:
        raise store_failure(f"cannot bring {path.name} to schema {len(steps)}", error) from error
    finally:
        connection.close()


class Transactions:
    """BEGIN IMMEDIATE … COMMIT on one connection, one thread at a time; nested use joins the outer one."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        file_ops: FileOps = OPERATING_SYSTEM,
        make_room: Callable[[], None] | None = None,
    ) -> None:
        """`make_room` is called before each transaction."""
        self._connection = connection
        self._file_ops = file_ops
        self._make_room = make_room
        self._turn = threading.RLock()
        self._depth = 0

    @contextmanager
    def begin(self, doing: str) -> Iterator[sqlite3.Connection]:
        """All or nothing: any exception rolls back. StoreFailed or NoSpace for what the database refuses."""
        with self._turn:
            if self._depth:
                yield self._connection
                return
            self._depth = 1
            try:
                if self._make_room is not None:
                    self._make_room()
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._file_ops.commit(self._connection)
            except sqlite3.Error as error:
                raise store_failure(f"cannot record {doing}", error) from error
            finally:
                self._roll_back()
                self._depth = 0

    def empty_log(self) -> None:
        """Leave nothing of what was removed in the write-ahead log either, unless a reader still needs it."""
        with self._turn, suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _roll_back(self) -> None:
        """Nothing after a COMMIT."""
        # The error that led here is the one to tell; a rollback refused by a dying disk adds nothing.
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _open_read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path.resolve().as_uri() + "?mode=ro",
        uri=True,
        timeout=_BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )


def _lock(path: Path) -> int:
    lock_path = path.with_name(path.name + ".lock")
    try:
        fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise store_failure(f"cannot lock {path.name}", error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise StoreFailed(
            f"{path.name} is being written by another process",
            "stop the other process; a store has one writer",
        ) from error
    return fd


def _require_known(path: Path, version: int, newest: int) -> None:
    if version > newest:
        raise StoreFailed(
            f"{path.name} has schema {version}, this software knows {newest}",
            "install the newer software again",
        )
