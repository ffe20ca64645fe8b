"""Keys wrapped anew: who opens afterwards, what verifies, and what is told from tampering (F083)."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance.archive import rewrapping
from appliance.archive.cli import app
from appliance.archive.opening import LoneKeys, write_lone_segment
from appliance.archive.wrap_places import FolderPlace
from appliance.config import ArchiveConfig, load_config
from appliance.errors import ApplianceError, BadInput, EvidenceBroken, NotTrusted
from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import BadSignature, BadWrap, EvfError
from appliance.evf.keys import EpochKey
from appliance.evf.recipients import sign_recipient_set
from appliance.evf.rewraps import Replaced, sign_rewrap, verify_rewrap
from appliance.evf.signed import sign_document
from appliance.evf.wraps import open_wrap, read_wrap, wrap_epoch_key
from appliance.evidence.manifest import WrapEntry
from tests.rewraps import openers, recipient_set, rewrap, task, trust_of, verified, write_set
from tests.sessions import (
    SID,
    Built,
    Plan,
    Room,
    build_session,
    default_room,
    key_file,
    observation,
    representative,
)
from tests.unit.test_stand_alone_verifier import load_script

VERIFIER = load_script()
ROOT = default_room().root_key.public_key()
LOG = (observation(1, "nobody_at_desk", 2, 8, "red"),)


@pytest.fixture
def built(tmp_path: Path) -> Built:
    """Recorded for persons 1 and 2, recipient set 2."""
    return build_session(tmp_path, Plan(recipients=(1, 2), observations=LOG))


def files(built: Built) -> dict[str, str]:
    return {
        path.relative_to(built.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in built.folder.rglob("*.*")
    }


def rewrap_file(built: Built, version: int) -> Path:
    return built.folder / "wraps" / f"{SID}.r{version}.evk"


def test_added_representative_opens_and_nothing_else_changes(built: Built) -> None:
    before = files(built)
    assert openers(built) == {1, 2}
    done = rewrap(built, recipient_set(3, 1, 2, 3))
    assert (done.written, done.erased) == (True, ())
    assert openers(built) == {1, 2, 3}
    after = files(built)
    assert after.pop(f"wraps/{SID}.r3.evk")
    assert after == before
    assert any(
        "keys re-wrapped for recipient set 3 (person 1, person 2, person 3)" in line
        for line in verified(built)
    )


def test_removed_representative_opens_no_more(built: Built) -> None:
    """Control: before, and from a copy taken before, the same key opens."""
    copy = built.folder.with_name("copy")
    shutil.copytree(built.folder, copy)
    before = files(built)
    assert openers(built) == {1, 2}
    done = rewrap(built, recipient_set(3, 1))
    assert set(done.erased) == {wrap.name for wrap in built.manifest.wraps}
    assert openers(built) == {1}
    assert openers(built, copy) == {1, 2}  # what a removal cannot do
    # nothing in the folder is sealed for the key that was removed
    for path in (built.folder / "wraps").iterdir():
        with pytest.raises((BadWrap, BadSignature)):
            open_wrap(path.read_bytes(), representative(2), None)
        for context, wraps in verify_rewrap(path.read_bytes(), ROOT).keys:
            assert set(wraps) == {representative(1).kid}, context
    assert {name: sha for name, sha in files(built).items() if name.startswith("segments/")} == {
        name: sha for name, sha in before.items() if name.startswith("segments/")
    }
    lines = verified(built)
    assert any("by person 1 on 20" in line and representative(2).kid[:8] in line for line in lines)
    assert sum("erased when" in line for line in lines) == len(built.manifest.wraps)


def test_rotated_key_takes_over(built: Built) -> None:
    """The old key opens for the last time, the new one signs; the old one is out afterwards."""
    with pytest.raises(BadInput, match="must stand in the recipient set"):
        rewrap(built, recipient_set(3, 4, 2), opener=1)
    done = rewrap(built, recipient_set(3, 4, 2), opener=1, signer=4)
    assert done.rewrap is not None
    assert done.rewrap.by.name == "person 4"
    assert done.rewrap.removed == (representative(1).kid,)
    assert openers(built) == {2, 4}
    verified(built)


def test_again_and_again(built: Built) -> None:
    rewrap(built, recipient_set(3, 1, 2, 3))
    first = files(built)
    assert rewrap(built, recipient_set(3, 1, 2, 3)).written is False
    assert files(built) == first
    done = rewrap(built, recipient_set(4, 3), opener=3)  # 3 was never in a desk's wrap
    assert done.rewrap is not None
    assert set(done.rewrap.removed) == {representative(1).kid, representative(2).kid}
    assert openers(built) == {3}
    assert sorted(path.name for path in (built.folder / "wraps").iterdir()) == [f"{SID}.r4.evk"]
    done = rewrap(built, recipient_set(5, 3, 1), opener=3)
    assert openers(built) == {1, 3}
    assert done.erased == ()
    verified(built)


def test_recorded_for_this_very_set(built: Built) -> None:
    before = files(built)
    assert rewrap(built, recipient_set(2, 1, 2)).rewrap is None
    assert files(built) == before


@pytest.mark.parametrize(
    ("version", "people", "words"),
    [(1, (1, 2), "is older than 2"), (3, (1, 2), "is older than 4"), (4, (1, 2), "another recipient set 4")],
)
def test_older_or_second_set_of_a_version_is_refused(
    built: Built, version: int, people: tuple[int, ...], words: str
) -> None:
    if version > 2:
        rewrap(built, recipient_set(4, 1, 3))
    before = files(built)
    with pytest.raises(BadInput, match=words):
        rewrap(built, recipient_set(version, *people))
    assert files(built) == before


def test_who_opens_nothing_wraps_nothing(built: Built) -> None:
    before = files(built)
    with pytest.raises(NotTrusted, match="is not among its recipients: person 1, person 2"):
        rewrap(built, recipient_set(3, 1, 3), opener=3)
    assert files(built) == before


def test_lone_segment_opens_with_the_newest_wrap(built: Built, tmp_path: Path) -> None:
    rewrap(built, recipient_set(3, 1, 3))
    trust, name = trust_of(built), "0-video-0.evf"
    with (tmp_path / "one.mp4").open("wb") as out:
        keys = LoneKeys(built.segment(name), representative(3), trust)
        assert write_lone_segment(built.segment(name), keys, out, lambda _count: None).fragments == 3
    other = LoneKeys(built.segment(name), representative(2), trust)
    with (tmp_path / "two.mp4").open("wb") as out, pytest.raises(NotTrusted, match=r"person 1 .*, person 3 "):
        write_lone_segment(built.segment(name), other, out, lambda _count: None)


# --- told from tampering ---------------------------------------------------------------------------------------------


def broken(built: Built) -> str:
    with pytest.raises(EvidenceBroken) as caught:
        verified(built)
    return str(caught.value)


def test_missing_wraps_are_missed_unless_a_signed_word_stands_for_them(built: Built) -> None:
    wrap = built.wrap()
    rewrap(built, recipient_set(3, 1, 2, 3))
    wrap.unlink()  # an addition erases nothing, so this was somebody else
    assert broken(built).endswith("file is missing")


def test_without_the_rewrap_the_erased_wraps_are_missed(built: Built) -> None:
    rewrap(built, recipient_set(3, 1))
    verified(built)
    rewrap_file(built, 3).unlink()
    assert "file is missing; and 3 more" in broken(built)


def test_every_flipped_byte_of_a_rewrap_is_refused(built: Built) -> None:
    rewrap(built, recipient_set(3, 1))
    path = rewrap_file(built, 3)
    whole = path.read_bytes()
    for offset in range(0, len(whole), 499):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        assert f"{SID}." in broken(built)
    path.write_bytes(whole)
    verified(built)


def changed(built: Built, **changes: Any) -> bytes:
    """The re-wrap of set 3 with another body, signed again by person 1."""
    body = json.loads(rewrap_file(built, 3).read_bytes())["body"]
    return canonical(sign_document("rewrap", body | changes, representative(1).signing_key()))


def of_another_root(built: Built) -> bytes:
    return changed(built, recipient_set=sign_recipient_set(recipient_set(3, 1), Room().root_key))


def by_a_stranger(built: Built) -> bytes:
    body = json.loads(rewrap_file(built, 3).read_bytes())["body"]
    return canonical(sign_document("rewrap", body, representative(4).signing_key()))


FORGED: dict[str, tuple[Callable[[Built], bytes], str]] = {
    "set of another root": (of_another_root, "signed by another key"),
    "signed by nobody in the set": (by_a_stranger, "signed by nobody of its recipient set"),
    "for another session": (lambda built: changed(built, sid="ab" * 16), "of another session"),
    "replaces other bytes": (
        lambda built: changed(
            built,
            replaces=[
                {"name": wrap.name, "sha256": "00" * 32, "erased": True} for wrap in built.manifest.wraps
            ],
        ),
        "does not replace the wraps that the manifest names",
    ),
    "replaces nothing": (lambda built: changed(built, replaces=[]), "does not replace"),
    "a key is left out": (
        lambda built: changed(built, keys=json.loads(rewrap_file(built, 3).read_bytes())["body"]["keys"][1:]),
        "holds other keys than the session has",
    ),
    "another format": (lambda built: changed(built, v=2), "version is not 1"),
    "more than the format has": (lambda built: changed(built, more=1), "unknown or missing keys"),
    "no document": (lambda _built: b"{}", "unknown or missing keys"),
}


@pytest.mark.parametrize("how", FORGED)
def test_forged_rewrap_is_told_and_stands_for_nothing(built: Built, how: str) -> None:
    """Neither for erased wraps nor beside the whole ones; and it is never built upon."""
    forge, words = FORGED[how]
    copy = built.folder.with_name("copy")
    shutil.copytree(built.folder, copy)
    rewrap(built, recipient_set(3, 1))
    forged = forge(built)
    rewrap_file(built, 3).write_bytes(forged)
    assert "file is missing" in broken(built)
    whole = replace(built, folder=copy)
    verified(whole)
    rewrap_file(whole, 3).write_bytes(forged)
    said = broken(whole)
    assert said.startswith(f"{SID}.r3.evk")
    assert words in said
    with pytest.raises(EvidenceBroken, match="is no re-wrap of this session"):
        rewrap(whole, recipient_set(4, 1))
    assert openers(whole) == {1, 2}


def test_rewrap_under_another_name_is_told(built: Built) -> None:
    rewrap(built, recipient_set(3, 1))
    rewrap_file(built, 3).rename(rewrap_file(built, 9))
    assert "file is missing" in broken(built)


def test_wrong_key_is_never_wrapped_nor_believed(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """A representative who seals something else: nothing is erased, since the segments do not open with it."""
    for context in (True, False):
        work = task(built, recipient_set(3, 1))
        if context:  # what is unwrapped is held against a segment before it is wrapped
            with monkeypatch.context() as patch:
                patch.setattr(rewrapping, "open_sealed", lambda *_: EpochKey.generate())
                with pytest.raises(EvidenceBroken, match="does not open with its wrapped key"):
                    rewrapping.rewrap_session(built.manifest, FolderPlace(built.folder), work)
            assert not rewrap_file(built, 3).exists()
            continue
        rewrap(built, work.recipients)  # and what lies there is held against one before anything is erased
        good = verify_rewrap(rewrap_file(built, 3).read_bytes(), ROOT)
        keys = [(found, EpochKey.generate()) for found, _ in good.keys]
        bad = sign_rewrap(
            keys, work.document, work.recipients, good.replaces, good.removed, good.at, work.signer
        )
        rewrap_file(built, 3).write_bytes(bad)
        with pytest.raises(EvidenceBroken, match="does not open with its wrapped key"):
            rewrap(built, work.recipients)


def test_keys_are_erased_whatever_happens(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[EpochKey] = []
    create = EpochKey.__init__

    def remember(self: EpochKey, secret: bytes) -> None:
        create(self, secret)
        made.append(self)

    monkeypatch.setattr(EpochKey, "__init__", remember)
    rewrap(built, recipient_set(3, 1, 3))
    with pytest.raises(BadInput):
        rewrap(built, recipient_set(4, 3), opener=1)  # the signer is not in the set
    assert len(made) == 4 + 4 + 4  # unwrapped, proven; unwrapped again
    assert not any(any(key._secret) for key in made)


def test_malformed_pieces_are_refused_by_name() -> None:
    for bad in (
        lambda: Replaced("x", "00" * 32, True),
        lambda: Replaced(f"{SID}.r1.evk", "00", True),
        lambda: Replaced(f"{SID}.r1.evk", "00" * 32, 1),  # type: ignore[arg-type]
    ):
        with pytest.raises(EvfError):
            bad()


# --- the one-file verifier says the same -----------------------------------------------------------------------------


def stand_alone(built: Built, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    trust = built.config.parent / "trust"
    given = [
        str(built.folder),
        "--room-ca",
        str(trust / "room-ca.pem"),
        "--controller",
        str(trust / "controller.pub"),
    ]
    capsys.readouterr()
    return VERIFIER.main([*given, *(more or ("--root", str(trust / "root.pub")))]), capsys.readouterr().out


def test_stand_alone_verifier_knows_what_was_erased_on_purpose(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrap(built, recipient_set(3, 1, 2, 3))
    rewrap(built, recipient_set(4, 1, 3), opener=3)
    code, said = stand_alone(built, capsys)
    assert (code, said.splitlines()[-1]) == (0, "session is whole: 00:00:00-00:00:54")
    kid = representative(2).kid[:8]
    assert "for recipient set 4 (person 1, person 3) by person 3 on 2026-" in said
    assert f"removed: key {kid}" in said
    assert said.count("erased when it was replaced") == len(built.manifest.wraps)
    code, said = stand_alone(built, capsys, "--institution", "uni-x")
    assert code == 1
    assert "cannot be checked without --root" in said
    rewrap_file(built, 4).unlink()
    code, said = stand_alone(built, capsys)
    assert code == 1
    assert "file is missing; and 3 more" in said.splitlines()[-1]


@pytest.mark.parametrize("how", FORGED)
def test_stand_alone_verifier_tells_forged_rewraps(
    built: Built, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    copy = built.folder.with_name("copy")
    shutil.copytree(built.folder, copy)
    rewrap(built, recipient_set(3, 1))
    assert stand_alone(built, capsys)[0] == 0
    forged = FORGED[how][0](built)
    for one in (built, replace(built, folder=copy)):
        rewrap_file(one, 3).write_bytes(forged)
        code, said = stand_alone(one, capsys)
        assert code == 1
        assert f"{SID}.r3.evk  is no re-wrap of this session" in said
        assert broken(one).partition(" (")[0] in said.splitlines()[-1]


# --- the command -----------------------------------------------------------------------------------------------------


def invigil(built: Built, *arguments: object) -> subprocess.CompletedProcess[str]:
    code = "import sys; from appliance import cli; sys.exit(cli.main())"
    command = [sys.executable, "-c", code, "archive", *(str(part) for part in arguments)]
    return subprocess.run(
        [*command, "--config", str(built.config)], capture_output=True, text=True, timeout=60, check=False
    )


def test_command_goes_through_a_folder_of_sessions(built: Built, tmp_path: Path) -> None:
    other = built.folder.with_name("ab" * 16)
    shutil.copytree(built.folder, other)
    (other / "wraps" / built.manifest.wraps[0].name).unlink()
    signed = write_set(tmp_path / "recipient-set.3.json", recipient_set(3, 4))
    (tmp_path / "four.key").write_bytes(key_file(4))
    keys = ("--key", built.key, "--passphrase-file", built.passphrase)
    more = ("--signer", tmp_path / "four.key", "--signer-passphrase-file", built.passphrase)
    done = invigil(built, "rewrap", built.folder.parent, "--set", signed, *keys, *more)
    assert done.returncode == 7
    assert f"{built.folder}: keys re-wrapped for recipient set 3 (person 4) by person 4 on " in done.stdout
    assert "4 earlier wraps erased" in done.stdout
    assert "1 sessions were not done; the first, " in done.stderr
    assert openers(built) == {4}
    arguments = built.arguments("open", "--out", tmp_path / "exam.mp4")
    arguments[arguments.index(str(built.key))] = str(tmp_path / "four.key")
    opened = CliRunner().invoke(app, arguments)
    assert opened.exit_code == 0, opened.exception
    assert "note: keys re-wrapped for recipient set 3 (person 4) by person 4 on " in opened.output
    assert (tmp_path / "exam.mp4").read_bytes() == built.film.read_bytes()


def test_set_and_signer_must_fit(built: Built, tmp_path: Path) -> None:
    settings = load_config(built.config, ArchiveConfig)
    path = tmp_path / "set.json"
    write_set(path, recipient_set(3, 4))
    with pytest.raises(BadInput, match="does not stand in recipient set 3"):
        rewrapping.load_task(path, settings, representative(1), None)
    assert rewrapping.load_task(path, settings, representative(1), representative(4)).signer.kid
    write_set(path, recipient_set(3, 4), Room().root_key)
    with pytest.raises(NotTrusted, match="signed by another key"):
        rewrapping.load_task(path, settings, representative(4), None)
    write_set(path, replace(recipient_set(3, 4), institution="other"))
    with pytest.raises(BadInput, match="institution other's"):
        rewrapping.load_task(path, settings, representative(4), None)
    path.write_text("{}")
    with pytest.raises(NotTrusted):
        rewrapping.load_task(path, settings, representative(4), None)


@pytest.mark.parametrize("arguments", [(), ("FOLDER", "--storage")])
def test_either_a_folder_or_the_storage(built: Built, arguments: tuple[str, ...]) -> None:
    parts = ["rewrap", *arguments, "--set", "x", "--key", "y"]
    result = CliRunner().invoke(app, parts)
    assert isinstance(result.exception, ApplianceError)
    assert "either a folder or --storage" in str(result.exception)


def test_canonical_form_is_asked_for(built: Built) -> None:
    rewrap(built, recipient_set(3, 1))
    data = rewrap_file(built, 3).read_bytes()
    assert parse_canonical(data)
    with pytest.raises(BadWrap):
        verify_rewrap(data + b"\n", ROOT)


# --- hostile, though correctly signed --------------------------------------------------------------------------------


ODD = (None, True, False, -1, 2**70, "", "\u00e4\n", [], {}, [[]], [{}], {"a": 1})


def spots(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from spots(item, (*path, name))


def with_value(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(body))
    target = copy
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    return copy


def test_anything_at_any_place_of_a_signed_rewrap_is_judged_and_never_crashes(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a dishonest colleague in the set could sign: both verifiers agree on every variant."""
    rewrap(built, recipient_set(3, 1, 2, 3))
    body = json.loads(rewrap_file(built, 3).read_bytes())["body"]
    outcomes: Counter[int] = Counter()
    for number, (path, value) in enumerate(itertools.product(spots(body), ODD)):
        if (
            not path
            or (path[0] == "recipient_set" and len(path) > 2)
            or (path[0] == "keys" and path[1:2] > (0,))
        ):
            continue  # a set inside is the root's, and one key stands for all
        data = canonical(
            sign_document("rewrap", with_value(body, path, value), representative(1).signing_key())
        )
        with contextlib.suppress(BadWrap, BadSignature):
            verify_rewrap(data, ROOT)
        if number % 17 == 0:
            rewrap_file(built, 3).write_bytes(data)
            code, said = stand_alone(built, capsys)
            outcomes[code] += 1
            if code:
                assert f"{SID}.r3.evk  is no re-wrap of this session" in said, (path, value)
                assert broken(built).startswith(f"{SID}.r3.evk"), (path, value)
            else:
                verified(built)
    assert outcomes[1] > 20


