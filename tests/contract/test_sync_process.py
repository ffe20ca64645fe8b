"""The whole sync process between a real broker and a camera's end of the local link."""

from __future__ import annotations

import base64
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.clock import SystemClock, utc_text
from appliance.local_link import LocalServer, Message
from appliance.protocol import (
    EndSession,
    FromNode,
    ObservationMessage,
    Reply,
    SessionPhase,
    Status,
    ToNode,
    Watch,
    decode,
    desk_topic,
    encode,
)
from appliance.room.broker import run_broker
from tests.contract.test_sync_link import Room, until
from tests.unit.test_store_builders import SID
from tests.unit.test_sync_room import DESK, ROOM
from tests.unit.test_sync_status import observation

pytestmark = pytest.mark.slow
JPEG = b"\xff\xd8\xff\xe0 a still"
FACTS = {
    "type": "facts",
    "camera_open": False,
    "camera_problem": None,
    "light_on": False,
    "inference_rate_hz": None,
}


class Camera:
    """The camera process's end: hears what sync asks, says what a test wants."""

    def __init__(self, path: Path) -> None:
        self.heard: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.peers = 0
        self.server = LocalServer(path, lambda _peer, message: self.heard.put(message), self._on_connect)

    def _on_connect(self, _peer: Any) -> None:
        self.peers += 1

    def say(self, **message: Any) -> None:
        self.server.broadcast(message)


class Node:
    def __init__(self, folder: Path) -> None:
        self.room = Room(folder)
        self.room.bench.close()
        now = SystemClock()
        self.bench = self.room.bench
        self.bench.clock.now_mono_ns, self.bench.clock.now_wall = now.mono_ns(), now.wall()
        self.camera = Camera(self.bench.config.run_dir / "camera.sock")
        self.process = self.room.start_node()
        until(lambda: self.camera.peers > 0, "local link")
        until(lambda: self.room.presences() == [("online", 1)], "online")
        until(self.room.status, "status")

    def refresh(self) -> None:
        """What room and camera say every second or two."""
        self.room.tell_time()
        self.camera.say(**FACTS)

    def status(self) -> Status:
        found = self.room.status()
        assert found is not None
        return found

    def replies(self) -> list[Reply]:
        return [decode(Reply, payload) for payload in self.room.said(FromNode.REPLY)]

    def send(self, leaf: ToNode, payload: bytes) -> None:
        self.room.client.publish(desk_topic(ROOM, DESK, leaf), payload, 0 if leaf is ToNode.WATCH else 1)

    def close(self) -> None:
        self.room.close()
        self.camera.server.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.close()


def test_from_order_to_recording_report(node: Node) -> None:
    node.refresh()
    until(lambda: node.status().preflight.ready, "ready")
    node.room.order(node.bench.command(node.bench.start(exam_date=SystemClock().wall().date())))
    until(lambda: [reply.accepted for reply in node.replies()] == [True], "accepted")
    until(lambda: not node.camera.heard.empty() and node.camera.heard.get() == {"type": "wake"}, "wake")
    desk = node.bench.record(end=False)
    node.camera.say(type="durable", sid=SID)
    report = until(lambda: next((s for s in node.status().sessions if s.fragments == 3), None), "report")
    assert (report.phase, report.sid, report.leaves) == (SessionPhase.RECORDING, SID, 5)
    assert node.status().recording_age_s is not None
    assert node.status().preflight.problems[-1] == "a session is recording"

    # F122 in passing: while it records only words go out. A killed process takes all of it up again.
    node.process.kill()
    node.process.wait()
    node.process = node.room.start_node()
    until(lambda: node.room.presences()[-1] == ("online", 2), "online again")
    node.refresh()
    node.room.order(node.bench.command(EndSession(sid=SID)))
    until(lambda: [reply.serial for reply in node.replies()][-1] == 2, "end answered")
    desk.store.end_session(SID, utc_text(SystemClock().wall()))
    desk.store.close()
    until(lambda: node.status().sessions[0].phase is SessionPhase.ENDED, "ended")
    assert node.room.said(FromNode.GRANT_REQUEST) == []


def test_pictures_only_under_a_lease_and_a_policy_with_previews(node: Node) -> None:
    node.refresh()
    until(lambda: node.status().preflight.ready, "ready")
    node.send(ToNode.WATCH, encode(Watch(mode="still", lease_s=5)))
    node.camera.say(type="preview", jpeg=base64.b64encode(JPEG).decode())
    node.room.order(node.bench.command(node.bench.start(exam_date=SystemClock().wall().date())))
    until(lambda: len(node.replies()) == 1, "reply")
    node.camera.say(type="preview", jpeg=base64.b64encode(JPEG).decode())
    time.sleep(0.5)
    assert node.room.said(FromNode.PREVIEW) == []  # no session when the lease was asked for: nothing passes
    node.send(ToNode.WATCH, encode(Watch(mode="live", lease_s=1)))
    until(lambda: not node.camera.heard.empty() and node.camera.heard.get().get("mode") == "live", "watch")
    node.camera.say(type="preview", jpeg=base64.b64encode(JPEG).decode())
    until(lambda: node.room.said(FromNode.PREVIEW) == [JPEG], "picture")
    assert not any(retain for topic, _, retain in node.room.heard if topic.endswith("/preview"))
    time.sleep(1.0)
    node.camera.say(type="preview", jpeg=base64.b64encode(JPEG).decode())
    time.sleep(0.3)
    assert len(node.room.said(FromNode.PREVIEW)) == 1


def test_observation_reaches_the_room_also_over_an_outage(node: Node) -> None:
    """Whoever is back first: what the broker dropped, since the room was not back yet, is said again when it is."""

    def knows_the_room() -> bool:
        node.refresh()
        return node.status().clock_offset_s is not None

    until(knows_the_room, "the node has heard this life of the room, so that another one is another")
    node.camera.say(**observation(1))
    first = decode(
        ObservationMessage, until(lambda: next(iter(node.room.said(FromNode.OBSERVATION)), None), "first")
    )
    assert (first.sid, first.number, first.observation.words) == (SID, 1, "head turned away")
    node.room.kill_broker()
    node.camera.say(**observation(2))
    node.room.broker = run_broker(node.room.config, node.room.folder / "broker2")

    def asked_to_replay() -> bool:
        node.room.tell_time(life="fedcba9876543210")
        return not node.camera.heard.empty() and node.camera.heard.get() == {"type": "replay"}

    until(asked_to_replay, "a new life of the room makes the node ask for what is open", 60)
    for number in (1, 2):
        node.camera.say(**observation(number))
    until(
        lambda: (
            {decode(ObservationMessage, payload).number for payload in node.room.said(FromNode.OBSERVATION)}
            == {1, 2}
        ),
        "the one made meanwhile",
    )


def test_unsigned_orders_are_told_and_not_obeyed(node: Node) -> None:
    node.refresh()
    node.room.order(node.bench.command(node.bench.start(), key=node.bench.trust.device_key))
    node.room.order(b"\x00\xff")
    until(lambda: "2 commands were refused: not from this room's controller" in node.status().faults, "fault")
    assert node.replies() == []
    assert node.process.poll() is None
