"""One track of one epoch: its ratchet, its open segment, a new segment every minute and after every write error."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass

from appliance.camera.notes import cause_of
from appliance.clock import Clock, utc_text
from appliance.errors import StoreFailed
from appliance.evf.format import Header, KeyClass, RecordKind
from appliance.evf.keys import TrackRatchet
from appliance.evf.writer import SegmentWriter
from appliance.store.recording import RecordingStore, SegmentFile, SessionRow
from appliance.timecode import TICKS_PER_S

log = logging.getLogger(__name__)

SEGMENT_90K = 60 * TICKS_PER_S


@dataclass(frozen=True)
class Entry:
    """One record to be: times in 90 kHz of the session; `end_90k` where its footage ends, None for its own time."""

    kind: RecordKind
    plaintext: bytes
    time_90k: int
    key_frame: bool = False
    end_90k: int | None = None


@dataclass
class _Open:
    file: SegmentFile
    writer: SegmentWriter
    begun_90k: int
    last_90k: int


class Track:
    """Main thread only. At any time at most one segment's key is in memory."""

    def __init__(
        self,
        store: RecordingStore,
        session: SessionRow,
        epoch: int,
        cls: KeyClass,
        ratchet: TrackRatchet,
        clock: Clock,
    ) -> None:
        self._store = store
        self._session = session
        self._epoch = epoch
        self._cls = cls
        self._ratchet = ratchet
        self._clock = clock
        self._open: _Open | None = None
        self._unsettled: list[tuple[SegmentFile, str]] = []

    def append(self, entry: Entry, codec: str, init: bytes | None = None) -> None:
        """Make one record durable; a new segment begins with `init`.

        After a write error in an open segment the record goes into a new one, under a new key; StoreFailed or NoSpace
        when the store refuses that as well.
        """
        self.rotate(entry.time_90k)
        is_new = self._open is None
        try:
            self._append(entry, codec, init)
        except StoreFailed as error:
            log.warning("record.write_failed track=%s reason=%s", self._ratchet.name, error)
            self._abandon(cause_of(error))
            if is_new:
                raise
            self._append_again(entry, codec, init)
        self._settle()

    def rotate(self, now_90k: int) -> None:
        """Seal a segment that is a minute old, also when nothing is added to it: its key goes with it."""
        if self._open is not None and now_90k - self._open.begun_90k >= SEGMENT_90K:
            self.seal()

    def seal(self) -> None:
        """End the open segment; a failing disk leaves it open-ended, which is readable all the same."""
        if self._open is None:
            return
        segment = self._open
        try:
            segment.file.seal(segment.writer.end(segment.last_90k))
            self._open = None
        except StoreFailed as error:
            log.warning("record.seal_failed track=%s reason=%s", self._ratchet.name, error)
            self._abandon(cause_of(error))
        self._settle()

    def erase(self) -> None:
        """Overwrite the ratchet; no further segment can begin."""
        self._ratchet.erase()

    def _append_again(self, entry: Entry, codec: str, init: bytes | None) -> None:
        try:
            self._append(entry, codec, init)
        except StoreFailed as error:
            self._abandon(cause_of(error))
            raise

    def _append(self, entry: Entry, codec: str, init: bytes | None) -> None:
        if self._open is None:
            self._open = self._begin(entry.time_90k, codec)
            if init is not None:
                self._write(self._open, Entry(RecordKind.INIT, init, entry.time_90k))
        self._write(self._open, entry)

    def _begin(self, time_90k: int, codec: str) -> _Open:
        secret = self._ratchet.next_segment()
        header = Header(
            sid=self._session.sid,
            epoch=self._epoch,
            cls=self._cls,
            seg=secret.seg,
            track=self._ratchet.name,
            codec=codec,
            created=utc_text(self._clock.wall()),
            institution=self._session.institution,
            policy_id=self._session.policy_id,
            retain_until=self._session.retain_until,
            salt=secrets.token_bytes(32),
        )
        writer = SegmentWriter(header, secret, in_place=True)
        try:
            file = self._store.open_segment(header, writer.prefix)
        except StoreFailed:
            writer.erase()
            raise
        return _Open(file, writer, time_90k, time_90k)

    def _write(self, segment: _Open, entry: Entry) -> None:
        record = segment.writer.record(entry.kind, entry.plaintext, entry.time_90k, entry.key_frame)
        segment.file.append(record, entry.end_90k)
        segment.last_90k = entry.time_90k

    def _abandon(self, cause: str) -> None:
        """After a write error nothing more goes into the open segment."""
        if self._open is not None:
            self._open.writer.erase()
            self._unsettled.append((self._open.file, cause))
            self._open = None
        self._settle()

    def _settle(self) -> None:
        """Close the rows of abandoned segments; what the store refuses now is left for later, at last for recovery."""
        while self._unsettled:
            file, cause = self._unsettled[0]
            try:
                file.abandon(cause)
            except StoreFailed as error:
                log.warning("record.abandon_waits segment=%s reason=%s", file.name, error)
                return
            self._unsettled.pop(0)
