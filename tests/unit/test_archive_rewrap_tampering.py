"""Keys wrapped anew are told from tampering: what is forged stands for nothing and is never built upon (F083)."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from appliance.archive import rewrapping
from appliance.archive.wrap_places import FolderPlace
from appliance.errors import EvidenceBroken
from appliance.evf.canonical import parse_canonical
from appliance.evf.errors import BadWrap, EvfError
from appliance.evf.keys import EpochKey
from appliance.evf.rewraps import Replaced, sign_rewrap, verify_rewrap
from tests.rewrapped_session import FORGED, ROOT, broken, built, rewrap_file
from tests.rewraps import openers, recipient_set, rewrap, task, verified
from tests.sessions import SID, Built

__all__ = ["built"]


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


def test_malformed_pieces_are_refused_by_name() -> None:
    for bad in (
        lambda: Replaced("x", "00" * 32, True),
        lambda: Replaced(f"{SID}.r1.evk", "00", True),
        lambda: Replaced(f"{SID}.r1.evk", "00" * 32, 1),  # type: ignore[arg-type]
    ):
        with pytest.raises(EvfError):
            bad()


def test_canonical_form_is_asked_for(built: Built) -> None:
    rewrap(built, recipient_set(3, 1))
    data = rewrap_file(built, 3).read_bytes()
    assert parse_canonical(data)
    with pytest.raises(BadWrap):
        verify_rewrap(data + b"\n", ROOT)
