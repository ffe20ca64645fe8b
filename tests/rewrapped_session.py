"""A session for two persons, its re-wraps as somebody may forge them, and what both verifiers say of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import EvidenceBroken
from appliance.evf.canonical import canonical
from appliance.evf.recipients import sign_recipient_set
from appliance.evf.signed import sign_document
from tests.both_verifiers import VERIFIER, arguments_of_trust
from tests.rewraps import recipient_set, verified
from tests.sessions import SID, Built, Plan, Room, build_session, default_room, observation, representative

LOG = (observation(1, "nobody_at_desk", 2, 8, "red"),)
ROOT = default_room().root_key.public_key()


@pytest.fixture
def built(tmp_path: Path) -> Built:
    """Recorded for persons 1 and 2, recipient set 2."""
    return build_session(tmp_path, Plan(recipients=(1, 2), observations=LOG))


def rewrap_file(built: Built, version: int) -> Path:
    return built.folder / "wraps" / f"{SID}.r{version}.evk"


def broken(built: Built) -> str:
    with pytest.raises(EvidenceBroken) as caught:
        verified(built)
    return str(caught.value)


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


def stand_alone(built: Built, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    """Exit code and output of the one-file verifier; with the institution's root unless `more` says otherwise."""
    root = built.config.parent / "trust" / "root.pub"
    capsys.readouterr()
    code = VERIFIER.main([*arguments_of_trust(built), *(more or ("--root", str(root)))])
    return code, capsys.readouterr().out
