"""Who looks at what: desks send previews only while a page is open, and every look is in the audit log (F103).

An open event stream is a look; when it closes, the lease is no longer renewed and the desk stops by itself.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from appliance.evidence.audit import AuditLog
from appliance.protocol import ToNode, Watch, encode
from appliance.room.accounts import Account
from appliance.room.core import Room

LEASE_S = 3.0
RENEW_S = 1.0


class Watching:
    """Counts open pages; `None` stands for the whole room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._open: dict[str | None, int] = {}

    @asynccontextmanager
    async def look(self, by: Account, desk: str | None) -> AsyncIterator[None]:
        """While this is open, stills of the whole room, or one desk live, are asked for; logged at both ends."""
        seen = f"desk/{desk}" if desk else f"room/{self._room.config.room}"
        began_ns = self._room.clock.mono_ns()
        self._open[desk] = self._open.get(desk, 0) + 1
        try:
            await self._log(by, "watch.start", seen, {})
            await self._renew()
            yield
        finally:
            self._open[desk] -= 1
            seconds = round((self._room.clock.mono_ns() - began_ns) / 1e9)
            # the client is gone and this task may be cancelled; the row is written all the same
            await asyncio.shield(self._log(by, "watch.stop", seen, {"seconds": seconds}))

    async def run(self) -> None:
        """Renew the leases for ever."""
        while True:
            await self._renew()
            await asyncio.sleep(RENEW_S)

    def modes(self) -> dict[str, Watch]:
        """What each connected desk is asked for now; empty unless the exam's policy allows previews."""
        loaded = self._room.planned()
        if loaded is None or not loaded.policy.preview:
            return {}
        wanted: dict[str, Watch] = {}
        for desk, live in self._room.live.desks.items():
            if live.presence is not None and live.presence.state != "online":
                continue
            if self._open.get(desk, 0) > 0:
                wanted[desk] = Watch(mode="live", lease_s=LEASE_S)
            elif self._open.get(None, 0) > 0:
                wanted[desk] = Watch(mode="still", lease_s=LEASE_S)
        return wanted

    async def _renew(self) -> None:
        for desk, watch in self.modes().items():
            await self._room.send(desk, ToNode.WATCH, encode(watch))

    async def _log(self, by: Account, action: str, seen: str, detail: dict[str, int]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            AuditLog(connection, self._room.clock).append(by.name, action, seen, detail)

        await self._room.database.run(work)
