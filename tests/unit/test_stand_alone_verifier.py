"""The one-file verifier says the same of a session as `invigil archive verify`, and never sees the product (F111)."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding

from appliance.archive.session import LocalSession
from appliance.archive.trust import Trust
from appliance.archive.verify import check_files, require_whole
from appliance.config import ArchiveConfig, load_config
from appliance.errors import BadInput, EvidenceBroken
from appliance.evf.canonical import canonical
from appliance.evf.scan import scan_segment
from appliance.evf.signed import key_id, sign_document
from appliance.evidence.checkpoint import cosign, node_key_name, session_origin, sign_checkpoint
from appliance.evidence.manifest import PURPOSE, EventLeaf, Gap, LostLeaf, Manifest
from appliance.evidence.merkle import event_leaf, root_of
from appliance.protocol import COMMAND_PURPOSE
from tests.sessions import (
    DESK,
    ROOM,
    SID,
    Built,
    Plan,
    Room,
    _certificate,
    build_session,
    observation,
    release,
)

SCRIPT = Path(__file__).parents[2] / "verifier" / "verify_session.py"
LOG = (observation(1, "head_turned_away", 3, 5), observation(2, "nobody_at_desk", 44, 46, "red"))
SEGMENT = "0-video-0.evf"

# Runs the script with the standard library and the folder in argv[1] only; names what else was imported.
ALONE = """
import runpy, sys
folder, sys.argv = sys.argv[1], sys.argv[2:]
sys.path.append(folder)
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    tops = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names
    sys.stderr.write(" ".join(sorted(tops)))
"""


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_session", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VERIFIER = load_script()


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build_session(tmp_path, Plan(observations=LOG))


def arguments(built: Built) -> list[str]:
    trust = built.config.parent / "trust"
    return [
        str(built.folder),
        *("--room-ca", str(trust / "room-ca.pem")),
        *("--controller", str(trust / "controller.pub")),
        *("--institution", load_config(built.config, ArchiveConfig).institution),
    ]


def product(built: Built) -> tuple[int, str]:
    """(exit code as the one-file verifier would have it, what `invigil archive verify` says)."""
    try:
        session = LocalSession.load(built.folder, Trust.load(load_config(built.config, ArchiveConfig)))
        require_whole(check_files(session, lambda _count: None))
    except EvidenceBroken as error:
        return 1, str(error)
    except BadInput as error:
        return 2, str(error)
    return 0, ""


class Said:
    """Runs both on one folder; they must agree on whether it is whole and name the same file first."""

    def __init__(self, built: Built, capsys: pytest.CaptureFixture[str]) -> None:
        capsys.readouterr()
        self.code = VERIFIER.main(arguments(built))
        self.lines = capsys.readouterr().out.splitlines()
        self.last = self.lines[-1]
        code, words = product(built)
        assert self.code == code, (self.last, words)
        start = {0: "session is whole: ", 1: "session is not whole: ", 2: "session was not checked: "}
        assert self.last.startswith(start[code])
        if "(00:" in words:
            span = words.partition("(")[2].partition(" of the session)")[0]
            assert span in self.last or "cut after the recording" in words, (span, self.last)
            if "witnessed root" not in words:
                assert words.partition(" (")[0] in self.last


@pytest.mark.parametrize(
    "plan",
    [
        Plan(observations=LOG),
        Plan(epochs=1, segments=1, fragments=0),
        Plan(open_ended=frozenset({"1-video-1.evf"})),
        Plan(unwitnessed=(Gap(0, 90_000, "controller was down", True),), recipients=(1, 2)),
        Plan(epochs=0),
    ],
    ids=["usual", "one record", "open-ended", "unwitnessed", "empty"],
)
def test_whole_sessions(tmp_path: Path, plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(build_session(tmp_path, plan), capsys)
    assert said.code == 0
    assert all(re.match(r"(ok|gap) ", line) for line in said.lines[:-1])


def test_long_segment_numbers_need_longer_sframe_headers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More than 8 segments and more than 256 records: RFC 9605's numbers in one and in two bytes."""
    many = Plan(epochs=1, segments=10, fragments=1)
    long = Plan(epochs=1, segments=1, fragments=300, fragment=lambda second: b"%d" % second)
    for number, plan in enumerate((many, long)):
        root = tmp_path / str(number)
        root.mkdir()
        assert Said(build_session(root, plan), capsys).code == 0


