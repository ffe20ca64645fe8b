"""The whole controller as a process part: HTTPS, Mosquitto with certificates, a desk that speaks by hand, events."""

from __future__ import annotations

import json
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from appliance.clock import SystemClock, utc_text
from appliance.config import Desk, RoomConfig, RoomTrust
from appliance.errors import BadConfig, PortInUse
from appliance.evf.canonical import canonical
from appliance.protocol import (
    COMMAND_PURPOSE,
    Command,
    FromNode,
    Preflight,
    Presence,
    Reply,
    Status,
    ToNode,
    Watch,
    clock_topic,
    desk_topic,
    encode,
    verify_message,
)
from appliance.room.accounts import add_account
from appliance.room.broker import run_broker
from appliance.room.process import run
from provisioning.ca import create_room
from provisioning.certificates import certificate_pem, private_key_pem
from tests.mqtt_client import let_go
from tests.unit.test_room_kit import PASSWORD, policy_document

ROOM = "room-214"
JPEG = b"\xff\xd8 a small still \xff\xd9"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Running:
    folder: Path
    config: RoomConfig

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.config.trust.room_ca))

    def client(self) -> httpx.Client:
        url = f"https://127.0.0.1:{self.config.listen_port}"
        return httpx.Client(base_url=url, verify=self.context(), timeout=5)


class HandDesk:
    """A desk node's end of MQTT, moved by the test."""

    def __init__(self, running: Running) -> None:
        self.heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "d1", protocol=mqtt.MQTTv5)
        trust = running.config.trust
        context = ssl.create_default_context(cafile=str(trust.room_ca))
        context.load_cert_chain(running.folder / "d1.pem", running.folder / "d1.key")
        self._client.tls_set_context(context)
        self._client.on_message = lambda _c, _u, m: self.heard.put((m.topic, m.payload))
        self._client.on_connect = lambda c, *_: (
            [c.subscribe(desk_topic(ROOM, "d1", leaf), 1) for leaf in ToNode]
            + [c.subscribe(clock_topic(ROOM), 0)]
        )
        self._client.connect("127.0.0.1", running.config.broker_port)
        self._client.loop_start()

    def say(self, leaf: FromNode, payload: bytes, retain: bool = False) -> None:
        self._client.publish(desk_topic(ROOM, "d1", leaf), payload, 1, retain).wait_for_publish(5)

    def hears(self, topic: str, timeout_s: float = 8) -> bytes:
        deadline = time.monotonic() + timeout_s
        while True:
            found, payload = self.heard.get(timeout=max(0.01, deadline - time.monotonic()))
            if found == topic:
                return payload

    def close(self) -> None:
        let_go(self._client)


