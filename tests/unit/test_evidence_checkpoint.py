"""Checkpoint notes, cosignatures and the witness that refuses to forget."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ApplianceError, EvidenceBroken, NotTrusted
from appliance.evidence.checkpoint import (
    Checkpoint,
    MissingLeaves,
    Witness,
    cosign,
    node_key_name,
    session_origin,
    sign_checkpoint,
    signature_name,
    verify_checkpoint,
    verify_cosignature,
)
from appliance.evidence.merkle import leaf_hash, root_of
from appliance.evidence.note import verify_note

NODE = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
ROOM = Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32)
NAME = node_key_name("7")
ORIGIN = session_origin("7", "0a" * 16)
LEAVES = [leaf_hash(bytes([n])) for n in range(64)]


def note(size: int, leaves: list[bytes] = LEAVES, origin: str = ORIGIN, key: Ed25519PrivateKey = NODE) -> str:
    return sign_checkpoint(origin, size, root_of(leaves[:size]), key, NAME)


def witness() -> Witness:
    return Witness(ORIGIN, NAME, NODE.public_key())


def test_published_note() -> None:
    """The example of golang.org/x/mod/sumdb/note: key PeterNeumann+c74f20a3."""
    public = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    blob = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    line = f"— PeterNeumann {blob}\n"
    key = Ed25519PublicKey.from_public_bytes(public[1:])
    assert verify_note(text + "\n" + line, key, "PeterNeumann") == text
    with pytest.raises(NotTrusted):
        verify_note(text.replace("you", "we") + "\n" + line, key, "PeterNeumann")


def test_note_has_the_published_form() -> None:
    signed = note(3)
    root = base64.b64encode(root_of(LEAVES[:3])).decode()
    text = f"node/7/session/{'0a' * 16}\n3\n{root}\n"
    key_hash = hashlib.sha256(b"node/7\n\x01" + NODE.public_key().public_bytes_raw()).digest()[:4]
    signature = base64.b64encode(key_hash + NODE.sign(text.encode())).decode()
    assert signed == f"{text}\n— node/7 {signature}\n"
    assert verify_checkpoint(signed, NODE.public_key(), NAME, ORIGIN) == Checkpoint(
        ORIGIN, 3, root_of(LEAVES[:3])
    )


def test_another_key_name_origin_or_text_is_refused() -> None:
    signed = note(3)
    with pytest.raises(NotTrusted):
        verify_checkpoint(signed, ROOM.public_key(), NAME, ORIGIN)
    with pytest.raises(NotTrusted):
        verify_checkpoint(signed, NODE.public_key(), "node/8", ORIGIN)
    with pytest.raises(NotTrusted):
        verify_checkpoint(signed, NODE.public_key(), NAME, session_origin("7", "0b" * 16))
    with pytest.raises(NotTrusted):
        verify_checkpoint(signed.replace("\n3\n", "\n4\n"), NODE.public_key(), NAME, ORIGIN)


@given(st.integers(0, 400), st.integers(0, 255))
def test_no_changed_byte_is_accepted(position: int, value: int) -> None:
    data = bytearray(note(3).encode())
    position %= len(data)
    if data[position] == value:
        return
    data[position] = value
    try:
        changed = data.decode()
    except UnicodeDecodeError:
        return
    with pytest.raises((NotTrusted, EvidenceBroken)):
        verify_checkpoint(changed, NODE.public_key(), NAME, ORIGIN)


@given(st.text(max_size=80))
def test_arbitrary_text_is_refused(text: str) -> None:
    for data in (text, text + "\n\n" + text + "\n"):
        with pytest.raises(ApplianceError):
            verify_checkpoint(data, NODE.public_key(), NAME, ORIGIN)


@pytest.mark.parametrize(("origin", "size"), [("", 1), ("a\nb", 1), ("a", -1), ("a", 2**63)])
def test_impossible_checkpoints_are_not_signed(origin: str, size: int) -> None:
    with pytest.raises(EvidenceBroken):
        sign_checkpoint(origin, size, bytes(32), NODE, NAME)
    with pytest.raises(EvidenceBroken):
        sign_checkpoint("a", 1, bytes(31), NODE, NAME)
    with pytest.raises(EvidenceBroken):
        sign_checkpoint("a", 1, bytes(32), NODE, "with space")


def test_cosignature_has_the_published_form() -> None:
    """C2SP tlog-cosignature: algorithm 0x04, 8-byte time, message "cosignature/v1"."""
    signed = note(3)
    line = cosign(signed, ROOM, "room/2.14", 1_795_338_000)
    text = signed.split("\n\n")[0] + "\n"
    key_hash = hashlib.sha256(b"room/2.14\n\x04" + ROOM.public_key().public_bytes_raw()).digest()[:4]
    signature = ROOM.sign(b"cosignature/v1\ntime 1795338000\n" + text.encode())
    blob = key_hash + (1_795_338_000).to_bytes(8, "big") + signature
    assert line == f"— room/2.14 {base64.b64encode(blob).decode()}\n"
    assert verify_cosignature(signed, line, ROOM.public_key(), "room/2.14") == 1_795_338_000
    assert verify_cosignature(signed + line, line, ROOM.public_key(), "room/2.14") == 1_795_338_000
    assert verify_checkpoint(signed + line, NODE.public_key(), NAME, ORIGIN).size == 3
    assert signature_name(line) == "room/2.14"


def test_cosignature_of_another_note_key_name_or_time_is_refused() -> None:
    signed = note(3)
    line = cosign(signed, ROOM, "room/2.14", 1000)
    for wrong_note, key, name in (
        (note(4), ROOM, "room/2.14"),
        (signed, NODE, "room/2.14"),
        (signed, ROOM, "room/2.15"),
    ):
        with pytest.raises(NotTrusted):
            verify_cosignature(wrong_note, line, key.public_key(), name)
    blob = bytearray(base64.b64decode(line.split()[2]))
    blob[11] ^= 1
    moved = f"— room/2.14 {base64.b64encode(blob).decode()}\n"
    with pytest.raises(NotTrusted):
        verify_cosignature(signed, moved, ROOM.public_key(), "room/2.14")
    for bad in ("", "— room/2.14", "— room/2.14 AAAA\n", "x room/2.14 AAAAAAAA\n", line + line):
        with pytest.raises((NotTrusted, EvidenceBroken)):
            verify_cosignature(signed, bad, ROOM.public_key(), "room/2.14")
    with pytest.raises(EvidenceBroken):
        cosign(signed, ROOM, "room/2.14", 0)


def test_witness_follows_a_growing_log() -> None:
    watcher = witness()
    for start, size in ((0, 1), (1, 5), (5, 6), (6, 40)):
        assert watcher.accept(note(size), start, LEAVES[start:size]).size == size
    assert watcher.size == 40
    assert watcher.note == note(40)


def test_witness_takes_resends_in_any_form() -> None:
    watcher = witness()
    watcher.accept(note(5), 0, LEAVES[:5])
    watcher.accept(note(9), 5, LEAVES[5:9])
    assert watcher.accept(note(9), 5, LEAVES[5:9]).size == 9
    assert watcher.accept(note(9), 9, []).size == 9
    assert watcher.accept(note(5), 0, LEAVES[:5]).size == 5
    assert watcher.note == note(9)
    assert watcher.accept(note(12), 0, LEAVES[:12]).size == 12
    assert watcher.accept(note(13), 7, LEAVES[7:20]).size == 13
    assert watcher.size == 13


def test_witness_names_the_hole() -> None:
    watcher = witness()
    watcher.accept(note(5), 0, LEAVES[:5])
    for first, leaves in ((6, LEAVES[6:9]), (5, LEAVES[5:8]), (5, []), (-1, LEAVES[:20])):
        with pytest.raises(MissingLeaves) as raised:
            watcher.accept(note(9), first, leaves)
        assert raised.value.have_size == 5
    assert watcher.accept(note(9), 5, LEAVES[5:9]).size == 9


def test_witness_refuses_a_shrink_and_a_fork_and_keeps_what_it_knew() -> None:
    watcher = witness()
    watcher.accept(note(5), 0, LEAVES[:5])
    watcher.accept(note(9), 5, LEAVES[5:9])
    before = watcher.to_json()
    forked = [*LEAVES[:4], leaf_hash(b"other"), *LEAVES[5:]]
    with pytest.raises(EvidenceBroken, match="shrank"):
        watcher.accept(note(7), 0, LEAVES[:7])
    with pytest.raises(EvidenceBroken, match="shrank"):
        watcher.accept(note(5, forked), 0, forked[:5])
    with pytest.raises(EvidenceBroken, match="differs"):
        watcher.accept(note(9, forked), 0, forked[:9])
    with pytest.raises(EvidenceBroken, match="differs"):
        watcher.accept(note(12, forked), 0, forked[:12])
    with pytest.raises(EvidenceBroken, match="differs"):
        watcher.accept(note(12), 9, forked[20:23])
    with pytest.raises(NotTrusted):
        watcher.accept(note(12, key=ROOM), 9, LEAVES[9:12])
    with pytest.raises(NotTrusted):
        watcher.accept(note(12, origin=session_origin("7", "0b" * 16)), 9, LEAVES[9:12])
    with pytest.raises(EvidenceBroken):
        watcher.accept(note(10), 9, [b"short"])
    assert watcher.to_json() == before
    assert watcher.accept(note(12), 9, LEAVES[9:12]).size == 12


def test_witness_survives_a_restart() -> None:
    watcher = witness()
    for size in range(1, 40):
        watcher.accept(note(size), size - 1, LEAVES[size - 1 : size])
        stored = json.loads(json.dumps(watcher.to_json()))
        watcher = Witness.from_json(stored, NODE.public_key())
    assert watcher.accept(note(40), 39, LEAVES[39:40]).size == 40
    assert watcher.accept(note(20), 0, LEAVES[:20]).size == 20


@pytest.mark.parametrize(
    "change", [{"note": 7}, {"recent": [[1]]}, {"recent": [["1", "00" * 32]]}, {"frontier": {}}, {"extra": 1}]
)
def test_malformed_witness_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(EvidenceBroken):
        Witness.from_json({**witness().to_json(), **change}, NODE.public_key())
    with pytest.raises(EvidenceBroken):
        Witness.from_json(None, NODE.public_key())
