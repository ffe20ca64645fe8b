"""Broker, controller and storage away for eight hours, by a clock that the test turns: 14,400 fragments.

Nothing is lost, nothing piles up, and the certificate names the span that nobody witnessed.
"""

from __future__ import annotations

import base64
import time
from contextlib import closing
from pathlib import Path
from statistics import median

import psutil
import pytest
from pydantic import ValidationError

from appliance.protocol import MAX_MESSAGE_BYTES, CheckpointMessage
from appliance.sync.checkpoints import MAX_LEAVES
from appliance.sync.uploader import Upload
from demo.room import free_port
from tests.misbehaving import MisbehavingStorage
from tests.simulated_room import Node, SimulatedRoom, simulated_room
from tests.storages import S3Server
from tests.unit.test_sync_room import policy

pytestmark = pytest.mark.slow

EIGHT_HOURS = 14_400  # fragments of 2 s
TURN_EVERY = 30  # fragments: the node takes a turn every minute of its clock
MOST_MEMORY_BYTES = 60 << 20
GAP_WORDS = "recorded while the room was not reached"


def rss() -> int:
    return int(psutil.Process().memory_info().rss)


def film_for_eight_hours(node: Node) -> list[float]:
    """Seconds of this thread that each turn of the node took."""
    turns: list[float] = []

    def each(number: int) -> None:
        if number % TURN_EVERY == 0:
            begun = time.thread_time()
            node.turn()
            turns.append(time.thread_time() - begun)

    node.film(EIGHT_HOURS, each=each)
    return turns


def put_away(room: SimulatedRoom, part: str) -> None:
    room.kill_broker() if part == "broker" else room.stop_controller()


def bring_back(room: SimulatedRoom, part: str) -> None:
    room.start_broker() if part == "broker" else room.start_controller()


@pytest.mark.parametrize("part", ["broker", "controller"])
def test_eight_hours_without(part: str, tmp_path: Path) -> None:
    with simulated_room(tmp_path) as room:
        node = room.start_node()
        sid = room.begin(node)
        room.film_in_sight(node, sid, 15)

        put_away(room, part)
        node.film(10, each=lambda _: node.turn(0.01))
        before = rss()
        turns = film_for_eight_hours(node)
        assert rss() - before < MOST_MEMORY_BYTES
        hour = len(turns) // 8
        first_s, last_s = median(turns[:hour]), median(turns[-hour:])
        print(
            f"a turn of the node: {first_s * 1e3:.1f} ms in the first hour, {last_s * 1e3:.1f} ms in the last"
        )
        assert last_s < first_s + 0.02
        if part == "broker":
            assert f"broker 127.0.0.1:{room.broker_port}" in room.needs()
            assert "no contact" in room.technical()
            assert "It records on by itself" in room.needs()

        bring_back(room, part)
        room.pump("all of it witnessed", lambda: room.witnessed(node, sid), 60, pace=5)
        node.film(5, each=lambda _: node.turn(0.02))
        room.pump("live again", lambda: room.tile()["link"] == "live" and room.tile()["state"] == "recording")
        ended = room.end(node, sid)
        assert not ended["complete"]
        [gap] = ended["gaps"]
        assert (gap["cause"], gap["unwitnessed"]) == (GAP_WORDS, True)
        assert gap["to_s"] - gap["from_s"] == pytest.approx(EIGHT_HOURS * 2, abs=120)
        assert node.view.gaps(sid) == [], "footage was lost"
        assert node.view.totals(sid).fragments == 15 + 10 + EIGHT_HOURS + 5
        manifest = node.view.layout.manifest(sid).read_bytes()
        print(f"manifest of eight hours: {len(manifest)} bytes")
        assert len(manifest) < MAX_MESSAGE_BYTES // 2


def test_control_nobody_away_nothing_unwitnessed(tmp_path: Path) -> None:
    with simulated_room(tmp_path) as room:
        node = room.start_node()
        sid = room.begin(node)
        room.film_in_sight(node, sid, 40)
        ended = room.end(node, sid)
        assert (ended["complete"], ended["gaps"]) == (True, [])


def test_control_eight_hours_in_one_message_are_refused() -> None:
    """So the pieces in which a desk catches up are needed."""
    note, leaf = "note", base64.b64encode(bytes(32)).decode()
    CheckpointMessage(sid="0" * 32, first_index=0, leaves=(leaf,) * MAX_LEAVES, note=note)
    with pytest.raises(ValidationError, match="at most 4096"):
        CheckpointMessage(sid="0" * 32, first_index=0, leaves=(leaf,) * EIGHT_HOURS, note=note)


def test_eight_hours_without_the_storage(tmp_path: Path, rclone: S3Server) -> None:
    """An approved session waits, is asked about ever more rarely, and is sent once when the storage is back."""
    away = free_port()
    with simulated_room(tmp_path, away, credentials=rclone.config().credentials) as room:
        node = room.start_node()
        sid = room.begin(node)
        room.film_in_sight(node, sid, 40)
        room.end(node, sid)
        room.page.post(f"/api/sessions/{sid}/approve", {"accept_gaps": True})
        room.pump("the cause", lambda: "sending waits: storage" in room.needs(), pace=5)
        assert "does not answer: EndpointConnectionError" in room.needs()
        for _ in range(8):
            room.pass_time(3600)
            node.turn(0.2)
        room.pump("still said", lambda: "sending waits: storage" in room.needs())
        assert room.page.session(sid)["state"] == "released"
        assert {row.state for row in node.ledger.uploads(sid)} == {"waiting"}

        target = int(rclone.endpoint.rsplit(":", 1)[1])
        with closing(MisbehavingStorage(target, port=away)) as storage:
            room.pump("synced", lambda: room.page.session(sid)["state"] == "synced", pace=20)
            assert "sending waits" not in room.needs()
            names = {row.name for row in node.ledger.uploads(sid)}
            assert dict(storage.stored) == dict.fromkeys(names, 1)


def test_a_desk_asks_ever_more_rarely_while_nobody_answers() -> None:
    """Eight hours of a controller or storage that is away: a question a minute and a checkpoint a minute, no more."""
    upload = Upload("r", "d", "0" * 32, policy(), [], {})
    asked = sum(upload.step(second * 10**9) is not None for second in range(8 * 3600))
    assert 8 * 60 <= asked <= 8 * 60 + 3
    upload.connection_lost()
    assert upload.step(8 * 3600 * 10**9) is not None, "a controller that is back is asked at once"
