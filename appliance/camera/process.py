"""Process 1 of a desk node: records. It must not stop: it waits for no network, no model and nobody's lock.

The session row in the index is the truth, the ledger says what the room asked; the socket only wakes. A start finishes
what a crash left: the store recovers, an unfinished session goes on in a new epoch, the time between is a named gap.
"""

from __future__ import annotations

import base64
import logging
import queue
import threading
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from appliance.camera.capture import (
    RING_HEIGHT_PX,
    RING_WIDTH_PX,
    CameraBack,
    CameraLost,
    Capture,
    Captured,
    WatchLease,
)
from appliance.camera.light import LitSource, light_at
from appliance.camera.recorder import EpochRecorder
from appliance.camera.source import open_source
from appliance.clock import Clock, SystemClock, boot_id, parse_utc, utc_text
from appliance.config import NodeConfig
from appliance.errors import ApplianceError
from appliance.evf.recipients import verify_recipient_set
from appliance.frames import FrameRingWriter
from appliance.local_link import LocalServer, Message, Peer
from appliance.policy import ExamPolicy, verify_policy
from appliance.protocol import ObservationReport, StartSession
from appliance.service import notify
from appliance.store.ledger import LedgerView, OrderedSession
from appliance.store.recording import NewSession, RecordingStore, SessionRow
from appliance.store.view import RecordingView
from appliance.trust import load_device_key, load_document, load_public_key

log = logging.getLogger(__name__)

# Two minutes of fragments: longer than any stall of a disk that recovers.
QUEUE_ITEMS = 64
POLL_S = 0.25
FACTS_INTERVAL_S = 1.0
# A model process that says nothing for this long is not assessing.
INFERENCE_SILENCE_S = 5.0


@dataclass(frozen=True)
class Wake:
    """The ledger may have changed."""


@dataclass(frozen=True)
class Observed:
    """An observation from the inference process, not yet durable."""

    key: tuple[int, int]
    report: ObservationReport


Item = Captured | CameraLost | CameraBack | Wake | Observed


@dataclass
class Running:
    """The session that is being recorded now."""

    session: SessionRow
    policy: ExamPolicy
    recorder: EpochRecorder
    capture: Capture
    next_number: int
    numbers: dict[tuple[int, int], int]
    assessing: bool = False


def run(config: NodeConfig, stop: threading.Event) -> None:
    """Record whenever the ledger says so, until `stop`."""
    process = CameraProcess(config, SystemClock())
    try:
        process.run(stop)
    finally:
        process.close()


