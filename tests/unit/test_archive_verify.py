"""What `invigil archive verify` says of a folder: every alteration is named, with the time that it concerns."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner

from appliance.archive.cli import app
from appliance.archive.pulling import _write_small
from appliance.archive.session import LocalSession
from appliance.archive.trust import Trust
from appliance.archive.verify import bytes_to_read, check_files, require_unaltered, require_whole
from appliance.config import ArchiveConfig, load_config
from appliance.errors import ApplianceError, BadConfig, BadInput, EvidenceBroken
from appliance.evf.scan import scan_segment
from appliance.evidence.manifest import LostLeaf
from tests.sessions import SID, Built, Plan, Room, build_session, observation, release

LOG = (observation(1, "head_turned_away", 3, 5), observation(2, "nobody_at_desk", 44, 46, "red"))


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build_session(tmp_path, Plan(observations=LOG))


def load(built: Built) -> LocalSession:
    return LocalSession.load(built.folder, Trust.load(load_config(built.config, ArchiveConfig)))


def verify(built: Built) -> None:
    require_whole(check_files(load(built), lambda _count: None))


def broken(built: Built) -> str:
    with pytest.raises(EvidenceBroken) as caught:
        verify(built)
    assert caught.value.exit_code == 7
    assert caught.value.hint
    return str(caught.value)


def flip(path: Path, offset: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    place = len(data) // 2 if offset is None else offset
    data[place] ^= 1
    path.write_bytes(data)


def test_whole_session_verifies(built: Built) -> None:
    read: list[int] = []
    session = load(built)
    checks = check_files(session, read.append)
    require_whole(checks)
    assert [check.name for check in checks] == [
        "manifest.json",
        "approval.json",
        *("0-video-0.evf", "0-video-1.evf", "0-log-0.evf", "1-video-0.evf", "1-video-1.evf", "1-log-0.evf"),
        *(f"{SID}.{epoch}.{cls}.evk" for epoch in (0, 1) for cls in ("media", "log")),
    ]
    assert sum(read) == bytes_to_read(session)


@pytest.mark.parametrize(
    ("name", "span"),
    [
        ("segments/0-video-0.evf", "00:00:00-00:00:06"),
        ("segments/0-video-1.evf", "00:00:06-00:00:12"),
        ("segments/1-video-1.evf", "00:00:48-00:00:54"),
        ("segments/0-log-0.evf", "00:00:12-00:00:12"),
        (f"wraps/{SID}.0.media.evk", "00:00:00-00:00:12"),
        (f"wraps/{SID}.1.media.evk", "00:00:42-00:00:54"),
        (f"wraps/{SID}.1.log.evk", "00:00:54-00:00:54"),
    ],
)
def test_flipped_bit_is_refused_with_name_and_span(built: Built, name: str, span: str) -> None:
    path = built.folder / name
    flip(path)
    assert broken(built).startswith(f"{path.name} ({span} of the session): file was altered")


@pytest.mark.parametrize("name", ["manifest.json", "approval.json"])
def test_every_flipped_byte_of_a_signed_document_is_refused(built: Built, name: str) -> None:
    path = built.folder / name
    whole = path.read_bytes()
    for offset in range(0, len(whole), 97):
        flip(path, offset)
        assert broken(built).startswith(name)
        path.write_bytes(whole)
    verify(built)


def test_missing_segment(built: Built) -> None:
    built.segment("1-video-0.evf").unlink()
    assert broken(built) == "1-video-0.evf (00:00:42-00:00:48 of the session): file is missing"


def test_missing_wrap(built: Built) -> None:
    built.wrap().unlink()
    assert broken(built) == f"{SID}.0.media.evk (00:00:00-00:00:12 of the session): file is missing"


def test_swapped_segments_are_both_named(built: Built) -> None:
    one, other = built.segment("0-video-0.evf"), built.segment("0-video-1.evf")
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert re.match(r"0-video-0\.evf \(00:00:00-00:00:06 .*; and 1 more$", broken(built))


@pytest.mark.parametrize("name", ["segments/9-video-0.evf", "note.txt", "wraps/.hidden"])
def test_extra_file(built: Built, name: str) -> None:
    (built.folder / name).write_bytes(b"not of this session")
    assert broken(built) == f"{name} (00:00:00-00:00:54 of the session): file is not named in the manifest"


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("where", ["segments", "wraps"])
def test_what_never_ends_in_a_files_place_is_a_missing_file(built: Built, where: str, kind: str) -> None:
    """Somebody else packed the folder: a pipe would keep the reader waiting, /dev/zero reading."""
    name = sorted((built.folder / where).iterdir())[0]
    name.unlink()
    if kind == "pipe":
        os.mkfifo(name)
    else:
        name.symlink_to("/dev/zero")
    said: list[str] = []
    reading = threading.Thread(target=lambda: said.append(broken(built)), daemon=True)
    reading.start()
    reading.join(30)
    assert len(said) == 1
    assert "file is missing" in said[0]


def test_a_pulled_manifest_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that has one is whole: a power cut must not leave it short."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
    _write_small(tmp_path / "manifest.json", b"{}" * 500)
    assert synced == [1000]
    assert (tmp_path / "manifest.json").stat().st_size == 1000


def test_symbolic_link_to_outside_is_an_extra_file(built: Built, tmp_path: Path) -> None:
    (built.folder / "segments" / "more").symlink_to(tmp_path)
    assert broken(built).startswith("segments/more ")


def test_desk_with_a_certificate_of_another_ca(built: Built) -> None:
    stranger = Room()
    chain_pem = (stranger.device_certificate().public_bytes(Encoding.PEM).decode(),)
    built.rewrite(replace(built.room, device_key=stranger.device_key), chain_pem=chain_pem)
    assert "not issued by this room's ca" in broken(built).lower()


def test_manifest_signed_by_another_device_key(built: Built) -> None:
    built.rewrite(replace(built.room, device_key=Room().device_key))
    assert broken(built).startswith("manifest.json: ")


def test_whole_session_of_another_room(tmp_path: Path) -> None:
    """Everything is consistent and correctly signed, by people whom the institution never pinned."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    theirs = build_session(tmp_path / "theirs", room=Room())
    ours = build_session(tmp_path / "ours")
    verify(theirs)
    assert broken(replace(theirs, config=ours.config)).startswith("manifest.json: ")


