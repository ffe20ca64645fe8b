"""A real Mosquitto with real certificates: who may connect, and what each may say and hear (F082).

Each refusal stands beside the same attempt with the one thing changed that makes it succeed.
"""

from __future__ import annotations

import queue
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from appliance.config import RoomConfig, load_config
from appliance.errors import BadConfig, PortInUse
from appliance.protocol import FromNode, ToNode, clock_topic, desk_topic
from appliance.room.broker import broker_config, run_broker
from provisioning.ca import RoomAuthority, create_room
from provisioning.certificates import certificate_pem, private_key_pem
from provisioning.files import write_file
from tests.mqtt_client import let_go

ROOM = "room-2.14"
WAIT_S = 5.0
TAKEN = ("Success", "No matching subscribers")
NOTHING_S = 0.4  # a message on loopback takes about a millisecond


@dataclass(frozen=True)
class Room:
    authority: RoomAuthority
    config: RoomConfig

    @property
    def folder(self) -> Path:
        return self.authority.folder


class Client:
    """paho over mutual TLS, as node and controller use it."""

    def __init__(self, room: Room, name: str, certificate: Path, key: Path, client_id: str = "") -> None:
        self.topics_heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._answers: queue.Queue[str] = queue.Queue()
        self.lost: queue.Queue[str] = queue.Queue()
        self._client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id or name,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        self._client.tls_set_context(context(room, certificate, key))
        self._client.on_connect = lambda *a: self._answers.put("connected " + str(a[3]))
        self._client.on_subscribe = lambda *a: self._answers.put("subscribed")
        self._client.on_publish = lambda *a: self._answers.put(f"published {a[3]}")
        self._client.on_message = lambda _c, _u, m: self.topics_heard.put((m.topic, m.payload))
        self._client.on_disconnect = lambda *a: self.lost.put(str(a[3]))
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0
        self._client.connect("127.0.0.1", room.config.broker_port, properties=properties)
        self._client.loop_start()
        answer = self._answers.get(timeout=WAIT_S)
        assert answer == "connected Success", answer

    def subscribe(self, topic: str) -> None:
        self._client.subscribe(topic, qos=1)
        assert self._answers.get(timeout=WAIT_S) == "subscribed"

    def send(self, topic: str, payload: bytes) -> None:
        """Publish without waiting for the broker's answer."""
        self._client.publish(topic, payload, qos=1)

    def publish(self, topic: str, payload: bytes = b"x", retain: bool = False) -> str:
        """The broker's reason in words."""
        self._client.publish(topic, payload, qos=1, retain=retain)
        return self._answers.get(timeout=WAIT_S).removeprefix("published ")

    def heard(self, timeout_s: float = WAIT_S) -> tuple[str, bytes] | None:
        try:
            return self.topics_heard.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        let_go(self._client)


Connect = Callable[..., Client]


