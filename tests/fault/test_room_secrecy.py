"""What leaves a desk, when, and in which form: a whole exam in a room whose storage, broker and disks are watched."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from demo.clips import CLIPS
from demo.room import DemoRoom, default_desks, free_port, wait_until
from tests.observed import BrokerEar, Outward, StorageRelay, remote_ports
from tests.room import Exam, running_room

pytestmark = pytest.mark.slow

NAME = "Wilhelmina van der Canary-Zebra"
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF"


class WatchedExam:
    """Two desks sit an exam; the first is approved, the second held. Everything is kept for the tests below."""

    def __init__(self, room: DemoRoom, relay: StorageRelay) -> None:
        self.root = room.root
        self.relay = relay
        self.ear = BrokerEar(room)
        assert room.controller is not None
        assert room.broker is not None
        outward = Outward(
            [
                room.controller.pid,
                room.broker.pid,
                *(part.pid for node in room.nodes.values() for part in node.values()),
            ]
        )
        self.client = room.client()
        self.approved = Exam.begin(room, self.client, "desk-1", "code-1", name=NAME)
        self.held = Exam.begin(room, self.client, "desk-2", "code-2", name=NAME)
        self.names = {self.client.tile(desk)["name"] for desk in ("desk-1", "desk-2")}
        node_pids = [part.pid for node in room.nodes.values() for part in node.values()]
        self.ports_before: set[int] = set()
        for _ in range(10):
            self.ports_before |= remote_ports(node_pids)
            time.sleep(1)
        self.approved.end()
        self.held.end()
        self.ports_before |= remote_ports(node_pids)
        self.connections_before, self.bytes_before = relay.connections, relay.bytes_in
        self.client.post(f"/api/sessions/{self.held.sid}/hold", {"reason": "the board decides"})
        self.approved.approve()
        time.sleep(2)
        self.spoken_to = outward.stop()
        self.broker_port = room.broker_port

    def files(self) -> Iterator[Path]:
        return (path for path in self.root.rglob("*") if path.is_file())

    def found_on_disk(self, needles: list[bytes]) -> list[str]:
        return [str(path) for path in self.files() if holds_any(path.read_bytes(), needles)]

    def found_on_wire(self, needles: list[bytes]) -> list[str]:
        return [heard.topic for heard in self.ear.heard if holds_any(heard.payload, needles)]


def holds_any(data: bytes, needles: list[bytes]) -> bool:
    return any(needle in data for needle in needles)


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedExam]:
    storage_port = free_port()
    relay = StorageRelay(storage_port)
    relay.start()
    with running_room(
        tmp_path_factory.mktemp("room"),
        desks=default_desks()[:2],
        storage_port=storage_port,
        storage_endpoint=f"http://127.0.0.1:{relay.port}",
    ) as room:
        watched = WatchedExam(room, relay)
        yield watched
        watched.ear.close()
        watched.client.close()
    relay.stop()


def film_canaries(exam: Exam) -> list[bytes]:
    """Pieces of the encoded film, from the middle of several fragments."""
    pieces = [data[len(data) // 2 :][:32] for _, data in exam.plaintext()]
    assert len(pieces) >= 4
    return pieces


def pixel_canaries(clip: Path) -> list[bytes]:
    """Rows of raw pixels of the clip as they would lie in a frame that somebody wrote down."""
    with av.open(str(clip)) as container:
        frame = next(container.decode(container.streams.video[0]))
    canaries = []
    for picture in (frame.to_ndarray(format="bgr24"), frame.to_ndarray(format="yuv420p")):
        row = picture[picture.shape[0] // 3].tobytes()
        canaries.append(row[len(row) // 2 :][:48])
    assert all(len(set(canary)) > 4 for canary in canaries)
    return canaries


def test_no_plaintext_film_on_any_disk_or_wire(exam: WatchedExam) -> None:
    """F085: encrypted before the first byte is written or sent."""
    needles = film_canaries(exam.approved) + film_canaries(exam.held)
    for clip in ("single_face.mp4", "WolfgangLanger_Pexels.mp4"):
        needles += pixel_canaries(CLIPS / clip)
    assert exam.found_on_disk([*needles, JPEG]) == []
    assert exam.found_on_wire([*needles, JPEG]) == []


def test_the_search_finds_what_is_there(exam: WatchedExam) -> None:
    """Control: the same search over a file that holds a piece of the film."""
    [*_, piece] = film_canaries(exam.approved)
    leak = exam.root / "leak.bin"
    leak.write_bytes(b"x" * 1000 + piece + b"y")
    try:
        assert exam.found_on_disk([piece]) == [str(leak)]
    finally:
        leak.unlink()
    assert exam.found_on_wire([exam.approved.sid.encode()]), "the ear hears what desks send"


def test_no_name_on_any_disk_or_wire(exam: WatchedExam) -> None:
    """F016, F017: the name stands on the proctor's tile, from memory, and nowhere else, also not beside the code."""
    assert exam.names == {NAME}
    assert exam.found_on_disk([NAME.encode(), b"Canary-Zebra"]) == []
    assert exam.found_on_wire([NAME.encode(), b"Canary-Zebra"]) == []


def test_nothing_goes_to_storage_before_approval(exam: WatchedExam) -> None:
    """F122: not a connection, from nobody; desks talk to their broker alone."""
    assert (exam.connections_before, exam.bytes_before) == (0, 0)
    assert exam.ports_before == {exam.broker_port}


def test_nobody_else_is_spoken_to(exam: WatchedExam) -> None:
    """F011, F012: all of the room's processes, from the start to the upload: its broker, the institution's storage."""
    assert exam.spoken_to == {("127.0.0.1", exam.broker_port), ("127.0.0.1", exam.relay.port)}


def test_a_word_to_somebody_else_is_noticed() -> None:
    """Control: a connection from a child of a watched process, to a port of nobody's."""
    words = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); s.recv(1)"
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        place = elsewhere.getsockname()
        outward = Outward([os.getpid()])
        with subprocess.Popen([sys.executable, "-c", words, str(place[1])]) as child:
            heard, _ = elsewhere.accept()
            wait_until("it was seen", lambda: place in outward.places, 30)
            heard.close()
            assert child.wait(30) == 0
        outward.stop()


def test_there_is_no_log_of_what_browsers_ask_for(exam: WatchedExam) -> None:
    """F106: the controller writes none; the control is what else it writes."""
    written = (exam.root / "logs" / "controller.log").read_text()
    assert "room.up" in written
    assert [line for line in written.splitlines() if "/api/" in line or "HTTP/1.1" in line] == []


def test_only_the_approved_session_ever_goes(exam: WatchedExam) -> None:
    assert exam.relay.bytes_in > 0
    assert any(exam.approved.sid in request for request in exam.relay.requests if request.startswith("PUT"))
    assert [request for request in exam.relay.requests if exam.held.sid in request] == []


def test_previews_are_never_retained(exam: WatchedExam) -> None:
    """Without a watcher there is no picture on the wire at all; retained messages hold facts only."""
    assert {
        heard.topic.rsplit("/", 1)[1] for heard in exam.ear.heard if heard.topic.endswith("preview")
    } == set()
    retained = {heard.topic.rsplit("/", 1)[1] for heard in exam.ear.heard if heard.retained}
    assert retained <= {"presence", "status"}
