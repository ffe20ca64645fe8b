"""The room's HTTP: bodies, paths and headers through the real application, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote, unquote

import httpx

from appliance.room.app import build_app
from appliance.room.web import CSRF_HEADER
from tests.fuzz.engine import Accepted, Target
from tests.fuzz.mutate import altered
from tests.fuzz.mutate_json import altered_text
from tests.fuzz.on_processes import started
from tests.unit.test_room_kit import make_kit

BODIES: dict[str, list[Any]] = {
    "/api/login": [{"name": "nobody", "password": "a wrong but long one", "second_factor": ""}],
    "/api/logout": [{}],
    "/api/sessions/start": [
        {"desk": "d1", "all": False, "candidate_code": "C-1", "name": "N"},
        {"all": True},
    ],
    "/api/sessions/end": [{}],
    "/api/sessions/approve": [{}],
    "/api/sessions/{sid}/end": [{"reason": "over"}],
    "/api/sessions/{sid}/break": [{"on": True}],
    "/api/sessions/{sid}/approve": [{"accept_gaps": False}],
    "/api/sessions/{sid}/hold": [{"reason": "look"}],
    "/api/sessions/{sid}/note": [{"text": "a note"}],
    "/api/sessions/{sid}/review": [{"number": 1, "outcome": "no concern"}],
    "/api/sessions/{sid}/set-aside": [{"reason": "stuck"}],
    "/api/sessions/{sid}/discard": [{"reason": "agreed"}],
}
QUERIES = (
    "/api/audit?first=1",
    "/api/desks/d1",
    "/desk/d1",
    "/api/room",
    "/end",
    "/static/room.css",
    "/events?desk=x",
)


@contextmanager
def http(folder: Path) -> Iterator[Target]:
    """Bodies, paths and headers of every POST route and some GETs, by a lead who is logged in (or nearly so)."""
    with closing(make_kit(folder)) as kit:
        kit.ready("d1", "d2")
        lead = kit.logged_in("lead")
        sid = started(lead, "d1")
        kit.hear("d1", kit.status("d1", kit.report(sid)))
        loop = asyncio.new_event_loop()
        app = build_app(kit.site)
        transport = httpx.ASGITransport(app, client=("192.0.2.77", 50_000))
        client = httpx.AsyncClient(transport=transport, base_url="https://room.test", cookies=lead.cookies)
        routes = [route for route in BODIES if route != "/api/logout"]
        own = {CSRF_HEADER: lead.headers[CSRF_HEADER], "Content-Type": "application/json"}

        def make(rng: Random) -> tuple[str, str, dict[str, str], bytes]:
            headers = dict(own)
            if rng.random() < 0.1:
                name = rng.choice((CSRF_HEADER, "Content-Type", "Origin", "Sec-Fetch-Site", "Cookie", "Accept", "Range",
                                   "Content-Length", "Transfer-Encoding", "X-Forwarded-For"))  # fmt: skip
                value = altered(
                    rng, [headers.get(name, "https://room.test").encode(), b"65537", b"multipart/form-data"]
                )
                headers[name] = value.decode("latin-1").translate({10: 32, 13: 32, 0: 32})
            if rng.random() < 0.08:
                path = altered(rng, [query.encode() for query in QUERIES]).decode("latin-1")
                return "GET", path[:5000], headers, b""
            route = rng.choice(routes)
            known = rng.choice((sid, sid, "0" * 32, altered(rng, [sid.encode()]).decode("latin-1")))
            seeds = BODIES[route] if rng.random() < 0.9 else BODIES[rng.choice(routes)]
            return "POST", route.replace("{sid}", known[:1500]), headers, altered_text(rng, seeds)

        async def send(method: str, path: str, headers: dict[str, str], body: bytes) -> httpx.Response:
            url = httpx.URL("https://room.test/").copy_with(raw_path=_raw(path))
            raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
            return await client.send(client.build_request(method, url, headers=raw, content=body))

        def check(value: tuple[str, str, dict[str, str], bytes]) -> str:
            if unquote(value[1]).lstrip("/").startswith("events"):
                return "stream"  # without end by its nature
            answer = loop.run_until_complete(send(*value))
            if answer.status_code >= 500:
                raise Accepted(f"{value[1][:40]} answers {answer.status_code}: {answer.text[:80]}")
            if (
                answer.status_code >= 400
                and value[1].startswith("/api/")
                and set(answer.json()) != {"error", "hint"}
            ):
                raise Accepted(f"{value[1][:40]} refuses without words: {answer.text[:80]}")
            return f"{value[0]} {answer.status_code}"

        try:
            yield Target(make, check)
        finally:
            loop.run_until_complete(client.aclose())
            loop.close()


def _raw(path: str) -> bytes:
    """A path as it would stand in a request line."""
    return quote("/" + path.lstrip("/"), safe="/?=&%:@!$'()*+,;~.-_").encode()
