"""The Unix-socket link: reconnecting, slow peers, half and endless lines."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.local_link import (
    MAX_LINE_BYTES,
    MAX_PEERS,
    MAX_WAITING_BYTES,
    LocalClient,
    LocalServer,
    Message,
    Peer,
    _Pace,
)


def until(condition: Callable[[], Any], what: str, seconds: float = 5.0) -> Any:
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, f"never saw: {what}"
        time.sleep(0.005)
    return found


class Server:
    """The camera's end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.peers: list[Peer] = []
        self.gone: list[int] = []
        self.server = LocalServer(
            path, lambda _peer, message: self.heard.put(message), self.peers.append,
            lambda peer: self.gone.append(peer.number),
        )  # fmt: skip

    def next(self) -> Message:
        return self.heard.get(timeout=5)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "camera.sock")
    yield made
    made.server.close()


def raw(server: Server) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(server.path))
    return connection


def test_messages_go_both_ways_in_order(server: Server) -> None:
    heard: queue.SimpleQueue[Message] = queue.SimpleQueue()
    client = LocalClient(server.path, heard.put)
    until(lambda: client.connected and server.peers, "connection")
    for number in range(50):
        assert client.send({"type": "wake", "number": number})
        server.server.broadcast({"type": "durable", "number": number})
    assert [server.next()["number"] for _ in range(50)] == list(range(50))
    assert [heard.get(timeout=5)["number"] for _ in range(50)] == list(range(50))
    client.close()


def test_client_comes_back_when_the_camera_process_was_restarted(tmp_path: Path) -> None:
    path = tmp_path / "camera.sock"
    connected = []
    client = LocalClient(path, lambda _message: None, lambda: connected.append(1), retry_s=0.02)
    assert not client.send({"type": "wake"})
    for life in range(1, 4):
        server = Server(path)
        until(lambda life=life: len(connected) == life and client.connected, f"connection {life}")
        assert client.send({"type": "wake", "life": life})
        assert server.next()["life"] == life
        server.server.close()
        until(lambda: not client.connected, "loss")
    client.close()
    assert not path.exists()


def test_two_lives_of_a_peer_have_two_numbers(server: Server) -> None:
    for _ in range(2):
        raw(server).close()
    until(lambda: len(server.gone) == 2, "both gone")
    assert len(set(server.gone)) == 2
    assert set(server.gone) == {peer.number for peer in server.peers}


def test_a_peer_that_stands_still_costs_the_newest_and_never_time(server: Server) -> None:
    stopped = raw(server)
    until(lambda: server.peers, "peer")
    message = {"type": "preview", "jpeg": "x" * 100_000}
    longest_s = 0.0
    for _ in range(300):
        begun = time.monotonic()
        server.server.broadcast(message)
        longest_s = max(longest_s, time.monotonic() - begun)
    [peer] = server.peers
    assert peer.dropped > 200
    assert peer._waiting_bytes <= MAX_WAITING_BYTES
    assert longest_s < 2, "it does not wait for who stands still"
    stopped.close()
    until(lambda: server.gone, "peer gone")
    assert not peer.send(message)


def test_a_thousand_observations_wait_for_a_slow_peer(server: Server) -> None:
    reader = raw(server)
    until(lambda: server.peers, "peer")
    line = {"type": "observation", "report": "x" * 900}
    assert all(server.peers[0].send(line | {"number": number}) for number in range(1000))
    with reader, reader.makefile("rb") as lines:
        assert [json.loads(next(lines))["number"] for _ in range(1000)] == list(range(1000))


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\x00\n", b"[" * 100_000 + b"\n", b"{\n", b'{"type":"late' + b"x" * MAX_LINE_BYTES],
    ids=["bytes", "depth", "cut", "endless"],
)
def test_garbage_ends_that_connection_alone(server: Server, garbage: bytes) -> None:
    good = raw(server)
    bad = raw(server)
    bad.sendall(garbage)
    until(lambda: server.gone, "the bad one gone")
    good.sendall(b'{"type":"wake"}\n')
    assert server.next() == {"type": "wake"}
    assert len(server.gone) == 1
    good.close()
    bad.close()


@pytest.mark.parametrize("line", [b"[1]\n", b'{"no":"type"}\n', b'{"type":7}\n', b"null\n"])
def test_json_that_is_no_message_is_passed_over(server: Server, line: bytes) -> None:
    with raw(server) as connection:
        connection.sendall(line + b'{"type":"wake"}\n')
        assert server.next() == {"type": "wake"}


def test_half_a_line_at_the_end_is_no_message(server: Server) -> None:
    with raw(server) as connection:
        connection.sendall(b'{"type":"wake","whole":1}\n{"type":"wake","whole":0}')
    until(lambda: server.gone, "peer gone")
    assert server.next()["whole"] == 1
    assert server.heard.empty()


def test_a_callback_that_fails_ends_its_connection_not_the_server(tmp_path: Path) -> None:
    def fail(_peer: Peer, message: Message) -> None:
        if message.get("bad"):
            raise ValueError("wrong")
        heard.set()

    heard = threading.Event()
    server = LocalServer(tmp_path / "s", fail, lambda _peer: None)
    for bad in (1, 0):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / "s"))
            connection.sendall(json.dumps({"type": "wake", "bad": bad}).encode() + b"\n")
            if bad:
                assert connection.recv(1) == b""
            else:
                assert heard.wait(5)
    server.close()


def test_too_many_peers_are_turned_away_and_room_is_made_when_they_go(server: Server) -> None:
    connections = [raw(server) for _ in range(MAX_PEERS)]
    until(lambda: len(server.peers) == MAX_PEERS, "all peers")
    with raw(server) as refused:
        assert refused.recv(1) == b""
    for connection in connections:
        connection.close()
    until(lambda: len(server.gone) == MAX_PEERS, "all gone")
    with raw(server) as connection:
        connection.sendall(b'{"type":"wake"}\n')
        assert server.next() == {"type": "wake"}


def test_pace_lets_a_burst_through_and_then_keeps_the_rate() -> None:
    pace = _Pace(100, burst=10)
    assert [pace.delay_s(1.0) for _ in range(10)] == [0.0] * 10
    now_s, taken = 1.0, 0
    while now_s < 3.0:
        now_s += pace.delay_s(now_s)
        taken += 1
    assert 195 <= taken <= 205


def test_socket_is_for_owner_and_group(server: Server) -> None:
    assert server.path.stat().st_mode & 0o777 == 0o660
