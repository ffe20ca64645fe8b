"""The JSON API, used by the pages and by scripts; docs/api.md lists it."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from appliance.errors import BadInput
from appliance.evidence.audit import AuditLog
from appliance.policy import Accommodations, Code, Strict
from appliance.protocol import Count, DamagedFile, Sid
from appliance.room import views
from appliance.room.accounts import LOGIN_LIFE_S, Account, LogInRefused, Role, log_in, log_out
from appliance.room.web import COOKIE, Site, login_of, needs, network_of, site_of

router = APIRouter(prefix="/api")

Anyone = Annotated[Account, Depends(needs(Role.STAFF))]
Proctor = Annotated[Account, Depends(needs(Role.PROCTOR))]
Lead = Annotated[Account, Depends(needs(Role.LEAD))]
AuditRow = Annotated[int, Query(ge=1, lt=2**53)]
Reason = Annotated[str, Field(min_length=1, max_length=400)]


class LogInBody(Strict):
    """POST /api/login."""

    name: str = Field(max_length=64)
    password: str = Field(max_length=256)
    second_factor: str = Field(default="", max_length=64)


class StartBody(Strict):
    """POST /api/sessions/start: one desk, or every ready one."""

    desk: Code | None = None
    all: bool = False
    candidate_code: Code | None = None
    name: str | None = Field(default=None, max_length=80)
    accommodations: Accommodations = ()


class EndBody(Strict):
    """POST /api/sessions/<sid>/end."""

    reason: str = Field(default="", max_length=200)


class ApproveBody(Strict):
    """POST /api/sessions/<sid>/approve."""

    accept_gaps: bool = False


class ApproveDamagedBody(Strict):
    """POST /api/sessions/<sid>/approve-damaged: some of the session's `damaged` in GET /api/room."""

    files: tuple[DamagedFile, ...] = Field(min_length=1, max_length=64)


class ReasonBody(Strict):
    """A decision that needs its reason."""

    reason: Reason


class NoteBody(Strict):
    """POST /api/sessions/<sid>/note."""

    text: str = Field(min_length=1, max_length=1000)


class ReviewBody(Strict):
    """POST /api/sessions/<sid>/review: somebody has looked (F069 knows no other outcomes)."""

    number: Count
    outcome: Literal["no concern", "referred"] = "no concern"


class BreakBody(Strict):
    """POST /api/sessions/<sid>/break."""

    on: bool


@router.post("/login")
async def post_login(request: Request, body: LogInBody) -> JSONResponse:
    """Name and password (and the second step, once an account has one) against a cookie and a CSRF token."""
    site = site_of(request)
    room, network = site.room, network_of(request)
    try:
        async with site.hashing:
            login = await asyncio.to_thread(
                log_in,
                room.database,
                room.clock,
                body.name,
                body.password,
                body.second_factor,
                site.second_factors,
            )
    except LogInRefused as error:
        reason = str(error)

        def refused(connection: sqlite3.Connection) -> None:
            known = connection.execute("SELECT 1 FROM accounts WHERE name = ?", (body.name,)).fetchone()
            # what was typed as an unknown name may be a password
            actor = body.name if known else "unknown"
            AuditLog(connection, room.clock).append(
                actor, "login.refused", "room", {"from": network, "why": reason}
            )

        await room.database.run(refused)
        raise

    def accepted(connection: sqlite3.Connection) -> None:
        AuditLog(connection, room.clock).append(login.account.name, "login", "room", {"from": network})

    await room.database.run(accepted)
    response = JSONResponse({"name": login.account.name, "role": login.account.role, "csrf": login.csrf})
    response.set_cookie(
        COOKIE,
        login.token,
        max_age=int(LOGIN_LIFE_S),
        secure=True,
        httponly=True,
        samesite="strict",
        path="/",
    )
    return response


@router.post("/logout")
async def post_logout(request: Request, by: Anyone) -> JSONResponse:
    """Forget this log-in."""
    room, token = site_of(request).room, (await login_of(request)).token

    def work(connection: sqlite3.Connection) -> None:
        log_out(connection, token)
        AuditLog(connection, room.clock).append(by.name, "logout", "room", {})

    await room.database.run(work)
    response = JSONResponse({"ok": True})
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    return response


@router.get("/room")
async def get_room(request: Request, by: Anyone) -> dict[str, Any]:
    """The whole room as the page shows it, and the sessions of its page for the end of the exam."""
    site = site_of(request)
    note_broker(site)
    sessions = await views.end_view(site.room)
    return {**views.room_view(site.room, by), "sessions": sessions}


@router.get("/desks/{desk}")
async def get_desk(request: Request, desk: str, by: Anyone) -> dict[str, Any]:
    """One desk with its observations and notes."""
    room = site_of(request).room
    known_desk(site_of(request), desk)
    view = views.desk_view(room, desk, by)
    sid = view["sid"]
    if sid is not None and by.may(Role.PROCTOR):
        view["notes"] = await room.database.run(lambda connection: views.notes(connection, sid))
    return view


