"""HTTP without sockets: who may do what, from which page, in which state; and what is written down about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.routing import Mount, Route

from appliance.card import LABELS, NO_CARD, Card
from appliance.clock import parse_utc
from appliance.evidence.manifest import Gap
from appliance.protocol import (
    ObservationMessage,
    ObservationReport,
    Preflight,
    Reply,
    SessionPhase,
)
from appliance.room.app import build_app
from appliance.room.web import COOKIE, CSRF_HEADER
from tests.sessions import CARD
from tests.unit.test_room_kit import PASSWORD, Browser, Kit, make_kit, orders, policy_document

SID = "ab" * 16
OPEN_TO_ALL = {"/login", "/api/login"}


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with closing(make_kit(tmp_path)) as made:
        made.ready("d1", "d2")
        yield made


def start(browser: Browser, desk: str = "d1", **more: str) -> str:
    answer = browser.post("/api/sessions/start", {"desk": desk, "candidate_code": f"C-{desk}", **more})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["sid"])


def end(kit: Kit, browser: Browser, sid: str, desk: str = "d1") -> None:
    kit.hear(desk, kit.status(desk, kit.report(sid)))
    assert browser.post(f"/api/sessions/{sid}/end").status_code == 200
    kit.hear(desk, kit.status(desk, kit.report(sid, SessionPhase.CERTIFIED)))


def audit(kit: Kit) -> list[tuple[str, str]]:
    return kit.room.database.transact(
        lambda c: [
            (r["actor"], r["action"]) for r in c.execute("SELECT actor, action FROM audit ORDER BY row")
        ]
    )


def paths(kit: Kit) -> list[tuple[str, str]]:
    """Every route of the application with one of its methods."""
    found: list[tuple[str, str]] = []
    for route in flat(build_app(kit.site).routes):
        for method in sorted(route.methods or ()):
            found.append((method, route.path.replace("{sid}", SID).replace("{desk}", "d1")))
    return found


def flat(routes: list[object]) -> list[Route]:
    found: list[Route] = []
    for route in routes:
        if isinstance(route, Mount):
            continue
        if isinstance(route, Route):
            found.append(route)
        elif (inner := getattr(route, "original_router", None)) is not None:
            found.extend(flat(inner.routes))
    return found


def test_every_endpoint_needs_a_login(kit: Kit) -> None:
    browser, seen = kit.client(), 0
    for method, path in paths(kit):
        if path in OPEN_TO_ALL or method == "HEAD":
            continue
        answer = browser.request(method, path, json={} if method == "POST" else None)
        wanted = 303 if method == "GET" and not path.startswith(("/api/", "/events")) else 401
        assert answer.status_code == wanted, (method, path, answer.text)
        seen += 1
    assert seen >= 18


def test_every_post_needs_the_pages_token(kit: Kit) -> None:
    lead = kit.logged_in("lead")
    del lead.headers[CSRF_HEADER]
    for method, path in paths(kit):
        if method == "POST" and path not in OPEN_TO_ALL:
            assert lead.post(path).status_code == 403, path
            assert lead.post(path, headers={CSRF_HEADER: "0" * 64}).status_code == 403, path


def test_a_post_from_another_site_is_refused(kit: Kit) -> None:
    proctor = kit.logged_in("proctor")
    body = {"desk": "d1", "candidate_code": "C-1"}
    for headers in (
        {"Origin": "https://elsewhere.test"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "null"},
    ):
        answer = proctor.post("/api/sessions/start", body, headers=headers)
        assert (answer.status_code, "another site" in answer.json()["error"]) == (403, True)
    assert (
        proctor.post("/api/sessions/start", body, headers={"Origin": "https://room.test"}).status_code == 200
    )


@pytest.mark.parametrize(
    ("role", "path", "status"),
    [
        ("staff", "/api/sessions/start", 403),
        ("staff", f"/api/sessions/{SID}/approve", 403),
        ("staff", f"/api/sessions/{SID}/note", 403),
        ("proctor", f"/api/sessions/{SID}/set-aside", 403),
        ("proctor", f"/api/sessions/{SID}/discard", 403),
        ("lead", f"/api/sessions/{SID}/set-aside", 400),
        ("proctor", f"/api/sessions/{SID}/hold", 400),
    ],
)
def test_roles(kit: Kit, role: str, path: str, status: int) -> None:
    """F091; 400 says that the role was enough and the body or session was not."""
    browser = kit.logged_in(role)
    assert (
        browser.post(
            path, {"reason": "because", "text": "because"} if "note" in path else {"reason": "because"}
        ).status_code
        == status
    )
    refused = (f"{role}-1", "access.refused") in audit(kit)
    assert refused == (status == 403)


def test_only_leads_read_the_audit_log(kit: Kit) -> None:
    assert kit.logged_in("proctor").get("/api/audit").status_code == 403
    rows = kit.logged_in("lead").get("/api/audit").json()["rows"]
    assert [row["action"] for row in rows][-2:] == ["login", "audit.read"]


def test_one_strict_cookie_and_no_other(kit: Kit) -> None:
    """F173."""
    browser = kit.logged_in("proctor")
    answer = kit.client().post("/api/login", {"name": "proctor-1", "password": PASSWORD})
    cookies = answer.headers.get_list("set-cookie")
    assert len(cookies) == 1
    assert cookies[0].startswith(f"{COOKIE}=")
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=strict"} <= set(cookies[0].split("; "))
    assert "set-cookie" not in browser.get("/").headers


def test_nothing_external_is_allowed_on_any_page(kit: Kit) -> None:
    """F172: no third party's asset; the header would stop one, and no page names one. F152: who set the rules."""
    browser = kit.logged_in("proctor")
    for path in ("/", "/desk/d1", "/end", "/nowhere"):
        answer = browser.get(path)
        assert answer.headers["content-security-policy"].startswith(
            "default-src 'self'; img-src 'self' data:"
        )
        assert answer.headers["cache-control"] == "no-store"
        assert "http://" not in answer.text
        assert "https://" not in answer.text
        assert "Policy stat-2026 v3, set by Examination board" in answer.text


