"""The one-file verifier says of keys wrapped anew what the product says, forged and hostile ones too (F083)."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from appliance.evf.canonical import canonical
from appliance.evf.errors import BadSignature, BadWrap
from appliance.evf.rewraps import verify_rewrap
from appliance.evf.signed import sign_document
from tests.rewrapped_session import FORGED, ROOT, broken, built, rewrap_file, stand_alone
from tests.rewraps import recipient_set, rewrap, verified
from tests.sessions import SID, Built, representative

__all__ = ["built"]


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
    assert stand_alone(built, capsys)[0] == 0, "the control: as it was made"
    verified(built)
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
