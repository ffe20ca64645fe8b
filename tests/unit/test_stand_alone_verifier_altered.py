"""Whatever is altered in a session, the one-file verifier and the product both say so (F111)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from appliance.evf.signed import key_id
from appliance.evidence.checkpoint import cosign, node_key_name, session_origin, sign_checkpoint
from appliance.evidence.manifest import EventLeaf
from appliance.evidence.merkle import event_leaf, root_of
from tests.altered_sessions import (
    another_desk,
    approve,
    changed_entry,
    cut,
    declare_lost,
    foreign_certificate,
    note,
    one_leaf_more,
    order,
    other_controller,
    outside_wrap,
    recertify,
    resign,
    respell,
    reword,
    rewrite_segment,
    swap_segments,
)
from tests.both_verifiers import Said, built
from tests.sessions import DESK, ROOM, SID, Built, Room, release

__all__ = ["built"]


def test_flipped_bit_in_each_file(built: Built, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(path for path in built.folder.rglob("*") if path.is_file())
    assert len(files) == 2 + 6 + 4
    for path in files:
        whole = path.read_bytes()
        for offset in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
            said = Said(built, capsys)
            assert said.code == 1
            assert path.name in said.last
        path.write_bytes(whole)
    assert Said(built, capsys).code == 0


@pytest.mark.parametrize(
    ("name", "code"), [("segments/0-video-0.evf", 1), (f"wraps/{SID}.0.media.evk", 1), ("manifest.json", 2)]
)
def test_a_pipe_in_a_files_place_keeps_nobody_waiting(
    built: Built, capsys: pytest.CaptureFixture[str], name: str, code: int
) -> None:
    (built.folder / name).unlink()
    os.mkfifo(built.folder / name)
    said: list[int] = []
    reading = threading.Thread(target=lambda: said.append(Said(built, capsys).code), daemon=True)
    reading.start()
    reading.join(30)
    assert said == [code]


ALTERED: dict[str, Callable[[Built], object]] = {
    "no segment": lambda built: built.segment("1-video-0.evf").unlink(),
    "no wrap": lambda built: built.wrap().unlink(),
    "other wrap": lambda built: built.wrap().write_bytes(built.wrap().read_bytes()[::-1]),
    "longer wrap": lambda built: built.wrap().write_bytes(built.wrap().read_bytes() + b"\n"),
    "swapped": swap_segments,
    "extra segment": lambda built: built.segment("9-video-0.evf").write_bytes(b"not of this session"),
    "extra file": lambda built: (built.folder / "note.txt").write_bytes(b""),
    "hidden file": lambda built: (built.folder / "wraps" / ".hidden").write_bytes(b""),
    "link": lambda built: (built.folder / "segments" / "more").symlink_to("/tmp"),
    "certificate of another CA": foreign_certificate,
    "another device key": lambda built: built.rewrite(replace(built.room, device_key=Room().device_key)),
    "another controller": other_controller,
    "approval by another": lambda built: approve(built, lambda data, _: release(data, Room().controller_key)),
    "approval of other bytes": lambda built: approve(
        built, lambda data, room: release(data + b" ", room.controller_key)
    ),
    "approval of another session": lambda built: approve(
        built, lambda data, room: release(data, room.controller_key, "ab" * 16)
    ),
    "approval no document": lambda built: approve(built, lambda data, room: b"{}"),
    "approval empty": lambda built: approve(built, lambda data, room: b""),
    "approval a list": lambda built: approve(built, lambda data, room: b"[" * 100_000),
    "approval signed for another use": lambda built: order(built, "policy"),
    "approval for another room": lambda built: order(built, room="room-215"),
    "approval for another desk": lambda built: order(built, desk="seat-08"),
    "approval is a hold": lambda built: order(built, order={"kind": "hold", "sid": SID, "reason": "wait"}),
    "approval with more": lambda built: order(built, more=1),
    "purpose field": lambda built: reword(
        built, "manifest.json", b'"purpose":"manifest"', b'"purpose":"policy"'
    ),
    "purpose field of the approval": lambda built: reword(
        built, "approval.json", b'"purpose":"command"', b'"purpose":"policy"'
    ),
    "key field": lambda built: reword(
        built,
        "manifest.json",
        key_id(built.room.device_key.public_key().public_bytes_raw()).encode(),
        b"0" * 32,
    ),
    "signature in another spelling": respell,
    "manifest a list": lambda built: (built.folder / "manifest.json").write_bytes(b"[]"),
    "desk's certificate by another CA": lambda built: recertify(built, ca_key=Room().ca_key),
    "desk's certificate is a CA's": lambda built: recertify(built, ca=True),
    "desk's certificate holds another kind of key": lambda built: recertify(
        built, key=generate_private_key(SECP256R1())
    ),
    "no approval": lambda built: (built.folder / "approval.json").unlink(),
    "rewritten segment": rewrite_segment,
    "retention date": lambda built: built.rewrite(retain_until="2036-01-01"),
    "declared loss": declare_lost,
    "cut at a record": lambda built: cut(built, 0),
    "cut in a record": lambda built: cut(built, 40),
    "not cosigned": lambda built: built.rewrite(cosignature=""),
    "cosigned by the desk": lambda built: built.rewrite(
        cosignature=cosign(built.manifest.checkpoint, built.room.device_key, f"room/{ROOM}", 5)
    ),
    "cosignature of another note": lambda built: built.rewrite(
        cosignature=note(built, leaves=built.manifest.leaves + 1)["cosignature"]
    ),
    "checkpoint of another session": lambda built: built.rewrite(**note(built, sid="ab" * 16)),
    "checkpoint of fewer leaves": lambda built: built.rewrite(
        **note(built, leaves=built.manifest.leaves - 1)
    ),
    "checkpoint signed by another": lambda built: built.rewrite(**note(built, key=Room().device_key)),
    "event changed": lambda built: built.rewrite(
        events=(EventLeaf(0, {"kind": "epoch_open", "epoch": 7}), *built.manifest.events[1:])
    ),
    "ended before the certificate": lambda built: built.rewrite(ended="2026-01-01T09:00:00.000Z"),
    "of another desk": lambda built: built.rewrite(desk="seat-08"),
    "manifest names a path": outside_wrap,
    "manifest names a file twice": lambda built: resign(
        built, replace(built.manifest, wraps=(*built.manifest.wraps, built.manifest.wraps[0]))
    ),
    "manifest counts one leaf more": one_leaf_more,
    "two events are one leaf": lambda built: resign(
        built,
        replace(
            built.manifest, events=(built.manifest.events[0], replace(built.manifest.events[1], index=0))
        ),
    ),
    "leaf runs of another form": lambda built: changed_entry(built, leaf_runs=((1, "5"),)),
    "records counted in two ways": lambda built: changed_entry(built, records=4),
    "span backwards": lambda built: changed_entry(built, start_90k=90_000, end_90k=0),
    "unknown outcome": lambda built: changed_entry(built, outcome="FINISHED"),
    "cosignature under another name": lambda built: built.rewrite(
        cosignature=built.manifest.cosignature.replace(ROOM, "room-215")
    ),
    "approval of another kind": lambda built: order(built, kind="keep"),
    "manifest names a leaf twice": lambda built: resign(
        built, replace(built.manifest, events=(*built.manifest.events, built.manifest.events[0]))
    ),
    "manifest misses a leaf": lambda built: resign(built, replace(built.manifest, events=())),
    "manifest of version 2": lambda built: resign(built, replace(built.manifest, v=2)),
    "manifest with a wrong type": lambda built: resign(built, replace(built.manifest, leaves="26")),  # type: ignore[arg-type]
    "manifest not canonical": lambda built: reword(
        built, "manifest.json", b'"purpose":"manifest"', b'"purpose": "manifest"'
    ),
    "checkpoint without its last line end": lambda built: built.rewrite(
        checkpoint=built.manifest.checkpoint.removesuffix("\n")
    ),
    "checkpoint with another line": lambda built: built.rewrite(
        checkpoint=built.manifest.checkpoint.replace("\n\n", "\n\nx\n")
    ),
    "checkpoint with a forged signature": lambda built: built.rewrite(
        checkpoint=built.manifest.checkpoint[:-44] + "A" * 40 + built.manifest.checkpoint[-4:]
    ),
    "checkpoint without lines": lambda built: built.rewrite(checkpoint=""),
    "cosignature of another form": lambda built: built.rewrite(cosignature="witness: room-214\n"),
    "cosignature cut": lambda built: built.rewrite(cosignature=f"— room/{ROOM} {'A' * 16}\n"),
    "manifest of another desk": another_desk,
    "another institution": lambda built: built.config.write_text(
        built.config.read_text().replace('"uni-x"', '"uni-y"')
    ),
}


@pytest.mark.parametrize("kind", ALTERED)
def test_altered_sessions(built: Built, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    ALTERED[kind](built)
    assert Said(built, capsys).code == 1


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("cut at a record", "bytes, manifest says"),
        ("not cosigned", "the end was never witnessed"),
        ("two events are one leaf", "or says it twice"),
        ("manifest counts one leaf more", "it accounts for"),
    ],
)
def test_cause_is_named(built: Built, kind: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    ALTERED[kind](built)
    assert words in Said(built, capsys).last


def test_rewritten_log_under_another_root_is_no_longer_cosigned(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    """The desk forgets an event and signs a consistent log without it; the controller's line is of the old one."""
    body = {"kind": "epoch_open", "epoch": 7}
    leaves = [bytes(32)] * built.manifest.leaves
    leaves[0] = event_leaf(body)
    text = sign_checkpoint(
        session_origin(DESK, SID),
        len(leaves),
        root_of(leaves),
        built.room.device_key,
        node_key_name(DESK),
    )
    built.rewrite(checkpoint=text, events=(EventLeaf(0, body), *built.manifest.events[1:]))
    assert "cosignature" in Said(built, capsys).last