@router.get("/audit")
async def get_audit(request: Request, by: Lead, first: AuditRow = 1) -> dict[str, Any]:
    """Up to 1000 rows of the staff's log from row `first` on, with the log's size and root."""
    room = site_of(request).room

    def work(connection: sqlite3.Connection) -> dict[str, Any]:
        log = AuditLog(connection, room.clock)
        log.append(by.name, "audit.read", "room", {"first": first})
        log.verify()
        rows = []
        for row in log.rows(first):
            rows.append({**asdict(row), "hash": row.hash.hex()})
            if len(rows) == 1000:
                break
        checkpoint = log.checkpoint()
        return {"size": checkpoint.size, "root": checkpoint.root.hex(), "rows": rows}

    return await room.database.run(work)


@router.post("/sessions/start")
async def post_start(request: Request, body: StartBody, by: Proctor) -> dict[str, Any]:
    """Start one desk (its candidate_code is needed) or all ready ones (then it is a prefix)."""
    sessions = site_of(request).sessions
    if body.all:
        if body.desk is not None or body.name is not None or body.accommodations:
            raise BadInput("all takes no desk, no name and no accommodations", "start one desk, or all")
        return {"outcomes": [asdict(item) for item in await sessions.start_all(by, body.candidate_code)]}
    if body.desk is None or body.candidate_code is None:
        raise BadInput("desk and candidate_code are needed", 'or {"all": true}')
    known_desk(site_of(request), body.desk)
    started = sessions.start(by, body.desk, body.candidate_code, body.name, body.accommodations)
    return {"sid": await started}


@router.post("/sessions/end")
async def post_end_all(request: Request, by: Proctor) -> dict[str, Any]:
    """End every session under way."""
    return {"outcomes": [asdict(item) for item in await site_of(request).sessions.end_all(by)]}


@router.post("/sessions/approve")
async def post_approve_all(request: Request, by: Proctor) -> dict[str, Any]:
    """Approve every complete session that waits."""
    return {"outcomes": [asdict(item) for item in await site_of(request).sessions.approve_all(by)]}


@router.post("/sessions/{sid}/end")
async def post_end(request: Request, sid: Sid, by: Proctor, body: EndBody | None = None) -> dict[str, Any]:
    """End one session."""
    await site_of(request).sessions.end(by, sid, body.reason if body else "")
    return {"ok": True}


@router.post("/sessions/{sid}/break")
async def post_break(request: Request, sid: Sid, body: BreakBody, by: Proctor) -> dict[str, Any]:
    """Begin or end a granted break."""
    await site_of(request).sessions.set_break(by, sid, body.on)
    return {"ok": True}


@router.post("/sessions/{sid}/approve")
async def post_approve(
    request: Request, sid: Sid, by: Proctor, body: ApproveBody | None = None
) -> dict[str, Any]:
    """Release one session to the institution's storage."""
    await site_of(request).sessions.approve(by, sid, body.accept_gaps if body else False)
    return {"ok": True}


@router.post("/sessions/{sid}/approve-damaged")
async def post_approve_damaged(
    request: Request, sid: Sid, by: Proctor, body: ApproveDamagedBody
) -> dict[str, Any]:
    """Release files that were damaged on the desk as they lie there."""
    await site_of(request).sessions.approve_damaged(by, sid, body.files)
    return {"ok": True}


@router.post("/sessions/{sid}/hold")
async def post_hold(request: Request, sid: Sid, body: ReasonBody, by: Proctor) -> dict[str, Any]:
    """Keep one session where it is, with a reason."""
    await site_of(request).sessions.hold(by, sid, body.reason)
    return {"ok": True}


@router.post("/sessions/{sid}/note")
async def post_note(request: Request, sid: Sid, body: NoteBody, by: Proctor) -> dict[str, Any]:
    """Write a note beside the session."""
    await site_of(request).sessions.note(by, sid, body.text)
    return {"ok": True}


@router.post("/sessions/{sid}/review")
async def post_review(request: Request, sid: Sid, body: ReviewBody, by: Proctor) -> dict[str, Any]:
    """Say that one observation was looked at."""
    await site_of(request).sessions.review(by, sid, body.number, body.outcome)
    return {"ok": True}


@router.post("/sessions/{sid}/set-aside")
async def post_set_aside(request: Request, sid: Sid, body: ReasonBody, by: Lead) -> dict[str, Any]:
    """Free a desk whose session is stuck."""
    await site_of(request).sessions.set_aside(by, sid, body.reason)
    return {"ok": True}


@router.post("/sessions/{sid}/discard")
async def post_discard(request: Request, sid: Sid, body: ReasonBody, by: Lead) -> dict[str, Any]:
    """First lead asks, a second one agrees."""
    return {"discarded": await site_of(request).sessions.discard(by, sid, body.reason)}


def known_desk(site: Site, desk: str) -> None:
    """Raise BadInput for a desk that is not in room.toml."""
    if desk not in site.room.live.desks:
        raise BadInput("this room has no such desk", "desks are listed in room.toml")


def note_broker(site: Site) -> None:
    """Show the broker's state among the room's needs."""
    site.room.need("broker", site.broker_problem())
