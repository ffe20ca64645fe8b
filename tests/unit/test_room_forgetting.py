"""What the room's database lets go of: a seat's codes with its recording, a session on its policy's day."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest

from appliance.errors import StoreFailed
from appliance.room import forgetting
from appliance.room.forgetting import OF_A_SESSION, forget_due, forget_when_due
from appliance.store.backup import back_up, backups
from tests.unit.test_room_kit import Browser, Kit, audit, end, make_kit, policy_of, start

CODES = ["gaze_wide", "no_gaze"]


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with closing(make_kit(tmp_path)) as made:
        made.ready("d1", "d2")
        yield made


@pytest.fixture
def lead(kit: Kit) -> Browser:
    return kit.logged_in("lead")


def test_f026_a_seats_codes_go_when_its_recording_is_certified(kit: Kit, lead: Browser) -> None:
    sid = start(lead, accommodations=CODES)
    kit.answer("d1")
    assert in_files(kit, *CODES) == set(CODES)
    end(kit, lead, sid)
    assert in_files(kit, *CODES) == set(CODES)  # its end may be refused yet: then it records on
    kit.certify("d1", sid)
    assert in_files(kit, *CODES) == set(CODES)  # older pages, in the log until the next look at what is due
    look(kit)
    assert in_files(kit, *CODES, "C-d1") == {"C-d1"}


def test_an_order_to_start_is_kept_until_its_desk_has_answered(kit: Kit, lead: Browser) -> None:
    sid = start(lead, accommodations=CODES)
    end(kit, lead, sid)
    kit.certify("d1", sid)
    assert b"no_gaze" in first_order(kit)
    kit.answer("d1")
    assert first_order(kit) == b"{}"


def test_f026_a_seats_codes_go_when_its_session_never_starts(kit: Kit, lead: Browser) -> None:
    start(lead, accommodations=CODES)
    kit.answer("d1", refused="clock is not in sync")
    kit.close()
    assert in_files(kit, *CODES, "C-d1") == {"C-d1"}


def test_f114_a_session_that_is_over_is_forgotten_on_its_policys_day(kit: Kit, lead: Browser) -> None:
    """With notes, orders and the backups that name it. One that waits for a person stays, and so does the audit log."""
    over, waits = start(lead), start(lead, "d2")
    for desk, sid in (("d1", over), ("d2", waits)):
        kit.answer(desk)
        end(kit, lead, sid, desk)
        kit.certify(desk, sid)
        assert lead.post(f"/api/sessions/{sid}/note", {"text": f"moved at {desk}"}).status_code == 200
    assert lead.post(f"/api/sessions/{over}/set-aside", {"reason": "desk is gone"}).status_code == 200
    path = kit.folder / "data" / "room.db"
    with closing(sqlite3.connect(path)) as connection:
        back_up(connection, path, "schema-4")
    day = datetime.combine(policy_of(kit).retention_end, time(), UTC)

    kit.clock.now_wall = day - timedelta(seconds=1)
    assert asyncio.run(forget_due(kit.room)) == []
    assert rows_of(kit, over) == set(OF_A_SESSION) - {"reviews"}
    assert len(backups(path)) == 1

    kit.clock.now_wall = day
    assert asyncio.run(forget_due(kit.room)) == [over]
    assert (rows_of(kit, over), rows_of(kit, waits)) == (set(), set(OF_A_SESSION) - {"reviews"})
    assert backups(path) == []
    assert kit.room.live.current("d1") is None
    assert audit(kit)[-1] == ("room", "session.forget")
    kit.close()
    assert in_files(kit, "C-d1", "moved at d1", "C-d2", "moved at d2") == {"C-d2", "moved at d2"}


def test_a_session_whose_desk_has_not_answered_stays(kit: Kit, lead: Browser) -> None:
    """It would never hear that its copy may go."""
    sid = start(lead)
    assert lead.post(f"/api/sessions/{sid}/set-aside", {"reason": "desk is off"}).status_code == 200
    kit.clock.now_wall = datetime.combine(policy_of(kit).retention_end, time(), UTC)
    assert asyncio.run(forget_due(kit.room)) == []
    kit.answer("d1", 2, refused="never ordered at this desk")
    assert asyncio.run(forget_due(kit.room)) == [sid]


def test_log_ins_that_are_over_and_tries_of_the_day_before_go(kit: Kit, lead: Browser) -> None:
    kit.client().post("/api/login", {"name": "lead-1", "password": "wrong wrong wrong"})
    counts = "SELECT (SELECT count(*) FROM logins), (SELECT count(*) FROM login_failures)"

    def left() -> tuple[int, ...]:
        asyncio.run(forget_due(kit.room))
        return tuple(kit.room.database.transact(lambda c: c.execute(counts).fetchone()))

    assert left() == (1, 1)
    kit.clock.advance(13 * 3600)
    assert left() == (0, 1)
    kit.clock.advance(12 * 3600)
    assert left() == (0, 0)


def test_a_password_typed_as_a_name_is_kept_nowhere(kit: Kit) -> None:
    typed = "correct-horse-battery"
    assert kit.client().post("/api/login", {"name": typed, "password": "x" * 12}).status_code == 401
    kit.close()
    assert in_files(kit, typed) == set()


def test_a_disk_that_refuses_is_asked_again(
    kit: Kit, lead: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sid = start(lead)
    kit.answer("d1", refused="clock is not in sync")
    kit.clock.now_wall = datetime.combine(policy_of(kit).retention_end, time(), UTC)
    refusals = [StoreFailed("cannot remove the backups: input/output error", "")]

    def refuses_once(*_: object) -> None:
        if refusals:
            raise refusals.pop()

    monkeypatch.setattr(forgetting, "remove_backups_of", refuses_once)
    with pytest.raises(StoreFailed):
        asyncio.run(forget_due(kit.room))
    assert rows_of(kit, sid) == {"commands", "sessions"}

    async def until_forgotten() -> None:
        refusals.append(StoreFailed("cannot remove the backups: input/output error", ""))
        looking = asyncio.create_task(forget_when_due(kit.room))
        async with asyncio.timeout(20):
            while sid in kit.room.live.sessions:
                await asyncio.sleep(0.01)
        looking.cancel()

    monkeypatch.setattr(forgetting, "LOOK_S", 0.0)
    asyncio.run(until_forgotten())
    assert rows_of(kit, sid) == set()
    assert "room.not_forgotten reason=cannot remove the backups" in caplog.text


def look(kit: Kit) -> None:
    """What the room does every hour."""

    async def once() -> None:
        looking = asyncio.create_task(forget_when_due(kit.room))
        async with asyncio.timeout(20):
            while (kit.folder / "data" / "room.db-wal").stat().st_size:
                await asyncio.sleep(0.01)
        looking.cancel()

    asyncio.run(once())


def in_files(kit: Kit, *words: str) -> set[str]:
    """Which of the words stand anywhere in the database's files, free pages and all."""
    stored = b"".join(each.read_bytes() for each in (kit.folder / "data").glob("room.db*"))
    return {word for word in words if word.encode() in stored}


def first_order(kit: Kit) -> bytes:
    query = "SELECT payload FROM commands WHERE desk = 'd1' ORDER BY serial"
    return bytes(kit.room.database.transact(lambda c: c.execute(query).fetchone()[0]))


def rows_of(kit: Kit, sid: str) -> set[str]:
    """The tables that know of the session; the audit log aside."""
    return kit.room.database.transact(
        lambda c: {
            table
            for table in OF_A_SESSION
            if c.execute(f"SELECT 1 FROM {table} WHERE sid = ?", (sid,)).fetchone()
        }
    )
