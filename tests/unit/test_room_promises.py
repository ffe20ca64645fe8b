"""What the room promises its candidates: nothing beyond the signed policy, no order by what was seen, two outcomes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from appliance.protocol import ObservationMessage, ObservationReport
from appliance.room.app import build_app
from tests.unit.test_room_kit import SID, Kit, audit, end, flat, make_kit, orders, policy_document, start

GONE = ObservationReport(
    kind="nobody_at_desk", words="nobody at the desk", phase="closed", start_90k=0, end_90k=3_600_000,
    duration_s=40.0, level="red", rule="nobody for over 10 s", measured={},
)  # fmt: skip
ROLES = ("staff", "proctor", "lead")
# The least role for all that the controller answers to. Nothing here takes a policy or a key, or gives a recording.
NEEDED = {
    "staff": {
        "GET /", "GET /desk/{desk}", "GET /end", "GET /events", "GET /api/room", "GET /api/desks/{desk}",
        "GET /certificates/{sid}", "GET /api/certificates/{sid}", "POST /api/logout",
    },
    "proctor": {
        "POST /api/sessions/start", "POST /api/sessions/end", "POST /api/sessions/approve",
        "POST /api/sessions/{sid}/end", "POST /api/sessions/{sid}/break", "POST /api/sessions/{sid}/approve",
        "POST /api/sessions/{sid}/approve-damaged",
        "POST /api/sessions/{sid}/hold", "POST /api/sessions/{sid}/note", "POST /api/sessions/{sid}/review",
    },
    "lead": {"GET /api/audit", "POST /api/sessions/{sid}/set-aside", "POST /api/sessions/{sid}/discard"},
}  # fmt: skip
OPEN = {"GET /login", "POST /api/login"}
NOT_ASKED = {"GET /events", "POST /api/logout"}  # one never ends, the other ends the log-in


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with closing(make_kit(tmp_path)) as made:
        made.ready("d1", "d2")
        yield made


def test_each_role_reaches_what_it_needs_and_nobody_a_policy_a_key_or_a_recording(kit: Kit) -> None:
    """F067, F086, F091: all that there is, by the least role; whoever has less is refused, whoever has it is not."""
    routes = flat(build_app(kit.site).routes)
    there = {f"{method} {route.path}" for route in routes for method in route.methods - {"HEAD"}}
    assert there == OPEN.union(*NEEDED.values())
    for place, role in enumerate(ROLES):
        browser = kit.logged_in(role)
        for needed, paths in NEEDED.items():
            for each in sorted(paths - NOT_ASKED):
                method, path = each.replace("{sid}", SID).replace("{desk}", "d1").split()
                answer = browser.request(method, path, json={} if method == "POST" else None)
                assert (answer.status_code == 403) == (place < ROLES.index(needed)), (role, each, answer.text)


def test_a_start_asks_for_nothing_beyond_the_signed_policy(kit: Kit) -> None:
    """F001: neither a stream nor a rule, a date, a storage or a reader can be named beside it."""
    proctor = kit.logged_in("proctor")
    body = {"desk": "d1", "candidate_code": "C-1"}
    for asked in ("record_video", "gaze", "voice", "retain_until", "storage", "recipients", "policy"):
        answer = proctor.post("/api/sessions/start", body | {asked: True})
        assert (answer.status_code, asked in answer.json()["error"]) == (400, True), answer.text
    assert orders(kit, "d1") == []
    assert proctor.post("/api/sessions/start", body).status_code == 200  # control
    [command] = orders(kit, "d1")
    assert set(command["order"]) == {"kind", "sid", "candidate_code", "policy"}
    assert command["order"]["policy"] == json.loads((kit.folder / "data" / "policy.json").read_bytes())


def test_a_later_policy_changes_nothing_for_a_session_under_way(kit: Kit) -> None:
    """F110: what is kept how long stays as it was when the session began; the next one begins under the new version."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    later = policy_document(kit.root, version=4, retain_until=date(2036, 11, 22))
    (kit.folder / "data" / "policy.json").write_text(json.dumps(later))
    start(proctor, "d2")
    versions = [orders(kit, desk)[0]["order"]["policy"]["body"]["version"] for desk in ("d1", "d2")]
    assert versions == [3, 4]
    end(kit, proctor, sid)
    kit.certify("d1", sid, segments=())  # as a desk that went over to the later one
    assert "does not hold" in proctor.get("/api/room").json()["needs"][0]["words"]
    kit.certify("d1", sid, segments=(), policy_version=3)
    [entry, _] = proctor.get("/api/room").json()["sessions"]
    assert (entry["sid"], entry["policy"]["version"], entry["state"]) == (sid, 3, "awaiting approval")


def test_seats_stand_in_the_rooms_order_whatever_was_observed(kit: Kit) -> None:
    """F074: nobody is put before others for what was seen, nor for when the session began."""
    proctor = kit.logged_in("proctor")
    second, first = start(proctor, "d2"), start(proctor, "d1")
    for desk, sid in (("d1", first), ("d2", second)):
        kit.hear(desk, kit.status(desk, kit.report(sid)))
    kit.hear("d2", *(ObservationMessage(sid=second, number=n, observation=GONE) for n in range(1, 9)))
    room = proctor.get("/api/room").json()
    assert [(tile["desk"], tile["level"]) for tile in room["tiles"]] == [("d1", "green"), ("d2", "red")]
    assert [session["sid"] for session in room["sessions"]] == [first, second]


def test_a_person_says_what_becomes_of_an_observation_in_one_of_two_words(kit: Kit) -> None:
    """F069: not looked at, no concern or referred. Any other word is refused, and nothing follows by itself."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    kit.hear("d1", kit.status("d1", kit.report(sid)))
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=GONE))

    def review() -> str | None:
        [seen] = proctor.get("/api/desks/d1").json()["observations"]
        return None if seen["review"] is None else str(seen["review"])

    for word in ("confirmed", "invalid", "failed", ""):
        refused = proctor.post(f"/api/sessions/{sid}/review", {"number": 1, "outcome": word})
        assert (refused.status_code, review()) == (400, None)
    for word in ("referred", "no concern"):
        said = proctor.post(f"/api/sessions/{sid}/review", {"number": 1, "outcome": word})
        assert (said.status_code, review()) == (200, word)
    assert audit(kit)[-2:] == [("proctor-1", "observation.review")] * 2
    assert proctor.get("/api/desks/d1").json()["state"] == "recording"
    assert [command["order"]["kind"] for command in orders(kit, "d1")] == ["start"]