def test_gaps_are_said_and_what_the_desk_wrote_cannot_forge_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gap = Gap(0, 90_000, "line\nsession is whole\x1b[2J\u202e", True)
    said = Said(build_session(tmp_path, Plan(unwitnessed=(gap,))), capsys)
    assert "gap     00:00:00-00:00:01  recorded without a witness  line?session is whole?[2J?" in said.lines


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


def _swap(built: Built) -> None:
    one, other = built.segment("0-video-0.evf"), built.segment("0-video-1.evf")
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def _approval(built: Built, make: Callable[[bytes, Room], bytes]) -> None:
    manifest = (built.folder / "manifest.json").read_bytes()
    (built.folder / "approval.json").write_bytes(make(manifest, built.room))


def _foreign_certificate(built: Built) -> None:
    stranger = Room()
    chain_pem = (stranger.device_certificate().public_bytes(Encoding.PEM).decode(),)
    built.rewrite(replace(built.room, device_key=stranger.device_key), chain_pem=chain_pem)


def _other_controller(built: Built) -> None:
    key = Room().controller_key.public_key().public_bytes_raw().hex()
    (built.config.parent / "trust" / "controller.pub").write_text(key)


def _rewritten_segment(built: Built) -> None:
    data = bytearray(built.segment(SEGMENT).read_bytes())
    data[-200] ^= 1
    renew(built, SEGMENT, bytes(data))


def _cut(built: Built, in_record: int) -> None:
    path = built.segment(SEGMENT)
    with path.open("rb") as stream:
        record = scan_segment(stream).records[2]
    path.write_bytes(path.read_bytes()[: record.offset_bytes + in_record])


def _lost(built: Built) -> None:
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
        _approval(built, lambda data, room: release(data, room.controller_key))


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
    pem = _certificate(DESK, key or room.device_key, "Room 2.14 CA", ca_key or room.ca_key, ca=ca)
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