def test_checkpoint_cosigned_by_another_controller(built: Built) -> None:
    other = replace(built.room, controller_key=Room().controller_key)
    (built.config.parent / "trust" / "controller.pub").write_text(
        other.controller_key.public_key().public_bytes_raw().hex()
    )
    assert "cosignature is of another key" in broken(built)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data, room: release(data, Room().controller_key), "signed by another key"),
        (lambda data, room: release(data + b" ", room.controller_key), "releases another session"),
        (lambda data, room: release(data, room.controller_key, "ab" * 16), "releases another session"),
        (lambda data, room: b"{}", "not a signed document"),
        (lambda data, room: b"", "approval.json: "),
    ],
    ids=["another controller", "another manifest", "another session", "no document", "empty"],
)
def test_approval_must_release_exactly_this_manifest(
    built: Built, spoil: Callable[[bytes, Room], bytes], words: str
) -> None:
    manifest = (built.folder / "manifest.json").read_bytes()
    (built.folder / "approval.json").write_bytes(spoil(manifest, built.room))
    assert words in broken(built)


def test_missing_approval(built: Built) -> None:
    (built.folder / "approval.json").unlink()
    assert broken(built).startswith("approval.json is missing")


def test_manifest_that_names_a_rewritten_segment_fails_at_the_witnessed_root(built: Built) -> None:
    """The desk's own key cannot hide an alteration: the controller's cosignature fixed the root (F111)."""
    name = "0-video-0.evf"
    path = built.segment(name)
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(data)
    segments = tuple(
        replace(entry, sha256=hashlib.sha256(data).hexdigest()) if entry.name == name else entry
        for entry in built.manifest.segments
    )
    built.rewrite(segments=segments)
    assert "do not lead to the witnessed root" in broken(built)


