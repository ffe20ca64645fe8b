"""`invigil archive`: list, pull, verify, open, report, rewrap. Thin: what they do stands in `commands.py`.

That is imported inside the commands, which takes a sixth of a second: `open` does it while its key is being opened.
"""

from __future__ import annotations

import atexit
import gc
from pathlib import Path
from typing import Annotated

import typer

from appliance.archive.opening_key import load_representative, opened_beside
from appliance.archive.output import require_free
from appliance.command_line import ask_secret, command_group
from appliance.errors import BadInput
from appliance.evf.recipients import RepresentativeKey
from appliance.hardening import protect_memory

app = command_group("The institution's own tool for its recordings.")

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="archive.toml with the storage and the pinned keys; else the one here, or in ~/.config/invigil",
        show_default=False,
    ),
]
Key = Annotated[Path, typer.Option("--key", help="the representative's key file")]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="read the passphrase from a file instead of asking")
]
Force = Annotated[bool, typer.Option("--force", help="overwrite what is there")]


@app.command("list")
def list_sessions(
    config: Config = None,
    exam: Annotated[str | None, typer.Option(help="only this exam")] = None,
) -> None:
    """List the sessions in the storage. Each is complete, incomplete (still being sent), or its keys are erased."""
    from appliance.archive import commands

    commands.list_sessions(config, exam)


@app.command("pull")
def pull_session(
    sid: Annotated[str, typer.Argument(help="session id, as invigil archive list shows it")],
    out: Annotated[Path, typer.Option("--out", help="folder to put the session's folder in")],
    config: Config = None,
    exam: Annotated[str | None, typer.Option(help="the session's exam, to look there only")] = None,
) -> None:
    """Bring one session from the storage. Started again it goes on where it stopped."""
    from appliance.archive import commands

    commands.pull_session(sid, out, config, exam)


@app.command("verify")
def verify(
    folder: Annotated[Path, typer.Argument(help="folder of one session")], config: Config = None
) -> None:
    """Hold every file against the signed manifest. Needs no key and no storage."""
    from appliance.archive import commands

    commands.verify(folder, config)


@app.command("open")
def open_session(
    session_dir: Annotated[Path, typer.Argument(help="folder of one session, or one .evf file")],
    key: Key,
    out: Annotated[Path, typer.Option("--out", help="MP4 file to write")],
    passphrase_file: PassphraseFile = None,
    events: Annotated[Path | None, typer.Option("--events", help="JSON file for the log")] = None,
    force: Force = False,
    config: Config = None,
) -> None:
    """Open a session with a representative's key. Verifies it first; the film becomes an MP4, the log JSON."""
    lone = session_dir.is_file()
    for target in (out, events) if events else (out,):
        require_free(target, None if lone else session_dir, force)
    if lone:
        from appliance.archive import commands

        commands.open_segment(session_dir, lambda: _key(key, passphrase_file), out, events, config)
        return
    # Python's last collection would free only what ends with the process, and take 0.05 s
    atexit.register(gc.freeze)
    with opened_beside(key, ask_secret("passphrase", passphrase_file, twice=False)) as opening:
        from appliance.archive import commands

        session, trust = commands.loaded(session_dir, config)
    commands.open_session(session, trust, opening.result(), out, events)


@app.command("open-salvaged")
def open_salvaged(
    folder: Annotated[
        Path, typer.Argument(help="sessions/<sid> of a folder that invigil store salvage wrote")
    ],
    key: Key,
    out: Annotated[Path, typer.Option("--out", help="MP4 file to write")],
    passphrase_file: PassphraseFile = None,
    force: Force = False,
    config: Config = None,
) -> None:
    """Open a salvaged session, also round damage. What does not authenticate is left out and named."""
    from appliance.archive import commands

    require_free(out, folder, force)
    commands.open_salvaged(folder, lambda: _key(key, passphrase_file), out, config)


@app.command("report")
def report(
    session_dir: Annotated[Path, typer.Argument(help="folder of one session")],
    key: Key,
    out: Annotated[Path, typer.Option("--out", help="HTML file to write")],
    passphrase_file: PassphraseFile = None,
    force: Force = False,
    config: Config = None,
) -> None:
    """Write one self-contained page for a person. Verifies the session and opens its log first."""
    from appliance.archive import commands

    require_free(out, session_dir, force)
    commands.report(session_dir, config, _key(key, passphrase_file), out)


@app.command("rewrap")
def rewrap(
    set_file: Annotated[Path, typer.Option("--set", help="the institution's newest recipient-set.json")],
    key: Annotated[Path, typer.Option("--key", help="key file that opens the sessions now")],
    folder: Annotated[
        Path | None, typer.Argument(help="folder of one session, or of many", show_default=False)
    ] = None,
    storage: Annotated[bool, typer.Option("--storage", help="all sessions in the storage instead")] = False,
    exam: Annotated[str | None, typer.Option(help="with --storage: only this exam")] = None,
    passphrase_file: PassphraseFile = None,
    signer: Annotated[
        Path | None, typer.Option("--signer", help="key file that stands in the new set, if --key does not")
    ] = None,
    signer_passphrase_file: Annotated[
        Path | None, typer.Option("--signer-passphrase-file", help="its passphrase, in a file")
    ] = None,
    config: Config = None,
) -> None:
    """Wrap the keys of sessions anew for a new recipient set. Erases the wraps of who is no longer in it."""
    if (folder is None) != storage:
        raise BadInput("name either a folder or --storage", "invigil archive rewrap --help")
    from appliance.archive import commands

    def open_keys() -> tuple[RepresentativeKey, RepresentativeKey | None]:
        protect_memory("archive")
        opener = _key(key, passphrase_file)
        return opener, None if signer is None else _key(signer, signer_passphrase_file)

    commands.rewrap(set_file, folder, exam, open_keys, config)


def _key(key: Path, passphrase_file: Path | None) -> RepresentativeKey:
    return load_representative(key, ask_secret("passphrase", passphrase_file, twice=False))
