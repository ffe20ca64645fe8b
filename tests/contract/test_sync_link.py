"""A desk's link against a real Mosquitto with mutual TLS: presence, wills, refusals, broker restarts, nothing lost."""

from __future__ import annotations

import gc
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from appliance.clock import SystemClock, boot_id, utc_text
from appliance.config import RoomConfig
from appliance.errors import BadConfig
from appliance.evf.format import RecordKind
from appliance.protocol import (
    CheckpointMessage,
    ClockMessage,
    FromNode,
    ManifestMessage,
    Presence,
    Reply,
    SessionPhase,
    Status,
    ToNode,
    clock_topic,
    decode,
    desk_topic,
    encode,
)
from appliance.room.broker import run_broker
from appliance.sync.connection import Connected, Ended, Incoming, LinkEvent
from appliance.sync.link import Link
from provisioning.ca import create_room
from tests.mqtt_client import let_go
from tests.unit.test_store_builders import FRAGMENT_90K, SID, Desk
from tests.unit.test_sync_room import DESK, ROOM, Bench, Controller

pytestmark = pytest.mark.slow
BOOT = boot_id()
Found = TypeVar("Found")

NODE = """
import sys
from pathlib import Path
from appliance.config import NodeConfig, load_config
from appliance.service import run_service
from appliance.sync.process import run
config = load_config(Path(sys.argv[1]), NodeConfig)
sys.exit(run_service("sync", lambda stop: run(config, stop)))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(look: Callable[[], Found | None], what: str, timeout_s: float = 60.0) -> Found:
    """Wait for a value; real time, since broker and processes are real."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = look()
        if found is not None and found is not False:
            return found
        time.sleep(0.02)
    raise AssertionError(f"never saw: {what}")


class Room:
    """Broker and a controller's client that keeps everything which desks say."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.bench = Bench(folder, broker_port=self.port)
        trust = folder / "room" / "trust"
        self.config = RoomConfig.model_validate(
            {
                "institution": "uni",
                "room": ROOM,
                "broker_port": self.port,
                "trust": {
                    "room_ca": self._ca(folder),
                    "broker_certificate": trust / "broker.pem",
                    "broker_key": trust / "broker.key",
                },
            }
        )
        self.folder = folder
        self.heard: list[tuple[str, bytes, bool]] = []
        self.answers: dict[str, Controller] = {}
        self.broker = run_broker(self.config, folder / "broker")
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id="controller", protocol=MQTTProtocolVersion.MQTTv5
        )
        self.client.reconnect_delay_set(1, 1)
        self.client.tls_set(
            str(self.config.trust.room_ca), str(trust / "controller.pem"), str(trust / "controller-tls.key")
        )
        self.client.on_connect = lambda client, *_rest: client.subscribe(f"invigil/1/{ROOM}/#", 1)
        self.listening = threading.Event()
        self.client.on_subscribe = lambda *_of_it: self.listening.set()
        self.client.on_disconnect = lambda *_of_it: self.listening.clear()
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", self.port, 5)
        self.client.loop_start()
        until(self.listening.is_set, "the controller's client listens")
        self.nodes: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def _ca(folder: Path) -> Path:
        (found,) = [
            path for path in (folder / "room").rglob("*.pem") if path.name in ("room-ca.pem", "ca.pem")
        ]
        return found

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        self.heard.append((message.topic, bytes(message.payload), message.retain))
        if message.topic == desk_topic(ROOM, DESK, FromNode.CHECKPOINT) and self.answers:
            checkpoint = decode(CheckpointMessage, message.payload)
            answer = self.answers[checkpoint.sid].answer(checkpoint)
            self.client.publish(desk_topic(ROOM, DESK, ToNode.WITNESS), encode(answer), 1)

    def said(self, leaf: FromNode) -> list[bytes]:
        topic = desk_topic(ROOM, DESK, leaf)
        return [payload for said, payload, _ in list(self.heard) if said == topic]

    def presences(self) -> list[tuple[str, int]]:
        found = [decode(Presence, payload) for payload in self.said(FromNode.PRESENCE)]
        assert all(presence.boot_id == BOOT for presence in found)
        return [(presence.state, presence.connection) for presence in found]

    def status(self) -> Status | None:
        found = self.said(FromNode.STATUS)
        return decode(Status, found[-1]) if found else None

    def order(self, payload: bytes) -> None:
        self.client.publish(desk_topic(ROOM, DESK, ToNode.COMMAND), payload, 1)

    def tell_time(self, life: str = "0123456789abcdef") -> None:
        """As a controller does: not before it listens, since a desk answers a new life with what is open."""
        if not self.listening.is_set():
            return
        at = ClockMessage(at=utc_text(SystemClock().wall()), life=life)
        self.client.publish(clock_topic(ROOM), encode(at), 0)

    def start_node(self) -> subprocess.Popen[bytes]:
        node = subprocess.Popen([sys.executable, "-c", NODE, str(self.folder / "node" / "node.toml")])
        self.nodes.append(node)
        return node

    def kill_broker(self) -> None:
        self.broker.kill()
        self.broker.wait()

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
            node.wait()
        let_go(self.client)
        self.kill_broker()
        self.bench.close()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    made.bench.close()
    yield made
    made.close()


def test_presence_status_and_clean_stop(room: Room) -> None:
    node = room.start_node()
    until(lambda: room.presences() == [("online", 1)], "online")
    status = until(room.status, "status")
    assert (status.boot_id, status.connection, status.recording_age_s) == (BOOT, 1, None)
    assert status.preflight.problems[:2] == (
        "this desk has not heard the room's clock",
        "the camera process does not answer",
    )
    room.tell_time()
    until(lambda: (found := room.status()) is not None and found.clock_synced, "clock in sync")
    node.send_signal(signal.SIGTERM)
    assert node.wait(60) == 0
    until(lambda: room.presences() == [("online", 1), ("stopped", 1)], "stopped")
    late = [(topic, retain) for topic, _, retain in room.heard if topic.endswith("preview")]
    assert late == []


def test_will_after_sigkill_and_a_new_number_after_it(room: Room) -> None:
    node = room.start_node()
    until(lambda: room.presences() == [("online", 1)], "online")
    node.kill()
    node.wait()
    until(lambda: room.presences() == [("online", 1), ("lost", 1)], "the will")
    room.start_node()
    until(lambda: room.presences()[-1] == ("online", 2), "online again")


def events(link: Link, items: queue.SimpleQueue[LinkEvent], wanted: type, timeout_s: float = 60.0) -> Any:
    """Pump a link in this thread until an event of the wanted kind."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            event = items.get(timeout=0.05)
        except queue.Empty:
            continue
        if isinstance(event, Connected | Ended):
            link.handle(event)
        if isinstance(event, wanted):
            return event
    raise AssertionError(f"no {wanted.__name__}")


