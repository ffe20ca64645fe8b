"""F114, F115: the local copy goes on its date and not a second before, with a receipt, and nothing else goes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.camera.process import CameraProcess
from appliance.clock import utc_text
from appliance.errors import StoreFailed
from appliance.evf.errors import BadSignature
from appliance.evf.signed import sign_document, verify_document
from appliance.protocol import ConfirmSynced, Release, SessionPhase
from appliance.store.backup import back_up
from appliance.store.check import check_store
from appliance.store.database import migrate
from appliance.store.ledger import LEDGER_STEPS, ROOM_TIME, Ledger, OrderedSession
from appliance.store.purge import PURPOSE, agreed_time, reason_to_purge
from appliance.store.recording import RecordingStore
from appliance.store.rows import SessionRow
from appliance.store.schema import INDEX_STEPS
from appliance.store.view import RecordingView
from appliance.sync.sender import Sender
from appliance.sync.sessions import FORGET_INTERVAL_S, Sessions
from tests.manual_clock import ManualClock
from tests.unit.test_store_builders import OTHER_SID, SID, Desk, new_session
from tests.unit.test_sync_room import READY, Bench

ROW = SessionRow(**vars(new_session()), ended="2026-11-22T12:00:00.000Z", epoch=0)
SYNCED = OrderedSession(SID, "desk-7", {}, {}, "synced", "", "2026-11-22T13:00:00.000Z")
FORGET_NS = round(FORGET_INTERVAL_S * 1e9)
MIDNIGHT = datetime(2027, 5, 22, tzinfo=UTC)


def order(state: Any) -> OrderedSession:
    return OrderedSession(SID, "desk-7", {}, {}, state, "")


@pytest.mark.parametrize(
    ("ordered", "hours", "due"),
    [
        (SYNCED, 24, datetime(2026, 11, 23, 13, tzinfo=UTC)),
        (SYNCED, 0, datetime(2026, 11, 22, 13, tzinfo=UTC)),
        (order("held"), 24, MIDNIGHT),
        (order("ended"), 0, MIDNIGHT),
        (order("discarded"), 24, MIDNIGHT),
    ],
)
def test_each_date_rule_to_the_second(ordered: OrderedSession, hours: int, due: datetime) -> None:
    clock = ManualClock(now_wall=due)
    clock.advance(-1)
    assert reason_to_purge(ROW, ordered, hours, clock.wall()) is None  # control
    clock.advance(1)
    assert reason_to_purge(ROW, ordered, hours, clock.wall()) is not None


@pytest.mark.parametrize(
    ("ordered", "changes"),
    [
        (order("released"), {}),  # approved, and not all is in the storage
        (order("ordered"), {}),
        (order("synced"), {}),  # since when is not known
        (SYNCED, {"ended": None}),
        (SYNCED, {"local_copy": "purging"}),
        (SYNCED, {"local_copy": "purged"}),
        (order("held"), {"sid": OTHER_SID}),
    ],
)
def test_nothing_else_is_ever_due(ordered: OrderedSession, changes: dict[str, Any]) -> None:
    row = SessionRow(**(vars(ROW) | changes))
    assert reason_to_purge(row, ordered, 0, datetime(2100, 1, 1, tzinfo=UTC)) is None


class Node:
    """A desk's bench and its camera process, turned by hand."""

    def __init__(self, folder: Path, run_dir: Path) -> None:
        self.bench = Bench(folder, run_dir=run_dir, camera="clip:/nowhere.mp4")
        self.process: CameraProcess | None = None
        self.room_says_its_time = True

    def certified(self) -> str:
        self.bench.order_and_record()
        manifest = b'{"signed": "manifest"}'
        self.bench.view.layout.manifest(SID).write_bytes(manifest)
        return hashlib.sha256(manifest).hexdigest()

    def synced(self) -> None:
        sha256 = self.certified()
        at = utc_text(self.bench.clock.wall())
        for each in (
            Release(sid=SID, manifest_sha256=sha256, approved_by="proctor-2", approved_at=at),
            ConfirmSynced(sid=SID, manifest_sha256=sha256, objects=0),
        ):
            assert self.take(each) is None

    def take(self, each: Any) -> str | None:
        reply = self.bench.orders.take(self.bench.command(each), READY)
        assert reply is not None
        return None if reply.accepted else reply.reason

    def turn(self) -> None:
        """What an idle turn of the camera process does about purges, whenever the last one was."""
        if self.process is None:
            self.process = CameraProcess(self.bench.config, self.bench.clock)
        if self.room_says_its_time:
            self.bench.ledger.set(ROOM_TIME, utc_text(self.bench.clock.wall()))
        self.process._purge_due_ns = 0
        self.process._purge_one()

    def files(self) -> list[str]:
        folders = ("segments", "wraps", "manifests", "quarantine")
        found = [path for name in folders for path in (self.bench.store / name).rglob("*") if path.is_file()]
        return sorted(path.name for path in found)

    def row(self, sid: str = SID) -> SessionRow:
        found = self.bench.view.session(sid)
        assert found is not None
        return found

    def sessions(self) -> Sessions:
        bench = self.bench
        return Sessions(
            bench.config, bench.trust, bench.ledger, bench.view, bench.certificates,
            Sender(bench.clock), lambda _what, _payload: 1,
        )  # fmt: skip

    def close(self) -> None:
        if self.process is not None:
            self.process.close()
        self.bench.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="invigil-", dir="/dev/shm") as memory:
        made = Node(tmp_path, Path(memory))
        yield made
        made.close()


