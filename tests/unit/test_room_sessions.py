"""A session from its start to its release, hold or discarding: what may be done in which state, by the pages' API."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.errors import Refused
from appliance.evidence.manifest import Gap, WrapEntry
from appliance.protocol import DamagedFile, Preflight, SessionPhase
from appliance.room.accounts import Account, Role
from appliance.room.commands import due
from appliance.room.core import Room
from appliance.room.database import Database
from appliance.room.rows import listed, load_standing
from tests.unit.test_room_kit import (
    SID,
    Kit,
    audit,
    end,
    make_kit,
    orders,
    policy_document,
    start,
)


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with closing(make_kit(tmp_path)) as made:
        made.ready("d1", "d2")
        yield made


def test_a_session_from_start_to_release(kit: Kit) -> None:
    """F104: each step is a signed command with a growing serial and a row in the log."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    assert proctor.get("/api/desks/d1").json()["state"] == "check-in"
    for on in (True, False):
        assert proctor.post(f"/api/sessions/{sid}/break", {"on": on}).status_code == 200
    end(kit, proctor, sid)
    assert proctor.get("/api/desks/d1").json()["state"] == "certified"
    kit.certify("d1", sid, segments=())
    view = proctor.get("/api/room").json()
    assert [s["state"] for s in view["sessions"]] == ["awaiting approval"]
    assert proctor.post(f"/api/sessions/{sid}/approve", {"accept_gaps": True}).status_code == 200
    made = orders(kit, "d1")
    assert [o["order"]["kind"] for o in made] == ["start", "end", "release"]
    assert sorted({o["serial"] for o in made}) == [o["serial"] for o in made]
    assert made[2]["order"]["approved_by"] == "proctor-1"
    assert proctor.get("/api/desks/d1").json()["state"] == "released"
    assert [action for _, action in audit(kit)][1:] == [
        "session.start", "break.start", "break.end", "session.end", "session.certified", "session.approve",
    ]  # fmt: skip


def test_approval_before_the_certificate_is_refused(kit: Kit) -> None:
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    refused = (409, "the session has no verified certificate yet")
    answer = proctor.post(f"/api/sessions/{sid}/approve", {"accept_gaps": True})
    assert (answer.status_code, answer.json()["error"]) == refused
    end(kit, proctor, sid)
    answer = proctor.post(f"/api/sessions/{sid}/approve", {"accept_gaps": True})
    assert (answer.status_code, answer.json()["error"]) == refused
    assert [o["order"]["kind"] for o in orders(kit, "d1")] == ["start", "end"]


def damaged(name: str, byte: str | None) -> DamagedFile:
    return DamagedFile(name=name, size_bytes=900 if byte else 0, sha256=byte and byte * 64)