def context(room: Room, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    found = ssl.create_default_context(cafile=str(room.config.trust.room_ca))
    if certificate is not None:
        found.load_cert_chain(certificate, key)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_room(folder: Path, port: int) -> Room:
    authority = create_room(folder, ROOM)
    settings = f'institution = "uni"\nroom = "{ROOM}"\nbroker_port = {port}\n'
    (folder / "room.toml").write_text(settings)
    return Room(authority, load_config(folder / "room.toml", RoomConfig))


def enrol(room: Room, desk: str) -> tuple[Path, Path]:
    key = Ed25519PrivateKey.generate()
    certificate = room.authority.issue(desk, key.public_key(), [ExtendedKeyUsageOID.CLIENT_AUTH])
    folder = room.folder / "nodes" / desk
    write_file(folder / "device.key", private_key_pem(key), secret=True)
    write_file(folder / "device.pem", certificate_pem(certificate))
    return folder / "device.pem", folder / "device.key"


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(WAIT_S)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    made = make_room(tmp_path_factory.mktemp("room"), free_port())
    for desk in ("desk-a", "desk-b"):
        enrol(made, desk)
    process = run_broker(made.config, made.config.data / "broker")
    yield made
    end(process)


@pytest.fixture
def connect(room: Room) -> Iterator[Connect]:
    clients: list[Client] = []

    def open_client(name: str, client_id: str = "") -> Client:
        if name == "controller":
            pair = room.config.trust.controller_certificate, room.config.trust.controller_tls_key
        else:
            pair = room.folder / "nodes" / name / "device.pem", room.folder / "nodes" / name / "device.key"
        clients.append(Client(room, name, *pair, client_id=client_id))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()


def handshake(room: Room, ctx: ssl.SSLContext) -> str:
    """Connect, and read one byte: under TLS 1.3 a client learns only then that its certificate was refused."""
    with (
        socket.create_connection(("127.0.0.1", room.config.broker_port), timeout=WAIT_S) as raw,
        ctx.wrap_socket(raw, server_hostname="127.0.0.1") as tls,
    ):
        tls.settimeout(NOTHING_S)
        try:
            assert tls.recv(1) == b""
        except TimeoutError:
            return str(tls.version())
        return "closed"


def test_node_with_its_certificate_speaks_tls_1_3(room: Room) -> None:
    pair = room.folder / "nodes/desk-a/device.pem", room.folder / "nodes/desk-a/device.key"
    assert handshake(room, context(room, *pair)) == "TLSv1.3"


def test_node_without_a_certificate_is_refused(room: Room) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate required"):
        handshake(room, context(room, None, None))


def test_certificate_of_another_room_is_refused(room: Room, tmp_path: Path) -> None:
    """A desk of a room with the same name whose CA is another."""
    other = make_room(tmp_path, 1)
    with pytest.raises(ssl.SSLError, match=r"(?i)unknown ca|decrypt error|bad certificate"):
        handshake(room, context(room, *enrol(other, "desk-a")))


def test_tls_1_2_is_refused(room: Room) -> None:
    """F082. The positive control is test_node_with_its_certificate_speaks_tls_1_3."""
    old = context(room, room.folder / "nodes/desk-a/device.pem", room.folder / "nodes/desk-a/device.key")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol version"):
        handshake(room, old)


def test_plain_tcp_is_refused(room: Room) -> None:
    """An MQTT CONNECT without TLS gets no CONNACK, only a closed connection."""
    packet = bytes.fromhex("101300044d51545405020000000000066465736b2d61")
    with socket.create_connection(("127.0.0.1", room.config.broker_port), timeout=WAIT_S) as plain:
        plain.sendall(packet)
        try:
            answer = plain.recv(64)
        except ConnectionResetError:
            answer = b""
    assert not answer.startswith(b"\x20")


def test_desk_speaks_on_its_own_topics_only(connect: Connect) -> None:
    desk_a, controller = connect("desk-a"), connect("controller")
    controller.subscribe(f"invigil/1/{ROOM}/#")
    for leaf in FromNode:
        assert desk_a.publish(desk_topic(ROOM, "desk-a", leaf)) == "Success"
        assert controller.heard() == (desk_topic(ROOM, "desk-a", leaf), b"x")
    for topic in (
        *(desk_topic(ROOM, "desk-b", leaf) for leaf in FromNode),
        *(desk_topic(ROOM, "desk-b", leaf) for leaf in ToNode),
        *(desk_topic(ROOM, "desk-a", leaf) for leaf in ToNode),
        desk_topic("another-room", "desk-a", FromNode.STATUS),
        clock_topic(ROOM),
        "anything/else",
    ):
        assert desk_a.publish(topic) == "Not authorized", topic
    assert controller.heard(NOTHING_S) is None


def test_desk_hears_its_own_topics_only(connect: Connect) -> None:
    """What the controller sends to desk B, desk A does not get, whatever it subscribes to."""
    desk_a, desk_b, controller = connect("desk-a"), connect("desk-b"), connect("controller")
    desk_b.subscribe(f"invigil/1/{ROOM}/#")
    desk_a.subscribe("#")
    for leaf in ToNode:
        assert controller.publish(desk_topic(ROOM, "desk-b", leaf)) == "Success"
        assert desk_b.heard() == (desk_topic(ROOM, "desk-b", leaf), b"x")
    assert desk_b.publish(desk_topic(ROOM, "desk-b", FromNode.STATUS)) == "Success"
    assert desk_a.heard(NOTHING_S) is None
    assert controller.publish(clock_topic(ROOM), b"now") == "Success"
    assert desk_a.heard() == (clock_topic(ROOM), b"now")
    assert desk_b.heard() == (clock_topic(ROOM), b"now")


def test_desk_cannot_take_over_the_session_of_another(connect: Connect) -> None:
    """MQTT throws out the older of two clients with one id; the broker takes the id from the certificate."""
    desk_b = connect("desk-b", client_id="desk-b")
    connect("desk-a", client_id="desk-b")
    with pytest.raises(queue.Empty):
        desk_b.lost.get(timeout=NOTHING_S)
    connect("desk-b", client_id="whatever")
    assert desk_b.lost.get(timeout=WAIT_S)


def test_message_over_2_mib_ends_the_connection(connect: Connect) -> None:
    desk_a = connect("desk-a")
    topic = desk_topic(ROOM, "desk-a", FromNode.MANIFEST)
    assert desk_a.publish(topic, bytes(1 << 20)) in TAKEN
    desk_a.send(topic, bytes(3 << 20))
    assert desk_a.lost.get(timeout=WAIT_S)


def test_a_client_that_speaks_is_never_timed_out(connect: Connect) -> None:
    """With keepalive = max_keepalive = 60 Mosquitto 2.0.21 cut it within two seconds, and so whoever just connected."""
    desk = connect("desk-a")
    until_s = time.monotonic() + 3
    while time.monotonic() < until_s and desk.lost.empty():
        assert desk.publish(desk_topic(ROOM, "desk-a", FromNode.STATUS)) in TAKEN
        time.sleep(0.01)
    assert desk.lost.empty(), desk.lost.get()


def test_revoked_desk_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    room = make_room(tmp_path, free_port())
    stolen, kept = enrol(room, "desk-a"), enrol(room, "desk-b")
    process = run_broker(room.config, room.config.data / "broker")
    try:
        assert handshake(room, context(room, *stolen)) == "TLSv1.3"
    finally:
        end(process)
    assert room.authority.revoke(room.authority.issued_to("desk-a")) == 1
    process = run_broker(room.config, room.config.data / "broker")
    try:
        with pytest.raises(ssl.SSLError, match=r"(?i)revoked"):
            handshake(room, context(room, *stolen))
        assert handshake(room, context(room, *kept)) == "TLSv1.3"
    finally:
        end(process)


def test_retained_state_survives_a_restart(tmp_path: Path) -> None:
    room = make_room(tmp_path, free_port())
    pair = enrol(room, "desk-a")
    controller = room.config.trust.controller_certificate, room.config.trust.controller_tls_key
    topic = desk_topic(ROOM, "desk-a", FromNode.PRESENCE)
    process = run_broker(room.config, room.config.data / "broker")
    try:
        desk = Client(room, "desk-a", *pair)
        assert desk.publish(topic, b"online", retain=True) in TAKEN
        desk.close()
    finally:
        end(process)
    process = run_broker(room.config, room.config.data / "broker")
    try:
        client = Client(room, "controller", *controller)
        client.subscribe(topic)
        assert client.heard() == (topic, b"online")
        client.close()
    finally:
        end(process)


def test_invigil_room_broker_becomes_mosquitto(tmp_path: Path) -> None:
    """What systemd starts: one process, which SIGTERM ends well."""
    room = make_room(tmp_path, free_port())
    pair = enrol(room, "desk-a")
    command = [
        sys.executable,
        "-m",
        "appliance.cli",
        "room",
        "broker",
        "--config",
        str(tmp_path / "room.toml"),
    ]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                assert handshake(room, context(room, *pair)) == "TLSv1.3"
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert Path(f"/proc/{process.pid}/comm").read_text() == "mosquitto\n"
    finally:
        end(process)
    assert process.returncode == 0


def test_port_that_somebody_else_has_is_named(room: Room, tmp_path: Path) -> None:
    with pytest.raises(PortInUse, match=f"port {room.config.broker_port} at 127.0.0.1 is in use"):
        run_broker(room.config, tmp_path)
    assert list(tmp_path.iterdir()) == [], "the settings of the one that runs stay as they are"


def test_missing_revocation_list_is_named(tmp_path: Path) -> None:
    """Without its list Mosquitto would let in a stolen node."""
    room = make_room(tmp_path, 1)
    broker_config(room.config, tmp_path / "b")
    (tmp_path / "trust/room-ca.crl").unlink()
    with pytest.raises(BadConfig, match=r"room-ca\.crl is missing"):
        broker_config(room.config, tmp_path / "b")


def embedded(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "appliance.room.embedded_broker", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_embedded_broker_listens_on_loopback_only(host: str) -> None:
    process = embedded(host, str(free_port()))
    _, words = process.communicate(timeout=WAIT_S)
    assert process.returncode == 17
    assert words.startswith(f"invigil: error: the demo broker does not listen at {host}\ninvigil: hint: ")
    assert "Traceback" not in words


def test_embedded_broker_names_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = embedded("127.0.0.1", str(taken.getsockname()[1]))
        _, words = process.communicate(timeout=WAIT_S)
    assert process.returncode == 16
    assert "is in use" in words
    assert "Traceback" not in words


@pytest.mark.parametrize("by_file", [True, False])
def test_embedded_broker_says_that_it_is_open_and_carries_messages(tmp_path: Path, by_file: bool) -> None:
    port = free_port()
    settings = tmp_path / "room.toml"
    settings.write_text(f'institution = "uni"\nroom = "r"\nbroker_tls = false\nbroker_port = {port}\n')
    process = embedded("--config", str(settings)) if by_file else embedded("127.0.0.1", str(port))
    try:
        assert process.stderr is not None
        assert "TLS and access rules are OFF" in process.stderr.readline()
        heard: queue.Queue[bytes] = queue.Queue()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "any", protocol=mqtt.MQTTv311)
        client.on_connect = lambda c, *a: c.subscribe("t", 1)
        client.on_subscribe = lambda c, *a: c.publish("t", b"hello", 1)
        client.on_message = lambda _c, _u, m: heard.put(m.payload)
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                client.connect("127.0.0.1", port)
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        client.loop_start()
        assert heard.get(timeout=WAIT_S) == b"hello"
        let_go(client)
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
