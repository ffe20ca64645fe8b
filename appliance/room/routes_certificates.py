"""A session's completeness certificate as a page for its candidate, and as a file; pseudonyms only, for any account."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, Response

from appliance.protocol import Sid
from appliance.room import views
from appliance.room.accounts import Login, Role
from appliance.room.certificates import certificate_view, stored_certificate
from appliance.room.routes_pages import page
from appliance.room.web import login_of, needs, site_of

router = APIRouter()

LoggedIn = Annotated[Login, Depends(login_of)]


@router.get("/certificates/{sid}", response_class=HTMLResponse)
async def certificate_page(request: Request, sid: Sid, login: LoggedIn) -> HTMLResponse:
    """What was recorded, complete or each line, who signed, and the QR code that the candidate photographs."""
    room = site_of(request).room
    states = views.states(room)
    view = await room.database.run(lambda connection: certificate_view(connection, room.keys, sid))
    live = room.live.desks.get(view["desk"])
    seat = live.seat.label if live else view["desk"]
    return page(request, "certificate.html", login, states=states, view=view, seat=seat)


@router.get("/api/certificates/{sid}", dependencies=[Depends(needs(Role.STAFF))])
async def get_certificate(request: Request, sid: Sid) -> Response:
    """The whole document, as `invigil certificate check` reads it."""
    data = await site_of(request).room.database.run(lambda connection: stored_certificate(connection, sid))
    headers = {"Content-Disposition": f'attachment; filename="certificate-{sid[:8]}.json"'}
    return Response(data, media_type="application/json", headers=headers)
