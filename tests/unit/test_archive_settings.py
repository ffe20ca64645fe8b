"""Which archive.toml `invigil archive` takes when none is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.archive.settings import find_config
from appliance.errors import BadConfig


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path


def test_the_named_file_wins(tmp_path: Path) -> None:
    put(tmp_path / "archive.toml")
    named = tmp_path / "other.toml"
    assert find_config(named, tmp_path, tmp_path) == named


def test_the_working_folder_comes_before_the_users_own(tmp_path: Path) -> None:
    own = put(tmp_path / "home" / ".config" / "invigil" / "archive.toml")
    assert find_config(None, tmp_path, tmp_path / "home") == own
    here = put(tmp_path / "archive.toml")
    assert find_config(None, tmp_path, tmp_path / "home") == here


def test_keys_that_come_with_a_session_are_never_taken(tmp_path: Path) -> None:
    """F083: who hands over a folder does not choose what it is checked against."""
    session = tmp_path / "handed-over" / "session"
    for place in (session, session.parent, session.parent / "keys"):
        put(place / "archive.toml")
    with pytest.raises(BadConfig, match=r"no archive.toml in") as missing:
        find_config(None, tmp_path, tmp_path / "home")
    assert "--config" in missing.value.hint