class CameraProcess:
    """Main thread: owns the store. Other threads only put items into the queue."""

    def __init__(self, config: NodeConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._root_key = load_public_key(config.trust.root_key)
        self._device_key = load_device_key(config.trust.device_key)
        self._recipients = verify_recipient_set(load_document(config.trust.recipient_set), self._root_key, 0)
        config.run_dir.mkdir(parents=True, exist_ok=True)
        self._items: queue.Queue[Item] = queue.Queue(QUEUE_ITEMS)
        self._light = light_at(config.light_pin)
        self._watch = WatchLease(clock)
        self._store = RecordingStore(config.store, clock)
        self._view = RecordingView(config.store)
        self._ledger = LedgerView(config.store / "ledger.db")
        self._running: Running | None = None
        self._camera_problem = self._probe_camera()
        self._inference: tuple[int, float] | None = None
        self._next_facts_ns = 0
        self._ring = FrameRingWriter(config.run_dir / "frames", RING_WIDTH_PX, RING_HEIGHT_PX, mode=0o640)
        self._server = LocalServer(config.run_dir / "camera.sock", self._on_message, self._on_connect)

    def run(self, stop: threading.Event) -> None:
        """Until `stop`; each turn handles one item or a quarter of a second."""
        report = self._store.recovery
        log.info("store.recovered adopted=%d cut_bytes=%d", report.adopted_records, report.truncated_bytes)
        self._resume()
        notify("READY=1")
        while not stop.is_set():
            try:
                item = self._items.get(timeout=POLL_S)
            except queue.Empty:
                item = Wake()
            self._handle(item)
            if self._running is not None and self._running.capture.stuck is not None:
                raise self._running.capture.stuck
            self._tell_facts()
            if self._running is None:
                notify("WATCHDOG=1")

    def close(self) -> None:
        """Seal what is open; a session that has not ended goes on at the next start."""
        if self._running is not None:
            self._stop_epoch(self._running)
        self._server.close()
        self._ring.close()
        self._view.close()
        self._ledger.close()
        self._store.close()

    # --- orders -------------------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        """Continue, or finish, the session that was recording when the last life of this process ended."""
        session = self._store.active_session()
        if session is None:
            return
        newest = self._view.newest_fragment(session.sid)
        covered_until_90k = 0 if newest is None else newest.time_90k_end
        cause = "node restarted" if session.boot_id != boot_id() else "recording process restarted"
        order = self._ledger.order(session.sid)
        if order is None or order.end_command is not None:
            ended = self._clock.wall()
            if order is not None and order.end_command is not None:
                ended = parse_utc(order.end_command["ended_at"])
            end_90k = round((ended - parse_utc(session.started)).total_seconds() * 90_000)
            if end_90k > covered_until_90k:
                self._store.add_gap(session.sid, covered_until_90k, end_90k, cause)
            self._store.end_session(session.sid, utc_text(ended))
            return
        log.info("session.resumed sid=%s", session.sid)
        self._begin_epoch(session, order, covered_until_90k, cause)

    def _follow_orders(self) -> None:
        if self._running is not None:
            order = self._ledger.order(self._running.session.sid)
            if order is not None and order.end_command is not None:
                self._end_session(self._running)
            return
        order = self._ledger.wanted_session()
        if order is None or self._view.session(order.sid) is not None:
            return
        start, policy = self._what_to_record(order)
        new = NewSession(
            sid=start.sid,
            candidate_code=start.candidate_code,
            exam=policy.exam,
            institution=policy.institution,
            policy_id=policy.id,
            policy_version=policy.version,
            retain_until=policy.retention_end.isoformat(),
            started=utc_text(self._clock.wall()),
            started_mono_ns=self._clock.mono_ns(),
            boot_id=boot_id(),
            room=self._config.room,
            desk=self._config.desk,
            recipient_set_version=self._recipients.version,
        )
        self._store.begin_session(new)
        session = self._store.active_session()
        if session is not None:
            log.info("session.begun sid=%s", session.sid)
            self._begin_epoch(session, order, None, "camera was starting")

    def _what_to_record(self, order: OrderedSession) -> tuple[StartSession, ExamPolicy]:
        start = StartSession.model_validate(order.start_command)
        return start, verify_policy(start.policy, self._root_key)

    def _begin_epoch(
        self, session: SessionRow, order: OrderedSession, covered_until_90k: int | None, cause: str
    ) -> None:
        _, policy = self._what_to_record(order)
        recorder = EpochRecorder(
            self._store, session, self._recipients, self._device_key, self._clock,
            covered_until_90k=covered_until_90k, gap_cause=cause,
        )  # fmt: skip
        capture = Capture(
            self._config.camera, policy.video, self._light, self._ring, 1 / self._config.inference_rate_hz,
            self._clock, lambda mono_ns: self._session_90k(session, mono_ns), self._watch, self._on_preview,
            self._items,  # type: ignore[arg-type]  # a queue of the wider item
        )  # fmt: skip
        # Numbers never repeat in a session: each epoch has a range of its own.
        self._running = Running(session, policy, recorder, capture, recorder.epoch * 1_000_000, {})
        capture.start()
        self._server.broadcast(self._session_message())
        self._server.broadcast({"type": "durable", "sid": session.sid})

    def _stop_epoch(self, running: Running) -> int:
        """Stop filming, keep what is still queued, seal; returns the end in session time."""
        running.capture.stop()
        while True:
            try:
                self._handle_recorded(self._items.get_nowait())
            except queue.Empty:
                break
        end_90k = self._session_90k(running.session, self._clock.mono_ns())
        running.recorder.close(end_90k)
        return end_90k

    def _end_session(self, running: Running) -> None:
        # The inference process closes its open observations first; they arrive as items within its next turn.
        self._server.broadcast({"type": "session", "sid": None})
        deadline = self._clock.mono_ns() + round(0.5e9)
        while running.assessing and self._clock.mono_ns() < deadline:
            try:
                self._handle_recorded(self._items.get(timeout=0.05))
            except queue.Empty:
                continue
        self._stop_epoch(running)
        self._store.end_session(running.session.sid, utc_text(self._clock.wall()))
        self._running = None
        log.info("session.ended sid=%s", running.session.sid)
        self._server.broadcast({"type": "durable", "sid": running.session.sid})

    def _session_90k(self, session: SessionRow, mono_ns: int) -> int:
        """Session time of a monotonic moment; after a reboot the wall clock bridges the two boots."""
        if session.boot_id == boot_id():
            return (mono_ns - session.started_mono_ns) * 9 // 100_000
        ago_s = (self._clock.mono_ns() - mono_ns) / 1e9
        since = self._clock.wall() - parse_utc(session.started)
        return round((since.total_seconds() - ago_s) * 90_000)

    # --- items --------------------------------------------------------------------------------------------------------

    def _handle(self, item: Item) -> None:
        if isinstance(item, Wake):
            self._follow_orders()
        else:
            self._handle_recorded(item)

    def _handle_recorded(self, item: Item) -> None:
        running = self._running
        if running is None:
            return
        match item:
            case Captured():
                if running.recorder.fragment(item.fragment, item.init, item.codec):
                    notify("WATCHDOG=1")
                    self._server.broadcast({"type": "durable", "sid": running.session.sid})
            case CameraLost():
                running.recorder.note_gap_cause(f"camera lost: {item.cause}")
                running.recorder.event("camera_lost", cause=item.cause)
            case CameraBack():
                running.recorder.event("camera_back")
            case Observed():
                self._record_observation(running, item)
            case Wake():
                pass

    def _record_observation(self, running: Running, item: Observed) -> None:
        number = running.numbers.get(item.key)
        if number is None:
            number = running.numbers[item.key] = running.next_number
            running.next_number += 1
        report = item.report.model_dump(mode="json")
        end_90k = item.report.end_90k if item.report.end_90k is not None else item.report.start_90k
        if running.recorder.observation(number, report, end_90k):
            self._server.broadcast(
                {"type": "observation", "sid": running.session.sid, "number": number, "report": report}
            )

    # --- the local link -----------------------------------------------------------------------------------------------

    def _on_connect(self, peer: Peer) -> None:
        peer.send(self._session_message())

    def _on_message(self, peer: Peer, message: Message) -> None:
        """Runs in the peer's thread: validates and queues."""
        match message["type"]:
            case "wake":
                self._offer(Wake())
            case "watch":
                lease_s = message.get("lease_s")
                if isinstance(lease_s, int | float):
                    self._watch.renew(str(message.get("mode")), min(float(lease_s), 10.0))
            case "inference":
                rate_hz = message.get("rate_hz")
                if isinstance(rate_hz, int | float):
                    self._inference = (self._clock.mono_ns(), float(rate_hz))
            case "observation":
                try:
                    report = ObservationReport.model_validate(message.get("report"))
                    key = (id(peer), int(message.get("key", 0)))
                except (ValidationError, TypeError, ValueError) as error:
                    log.warning("observation.refused reason=%s", type(error).__name__)
                    return
                self._offer(Observed(key, report))

    def _offer(self, item: Item) -> None:
        try:
            self._items.put_nowait(item)
        except queue.Full:
            log.warning("camera.queue_full dropped=%s", type(item).__name__)

    def _on_preview(self, jpeg: bytes) -> None:
        self._server.broadcast({"type": "preview", "jpeg": base64.b64encode(jpeg).decode()})

    def _session_message(self) -> Message:
        running = self._running
        if running is None:
            return {"type": "session", "sid": None}
        return {
            "type": "session",
            "sid": running.session.sid,
            "face": running.policy.face,
            "gaze": running.policy.gaze,
            "started_mono_ns": self._clock.mono_ns()
            - self._session_90k(running.session, self._clock.mono_ns()) * 100_000 // 9,
            "levels": dict(running.policy.levels),
        }

    # --- facts --------------------------------------------------------------------------------------------------------

    def _tell_facts(self) -> None:
        now = self._clock.mono_ns()
        if now < self._next_facts_ns:
            return
        self._next_facts_ns = now + round(FACTS_INTERVAL_S * 1e9)
        rate_hz = self._inference_rate_hz(now)
        running = self._running
        if running is not None and running.policy.face and (rate_hz is not None) != running.assessing:
            running.assessing = rate_hz is not None
            running.recorder.event("assessment_began" if running.assessing else "assessment_stopped")
        facts: dict[str, Any] = {
            "type": "facts",
            "camera_open": running is not None and running.capture.camera_open,
            "camera_problem": self._camera_problem,
            "light_on": self._light.is_lit,
            "inference_rate_hz": rate_hz,
            "faults": self._faults(running),
        }
        self._server.broadcast(facts)

    def _inference_rate_hz(self, now_mono_ns: int) -> float | None:
        if self._inference is None or now_mono_ns - self._inference[0] > INFERENCE_SILENCE_S * 1e9:
            return None
        return self._inference[1]

    def _faults(self, running: Running | None) -> list[str]:
        faults: list[str] = []
        if running is not None and not running.capture.camera_open:
            faults.append("the camera delivers no frames")
        if running is not None and running.capture.lost_fragments:
            faults.append(f"{running.capture.lost_fragments} fragments lost to a slow disk")
        if running is not None and running.policy.face and not running.assessing:
            faults.append("face and gaze are not being assessed")
        return faults

    def _probe_camera(self) -> str | None:
        """Open the camera once, with its light, and close it: whether an exam could start here."""
        active = self._store.active_session()
        if active is not None:
            return None
        video = (1280, 720, 15)
        try:
            with LitSource(open_source(self._config.camera, *video, self._clock), self._light) as source:
                if source.read(5.0) is None:
                    return "the camera delivered no frame within 5 s"
        except ApplianceError as error:
            log.warning("camera.probe_failed reason=%s", error)
            return str(error)
        finally:
            # Nothing is armed: a light left on by a crash, or by a camera that is not there, goes out.
            self._light.off()
        return None