def test_late_lost_of_an_older_connection_names_the_older_one(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pioreactor #252: the broker's late word about a dead connection must not undo the new one.

    Mosquitto says it at the take-over of a session that is not kept; of a kept one it says nothing.
    """
    monkeypatch.setattr("appliance.sync.connection.SESSION_EXPIRY_S", 0)
    old_items: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    new_items: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    old = Link(room.bench.config, SystemClock(), BOOT, old_items.put)
    old.step(lambda: 1)
    events(old, old_items, Connected)
    new = Link(room.bench.config, SystemClock(), BOOT, new_items.put)
    new.step(lambda: 2)
    events(new, new_items, Connected)
    until(lambda: ("online", 2) in room.presences(), "the new connection")
    until(lambda: ("lost", 1) in room.presences(), "the will of the old one")
    assert ("lost", 2) not in room.presences()
    assert events(old, old_items, Ended).number == 1
    new.close()
    old.close()


def test_frozen_desk_is_lost_within_seconds_and_comes_back_under_a_new_number(room: Room) -> None:
    node = room.start_node()
    until(lambda: room.presences() == [("online", 1)], "online")
    node.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: room.presences()[-1] == ("lost", 1), "lost by its silence")
    assert time.monotonic() - began < 12
    node.send_signal(signal.SIGCONT)
    until(lambda: room.presences() == [("online", 1), ("lost", 1), ("online", 2)], "back")


def test_message_without_its_effect_is_delivered_again(room: Room) -> None:
    """An order is acknowledged to the broker only after its effect; without that it comes again."""
    items: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    link = Link(room.bench.config, SystemClock(), BOOT, items.put)
    link.step(lambda: 1)
    events(link, items, Connected)
    room.order(b"order")
    first = events(link, items, Incoming)
    link.close()  # the process died before the effect
    link.step(lambda: 2)
    again = events(link, items, Incoming)
    assert (first.payload, again.payload, again.number) == (b"order", b"order", 2)
    link.acknowledge(again)
    link.close()
    link.step(lambda: 3)
    with pytest.raises(AssertionError, match="no Incoming"):
        events(link, items, Incoming, 1.5)
    link.close()


def test_broker_killed_and_restarted_loses_nothing(room: Room) -> None:
    bench, now = room.bench, SystemClock()
    bench.clock.now_mono_ns, bench.clock.now_wall = now.mono_ns(), now.wall()
    room.answers[SID] = Controller(bench)
    room.start_node()
    until(lambda: room.presences() == [("online", 1)], "online")
    room.tell_time()
    until(lambda: (found := room.status()) is not None and found.clock_synced, "clock in sync")
    room.order(bench.command(bench.start(exam_date=now.wall().date())))
    refusal = decode(Reply, until(lambda: next(iter(room.said(FromNode.REPLY)), None), "reply"))
    assert refusal.reason.startswith(
        "the camera process does not answer"
    )  # and so the ledger is filled by hand
    for node in room.nodes:
        node.kill()
        node.wait()
    bench.open_ledger()
    bench.ledger.order_start(SID, DESK, bench.start().model_dump(mode="json"))
    bench.close()

    room.start_node()
    desk: Desk = bench.record(fragments=2, end=False)
    witness = room.answers[SID].witness
    until(lambda: witness.size == 4, "first leaves witnessed")
    room.kill_broker()
    video = desk.segment()
    for number in range(2, 12):
        video.put(RecordKind.FRAGMENT, 200, number * FRAGMENT_90K)
    time.sleep(1.0)
    room.broker = run_broker(room.config, room.folder / "broker")
    until(lambda: room.presences()[-1][0] == "online" and room.presences()[-1][1] > 2, "back again")
    until(lambda: witness.size == 14, "what was recorded meanwhile")
    assert room.status() is not None
    room.order(bench.command(bench.start()))  # orders pass again
    until(lambda: len(room.said(FromNode.REPLY)) >= 2, "reply")

    video.seal(12 * FRAGMENT_90K)
    desk.store.end_session(SID, utc_text(now.wall()))
    desk.store.close()
    manifest = decode(
        ManifestMessage, until(lambda: next(iter(room.said(FromNode.MANIFEST)), None), "manifest")
    )
    assert '"leaves":15' in manifest.manifest
    until(
        lambda: (found := room.status()) is not None and found.sessions[0].phase is SessionPhase.CERTIFIED,
        "certified",
    )


# paho leaves a socket whose handshake failed to the garbage collector, which closes it and says so.
def test_certificate_of_another_room_is_never_connected(room: Room, tmp_path: Path) -> None:
    """F082: a node whose certificate this room's CA did not issue stays out, and so does one without TLS."""
    other = Bench(tmp_path / "other", broker_port=room.port)
    other.close()
    items: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    link = Link(other.config, SystemClock(), BOOT, items.put)

    def reason() -> str:
        link.step(lambda: 1)
        return str(events(link, items, Ended).reason)

    until(lambda: "certificate verify failed" in reason(), "the certificate named")
    assert not link.connected
    assert link.publish(FromNode.STATUS, b"{}") is None
    link.close()
    gc.collect()
    with pytest.raises(BadConfig, match="broker_tls is off"):
        Link(
            room.bench.config.model_copy(update={"broker_tls": False, "broker_host": "10.0.0.1"}),
            SystemClock(),
            BOOT,
            items.put,
        )


def test_connack_that_refuses_is_not_connected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Frigate counted a refused MQTT connection as connected."""
    port = free_port()
    settings = tmp_path / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous false\n")
    bench = Bench(tmp_path, broker_port=port, broker_tls=False)
    bench.close()
    broker = subprocess.Popen(["/usr/sbin/mosquitto", "-c", str(settings)], stderr=subprocess.DEVNULL)
    items: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    link = Link(bench.config, SystemClock(), BOOT, items.put)
    numbers = iter(range(1, 1000))
    try:
        reasons: list[str] = []

        def refused() -> bool:
            link.step(lambda: next(numbers))
            while not items.empty():
                event = items.get()
                assert isinstance(event, Ended)
                link.handle(event)
                reasons.append(event.reason)
            return "not authorized" in link.problem

        until(refused, "the broker's reason")
        assert "the broker refused the connection: not authorized" in reasons
        assert not link.connected
        assert "not authorized" in link.problem
        assert "not authorized" in caplog.text
        link.step(lambda: next(numbers))  # within the back-off nothing is tried
        assert items.empty()
    finally:
        link.close()
        broker.kill()
        broker.wait()


def test_room_folder_is_what_provisioning_makes(tmp_path: Path) -> None:
    create_room(tmp_path / "room", ROOM)
    assert Room._ca(tmp_path).is_file()
