"""A desk that records with the real EVF writer into a real store; the other store tests build on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.evf import (
    EpochKey,
    Header,
    Outcome,
    RecordKind,
    SealedRecord,
    SegmentReader,
    SegmentWriter,
    secret_at,
)
from appliance.evf.keys import TrackRatchet
from appliance.store.durable import OPERATING_SYSTEM, FileOps
from appliance.store.recording import NewSession, RecordingStore
from appliance.store.segment_file import SegmentFile
from tests.manual_clock import ManualClock

SID = "0123456789abcdef0123456789abcdef"
OTHER_SID = "fedcba9876543210fedcba9876543210"
BOOT = "b" * 32
FRAGMENT_90K = 180_000  # 2 s


def new_session(sid: str = SID, **changes: Any) -> NewSession:
    """A session as the room orders it."""
    values: dict[str, Any] = {
        "sid": sid,
        "candidate_code": "C-0042",
        "exam": "statistics-1",
        "institution": "uni",
        "policy_id": "statistics-1",
        "policy_version": 3,
        "retain_until": "2027-05-22",
        "started": "2026-11-22T09:00:00.000Z",
        "started_mono_ns": 1_000_000_000,
        "boot_id": BOOT,
        "room": "r2.14",
        "desk": "desk-7",
        "recipient_set_version": 1,
    }
    return NewSession(**(values | changes))


@dataclass
class Growing:
    """One track's current segment: sealing and storing together."""

    file: SegmentFile
    writer: SegmentWriter
    acknowledged: list[bytes] = field(default_factory=list)  # leaves, in order

    def put(self, kind: RecordKind, size_bytes: int, time_90k: int) -> int:
        """Seal and append one record of `size_bytes` plaintext."""
        record = self.writer.record(
            kind, b"\x5a" * size_bytes, time_90k, key_frame=kind is RecordKind.FRAGMENT
        )
        return self._keep(record, self.file.append(record, time_90k + FRAGMENT_90K))

    def seal(self, time_90k: int) -> int:
        """END."""
        record = self.writer.end(time_90k)
        return self._keep(record, self.file.seal(record))

    def _keep(self, record: SealedRecord, leaf_index: int) -> int:
        self.acknowledged.append(record.leaf)
        return leaf_index


class Desk:
    """A store with a clock; keeps the epoch key, which a real node overwrites, so that tests can open segments."""

    def __init__(
        self, root: Path, file_ops: FileOps = OPERATING_SYSTEM, clock: ManualClock | None = None
    ) -> None:
        self.root = root
        self.clock = clock or ManualClock()
        self.store = RecordingStore(root, self.clock, file_ops)
        self.key = EpochKey(b"\x07" * 32)
        self.epoch = -1
        self._ratchets: dict[str, TrackRatchet] = {}

    def begin(self, sid: str = SID) -> None:
        """Session, epoch and wrap."""
        self.store.begin_session(new_session(sid))
        self.begin_epoch(sid)

    def begin_epoch(self, sid: str = SID) -> None:
        """Epoch and wrap."""
        self.epoch = self.store.begin_epoch(sid, BOOT)
        self.store.write_wrap(sid, self.epoch, "media", b"wrapped key " * 20)
        self._ratchets = {}

    def segment(self, track: str = "video", cls: str = "media", sid: str = SID) -> Growing:
        """The track's next segment."""
        ratchet = self._ratchets.setdefault(track, self.key.track(track))
        secret = ratchet.next_segment()
        header = Header(
            sid, self.epoch, cls, secret.seg, track, "avc1.42E01F", "2026-11-22T09:00:00Z", "uni", "statistics-1",
            "2027-05-22", bytes([secret.seg]) * 32,
        )  # fmt: skip
        writer = SegmentWriter(header, secret)
        return Growing(self.store.open_segment(header, writer.prefix), writer)

    def outcome(self, name: str, sid: str = SID) -> tuple[Outcome, int]:
        """How a reader with the key finds a segment, and the number of whole records (END included)."""
        with self.store.layout.segment(sid, name).open("rb") as stream:
            reader = SegmentReader(stream, lambda header: secret_at(self.key, header.track, header.seg))
            list(reader)
        return reader.outcome, reader.records


def test_what_the_desk_records_opens_with_its_key(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    video = desk.segment()
    video.put(RecordKind.INIT, 700, 0)
    video.put(RecordKind.FRAGMENT, 5000, 0)
    video.seal(FRAGMENT_90K)
    assert desk.outcome("0-video-0.evf") == (Outcome.CLOSED, 3)
    desk.store.close()
