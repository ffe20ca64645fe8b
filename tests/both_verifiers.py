"""The one-file verifier and `invigil archive verify` on one folder: they must say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config import ArchiveConfig, load_config
from appliance.errors import BadInput, EvidenceBroken
from tests.fuzz.on_evidence import load_verifier
from tests.rewraps import verified
from tests.sessions import Built, Plan, build_session, observation

LOG = (observation(1, "head_turned_away", 3, 5), observation(2, "nobody_at_desk", 44, 46, "red"))
SEGMENT = "0-video-0.evf"
VERIFIER = load_verifier()


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build_session(tmp_path, Plan(observations=LOG))


def arguments_of_trust(built: Built) -> list[str]:
    """The folder, the room's CA and the controller's key: without them there is nothing to check."""
    trust = built.config.parent / "trust"
    return [
        str(built.folder),
        *("--room-ca", str(trust / "room-ca.pem")),
        *("--controller", str(trust / "controller.pub")),
    ]


def arguments(built: Built) -> list[str]:
    """The one-file verifier's command line."""
    institution = load_config(built.config, ArchiveConfig).institution
    return [*arguments_of_trust(built), "--institution", institution]


def product(built: Built) -> tuple[int, str]:
    """(exit code as the one-file verifier would have it, what `invigil archive verify` says)."""
    try:
        verified(built)
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
