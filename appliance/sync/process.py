"""Process 3 of a desk node: the room's orders in, the desk's facts, checkpoints and released recordings out.

The databases are the truth and a start is a recovery: SIGKILL anywhere costs nothing that the next start does not say
again. Other threads (MQTT, local link, senders) only put into one queue; this thread does everything else.
"""

from __future__ import annotations

import logging
import queue
import shutil
import threading
from collections import deque

from appliance.clock import Clock, SystemClock, boot_id, parse_utc, utc_text
from appliance.config import NodeConfig
from appliance.errors import StoreFailed
from appliance.local_link import LocalClient, Message
from appliance.protocol import (
    ClockMessage,
    FromNode,
    Notice,
    ToNode,
    Watch,
    WitnessMessage,
    clock_topic,
    decode,
    desk_topic,
    encode,
)
from appliance.service import notify
from appliance.store.layout import Layout
from appliance.store.ledger import ROOM_TIME, Ledger
from appliance.store.view import RecordingView
from appliance.sync.certificate import Certificates
from appliance.sync.connection import Acknowledged, Connected, Ended, Incoming, LinkEvent
from appliance.sync.link import Link
from appliance.sync.orders import DeskFacts, Orders
from appliance.sync.previews import ObservationOutbox, WatchLease, jpeg_of
from appliance.sync.room_clock import ClockReading, RoomClock
from appliance.sync.sender import PutDone, Sender
from appliance.sync.sessions import Sessions
from appliance.sync.status import CameraFacts, StatusFacts, build_status, camera_facts
from appliance.sync.trust import load_trust

log = logging.getLogger(__name__)

TURN_S = 0.2
STATUS_INTERVAL_S = 1.0
# The controller tells the time every 2 s, the camera process how it is every second.
SETTLING_S = 5.0
# Dates of a purge are days; the ledger need not hear each tick.
ROOM_TIME_INTERVAL_NS = 600 * 10**9
MIN_STATUS_INTERVAL_S = 0.1  # changes come in bursts

Item = LinkEvent | PutDone | Message


def run(config: NodeConfig, stop: threading.Event) -> None:
    """Serve one desk until `stop`. Raises BadConfig, StoreFailed and their like; run it under `service.run_service`."""
    process = SyncProcess(config, SystemClock())
    try:
        process.run(stop)
    finally:
        process.close()


