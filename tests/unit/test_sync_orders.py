"""The room's orders: each refusal with its reason, once obeyed, and nobody else's word counts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.protocol import ConfirmSynced, EndSession, Hold, Release, StartSession, decode, encode
from appliance.protocol import Reply as ReplyMessage
from appliance.store.durable import FileOps
from appliance.store.layout import Layout
from appliance.store.ledger import Ledger
from appliance.sync.orders import START_VALID_S, DeskFacts, Orders
from appliance.sync.room_clock import ClockReading
from tests.unit.test_store_builders import OTHER_SID, SID
from tests.unit.test_sync_room import READY, Bench, policy

SHA = "ab" * 32


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    made = Bench(tmp_path)
    yield made
    made.close()


def take(bench: Bench, order: Any, facts: DeskFacts = READY, **changes: Any) -> ReplyMessage:
    reply = bench.orders.take(bench.command(order, **changes), facts)
    assert reply is not None
    assert decode(ReplyMessage, encode(reply)) == reply
    return reply


def certified(bench: Bench) -> str:
    """A manifest as the certificate module leaves it; only its bytes matter to an order."""
    bench.order_and_record()
    bench.view.layout.manifest(SID).write_bytes(b'{"signed": "manifest"}')
    sha256 = bench.certificates.sha256(SID)
    assert sha256 is not None
    return sha256


def release(sha256: str, sid: str = SID) -> Release:
    return Release(
        sid=sid, manifest_sha256=sha256, approved_by="proctor-2", approved_at="2026-11-22T12:00:00.000Z"
    )


def test_start_is_ordered_durably(bench: Bench) -> None:
    assert take(bench, bench.start()).accepted
    bench.close()
    bench.open_ledger()
    wanted = bench.ledger.wanted_session()
    assert wanted is not None
    assert wanted.sid == SID
    assert StartSession.model_validate(wanted.start_command).candidate_code == "C-0042"
    assert bench.ledger.recipient_set_version() == 1


REFUSALS: list[tuple[str, dict[str, Any], DeskFacts, str]] = [
    ("policy records no video (F005)", {"record_video": False}, READY, "records no video"),
    ("other institution", {"institution": "other"}, READY, "institution other"),
    ("exam of yesterday (F009)", {"exam_date": date(2026, 11, 20)}, READY, "2026-11-20"),
    ("exam of tomorrow (F009)", {"exam_date": date(2026, 11, 23)}, READY, "2026-11-23"),
    ("retention over", {"retain_until": date(2026, 11, 22)}, READY, "retention date has passed"),
    ("no room on the disk", {"duration_s": 86400, "video": {"bitrate_bps": 20_000_000}}, READY, ""),
    ("clock unheard", {}, DeskFacts(ClockReading(None, False), None), "not heard the room's clock"),
    ("clock ahead", {}, DeskFacts(ClockReading(-2.5, False), None), "2.5 s ahead of the room's"),
    ("clock silent", {}, DeskFacts(ClockReading(0.1, False), None), "for half a minute"),
    ("camera", {}, DeskFacts(ClockReading(0.0, True), "the camera delivered no frame"), "delivered no frame"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "facts", "words"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_start_is_refused_with_its_reason(
    bench: Bench, changes: dict[str, Any], facts: DeskFacts, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F005, F009."""
    if not words:
        words = "bytes missing: the exam needs"
        monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 10**9}))
    reply = take(bench, bench.start(**changes), facts)
    assert not reply.accepted
    assert words in reply.reason
    assert bench.ledger.orders() == []
    # The negative control: the same desk takes the order when nothing is in its way.
    assert take(bench, bench.start()).accepted


def test_policy_that_the_institution_did_not_sign_is_refused(bench: Bench) -> None:
    """F003: a signature of the test centre does not arm a room."""
    bench.root_key = Ed25519PrivateKey.generate()
    reply = take(bench, bench.start())
    assert not reply.accepted
    assert "policy" in reply.reason


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda bench, path: path.write_text("{}"), "not a signed document"),
        (lambda bench, path: path.unlink(), "recipient-set.json"),
        (lambda bench, path: bench.write_recipients(path, 1, "other"), "another institution"),
        (lambda bench, path: bench.ledger.accept_recipient_set_version(2), "older than 2"),
    ],
)
def test_recipient_set_must_be_valid_and_newest(
    bench: Bench, spoil: Callable[[Bench, Path], object], words: str
) -> None:
    """F083: a room cannot slip its own key, or an old set, under a recording."""
    spoil(bench, bench.config.trust.recipient_set)
    reply = take(bench, bench.start())
    assert not reply.accepted
    assert words in reply.reason
    assert any(words in problem for problem in bench.orders.preflight_problems(READY))