def test_login_is_logged_with_a_cut_address(kit: Kit) -> None:
    """F024: from 192.0.2.77 only 192.0.2.0/24 is kept; F103: failed log-ins too, without what was typed as a name.

    F025: nothing of the browser itself.
    """
    browser = kit.logged_in("proctor")
    assert browser.post("/api/login", {"name": "proctor-1", "password": "no"}).status_code == 401
    assert browser.post("/api/login", {"name": "my-password", "password": "no"}).status_code == 401
    assert audit(kit)[-3:] == [
        ("proctor-1", "login"),
        ("proctor-1", "login.refused"),
        ("unknown", "login.refused"),
    ]
    newer = Browser(build_app(kit.site), "2001:db8:aa:bb::77")
    newer.headers = {"User-Agent": "Canary/1.0 (desk of anna)", "Accept-Language": "x-canary"}
    assert newer.post("/api/login", {"name": "proctor-1", "password": PASSWORD}).status_code == 200
    stored = b"".join(each.read_bytes() for each in (kit.folder / "data").glob("room.db*"))
    for kept in (b"192.0.2.0/24", b"2001:db8:aa::/48"):
        assert kept in stored
    for dropped in (b"192.0.2.77", b"aa:bb", b"Canary", b"x-canary", b"python-httpx"):
        assert dropped not in stored


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
    assert [(o["serial"], o["order"]["kind"]) for o in made] == [(1, "start"), (2, "end"), (3, "release")]
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


def test_all_ready_desks_start_and_end_together(kit: Kit) -> None:
    kit.hear("d2", kit.status("d2", preflight=Preflight(ready=False, problems=("disk is full",))))
    proctor = kit.logged_in("proctor")
    outcomes = proctor.post("/api/sessions/start", {"all": True, "candidate_code": "STAT"}).json()["outcomes"]
    assert [item["refused"] for item in outcomes] == [None, "desk d2 cannot start: disk is full"]
    assert orders(kit, "d1")[0]["order"]["candidate_code"] == "STAT-d1"
    ended = proctor.post("/api/sessions/end").json()["outcomes"]
    assert [item["desk"] for item in ended] == ["d1"]


def test_a_refused_start_is_said_and_the_desk_is_free(kit: Kit) -> None:
    proctor = kit.logged_in("proctor")
    start(proctor)
    kit.hear("d1", Reply(serial=1, accepted=False, reason="clock is not in sync"))
    room = proctor.get("/api/room").json()
    assert room["needs"][0]["words"] == "Seat 1 did not start: clock is not in sync"
    assert start(proctor)