def test_what_a_desk_cannot_send_is_released_as_it_lies_there(kit: Kit) -> None:
    """Exactly the bytes that its desk told of; a second one later goes with the first."""
    proctor, segment, wrap = kit.logged_in("proctor"), damaged("0-video-1.evf", "a"), damaged("k.evk", None)
    sid = start(proctor)
    end(kit, proctor, sid)
    names = ("0-video-0.evf", segment.name, wrap.name)
    kit.certify("d1", sid, wraps=tuple(WrapEntry(name, "c" * 64, 900) for name in names))

    def tell(*files: DamagedFile) -> None:
        kit.hear("d1", kit.status("d1", kit.report(sid, SessionPhase.SYNCING, damaged=files)))

    def ask(*files: DamagedFile) -> tuple[int, str]:
        body = {"files": [file.model_dump() for file in files]}
        answer = proctor.post(f"/api/sessions/{sid}/approve-damaged", body)
        return answer.status_code, answer.json().get("error", "")

    tell(segment)
    assert ask(segment) == (409, "only a session that was approved and is not sent yet has such files")
    assert proctor.post(f"/api/sessions/{sid}/approve", {"accept_gaps": True}).status_code == 200
    other_bytes, unknown = damaged("0-video-1.evf", "b"), damaged("0-video-0.evf", "a")
    for wrong in (other_bytes, unknown, wrap):
        assert ask(wrong) == (409, "the desk does not say this of its files")
    assert ask()[0] in (400, 422)
    for foreign in (damaged("manifest.json", None), damaged("9-video-0.evf", "a")):
        tell(foreign)
        assert ask(foreign) == (409, f"{foreign.name} is no file that this session recorded")
    tell(segment)
    [shown] = proctor.get("/api/room").json()["sessions"]
    assert shown["damaged"] == [segment.model_dump()]
    assert ask(segment) == (200, "")
    tell(wrap)
    assert ask(wrap) == (200, "")
    releases = [o["order"] for o in orders(kit, "d1") if o["order"]["kind"] == "release"]
    assert [[file["name"] for file in each.get("damaged", [])] for each in releases] == [
        [], ["0-video-1.evf"], ["0-video-1.evf", "k.evk"],
    ]  # fmt: skip
    assert {each["manifest_sha256"] for each in releases} == {releases[0]["manifest_sha256"]}
    assert [action for _, action in audit(kit)][-3:] == [
        "session.approve", "session.approve_damaged", "session.approve_damaged",
    ]  # fmt: skip
    staff = kit.logged_in("staff")
    body = {"files": [wrap.model_dump()]}
    assert staff.post(f"/api/sessions/{sid}/approve-damaged", body).status_code == 403