HELD_FILES = ["0-video-0.evf", f"{SID}.0.media.evk", f"{SID}.json"]
PURGED_FILES = [f"{SID}.json", f"{SID}.receipt.json"]


def test_f115_disk_is_empty_the_policys_hours_after_the_storage_confirmed(node: Node) -> None:
    node.synced()
    node.bench.clock.advance(24 * 3600 - 1)
    node.turn()
    assert node.files() == HELD_FILES
    node.bench.clock.advance(1)
    node.turn()
    assert node.files() == PURGED_FILES
    assert not (node.bench.store / "segments" / SID).exists()
    assert (node.row().local_copy, node.row().candidate_code) == ("purged", "")
    assert (node.row().sid, node.row().ended is not None) == (SID, True)
    assert check_store(node.bench.store) == []


def test_f114_receipt_is_signed_by_the_desk_and_says_what_why_and_when(node: Node) -> None:
    node.synced()
    node.bench.clock.advance(25 * 3600)
    node.turn()
    document = json.loads(node.bench.view.layout.receipt(SID).read_bytes())
    body = verify_document(PURPOSE, document, node.bench.trust.device_key.public_key())
    manifest = node.bench.view.layout.manifest(SID).read_bytes()
    assert body["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert (body["sid"], body["wraps"], body["segments"]) == (SID, 1, 1)
    assert body["when"] == utc_text(node.bench.clock.wall())
    assert body["why"].startswith("in the institution's storage since 2026-11-22T")
    with pytest.raises(BadSignature, match="another key"):
        verify_document(PURPOSE, document, Ed25519PrivateKey.generate().public_key())
    node.bench.view.layout.receipt(SID).unlink()
    assert [problem.what for problem in check_store(node.bench.store)] == [
        "was purged, but its receipt is missing"
    ]


def test_a_held_session_is_untouched_before_its_date_and_gone_on_it(node: Node) -> None:
    node.certified()
    node.bench.ledger.set_state(SID, "held", "candidate asked")
    retain_until = datetime.fromisoformat(node.row().retain_until).replace(tzinfo=UTC)
    node.bench.clock.advance((retain_until - node.bench.clock.wall()).total_seconds() - 1)
    node.turn()
    assert node.files() == HELD_FILES
    node.bench.clock.advance(1)
    node.turn()
    assert node.files() == PURGED_FILES
    body = json.loads(node.bench.view.layout.receipt(SID).read_bytes())["body"]
    assert body["why"] == f"not released, and kept until {node.row().retain_until}"
    manifest_sha256 = node.bench.certificates.sha256(SID)
    late = Release(
        sid=SID, manifest_sha256=manifest_sha256, approved_by="p", approved_at="2027-05-23T09:00:00.000Z"
    )
    assert "removed on the policy's retention date" in str(node.take(late))


def test_a_purge_waits_while_a_session_records_or_is_ordered(node: Node) -> None:
    node.synced()
    node.bench.clock.advance(25 * 3600)
    node.bench.ledger.order_start(OTHER_SID, "desk-7", node.bench.start(OTHER_SID).model_dump(mode="json"))
    node.turn()
    assert node.files() == HELD_FILES
    assert node.process is not None
    node.process._store.begin_session(new_session(OTHER_SID))
    node.bench.ledger.order_end(OTHER_SID, {"ended_at": "2026-11-23T12:00:00.000Z"})
    node.turn()
    assert node.files() == HELD_FILES
    with pytest.raises(StoreFailed, match="while a session records"):
        node.process._store.purge(SID, "r", lambda body: body)
    node.process._store.end_session(OTHER_SID, "2026-11-23T12:00:00.000Z")
    node.turn()
    assert node.files() == PURGED_FILES


def test_other_sessions_and_unknown_files_stay(node: Node) -> None:
    node.synced()
    node.bench.record(sid=OTHER_SID)  # no order stands behind it: whether it was approved is not known
    segments = node.bench.store / "segments"
    node.bench.clock.advance(400 * 24 * 3600)
    node.turn()
    (segments / OTHER_SID / "mine").write_bytes(b"unknown")
    node.turn()
    assert node.row(OTHER_SID).local_copy == "there"
    assert sorted(path.name for path in segments.rglob("*") if path.is_file()) == ["0-video-0.evf", "mine"]


def ended_session(root: Path) -> Desk:
    """A wrap and an empty closed segment."""
    desk = Desk(root)
    desk.begin()
    desk.segment().seal(0)
    desk.store.end_session(SID, "2026-11-22T12:00:00.000Z")
    return desk


def test_an_unknown_file_keeps_its_folder_and_the_purge_ends_all_the_same(tmp_path: Path) -> None:
    desk = ended_session(tmp_path)
    stranger = desk.store.layout.segment(SID, "stranger")
    stranger.write_bytes(b"unknown")
    desk.store.purge(SID, "test", lambda body: body)
    assert [path.name for path in stranger.parent.iterdir()] == ["stranger"]
    desk.store.close()


def test_the_room_hears_no_more_of_a_purged_session(node: Node) -> None:
    """It reads a synced session that its live desk no longer reports as purged (room/desk.py)."""
    node.synced()
    sessions = node.sessions()
    assert [facts.order.state for facts in sessions.facts()] == [SessionPhase.SYNCED]  # control
    node.bench.clock.advance(25 * 3600)
    node.turn()
    assert sessions.facts() == []
    sessions.step(0, connected=True)
    assert sessions.faults() == []


def test_f114_neither_code_nor_accommodations_stay_with_a_purged_sessions_order(node: Node) -> None:
    """The whole order goes, from backups of the ledger too; another session's order stays as it is."""
    ledger = node.bench.ledger
    node.synced()
    other = node.bench.start(OTHER_SID).model_dump(mode="json")
    ledger.order_start(OTHER_SID, "desk-7", other)
    ledger.set_state(OTHER_SID, "held")
    with closing(sqlite3.connect(ledger.path)) as connection:
        backup = back_up(connection, ledger.path, "schema-1")
    sessions = node.sessions()
    sessions.step(0, connected=False)
    kept = ledger.order(SID)
    assert kept is not None
    assert (kept.start_command["candidate_code"], backup.exists()) == ("C-0042", True)  # control
    node.bench.clock.advance(25 * 3600)
    node.turn()
    sessions.step(FORGET_NS, connected=False)
    orders = {order.sid: (order.state, order.start_command) for order in ledger.orders()}
    assert orders == {SID: ("synced", {}), OTHER_SID: ("held", other)}
    assert not backup.exists()
    assert "already ordered" in str(node.take(node.bench.start()))


def test_f114_no_byte_of_the_code_stays_in_a_database_or_its_log(node: Node) -> None:
    """Debian's SQLite empties its free pages by itself; older pages lie in the log until something writes over them."""
    node.synced()
    sessions = node.sessions()

    def holding() -> set[str]:
        return {path.name for path in node.bench.store.glob("*.db*") if b"C-0042" in path.read_bytes()}

    assert holding() == {"ledger.db-wal", "index.db"}  # control
    node.bench.clock.advance(25 * 3600)
    node.turn()
    sessions.step(FORGET_NS, connected=False)
    assert holding() == set()


def test_a_manifest_that_cannot_be_read_ends_no_process(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The camera process would have ended with each idle turn, for ever; the purge is finished when it can be read."""
    node.synced()
    node.bench.clock.advance(25 * 3600)
    right = Path.read_bytes

    def bad_sector(path: Path) -> bytes:
        if path.parent.name == "manifests":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return right(path)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_bytes", bad_sector)
        node.turn()
    assert "cannot purge session" in caplog.text
    assert node.row().local_copy == "purging"
    node.turn()
    assert node.row().local_copy == "purged"


def test_a_disk_that_refuses_to_forget_stops_nothing_and_is_asked_again(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node.synced()
    sessions = node.sessions()
    node.bench.clock.advance(25 * 3600)
    node.turn()

    def refuse(*_of_it: object) -> None:
        raise StoreFailed("cannot write what the room asked: no space left", "free space")

    with monkeypatch.context() as full:
        full.setattr(node.bench.ledger, "_write", refuse)
        sessions.step(0, connected=False)
    assert "ledger.order_not_forgotten reason=cannot write" in caplog.text
    (kept,) = node.bench.ledger.orders()
    assert kept.start_command["candidate_code"] == "C-0042"
    sessions.step(FORGET_NS, connected=False)
    (kept,) = node.bench.ledger.orders()
    assert kept.start_command == {}


def test_a_session_in_between_is_no_problem_to_check_and_recovery(tmp_path: Path) -> None:
    """A crash in the middle: files gone, rows there."""
    desk = ended_session(tmp_path)
    desk.store._connection.execute("UPDATE sessions SET local_copy = 'purging', purge_reason = 'test'")
    for path in (*tmp_path.glob("wraps/*"), *tmp_path.glob("segments/*/*")):
        path.unlink()
    desk.store.close()
    assert check_store(tmp_path) == []
    store = RecordingStore(tmp_path, ManualClock())
    assert store.recovery.missing == store.recovery.quarantined == []
    view = RecordingView(tmp_path)
    assert view.gaps(SID) == []
    assert view.purged() == {SID}
    store.finish_purges(lambda body: sign_document(PURPOSE, body, Ed25519PrivateKey.generate()))
    assert view.segments(SID) == view.wraps(SID) == view.leaves(SID) == view.events(SID) == []
    view.close()
    store.close()
    assert check_store(tmp_path) == []


def test_control_the_same_files_missing_without_a_purge_are_named(tmp_path: Path) -> None:
    desk = ended_session(tmp_path)
    desk.store.close()
    for path in (*tmp_path.glob("wraps/*"), *tmp_path.glob("segments/*/*")):
        path.unlink()
    assert len(check_store(tmp_path)) == 2
    store = RecordingStore(tmp_path, ManualClock())
    assert len(store.recovery.missing) == 2
    store.close()


def test_when_a_session_became_synced_is_kept_over_a_repeat(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.order_start(SID, "desk-7", {})
    ledger.set_synced(SID, "2026-11-22T13:00:00.000Z")
    ledger.set_synced(SID, "2026-11-23T13:00:00.000Z")
    found = ledger.order(SID)
    assert found is not None
    assert (found.state, found.synced_at) == ("synced", "2026-11-22T13:00:00.000Z")
    with pytest.raises(StoreFailed):
        ledger.set_synced(OTHER_SID, "2026-11-22T13:00:00.000Z")
    ledger.close()


def test_stores_made_before_purging_are_brought_forward(tmp_path: Path) -> None:
    migrate(tmp_path / "index.db", INDEX_STEPS[:1])
    migrate(tmp_path / "ledger.db", LEDGER_STEPS[:1])
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute(
            "INSERT INTO session_order (sid, desk, start_command, state) VALUES (?, 'd', '{}', 'synced')",
            (SID,),
        )
        connection.commit()
    view = RecordingView(tmp_path)
    assert view.sessions() == []  # before the camera process has started anew
    ledger = Ledger(tmp_path / "ledger.db")
    found = ledger.order(SID)
    assert found is not None
    assert found.synced_at is not None
    ledger.close()
    RecordingStore(tmp_path, ManualClock()).close()
    assert view.purged() == set()
    view.close()
    assert check_store(tmp_path) == []


def test_a_desk_that_does_not_hear_its_room_keeps_everything(node: Node) -> None:
    node.certified()
    node.room_says_its_time = False
    node.bench.clock.advance(10 * 366 * 24 * 3600)
    node.turn()
    assert node.files() == HELD_FILES
    node.room_says_its_time = True
    node.turn()
    assert node.files() == PURGED_FILES


def test_a_desk_clock_that_is_years_ahead_purges_nothing() -> None:
    """The room must have said the day as well; a desk that never heard its room keeps everything."""
    ahead = datetime(2100, 1, 1, tzinfo=UTC)
    heard = "2026-11-22T09:00:00.000Z"
    assert agreed_time(ahead, None) is None
    assert agreed_time(ahead, heard) == datetime(2026, 11, 22, 9, tzinfo=UTC)
    behind = datetime(2020, 1, 1, tzinfo=UTC)
    assert agreed_time(behind, heard) == behind
