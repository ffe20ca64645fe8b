"""A bucket that refuses, breaks, is silent or cuts off in mid-upload; a file that was altered on the desk's disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.sync.sender import Sender
from tests.misbehaving import MisbehavingStorage
from tests.simulated_room import Node, SimulatedRoom, simulated_room
from tests.storages import BUCKET, S3Server

pytestmark = pytest.mark.slow

FRAGMENT_BYTES = 60_000
TIMEOUT_S = 0.5
STUCK_S = 1.5


@pytest.fixture
def storage(rclone: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingStorage]:
    monkeypatch.setattr(
        Sender.__init__, "__kwdefaults__", {"tls": None, "transport": None, "timeout_s": TIMEOUT_S}
    )
    made = MisbehavingStorage(int(rclone.endpoint.rsplit(":", 1)[1]), STUCK_S)
    yield made
    made.close()


@contextmanager
def certified(
    folder: Path, storage: MisbehavingStorage, rclone: S3Server
) -> Iterator[tuple[SimulatedRoom, Node, str]]:
    """A session of three segments, not yet approved."""
    with simulated_room(folder, storage.port, credentials=rclone.config().credentials) as room:
        node = room.start_node()
        sid = room.begin(node)
        node.film(80, FRAGMENT_BYTES)
        room.pump("witnessed", lambda: room.witnessed(node, sid))
        room.end(node, sid)
        yield room, node, sid


def approve(room: SimulatedRoom, sid: str) -> None:
    room.page.post(f"/api/sessions/{sid}/approve", {"accept_gaps": True})


def state(room: SimulatedRoom, sid: str) -> str:
    return str(room.page.session(sid)["state"])


def test_every_trouble_is_named_retried_with_patience_and_overcome(
    storage: MisbehavingStorage, rclone: S3Server, tmp_path: Path
) -> None:
    with certified(tmp_path, storage, rclone) as (room, node, sid):
        storage.mode = "forbidden"
        approve(room, sid)
        for mode, words in [
            ("forbidden", "the storage refused"), ("forbidden", "storage answered 403 AccessDenied"),
            ("broken", "was not sent: storage answered 500 InternalError"),
            ("reset", "was not sent: storage not reached: it cut the connection off"),
            ("stuck", "was not sent: storage not reached: it does not answer in time"),
        ]:  # fmt: skip
            storage.mode = mode
            room.pump(words, lambda words=words: words in room.technical(), pace=30)
            assert f"session {sid[:8]}: upload: " in room.technical()
            assert state(room, sid) in ("released", "syncing")
        storage.mode = "broken"
        room.pump("again 500", lambda: "storage answered 500" in room.technical(), pace=30)
        before = storage.attempts.total()
        for _ in range(60):
            room.pass_time(10)
            node.turn(0.02)
        tries = storage.attempts.total() - before
        assert tries <= 4 * len(node.ledger.uploads(sid)) * 10, "ten minutes, a round a minute at the most"
        room.pump("and it is tried again", lambda: storage.attempts.total() > before, pace=30)
        storage.mode = "ok"
        room.pump("synced", lambda: state(room, sid) == "synced", pace=30)
        assert "upload" not in room.technical()
        names = {row.name for row in node.ledger.uploads(sid)}
        assert len([name for name in names if name.endswith(".evf")]) == 3
        keys = {key.rsplit("/", 1)[1]: key for key in rclone.stored_keys() if sid in key}
        assert set(keys) == set(storage.stored) == names
        # One that was taken in silence may be on its way once more before the bucket is read again.
        assert max(storage.stored.values()) <= 2
        for name in names - {"approval.json"}:
            layout = node.view.layout
            path = layout.manifest(sid) if name == "manifest.json" else layout.segment(sid, name)
            path = layout.wrap(name) if name.endswith(".evk") else path
            assert (
                rclone.client().get_object(Bucket=BUCKET, Key=keys[name])["Body"].read() == path.read_bytes()
            )


def test_control_a_healthy_bucket_takes_each_file_at_once(
    storage: MisbehavingStorage, rclone: S3Server, tmp_path: Path
) -> None:
    """And one that stays broken never counts as sent."""
    with certified(tmp_path, storage, rclone) as (room, node, sid):
        storage.mode = "broken"
        approve(room, sid)
        room.pump("named", lambda: "storage answered 500" in room.technical(), pace=30)
        for _ in range(30):
            room.pass_time(60)
            node.turn(0.02)
        assert state(room, sid) in ("released", "syncing")
        assert not storage.stored
        storage.mode = "ok"
        storage.attempts.clear()
        room.pump("synced", lambda: state(room, sid) == "synced", pace=30)
        assert storage.attempts == storage.stored + storage.refused
        assert set(storage.stored.values()) == {1}


def test_one_altered_file_is_set_aside_named_and_not_sent(
    storage: MisbehavingStorage, rclone: S3Server, tmp_path: Path
) -> None:
    """The others arrive, nothing claims to be complete, and the file put right is sent without anybody's doing."""
    with certified(tmp_path, storage, rclone) as (room, node, sid):
        segment = node.view.layout.segment(sid, "0-video-1.evf")
        whole = segment.read_bytes()
        segment.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
        approve(room, sid)
        words = f"a file of session {sid[:8]} cannot be sent, 0-video-1.evf: was altered"
        room.pump("the file and the session", lambda: words in room.needs(), pace=30)
        others = {row.name for row in node.ledger.uploads(sid)} - {"0-video-1.evf", "manifest.json"}
        room.pump("the others", lambda: set(storage.stored) == others, pace=30)
        asked = storage.attempts.total()
        for _ in range(30):
            room.pass_time(60)
            node.turn(0.02)
        assert storage.attempts.total() == asked, "something is sent again and again"
        assert "0-video-1.evf" not in storage.attempts, "altered bytes left the desk"
        assert "manifest.json" not in storage.stored, "the storage would claim a whole session"
        assert state(room, sid) not in ("synced", "purged")
        sent = f"sending {len(others)} of {len(others) + 2}"
        room.pump(sent, lambda: room.tile()["words"] == sent, pace=30)
        assert segment.exists()

        segment.write_bytes(whole)
        node.restart_sync()
        room.pump("synced", lambda: state(room, sid) == "synced", pace=30)
        assert "cannot be sent" not in room.needs()
        assert set(storage.stored) == others | {"0-video-1.evf", "manifest.json"}
