"""Answers checkpoints: accepted ones are stored, then cosigned; a shrink or fork is refused for good.

State is one row for each session, written before the cosignature leaves, so a crash forgets nothing signed.
"""

from __future__ import annotations

import json
import logging
import sqlite3

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.clock import Clock
from appliance.errors import EvidenceBroken, NotTrusted
from appliance.evf.canonical import canonical
from appliance.evf.signed import decode_base64
from appliance.evidence.checkpoint import MissingLeaves, Witness, cosign, node_key_name, session_origin
from appliance.protocol import CheckpointMessage, WitnessMessage
from appliance.room.trust import RoomKeys

log = logging.getLogger(__name__)


def answer_checkpoint(
    connection: sqlite3.Connection,
    keys: RoomKeys,
    clock: Clock,
    room: str,
    desk: str,
    message: CheckpointMessage,
) -> WitnessMessage:
    """Witness one checkpoint inside the caller's transaction.

    Raises NotTrusted for a note that is not the desk's own and EvfError for leaves that are not hashes: neither
    may close the desk's log.
    """
    row = connection.execute("SELECT state, refused FROM witnessed WHERE sid = ?", (message.sid,)).fetchone()
    if row is not None and row["refused"] is not None:
        return WitnessMessage(sid=message.sid, size=_size(row["state"]), refused=row["refused"])
    leaves = [decode_base64(leaf, 32) for leaf in message.leaves]
    witness = _load(row, desk, message.sid, keys.device_key(desk))
    try:
        checkpoint = witness.accept(message.note, message.first_index, leaves)
    except MissingLeaves as missing:
        return WitnessMessage(sid=message.sid, size=missing.have_size)
    except EvidenceBroken as error:
        log.warning("witness.refused desk=%s sid=%s reason=%s", desk, message.sid, error)
        _save(connection, message.sid, witness, str(error))
        return WitnessMessage(sid=message.sid, size=witness.size, refused=str(error))
    _save(connection, message.sid, witness, None)
    line = cosign(message.note, keys.signing, room, int(clock.wall().timestamp()))
    return WitnessMessage(sid=message.sid, size=checkpoint.size, cosignature=line)


def witnessed_size(connection: sqlite3.Connection, sid: str) -> int:
    """Leaves of the session that were accepted and stored."""
    row = connection.execute("SELECT state FROM witnessed WHERE sid = ?", (sid,)).fetchone()
    return _size(row["state"]) if row else 0


def _load(row: sqlite3.Row | None, desk: str, sid: str, device_key: Ed25519PublicKey) -> Witness:
    origin = session_origin(desk, sid)
    if row is None:
        return Witness(origin, node_key_name(desk), device_key)
    witness = Witness.from_json(json.loads(row["state"]), device_key)
    if witness.origin != origin:
        raise NotTrusted("this session is another desk's", "compare the desk and the session")
    return witness


def _save(connection: sqlite3.Connection, sid: str, witness: Witness, refused: str | None) -> None:
    connection.execute(
        "INSERT INTO witnessed (sid, state, refused) VALUES (?, ?, ?)"
        " ON CONFLICT (sid) DO UPDATE SET state = excluded.state, refused = excluded.refused",
        (sid, canonical(witness.to_json()), refused),
    )


def _size(state: bytes) -> int:
    return int(json.loads(state)["frontier"]["size"])
