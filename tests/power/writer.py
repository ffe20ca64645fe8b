"""The process that loses its power: records two tracks, events and orders, and tells each acknowledgement.

A line goes down the pipe only after the store's call returned. Run: python -m tests.power.writer ROOT CONDUCT [LOG]
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import sqlite_utils  # noqa: F401 (the first migration wants it; a cut shall not meet the import)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.clock import SystemClock
from appliance.errors import StoreFailed
from appliance.evf import (
    EpochKey,
    Header,
    RecipientSet,
    RecordKind,
    RepresentativeKey,
    SealedRecord,
    SegmentWriter,
)
from appliance.evf.format import KeyClass
from appliance.evf.keys import TrackRatchet
from appliance.evf.wraps import WrapContext, wrap_epoch_key
from appliance.store.durable import FileOps
from appliance.store.ledger import Ledger
from appliance.store.recording import NewSession, RecordingStore
from appliance.store.segment_file import SegmentFile
from tests.power.write_log import entries

SID = "9a" * 16
INSTITUTION, POLICY, RETAIN_UNTIL, CREATED = "uni", "statistics-1", "2027-05-22", "2026-11-22T09:00:00.000Z"
BOOT_ID = "b" * 32
REPRESENTATIVE = RepresentativeKey(b"\x21" * 32)
DEVICE_KEY = Ed25519PrivateKey.from_private_bytes(b"\x22" * 32)
FRAGMENT_90K = 180_000
VIDEO_BYTES, EVENT_BYTES = 300_000, 700  # 720p15 at 1.2 Mbit/s, a fragment of 2 s; an observation
RECORDS_A_SEGMENT = 3

Tell = Callable[..., None]


class NoFdatasync(FileOps):
    """Negative control: says that bytes are on the medium and never asks for it."""

    def fdatasync(self, fd: int) -> None:
        pass


class IgnoresSyncErrors(FileOps):
    """Negative control: a refused sync is taken for one that was done."""

    def fdatasync(self, fd: int) -> None:
        try:
            super().fdatasync(fd)
        except OSError:
            return


class IgnoresWriteErrors(FileOps):
    """Negative control: a refused write is taken for one that was done."""

    def write(self, fd: int, data: memoryview) -> int:
        try:
            return super().write(fd, data)
        except OSError:
            return len(data)


class ShortWrites(FileOps):
    """A system that takes at most 40,000 bytes a call, which POSIX allows for any file."""

    def write(self, fd: int, data: memoryview) -> int:
        return super().write(fd, data[:40_000])


CONDUCTS: dict[str, type[FileOps]] = {
    "product": FileOps,
    "short-writes": ShortWrites,
    "normal": FileOps,
    "no-fdatasync": NoFdatasync,
    "ignores-sync-errors": IgnoresSyncErrors,
    "ignores-write-errors": IgnoresWriteErrors,
}


def plaintext(name: str, index: int, size_bytes: int) -> bytes:
    """What a record of a segment holds; whoever opens it can compute it again."""
    seed = hashlib.sha256(f"{name}/{index}".encode()).digest()
    return (seed * (size_bytes // len(seed) + 1))[:size_bytes]


class Track:
    """One track: segments of a few records, sealed in turn; after a refused write it goes on in a new segment."""

    def __init__(
        self,
        store: RecordingStore,
        epoch: int,
        ratchet: TrackRatchet,
        cls: KeyClass,
        size_bytes: int,
        tell: Tell,
    ) -> None:
        self.failed = False
        self._store, self._epoch, self._ratchet, self._cls = store, epoch, ratchet, cls
        self._size_bytes, self._tell = size_bytes, tell
        self._kind = RecordKind.FRAGMENT if cls == "media" else RecordKind.EVENT
        self._growing: tuple[SegmentFile, SegmentWriter] | None = None
        self._unsettled: list[SegmentFile] = []
        self._time_90k = 0

    def step(self) -> None:
        """One record, or the end of a full segment; a refusal is told and the segment abandoned."""
        try:
            file, writer = self._growing or self._begin()
            if file.next_record == RECORDS_A_SEGMENT:
                self._keep(file, writer.end(self._time_90k), sealing=True)
                self._growing = None
            else:
                self._time_90k += FRAGMENT_90K
                data = plaintext(file.name, file.next_record, self._size_bytes)
                self._keep(file, writer.record(self._kind, data, self._time_90k), sealing=False)
        except StoreFailed as error:
            self.failed = True
            self._tell(failed=str(error))
            if self._growing is not None:
                self._unsettled.append(self._growing[0])
                self._growing = None
        self._settle()

    def _begin(self) -> tuple[SegmentFile, SegmentWriter]:
        secret = self._ratchet.next_segment()
        header = Header(
            SID, self._epoch, self._cls, secret.seg, self._ratchet.name, "avc1.42E01F", CREATED, INSTITUTION,
            POLICY, RETAIN_UNTIL, os.urandom(32),
        )  # fmt: skip
        writer = SegmentWriter(header, secret)
        self._growing = self._store.open_segment(header, writer.prefix), writer
        return self._growing

    def _keep(self, file: SegmentFile, record: SealedRecord, sealing: bool) -> None:
        place = file.seal(record) if sealing else file.append(record, record.time_90k + FRAGMENT_90K)
        self._tell(record=[file.name, record.index, place, record.leaf.hex()], sealed=sealing)

    def _settle(self) -> None:
        for file in list(self._unsettled):
            try:
                file.abandon("write error")
            except StoreFailed as error:
                self._tell(failed=str(error))
                return
            self._unsettled.remove(file)


class Room:
    """The sync process's part: orders and serials in ledger.db."""

    def __init__(self, ledger: Ledger, tell: Tell) -> None:
        self.failed = False
        self._ledger, self._tell = ledger, tell

    def step(self) -> None:
        """One order and its serial, together."""
        sid, serial = uuid4().hex, self._ledger.last_serial() + 1
        try:
            with self._ledger.transaction():
                self._ledger.accept_serial(serial)
                self._ledger.order_start(sid, "desk-7", {"serial": serial})
        except StoreFailed as error:
            self.failed = True
            self._tell(failed=str(error))
        else:
            self._tell(order=sid, serial=serial)


