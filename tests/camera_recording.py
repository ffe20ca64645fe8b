"""A session as the recording process keeps it: lives that come and go, and what the institution reads of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.camera.encoder import Fragment
from appliance.camera.recorder import EpochRecorder
from appliance.evf import EpochKey, Outcome, RecordKind, SegmentReader, secret_at
from appliance.evf.recipients import RecipientSet, RepresentativeKey
from appliance.evf.wraps import open_wrap
from appliance.store.durable import OPERATING_SYSTEM, FileOps
from appliance.store.recording import RecordingStore, SessionRow
from appliance.store.rows import SegmentRow
from appliance.store.view import RecordingView
from tests.manual_clock import ManualClock
from tests.troubled_disk import TroubledDisk
from tests.unit.test_store_builders import BOOT, SID, new_session

S = 90_000
REPRESENTATIVE = RepresentativeKey(b"\x01" * 32)
RECIPIENTS = RecipientSet("uni", 1, "2026-11-01T09:00:00.000Z", (REPRESENTATIVE.representative("Board"),))
INIT = Fragment("init", b"init" * 50, 0, 0, False, 0)
CODEC = "avc1.42c01f"
REPORT = {"kind": "nobody_at_desk", "phase": "opened"}


class Recording:
    """A session at a desk whose lives (epochs) come and go."""

    def __init__(self, root: Path, disk: FileOps = OPERATING_SYSTEM) -> None:
        self.root = root
        self.clock = ManualClock()
        self.device_key = Ed25519PrivateKey.generate()
        self.store = RecordingStore(root, self.clock, disk)
        self.store.begin_session(new_session())
        self.recorder = self.begin(None, "camera was starting")

    @property
    def row(self) -> SessionRow:
        row = self.store.active_session()
        assert row is not None
        return row

    def begin(self, covered_90k: int | None, cause: str) -> EpochRecorder:
        self.recorder = EpochRecorder(
            self.store, self.row, RECIPIENTS, self.device_key, self.clock, BOOT,
            covered_until_90k=covered_90k, gap_cause=cause,
        )  # fmt: skip
        return self.recorder

    def film(self, start_s: float, end_s: float) -> list[bool]:
        """Fragments of 2 s; True for each that became durable."""
        kept = []
        at = start_s
        while at < end_s:
            length = min(2.0, end_s - at)
            data = f"fragment at {at:.1f}".encode() * 20
            fragment = Fragment("fragment", data, round(at * S), round(length * S), True, 30)
            kept.append(self.recorder.fragment(fragment, INIT, CODEC))
            self.clock.advance(length)
            at += length
        return kept

    def segments(self, track: str = "video") -> list[SegmentRow]:
        view = RecordingView(self.root)
        try:
            return [segment for segment in view.segments(SID) if segment.track == track]
        finally:
            view.close()

    def gaps(self) -> list[tuple[float, float, str]]:
        view = RecordingView(self.root)
        try:
            return [(gap.start_90k / S, gap.end_90k / S, gap.cause) for gap in view.gaps(SID)]
        finally:
            view.close()

    def events(self) -> list[str]:
        view = RecordingView(self.root)
        try:
            return [event.body["kind"] for event in view.events(SID)]
        finally:
            view.close()

    def records(self, segment: SegmentRow) -> tuple[Outcome, list[tuple[RecordKind, bytes]]]:
        """Opened with the representative's key, as the institution would."""
        evk = self.store.layout.wrap(f"{SID}.{segment.epoch}.{segment.cls}.evk").read_bytes()
        key: EpochKey = open_wrap(evk, REPRESENTATIVE, self.device_key.public_key())
        with self.store.layout.segment(SID, segment.name).open("rb") as stream:
            reader = SegmentReader(stream, lambda header: secret_at(key, header.track, header.seg))
            found = [(record.kind, bytes(record.plaintext)) for record in reader]
        return reader.outcome, found

    def kinds(self, track: str = "video") -> list[list[RecordKind]]:
        return [[kind for kind, _ in self.records(each)[1]] for each in self.segments(track)]


@pytest.fixture
def disk() -> TroubledDisk:
    return TroubledDisk()


@pytest.fixture
def recording(tmp_path: Path, disk: TroubledDisk) -> Iterator[Recording]:
    made = Recording(tmp_path, disk)
    yield made
    made.store.close()
