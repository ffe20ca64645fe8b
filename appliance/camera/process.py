"""Process 1 of a desk node: records. It must not stop: it waits for no network, no model and nobody's lock.

The session row in the index is the truth, the ledger says what the room asked; the socket only wakes. A start finishes
what a crash left: the store recovers, an unfinished session goes on in a new epoch, the time between is a named gap.
"""

from __future__ import annotations

import gc
import logging
import threading
from dataclasses import replace
from typing import Any

from appliance.camera.inbox import Greet, Inbox, Item, Replay, Wake
from appliance.camera.notes import cause_of
from appliance.camera.orders import RecordingOrder, ordered_end
from appliance.camera.peers import Peers
from appliance.camera.pictures import WatchLease
from appliance.camera.probe import PROBE_VIDEO, camera_problem
from appliance.camera.session import Equipment, Interruption, RunningSession
from appliance.camera.source import CameraSource, open_source
from appliance.camera.timeline import wall_90k
from appliance.clock import Clock, SystemClock, boot_id, parse_utc, utc_text
from appliance.config import NodeConfig
from appliance.errors import ApplianceError, CameraStuck, StoreFailed
from appliance.evf.errors import EvfError
from appliance.evf.recipients import RecipientSet, verify_recipient_set
from appliance.evf.signed import sign_document
from appliance.frames import require_memory_backed
from appliance.hardening import keys_stay_in_memory
from appliance.light import light_at
from appliance.local_link import Message
from appliance.one_thread import stay_in_one_thread
from appliance.policy import Video
from appliance.service import notify
from appliance.store.ledger import ROOM_TIME, LedgerView, OrderedSession
from appliance.store.purge import PURPOSE, agreed_time, reason_to_purge
from appliance.store.recording import RecordingStore, SessionRow
from appliance.store.view import RecordingView
from appliance.trust import load_document, load_private_key, load_public_key

log = logging.getLogger(__name__)

POLL_S = 0.25
# After an order that could not be followed.
RETRY_S = 2.0
FACTS_INTERVAL_S = 1.0
PROBE_INTERVAL_S = 10.0
PURGE_INTERVAL_S = 30.0
# The inference process closes its open observations within a turn of its own.
LAST_WORDS_S = 0.5
NO_SESSION: Message = {"type": "session", "sid": None}


def run(config: NodeConfig, stop: threading.Event) -> None:
    """Record whenever the ledger says so, until `stop`."""
    stay_in_one_thread()
    process = CameraProcess(config, SystemClock())
    try:
        process.run(stop)
    finally:
        process.close()


