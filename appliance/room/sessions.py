"""What people decide about sessions: start, break, end, approve, hold, note, review, and forcing a stuck one on.

Each decision, its audit row and its signed command are one transaction: either all stand or none.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from appliance.errors import ApplianceError, BadInput, Refused
from appliance.evidence.audit import AuditLog
from appliance.policy import Accommodation, parse_policy
from appliance.protocol import DamagedFile, EndSession, Hold, Release, StartSession
from appliance.room.accounts import Account
from appliance.room.commands import read_release, withdraw
from appliance.room.core import Room
from appliance.room.database import NOT_OVER
from appliance.room.desk import UNDER_WAY, DeskState
from appliance.room.rows import session_row

MAY_END = frozenset({DeskState.CHECK_IN, DeskState.RECORDING, DeskState.BREAK_})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one desk in a request for several."""

    desk: str
    sid: str | None
    refused: str | None = None


class Sessions:
    """Every method raises Refused when the state does not allow it, BadInput for what does not exist."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def start(
        self,
        by: Account,
        desk: str,
        candidate_code: str,
        name: str | None = None,
        accommodations: tuple[Accommodation, ...] = (),
    ) -> str:
        """Begin a session at a ready desk; returns its sid. `name` stays in RAM (F016)."""
        room = self._room
        loaded = room.planned()
        if loaded is None:
            raise Refused(
                room.policy_file.problem or "no exam is planned", "put a signed policy in data/policy.json"
            )
        if desk not in room.live.desks:
            raise BadInput(f"this room has no desk {desk}", "desks are listed in room.toml")
        assessment = room.live.assess(desk)
        previous = room.live.current(desk)
        free = (
            previous is None
            or (previous.ended_at is not None and previous.manifest_sha256 is not None)
            or previous.start_refused is not None
        )
        problem = self._not_startable(desk)
        if not free or problem:
            raise Refused(
                f"desk {desk} cannot start: {problem or assessment.words}", "look at the desk first"
            )
        sid = secrets.token_hex(16)
        order = StartSession(
            sid=sid,
            candidate_code=candidate_code,
            policy=loaded.document,
            accommodations=accommodations,
        )
        codes = list(order.accommodations)

        def work(connection: sqlite3.Connection) -> None:
            # Asked again here: somebody else may have started it since.
            under_way = f"desk = ? AND {NOT_OVER} AND (ended_at IS NULL OR manifest_sha256 IS NULL)"
            if connection.execute(f"SELECT 1 FROM sessions WHERE {under_way}", (desk,)).fetchone():  # noqa: S608 - no input
                raise Refused(
                    f"desk {desk} cannot start: a session has begun there", "look at the desk first"
                )
            connection.execute(
                "INSERT INTO sessions"
                " (sid, desk, candidate_code, policy, started_at, started_by, complete, accommodations)"
                " VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
                (
                    sid,
                    desk,
                    candidate_code,
                    json.dumps(loaded.document),
                    room.now(),
                    by.name,
                    json.dumps(codes),
                ),
            )
            room.compose(connection, desk, order)
            policy = f"{loaded.policy.id} v{loaded.policy.version}"
            detail = {"desk": desk, "policy": policy, "accommodations": len(codes)}
            self._log(connection, by, "session.start", sid, detail)

        if name:
            room.live.names[sid] = name
        try:
            await room.change(sid, work)
        except ApplianceError:
            room.live.names.pop(sid, None)
            raise
        return sid

    async def start_all(self, by: Account, code_prefix: str | None) -> list[Outcome]:
        """Begin at every desk but those under way; the candidate's code is the desk id, after the prefix if there is
        one. A desk that is not ready is an outcome, with the reason."""
        outcomes = []
        for desk in self._room.live.desks:
            if self._room.live.assess(desk).state in UNDER_WAY:
                continue
            code = f"{code_prefix}-{desk}" if code_prefix else desk
            try:
                outcomes.append(Outcome(desk, await self.start(by, desk, code)))
            except Refused as error:
                outcomes.append(Outcome(desk, None, str(error)))
        return outcomes

    async def end(self, by: Account, sid: str, reason: str = "") -> None:
        """Stop recording and close."""
        room = self._room

        def work(connection: sqlite3.Connection) -> None:
            row = self._open_row(connection, sid)
            if row["ended_at"] is not None:
                raise Refused("the session was ended already", "wait for its certificate")
            connection.execute(
                "UPDATE sessions SET ended_at = ?, ended_by = ?, break_since = NULL WHERE sid = ?",
                (room.now(), by.name, sid),
            )
            room.compose(connection, row["desk"], EndSession(sid=sid, reason=reason))
            self._log(connection, by, "session.end", sid, {"desk": row["desk"]})

        await room.change(sid, work)

    async def end_all(self, by: Account) -> list[Outcome]:
        """End every session under way."""
        outcomes = []
        for desk in self._room.live.desks:
            session = self._room.live.current(desk)
            if session is None or self._room.live.assess(desk).state not in MAY_END:
                continue
            try:
                await self.end(by, session.sid)
                outcomes.append(Outcome(desk, session.sid))
            except Refused as error:
                outcomes.append(Outcome(desk, session.sid, str(error)))
        return outcomes

    async def set_break(self, by: Account, sid: str, on: bool) -> None:
        """A granted break; recording goes on, and nothing counts for the level meanwhile (F048)."""
        room = self._room

        def work(connection: sqlite3.Connection) -> None:
            row = self._open_row(connection, sid)
            if row["ended_at"] is not None or (row["break_since"] is not None) == on:
                raise Refused("the session is not in a state for this", "reload the page")
            since = room.now() if on else None
            connection.execute("UPDATE sessions SET break_since = ? WHERE sid = ?", (since, sid))
            self._log(connection, by, "break.start" if on else "break.end", sid, {"desk": row["desk"]})

        await room.change(sid, work)

    async def approve(self, by: Account, sid: str, accept_gaps: bool = False) -> None:
        """Release exactly the verified manifest; a session with gaps only when they are accepted by name."""
        room = self._room

        def work(connection: sqlite3.Connection) -> None:
            row = self._open_row(connection, sid)
            if row["approved_at"] is not None:
                raise Refused("the session was approved already", "")
            if row["manifest_sha256"] is None or row["manifest_problem"] is not None:
                raise Refused(
                    row["manifest_problem"] or "the session has no verified certificate yet",
                    "end it, and wait until its desk has sent the certificate",
                )
            if not row["complete"] and not accept_gaps:
                raise Refused("the recording has gaps", "look at them and approve this session by itself")
            self._release(connection, by, row)
            detail = {"desk": row["desk"], "manifest": row["manifest_sha256"], "gaps": not row["complete"]}
            self._log(connection, by, "session.approve", sid, detail)

        await room.change(sid, work)

    async def approve_damaged(self, by: Account, sid: str, files: Sequence[DamagedFile]) -> None:
        """Release an approved session again: these files, which its desk cannot send, leave as they lie there.

        Refused unless the desk says exactly that of each: somebody looked at these bytes, not at later ones.
        """
        room = self._room
        said = set(room.live.damaged(sid))

        def work(connection: sqlite3.Connection) -> None:
            row = self._open_row(connection, sid)
            if row["approved_at"] is None or row["synced_at"] is not None:
                raise Refused("only a session that was approved and is not sent yet has such files", "")
            if not files or not said.issuperset(files):
                raise Refused("the desk does not say this of its files", "reload the page")
            body = json.loads(row["manifest"])["body"]
            recorded = {entry["name"] for entry in (*body["segments"], *body["wraps"])}
            for file in files:
                if file.name not in recorded or (file.sha256 is None and file.size_bytes):
                    raise Refused(f"{file.name} is no file that this session recorded", "look at its desk")
            before = read_release(bytes(row["release"]), room.keys.signing.public_key()).damaged
            named = {file.name: file for file in (*before, *files)}
            self._release(connection, by, row, tuple(named[name] for name in sorted(named)))
            detail = {
                "desk": row["desk"],
                "files": {file.name: file.sha256 or "cannot be read" for file in files},
            }
            self._log(connection, by, "session.approve_damaged", sid, detail)

        await room.change(sid, work)

    def _release(
        self,
        connection: sqlite3.Connection,
        by: Account,
        row: sqlite3.Row,
        damaged: tuple[DamagedFile, ...] = (),
    ) -> None:
        room, sid = self._room, row["sid"]
        policy = parse_policy(json.loads(row["policy"])["body"])
        storage = room.config.storage
        if storage is None:
            raise Refused("no storage is set for this room", "add [storage] to room.toml")
        policy.require_storage(storage.endpoint, storage.region, storage.bucket)
        at = room.now()
        release = Release(
            sid=sid,
            manifest_sha256=row["manifest_sha256"],
            approved_by=by.name,
            approved_at=at,
            damaged=damaged,
        )
        payload = room.compose(connection, row["desk"], release)
        connection.execute(
            "UPDATE sessions SET approved_at = ?, approved_by = ?, release = ?, held_at = NULL,"
            " held_by = NULL, held_reason = NULL WHERE sid = ?",
            (at, by.name, payload, sid),
        )

    async def approve_all(self, by: Account) -> list[Outcome]:
        """Approve every session that waits and is complete; the others stay, with the reason."""
        outcomes = []
        for sid, (desk, decisions) in list(self._room.live.sessions.items()):
            if not decisions.waits_for_approval:
                continue
            try:
                await self.approve(by, sid)
                outcomes.append(Outcome(desk, sid))
            except ApplianceError as error:
                outcomes.append(Outcome(desk, sid, str(error)))
        return outcomes

    async def hold(self, by: Account, sid: str, reason: str) -> None:
        """Nothing leaves; a later approval is possible."""
        room = self._room

        def work(connection: sqlite3.Connection) -> None:
            row = self._open_row(connection, sid)
            if row["ended_at"] is None or row["approved_at"] is not None:
                raise Refused("only an ended session that was not approved can be held", "end it first")
            room.compose(connection, row["desk"], Hold(sid=sid, reason=reason))
            connection.execute(
                "UPDATE sessions SET held_at = ?, held_by = ?, held_reason = ? WHERE sid = ?",
                (room.now(), by.name, reason, sid),
            )
            self._log(connection, by, "session.hold", sid, {"desk": row["desk"], "reason": reason})

        await room.change(sid, work)

    async def note(self, by: Account, sid: str, text: str) -> None:
        """A person's own words beside the session, with the time."""
        room = self._room

        def work(connection: sqlite3.Connection) -> None:
            row = session_row(connection, sid)
            number = connection.execute(
                "INSERT INTO notes (sid, at, by, text) VALUES (?, ?, ?, ?)", (sid, room.now(), by.name, text)
            ).lastrowid
            self._log(connection, by, "note", sid, {"desk": row["desk"], "note": number})

        await room.change(sid, work)

    async def review(self, by: Account, sid: str, number: int, outcome: str) -> None:
        """Say that an observation was looked at; it stops counting for the tile's level."""
        room = self._room

        def work(connection: sqlite3.Connection) -> str:
            row = session_row(connection, sid)
            desk = str(row["desk"])
            connection.execute(
                "INSERT OR REPLACE INTO reviews (sid, number, at, by, outcome) VALUES (?, ?, ?, ?, ?)",
                (sid, number, room.now(), by.name, outcome),
            )
            detail = {"desk": desk, "number": number, "outcome": outcome}
            self._log(connection, by, "observation.review", sid, detail)
            return desk

        if not any(number in live.observations.get(sid, {}) for live in room.live.desks.values()):
            raise BadInput("there is no such observation", "reload the page")
        desk = await room.change(sid, work)
        room.live.review(desk, sid, number, outcome)

    async def set_aside(self, by: Account, sid: str, reason: str) -> None:
        """A lead frees a desk whose session is stuck. It stops recording; what it recorded stays where it is."""
        room = self._room

        def work(connection: sqlite3.Connection) -> None:
            row = self._open_row(connection, sid)
            withdraw(connection, sid, "set aside")
            if row["manifest_sha256"] is None:
                room.compose(connection, row["desk"], EndSession(sid=sid, reason="set aside"))
            connection.execute(
                "UPDATE sessions SET set_aside_at = ?, set_aside_by = ?, set_aside_reason = ? WHERE sid = ?",
                (room.now(), by.name, reason, sid),
            )
            self._log(connection, by, "session.set_aside", sid, {"desk": row["desk"], "reason": reason})

        await room.change(sid, work)

    async def discard(self, by: Account, sid: str, reason: str) -> bool:
        """Two leads, each by their own account; True once the second has agreed. The desk holds the session."""
        room = self._room

        def work(connection: sqlite3.Connection) -> bool:
            row = self._open_row(connection, sid)
            if row["ended_at"] is None or row["approved_at"] is not None:
                raise Refused("only an ended session that was not approved can be discarded", "")
            first = row["discard_asked_by"]
            if first == by.name:
                raise Refused("a second lead has to agree", "it needs two people")
            if first is None:
                connection.execute("UPDATE sessions SET discard_asked_by = ? WHERE sid = ?", (by.name, sid))
            else:
                connection.execute(
                    "UPDATE sessions SET discarded_at = ?, discarded_by = ? WHERE sid = ?",
                    (room.now(), by.name, sid),
                )
                room.compose(connection, row["desk"], Hold(sid=sid, reason=f"discarded: {reason}"[:500]))
            action = "session.discard_ask" if first is None else "session.discard"
            self._log(connection, by, action, sid, {"desk": row["desk"], "reason": reason})
            return first is not None

        return await room.change(sid, work)

    def _not_startable(self, desk: str) -> str | None:
        live = self._room.live.desks[desk]
        if self._room.live.assess(desk).link != "live" or live.status is None:
            return "it is not connected"
        if not live.status.preflight.ready:
            return "; ".join(live.status.preflight.problems) or "it is still being checked"
        return None

    def _open_row(self, connection: sqlite3.Connection, sid: str) -> sqlite3.Row:
        row = session_row(connection, sid)
        if row["set_aside_at"] is not None or row["discarded_at"] is not None:
            raise Refused("the session was set aside or discarded", "")
        if row["start_refused"] is not None:
            raise Refused("the session never started", "")
        return row

    def _log(
        self, connection: sqlite3.Connection, by: Account, action: str, sid: str, detail: dict[str, Any]
    ) -> None:
        AuditLog(connection, self._room.clock).append(by.name, action, f"session/{sid}", detail)
