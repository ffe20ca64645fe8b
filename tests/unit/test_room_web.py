"""HTTP without sockets: who may do what, from which page, and what is written down about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.room.app import build_app
from appliance.room.web import COOKIE, CSRF_HEADER
from tests.unit.test_room_kit import (
    PASSWORD,
    SID,
    Browser,
    Kit,
    audit,
    flat,
    make_kit,
)

OPEN_TO_ALL = {"/login", "/api/login"}


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with closing(make_kit(tmp_path)) as made:
        made.ready("d1", "d2")
        yield made


def paths(kit: Kit) -> list[tuple[str, str]]:
    """Every route of the application with one of its methods."""
    found: list[tuple[str, str]] = []
    for route in flat(build_app(kit.site).routes):
        for method in sorted(route.methods or ()):
            found.append((method, route.path.replace("{sid}", SID).replace("{desk}", "d1")))
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
