"""What all command lines share: how a group looks, and how a passphrase or password is asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from appliance.errors import BadInput
from appliance.reading import read_file

MAX_SECRET_BYTES = 4096


def command_group(text: str) -> typer.Typer:
    """A group of commands with one look: plain text, help where no command is given, errors left to `invigil`."""
    return typer.Typer(
        help=text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def install_hint(extra: str) -> str:
    """How to install what an extra of this package brings."""
    return f"in a checkout of this project: pip install '.[{extra}]'; invigil on PyPI is another one"


def ask_secret(what: str, file: Path | None, *, twice: bool, whose: str = "") -> str:
    """From the file's one line, else asked for on the terminal (`twice`: a new one). Raises BadInput."""
    if file is not None:
        try:
            return read_file(file, MAX_SECRET_BYTES).decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise BadInput(f"{file} is not text", f"it holds the {what} in one line") from error
    if not sys.stdin.isatty():
        raise BadInput(f"no terminal to ask for the {what} on", f"give --{what.replace(' ', '-')}-file")
    from getpass import getpass

    asked = f"{what.capitalize()}{f' of {whose}' if whose else ''}"
    first = getpass(f"{asked}: ")
    if twice and getpass(f"{asked} again: ") != first:
        raise BadInput(f"the two entries of the {what} differ", "type it again")
    return first