class SyncProcess:
    """Wires link, ledger, view, camera and uploads; owned by the main thread."""

    def __init__(self, config: NodeConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._boot_id = boot_id()
        trust = load_trust(config)
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._certificates = trust.certificates
        self._link = Link(
            config,
            clock,
            self._boot_id,
            self._items.put,
            lambda: None if trust.certificates.valid_at(clock.wall()) else self._certificate_problem(),
        )
        self._ledger = Ledger(Layout(config.store).ledger_db)
        self._view = RecordingView(config.store)
        certificates = Certificates(self._view, trust)
        self._sender = Sender(self._items.put)
        self._sessions = Sessions(
            config,
            trust,
            self._ledger,
            self._view,
            certificates,
            self._sender,
            self._link.publish,
            # A card that dies answers late: each file that was read is proof of work.
            lambda: notify("WATCHDOG=1"),
        )
        self._orders = Orders(config, trust, self._ledger, self._view, clock, certificates.sha256)
        self._room_clock = RoomClock(clock)
        self._camera = CameraFacts()
        self._watch = WatchLease()
        self._observations = ObservationOutbox()
        self._controller_life: str | None = None
        self._room_time_due_ns = 0
        self._status_due_ns = 0
        self._status_at_ns = 0
        self._status_message_id: int | None = None
        self._waiting_orders: deque[bytes] = deque()
        self._settled_ns = clock.mono_ns() + round(SETTLING_S * 1e9)
        self._local = LocalClient(config.run_dir / "camera.sock", self._items.put)

    def run(self, stop: threading.Event) -> None:
        """Each turn handles what came and takes every duty one step further."""
        notify("READY=1")
        while not stop.is_set():
            self.turn(TURN_S)

    def turn(self, wait_s: float) -> None:
        """Handle what came, or comes within `wait_s`, and take every duty one step further."""
        try:
            self._handle(self._items.get(timeout=wait_s))
            while True:
                self._handle(self._items.get_nowait())
        except queue.Empty:
            self._step()

    def close(self) -> None:
        """Say "stopped" and give everything back."""
        self._link.close()
        self._local.close()
        self._sender.close()
        self._view.close()
        self._ledger.close()

    def _step(self) -> None:
        now = self._clock.mono_ns()
        self._link.step(lambda: self._ledger.connection_number(self._boot_id))
        self._obey_waiting()
        self._sessions.step(now, self._link.connected)
        if self._link.connected:
            self._send_observations()
        if now >= self._status_due_ns:
            self._send_status(now)

    def _handle(self, item: Item) -> None:
        match item:
            case Incoming():
                self._take(item)
                self._link.acknowledge(item)
            case Connected():
                self._link.handle(item)
                self._observations.connection_lost()
                self._sessions.connection_began()
                self._status_message_id = None
                self._status_soon()
            case Ended():
                self._link.handle(item)
            case Acknowledged():
                if item.number == self._link.number:
                    self._observations.acknowledged(item.message_id)
                    if item.message_id == self._status_message_id:
                        self._status_message_id = None
            case PutDone():
                self._sessions.put_done(item, self._clock.mono_ns())
                self._status_soon()
            case _:
                self._take_local(item)

    # --- from the room ------------------------------------------------------------------------------------------------

    def _take(self, message: Incoming) -> None:
        room, desk = self._config.room, self._config.desk
        try:
            if message.topic == desk_topic(room, desk, ToNode.COMMAND):
                self._waiting_orders.append(message.payload)
                self._obey_waiting()
            elif message.topic == desk_topic(room, desk, ToNode.WITNESS):
                self._sessions.witnessed(decode(WitnessMessage, message.payload))
            elif message.topic == desk_topic(room, desk, ToNode.GRANTS):
                self._sessions.granted(message.payload, self._clock.mono_ns())
                self._status_soon()
            elif message.topic == desk_topic(room, desk, ToNode.WATCH):
                self._renew_watch(decode(Watch, message.payload))
            elif message.topic == desk_topic(room, desk, ToNode.NOTICE):
                decode(Notice, message.payload)
                self._link.another_machine()
                self._status_soon()
            elif message.topic == clock_topic(room):
                self._hear_clock(decode(ClockMessage, message.payload), message.arrived_mono_ns)
        except ValueError as error:  # BadInput, and a time that is none
            log.warning("link.bad_message topic=%s reason=%s", message.topic, error)

    def _hear_clock(self, message: ClockMessage, arrived_mono_ns: int) -> None:
        self._room_clock.heard(parse_utc(message.at), arrived_mono_ns)
        if arrived_mono_ns >= self._room_time_due_ns:
            self._room_time_due_ns = arrived_mono_ns + ROOM_TIME_INTERVAL_NS
            try:
                self._ledger.set(ROOM_TIME, message.at)
            except StoreFailed as error:
                log.warning("ledger.room_time_not_kept reason=%s", error)
        if self._controller_life not in (None, message.life):
            # The page's list of observations died with the old one; the camera process still has them in RAM.
            self._local.send({"type": "replay"})
            self._sessions.connection_began()
        self._controller_life = message.life

    def _obey_waiting(self) -> None:
        """In order. A process that has just begun waits until it has heard clock and camera: no start fails by that."""
        while self._waiting_orders:
            young = self._clock.mono_ns() < self._settled_ns
            if young and self._orders.preflight_problems(self._desk_facts()):
                return
            self._obey(self._waiting_orders.popleft())

    def _obey(self, payload: bytes) -> None:
        reply = self._orders.take(payload, self._desk_facts())
        self._status_soon()
        if reply is None:
            return
        self._sessions.ledger_changed()
        self._local.send({"type": "wake"})
        self._link.publish(FromNode.REPLY, encode(reply))

    def _renew_watch(self, watch: Watch) -> None:
        policy = self._sessions.recording_policy()
        if policy is not None and policy.preview:
            self._local.send(self._watch.renew(watch, self._clock.mono_ns()))

    # --- from the camera process --------------------------------------------------------------------------------------

    def _take_local(self, message: Message) -> None:
        now = self._clock.mono_ns()
        match message.get("type"):
            case "facts":
                facts = camera_facts(message, now)
                if _without_time(facts) != _without_time(self._camera):
                    self._status_soon()
                self._camera = facts
            case "preview":
                jpeg = jpeg_of(message)
                if jpeg is not None and self._watch.running(now):
                    self._link.publish_preview(jpeg)
            case "observation":
                if not self._observations.add(message):
                    log.warning("local.bad_observation")

    def _send_observations(self) -> None:
        for key, observation in self._observations.unsent():
            message_id = self._link.publish(FromNode.OBSERVATION, encode(observation))
            if message_id is None:
                return
            self._observations.sent(key, message_id)

    # --- status -------------------------------------------------------------------------------------------------------

    def _desk_facts(self) -> DeskFacts:
        return DeskFacts(self._room_clock.reading(), self._camera.problem(self._clock.mono_ns()))

    def _status_soon(self) -> None:
        self._status_due_ns = min(
            self._status_due_ns, self._status_at_ns + round(MIN_STATUS_INTERVAL_S * 1e9)
        )

    def _send_status(self, now: int) -> None:
        self._status_at_ns, self._status_due_ns = now, now + round(STATUS_INTERVAL_S * 1e9)
        facts = self._desk_facts()
        active = self._view.active_session()
        age_s = None if active is None else self._view.recording_age_s(active.sid, self._clock, self._boot_id)
        status = build_status(
            StatusFacts(
                desk=self._config.desk,
                boot_id=self._boot_id,
                connection=self._link.number,
                at=utc_text(self._clock.wall()),
                now_mono_ns=now,
                camera=self._camera,
                clock=facts.clock,
                recording_age_s=age_s,
                free_bytes=shutil.disk_usage(self._config.store).free,
                preflight_problems=self._orders.preflight_problems(facts),
                recording=active is not None,
                sessions=self._sessions.facts(),
                faults=self._faults(facts.clock),
            )
        )
        # Both databases have just been read: the work that the watchdog stands for.
        notify("WATCHDOG=1")
        if self._status_message_id is None:
            self._status_message_id = self._link.publish(FromNode.STATUS, encode(status), retain=True)

    def _faults(self, clock: ClockReading) -> list[str]:
        faults = self._sessions.faults() + self._link.faults()
        certificate = self._certificate_problem()
        if certificate is not None:
            faults.append(certificate)
        if self._orders.foreign:
            faults.append(f"{self._orders.foreign} commands were refused: not from this room's controller")
        if self._orders.waiting:
            faults.append(self._orders.waiting)
        if self._observations.dropped:
            faults.append(
                f"{self._observations.dropped} observations stand only in the recording, not on this page"
            )
        if clock.offset_s is not None and not clock.synced:
            faults.append(
                f"the clock is {abs(clock.offset_s):.1f} s away from the room's, or the room's was not heard"
            )
        return faults

    def _certificate_problem(self) -> str | None:
        return self._certificates.problem(self._clock.wall())


def _without_time(facts: CameraFacts) -> tuple[object, ...]:
    return (
        facts.camera_open,
        facts.camera_problem,
        facts.light_on,
        facts.faults,
        facts.inference_rate_hz is None,
    )