def test_a_recording_with_a_gap_is_approved_by_itself(kit: Kit) -> None:
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    end(kit, proctor, sid)
    kit.certify("d1", sid, gaps=(Gap(90_000, 270_000, "power was lost", False),))
    assert proctor.post("/api/sessions/approve").json()["outcomes"] == [
        {"desk": "d1", "sid": sid, "refused": "the recording has gaps"}
    ]
    assert "power was lost" in proctor.get("/end").text
    assert proctor.post(f"/api/sessions/{sid}/approve", {"accept_gaps": True}).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"desk": "d2"},
        {"sid": SID},
        {"candidate_code": "C-9"},
        {"policy_version": 2},
        {"retain_until": "2036-11-22"},
    ],
)
def test_a_certificate_of_something_else_does_not_count(kit: Kit, changes: dict[str, object]) -> None:
    """F111: another date of deletion than the policy's is something else, too."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    end(kit, proctor, sid)
    kit.certify("d1", sid, **changes)
    assert proctor.post(f"/api/sessions/{sid}/approve", {"accept_gaps": True}).status_code == 409
    assert "does not hold" in proctor.get("/api/room").json()["needs"][0]["words"]


def test_storage_off_the_eu_list_stops_the_approval(tmp_path: Path) -> None:
    """F119: refused before a release is signed, so that nothing can be sent. F121: no room chooses its own."""
    with closing(make_kit(tmp_path, storage=())) as kit:
        kit.ready("d1")
        proctor = kit.logged_in("proctor")
        sid = start(proctor)
        end(kit, proctor, sid)
        kit.certify("d1", sid)
        answer = proctor.post(f"/api/sessions/{sid}/approve", {"accept_gaps": True})
        assert answer.status_code == 409
        assert "EU list" in answer.json()["error"]
        assert [o["order"]["kind"] for o in orders(kit, "d1")] == ["start", "end"]


def test_hold_keeps_and_a_later_approval_is_possible(kit: Kit) -> None:
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    end(kit, proctor, sid)
    kit.certify("d1", sid)
    assert proctor.post(f"/api/sessions/{sid}/hold", {"reason": ""}).status_code == 400
    assert proctor.post(f"/api/sessions/{sid}/hold", {"reason": "two people at the seat"}).status_code == 200
    assert proctor.get("/api/desks/d1").json()["state"] == "held"
    assert proctor.post("/api/sessions/approve").json()["outcomes"] == []
    assert proctor.post(f"/api/sessions/{sid}/approve", {"accept_gaps": True}).status_code == 200
    assert [o["order"]["kind"] for o in orders(kit, "d1")] == ["start", "end", "hold", "release"]


def test_no_still_stays_when_the_camera_closes(kit: Kit) -> None:
    """F118."""
    sid = start(kit.logged_in("proctor"))
    kit.hear("d1", kit.status("d1", kit.report(sid)))
    kit.intake.preview("d1", b"\xff\xd8 still")
    assert kit.room.live.desks["d1"].jpeg is not None
    kit.hear("d1", kit.status("d1", kit.report(sid, SessionPhase.ENDED), camera_open=False))
    assert kit.room.live.desks["d1"].jpeg is None


def test_a_retained_status_of_a_dead_desk_is_not_live(kit: Kit) -> None:
    """The broker repeats the last status to a controller that starts anew; it is as old as it says."""
    old = kit.status("d1")
    kit.clock.advance(600)
    kit.hear("d1", old)
    proctor = kit.logged_in("proctor")
    assert proctor.get("/api/desks/d1").json()["link"] == "lost"
    kit.hear("d1", kit.status("d1"))
    assert proctor.get("/api/desks/d1").json()["link"] == "live"


def test_discarding_takes_two_people(kit: Kit) -> None:
    anna, berta = kit.logged_in("lead", "anna"), kit.logged_in("lead", "berta")
    sid = start(anna)
    end(kit, anna, sid)
    body = {"reason": "the wrong room"}
    assert anna.post(f"/api/sessions/{sid}/discard", body).json() == {"discarded": False}
    assert anna.post(f"/api/sessions/{sid}/discard", body).status_code == 409
    assert berta.post(f"/api/sessions/{sid}/discard", body).json() == {"discarded": True}
    assert anna.post(f"/api/sessions/{sid}/approve").status_code == 409


def test_a_stuck_desk_is_set_aside_by_a_lead_and_starts_again(kit: Kit) -> None:
    lead = kit.logged_in("lead")
    sid = start(lead)
    assert lead.post("/api/sessions/start", {"desk": "d1", "candidate_code": "C-2"}).status_code == 409
    assert lead.post(f"/api/sessions/{sid}/set-aside", {"reason": "the node died"}).status_code == 200
    assert start(lead) != sid


def test_two_starts_at_once_begin_one_session(kit: Kit) -> None:
    """Two people press the button in the same second; the second is told, and the name that it typed is not kept."""
    by, sessions = Account(1, "proctor-1", Role.PROCTOR), kit.site.sessions

    async def both() -> list[str | BaseException]:
        made = [sessions.start(by, "d1", code, name=f"Name of {code}") for code in ("C-1", "C-2")]
        return await asyncio.gather(*made, return_exceptions=True)

    sid, refused = asyncio.run(both())
    assert isinstance(refused, Refused)
    assert str(refused) == "desk d1 cannot start: a session has begun there"
    assert [order["order"]["candidate_code"] for order in orders(kit, "d1")] == ["C-1"]
    assert kit.room.live.names == {sid: "Name of C-1"}


def test_a_room_whose_database_was_put_back_says_no_serial_again(kit: Kit) -> None:
    """docs/store.md, "To go back": the desks have heard more than the older database knows."""
    lead = kit.logged_in("lead")
    sid = start(lead)
    with closing(sqlite3.connect(kit.folder / "data" / "room.db")) as connection:
        backup = connection.execute("SELECT desk, serial FROM serials").fetchall()
    end(kit, lead, sid)
    heard = kit.serials("d1")
    kit.room.database.transact(
        lambda c: (
            [c.execute("DELETE FROM commands"), c.execute("DELETE FROM serials")]
            + [c.execute("INSERT INTO serials VALUES (?, ?)", row) for row in backup]
        )
    )
    kit.clock.advance(60)
    assert lead.post(f"/api/sessions/{sid}/set-aside", {"reason": "put back"}).status_code == 200
    assert kit.serials("d1")[0] > max(heard)


def test_a_desk_that_records_stops_when_its_session_is_set_aside(kit: Kit) -> None:
    """Nobody could end it afterwards. Control: what is certified has ended already."""
    lead = kit.logged_in("lead")
    recording, certified = start(lead), start(lead, "d2")
    kit.answer("d1")
    kit.hear("d1", kit.status("d1", kit.report(recording)))
    end(kit, lead, certified, "d2")
    kit.certify("d2", certified)
    for sid in (recording, certified):
        assert lead.post(f"/api/sessions/{sid}/set-aside", {"reason": "moved"}).status_code == 200
    assert kit.room.database.transact(due)[0][0] == "d1"
    assert [order["order"]["kind"] for order in orders(kit, "d1")[1:]] == ["end"]
    assert "end" not in [order["order"]["kind"] for order in orders(kit, "d2")[2:]]


def test_all_ready_desks_start_and_end_together(kit: Kit) -> None:
    kit.hear("d2", kit.status("d2", preflight=Preflight(ready=False, problems=("disk is full",))))
    proctor = kit.logged_in("proctor")
    outcomes = proctor.post("/api/sessions/start", {"all": True, "candidate_code": "STAT"}).json()["outcomes"]
    assert [item["refused"] for item in outcomes] == [None, "desk d2 cannot start: disk is full"]
    assert orders(kit, "d1")[0]["order"]["candidate_code"] == "STAT-d1"
    again = proctor.post("/api/sessions/start", {"all": True, "candidate_code": "STAT"}).json()["outcomes"]
    assert [item["desk"] for item in again] == ["d2"], "the first is under way"
    ended = proctor.post("/api/sessions/end").json()["outcomes"]
    assert [item["desk"] for item in ended] == ["d1"]


def test_a_refused_start_is_said_and_the_desk_is_free(kit: Kit) -> None:
    proctor = kit.logged_in("proctor")
    start(proctor)
    kit.answer("d1", refused="clock is not in sync")
    room = proctor.get("/api/room").json()
    assert room["needs"][0]["words"] == "Seat 1 did not start: clock is not in sync"
    assert start(proctor)


def test_a_session_whose_end_was_refused_can_be_ended_again(kit: Kit) -> None:
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    kit.answer("d1")
    assert proctor.post(f"/api/sessions/{sid}/end").status_code == 200
    assert proctor.post(f"/api/sessions/{sid}/end").status_code == 409
    kit.answer("d1", 2, refused="this session was never ordered at this desk")
    assert proctor.post(f"/api/sessions/{sid}/end").status_code == 200
    assert [order["order"]["kind"] for order in orders(kit, "d1")] == ["start", "end", "end"]
    assert ("desk/d1", "command.end.refused") in audit(kit)


def test_nothing_starts_without_a_policy_the_institution_signed(kit: Kit) -> None:
    """F003: unsigned, and signed by somebody else."""
    proctor = kit.logged_in("proctor")
    path = kit.folder / "data" / "policy.json"
    document = json.loads(path.read_bytes())
    document["body"]["version"] = 4
    path.write_text(json.dumps(document))
    answer = proctor.post("/api/sessions/start", {"desk": "d1", "candidate_code": "C-1"})
    assert (answer.status_code, "signature" in answer.json()["error"]) == (409, True)
    path.unlink()
    answer = proctor.post("/api/sessions/start", {"desk": "d1", "candidate_code": "C-1"})
    assert answer.json()["error"] == "no exam is planned"
    path.write_text(json.dumps(policy_document(kit.root, version=5)))
    assert start(proctor)


def test_a_name_is_shown_and_never_kept(kit: Kit) -> None:
    """F016: on the tile while the session runs; in no file, no message, no log, and gone at its end."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor, name="Rosa Quist")
    kit.hear("d1", kit.status("d1", kit.report(sid)))
    assert "Rosa Quist" in proctor.get("/").text
    stored = b"".join(each.read_bytes() for each in (kit.folder / "data").glob("room.db*"))
    assert b"Rosa" not in stored
    assert b"Rosa" not in b"".join(payload for _, _, payload in kit.sent)
    end(kit, proctor, sid)
    assert "Rosa" not in proctor.get("/").text