def test_a_session_whose_end_was_refused_can_be_ended_again(kit: Kit) -> None:
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    kit.hear("d1", Reply(serial=1, accepted=True))
    assert proctor.post(f"/api/sessions/{sid}/end").status_code == 200
    assert proctor.post(f"/api/sessions/{sid}/end").status_code == 409
    kit.hear("d1", Reply(serial=2, accepted=False, reason="this session was never ordered at this desk"))
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


def test_observations_their_card_and_the_sentence(kit: Kit) -> None:
    """F041, F045, F068."""
    proctor, staff = kit.logged_in("proctor"), kit.logged_in("staff")
    sid = start(proctor)
    kit.hear("d1", kit.status("d1", kit.report(sid)))
    seen = ObservationReport(
        kind="gaze_outside_work_area", words="outside the work area", phase="closed", start_90k=0, end_90k=558_000,
        duration_s=6.2, level="yellow", rule="gaze outside for over 4 s", measured={"yaw_deg": 41.5},
    )  # fmt: skip
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=seen))
    view = proctor.get("/api/desks/d1").json()
    assert (view["level"], view["seen"]) == ("yellow", "outside the work area, 6.2 s")
    assert view["observations"][0]["rule"] == "gaze outside for over 4 s"
    began, until = (parse_utc(view["observations"][0][name]) for name in ("at", "until"))
    assert (until - began).total_seconds() == 6.2
    sentence = "An indication is not proof of anything. It says where a person may want to look."
    assert view["sentence"] == sentence
    assert sentence in proctor.get("/desk/d1").text
    hidden = staff.get("/api/desks/d1").json()
    assert (hidden["level"], hidden["seen"], hidden["observations"]) == (None, None, [])
    assert proctor.post(f"/api/sessions/{sid}/review", {"number": 1}).status_code == 200
    assert proctor.get("/api/desks/d1").json()["level"] == "green"
    assert proctor.post(f"/api/sessions/{sid}/review", {"number": 9}).status_code == 400


def test_an_observation_on_the_page_has_its_explanation(kit: Kit) -> None:
    """F045: all of its card in words; of an older desk, that it sent none."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    kit.hear("d1", kit.status("d1", kit.report(sid)))
    turned = ObservationReport(
        kind="head_turned_away", words="head turned", phase="closed", start_90k=0, end_90k=558_000, duration_s=6.2,
        level="yellow", rule="beyond 40 degrees for 4 s", measured={"yaw_deg": 41.5}, card=Card.model_validate(CARD),
    )  # fmt: skip
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=turned))
    kit.hear(
        "d1", ObservationMessage(sid=sid, number=2, observation=turned.model_copy(update={"card": None}))
    )
    older, newer = proctor.get("/api/desks/d1").json()["observations"]
    lines = dict(newer["card"])
    assert list(lines) == list(LABELS.values())
    assert lines["light"] == CARD["light"]
    assert lines["models"] == "face_landmark.tflite 2efcb4f4de43"
    assert older["card"] == [["card", NO_CARD]]
    page = proctor.get("/desk/d1").text
    assert (
        '<details data-f="card"><summary>Explanation</summary><dl class="card-facts"></dl></details>' in page
    )
    assert 'explanation(part("card"), seen)' in proctor.get("/static/desk.js").text


def test_a_seat_left_and_taken_again_has_both_times(kit: Kit) -> None:
    """F048: left at, until, how long, on the seat's list and on its tile."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    kit.hear("d1", kit.status("d1", kit.report(sid)))
    left = ObservationReport(
        kind="nobody_at_desk", words="nobody seen at the desk", phase="opened", start_90k=90_000, end_90k=None,
        duration_s=10.0, level="red", rule="nobody for at least 10 s", measured={},
    )  # fmt: skip
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=left))
    [open_now] = proctor.get("/api/desks/d1").json()["observations"]
    assert (open_now["closed"], open_now["until"]) == (False, None)
    words = "nobody seen at the desk until somebody came"
    over = {"phase": "closed", "words": words, "end_90k": 46 * 90_000, "duration_s": 45.0}
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=left.model_copy(update=over)))
    view = proctor.get("/api/desks/d1").json()
    [seen] = view["observations"]
    assert (parse_utc(seen["until"]) - parse_utc(seen["at"])).total_seconds() == 45
    assert seen["at"] == open_now["at"]
    assert view["seen"] == f"{words}, 45.0 s"


