"""One epoch of one session: fragments and observations in, sealed records in the store out.

An epoch is one life of the recording process: fresh keys, wrapped for the representatives before the first frame is
kept, then only ratchets remain in memory. A write error closes the segment open-ended; the record goes into a new one.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.camera.encoder import Fragment
from appliance.clock import Clock, boot_id, utc_text
from appliance.errors import NoSpace, StoreFailed
from appliance.evf.canonical import canonical
from appliance.evf.format import Header, KeyClass, RecordKind
from appliance.evf.keys import EpochKey, TrackRatchet
from appliance.evf.recipients import RecipientSet
from appliance.evf.wraps import WrapContext, wrap_epoch_key
from appliance.evf.writer import SegmentWriter
from appliance.store.recording import RecordingStore, SegmentFile, SessionRow

log = logging.getLogger(__name__)

SEGMENT_90K = 60 * 90_000
# Two frames at 5 fps: anything longer between two fragments is footage that is not there.
GAP_TOLERANCE_90K = 36_000
# A camera needs this long from the command to its first frame; it is the start of the recording, not a gap.
START_TOLERANCE_90K = 3 * 90_000
TRACK_CLASSES: Mapping[str, KeyClass] = {"video": "media", "log": "log"}
LOG_CODEC = "json"


class EpochRecorder:
    """Owns the epoch's ratchets and the open segment of each track; used by the camera process's main thread only."""

    def __init__(
        self,
        store: RecordingStore,
        session: SessionRow,
        recipients: RecipientSet,
        device_key: Ed25519PrivateKey,
        clock: Clock,
        *,
        covered_until_90k: int | None,
        gap_cause: str,
    ) -> None:
        """`covered_until_90k`: end of the newest durable fragment of earlier epochs, None at the session's start;
        `gap_cause`: why there is nothing since then."""
        self._store = store
        self._session = session
        self._clock = clock
        self._covered_until_90k = covered_until_90k
        self._gap_cause = gap_cause
        self.epoch = store.begin_epoch(session.sid, boot_id())
        created = utc_text(clock.wall())
        self._tracks: dict[str, _Track] = {}
        for track, cls in TRACK_CLASSES.items():
            key = EpochKey.generate()
            context = WrapContext(
                institution=session.institution,
                sid=session.sid,
                epoch=self.epoch,
                cls=cls,
                created=created,
                policy_id=session.policy_id,
                retain_until=session.retain_until,
                recipient_set_version=recipients.version,
            )
            store.write_wrap(
                session.sid, self.epoch, cls, wrap_epoch_key(key, context, recipients, device_key)
            )
            self._tracks[track] = _Track(store, session, self.epoch, track, key.track(track), clock)
            key.erase()
        store.append_event(session.sid, {"kind": "epoch_open", "epoch": self.epoch, "at": created})

    def note_gap_cause(self, cause: str) -> None:
        """Why footage is missing from now until the next durable fragment."""
        self._gap_cause = cause

    def fragment(self, fragment: Fragment, init: Fragment, codec: str) -> bool:
        """Make one fragment durable; False when it was lost to a write error (the next one shows the gap)."""
        video = self._tracks["video"]
        for _attempt in range(2):
            try:
                if video.needs_segment(fragment.time_90k):
                    video.open_segment(fragment.time_90k, codec)
                    video.append(RecordKind.INIT, init.data, fragment.time_90k)
                video.append(
                    RecordKind.FRAGMENT,
                    fragment.data,
                    fragment.time_90k,
                    key_frame=fragment.key_frame,
                    end_90k=fragment.time_90k + fragment.duration_90k,
                )
            except StoreFailed as error:
                self._gap_cause = "disk full" if isinstance(error, NoSpace) else "storage write failed"
                log.warning("record.write_failed track=video reason=%s", error)
                video.abandon(self._gap_cause)
                continue
            self._close_gap(fragment.time_90k)
            self._covered_until_90k = fragment.time_90k + fragment.duration_90k
            return True
        return False

    def observation(self, number: int, report: Mapping[str, Any], time_90k: int) -> bool:
        """Make one observation durable in the log track."""
        plaintext = canonical({"number": number, "report": dict(report)})
        track = self._tracks["log"]
        for _attempt in range(2):
            try:
                if track.needs_segment(time_90k):
                    track.open_segment(time_90k, LOG_CODEC)
                track.append(RecordKind.EVENT, plaintext, time_90k)
            except StoreFailed as error:
                log.warning("record.write_failed track=log reason=%s", error)
                track.abandon("storage write failed")
                continue
            return True
        return False

    def event(self, kind: str, **facts: str | int) -> None:
        """A leaf about the recording itself (camera lost, assessment stopped); nothing about what was seen."""
        self._store.append_event(
            self._session.sid, {"kind": kind, "at": utc_text(self._clock.wall()), **facts}
        )

    def close(self, end_90k: int) -> None:
        """Seal what is open and name what is missing at the end."""
        for track in self._tracks.values():
            track.seal()
            track.erase()
        self._close_gap(end_90k)
        self.event("epoch_close", epoch=self.epoch)

    def _close_gap(self, now_90k: int) -> None:
        since = self._covered_until_90k
        tolerance = GAP_TOLERANCE_90K if since is not None else START_TOLERANCE_90K
        if now_90k - (since or 0) > tolerance:
            self._store.add_gap(self._session.sid, since or 0, now_90k, self._gap_cause)
            log.warning(
                "record.gap start_s=%.1f end_s=%.1f cause=%s",
                (since or 0) / 90e3,
                now_90k / 90e3,
                self._gap_cause,
            )
        self._gap_cause = "camera delivered no frames"


class _Track:
    """One track's ratchet and its open segment."""

    def __init__(
        self,
        store: RecordingStore,
        session: SessionRow,
        epoch: int,
        name: str,
        ratchet: TrackRatchet,
        clock: Clock,
    ) -> None:
        self._store = store
        self._session = session
        self._epoch = epoch
        self._name = name
        self._ratchet = ratchet
        self._clock = clock
        self._writer: SegmentWriter | None = None
        self._file: SegmentFile | None = None
        self._begun_90k = 0
        self._last_90k = 0

    def needs_segment(self, time_90k: int) -> bool:
        """True before the first record and after a minute; a full segment is sealed here."""
        if self._writer is not None and time_90k - self._begun_90k >= SEGMENT_90K:
            self.seal()
        return self._writer is None

    def open_segment(self, time_90k: int, codec: str) -> None:
        secret = self._ratchet.next_segment()
        header = Header(
            sid=self._session.sid,
            epoch=self._epoch,
            cls=TRACK_CLASSES[self._name],
            seg=secret.seg,
            track=self._name,
            codec=codec,
            created=utc_text(self._clock.wall()),
            institution=self._session.institution,
            policy_id=self._session.policy_id,
            retain_until=self._session.retain_until,
            salt=secrets.token_bytes(32),
        )
        writer = SegmentWriter(header, secret)
        self._file = self._store.open_segment(header, writer.prefix)
        self._writer = writer
        self._begun_90k = time_90k

    def append(
        self,
        kind: RecordKind,
        plaintext: bytes,
        time_90k: int,
        *,
        key_frame: bool = False,
        end_90k: int | None = None,
    ) -> None:
        if self._writer is None or self._file is None:
            raise StoreFailed(f"no open segment on track {self._name}", "see the node's log")
        self._file.append(self._writer.record(kind, plaintext, time_90k, key_frame), end_90k)
        self._last_90k = time_90k

    def seal(self) -> None:
        """End the open segment; a failing disk leaves it open-ended, which is readable all the same."""
        if self._writer is None or self._file is None:
            return
        try:
            self._file.seal(self._writer.end(self._last_90k))
        except StoreFailed as error:
            log.warning("record.seal_failed track=%s reason=%s", self._name, error)
            self.abandon("storage write failed")
        self._forget()

    def abandon(self, cause: str) -> None:
        """After a write error nothing more goes into this segment."""
        if self._file is not None:
            self._file.abandon(cause)
        self._forget()

    def erase(self) -> None:
        self._ratchet.erase()

    def _forget(self) -> None:
        if self._writer is not None:
            self._writer.erase()
        self._writer = self._file = None
