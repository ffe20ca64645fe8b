"""One epoch of one session: fragments and observations in, sealed records in the store out.

An epoch is one life of the recording process: fresh keys, wrapped for the representatives before the first frame is
kept, then only ratchets remain in memory. What could not be written is named as a gap.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.camera.encoder import Fragment
from appliance.camera.notes import Notes, cause_of
from appliance.camera.track import Entry, Track
from appliance.clock import Clock, utc_text
from appliance.errors import StoreFailed
from appliance.evf.canonical import canonical
from appliance.evf.format import KeyClass, RecordKind
from appliance.evf.keys import EpochKey
from appliance.evf.recipients import RecipientSet
from appliance.evf.wraps import WrapContext, wrap_epoch_key
from appliance.store.recording import RecordingStore, SessionRow
from appliance.timecode import TICKS_PER_S

log = logging.getLogger(__name__)

# Two frames at 5 fps: anything longer between two fragments is footage that is not there.
GAP_TOLERANCE_90K = 36_000
# A camera needs this long from the command to its first frame; it is the start of the recording, not a gap.
START_TOLERANCE_90K = 3 * TICKS_PER_S
TRACK_CLASSES: Mapping[str, KeyClass] = {"video": "media", "log": "log"}
LOG_CODEC = "json"
CAMERA_SILENT = "camera delivered no frames"


class EpochRecorder:
    """Owns the epoch's ratchets and the open segment of each track; used by the camera process's main thread only."""

    def __init__(
        self,
        store: RecordingStore,
        session: SessionRow,
        recipients: RecipientSet,
        device_key: Ed25519PrivateKey,
        clock: Clock,
        boot_id: str,
        *,
        covered_until_90k: int | None,
        gap_cause: str,
    ) -> None:
        """`covered_until_90k`: end of what earlier epochs recorded or named as a gap, None at the session's start;
        `gap_cause`: why there is nothing since then. StoreFailed or NoSpace if the wraps cannot be made durable."""
        self.epoch = store.begin_epoch(session.sid, boot_id)
        self.notes = Notes(store, session.sid, clock)
        self._covered_until_90k = covered_until_90k or 0
        # An interruption is named however short it was.
        self._tolerance_90k = START_TOLERANCE_90K if covered_until_90k is None else 0
        self._gap_cause = gap_cause
        self._refused = False
        created = utc_text(clock.wall())
        self._tracks: dict[str, Track] = {}
        for name, cls in TRACK_CLASSES.items():
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
            key = EpochKey.generate()
            try:
                wrap = wrap_epoch_key(key, context, recipients, device_key)
                store.write_wrap(session.sid, self.epoch, cls, wrap)
                self._tracks[name] = Track(store, session, self.epoch, cls, key.track(name), clock)
            finally:
                key.erase()
        self.notes.event("epoch_open", epoch=self.epoch)

    def note_gap_cause(self, cause: str, filmed: bool = False) -> None:
        """Why footage is missing from now until the next durable fragment; `filmed`: it was there, and is a gap however
        short it is."""
        self._gap_cause = cause
        if filmed:
            self._tolerance_90k = 0

    def fragment(self, fragment: Fragment, init: Fragment, codec: str) -> bool:
        """Make one fragment durable; False when the store refused it, and the gap lasts until the next it takes."""
        end_90k = fragment.time_90k + fragment.duration_90k
        entry = Entry(
            RecordKind.FRAGMENT, fragment.data, fragment.time_90k, fragment.key_frame, end_90k=end_90k
        )
        if not self._refused:
            # Before the fragment, so that no crash leaves footage behind a hole that nobody named. Where a gap ends
            # that the store itself made, is known only once it takes something again.
            self._name_gap(fragment.time_90k)
        try:
            self._tracks["video"].append(entry, codec, init.data)
        except StoreFailed as error:
            log.warning("record.lost time_s=%.1f reason=%s", fragment.time_90k / TICKS_PER_S, error)
            self._gap_cause = cause_of(error)
            self._refused, self._tolerance_90k = True, 0
            return False
        self._refused = False
        self._name_gap(fragment.time_90k)
        self._covered_until_90k = end_90k
        self._tolerance_90k = GAP_TOLERANCE_90K
        self._gap_cause = CAMERA_SILENT
        self._tracks["log"].rotate(end_90k)
        self.notes.try_to_settle()
        return True

    def observation(self, number: int, report: Mapping[str, Any], time_90k: int) -> bool:
        """Make one observation durable in the log track; False when the store refused it."""
        plaintext = canonical({"number": number, "report": dict(report)})
        try:
            self._tracks["log"].append(Entry(RecordKind.EVENT, plaintext, time_90k), LOG_CODEC)
        except StoreFailed as error:
            log.warning("record.observation_waits number=%d reason=%s", number, error)
            return False
        return True

    def close(self, end_90k: int) -> None:
        """Seal what is open and name what is missing at the end. What the store refuses waits in `notes`."""
        for track in self._tracks.values():
            track.seal()
            track.erase()
        self._name_gap(end_90k)
        self.notes.event("epoch_close", epoch=self.epoch)

    def _name_gap(self, now_90k: int) -> None:
        if now_90k - self._covered_until_90k > self._tolerance_90k:
            self.notes.gap(self._covered_until_90k, now_90k, self._gap_cause)
            self._covered_until_90k = now_90k
            self._tolerance_90k = GAP_TOLERANCE_90K