def test_order_that_lay_at_the_broker_does_not_start_a_camera(bench: Bench) -> None:
    payload = bench.command(bench.start())
    bench.clock.advance(START_VALID_S + 1)
    reply = bench.orders.take(payload, READY)
    assert reply is not None
    assert not reply.accepted
    assert "s old" in reply.reason


def test_one_session_at_a_time(bench: Bench) -> None:
    assert take(bench, bench.start()).accepted
    reply = take(bench, bench.start(OTHER_SID))
    assert "still recording" in reply.reason
    assert take(bench, bench.start()).accepted  # the same order under a new serial asks for nothing new
    desk = bench.record(end=False)
    assert take(bench, EndSession(sid=SID)).accepted
    assert (
        "still recording" in take(bench, bench.start(OTHER_SID)).reason
    )  # the camera is still closing its files
    desk.store.end_session(SID, "2026-11-22T10:00:00.000Z")
    desk.store.close()
    assert take(bench, bench.start(OTHER_SID)).accepted
    assert "already ordered" in take(bench, bench.start()).reason


def test_a_session_keeps_the_policy_that_it_began_under(bench: Bench) -> None:
    """F110: a newer version, signed by the institution, moves neither date nor streams; only of the next one."""
    assert take(bench, bench.start()).accepted
    first = bench.ledger.order(SID)
    later = {"version": 4, "retain_until": date(2036, 11, 22), "face": True}
    assert "already ordered" in take(bench, bench.start(**later)).reason
    assert bench.ledger.order(SID) == first
    assert take(bench, EndSession(sid=SID)).accepted
    assert take(bench, bench.start(OTHER_SID, **later)).accepted
    assert bench.ledger.order(OTHER_SID).start_command["policy"]["body"]["version"] == 4


def test_replayed_serial_gets_the_same_answer_and_has_no_effect(bench: Bench) -> None:
    payload = bench.command(bench.start())
    first = bench.orders.take(payload, READY)
    bench.record()
    assert take(bench, EndSession(sid=SID)).accepted
    bench.close()
    bench.open_ledger()  # also after a restart
    assert bench.orders.take(payload, READY) == first
    assert bench.ledger.wanted_session() is None
    refused = bench.command(bench.start(OTHER_SID, record_video=False))
    answer = bench.orders.take(refused, READY)
    assert bench.orders.take(refused, READY) == answer


def test_older_serial_is_refused(bench: Bench) -> None:
    late = bench.command(bench.start())
    assert take(bench, EndSession(sid=SID)).serial == 2
    reply = bench.orders.take(late, READY)
    assert reply is not None
    assert not reply.accepted
    assert "serial 1 is not newer than 2" in reply.reason
    assert bench.ledger.orders() == []


def test_nobody_elses_word_counts(bench: Bench) -> None:
    """Pioreactor #344: nodes pin their room's key. No answer either, since the serial is not ours to answer."""
    foreign = [
        bench.command(bench.start(), key=Ed25519PrivateKey.generate()),
        bench.command(bench.start(), key=bench.trust.device_key),
        bench.command(bench.start(), room="r9.99"),
        bench.command(bench.start(), desk="desk-8"),
        b"not json",
        b"{}",
        bench.command(bench.start()).replace(b"C-0042", b"C-0043"),
    ]
    assert [bench.orders.take(payload, READY) for payload in foreign] == [None] * len(foreign)
    assert bench.orders.foreign == len(foreign)
    assert bench.ledger.orders() == []
    assert bench.ledger.last_serial() == 0
    assert take(bench, bench.start()).accepted


def test_end_of_an_unknown_session_is_refused(bench: Bench) -> None:
    assert "never ordered" in take(bench, EndSession(sid=SID)).reason
    assert take(bench, bench.start()).accepted
    assert take(bench, EndSession(sid=SID)).accepted
    assert take(bench, EndSession(sid=SID)).accepted
    assert bench.ledger.is_ended(SID)


def test_release_must_name_exactly_this_manifest(bench: Bench) -> None:
    """F122: only the approval of this very manifest lets anything leave."""
    assert "never ordered" in take(bench, release(SHA)).reason
    assert take(bench, bench.start()).accepted
    assert "not certified yet" in take(bench, release(SHA)).reason
    assert take(bench, EndSession(sid=SID)).accepted
    bench.record()
    bench.view.layout.manifest(SID).write_bytes(b"manifest")
    ours = bench.certificates.sha256(SID)
    assert ours is not None
    assert "another manifest" in take(bench, release(SHA)).reason
    assert bench.ledger.approval(SID) is None
    payload = bench.command(release(ours))
    reply = bench.orders.take(payload, READY)
    assert reply is not None
    assert reply.accepted
    assert bench.ledger.order(SID).state == "released"
    assert bench.ledger.approval(SID) == json.loads(payload)


