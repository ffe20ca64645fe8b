"""Where everything stands under the store's root, and the UUID that ties files and database together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from appliance.errors import StoreFailed
from appliance.store.database import CHECK_HINT, Transactions
from appliance.store.durable import FileOps, make_dir_durably, store_failure, write_file_durably

_WRAP_NAME = re.compile(r"([0-9a-f]{32})\.(0|[1-9][0-9]*)\.(media|log|identity)\.evk")


@dataclass(frozen=True)
class Layout:
    """Paths of one store."""

    root: Path

    @property
    def index_db(self) -> Path:
        """What was recorded; written by the camera process alone."""
        return self.root / "index.db"

    @property
    def ledger_db(self) -> Path:
        """What the room asked and what was uploaded; written by the sync process alone."""
        return self.root / "ledger.db"

    @property
    def uuid_file(self) -> Path:
        """The store's UUID, equal to the one in index.db."""
        return self.root / "store.uuid"

    @property
    def reserve(self) -> Path:
        """Room held for the active session; holds nothing else."""
        return self.root / "reserve"

    @property
    def segments(self) -> Path:
        """One directory a session."""
        return self.root / "segments"

    @property
    def wraps(self) -> Path:
        """Wrapped epoch keys, apart from the segments."""
        return self.root / "wraps"

    @property
    def manifests(self) -> Path:
        """Signed manifests; written by the sync process."""
        return self.root / "manifests"

    @property
    def quarantine(self) -> Path:
        """Files that belong to nothing known; kept with a reason."""
        return self.root / "quarantine"

    def segment(self, sid: str, name: str) -> Path:
        """Path of one segment file."""
        return self.segments / sid / name

    def wrap(self, name: str) -> Path:
        """Path of one wrap file."""
        return self.wraps / name

    def manifest(self, sid: str) -> Path:
        """Path of a session's signed manifest."""
        return self.manifests / f"{sid}.json"

    def receipt(self, sid: str) -> Path:
        """Path of the signed receipt of a purge; written by the camera process."""
        return self.manifests / f"{sid}.receipt.json"

    def prepare(self, file_ops: FileOps) -> None:
        """Make what directories are missing, durably."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for folder in (self.segments, self.wraps, self.manifests, self.quarantine):
                make_dir_durably(folder, file_ops)
        except OSError as error:
            raise store_failure(f"cannot create the store at {self.root}", error) from error

    def holds_files(self) -> bool:
        """True if any recording, wrap, manifest or quarantined file is there."""
        folders = (self.segments, self.wraps, self.manifests, self.quarantine)
        return any(entry.is_file() for folder in folders for entry in folder.rglob("*"))


def segment_name(epoch: int, track: str, seg: int) -> str:
    """Name of a segment file within its session; also its object's name in the storage."""
    return f"{epoch}-{track}-{seg}.evf"


def parse_wrap_name(name: str) -> tuple[str, int, str] | None:
    """(sid, epoch, class), or None for anything else."""
    found = _WRAP_NAME.fullmatch(name)
    return (found[1], int(found[2]), found[3]) if found else None


def read_uuid(layout: Layout) -> str | None:
    """The UUID beside the files; None if there is none."""
    try:
        return layout.uuid_file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreFailed("store.uuid cannot be read", CHECK_HINT) from error


def require_database(layout: Layout) -> None:
    """Refuse files whose database is gone: an empty new one would make them strangers."""
    if not layout.index_db.exists() and (layout.uuid_file.exists() or layout.holds_files()):
        raise StoreFailed("the store holds files but index.db is missing", CHECK_HINT)


def pair(layout: Layout, transactions: Transactions, file_ops: FileOps) -> str:
    """The UUID that files and index.db share; written when the store is new. StoreFailed on any mismatch.

    Row first, then file: a crash between leaves a row alone in an empty store, which is finished here.
    """
    with transactions.begin("the store's uuid") as connection:
        row = connection.execute("SELECT value FROM meta WHERE key = 'store_uuid'").fetchone()
        in_files, in_database = read_uuid(layout), row[0] if row else None
        if in_files is not None and in_files == in_database:
            return in_files
        used = connection.execute("SELECT EXISTS (SELECT 1 FROM sessions)").fetchone()[0]
        if in_files is not None or used or layout.holds_files():
            raise StoreFailed("the files and index.db do not belong together", CHECK_HINT)
        uuid = in_database or str(uuid4())
        connection.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('store_uuid', ?)", (uuid,))
    write_file_durably(layout.uuid_file, f"{uuid}\n".encode("ascii"), file_ops)
    return uuid
