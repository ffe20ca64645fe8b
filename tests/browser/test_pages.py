"""What stands on a page that stays open while others decide: Debian's chromium, the room's own HTTPS and event stream.

The desks speak by hand (tests/unit/test_room_kit.py), so that what changes, and when, is the test's to say.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from appliance.evidence.manifest import WrapEntry
from appliance.policy import Strict
from appliance.protocol import DamagedFile, Preflight, SessionPhase
from appliance.room import views
from appliance.room.accounts import add_account
from appliance.room.app import build_app
from demo.controller_client import ControllerClient
from demo.room import free_port, wait_until
from demo.screens import launch
from tests.unit.test_room_kit import PASSWORD, Kit, make_kit

pytestmark = pytest.mark.slow

expect.set_options(timeout=20_000)  # the machine is shared; 5 s is the library's own
EVENTS_MS = 2500  # a room event comes every second


@dataclass
class Open:
    """A room at its address, and a colleague who decides from another machine."""

    kit: Kit
    url: str
    colleague: ControllerClient

    def begin(self, desk: str, code: str) -> str:
        """A session that records, begun after any other."""
        self.kit.clock.advance(0.1)
        sid = str(self.colleague.post("/api/sessions/start", {"desk": desk, "candidate_code": code})["sid"])
        self.kit.hear(desk, self.kit.status(desk, self.kit.report(sid)))
        return sid

    def certify(self, desk: str, sid: str, complete: bool = True, **manifest: Any) -> None:
        """Ended, and its certificate is there. The kit's manifest has no segment: by itself it has a gap."""
        self.decide(sid, "end")
        self.kit.hear(desk, self.kit.status(desk, self.kit.report(sid, SessionPhase.CERTIFIED)))
        self.kit.certify(desk, sid, **manifest)
        if complete:
            self.kit.room.database.transact(
                lambda c: c.execute("UPDATE sessions SET complete = 1 WHERE sid = ?", (sid,)).rowcount
            )

    def decide(self, sid: str, what: str, **body: Any) -> None:
        """The colleague's decision."""
        self.colleague.post(f"/api/sessions/{sid}/{what}", body)


