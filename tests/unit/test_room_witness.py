"""The room never takes back what it has witnessed, not even over a restart."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.errors import NotTrusted
from appliance.evidence.checkpoint import node_key_name, session_origin, sign_checkpoint, verify_cosignature
from appliance.evidence.merkle import Frontier, leaf_hash
from appliance.protocol import CheckpointMessage, ToNode, WitnessMessage
from appliance.room.database import Database
from appliance.room.witness import answer_checkpoint, witnessed_size
from tests.unit.test_room_kit import Kit, make_kit

SID = "ab" * 16
LEAVES = [leaf_hash(bytes([n])) for n in range(8)]


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with closing(make_kit(tmp_path)) as made:
        yield made


def message(
    kit: Kit,
    size: int,
    first: int = 0,
    desk: str = "d1",
    key: Ed25519PrivateKey | None = None,
    leaves: list[bytes] = LEAVES,
    sid: str = SID,
) -> CheckpointMessage:
    frontier = Frontier()
    for leaf in leaves[:size]:
        frontier.append(leaf)
    key = key or kit.device_keys[desk]
    note = sign_checkpoint(session_origin(desk, sid), size, frontier.root(), key, node_key_name(desk))
    sent = tuple(base64.b64encode(leaf).decode() for leaf in leaves[first:size])
    return CheckpointMessage(sid=sid, first_index=first, leaves=sent, note=note)


def ask(
    kit: Kit, sent: CheckpointMessage, desk: str = "d1", database: Database | None = None
) -> WitnessMessage:
    return (database or kit.room.database).transact(
        lambda c: answer_checkpoint(c, kit.room.keys, kit.clock, "room-214", desk, sent)
    )


def test_growth_is_cosigned_in_the_rooms_name(kit: Kit) -> None:
    sent = message(kit, 3)
    answer = ask(kit, sent)
    assert (answer.size, answer.refused) == (3, None)
    assert answer.cosignature is not None
    at_s = verify_cosignature(sent.note, answer.cosignature, kit.room.keys.signing.public_key(), "room-214")
    assert at_s == int(kit.clock.wall().timestamp())
    assert ask(kit, message(kit, 5, first=3)).size == 5


def test_a_hole_is_asked_for_again(kit: Kit) -> None:
    ask(kit, message(kit, 2))
    answer = ask(kit, message(kit, 6, first=4))
    assert (answer.size, answer.cosignature, answer.refused) == (2, None, None)


def test_a_shrink_is_refused_for_good(kit: Kit) -> None:
    ask(kit, message(kit, 2))
    ask(kit, message(kit, 5, first=2))
    other = [leaf_hash(b"other"), *LEAVES[1:]]
    assert "shrank" in (ask(kit, message(kit, 3, leaves=other)).refused or "")
    assert ask(kit, message(kit, 6, first=5)).refused  # even a note that would fit


def test_a_fork_is_refused_and_shown(kit: Kit) -> None:
    kit.ready("d1")
    proctor = kit.logged_in("proctor")
    sid = proctor.post("/api/sessions/start", {"desk": "d1", "candidate_code": "C-1"}).json()["sid"]
    forged = [LEAVES[0], leaf_hash(b"forged"), *LEAVES[2:]]
    kit.hear("d1", message(kit, 4, sid=sid), message(kit, 5, sid=sid, leaves=forged))
    answers = [WitnessMessage.model_validate_json(m) for _, leaf, m in kit.sent if leaf is ToNode.WITNESS]
    assert answers[0].cosignature
    assert "differs" in (answers[1].refused or "")
    needs = proctor.get("/api/room").json()["needs"]
    assert "contradicts what the room has seen" in needs[0]["words"]


def test_what_was_witnessed_outlives_the_process(kit: Kit) -> None:
    ask(kit, message(kit, 5))
    kit.close()
    again = Database(kit.folder / "data" / "room.db")
    assert again.transact(lambda c: witnessed_size(c, SID)) == 5
    other = [leaf_hash(b"other"), *LEAVES[1:]]
    assert ask(kit, message(kit, 3, leaves=other), database=again).refused
    again.close()


def test_a_note_of_another_key_is_not_the_desks_word(kit: Kit) -> None:
    """It is not answered, and must not close the real desk's log."""
    ask(kit, message(kit, 2))
    with pytest.raises(NotTrusted):
        ask(kit, message(kit, 3, first=2, key=Ed25519PrivateKey.generate()))
    assert ask(kit, message(kit, 3, first=2)).cosignature


def test_another_desk_cannot_speak_for_a_session(kit: Kit) -> None:
    ask(kit, message(kit, 2))
    with pytest.raises(NotTrusted):
        ask(kit, message(kit, 3, desk="d2"), desk="d2")


def test_a_desk_without_a_certificate_is_named_on_the_page(kit: Kit) -> None:
    (kit.folder / "trust" / "desks" / "d1.pem").unlink()
    kit.hear("d1", message(kit, 2))
    assert "no certificate of desk d1" in kit.room.live.room_needs["trust-d1"]
    assert not [leaf for _, leaf, _ in kit.sent if leaf is ToNode.WITNESS]