class CameraProcess:
    """Main thread: owns the store. Other threads only put items into the inbox."""

    def __init__(self, config: NodeConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._boot_id = boot_id()
        self._root_key = load_public_key(config.trust.root_key)
        self._device_key = load_private_key(config.trust.device_key)
        config.run_dir.mkdir(parents=True, exist_ok=True)
        require_memory_backed(config.run_dir)
        self._inbox = Inbox()
        self._light = light_at(config.light_pin)
        self._watch = WatchLease(clock)
        self._store = RecordingStore(config.store, clock)
        # Pictures that a killed process left in memory; only the store's one writer may take them away.
        ring_path = config.run_dir / "frames"
        ring_path.unlink(missing_ok=True)
        self._view = RecordingView(config.store)
        self._ledger = LedgerView(config.store / "ledger.db")
        self._running: RunningSession | None = None
        self._last_words: list[Message] = []
        self._pause_cause: str | None = None
        self._problem: str | None = None
        self._orders_due_ns = self._facts_due_ns = self._probe_due_ns = self._purge_due_ns = 0
        self._camera_problem: str | None = None
        self._stuck: CameraStuck | None = None
        if self._store.active_session() is None:
            self._probe_camera()
        self._peers = Peers(config.run_dir / "camera.sock", self._inbox, self._watch, clock)
        self._equipment = Equipment(
            store=self._store,
            clock=clock,
            boot_id=self._boot_id,
            device_key=self._device_key,
            light=self._light,
            make_source=self._make_source,
            ring_path=ring_path,
            inference_rate_hz=config.inference_rate_hz,
            watch=self._watch,
            on_preview=self._peers.show_preview,
            put_filmed=self._inbox.put_filmed,
            tell=self._peers.tell,
        )

    def run(self, stop: threading.Event) -> None:
        """Until `stop`; each turn takes one item or a quarter of a second."""
        report = self._store.recovery
        log.info("store.recovered adopted=%d cut_bytes=%d", report.adopted_records, report.truncated_bytes)
        self._follow_orders()
        notify("READY=1")
        while not stop.is_set():
            self._take_next(POLL_S)
            if self._clock.mono_ns() >= self._orders_due_ns:
                self._follow_orders()
            if self._running is not None:
                self._running.require_filming()
            elif self._camera_problem is not None and self._clock.mono_ns() >= self._probe_due_ns:
                self._probe_camera()
            if self._running is None and self._clock.mono_ns() >= self._purge_due_ns:
                self._purge_one()
            self._tell_facts()
            # Proof of work is a durable fragment; without a camera, or without a session, it is this turn.
            if self._problem is None and (self._running is None or self._running.waits_for_camera):
                notify("WATCHDOG=1")

    def close(self) -> None:
        """Seal what is open; a session that has not ended goes on at the next start."""
        if self._running is not None:
            self._stop_filming(self._running)
        self._peers.close()
        self._view.close()
        self._ledger.close()
        self._store.close()

    # --- items --------------------------------------------------------------------------------------------------------

    def _take_next(self, timeout_s: float) -> None:
        item = self._inbox.get(timeout_s)
        if item is not None:
            self._take(item)

    def _take(self, item: Item) -> None:
        match item:
            case Wake():
                self._orders_due_ns = 0
            case Greet():
                item.peer.send(NO_SESSION if self._running is None else self._running.message)
                self._replay(item)
            case Replay():
                self._replay(item)
            case _:
                if self._running is not None and self._running.take(item):
                    notify("WATCHDOG=1")

    def _replay(self, item: Greet | Replay) -> None:
        messages = self._last_words if self._running is None else self._running.observations_again()
        for message in messages:
            item.peer.send(message)

    # --- orders -------------------------------------------------------------------------------------------------------

    def _follow_orders(self) -> None:
        """Bring what runs in line with what is ordered; what cannot be done now is told and tried again."""
        wait_s = POLL_S
        recorded = self._running is not None
        try:
            self._reconcile()
            self._problem = None
            if recorded and self._running is None:
                # A film's container and its streams hold each other, and with them pictures of who sat here: they
                # would stay in memory until the garbage collector happens to come by, some exams later.
                gc.collect()
        except (ApplianceError, EvfError) as error:
            if str(error) != self._problem:
                log.warning("orders.not_followed reason=%s", error)
            self._problem = str(error)
            if isinstance(error, StoreFailed):
                self._pause_cause = cause_of(error)
            wait_s = RETRY_S
        self._orders_due_ns = self._clock.mono_ns() + round(wait_s * 1e9)

    def _reconcile(self) -> None:
        running = self._running
        if running is not None:
            order = self._ledger.order(running.sid)
            if running.closed or (order is not None and ordered_end(order) is not None):
                self._end(running)
            return
        session = self._store.active_session()
        if session is not None:
            self._go_on(session)
            return
        order = self._ledger.wanted_session()
        if order is not None and self._view.session(order.sid) is None:
            self._begin(order)
            return
        for order in self._ledger.ended_sessions():
            if self._view.session(order.sid) is None:
                self._keep_unbegun(order)

    def _begin(self, order: OrderedSession) -> None:
        wanted = RecordingOrder.read(order, self._root_key)
        recipients = self._recipient_set()
        self._store.begin_session(
            wanted.new_session(self._config, self._clock, recipients.version), wanted.footage_bytes()
        )
        session = self._store.active_session()
        if session is not None:
            log.info("session.begun sid=%s", session.sid)
            self._run_session(session, wanted, recipients, None)

    def _keep_unbegun(self, order: OrderedSession) -> None:
        """A session that was ended before this process could begin it: it can be certified, and nothing is filmed."""
        wanted = RecordingOrder.read(order, self._root_key)
        ended = ordered_end(order) or utc_text(self._clock.wall())
        new = wanted.new_session(self._config, self._clock, self._recipient_set().version)
        self._store.begin_session(replace(new, started=ended))
        session = self._store.active_session()
        if session is not None:
            self._finish(session, 0, "ended before recording began", ended)

    def _go_on(self, session: SessionRow) -> None:
        """Continue, or finish, a session that nothing records though it has not ended."""
        newest = self._view.newest_fragment(session.sid)
        named = [gap.end_90k for gap in self._view.gaps(session.sid)]
        covered_90k = max([0 if newest is None else newest.time_90k_end, *named])
        same_boot = self._store.origin(session, self._boot_id) is not None
        cause = self._pause_cause or ("recording process restarted" if same_boot else "node restarted")
        order = self._ledger.order(session.sid)
        # A session that no order stands behind any more cannot go on: nobody could end it.
        ended = None if order is None else ordered_end(order)
        if order is None or ended is not None:
            self._finish(session, covered_90k, cause, ended or utc_text(self._clock.wall()))
            return
        wanted = RecordingOrder.read(order, self._root_key)
        already_s = (self._clock.wall() - parse_utc(session.started)).total_seconds()
        held_bytes = self._store.reserve_again(wanted.footage_bytes(already_s))
        log.info("session.resumed sid=%s cause=%s reserved_bytes=%d", session.sid, cause, held_bytes)
        # Steps that were noted in the first boot are not to be noted again; in a later one the watch begins anew.
        first_boot = session.boot_id == self._boot_id
        noted = [event.body for event in self._view.events(session.sid)] if first_boot else []
        moved_ms = sum(body["by_ms"] for body in noted if body["kind"] == "clock_step")
        after = Interruption(covered_90k, cause, moved_ms)
        self._run_session(session, wanted, self._recipient_set(), after)

    def _finish(self, session: SessionRow, covered_90k: int, cause: str, ended: str) -> None:
        end_90k = wall_90k(session, parse_utc(ended))
        if end_90k > covered_90k:
            self._store.add_gap(session.sid, covered_90k, end_90k, cause)
        if not self._view.leaf_count(session.sid):
            # Nothing was recorded; without a leaf for the room to witness that could never be certified.
            body = {"kind": "session_close", "at": utc_text(self._clock.wall()), "cause": cause}
            self._store.append_event(session.sid, body)
        self._store.end_session(session.sid, ended)
        log.info("session.ended sid=%s cause=%s", session.sid, cause)
        self._peers.tell({"type": "durable", "sid": session.sid})

    def _run_session(
        self,
        session: SessionRow,
        wanted: RecordingOrder,
        recipients: RecipientSet,
        after: Interruption | None,
    ) -> None:
        self._running = RunningSession(
            self._equipment, session, wanted.policy, recipients, after, wanted.start.accommodations
        )
        self._pause_cause = None
        self._peers.tell(self._running.message)

    def _end(self, running: RunningSession) -> None:
        if not running.closed:
            self._peers.tell(NO_SESSION)
            deadline_ns = self._clock.mono_ns() + round(LAST_WORDS_S * 1e9)
            while running.any_observation_open and self._clock.mono_ns() < deadline_ns:
                self._take_next(0.05)
            self._camera_problem = running.lost_cause
            self._stop_filming(running)
        running.end()
        self._last_words = running.observations_again()
        self._running = None
        log.info("session.ended sid=%s", running.sid)

    def _stop_filming(self, running: RunningSession) -> None:
        """Close the camera, keep what is still queued, seal."""
        running.ask_to_stop()
        while running.filming:
            self._take_next(0.05)
        for _ in range(len(self._inbox)):
            self._take_next(0)
        running.close()

    def _recipient_set(self) -> RecipientSet:
        """Read anew for each epoch, and never an older one than the room's link has seen (FORMAT.md, Keys)."""
        document = load_document(self._config.trust.recipient_set)
        return verify_recipient_set(document, self._root_key, self._ledger.recipient_set_version())

    def _purge_one(self) -> None:
        """At most one session, so that an order never waits for more; nothing while one records or is to record."""
        self._purge_due_ns = self._clock.mono_ns() + round(PURGE_INTERVAL_S * 1e9)
        try:
            if self._store.active_session() is not None or self._ledger.wanted_session() is not None:
                return
            self._store.finish_purges(self._receipt)
            for row in self._view.sessions():
                reason = self._reason_to_purge(row) if row.local_copy == "there" else None
                if reason is not None:
                    self._store.purge(row.sid, reason, self._receipt)
                    self._purge_due_ns = 0
                    return
        except (StoreFailed, EvfError) as error:
            log.warning("purge.waits reason=%s", error)

    def _reason_to_purge(self, row: SessionRow) -> str | None:
        order = self._ledger.order(row.sid)
        if order is None:
            return None
        try:
            purge_after_h = RecordingOrder.read(order, self._root_key).policy.purge_after_h
        except ApplianceError as error:
            log.warning("purge.unknown_policy sid=%s reason=%s", row.sid, error)
            return None
        now = agreed_time(self._clock.wall(), self._ledger.get(ROOM_TIME))
        return None if now is None else reason_to_purge(row, order, purge_after_h, now)

    def _receipt(self, body: dict[str, Any]) -> dict[str, Any]:
        return sign_document(PURPOSE, body, self._device_key)

    # --- camera and facts ---------------------------------------------------------------------------------------------

    def _make_source(self, video: Video) -> CameraSource:
        return open_source(
            self._config.camera, video.width_px, video.height_px, video.frame_rate_hz, self._clock
        )

    def _probe_camera(self) -> None:
        if self._stuck is not None:
            raise self._stuck
        try:
            self._camera_problem = camera_problem(self._make_source(PROBE_VIDEO), self._light)
        except CameraStuck as error:
            # The room hears why until the next probe is due; then only a new process helps.
            self._stuck, self._camera_problem = error, str(error)
        except ApplianceError as error:
            self._camera_problem = str(error)
        self._probe_due_ns = self._clock.mono_ns() + round(PROBE_INTERVAL_S * 1e9)

    def _tell_facts(self) -> None:
        now = self._clock.mono_ns()
        if now < self._facts_due_ns:
            return
        self._facts_due_ns = now + round(FACTS_INTERVAL_S * 1e9)
        rate_hz = self._peers.inference_rate_hz(now)
        running = self._running
        faults = [] if self._problem is None else [self._problem]
        if not keys_stay_in_memory():
            faults.append("swap could get recording keys; see the node's log")
        if running is not None:
            running.assessed(rate_hz, self._peers.inference_problem(now))
            running.listened(self._peers.listening_problem(now))
            running.note_findings()
            faults += running.faults()
        facts: dict[str, Any] = {
            "type": "facts",
            "camera_open": running is not None and running.camera_open,
            "camera_problem": self._camera_problem,
            "light_on": self._light.is_lit,
            "inference_rate_hz": rate_hz,
            "faults": faults,
        }
        self._peers.tell(facts)
