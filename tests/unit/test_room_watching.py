"""A look ends with the page, however early it goes, and a closed camera leaves no picture on any."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from appliance.room.accounts import Account, Role
from appliance.room.routes_pages import _still
from tests.unit.test_room_kit import Kit, audit, make_kit

BY = Account(1, "proctor-1", Role.PROCTOR)


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with closing(make_kit(tmp_path)) as made:
        made.ready("d1", "d2")
        yield made


def test_f103_a_page_that_goes_before_its_look_is_logged_asks_for_no_picture(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The desk would have been asked for live pictures until the controller ended, with nobody looking."""
    right = kit.room.database.run

    async def held_up(go: asyncio.Event, work: Callable[[Any], Any]) -> Any:
        await go.wait()
        return await right(work)

    async def looks() -> None:
        async with kit.site.watching.look(BY, "d1"):
            await asyncio.sleep(60)

    async def scene() -> None:
        go = asyncio.Event()
        monkeypatch.setattr(kit.room.database, "run", lambda work: held_up(go, work))
        page = asyncio.create_task(looks())
        await asyncio.sleep(0.01)
        assert set(kit.site.watching.modes()) == {"d1"}
        page.cancel()
        await asyncio.sleep(0.01)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await page

    asyncio.run(scene())
    assert kit.site.watching.modes() == {}
    assert audit(kit)[-1] == ("proctor-1", "watch.stop")


def test_f118_a_page_that_comes_after_the_camera_closed_is_told_that_there_is_no_picture(kit: Kit) -> None:
    """It may show one that an earlier stream sent: it was hidden meanwhile, or the controller began anew."""
    sent: dict[str, int] = {}
    assert [_still(kit.site, "d1", sent) for _ in range(2)] == ["", None]
    kit.intake.preview("d1", b"\xff\xd8 still")
    assert [(_still(kit.site, "d1", sent) or "")[:5] for _ in range(2)] == ["data:", ""]
    kit.room.live.desks["d1"].jpeg = None
    assert [_still(kit.site, "d1", sent) for _ in range(2)] == ["", None]