@contextmanager
def served(kit: Kit, port: int) -> Iterator[None]:
    """The kit's application on loopback, its desks heard on the same event loop, as in a controller."""
    trust = kit.folder / "trust"
    settings = uvicorn.Config(
        build_app(kit.site), port=port, log_config=None, lifespan="off", timeout_graceful_shutdown=3,
        ssl_certfile=trust / "controller.pem", ssl_keyfile=trust / "controller-tls.key",
    )  # fmt: skip
    server = uvicorn.Server(settings)
    loop = asyncio.new_event_loop()

    def on_the_loop(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(20)

    async def take(desk: str, messages: tuple[Strict, ...]) -> None:
        for message in messages:
            await kit.intake.message(desk, message)
        await kit.intake.settled()

    kit.hear = lambda desk, *messages: on_the_loop(take(desk, messages))  # type: ignore[method-assign]
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(),))
    thread.start()
    try:
        wait_until("the room answers", lambda: server.started, 20)
        yield
    finally:
        kit.site.stopping = server.should_exit = True
        thread.join()
        loop.close()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Open]:
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    with closing(make_kit(tmp_path)) as kit:
        for name in ("anna", "ben"):
            add_account(tmp_path / "data" / "room.db", name, "proctor", PASSWORD, kit.clock)
        with (
            served(kit, port),
            closing(ControllerClient(url, tmp_path / "trust" / "room-ca.pem")) as colleague,
        ):
            colleague.log_in("ben", PASSWORD)
            kit.ready("d1", "d2")
            yield Open(kit, url, colleague)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def page(room: Open, browser: Browser) -> Iterator[Page]:
    """Anna's, logged in."""
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    page.set_default_timeout(15_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.request.post(room.url + "/api/login", data={"name": "anna", "password": PASSWORD})
    yield page
    context.close()
    assert problems == []


def press(page: Page, button: str) -> None:
    """A button of the open dialog."""
    page.get_by_role("dialog").get_by_role("button", name=button, exact=True).click()


def test_a_colleagues_note_is_shown(room: Open, page: Page) -> None:
    sid = room.begin("d1", "C-1")
    page.goto(room.url + "/desk/d1")
    expect(page.locator("#who")).to_have_text("C-1")
    room.decide(sid, "note", text="dropped a pen")
    expect(page.locator("#notes li")).to_contain_text(["ben: dropped a pen"])


def test_notes_of_the_last_session_do_not_stand_under_the_next(room: Open, page: Page) -> None:
    first = room.begin("d1", "C-1")
    room.decide(first, "note", text="dropped a pen")
    page.goto(room.url + "/desk/d1")
    expect(page.locator("#notes li")).to_contain_text(["dropped a pen"])
    room.certify("d1", first)
    second = room.begin("d1", "C-2")
    expect(page.locator("#who")).to_have_text("C-2")
    expect(page.locator("#notes li")).to_have_count(0)
    room.decide(second, "note", text="asked for paper")
    expect(page.locator("#notes li")).to_contain_text(["asked for paper"])


def test_what_was_begun_for_one_session_is_never_done_to_the_next(room: Open, page: Page) -> None:
    """A note half written and a question half answered when somebody else sits down: they are the first one's."""
    first = room.begin("d1", "C-1")
    page.goto(room.url + "/desk/d1")
    expect(page.locator("#who")).to_have_text("C-1")
    page.locator("#note textarea").fill("left early")
    page.get_by_role("button", name="End session").click()
    room.certify("d1", first)
    room.begin("d1", "C-2")
    expect(page.locator("#who")).to_have_text("C-2")
    press(page, "End")
    expect(page.get_by_role("status")).to_contain_text("The session was ended already")
    expect(page.locator("#state")).to_have_text("recording")
    page.get_by_role("button", name="Write note").click()
    expect(page.get_by_role("status")).to_have_text("The note is written.")
    expect(page.locator("#notes li")).to_have_count(0)
    [note] = room.kit.room.database.transact(lambda c: views.notes(c, first))
    assert note["text"] == "left early"


def test_approve_all_says_how_many_and_why_not(room: Open, page: Page) -> None:
    for desk, complete in (("d1", True), ("d2", False)):
        room.certify(desk, room.begin(desk, f"C-{desk}"), complete)
    page.goto(room.url + "/end")
    page.get_by_role("button", name="Approve all complete").click()
    press(page, "Approve")
    dialog = page.get_by_role("dialog", name="Sessions approved: 1.")
    expect(dialog).to_contain_text("Seat 2: the recording has gaps.")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_hidden()
    press(page, "Close")
    rows = page.locator("tbody tr")
    expect(rows.nth(0)).to_have_attribute("data-state", "released")
    expect(rows.nth(1)).to_have_attribute("data-state", "awaiting approval")


def test_approve_all_says_that_nothing_was_left_to_approve(room: Open, page: Page) -> None:
    sid = room.begin("d1", "C-1")
    room.certify("d1", sid)
    page.goto(room.url + "/end")
    page.get_by_role("button", name="Approve all complete").click()
    room.decide(sid, "hold", reason="the board decides")
    press(page, "Approve")
    expect(page.locator("tbody tr")).to_have_attribute("data-state", "held")
    expect(page.get_by_role("status")).to_have_text("Sessions approved: 0.")


def test_start_all_and_end_all_say_how_many_and_why_not(room: Open, page: Page) -> None:
    not_ready = Preflight(ready=False, problems=("disk is full",))
    room.kit.hear("d2", room.kit.status("d2", preflight=not_ready))
    page.goto(room.url + "/")
    page.get_by_role("button", name="Start all ready desks").click()
    press(page, "Start")
    dialog = page.get_by_role("dialog", name="Starts sent: 1.")
    expect(dialog).to_contain_text("Seat 2: desk d2 cannot start: disk is full.")
    press(page, "Close")
    page.get_by_role("button", name="End all sessions").click()
    press(page, "End all")
    expect(page).to_have_url(room.url + "/end")
    expect(page.get_by_role("status")).to_have_text("Sessions ending: 1.")


def test_what_a_desk_cannot_send_is_released_as_it_lies_there(room: Open, page: Page) -> None:
    """From the need on the dashboard to the button that came by itself; a colleague's page loses it again."""
    sid = room.begin("d1", "C-1")
    names = ("0-video-1.evf", f"{sid}.0.log.evk")
    room.certify("d1", sid, wraps=tuple(WrapEntry(name, "c" * 64, 900) for name in names))
    room.decide(sid, "approve")
    page.goto(room.url + "/end")
    button = page.get_by_role("button", name="Send as it is")
    expect(page.locator("tbody tr")).to_have_attribute("data-state", "released")
    expect(button).to_have_count(0)
    spoilt = DamagedFile(name="0-video-1.evf", size_bytes=900, sha256="ab" * 32)
    gone = DamagedFile(name=f"{sid}.0.log.evk", size_bytes=0, sha256=None)
    words = ("0-video-1.evf: was altered", f"{gone.name}: cannot be read")
    report = room.kit.report(sid, SessionPhase.SYNCING, set_aside=words, damaged=(spoilt, gone))
    room.kit.hear("d1", room.kit.status("d1", report))
    button.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("0-video-1.evf: no longer as recorded")
    expect(dialog).to_contain_text(f"{gone.name}: cannot be read and is left out")
    press(page, "Cancel")
    page.goto(room.url + "/")
    expect(page.locator("#needs")).to_contain_text("0-video-1.evf: was altered; and 1 more")
    page.goto(room.url + "/end")
    button.click()
    press(page, "Send as it is")
    expect(page.get_by_role("status")).to_have_text("Approved.")
    orders = room.kit.room.database.transact(
        lambda c: c.execute("SELECT payload FROM commands WHERE kind = 'release' ORDER BY serial").fetchall()
    )
    assert [json.loads(row[0])["body"]["order"].get("damaged") for row in orders] == [
        None, [spoilt.model_dump(), gone.model_dump()],
    ]  # fmt: skip
    room.kit.hear("d1", room.kit.status("d1", room.kit.report(sid, SessionPhase.SYNCING)))
    expect(button).to_have_count(0)


def test_a_change_under_an_open_dialog_is_shown_after_cancel(room: Open, page: Page) -> None:
    """One that a desk tells, and only once."""
    room.certify("d1", room.begin("d1", "C-1"))
    other = room.begin("d2", "C-2")
    room.decide(other, "end")
    page.goto(room.url + "/end")
    row = page.locator(f"tr[data-sid='{other}']")
    expect(row).to_have_attribute("data-state", "ended")
    page.get_by_role("button", name="Approve", exact=True).click()
    room.kit.hear("d2", room.kit.status("d2", room.kit.report(other, SessionPhase.CERTIFIED)))
    page.wait_for_timeout(EVENTS_MS)
    expect(row).to_have_attribute("data-state", "ended")
    press(page, "Cancel")
    expect(row).to_have_attribute("data-state", "certified")


def test_after_a_refusal_its_words_and_the_new_table_are_shown(room: Open, page: Page) -> None:
    sid = room.begin("d1", "C-1")
    room.certify("d1", sid)
    page.goto(room.url + "/end")
    page.get_by_role("button", name="Approve", exact=True).click()
    room.decide(sid, "approve")
    page.wait_for_timeout(EVENTS_MS)
    press(page, "Approve")
    expect(page.locator("tbody tr")).to_have_attribute("data-state", "released")
    expect(page.get_by_role("status")).to_have_text("The session was approved already.")


def test_no_page_is_fetched_anew_under_a_decision_that_is_on_its_way(room: Open, page: Page) -> None:
    sid = room.begin("d1", "C-1")
    room.certify("d1", sid)
    page.goto(room.url + "/end")
    page.get_by_role("button", name="Approve", exact=True).click()
    sent: list[Route] = []
    page.route("**/approve", lambda route: sent.append(route))
    with page.expect_request("**/approve"):
        press(page, "Approve")
    room.decide(sid, "approve")
    page.wait_for_timeout(EVENTS_MS)
    sent.pop().continue_()
    expect(page.get_by_role("status")).to_have_text("The session was approved already.")
    expect(page.locator("tbody tr")).to_have_attribute("data-state", "released")


def test_a_decision_about_a_session_that_has_a_successor_is_shown(room: Open, page: Page) -> None:
    """Its desk's tile is the next session's and does not change."""
    first = room.begin("d1", "C-1")
    room.certify("d1", first)
    room.begin("d1", "C-2")
    page.goto(room.url + "/end")
    row = page.locator(f"tr[data-sid='{first}']")
    expect(row).to_have_attribute("data-state", "awaiting approval")
    page.wait_for_timeout(EVENTS_MS)
    room.decide(first, "approve")
    expect(row).to_have_attribute("data-state", "released")