def test_epochs_that_were_sealed_for_different_sets(built: Built) -> None:
    """The desk got set 3 in the middle of the session: the next epoch is sealed for it; then person 2 leaves."""
    wraps = list(built.manifest.wraps)
    for place, cls in ((2, "media"), (3, "log")):
        old = open_wrap((built.folder / "wraps" / wraps[place].name).read_bytes(), representative(1), None)
        context, _ = read_wrap((built.folder / "wraps" / wraps[place].name).read_bytes(), None)
        assert (context.epoch, context.cls) == (1, cls)
        newer = replace(context, recipient_set_version=3)
        evk = wrap_epoch_key(old, newer, recipient_set(3, 1, 3), built.room.device_key)
        (built.folder / "wraps" / wraps[place].name).write_bytes(evk)
        wraps[place] = WrapEntry(wraps[place].name, hashlib.sha256(evk).hexdigest(), len(evk))
    built.rewrite(wraps=tuple(wraps))
    built = replace(built, manifest=replace(built.manifest, wraps=tuple(wraps)))
    with pytest.raises(BadInput, match="is older than 3"):
        rewrap(built, recipient_set(2, 1, 2))
    done = rewrap(built, recipient_set(3, 1, 3))
    assert set(done.erased) == {wraps[0].name, wraps[1].name}  # the others hold nobody who left
    assert openers(built) == {1, 3}
    verified(built)