def test_changed_retention_date_is_refused(built: Built) -> None:
    built.rewrite(retain_until="2036-01-01")
    assert "another session, institution, policy or retention date" in broken(built)


def test_session_of_another_institution(built: Built) -> None:
    """F019: the signed manifest names whose it is."""
    built.config.write_text(built.config.read_text().replace('"uni-x"', '"uni-y"'))
    assert "belongs to institution uni-x" in broken(built)


def test_declared_loss_is_no_alteration_but_not_whole(built: Built) -> None:
    """A record lost on the desk's disk is named by the desk itself: opened all the same, never called whole."""
    leaves = built.manifest.leaves
    last = built.manifest.segments[-1]
    path = built.segment(last.name)
    data = path.read_bytes()
    scan_end = _whole_records(path, last.records - 1)
    path.write_bytes(data[:scan_end])
    first = last.leaf_runs[0][0]
    entry = replace(
        last,
        records=last.records - 1,
        leaf_runs=((first, last.records - 1),),
        outcome="OPEN_ENDED",
        size_bytes=scan_end,
        sha256=hashlib.sha256(data[:scan_end]).hexdigest(),
    )
    leaf = LostLeaf(leaves - 1, _last_leaf(data, scan_end), last.name, last.end_90k, "disk could not be read")
    built.rewrite(segments=(*built.manifest.segments[:-1], entry), lost=(leaf,))
    checks = check_files(load(built), lambda _count: None)
    require_unaltered(checks)
    with pytest.raises(EvidenceBroken, match="record was lost on the node: disk could not be read"):
        require_whole(checks)


def test_command_prints_one_line_a_file_and_stops_with_the_named_error(built: Built) -> None:
    runner = CliRunner()
    arguments = ["verify", str(built.folder), "--config", str(built.config)]
    whole = runner.invoke(app, arguments)
    assert whole.exit_code == 0
    assert "ok      00:00:42-00:00:48  1-video-0.evf  5 records" in whole.output
    assert "nothing was altered; recording of 00:00:54, 1 gap" in whole.output
    flip(built.segment("1-video-0.evf"))
    altered = runner.invoke(app, arguments)
    assert isinstance(altered.exception, EvidenceBroken)
    assert "broken  00:00:42-00:00:48  1-video-0.evf  file was altered" in altered.output
    assert "ok      00:00:48-00:00:54  1-video-1.evf" in altered.output


def test_main_command_line_ends_with_two_lines_and_code_7(built: Built) -> None:
    flip(built.segment("1-video-0.evf"))
    command = [
        sys.executable,
        "-m",
        "appliance.cli",
        "archive",
        "verify",
        built.folder,
        "--config",
        built.config,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 7
    error, hint = done.stderr.splitlines()
    assert error.startswith(
        "invigil: error: 1-video-0.evf (00:00:42-00:00:48 of the session): file was altered"
    )
    assert hint.startswith("invigil: hint: pull the session again")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda built: built.config.parent / "nowhere",
        lambda built: built.config,
        lambda built: built.config.parent / "trust",
        lambda built: built.folder.parent,
    ],
    ids=["no folder", "a file", "no session", "folder of sessions"],
)
def test_not_a_session(built: Built, spoil: Callable[[Built], Path]) -> None:
    with pytest.raises(BadInput) as caught:
        load(replace(built, folder=spoil(built)))
    assert caught.value.hint


@pytest.mark.parametrize("name", ["room-ca.pem", "controller.pub", "root.pub"])
@pytest.mark.parametrize("content", [None, b"", b"zz\n", b"\xff" * 200])
def test_unusable_trust_file_is_named(built: Built, name: str, content: bytes | None) -> None:
    path = built.config.parent / "trust" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(ApplianceError, match=re.escape(name)) as caught:
        load(built)
    assert isinstance(caught.value, BadConfig)
    assert caught.value.hint


def _whole_records(path: Path, records: int) -> int:
    with path.open("rb") as stream:
        return scan_segment(stream).records[records].offset_bytes


def _last_leaf(data: bytes, offset: int) -> str:
    return hashlib.sha256(b"\0" + data[offset:]).hexdigest()