def test_a_moved_camera_stays_on_the_tile_until_somebody_has_looked(kit: Kit) -> None:
    """F050: over in seconds, and the desk may be out of the picture since; it changes no level."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    kit.hear("d1", kit.status("d1", kit.report(sid)))
    moved = ObservationReport(
        kind="camera_moved", words="camera moved", phase="closed", start_90k=0, end_90k=6 * 90_000, duration_s=6.0,
        level=None, technical=True, rule="camera moved for at least 0.6 s", measured={},
    )  # fmt: skip
    blurred = moved.model_copy(update={"kind": "camera_blurred", "words": "camera out of focus"})
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=moved))
    kit.hear("d1", ObservationMessage(sid=sid, number=2, observation=blurred))
    view = proctor.get("/api/desks/d1").json()
    [said] = view["technical"]
    assert re.fullmatch(r"camera moved at \d\d:\d\d:\d\d: is the desk still in view\?", said)
    assert view["level"] == "green"
    assert proctor.post(f"/api/sessions/{sid}/review", {"number": 1}).status_code == 200
    assert proctor.get("/api/desks/d1").json()["technical"] == []


def test_a_break_counts_for_no_level(kit: Kit) -> None:
    """F048."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    kit.hear("d1", kit.status("d1", kit.report(sid)))
    gone = ObservationReport(
        kind="nobody_at_desk", words="nobody at the desk", phase="opened", start_90k=0, end_90k=None,
        duration_s=40.0, level="red", rule="nobody for over 10 s", measured={},
    )  # fmt: skip
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=gone))
    assert proctor.get("/api/desks/d1").json()["level"] == "red"
    assert proctor.post(f"/api/sessions/{sid}/break", {"on": True}).status_code == 200
    view = proctor.get("/api/desks/d1").json()
    assert (view["state"], view["level"], view["needs"]) == ("break", "green", [])


def test_what_a_killed_camera_process_left_open_ends_with_it(kit: Kit) -> None:
    """Its next life is a new epoch; nobody will ever close what the old one saw."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    kit.hear("d1", kit.status("d1", kit.report(sid)))
    gone = ObservationReport(
        kind="nobody_at_desk", words="nobody at the desk", phase="opened", start_90k=0, end_90k=None,
        duration_s=40.0, level="red", rule="nobody for over 10 s", measured={},
    )  # fmt: skip
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=gone))
    kit.hear("d1", kit.status("d1", kit.report(sid)))
    assert proctor.get("/api/desks/d1").json()["observations"][0]["closed"] is False
    kit.hear("d1", kit.status("d1", kit.report(sid, epoch=1)))
    assert proctor.get("/api/desks/d1").json()["observations"][0]["closed"] is True


def test_notes_stand_beside_the_session_with_time_and_person(kit: Kit) -> None:
    """F079."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    assert proctor.post(f"/api/sessions/{sid}/note", {"text": "asked for paper"}).status_code == 200
    note = proctor.get("/api/desks/d1").json()["notes"][0]
    assert note == {"at": kit.room.now(), "by": "proctor-1", "text": "asked for paper"}
    assert audit(kit)[-1] == ("proctor-1", "note")


def test_bad_requests_are_one_sentence(kit: Kit) -> None:
    proctor = kit.logged_in("proctor")
    for body in (
        {"desk": "d1"},
        {"desk": "d1", "candidate_code": "a b"},
        {"desk": "d9", "candidate_code": "C"},
        {"x": 1},
    ):
        answer = proctor.post("/api/sessions/start", body)
        assert answer.status_code == 400
        assert set(answer.json()) == {"error", "hint"}
    assert proctor.post("/api/login", {"name": "x" * 70_000, "password": ""}).status_code == 400
    assert proctor.get("/nowhere").status_code == 404


def test_decisions_outlive_the_process(kit: Kit) -> None:
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    kit.close()
    from appliance.room.core import Room
    from appliance.room.database import Database

    database = Database(kit.folder / "data" / "room.db")
    again = Room.open(kit.room.config, kit.clock, kit.room.keys, database, kit.room.publish)
    assert again.live.current("d1") is not None
    assert again.live.sessions[sid][1].candidate_code == "C-d1"
    database.close()