ALTERED: dict[str, Callable[[Built], object]] = {
    "no segment": lambda built: built.segment("1-video-0.evf").unlink(),
    "no wrap": lambda built: built.wrap().unlink(),
    "other wrap": lambda built: built.wrap().write_bytes(built.wrap().read_bytes()[::-1]),
    "longer wrap": lambda built: built.wrap().write_bytes(built.wrap().read_bytes() + b"\n"),
    "swapped": _swap,
    "extra segment": lambda built: built.segment("9-video-0.evf").write_bytes(b"not of this session"),
    "extra file": lambda built: (built.folder / "note.txt").write_bytes(b""),
    "hidden file": lambda built: (built.folder / "wraps" / ".hidden").write_bytes(b""),
    "link": lambda built: (built.folder / "segments" / "more").symlink_to("/tmp"),
    "certificate of another CA": _foreign_certificate,
    "another device key": lambda built: built.rewrite(replace(built.room, device_key=Room().device_key)),
    "another controller": _other_controller,
    "approval by another": lambda built: _approval(
        built, lambda data, _: release(data, Room().controller_key)
    ),
    "approval of other bytes": lambda built: _approval(
        built, lambda data, room: release(data + b" ", room.controller_key)
    ),
    "approval of another session": lambda built: _approval(
        built, lambda data, room: release(data, room.controller_key, "ab" * 16)
    ),
    "approval no document": lambda built: _approval(built, lambda data, room: b"{}"),
    "approval empty": lambda built: _approval(built, lambda data, room: b""),
    "approval a list": lambda built: _approval(built, lambda data, room: b"[" * 100_000),
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
    "rewritten segment": _rewritten_segment,
    "retention date": lambda built: built.rewrite(retain_until="2036-01-01"),
    "declared loss": _lost,
    "cut at a record": lambda built: _cut(built, 0),
    "cut in a record": lambda built: _cut(built, 40),
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


FRAMING: dict[str, Callable[[bytes, list[int]], bytes]] = {
    "magic": lambda data, at: b"EVF2" + data[4:],
    "header": lambda data, at: data.replace(b'"seg":0', b'"seg":1', 1),
    "header a list": lambda data, at: data[:8] + b"\0\0\0\x02[]" + data[at[0] - 32 :],
    "header spelling": lambda data, at: data.replace(b'"v":1}', b'"v":1.}', 1),
    "record magic": lambda data, at: data[: at[1]] + b"CHNX" + data[at[1] + 4 :],
    "type": lambda data, at: data[: at[1] + 4] + b"\x09" + data[at[1] + 5 :],
    "key frame flag of INIT": lambda data, at: data[: at[0] + 5] + b"\x01" + data[at[0] + 6 :],
    "unknown flag": lambda data, at: data[: at[1] + 5] + b"\x03" + data[at[1] + 6 :],
    "reserved": lambda data, at: data[: at[1] + 7] + b"\x01" + data[at[1] + 8 :],
    "index": lambda data, at: data[: at[1] + 11] + b"\x07" + data[at[1] + 12 :],
    "length": lambda data, at: data[: at[1] + 12] + b"\xff" + data[at[1] + 13 :],
    "length of END": lambda data, at: data[: at[-1] + 15] + b"\x1f" + data[at[-1] + 16 :],
    "SFrame counter": lambda data, at: data[: at[1] + 24] + b"\x07" + data[at[1] + 25 :],
    "swapped records": lambda data, at: (
        data[: at[1]] + data[at[2] : at[3]] + data[at[1] : at[2]] + data[at[3] :]
    ),
    "END in the middle": lambda data, at: data[: at[2]] + data[at[-1] :] + data[at[2] : at[-1]],
    "after END": lambda data, at: data + b"\0",
    "no END": lambda data, at: data[: at[-1]],
    "cut in a record": lambda data, at: data[:-3],
    "cut in the header": lambda data, at: data[: at[0] - 3],
    "record twice": lambda data, at: data[: at[2]] + data[at[1] :],
}


WORDS = {
    "type": "unknown record",
    "length": "a length that the format does not allow",
    "length of END": "a length that the format does not allow",
    "cut in the header": "file ends inside its header",
    "after END": "no record stands",
    "no END": "file does not end as CLOSED",
}


@pytest.mark.parametrize("kind", FRAMING)
def test_framing_is_checked_though_the_desk_signed_it(
    built: Built, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is what the manifest says, but no EVF1 segment that it could be."""
    path = built.segment(SEGMENT)
    with path.open("rb") as stream:
        starts = [record.offset_bytes for record in scan_segment(stream).records]
    renew(built, SEGMENT, FRAMING[kind](path.read_bytes(), starts))
    said = Said(built, capsys)
    assert said.code == 1
    assert f"{SEGMENT}: records: {WORDS.get(kind, '')}" in said.last


def test_outcome_must_be_the_files(built: Built, capsys: pytest.CaptureFixture[str]) -> None:
    renew(built, SEGMENT, built.segment(SEGMENT).read_bytes(), outcome="OPEN_ENDED")
    assert f"{SEGMENT}: records" in Said(built, capsys).last


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


@pytest.mark.parametrize("leaves", [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 33])
def test_merkle_root_is_the_products(leaves: int) -> None:
    hashes = [hashlib.sha256(bytes([number])).digest() for number in range(leaves)]
    assert VERIFIER.merkle_root(hashes) == root_of(hashes)


@pytest.mark.parametrize("name", ["room-ca.pem", "controller.pub"])
@pytest.mark.parametrize("content", [None, b"", b"zz\n", b"\xff" * 200])
def test_unusable_trust_file_is_exit_code_2(
    built: Built, name: str, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = built.config.parent / "trust" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert VERIFIER.main(arguments(built)) == 2
    assert capsys.readouterr().out.startswith("session was not checked: ")


def test_no_session_is_exit_code_2(built: Built, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (built.folder.parent, built.folder / "nowhere", built.config):
        assert Said(replace(built, folder=folder), capsys).code == 2


def test_runs_without_the_product(built: Built, tmp_path: Path) -> None:
    """`python -I -S`, and beside the standard library only cryptography and what it is built on."""
    alone = tmp_path / "packages"
    alone.mkdir()
    site = Path(importlib.util.find_spec("cryptography").origin).parents[1]  # type: ignore[union-attr,arg-type]
    wanted = [
        path for path in site.iterdir() if re.fullmatch(r"cryptography|cffi|_cffi_backend.*\.so", path.name)
    ]
    for path in wanted:
        (alone / path.name).symlink_to(path)

    def run(last: list[str]) -> tuple[int, str]:
        command = [sys.executable, "-I", "-S", "-c", ALONE, str(alone), str(SCRIPT), *last]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
        imported = set(done.stderr.split())
        assert imported <= {"cryptography", "cffi", "_cffi_backend", "_openssl", "__main__"}, done.stderr
        assert "cryptography" in imported
        return done.returncode, done.stdout.splitlines()[-1]

    assert run(arguments(built)) == (0, "session is whole: 00:00:00-00:00:54")
    path = built.segment("1-video-0.evf")
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    code, last = run(arguments(built))
    assert code == 1
    assert last.startswith(
        "session is not whole: 00:00:42-00:00:48  1-video-0.evf: size, SHA-256: file was altered"
    )
    assert "appliance" not in SCRIPT.read_text()
