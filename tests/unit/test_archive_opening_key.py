"""The key is opened while the session is loaded, and what is wrong is told as if the key had come first."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance.archive.cli import app
from appliance.archive.opening_key import opened_beside
from appliance.errors import BadInput, BadPassphrase, EvidenceBroken
from tests.sessions import PASSPHRASE, Built, build_session, representative


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build_session(tmp_path)


def test_key_is_there_after_the_block(built: Built) -> None:
    with opened_beside(built.key, PASSPHRASE) as opening:
        pass
    assert opening.done()
    assert opening.result().kid == representative(1).kid


@pytest.mark.parametrize("passphrase", ["another passphrase", PASSPHRASE])
def test_wrong_passphrase_is_told_before_a_broken_session(built: Built, passphrase: str) -> None:
    """With the right one, the control, it is the session's own error."""
    expected = EvidenceBroken if passphrase == PASSPHRASE else BadPassphrase
    with pytest.raises(expected), opened_beside(built.key, passphrase):
        raise EvidenceBroken("manifest is malformed")


@pytest.mark.parametrize(
    ("passphrase", "expected"), [("another passphrase", BadPassphrase), (PASSPHRASE, EvidenceBroken)]
)
def test_open_leaves_no_file_whichever_is_wrong(
    built: Built, tmp_path: Path, passphrase: str, expected: type[Exception]
) -> None:
    (built.folder / "manifest.json").write_bytes(b"{}")
    built.passphrase.write_text(passphrase)
    before = sorted(tmp_path.iterdir())
    done = CliRunner().invoke(app, built.arguments("open", "--out", tmp_path / "out.mp4"))
    assert isinstance(done.exception, expected)
    assert sorted(tmp_path.iterdir()) == before


def test_file_that_is_no_key(built: Built) -> None:
    built.key.write_bytes(b"{}")
    with pytest.raises(BadInput, match="representative"), opened_beside(built.key, PASSPHRASE):
        pass
