"""Which archive.toml is meant when none is named: the working directory's, else the user's own.

Never one that lies with a session: whoever hands over a folder would choose the keys that it is checked against.
"""

from __future__ import annotations

from pathlib import Path

from appliance.errors import BadConfig

CONFIG_NAME = "archive.toml"


def find_config(given: Path | None, working: Path, home: Path) -> Path:
    """The file that is named, or the first one found; BadConfig where nothing is found.

    A file that is named need not exist: loading it says so.
    """
    if given is not None:
        return given
    own = home / ".config" / "invigil" / CONFIG_NAME
    for path in (working / CONFIG_NAME, own):
        if path.is_file():
            return path
    raise BadConfig(
        f"no {CONFIG_NAME} in {working}, and no {own}", f"name the institution's {CONFIG_NAME} with --config"
    )
