"""Signed commands to desks: numbered, stored before they are sent, sent again until a Reply answers.

Only the oldest unanswered one of a desk is in flight: a desk refuses a serial lower than one it has seen.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.clock import Clock, utc_text
from appliance.errors import BadInput, StoreFailed
from appliance.protocol import (
    COMMAND_PURPOSE,
    Command,
    Order,
    Release,
    Reply,
    ToNode,
    sign_message,
    verify_message,
)
from appliance.room.database import NOT_OVER, Database

log = logging.getLogger(__name__)

RESEND_S = 2.0
Publish = Callable[[str, ToNode, bytes], Awaitable[bool]]


def compose(
    connection: sqlite3.Connection, key: Ed25519PrivateKey, clock: Clock, room: str, desk: str, order: Order
) -> bytes:
    """Take the desk's next serial, sign and store, in the decision's transaction. Returns the payload.

    A serial is the time in milliseconds, or one more than the last: a room whose database was put back to an older one
    must not say again what its desks have heard.
    """
    now = clock.wall()
    row = connection.execute(
        "INSERT INTO serials (desk, serial) VALUES (?, ?)"
        " ON CONFLICT (desk) DO UPDATE SET serial = max(serial + 1, excluded.serial) RETURNING serial",
        (desk, int(now.timestamp() * 1000)),
    ).fetchone()
    issued = utc_text(now)
    command = Command(room=room, desk=desk, serial=row["serial"], issued=issued, order=order)
    payload = sign_message(COMMAND_PURPOSE, command, key)
    connection.execute(
        "INSERT INTO commands (desk, serial, sid, kind, payload, issued) VALUES (?, ?, ?, ?, ?, ?)",
        (desk, command.serial, order.sid, order.kind, payload, issued),
    )
    return payload


def read_release(payload: bytes, key: Ed25519PublicKey) -> Release:
    """The release in a command that this room composed; NotTrusted, BadInput for anything else."""
    order = verify_message(COMMAND_PURPOSE, Command, payload, key).order
    if not isinstance(order, Release):
        raise BadInput(f"the command is no release but {order.kind}", "")
    return order


def answer(connection: sqlite3.Connection, desk: str, reply: Reply) -> sqlite3.Row | None:
    """Note a Reply; returns the command it answers first, None for an unknown or already answered serial."""
    found: sqlite3.Row | None = connection.execute(
        "UPDATE commands SET outcome = ?, reason = ? WHERE desk = ? AND serial = ? AND outcome IS NULL"
        " RETURNING sid, kind, serial",
        ("accepted" if reply.accepted else "refused", reply.reason, desk, reply.serial),
    ).fetchone()
    return found


def withdraw(connection: sqlite3.Connection, sid: str, reason: str) -> None:
    """Stop sending what nobody answered for this session."""
    connection.execute(
        "UPDATE commands SET outcome = 'withdrawn', reason = ? WHERE sid = ? AND outcome IS NULL",
        (reason, sid),
    )


def forget_order(connection: sqlite3.Connection, sid: str) -> None:
    """Once a session's recording is certified, or it is over, nobody needs its seat's codes: its row keeps none, and of
    its order to start remains what became of it."""
    done = f"manifest_sha256 IS NOT NULL OR NOT ({NOT_OVER})"
    forgotten = connection.execute(
        f"UPDATE sessions SET accommodations = NULL WHERE sid = ? AND ({done})",  # noqa: S608 - no input
        (sid,),
    )
    if forgotten.rowcount:
        connection.execute(
            "UPDATE commands SET payload = X'7B7D' WHERE sid = ? AND kind = 'start' AND outcome IS NOT NULL",
            (sid,),
        )


def due(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
    """The oldest unanswered command of each desk."""
    rows = connection.execute(
        "SELECT desk, payload, min(serial) FROM commands WHERE outcome IS NULL GROUP BY desk"
    ).fetchall()
    return [(row["desk"], row["payload"]) for row in rows]


class Outbox:
    """Sends what is due, at once when `wake` is called and every two seconds."""

    def __init__(self, database: Database, publish: Publish) -> None:
        self._database = database
        self._publish = publish
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Something new is due."""
        self._woken.set()

    async def run(self) -> None:
        """For ever; while the broker is away nothing is lost, since everything stands in the database."""
        while True:
            self._woken.clear()
            try:
                for desk, payload in await self._database.run(due):
                    await self._publish(desk, ToNode.COMMAND, payload)
            except StoreFailed as error:  # what is due stays due
                log.warning("outbox.waits reason=%s", error)
            try:
                await asyncio.wait_for(self._woken.wait(), RESEND_S)
            except TimeoutError:
                continue