def test_notes_stand_beside_the_session_with_time_and_person(kit: Kit) -> None:
    """F079."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    assert proctor.post(f"/api/sessions/{sid}/note", {"text": "asked for paper"}).status_code == 200
    note = proctor.get("/api/desks/d1").json()["notes"][0]
    assert note == {"at": kit.room.now(), "by": "proctor-1", "text": "asked for paper"}
    assert audit(kit)[-1] == ("proctor-1", "note")


def test_decisions_outlive_the_process(kit: Kit) -> None:
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    kit.close()
    database = Database(kit.folder / "data" / "room.db")
    again = Room.open(kit.room.config, kit.clock, kit.room.keys, database, kit.room.publish)
    assert again.live.current("d1") is not None
    assert again.live.sessions[sid][1].candidate_code == "C-d1"
    database.close()


def test_what_is_over_leaves_the_list_after_a_day_and_a_start_does_not_read_it(kit: Kit) -> None:
    """A room has thousands of sessions after a year. What still waits for somebody stays, however old it is."""
    proctor = kit.logged_in("proctor")
    waits, over = start(proctor, "d1"), start(proctor, "d2")
    for desk, sid in (("d1", waits), ("d2", over)):
        end(kit, proctor, sid, desk)
        kit.certify(desk, sid, segments=())
    sent = ("UPDATE sessions SET synced_at = ? WHERE sid = ?", (kit.room.now(), over))
    asyncio.run(kit.room.change(over, lambda connection: connection.execute(*sent)))

    def shown() -> set[str]:
        return {entry["sid"] for entry in proctor.get("/api/room").json()["sessions"]}

    def standing() -> set[str]:
        with closing(Database(kit.folder / "data" / "room.db", may_checkpoint=False)) as database:
            return {decisions.sid for _, decisions in database.transact(load_standing)}

    kit.clock.advance(23 * 3600)
    proctor = kit.logged_in("proctor", "proctor-2")
    assert shown() == {waits, over}
    kit.clock.advance(2 * 3600)
    proctor = kit.logged_in("proctor", "proctor-3")
    assert shown() == {waits}
    assert standing() == {waits, over}, "the newest of its desk"
    kit.ready("d2")
    again = start(proctor, "d2")
    assert standing() == {waits, again}
    assert shown() == {waits, again}


def test_neither_the_list_nor_a_start_looks_at_every_session(kit: Kit) -> None:
    """By SQLite's own plan; the control asks without the conditions of the indexes."""

    def plan(query: str) -> str:
        return kit.room.database.transact(
            lambda c: " / ".join(row["detail"] for row in c.execute(f"EXPLAIN QUERY PLAN {query}"))
        )

    def whole_table(steps: str) -> bool:
        scans = [step for step in steps.split(" / ") if step.startswith("SCAN s")]
        return any("sessions_not_over" not in step and "COVERING INDEX" not in step for step in scans)

    queries: list[str] = []
    kit.room.database.transact(lambda c: c.set_trace_callback(queries.append))
    kit.room.database.transact(lambda c: listed(c, "2026-11-22T09:00:00.000Z"))
    kit.room.database.transact(load_standing)
    kit.room.database.transact(lambda c: c.set_trace_callback(None))
    asked = [query for query in queries if query.startswith("SELECT")]
    assert len(asked) == 2
    for query in asked:
        assert "SCAN sessions USING INDEX sessions_not_over" in plan(query)
        assert not whole_table(plan(query))
    assert whole_table(plan("SELECT * FROM sessions WHERE start_refused IS NULL ORDER BY started_at LIMIT 9"))
