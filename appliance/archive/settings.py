"""Which archive.toml is meant when none is named: the working directory's, else one that lies near the session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import BadConfig

CONFIG_NAME = "archive.toml"
KEYS_FOLDER = "keys"
PARENTS = 3  # a segment lies three folders below the one that holds `keys/`


@dataclass(frozen=True)
class ConfigPlace:
    """`searched`: it lies beside the session; say which it is, since whoever made the folder chose what it pins."""

    path: Path
    searched: bool


def find_config(given: Path | None, near: Path | None, working: Path) -> ConfigPlace:
    """The file that is named, or the first one found; `near` is the session's folder or segment, if there is one.

    BadConfig where nothing is found. A file that is named need not exist: loading it says so.
    """
    if given is not None:
        return ConfigPlace(given, False)
    if (working / CONFIG_NAME).is_file():
        return ConfigPlace(working / CONFIG_NAME, False)
    for path in _places(near.resolve()) if near else ():
        if path.is_file():
            return ConfigPlace(path, True)
    where = f", beside {near} and in {KEYS_FOLDER}/ above it" if near else ""
    raise BadConfig(
        f"no {CONFIG_NAME} in {working}{where}", f"name the institution's {CONFIG_NAME} with --config"
    )


def _places(session: Path) -> Iterator[Path]:
    parents = list(session.parents)[:PARENTS]
    if parents:
        yield parents[0] / CONFIG_NAME
    yield from (parent / KEYS_FOLDER / CONFIG_NAME for parent in parents)
