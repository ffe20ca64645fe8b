"""The pages and the event stream; HTML is rendered here, pages then follow `/events`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from fastapi.templating import Jinja2Templates

from appliance.policy import ACCOMMODATION_WORDS
from appliance.room import views
from appliance.room.accounts import Account, Login, Role
from appliance.room.core import Room
from appliance.room.desk import Decisions
from appliance.room.routes_api import known_desk, note_broker
from appliance.room.web import NotLoggedIn, Site, login_of, needs, site_of

router = APIRouter()
templates = Jinja2Templates(Path(__file__).parent / "templates")
ROOM_TICK_S = 1.0
LIVE_TICK_S = 0.2
CHECK_LOGIN_S = 30.0

LoggedIn = Annotated[Login, Depends(login_of)]
Anyone = Annotated[Account, Depends(needs(Role.STAFF))]


def page(request: Request, name: str, login: Login | None, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a template with what every page carries: room, clock, policy, who is logged in."""
    room = site_of(request).room
    loaded = room.planned()
    return templates.TemplateResponse(
        request,
        name,
        {
            "config": room.config,
            "policy": loaded.policy if loaded else None,
            "now": room.now(),
            "clock": room.live.room_time(),
            "login": login,
            "account": login.account if login else None,
            "csrf": login.csrf if login else "",
            **values,
        },
        status,
    )


@router.get("/login", response_class=HTMLResponse)
async def login_page(request: Request) -> Response:
    """The only page without log-in."""
    try:
        await login_of(request)
    except NotLoggedIn:
        return page(request, "login.html", None)
    return RedirectResponse("/", 303)


@router.get("/", response_class=HTMLResponse)
async def room_page(request: Request, login: LoggedIn) -> HTMLResponse:
    """The room."""
    site = site_of(request)
    note_broker(site)
    return page(request, "room.html", login, view=views.room_view(site.room, login.account))


@router.get("/desk/{desk}", response_class=HTMLResponse)
async def desk_page(request: Request, desk: str, login: LoggedIn) -> HTMLResponse:
    """One desk, live while the page is visible."""
    site = site_of(request)
    known_desk(site, desk)
    seats = list(site.room.live.desks)
    place = seats.index(desk)
    view = views.desk_view(site.room, desk, login.account)
    before = seats[place - 1] if place > 0 else None
    after = seats[place + 1] if place + 1 < len(seats) else None
    return page(
        request, "desk.html", login, view=view, before=before, after=after, accommodations=ACCOMMODATION_WORDS
    )


@router.get("/end", response_class=HTMLResponse)
async def end_page(request: Request, login: LoggedIn) -> HTMLResponse:
    """End of exam: certificates and approval."""
    room = site_of(request).room
    states, decisions = views.states(room), _decisions(room)
    sessions = await views.end_view(room)
    return page(request, "end.html", login, states=states, decisions=decisions, sessions=sessions)


@router.get("/events")
async def events(
    request: Request, by: Anyone, desk: str | None = None, pictures: bool = True
) -> StreamingResponse:
    """Server-sent events: the whole room once a second, or with `desk` one desk and its live pictures.

    An open stream with pictures is what keeps previews coming, so a page closes it when nobody can see it.
    """
    site = site_of(request)
    if desk is not None:
        known_desk(site, desk)
    looks = pictures and by.may(Role.PROCTOR)
    stream = _desk_stream(site, by, desk, looks) if desk else _room_stream(site, by, looks)
    look = site.watching.look(by, desk) if looks else nullcontext()
    return StreamingResponse(_logged_in_only(request, site, look, stream), media_type="text/event-stream")


async def _logged_in_only(
    request: Request, site: Site, look: AbstractAsyncContextManager[None], stream: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Ends with the log-in, with the room, and with the client."""
    loop = asyncio.get_running_loop()
    checked_s = loop.time()
    async with look:
        async for event in stream:
            yield event
            if site.stopping:
                return
            if loop.time() - checked_s > CHECK_LOGIN_S:
                checked_s = loop.time()
                try:
                    await login_of(request)
                except NotLoggedIn:
                    return


async def _room_stream(site: Site, by: Account, looks: bool) -> AsyncIterator[bytes]:
    sent_tiles: dict[str, str] = {}
    sent_stills: dict[str, int] = {}
    while True:
        note_broker(site)
        view = views.room_view(site.room, by)
        ages = {entry["desk"]: entry.pop("recording_age_s") for entry in view["tiles"]}
        changed = []
        for entry in view["tiles"]:
            text = json.dumps(entry)
            if sent_tiles.get(entry["desk"]) != text:
                sent_tiles[entry["desk"]] = text
                changed.append(entry)
        view["tiles"], view["ages"], view["decisions"] = changed, ages, _decisions(site.room)
        if looks:
            view["stills"] = {
                desk: still
                for desk in site.room.live.desks
                if (still := _still(site, desk, sent_stills)) is not None
            }
        yield _event("room", view)
        await asyncio.sleep(ROOM_TICK_S)


async def _desk_stream(site: Site, by: Account, desk: str, looks: bool) -> AsyncIterator[bytes]:
    sent_stills: dict[str, int] = {}
    ticks_a_view = round(ROOM_TICK_S / LIVE_TICK_S)
    tick, version = 0, -1
    known: Decisions | None = None
    notes: list[views.View] = []
    while True:
        now_version = site.room.live.desks[desk].version
        if tick % ticks_a_view == 0 or now_version != version:
            version = now_version
            view = views.desk_view(site.room, desk, by)
            session = site.room.live.current(desk)
            # A note puts its session into the live room anew, as every decision does.
            if session is not known:
                known, notes = session, await _notes(site, session, by)
            yield _event("desk", {**view, "notes": notes if view["sid"] else [], "now": site.room.now()})
        still = _still(site, desk, sent_stills) if looks else None
        if still is not None:
            yield _event("still", {"desk": desk, "src": still})
        tick += 1
        await asyncio.sleep(LIVE_TICK_S)


async def _notes(site: Site, session: Decisions | None, by: Account) -> list[views.View]:
    if session is None or not by.may(Role.PROCTOR):
        return []
    return await site.room.database.run(lambda connection: views.notes(connection, session.sid))


def _decisions(room: Room) -> str:
    """Another text once anything was decided about a session, also about one that is no longer on its desk's tile, or
    is to be decided about its files."""
    damaged = [room.live.damaged(sid) for sid in room.live.sessions]
    return hashlib.sha256(repr((room.live.sessions, damaged)).encode()).hexdigest()[:16]


def _still(site: Site, desk: str, sent: dict[str, int]) -> str | None:
    """The newest picture as a data URL, "" once there is none any more, None when nothing changed."""
    live = site.room.live.desks[desk]
    if live.jpeg is None:
        # Said first of all, too: the page may still show what a stream before this one sent.
        if sent.get(desk) == 0:
            return None
        sent[desk] = 0
        return ""
    if sent.get(desk) == live.jpeg_number:
        return None
    sent[desk] = live.jpeg_number
    return "data:image/jpeg;base64," + base64.b64encode(live.jpeg).decode()


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
