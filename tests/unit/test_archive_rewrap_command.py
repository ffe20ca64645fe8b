"""`invigil archive rewrap`: a folder of sessions, and the set and signer that must fit (F083)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance.archive import rewrapping
from appliance.archive.cli import app
from appliance.config import ArchiveConfig, load_config
from appliance.errors import ApplianceError, BadInput, NotTrusted
from tests.rewrapped_session import built
from tests.rewraps import openers, recipient_set, write_set
from tests.sessions import Built, Room, key_file, representative

__all__ = ["built"]


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
