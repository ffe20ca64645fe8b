"""Accommodations from start form to signed order: who sets and sees them, what is written, what a restart keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlite_utils

from appliance.policy import ACCOMMODATION_WORDS
from appliance.protocol import SessionPhase
from appliance.room.core import Room
from appliance.room.database import Database
from tests.unit.test_room_kit import Browser, Kit, make_kit, orders

CODES = ["gaze_wide", "no_gaze"]
SHOWN = [{"code": code, "words": ACCOMMODATION_WORDS[code]} for code in ("gaze_wide", "no_gaze")]
DESKS = ("d1", "d2", "d3", "d4", "d5")


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    """One room for all, since certificates and passwords take their time; each test has a desk of its own."""
    with closing(make_kit(tmp_path_factory.mktemp("room"), DESKS)) as made:
        made.ready(*DESKS)
        yield made


@pytest.fixture(scope="module")
def lead(kit: Kit) -> Browser:
    return kit.logged_in("lead")


def start(browser: Browser, desk: str, **more: Any) -> Any:
    return browser.post("/api/sessions/start", {"desk": desk, "candidate_code": f"C-{desk}", **more})


def test_codes_go_into_the_signed_order_and_onto_the_desk_page(kit: Kit, lead: Browser) -> None:
    """F026, F104: once each, in order; on the desk's page and nowhere else, and only while the session is under way.
    The audit log, which stays, says how many."""
    answer = start(lead, "d1", accommodations=["no_gaze", "gaze_wide", "no_gaze"])
    assert answer.status_code == 200, answer.text
    sid = answer.json()["sid"]
    assert orders(kit, "d1")[0]["order"]["accommodations"] == CODES
    assert lead.get("/api/desks/d1").json()["accommodations"] == SHOWN
    rows = lead.get("/api/audit").json()["rows"]
    assert [row["detail"]["accommodations"] for row in rows if row["action"] == "session.start"] == [
        len(CODES)
    ]
    kit.hear("d1", kit.status("d1", kit.report(sid)))
    assert lead.get("/api/desks/d1").json()["accommodations"] == SHOWN
    for page in (lead.get("/api/room"), lead.get("/"), lead.get("/end")):
        assert not any(code in page.text or ACCOMMODATION_WORDS["no_gaze"] in page.text for code in CODES)
    assert lead.post(f"/api/sessions/{sid}/end").status_code == 200
    kit.hear("d1", kit.status("d1", kit.report(sid, SessionPhase.CERTIFIED)))
    kit.certify("d1", sid, segments=())
    assert lead.get("/api/desks/d1").json()["accommodations"] == []


def test_staff_who_see_no_observations_see_no_codes(kit: Kit, lead: Browser) -> None:
    start(lead, "d2", accommodations=CODES)
    assert kit.logged_in("staff").get("/api/desks/d2").json()["accommodations"] == []


@pytest.mark.parametrize("more", [{}, {"accommodations": []}], ids=["unsaid", "none"])
def test_without_codes_the_order_is_the_one_that_older_desks_know(
    kit: Kit, lead: Browser, more: dict[str, Any]
) -> None:
    desk = "d4" if more else "d3"
    assert start(lead, desk, **more).status_code == 200
    assert "accommodations" not in orders(kit, desk)[0]["order"]


def test_f026_free_text_and_unknown_codes_are_refused_and_kept_nowhere(kit: Kit, lead: Browser) -> None:
    for codes in (["dyslexia"], ["Needs glasses"], ["no_gaze", "x"], "no_gaze", {"no_gaze": True}, [None]):
        answer = start(lead, "d5", accommodations=codes)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("accommodations")
    said = start(lead, "d5", accommodations=["no_gaze", "wide_gaze"]).json()["error"]
    assert said.startswith("accommodations.1: input should be 'breaks_free', 'gaze_wide'")
    assert orders(kit, "d5") == []
    stored = b"".join(each.read_bytes() for each in (kit.folder / "data").glob("room.db*"))
    assert b"dyslexia" not in stored
    assert b"Needs glasses" not in stored


def test_codes_belong_to_one_seat_and_never_to_all(lead: Browser) -> None:
    answer = lead.post("/api/sessions/start", {"all": True, "accommodations": CODES})
    assert (answer.status_code, "no accommodations" in answer.json()["error"]) == (400, True)


def test_the_start_form_offers_each_code_in_words(lead: Browser) -> None:
    page = lead.get("/desk/d5").text
    offered = re.findall(r'name="accommodations" value="(\w+)"><span>([^<]+)</span>', page)
    assert [(code, words.lower()) for code, words in offered] == list(ACCOMMODATION_WORDS.items())


def test_codes_outlive_the_process_and_sessions_of_an_older_room_have_none(kit: Kit, lead: Browser) -> None:
    """Last here, since it ends the room. A room.db from before is brought forward, with a copy of it as it stood."""
    start(lead, "d2", accommodations=CODES)
    kit.close()
    path = kit.folder / "data" / "room.db"

    def codes_after_a_restart() -> list[tuple[str, ...]]:
        with closing(Database(path)) as database:
            again = Room.open(kit.room.config, kit.clock, kit.room.keys, database, kit.room.publish)
            return [
                decisions.accommodations for desk, decisions in again.live.sessions.values() if desk == "d2"
            ]

    assert codes_after_a_restart() == [tuple(CODES)]
    with closing(sqlite_utils.Database(path)) as db:
        db.execute("ALTER TABLE sessions DROP COLUMN accommodations")
        for index in ("sessions_by_start", "sessions_not_over"):
            db.execute(f"DROP INDEX {index}")
        db.execute("DELETE FROM _sqlite_migrations WHERE name >= '0003'")
        db.conn.commit()
    assert codes_after_a_restart() == [()]
    assert Path(f"{path}.schema-2").exists()