def settings(folder: Path, **changes: Any) -> RoomConfig:
    names = {name: folder / field.default for name, field in RoomTrust.model_fields.items()}
    values: dict[str, Any] = {
        "institution": "uni-x", "room": ROOM, "listen_port": free_port(), "broker_port": free_port(),
        "data": folder / "data", "desks": (Desk(id="d1", label="1"),), "trust": RoomTrust(**names),
    }  # fmt: skip
    return RoomConfig(**(values | changes))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    authority = create_room(tmp_path, ROOM)
    root = Ed25519PrivateKey.generate()
    (tmp_path / "trust" / "root.pub").write_text(root.public_key().public_bytes_raw().hex() + "\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "policy.json").write_bytes(canonical(policy_document(root)))
    key = Ed25519PrivateKey.generate()
    certificate = authority.issue("d1", key.public_key(), [ExtendedKeyUsageOID.CLIENT_AUTH])
    (tmp_path / "d1.pem").write_bytes(certificate_pem(certificate))
    (tmp_path / "d1.key").write_bytes(private_key_pem(key))
    config = settings(tmp_path)
    add_account(config.data / "room.db", "anna", "lead", PASSWORD)
    broker = run_broker(config, tmp_path / "broker")
    stop, failure = threading.Event(), list[BaseException]()

    def body() -> None:
        try:
            run(config, stop)
        except BaseException as error:
            failure.append(error)
            raise

    thread = threading.Thread(target=body)
    thread.start()
    try:
        wait(lambda: port_answers(config.listen_port))
        yield Running(tmp_path, config)
    finally:
        stop.set()
        thread.join(15)
        broker.terminate()
        broker.wait(10)
    assert not thread.is_alive()
    assert failure == []


def port_answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait(condition: Callable[[], bool], timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def status(**changes: object) -> bytes:
    values: dict[str, object] = {
        "desk": "d1", "boot_id": "b1", "connection": 1, "at": utc_text(SystemClock().wall()),
        "preflight": Preflight(ready=True), "camera_open": False, "light_on": False, "recording_age_s": None,
        "inference_rate_hz": None, "free_bytes": 10**10, "clock_offset_s": 0.0, "clock_synced": True,
    }  # fmt: skip
    return encode(Status.model_validate(values | changes))


def events(client: httpx.Client, path: str, wanted: Callable[[str, dict[str, Any]], bool]) -> dict[str, Any]:
    """The first event that is wanted; the stream is closed then, as a page does."""
    with client.stream("GET", path) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                data: dict[str, Any] = json.loads(line.removeprefix("data: "))
                if wanted(name, data):
                    return data
    raise AssertionError("the stream ended")


def test_a_desk_is_seen_started_and_watched(running: Running) -> None:
    """Presence to tile, a signed command until its Reply, stills only while somebody looks (F103)."""
    desk = HandDesk(running)
    with running.client() as client:
        answer = client.post("/api/login", json={"name": "anna", "password": PASSWORD})
        client.headers["X-CSRF-Token"] = answer.json()["csrf"]
        assert desk.hears(clock_topic(ROOM))
        desk.say(
            FromNode.PRESENCE, encode(Presence(desk="d1", boot_id="b1", connection=1, state="online")), True
        )
        desk.say(FromNode.STATUS, status(), True)
        wait(lambda: client.get("/api/desks/d1").json()["state"] == "ready")

        body = {"desk": "d1", "candidate_code": "C-1", "name": "Rosa Quist"}
        sid = client.post("/api/sessions/start", json=body).json()["sid"]
        topic = desk_topic(ROOM, "d1", ToNode.COMMAND)
        first = desk.hears(topic)
        assert b"Rosa" not in first
        public_key = (running.folder / "trust" / "controller.pub").read_text()
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        command = verify_message(COMMAND_PURPOSE, Command, first, key)
        assert (command.order.sid, command.order.kind) == (sid, "start")
        assert desk.hears(topic) == first  # unanswered, so it comes again
        desk.say(
            FromNode.REPLY, encode(Reply(serial=command.serial, accepted=False, reason="the lens is covered"))
        )
        wait(lambda: bool(client.get("/api/room").json()["needs"]))
        assert "the lens is covered" in client.get("/api/room").json()["needs"][0]["words"]

        desk.say(FromNode.PREVIEW, JPEG)
        room = events(client, "/events", lambda _name, data: bool(data.get("stills")))
        assert room["stills"]["d1"].startswith("data:image/jpeg;base64,")
        watch = Watch.model_validate_json(desk.hears(desk_topic(ROOM, "d1", ToNode.WATCH)))
        assert (watch.mode, watch.lease_s <= 10) == ("still", True)
        events(client, "/events?desk=d1", lambda name, _data: name == "still")
        rows = client.get("/api/audit").json()["rows"]
        looked = [(row["action"], row["object"]) for row in rows if row["action"].startswith("watch")]
        assert ("watch.start", "room/room-214") in looked
        assert ("watch.stop", "room/room-214") in looked
        assert ("watch.start", "desk/d1") in looked
    desk.close()


def test_only_tls_with_forward_secrecy(running: Running) -> None:
    """F082: both versions that are spoken have it; the certificate is the room's."""
    spoken = []
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = running.context()
        context.minimum_version = context.maximum_version = version
        with (
            socket.create_connection(("127.0.0.1", running.config.listen_port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
        ):
            cipher = wrapped.cipher()
            assert cipher is not None
            spoken.append((wrapped.version(), cipher[0].startswith(("ECDHE", "TLS_"))))
    assert spoken == [("TLSv1.2", True), ("TLSv1.3", True)]


def test_a_taken_port_is_one_sentence(running: Running) -> None:
    with pytest.raises(PortInUse, match="in use"):
        run(running.config, threading.Event())


def test_a_missing_trust_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"controller\.pem"):
        run(settings(tmp_path), threading.Event())


def test_without_a_broker_the_page_says_so(tmp_path: Path) -> None:
    """A refused broker is shown and retried; the pages stay up."""
    create_room(tmp_path, ROOM)
    (tmp_path / "trust" / "root.pub").write_text(
        Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    )
    config = settings(tmp_path)
    add_account(config.data / "room.db", "anna", "lead", PASSWORD)
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(config, stop))
    thread.start()
    try:
        wait(lambda: port_answers(config.listen_port))
        with Running(tmp_path, config).client() as client:
            client.post("/api/login", json={"name": "anna", "password": PASSWORD})

            def said() -> bool:
                needs = client.get("/api/room").json()["needs"]
                return any("Connection refused" in need["words"] for need in needs)

            wait(said)
    finally:
        stop.set()
        thread.join(15)
    assert not thread.is_alive()
