"""HTTP's guards: who is asking, from where, with which token; headers on every answer; errors as {error, hint}."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appliance.errors import (
    ApplianceError,
    BadConfig,
    BadInput,
    NotTrusted,
    Refused,
    RoomUnreachable,
    StorageNotAllowed,
    StorageUnreachable,
)
from appliance.evidence.audit import AuditLog
from appliance.room.accounts import Account, Login, LogInRefused, Role, SecondFactor, find_login
from appliance.room.core import Room
from appliance.room.sessions import Sessions
from appliance.room.watching import Watching

COOKIE = "__Host-invigil"
CSRF_HEADER = "X-CSRF-Token"
MAX_BODY_BYTES = 64 * 1024
_LENGTH = re.compile(r"[0-9]{1,9}")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Strict-Transport-Security": "max-age=31536000",
}
STATUS: tuple[tuple[type[ApplianceError], int], ...] = (
    (LogInRefused, 401),
    (BadInput, 400),
    (NotTrusted, 403),
    (StorageNotAllowed, 409),
    (Refused, 409),
    (StorageUnreachable, 502),
    (RoomUnreachable, 503),
    (BadConfig, 500),
)


@dataclass
class Site:
    """What the routes use; kept at `app.state.site`."""

    room: Room
    sessions: Sessions
    watching: Watching
    broker_problem: Callable[[], str | None] = lambda: None
    second_factors: dict[str, SecondFactor] = field(default_factory=dict)
    stopping: bool = False
    hashing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))  # a log-in takes 64 MiB


class NotLoggedIn(ApplianceError):
    """Nobody is logged in with this cookie."""


class NotYours(ApplianceError, PermissionError):
    """The account's role may not do this, or the request did not come from this site's own page."""


def site_of(request: Request) -> Site:
    """The site behind a request."""
    site: Site = request.app.state.site
    return site


async def login_of(request: Request) -> Login:
    """Who asks; raises NotLoggedIn."""
    site, token = site_of(request), request.cookies.get(COOKIE, "")
    now_s = site.room.clock.wall().timestamp()
    login = None
    if token:
        login = await site.room.database.run(lambda connection: find_login(connection, token, now_s))
    if login is None:
        raise NotLoggedIn("nobody is logged in", "log in first")
    return login


def needs(role: Role) -> Callable[[Request], Awaitable[Account]]:
    """Dependency: an account of at least this role; with POST also the page's own token. Refusals are logged."""

    async def check(request: Request) -> Account:
        login = await login_of(request)
        if request.method == "POST":
            offered = request.headers.get(CSRF_HEADER, "")
            if not hmac.compare_digest(offered.encode(), login.csrf.encode()):
                raise NotYours(
                    "the page's token is missing or wrong", f"send {CSRF_HEADER} as log-in gave it"
                )
        if not login.account.may(role):
            path, name = request.url.path[:100], login.account.name
            room = site_of(request).room

            def work(connection: sqlite3.Connection) -> None:
                AuditLog(connection, room.clock).append(name, "access.refused", path, {"needs": role.value})

            await room.database.run(work)
            raise NotYours(f"this needs the role {role}", "ask the room's lead")
        return login.account

    return check


def network_of(request: Request) -> str:
    """The client's network, never its address: /24 for IPv4, /48 for IPv6 (F024)."""
    try:
        address = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return "unknown"
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))


def error_response(error: ApplianceError) -> JSONResponse:
    """{error, hint} with a fitting status."""
    status = 401 if isinstance(error, NotLoggedIn) else 403 if isinstance(error, NotYours) else 500
    status = next((code for kind, code in STATUS if isinstance(error, kind)), status)
    return JSONResponse({"error": str(error), "hint": error.hint}, status)


class Guard:
    """Outermost layer: headers on everything, POSTs only from our own pages and of a bounded size."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if not str(scope["path"]).startswith("/static/"):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        problem = _problem(scope)
        if problem is not None:
            await error_response(problem)(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers)


def _problem(scope: Scope) -> ApplianceError | None:
    if scope["method"] in ("GET", "HEAD"):
        return None
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is not None and origin != f"{scope['scheme']}://{headers.get('host', '')}":
        return NotYours("the request comes from another site", "open the room's own page")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return NotYours("the request comes from another site", "open the room's own page")
    length = headers.get("content-length", "")
    if not _LENGTH.fullmatch(length) or int(length) > MAX_BODY_BYTES:
        return BadInput("the request has no length or is too long", f"at most {MAX_BODY_BYTES} bytes")
    return None
