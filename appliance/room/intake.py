"""What desks say, taken in: facts to the live room, checkpoints to the witness, manifests checked, grants answered.

Runs on the event loop; a bad message from one desk is a sentence on the page and never stops the others.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import sqlite3

from appliance.errors import ApplianceError, EvidenceBroken, NotTrusted
from appliance.evf.errors import EvfError
from appliance.evidence.audit import AuditLog
from appliance.evidence.manifest import Manifest, verify_manifest
from appliance.policy import Strict, parse_policy
from appliance.protocol import (
    CheckpointMessage,
    GrantRequest,
    ManifestMessage,
    ObservationMessage,
    Presence,
    Reply,
    Status,
    ToNode,
    encode,
)
from appliance.room import commands
from appliance.room.core import Room
from appliance.room.granting import Granting
from appliance.room.rows import session_row
from appliance.room.witness import answer_checkpoint, witnessed_size

log = logging.getLogger(__name__)


class Intake:
    """One for the room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._granting = Granting(room)
        self._tasks: set[asyncio.Task[None]] = set()

    async def settled(self) -> None:
        """Wait for the grant answers that are under way."""
        await asyncio.gather(*self._tasks)

    def preview(self, desk: str, jpeg: bytes) -> None:
        """Keep the newest still in RAM."""
        if desk in self._room.live.desks:
            self._room.live.take_preview(desk, jpeg)

    async def message(self, desk: str, message: Strict) -> None:
        """Take one decoded message; what a desk says about another desk is dropped."""
        room = self._room
        if desk not in room.live.desks:
            room.need(f"stranger-{desk}", f"a desk called {desk} reports itself and is not in room.toml")
            return
        if getattr(message, "desk", desk) != desk:
            log.warning("intake.wrong_desk topic=%s said=%s", desk, getattr(message, "desk", ""))
            return
        try:
            await self._take(desk, message)
        except (ApplianceError, EvfError) as error:
            log.warning("intake.refused desk=%s kind=%s reason=%s", desk, type(message).__name__, error)
            label = room.live.desks[desk].seat.label
            room.need(f"trust-{desk}", f"Seat {label}: {error}")

    async def _take(self, desk: str, message: Strict) -> None:
        room = self._room
        match message:
            case Presence():
                room.live.take_presence(desk, message)
                if message.state == "online":
                    room.outbox.wake()
            case Status():
                room.live.take_status(desk, message)
            case ObservationMessage():
                room.live.take_observation(desk, message.sid, message.number, message.observation)
            case Reply():
                await self._reply(desk, message)
            case CheckpointMessage():
                await self._checkpoint(desk, message)
            case ManifestMessage():
                await self._manifest(desk, message)
            case GrantRequest():
                # storage may take seconds; the other desks' messages must not wait for it
                task = asyncio.create_task(self._granting.answer(desk, message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _reply(self, desk: str, reply: Reply) -> None:
        room = self._room

        def work(connection: sqlite3.Connection) -> sqlite3.Row | None:
            answered = commands.answer(connection, desk, reply)
            if answered is None or reply.accepted:
                return answered
            sid, kind = answered["sid"], answered["kind"]
            reason = reply.reason or "the desk gave no reason"
            if kind == "start":
                connection.execute("UPDATE sessions SET start_refused = ? WHERE sid = ?", (reason, sid))
            elif kind == "release":
                connection.execute(
                    "UPDATE sessions SET approved_at = NULL, approved_by = NULL, release = NULL,"
                    " manifest_problem = ? WHERE sid = ?",
                    (f"the desk refused the release: {reason}", sid),
                )
            AuditLog(connection, room.clock).append(
                f"desk/{desk}", f"command.{kind}.refused", f"session/{sid}", {"reason": reason}
            )
            return answered

        found = await room.database.run(lambda connection: _sid_of(connection, desk, reply.serial))
        if found is None:
            return
        answered = await room.change(found, work)
        if answered is not None and not reply.accepted:
            log.warning("command.refused desk=%s kind=%s reason=%s", desk, answered["kind"], reply.reason)

    async def _checkpoint(self, desk: str, message: CheckpointMessage) -> None:
        room = self._room

        def work(connection: sqlite3.Connection) -> Strict:
            return answer_checkpoint(connection, room.keys, room.clock, room.config.room, desk, message)

        reply = await room.database.run(work)
        await room.send(desk, ToNode.WITNESS, encode(reply))
        room.need(f"trust-{desk}", None)
        if getattr(reply, "refused", None) is not None:
            await room.change(message.sid, lambda _connection: None)

    async def _manifest(self, desk: str, message: ManifestMessage) -> None:
        room = self._room
        data = message.manifest.encode()

        def work(connection: sqlite3.Connection) -> str | None:
            row = session_row(connection, message.sid)
            if row["manifest_sha256"] is not None:
                return None  # sent again; the first verified one stands
            try:
                manifest = verify_manifest(data, room.keys.room_ca, room.keys.signing.public_key())
                _belongs(room, desk, row, manifest, witnessed_size(connection, message.sid))
            except (NotTrusted, EvidenceBroken) as error:
                connection.execute(
                    "UPDATE sessions SET manifest_problem = ? WHERE sid = ?", (str(error), message.sid)
                )
                return str(error)
            gaps = [[gap.start_90k, gap.end_90k, gap.cause, gap.unwitnessed] for gap in manifest.gaps]
            gaps += [
                [lost.time_90k, lost.time_90k, f"a record was lost: {lost.cause}", False]
                for lost in manifest.lost
            ]
            if not manifest.segments:
                gaps.append([0, 0, "nothing was recorded", False])
            complete = not gaps
            connection.execute(
                "UPDATE sessions SET manifest = ?, manifest_sha256 = ?, manifest_problem = NULL, gaps = ?,"
                " complete = ?, ended_at = coalesce(ended_at, ?) WHERE sid = ?",
                (
                    message.manifest,
                    hashlib.sha256(data).hexdigest(),
                    json.dumps(gaps),
                    int(complete),
                    manifest.ended,
                    message.sid,
                ),
            )
            AuditLog(connection, room.clock).append(
                f"desk/{desk}",
                "session.certified",
                f"session/{message.sid}",
                {"complete": complete, "gaps": len(gaps)},
            )
            return None

        try:
            problem = await room.change(message.sid, work)
        except ApplianceError as error:
            log.warning("manifest.unknown_session desk=%s reason=%s", desk, error)
            return
        if problem is not None:
            log.warning("manifest.refused desk=%s sid=%s reason=%s", desk, message.sid, problem)


def _belongs(room: Room, desk: str, row: sqlite3.Row, manifest: Manifest, witnessed: int) -> None:
    """Raise unless the manifest is of this very session, and covers all that the room has witnessed."""
    policy = parse_policy(json.loads(row["policy"])["body"])
    said = (
        manifest.institution,
        manifest.exam,
        manifest.room,
        manifest.desk,
        manifest.sid,
        manifest.candidate_code,
        manifest.policy_id,
        manifest.policy_version,
    )
    known = (
        policy.institution,
        policy.exam,
        room.config.room,
        row["desk"],
        row["sid"],
        row["candidate_code"],
        policy.id,
        policy.version,
    )
    if said != known or desk != row["desk"]:
        raise NotTrusted(
            "certificate is of another session, desk, candidate or policy", "keep the desk for inspection"
        )
    if manifest.leaves != witnessed:
        raise EvidenceBroken(
            f"certificate covers {manifest.leaves} records, the room has witnessed {witnessed}",
            "keep the desk for inspection",
        )


def _sid_of(connection: sqlite3.Connection, desk: str, serial: int) -> str | None:
    row = connection.execute(
        "SELECT sid FROM commands WHERE desk = ? AND serial = ? AND outcome IS NULL", (desk, serial)
    ).fetchone()
    return str(row["sid"]) if row else None
