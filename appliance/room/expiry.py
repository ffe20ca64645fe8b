"""Says 30 days ahead, and once it is so, that a certificate is not valid: a desk's, the broker's, the controller's.

A desk with an expired one cannot say so itself, since nobody lets it in; its recording goes on.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from appliance.errors import BadConfig
from appliance.room.core import Room
from appliance.trust import load_certificate, validity_problem

LOOK_S = 60.0  # a renewed file counts a minute later


async def watch_certificates(room: Room) -> None:
    """Keep the room's needs in line with what lies in its trust folder, for ever."""
    while True:
        note_certificates(room)
        await asyncio.sleep(LOOK_S)


def note_certificates(room: Room) -> None:
    """One look at every certificate; sets and clears a need for each."""
    for name, path in _files(room).items():
        room.need(f"expiry-{name}", _words(room, name, path))


def _files(room: Room) -> dict[str, Path]:
    trust = room.config.trust
    files = {"the room's CA": trust.room_ca, "controller": trust.controller_certificate}
    if room.config.broker_tls:
        files["broker"] = trust.broker_certificate
    return files | {desk: room.keys.desk_certificates / f"{desk}.pem" for desk in room.live.desks}


def _words(room: Room, name: str, path: Path) -> str | None:
    try:
        certificate = load_certificate(path)
    except BadConfig:  # who needs it says so; a desk's comes with its enrolment
        return None
    problem = validity_problem(certificate, name, room.clock.wall())
    if problem is None:
        return None
    if path == room.config.trust.room_ca:
        return f"{problem}; the room and its desks have to be provisioned again"
    return f"{problem}; invigil provision renew {name}"
