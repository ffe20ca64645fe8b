"""What somebody does to a session's folder: with no key, with the desk's own, or with the controller's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from appliance.evf.canonical import canonical
from appliance.evf.scan import scan_segment
from appliance.evf.signed import sign_document
from appliance.evidence.checkpoint import cosign, node_key_name, session_origin, sign_checkpoint
from appliance.evidence.manifest import PURPOSE, LostLeaf, Manifest
from appliance.protocol import COMMAND_PURPOSE
from tests.both_verifiers import SEGMENT, VERIFIER
from tests.sessions import DESK, ROOM, SID, Built, Room, issue_certificate, release


def swap_segments(built: Built) -> None:
    one, other = built.segment("0-video-0.evf"), built.segment("0-video-1.evf")
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def approve(built: Built, make: Callable[[bytes, Room], bytes]) -> None:
    manifest = (built.folder / "manifest.json").read_bytes()
    (built.folder / "approval.json").write_bytes(make(manifest, built.room))


def foreign_certificate(built: Built) -> None:
    stranger = Room()
    chain_pem = (stranger.device_certificate().public_bytes(Encoding.PEM).decode(),)
    built.rewrite(replace(built.room, device_key=stranger.device_key), chain_pem=chain_pem)


def other_controller(built: Built) -> None:
    key = Room().controller_key.public_key().public_bytes_raw().hex()
    (built.config.parent / "trust" / "controller.pub").write_text(key)


def rewrite_segment(built: Built) -> None:
    data = bytearray(built.segment(SEGMENT).read_bytes())
    data[-200] ^= 1
    renew(built, SEGMENT, bytes(data))


def cut(built: Built, in_record: int) -> None:
    path = built.segment(SEGMENT)
    with path.open("rb") as stream:
        record = scan_segment(stream).records[2]
    path.write_bytes(path.read_bytes()[: record.offset_bytes + in_record])


def declare_lost(built: Built) -> None:
    """The desk declares its last record as lost; everything else is as signed."""
    last = built.manifest.segments[-1]
    path = built.segment(last.name)
    data = path.read_bytes()
    with path.open("rb") as stream:
        end = scan_segment(stream).records[-1].offset_bytes
    first, count = last.leaf_runs[0]
    path.write_bytes(data[:end])
    entry = replace(
        last,
        records=count - 1,
        leaf_runs=((first, count - 1),),
        outcome="OPEN_ENDED",
        size_bytes=end,
        sha256=hashlib.sha256(data[:end]).hexdigest(),
    )
    leaf = hashlib.sha256(b"\0" + data[end:]).hexdigest()
    lost = (LostLeaf(first + count - 1, leaf, last.name, last.end_90k, "disk could not be read"),)
    built.rewrite(segments=(*built.manifest.segments[:-1], entry), lost=lost)


def renew(built: Built, name: str, data: bytes, **changes: Any) -> None:
    """What a desk with its own key can do: other bytes of a segment, and a manifest that names them."""
    built.segment(name).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    segments = tuple(
        replace(entry, size_bytes=len(data), sha256=digest, **changes) if entry.name == name else entry
        for entry in built.manifest.segments
    )
    built.rewrite(segments=segments)


def resign(built: Built, manifest: Manifest) -> None:
    """A manifest that contradicts itself: the product refuses to sign one, somebody's program might not."""
    data = canonical(sign_document(PURPOSE, manifest.to_body(), built.room.device_key))
    (built.folder / "manifest.json").write_bytes(data)
    (built.folder / "approval.json").write_bytes(release(data, built.room.controller_key))


def note(built: Built, *, sid: str = SID, leaves: int | None = None, key: Any = None) -> dict[str, str]:
    """Another checkpoint over the true root, cosigned by the true controller."""
    size = built.manifest.leaves if leaves is None else leaves
    root = VERIFIER.read_checkpoint(vars(built.manifest), built.room.device_key.public_key())[1]
    text = sign_checkpoint(
        session_origin(DESK, sid), size, root, key or built.room.device_key, node_key_name(DESK)
    )
    return {
        "checkpoint": text,
        "cosignature": cosign(text, built.room.controller_key, f"room/{ROOM}", 1_800_000_000),
    }


def reword(built: Built, name: str, old: bytes, new: bytes) -> None:
    """Change a signed document outside of what its signature covers."""
    path = built.folder / name
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    if name == "manifest.json":
        approve(built, lambda data, room: release(data, room.controller_key))


def respell(built: Built) -> None:
    """64 bytes leave four spare bits in base64's last letter: the same signature, spelled otherwise."""
    signature = json.loads((built.folder / "manifest.json").read_bytes())["signature"]
    other = {"A": "B", "Q": "R", "g": "h", "w": "x"}[signature[-3]]
    reword(built, "manifest.json", signature.encode(), (signature[:-3] + other + "==").encode())


def another_desk(built: Built) -> None:
    """A desk with its true certificate says that it was another one, and everything else agrees."""
    root = VERIFIER.read_checkpoint(vars(built.manifest), built.room.device_key.public_key())[1]
    origin, name = session_origin("seat-08", SID), node_key_name("seat-08")
    text = sign_checkpoint(origin, built.manifest.leaves, root, built.room.device_key, name)
    line = cosign(text, built.room.controller_key, f"room/{ROOM}", 1_800_000_000)
    built.rewrite(desk="seat-08", checkpoint=text, cosignature=line)
    order(built, desk="seat-08")


def recertify(built: Built, *, key: Any = None, ca: bool = False, ca_key: Any = None) -> None:
    """Everything is as it was but the desk's certificate, which the room's CA or another of its name gave."""
    room = built.room
    pem = issue_certificate(DESK, key or room.device_key, "Room 2.14 CA", ca_key or room.ca_key, ca=ca)
    built.rewrite(chain_pem=(pem.public_bytes(Encoding.PEM).decode(),))


def order(built: Built, purpose: str = COMMAND_PURPOSE, kind: str = "release", **changes: Any) -> None:
    """Another command of the true controller in place of the approval."""
    digest = hashlib.sha256((built.folder / "manifest.json").read_bytes()).hexdigest()
    body = {
        "room": ROOM,
        "desk": DESK,
        "serial": 7,
        "issued": "2026-11-22T12:10:04.100Z",
        "order": {
            "kind": kind,
            "sid": SID,
            "manifest_sha256": digest,
            "approved_by": "m.jansen",
            "approved_at": "2026-11-22T12:10:04.000Z",
        },
    }
    document = sign_document(purpose, {**body, **changes}, built.room.controller_key)
    (built.folder / "approval.json").write_bytes(canonical(document))


def changed_entry(built: Built, **changes: Any) -> None:
    first, *others = built.manifest.segments
    resign(built, replace(built.manifest, segments=(replace(first, **changes), *others)))


def outside_wrap(built: Built) -> None:
    """The manifest names a file outside of the session's folder, and it is there."""
    wrap, *others = built.manifest.wraps
    built.wrap().rename(built.folder.parent / "x.evk")
    resign(built, replace(built.manifest, wraps=(replace(wrap, name="../../x.evk"), *others)))


def one_leaf_more(built: Built) -> None:
    """The checkpoint and the manifest count a leaf that nothing accounts for."""
    leaves = built.manifest.leaves + 1
    resign(built, replace(built.manifest, leaves=leaves, **note(built, leaves=leaves)))
