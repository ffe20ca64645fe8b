"""One session in one life of the camera process: what films, what records and what is told of it.

Main thread only. It ends in steps that may be taken again: film to its end, seal, name what is missing, end the row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.camera.accommodations import accommodations_report
from appliance.camera.capture import Capture
from appliance.camera.degrade import Degrade
from appliance.camera.inbox import (
    CameraBack,
    CameraLost,
    Captured,
    FragmentRefused,
    FromCamera,
    Item,
    Observed,
    ObserverGone,
)
from appliance.camera.observations import SessionObservations
from appliance.camera.picture_check import PictureCheck
from appliance.camera.pictures import RING_HEIGHT_PX, RING_WIDTH_PX, Pictures, WatchLease
from appliance.camera.recorder import EpochRecorder
from appliance.camera.source import CameraSource
from appliance.camera.timeline import Timeline, WallWatch
from appliance.clock import Clock, utc_text
from appliance.errors import BadConfig, CameraUnavailable, NoSpace
from appliance.evf.recipients import RecipientSet
from appliance.frames import FrameRingWriter
from appliance.light import Light
from appliance.local_link import Message
from appliance.policy import Accommodation, ExamPolicy, Video
from appliance.store.recording import RecordingStore, SessionRow

log = logging.getLogger(__name__)

# What has to be said within 3 s is looked at for up to 2 s, and the shortest way back takes 1 s; a desk that looks more
# rarely than that is named.
LEAST_RATE_HZ = 1.0

# What this process says by itself; peers of the link count from 1.
OWN_PEER = 0


@dataclass(frozen=True)
class Equipment:
    """What a desk records with; outlives its sessions."""

    store: RecordingStore
    clock: Clock
    boot_id: str
    device_key: Ed25519PrivateKey
    light: Light
    make_source: Callable[[Video], CameraSource]
    ring_path: Path
    inference_rate_hz: float
    watch: WatchLease
    on_preview: Callable[[bytes], None]
    put_filmed: Callable[[FromCamera], bool]
    tell: Callable[[Message], None]


@dataclass(frozen=True)
class Interruption:
    """A session goes on: all up to `covered_90k` is recorded or named, `cause` is why there is nothing since.

    `clock_moved_ms`: what earlier lives in this boot noted of the wall clock's steps, in all.
    """

    covered_90k: int
    cause: str
    clock_moved_ms: int = 0


class RunningSession:
    """Begins to film when it is made; StoreFailed if the epoch's keys cannot be kept."""

    def __init__(
        self,
        equipment: Equipment,
        row: SessionRow,
        policy: ExamPolicy,
        recipients: RecipientSet,
        after: Interruption | None,
        accommodations: tuple[Accommodation, ...] = (),
    ) -> None:
        self.sid = row.sid
        self._equipment = equipment
        self._accommodations = accommodations
        self._policy = policy = policy.for_seat(accommodations)
        covered_90k = 0 if after is None else after.covered_90k
        store, boot_id = equipment.store, equipment.boot_id
        origin_ns = store.origin(row, boot_id)
        if origin_ns is None:
            self._timeline = Timeline.bridged(row, equipment.clock, covered_90k)
            store.keep_origin(row.sid, boot_id, self._timeline.origin_mono_ns)
        else:
            self._timeline = Timeline(origin_ns)
        cause = "camera was starting" if after is None else after.cause
        if self._timeline.clock_was_behind:
            cause += "; for how long is not known, the clock was behind"
        self._recorder = EpochRecorder(
            equipment.store,
            row,
            recipients,
            equipment.device_key,
            equipment.clock,
            equipment.boot_id,
            covered_until_90k=None if after is None else covered_90k,
            gap_cause=cause,
        )
        self._observations = SessionObservations(row.sid, self._recorder.epoch, self._recorder.observation)
        self._assessing = False
        self._not_assessed: str | None = "face and gaze are not being assessed"
        self._listening = False
        self._not_listened: str | None = None
        self._ended: str | None = None
        moved_ms = 0 if after is None else after.clock_moved_ms
        self._wall = WallWatch.of(row, equipment.boot_id, equipment.clock, moved_ms)
        self._stepped_ms = 0
        self._check = PictureCheck(self._timeline.at_90k)
        self._ring = self._make_ring()
        pictures = Pictures(
            self._ring,
            1 / equipment.inference_rate_hz,
            equipment.watch if policy.preview else None,
            equipment.on_preview,
            self._check.see,
        )
        self._capture = Capture(
            lambda: equipment.make_source(policy.video),
            equipment.light,
            policy.video,
            pictures,
            self._timeline.at_90k,
            self._put_filmed,
            after_90k=-1 if after is None else covered_90k,
        )
        self._degrade = Degrade(
            policy.duration_s,
            policy.video.bitrate_bps,
            equipment.store.footage_bytes_left,
            self._recorder.notes,
            pictures.allow_preview,
            self._capture.set_bitrate,
        )
        self._check.start()
        self._capture.start()
        self._tell_accommodations()
        self._tell_durable()

    @property
    def message(self) -> Message:
        """What the inference process has to know."""
        return {
            "type": "session",
            "sid": self.sid,
            "face": self._policy.face,
            "gaze": self._policy.gaze,
            "voice": self._policy.voice,
            "started_mono_ns": self._timeline.origin_mono_ns,
            "levels": dict(self._policy.levels),
            "expected_people": self._policy.expected_people,
            "accommodations": list(self._accommodations),
            "policy": f"{self._policy.id} v{self._policy.version}",
        }

    @property
    def camera_open(self) -> bool:
        """True while the camera delivers."""
        return self._capture.camera_open

    @property
    def waits_for_camera(self) -> bool:
        """True while the camera is known to be lost and is opened again and again."""
        return self._capture.is_alive() and self._capture.lost_cause is not None

    @property
    def lost_cause(self) -> str | None:
        """Why the camera delivers nothing now; None while it does."""
        return self._capture.lost_cause

    @property
    def filming(self) -> bool:
        """False once the capture thread has ended."""
        return self._capture.is_alive()

    @property
    def closed(self) -> bool:
        """True once everything is sealed; the row may still wait for its end."""
        return self._ended is not None

    @property
    def any_observation_open(self) -> bool:
        """True while an observation has not been closed."""
        return self._observations.any_open

    def take(self, item: Item) -> bool:
        """Record one item; True when a fragment became durable."""
        match item:
            case Captured():
                return self._record(item)
            case FragmentRefused():
                self._recorder.note_gap_cause("storage too slow", filmed=True)
            case CameraLost():
                self._recorder.note_gap_cause(f"camera lost: {item.cause}")
                self._recorder.notes.event("camera_lost", cause=item.cause)
            case CameraBack():
                self._recorder.notes.event("camera_back")
            case Observed():
                self._tell(self._observations.take(item, self._now_90k()))
            case ObserverGone():
                self._tell(self._observations.observer_gone(item.peer, self._now_90k()))
        return False

    def require_filming(self) -> None:
        """Raises CameraStuck, or CameraUnavailable when filming ended though nobody asked."""
        if self.closed or self._capture.is_alive():
            return
        raise self._capture.stuck or CameraUnavailable("filming ended by itself", "see the node's log")

    def assessed(self, rate_hz: float | None, problem: str | None = None) -> None:
        """Keep as a leaf when assessment began or stopped; None: no model runs, for the `problem` if it is known."""
        self._not_assessed = None
        if rate_hz is None:
            self._not_assessed = "face and gaze are not being assessed" + (f": {problem}" if problem else "")
        elif rate_hz < LEAST_RATE_HZ:
            self._not_assessed = f"face and gaze are looked at only every {1 / max(rate_hz, 0.01):.1f} s"
        if self._policy.face and (rate_hz is not None) != self._assessing:
            self._assessing = rate_hz is not None
            self._recorder.notes.event("assessment_began" if self._assessing else "assessment_stopped")

    def listened(self, problem: str | None) -> None:
        """Keep as a leaf when listening for voices began or stopped; None: a voice would be heard."""
        if not self._policy.voice:
            return
        self._not_listened = None if problem is None else f"voices are not being listened for: {problem}"
        if (problem is None) != self._listening:
            self._listening = problem is None
            self._recorder.notes.event("listening_began" if self._listening else "listening_stopped")

    def note_findings(self) -> None:
        """Keep as leaves what was found of picture, decoding and clock since the last call; once a second is usual."""
        for span in self._check.take():
            self._recorder.notes.event(
                "picture", finding=span.finding, from_90k=span.from_90k, to_90k=span.to_90k
            )
        by_ms = self._wall.step_ms()
        if by_ms is not None:
            self._stepped_ms += by_ms
            log.warning("clock.step by_ms=%d", by_ms)
            self._recorder.notes.event("clock_step", at_90k=self._now_90k(), by_ms=by_ms)

    def observations_again(self) -> list[Message]:
        """For a peer that lost them."""
        return self._observations.again()

    def faults(self) -> list[str]:
        """What is wrong now, in words."""
        faults: list[str] = []
        if not self.camera_open:
            faults.append("the camera delivers no frames")
        if self._capture.lost_fragments:
            faults.append(f"{self._capture.lost_fragments} fragments lost to a slow disk")
        if self._policy.face and self._ring is None:
            faults.append("no room in memory for the frames that the models look at")
        elif self._policy.face and self._not_assessed is not None:
            faults.append(self._not_assessed)
        if self._not_listened is not None:
            faults.append(self._not_listened)
        faults += self._degrade.faults()
        faults += self._check.faults if self.camera_open else []
        if self._stepped_ms:
            faults.append(f"the clock was set by {self._stepped_ms / 1000:+.1f} s while recording")
        if self._observations.refused:
            faults.append(f"{self._observations.refused} observations were refused as impossible or too many")
        return faults

    def ask_to_stop(self) -> None:
        """Film to the end of the open fragment and close the camera; `filming` tells when that is done."""
        self._capture.ask_to_stop()

    def close(self) -> None:
        """Seal, once the camera is closed and all that it filmed was taken."""
        if self.closed:
            return
        if self._ring is not None:
            self._ring.close()
        now_90k = self._now_90k()
        self._tell(self._observations.retry(now_90k))
        self._tell(self._observations.close_all(now_90k))
        if self._observations.waiting:
            log.error("observation.lost count=%d", self._observations.waiting)
        self._check.close(now_90k)
        self.note_findings()
        self._recorder.close(now_90k)
        self._ended = utc_text(self._equipment.clock.wall())

    def end(self) -> None:
        """After `close`: end the session's row; raises StoreFailed while the store refuses, then call it again."""
        self._recorder.notes.settle()
        self._equipment.store.end_session(self.sid, self._ended or utc_text(self._equipment.clock.wall()))
        self._tell_durable()

    def _put_filmed(self, item: FromCamera) -> bool:
        """The capture thread's: to the store, and to the check what the store will get."""
        taken = self._equipment.put_filmed(item)
        if taken and isinstance(item, Captured):
            self._check.keep(item)
        return taken

    def _record(self, item: Captured) -> bool:
        durable = self._recorder.fragment(item.fragment, item.init, item.codec)
        self._degrade.after(item.fragment)
        if not durable:
            return False
        self._tell(self._observations.retry(self._now_90k()))
        self._tell_durable()
        return True

    def _make_ring(self) -> FrameRingWriter | None:
        """Only where the policy lets a model look (F042); the recording goes on without it."""
        if not self._policy.face:
            return None
        try:
            return FrameRingWriter(self._equipment.ring_path, RING_WIDTH_PX, RING_HEIGHT_PX, mode=0o640)
        except (NoSpace, BadConfig) as error:
            log.warning("frames.no_ring reason=%s", error)
            return None

    def _tell_accommodations(self) -> None:
        if self._accommodations:
            now_90k = max(0, self._now_90k())
            report = accommodations_report(self._accommodations, self._policy, now_90k)
            self._tell(self._observations.take(Observed(OWN_PEER, 0, report), now_90k))

    def _now_90k(self) -> int:
        return self._timeline.at_90k(self._equipment.clock.mono_ns())

    def _tell_durable(self) -> None:
        self._equipment.tell({"type": "durable", "sid": self.sid})

    def _tell(self, messages: list[Message]) -> None:
        for message in messages:
            self._equipment.tell(message)
