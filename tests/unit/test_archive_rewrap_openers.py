"""Keys wrapped anew: who opens afterwards, who no more, and what stays as it was (F083)."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.archive.opening import LoneKeys, write_lone_segment
from appliance.errors import BadInput, NotTrusted
from appliance.evf.errors import BadSignature, BadWrap
from appliance.evf.keys import EpochKey
from appliance.evf.rewraps import verify_rewrap
from appliance.evf.wraps import open_wrap, read_wrap, wrap_epoch_key
from appliance.evidence.manifest import WrapEntry
from tests.rewrapped_session import ROOT, built
from tests.rewraps import openers, recipient_set, rewrap, trust_of, verified
from tests.sessions import SID, Built, representative

__all__ = ["built"]


def files(built: Built) -> dict[str, str]:
    return {
        path.relative_to(built.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in built.folder.rglob("*.*")
    }


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
    """F084. Control: before, and from a copy taken before, the same key opens."""
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
