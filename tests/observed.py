"""Observers for a running room: a relay in front of the storage, an ear on the broker, sockets of processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import paho.mqtt.client as mqtt
import psutil
from paho.mqtt.enums import CallbackAPIVersion

from demo.room import DemoRoom, DeskPlan, free_port
from tests.mqtt_client import let_go

NAME = "ear"

REQUEST_LINE = re.compile(rb"(?:^|\r\n)(PUT|GET|HEAD|POST|DELETE) (\S+) HTTP/1\.1\r\n")


@dataclass
class StorageRelay:
    """A TCP relay on loopback: counts bytes toward the storage, keeps each request's line; `hold` stops the flow."""

    target_port: int
    port: int = field(default_factory=free_port)
    connections: int = 0
    bytes_in: int = 0
    requests: list[str] = field(default_factory=list)
    hold: bool = False
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._relay, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.target_port)) as server:
            back = threading.Thread(target=self._pump, args=(server, client, False), daemon=True)
            back.start()
            self._pump(client, server, True)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, inward: bool) -> None:
        try:
            while data := source.recv(65536):
                while self.hold:
                    time.sleep(0.05)
                if inward:
                    self.bytes_in += len(data)
                    self.requests += [f"{m[1].decode()} {m[2].decode()}" for m in REQUEST_LINE.finditer(data)]
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Heard:
    """One MQTT message."""

    topic: str
    payload: bytes
    retained: bool


class BrokerEar:
    """Hears everything on a room's broker, with a certificate of its own and a line added to the broker's ACL."""

    def __init__(self, room: DemoRoom) -> None:
        self.heard: list[Heard] = []
        room.provision_desk(DeskPlan(NAME, "ear", "clip:none"))
        acl = room.root / "room" / "data" / "broker" / "acl"
        acl.write_text(f"user {NAME}\ntopic read invigil/#\n\n" + acl.read_text())
        assert room.broker is not None
        os.kill(room.broker.pid, signal.SIGHUP)
        time.sleep(0.5)
        trust = room.node_folder(NAME) / "trust"
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, NAME, protocol=mqtt.MQTTv5)
        context = ssl.create_default_context(cafile=str(trust / "room-ca.pem"))
        context.load_cert_chain(trust / "device.pem", trust / "device.key")
        self._client.tls_set_context(context)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *_: client.subscribe("invigil/#", qos=1)
        self._client.connect("127.0.0.1", room.broker_port)
        self._client.loop_start()

    def close(self) -> None:
        let_go(self._client)

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self.heard.append(Heard(message.topic, message.payload, message.retain))


def remote_ports(pids: list[int]) -> set[int]:
    """Remote TCP ports to which the processes and their children hold a connection now, pairs with themselves apart."""
    ports: set[int] = set()
    for pid in pids:
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            open_now = [c for c in each.net_connections("inet") if c.raddr and c.status == "ESTABLISHED"]
            ports |= {c.raddr.port for c in open_now} - {c.laddr.port for c in open_now}
    return ports


class Outward:
    """Watches to which places processes hold connections of their own making, in any state, four times a second."""

    def __init__(self, pids: list[int]) -> None:
        self.places: set[tuple[str, int]] = set()
        self._pids = pids
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> set[tuple[str, int]]:
        """Address and port of each place that was seen."""
        self._over.set()
        self._thread.join(10)
        return self.places

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            for pid in self._pids:
                with suppress(psutil.Error):  # a process that ended meanwhile
                    for each in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                        sockets = each.net_connections("inet")
                        listening = {c.laddr.port for c in sockets if c.status == psutil.CONN_LISTEN}
                        out = {tuple(c.raddr) for c in sockets if c.raddr and c.laddr.port not in listening}
                        self.places |= out - {tuple(c.laddr) for c in sockets}  # pairs with itself apart
