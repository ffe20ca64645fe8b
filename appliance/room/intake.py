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
from appliance.evidence.completeness import completeness_of
from appliance.evidence.manifest import Manifest, verify_manifest
from appliance.policy import Strict, parse_policy
from appliance.protocol import (
    CheckpointMessage,
    GrantRequest,
    ManifestMessage,
    Notice,
    ObservationMessage,
    Presence,
    Reply,
    Status,
    ToNode,
    encode,
)
from appliance.room import commands
from appliance.room.certificates import keep_certificate
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
                    if room.live.two_machines(desk):
                        await room.send(desk, ToNode.NOTICE, encode(Notice()))
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
            elif kind == "end":
                # It records on, so it can be ended again.
                connection.execute(
                    "UPDATE sessions SET ended_at = NULL, ended_by = NULL WHERE sid = ?", (sid,)
                )
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

        found = await room.database.run(lambda connection: _open_command(connection, desk, reply.serial))
        if found is None:
            return
        sid, kind = found
        if not reply.accepted and kind != "start" and room.live.two_machines(desk):
            # It may be the other machine that does not know the session: the order is sent until the right one has it.
            log.warning("command.wrong_machine desk=%s kind=%s reason=%s", desk, kind, reply.reason)
            return
        answered = await room.change(sid, work)
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
            if row["manifest_sha256"] is not None:  # sent again; the first verified one stands
                if row["certificate"] is None and message.certificate is not None:
                    self._certificate_later(connection, desk, row, message)
                return None
            try:
                manifest = verify_manifest(data, room.keys.room_ca, room.keys.signing.public_key())
                _belongs(room, desk, row, manifest, witnessed_size(connection, message.sid))
            except (NotTrusted, EvidenceBroken) as error:
                connection.execute(
                    "UPDATE sessions SET manifest_problem = ? WHERE sid = ?", (str(error), message.sid)
                )
                return str(error)
            found = completeness_of(manifest)
            lines = [[line.start_90k, line.end_90k, line.cause, line.kind.value] for line in found.lines]
            connection.execute(
                "UPDATE sessions SET manifest = ?, manifest_sha256 = ?, manifest_problem = NULL, gaps = ?,"
                " complete = ?, ended_at = coalesce(ended_at, ?) WHERE sid = ?",
                (
                    message.manifest,
                    hashlib.sha256(data).hexdigest(),
                    json.dumps(lines),
                    int(found.complete),
                    manifest.ended,
                    message.sid,
                ),
            )
            signed = keep_certificate(connection, room.keys, manifest, data, message.certificate)
            AuditLog(connection, room.clock).append(
                f"desk/{desk}",
                "session.certified",
                f"session/{message.sid}",
                {"complete": found.complete, "gaps": len(lines), "certificate": signed},
            )
            return None

        try:
            problem = await room.change(message.sid, work)
        except ApplianceError as error:
            log.warning("manifest.unknown_session desk=%s reason=%s", desk, error)
            return
        if problem is not None:
            log.warning("manifest.refused desk=%s sid=%s reason=%s", desk, message.sid, problem)

    def _certificate_later(
        self, connection: sqlite3.Connection, desk: str, row: sqlite3.Row, message: ManifestMessage
    ) -> None:
        """A desk that was updated meanwhile says its half for the manifest that stands."""
        data = message.manifest.encode()
        if row["desk"] != desk or row["manifest_sha256"] != hashlib.sha256(data).hexdigest():
            return
        keys = self._room.keys
        manifest = verify_manifest(data, keys.room_ca, keys.signing.public_key())
        signed = keep_certificate(connection, keys, manifest, data, message.certificate)
        if signed is not None:
            AuditLog(connection, self._room.clock).append(
                f"desk/{desk}", "certificate.signed", f"session/{message.sid}", {"certificate": signed}
            )


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
        manifest.retain_until,
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
        policy.retention_end.isoformat(),
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


def _open_command(connection: sqlite3.Connection, desk: str, serial: int) -> tuple[str, str] | None:
    row = connection.execute(
        "SELECT sid, kind FROM commands WHERE desk = ? AND serial = ? AND outcome IS NULL", (desk, serial)
    ).fetchone()
    return (str(row["sid"]), str(row["kind"])) if row else None
