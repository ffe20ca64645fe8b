"""What the parts of the room share: settings, keys, database, the live room, the way out to desks."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from appliance.clock import Clock, utc_text
from appliance.config import RoomConfig
from appliance.protocol import Order, ToNode
from appliance.room import commands
from appliance.room.commands import Outbox, Publish
from appliance.room.database import Database
from appliance.room.live import LiveRoom
from appliance.room.rows import decisions_of, load_standing, reviews_of
from appliance.room.trust import LoadedPolicy, PolicyFile, RoomKeys

Result = TypeVar("Result")


@dataclass
class Room:
    """One room controller's parts; belongs to the event loop."""

    config: RoomConfig
    clock: Clock
    keys: RoomKeys
    policy_file: PolicyFile
    database: Database
    live: LiveRoom
    outbox: Outbox
    publish: Publish

    @classmethod
    def open(
        cls, config: RoomConfig, clock: Clock, keys: RoomKeys, database: Database, publish: Publish
    ) -> Room:
        """Put the parts together and take over what the database holds; inside a running loop."""
        policy_file = PolicyFile(config.data / "policy.json", keys.root, config.institution)
        live = LiveRoom(config.desks, clock)
        room = cls(config, clock, keys, policy_file, database, live, Outbox(database, publish), publish)
        for desk, decisions in database.transact(load_standing):
            if desk in live.desks:
                live.put_session(desk, decisions)
        live.reviews = database.transact(lambda connection: reviews_of(connection, live.sessions))
        room.planned()
        return room

    def planned(self) -> LoadedPolicy | None:
        """The exam policy in force; also tells the live room."""
        loaded = self.policy_file.current()
        self.live.exam_planned = loaded is not None
        self.need("policy", self.policy_file.problem)
        return loaded

    def need(self, key: str, words: str | None) -> None:
        """Set or clear one of the room's own needs."""
        if words is None:
            self.live.room_needs.pop(key, None)
        else:
            self.live.room_needs[key] = words

    def now(self) -> str:
        """UTC text."""
        return utc_text(self.clock.wall())

    def compose(self, connection: sqlite3.Connection, desk: str, order: Order) -> bytes:
        """A signed, numbered, stored command; inside the caller's transaction."""
        return commands.compose(connection, self.keys.signing, self.clock, self.config.room, desk, order)

    async def change(self, sid: str, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run one transaction that changes a session, show the result, and send what became due."""

        def run(connection: sqlite3.Connection) -> tuple[Result, tuple[str, object] | None]:
            result = work(connection)
            commands.forget_order(connection, sid)
            return result, decisions_of(connection, sid)

        result, found = await self.database.run(run)
        if found is not None:
            desk, decisions = found
            if desk in self.live.desks:
                self.live.put_session(desk, decisions)  # type: ignore[arg-type]
        self.outbox.wake()
        return result

    async def send(self, desk: str, leaf: ToNode, payload: bytes) -> bool:
        """Publish to a desk."""
        return await self.publish(desk, leaf, payload)
