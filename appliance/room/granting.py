"""Answers a desk's request to send a released session: database, storage thread, signed reply, final confirmation."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor

from appliance.errors import ApplianceError, Refused, StorageUnreachable
from appliance.evidence.audit import AuditLog
from appliance.evidence.manifest import verify_manifest
from appliance.policy import ExamPolicy, parse_policy
from appliance.protocol import GRANTS_PURPOSE, ConfirmSynced, GrantRequest, Grants, ToNode, sign_message
from appliance.room.commands import read_release
from appliance.room.core import Room
from appliance.room.grants import GrantAnswer, Released, answer_request
from appliance.room.rows import session_row
from appliance.room.storage import Storage

log = logging.getLogger(__name__)
STORAGE_THREADS = 4


class Granting:
    """One storage client for each policy version; one request of a session at a time."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._storages: dict[tuple[str, int], Storage] = {}
        self._busy: set[str] = set()
        # Of their own: a storage that is silent must not hold up what else waits for a thread, the broker's connection.
        self._threads = ThreadPoolExecutor(STORAGE_THREADS, thread_name_prefix="storage")

    async def answer(self, desk: str, request: GrantRequest) -> None:
        """Never raises for what a desk or the storage does: it refuses in the reply, or says so on the page."""
        if request.sid in self._busy:
            return
        self._busy.add(request.sid)
        try:
            await self._answer(desk, request)
        except StorageUnreachable as error:
            log.warning("storage.unreachable reason=%s", error)
            self._room.need("storage", f"sending waits: {error}")
        except ApplianceError as error:
            log.warning("grants.refused desk=%s sid=%s reason=%s", desk, request.sid, error)
            await self._send(desk, request, (), (), {facts.name: str(error) for facts in request.objects})
        finally:
            self._busy.discard(request.sid)

    async def _answer(self, desk: str, request: GrantRequest) -> None:
        room = self._room
        row = await room.database.run(lambda connection: session_row(connection, request.sid))
        if row["desk"] != desk or row["release"] is None or row["manifest"] is None:
            raise Refused("the session is not released", "a proctor has to approve it first")
        policy = parse_policy(json.loads(row["policy"])["body"])

        def in_thread() -> GrantAnswer:
            data = str(row["manifest"]).encode()
            manifest = verify_manifest(data, room.keys.room_ca, room.keys.signing.public_key())
            release = read_release(bytes(row["release"]), room.keys.signing.public_key())
            damaged = {file.name: file for file in release.damaged}
            released = Released(manifest, data, bytes(row["release"]), damaged)
            return answer_request(request, released, self._storage(policy))

        answer = await asyncio.get_running_loop().run_in_executor(self._threads, in_thread)
        room.need("storage", None)
        await self._send(desk, request, answer.present, answer.grants, answer.refused)
        if answer.complete and row["synced_at"] is None:
            await self._confirm(desk, row, answer.total)

    async def _confirm(self, desk: str, asked: sqlite3.Row, objects: int) -> None:
        room, sid, manifest_sha256 = self._room, asked["sid"], asked["manifest_sha256"]

        def work(connection: sqlite3.Connection) -> None:
            now = session_row(connection, sid)
            # What was read back is what that release names; a later one is settled by the desk's next question.
            if now["synced_at"] is not None or now["release"] != asked["release"]:
                return
            connection.execute("UPDATE sessions SET synced_at = ? WHERE sid = ?", (room.now(), sid))
            order = ConfirmSynced(sid=sid, manifest_sha256=manifest_sha256, objects=objects)
            room.compose(connection, desk, order)
            AuditLog(connection, room.clock).append(
                "room", "session.synced", f"session/{sid}", {"desk": desk, "objects": objects}
            )

        await room.change(sid, work)

    async def _send(
        self,
        desk: str,
        request: GrantRequest,
        present: tuple[str, ...],
        grants: tuple[object, ...],
        refused: dict[str, str],
    ) -> None:
        room = self._room
        message = Grants.model_validate(
            {
                "room": room.config.room,
                "desk": desk,
                "sid": request.sid,
                "number": request.number,
                "issued": room.now(),
                "present": present,
                "grants": grants,
                "refused": refused,
            }
        )
        await room.send(desk, ToNode.GRANTS, sign_message(GRANTS_PURPOSE, message, room.keys.signing))

    def _storage(self, policy: ExamPolicy) -> Storage:
        config = self._room.config.storage
        if config is None:
            raise Refused("no storage is set for this room", "add [storage] to room.toml")
        key = (policy.id, policy.version)
        if key not in self._storages:
            self._storages[key] = Storage(config, policy)
        return self._storages[key]