def test_held_session_can_be_released_later(bench: Bench) -> None:
    assert "never ordered" in take(bench, Hold(sid=SID, reason="talk first")).reason
    ours = certified(bench)
    assert take(bench, Hold(sid=SID, reason="talk first")).accepted
    held = bench.ledger.order(SID)
    assert (held.state, held.reason) == ("held", "talk first")
    assert take(bench, release(ours)).accepted
    assert take(bench, Hold(sid=SID, reason="stop again")).accepted
    assert bench.ledger.order(SID).state == "held"


def test_synced_only_when_released_and_every_object_is_counted(bench: Bench) -> None:
    ours = certified(bench)
    done = ConfirmSynced(sid=SID, manifest_sha256=ours, objects=2)
    assert "not released" in take(bench, done).reason
    assert take(bench, release(ours)).accepted
    assert "2 objects, the session 0" in take(bench, done).reason
    bench.ledger.set_uploads(SID, [("0-video-0.evf", 10, SHA), ("manifest.json", 10, SHA)])
    assert "another manifest" in take(bench, done.model_copy(update={"manifest_sha256": SHA})).reason
    assert take(bench, done).accepted
    assert bench.ledger.order(SID).state == "synced"
    assert take(bench, done).accepted
    assert "already at" in take(bench, Hold(sid=SID, reason="too late")).reason


class FailingCommit(FileOps):
    """A disk that refuses the next commit while `broken`."""

    broken = False

    def commit(self, connection: sqlite3.Connection) -> None:
        if self.broken:
            raise sqlite3.OperationalError("disk I/O error")
        super().commit(connection)


@pytest.fixture
def failing(bench: Bench) -> tuple[FailingCommit, Orders]:
    """The bench's orders on a disk that can be broken."""
    bench.ledger.close()
    disk = FailingCommit()
    bench.ledger = Ledger(Layout(bench.store).ledger_db, disk)
    orders = Orders(
        bench.config, bench.trust, bench.ledger, bench.view, bench.clock, bench.certificates.sha256
    )
    return disk, orders


def test_a_start_that_is_not_kept_is_refused_and_stays_refused(
    bench: Bench, failing: tuple[FailingCommit, Orders]
) -> None:
    """Nothing is left behind, and the room goes by the first answer."""
    disk, orders = failing
    payload = bench.command(bench.start())
    disk.broken = True
    first = orders.take(payload, READY)
    assert first is not None
    assert not first.accepted
    assert "disk i/o error" in first.reason.lower()
    assert (bench.ledger.last_serial(), bench.ledger.orders()) == (0, [])
    disk.broken = False
    assert orders.take(payload, READY) == first
    assert bench.ledger.orders() == []
    again = orders.take(bench.command(bench.start()), READY)
    assert again is not None
    assert again.accepted


def test_an_end_that_is_not_kept_is_not_answered_so_that_the_room_says_it_again(
    bench: Bench, failing: tuple[FailingCommit, Orders]
) -> None:
    """An hour under faults found it: a full disk refused one, the room believed it, the desk recorded on."""
    disk, orders = failing
    started = orders.take(bench.command(bench.start()), READY)
    assert started is not None
    assert started.accepted
    payload = bench.command(EndSession(sid=SID))
    disk.broken = True
    for _ in range(2):
        assert orders.take(payload, READY) is None
        assert "an order of the room waits" in orders.waiting
        assert not bench.ledger.is_ended(SID)
    disk.broken = False
    reply = orders.take(payload, READY)
    assert reply is not None
    assert reply.accepted
    assert bench.ledger.is_ended(SID)
    assert orders.waiting == ""
    assert orders.take(payload, READY) == reply


def test_a_refusal_that_is_not_kept_is_said_all_the_same(
    bench: Bench, failing: tuple[FailingCommit, Orders]
) -> None:
    disk, orders = failing
    disk.broken = True
    reply = orders.take(bench.command(EndSession(sid=SID)), READY)
    assert reply is not None
    assert "never ordered" in reply.reason


def test_policy_helper_is_the_signed_policy(bench: Bench) -> None:
    assert policy().record_video
    assert bench.orders.preflight_problems(READY) == ()