class Notes:
    """Events in clear."""

    def __init__(self, store: RecordingStore, tell: Tell) -> None:
        self.failed = False
        self._store, self._tell, self._number = store, tell, 0

    def step(self) -> None:
        """One event leaf."""
        self._number += 1
        body = {"kind": "note", "number": self._number}
        try:
            place = self._store.append_event(SID, body)
        except StoreFailed as error:
            self.failed = True
            self._tell(failed=str(error))
        else:
            self._tell(event=[place, body])


class Part(Protocol):
    """What acts on its own: a track, the notes, the room."""

    failed: bool

    def step(self) -> None:
        """One thing made durable and told, or its refusal told."""


class Life:
    """One start of the process: recovery, the session or its continuation, a new epoch with its wraps."""

    def __init__(self, root: Path, conduct: str, tell: Tell) -> None:
        file_ops = CONDUCTS[conduct]()
        self.tell = tell
        self.store = RecordingStore(root, SystemClock(), file_ops)
        self.ledger = Ledger(root / "ledger.db", file_ops)
        if conduct == "normal":
            self.store._connection.execute("PRAGMA synchronous = NORMAL")
            self.ledger._writer.execute("PRAGMA synchronous = NORMAL")
        if self.store.active_session() is None:
            self.store.begin_session(_new_session())
            tell(session=SID)
        epoch = self.store.begin_epoch(SID, BOOT_ID)
        keys: dict[KeyClass, EpochKey] = {"media": EpochKey.generate(), "log": EpochKey.generate()}
        for cls, key in keys.items():
            self.store.write_wrap(SID, epoch, cls, _wrap(key, epoch, cls))
        tell(epoch=epoch)
        self.tracks = [
            Track(self.store, epoch, keys["media"].track("video"), "media", VIDEO_BYTES, tell),
            Track(self.store, epoch, keys["log"].track("log"), "log", EVENT_BYTES, tell),
        ]
        self.parts: list[Part] = [*self.tracks, Notes(self.store, tell), Room(self.ledger, tell)]

    def until_the_end(self) -> None:
        """Every part in a thread of its own until it fails or the power goes."""

        def run(part: Part) -> None:
            while not part.failed:
                part.step()

        threads = [threading.Thread(target=run, args=(part,)) for part in self.parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def rounds(self, count: int) -> None:
        """Every part in turn, in one thread: the same system calls each time."""
        for _ in range(count):
            for part in self.parts:
                part.step()

    def close(self) -> None:
        """As the product does when it is asked to stop."""
        self.store.close()
        self.ledger.close()


def _new_session() -> NewSession:
    return NewSession(
        SID, "C-0042", "statistics-1", INSTITUTION, POLICY, 3, RETAIN_UNTIL, CREATED, 1_000_000_000, BOOT_ID,
        "r2.14", "desk-7", 1,
    )  # fmt: skip


def _wrap(key: EpochKey, epoch: int, cls: KeyClass) -> bytes:
    people = RecipientSet(INSTITUTION, 1, CREATED, (REPRESENTATIVE.representative("person 1"),))
    context = WrapContext(INSTITUTION, SID, epoch, cls, CREATED, POLICY, RETAIN_UNTIL, 1)
    return wrap_epoch_key(key, context, people, DEVICE_KEY)


def teller(fd: int, position: Callable[[], int] = time.monotonic_ns) -> Tell:
    """Writes one line for each acknowledgement, in one piece, by writev: faults are injected into write.

    `position`, read after the acknowledged call, is told along as "at".
    """

    def tell(**what: Any) -> None:
        os.writev(fd, [json.dumps(what | {"at": position()}).encode() + b"\n"])

    return tell


if __name__ == "__main__":
    _tell = teller(1, functools.partial(entries, Path(sys.argv[3]))) if len(sys.argv) > 3 else teller(1)
    _tell(go=True)
    Life(Path(sys.argv[1]), sys.argv[2], _tell).until_the_end()
