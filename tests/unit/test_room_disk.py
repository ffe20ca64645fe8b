"""A full disk at the controller: decisions are refused in words, and the room goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.errors import StoreFailed
from appliance.room import commands
from appliance.room.forgetting import forget_due
from tests.unit.test_room_kit import Kit, make_kit, orders, start


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with closing(make_kit(tmp_path)) as made:
        made.ready("d1", "d2")
        yield made


def fill(kit: Kit, full: bool = True) -> None:
    """SQLite gets no page more, as on a disk without room; or as many as it likes."""
    pages = "1" if full else "1073741823"
    kit.room.database.transact(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}"))


def test_a_full_disk_refuses_in_words_and_the_room_goes_on(kit: Kit) -> None:
    """Each of these ended the whole process: desks were without a room until somebody made space."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    fill(kit)
    text = "room.db cannot be used: database or disk is full"
    notes = [proctor.post(f"/api/sessions/{sid}/note", {"text": "n" * 900}) for _ in range(40)]
    assert text in [answer.json().get("error") for answer in notes]
    assert {answer.status_code for answer in notes} <= {200, 500, 503, 507}
    for number in range(30):
        kit.answer("d1", refused="r" * 400 + str(number))
    assert proctor.get("/api/room").status_code == 200
    fill(kit, full=False)
    kit.answer("d1")
    assert len(orders(kit, "d1")) == 1
    assert asyncio.run(forget_due(kit.room)) == []


def test_orders_go_out_again_when_the_disk_is_back(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    start(kit.logged_in("proctor"))
    refusals = [StoreFailed("room.db cannot be used: disk i/o error", "")]
    right = commands.due

    def refuses_once(connection: object) -> list[tuple[str, bytes]]:
        if refusals:
            raise refusals.pop()
        return right(connection)  # type: ignore[arg-type]

    monkeypatch.setattr(commands, "due", refuses_once)
    monkeypatch.setattr(commands, "RESEND_S", 0.01)

    async def until_sent() -> None:
        sending = asyncio.create_task(kit.room.outbox.run())
        async with asyncio.timeout(20):
            while not [desk for desk, leaf, _ in kit.sent if desk == "d1" and leaf == "command"]:
                await asyncio.sleep(0.01)
        sending.cancel()

    kit.sent.clear()
    asyncio.run(until_sent())
    assert refusals == []
