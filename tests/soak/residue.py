"""What a room leaves behind: files, bytes, logs; and which of it should not be there."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.soak.site import SoakRoom

TRACEBACK = b"Traceback (most recent call last)"
# store.uuid, the reserve, and two databases, each with its log, shared memory, lock and the copy of its older schema.
STORE_FILES = 12
_EVENT = re.compile(rb"^\S+ \S+ (?:WARNING|ERROR|CRITICAL) \S+ ([a-z_.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Residue:
    """Counts at one moment; sizes in bytes."""

    store_files: dict[str, int]
    store_bytes: int
    objects: int
    object_bytes: int
    logs_bytes: dict[str, int]
    broker_bytes: int
    room_db_bytes: int

    @classmethod
    def of(cls, room: SoakRoom) -> Residue:
        """Now."""
        data = room.root / "room" / "data"
        bucket = room.bucket_files()
        stores = [room.store(desk.id) for desk in room.desks]
        return cls(
            {desk.id: len(files_in(room.store(desk.id))) for desk in room.desks},
            sum(size_of(path) for store in stores for path in files_in(store)),
            len(bucket),
            sum(size_of(path) for path in bucket),
            {path.stem: size_of(path) for path in sorted((room.root / "logs").glob("*.log"))},
            sum(size_of(path) for path in files_in(data / "broker")),
            sum(size_of(path) for path in data.glob("room.db*")),
        )


def files_in(folder: Path) -> list[Path]:
    """All files below, also while some of them go."""
    return [path for path in folder.rglob("*") if path.is_file()]


def size_of(path: Path) -> int:
    """0 for one that has just gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def unbounded_files(room: SoakRoom, desk: str) -> list[str]:
    """Why a store holds more than its unpurged sessions need: a purged one leaves its manifest and its receipt."""
    store = room.store(desk)
    with closing(sqlite3.connect(f"file:{store / 'index.db'}?mode=ro", uri=True, timeout=5)) as connection:
        there = {sid for (sid,) in connection.execute("SELECT sid FROM sessions WHERE local_copy = 'there'")}
        purged = {
            sid for (sid,) in connection.execute("SELECT sid FROM sessions WHERE local_copy = 'purged'")
        }
        rows = sum(
            connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
            for table in ("segments", "wraps")
        )
    found = [
        f"{desk}: {path.relative_to(store)} belongs to a purged session"
        for folder in ("segments", "wraps")
        for path in files_in(store / folder)
        if any(sid in str(path) for sid in purged)
    ]
    found += [f"{desk}: {path.relative_to(store)} was set aside" for path in files_in(store / "quarantine")]
    most = STORE_FILES + rows + len(there) + 2 * len(purged)
    count = len(files_in(store))
    if count > most:
        found.append(f"{desk}: {count} files where at most {most} are explained")
    return found


def unexplained_objects(room: SoakRoom, approved: set[str], stored: set[str]) -> list[str]:
    """Objects of sessions that nobody approved, or a stored session without its manifest."""
    objects = room.objects()
    found = [f"the bucket holds {sid[:8]}, which is not approved" for sid in objects.keys() - approved]
    return found + [
        f"the bucket holds {sid[:8]} without its manifest"
        for sid, names in objects.items()
        if sid in stored and "manifest.json" not in names
    ]


def tracebacks(room: SoakRoom) -> list[str]:
    """Each with its log and last line."""
    found = []
    for path in sorted((room.root / "logs").glob("*.log")):
        text = path.read_bytes()
        at = text.find(TRACEBACK)
        while at >= 0:
            tail = text[at : at + 20_000].splitlines()[1:]
            last = next((line for line in tail if line and not line.startswith((b" ", b"\t"))), b"")
            found.append(f"{path.name}: {last.decode(errors='replace')}")
            at = text.find(TRACEBACK, at + 1)
    return found


def our_logs(room: SoakRoom) -> list[Path]:
    """Without Mosquitto's and rclone's, which have a form of their own."""
    return [path for path in (room.root / "logs").glob("*.log") if path.stem not in ("broker", "storage")]


def complaints(room: SoakRoom) -> dict[str, int]:
    """Warnings and errors by the event's name, over the logs of our own processes."""
    counted: Counter[str] = Counter()
    for path in our_logs(room):
        counted.update(name.decode() for name in _EVENT.findall(path.read_bytes()))
    return dict(counted.most_common())
