"""`invigil` and its groups: reads arguments, calls one function, prints; everything else stands in the packages.

Imports are inside the commands: `invigil --help` stays quick, and works where an extra is not installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from appliance import __version__
from appliance.errors import ApplianceError, BadInput

if TYPE_CHECKING:
    from appliance.archive.keys import RootKey
    from appliance.evf.errors import EvfError

EXIT_PROBLEMS_FOUND = 7  # as EvidenceBroken


class NodeService(StrEnum):
    """The processes of a node, each `appliance.<name>.process`."""

    CAMERA = "camera"
    INFERENCE = "inference"
    SYNC = "sync"


def _group(text: str) -> typer.Typer:
    return typer.Typer(
        help=text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


app = _group("Invigil: recording and observations for exam rooms; nothing leaves before a proctor approves.")
keys = _group("The institution's keys, made and kept offline.")
policy = _group("The institution's signed exam policy.")
store = _group("A desk node's store.")
room = _group("The room controller.")
account = _group("Staff accounts of the dashboard.")
for parent, child, name in (
    (app, keys, "keys"),
    (app, policy, "policy"),
    (app, store, "store"),
    (app, room, "room"),
    (room, account, "account"),
):
    parent.add_typer(child, name=name)

Out = Annotated[Path, typer.Option("--out", help="folder to write into; made if missing")]
OutFile = Annotated[Path, typer.Option("--out", help="file to write")]
Root = Annotated[Path, typer.Option("--root", help="root.key of the institution")]
RootPublic = Annotated[Path, typer.Option("--root-key", help="root.pub of the institution")]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="read the passphrase from a file instead of asking")
]
Institution = Annotated[str, typer.Option("--institution", help="the institution's name, as in its policies")]
NodeToml = Annotated[Path, typer.Option("--config", help="node.toml, as provision desk wrote it")]
RoomToml = Annotated[Path, typer.Option("--config", help="room.toml, the controller's settings")]

# their own typer app reads these arguments, --help too, and is imported only then
_PASSED_ON: dict[str, Any] = {
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
}


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"invigil {__version__}")
        raise typer.Exit


@app.callback()
def _invigil(
    version: Annotated[
        bool,
        typer.Option("--version", help="print the version and exit", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Holds the options of `invigil` itself."""


# --- keys and policy: the institution, offline ----------------------------------------------------------------------


@keys.command("root")
def keys_root(out: Out, institution: Institution, passphrase_file: PassphraseFile = None) -> None:
    """Make the institution's offline root key. It signs policies and recipient sets."""
    from appliance.archive.keys import create_root

    path = create_root(out, institution, _secret("passphrase", passphrase_file, twice=True))
    print(
        f"{path}: keep it offline, with a copy in another place\n{out / 'root.pub'}: goes to rooms and desks"
    )


@keys.command("representative")
def keys_representative(
    out: Out,
    name: Annotated[str, typer.Option("--name", help="the person or office that may open recordings")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a representative's key. Only representatives can open recordings."""
    from appliance.archive.keys import create_representative

    person = create_representative(out, name, _secret("passphrase", passphrase_file, twice=True))
    print(f"{out / 'representative.key'}: key {person.kid} of {person.name}; nobody else may have it")
    print(f"{out / 'representative.json'}: goes into the recipient set")


@keys.command("recipient-set")
def keys_recipient_set(
    root: Root,
    institution: Institution,
    representative: Annotated[
        list[Path], typer.Option("--representative", help="representative.json of one person; repeat")
    ],
    version: Annotated[int, typer.Option("--version", min=1, help="1, and one more for each new set")],
    out: OutFile,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign the set of representatives. Desks seal their recordings for these people alone."""
    from appliance.archive.keys import create_recipient_set, read_representative

    people = [read_representative(path) for path in representative]
    document = create_recipient_set(_open_root(root, passphrase_file), institution, people, version)
    _write_document(out, document)
    print(f"{out}: recipient set {version} of {institution}, {len(people)} representatives")


@policy.command("sign")
def policy_sign(
    policy_toml: Annotated[
        Path, typer.Argument(metavar="POLICY.toml", help="docs/operations.md lists its keys")
    ],
    root: Root,
    out: OutFile,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Check an exam policy and sign it with the root key."""
    from appliance.archive.keys import sign_policy_file

    signed, document = sign_policy_file(policy_toml, _open_root(root, passphrase_file))
    _write_document(out, document)
    print(f"{out}: policy {signed.id} version {signed.version}, recordings kept until {signed.retention_end}")


@policy.command("show")
def policy_show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="what policy sign wrote")], root_key: RootPublic
) -> None:
    """Check a signed policy and print what it allows."""
    from appliance.archive.keys import read_policy

    found = read_policy(file, root_key)
    for name, value in found.model_dump(mode="json").items():
        print(f"{name:<14} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    print(f"{'kept until':<14} {found.retention_end}")


# --- node -----------------------------------------------------------------------------------------------------------


@app.command("node")
def run_node(
    service: Annotated[NodeService, typer.Argument(help="each is a process of its own")], config: NodeToml
) -> None:
    """Run a service of a desk node: camera, inference or sync."""
    from appliance.config import NodeConfig, load_config
    from appliance.service import run_service

    settings = load_config(config, NodeConfig)
    with _needs("node"):
        run = import_module(f"appliance.{service.value}.process").run
    raise typer.Exit(run_service(service.value, lambda stop: run(settings, stop)))


@store.command("check")
def store_check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="the folder that `store` in node.toml names")],
) -> None:
    """Compare a store's files with its databases; changes nothing. Exit code 7 when something is wrong."""
    from appliance.store.check import check_store

    if not path.is_dir():
        raise BadInput(f"{path} is not a folder", "give the folder that `store` in node.toml names")
    problems = check_store(path)
    for problem in problems:
        print(f"{problem.where}: {problem.what}")
    if problems:
        raise typer.Exit(EXIT_PROBLEMS_FOUND)
    print(f"{path}: files and databases agree")


@app.command("inspect")
def inspect_files(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="pictures, clips, or folders that hold some")
    ],
    json_lines: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """Show what the models read in pictures and clips."""
    with _needs("node"):
        from appliance.inference.inspect import inspect
    inspect(paths, json_lines)


# --- room -----------------------------------------------------------------------------------------------------------


@room.command("serve")
def room_serve(config: RoomToml) -> None:
    """Run the controller and its dashboard."""
    from appliance.config import RoomConfig, load_config
    from appliance.service import run_service

    settings = load_config(config, RoomConfig)
    with _needs("room"):
        from appliance.room.process import run
    raise typer.Exit(run_service("room", lambda stop: run(settings, stop)))


@room.command("broker")
def room_broker(config: RoomToml) -> None:
    """Run the room's MQTT broker (Mosquitto) in the foreground."""
    from appliance.config import RoomConfig, load_config
    from appliance.room.broker import become_broker

    settings = load_config(config, RoomConfig)
    become_broker(settings, settings.data / "broker")


@account.command("add")
def room_account_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="the name to log in with")],
    config: RoomToml,
    role: Annotated[str, typer.Option("--role", help="staff, proctor or lead")] = "proctor",
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="read the password from a file instead of asking")
    ] = None,
) -> None:
    """Make an account for one person."""
    from appliance.config import RoomConfig, load_config

    settings = load_config(config, RoomConfig)
    with _needs("room"):
        from appliance.room.accounts import add_account
    password = _secret("password", password_file, twice=True)
    settings.data.mkdir(parents=True, exist_ok=True)
    add_account(settings.data / "room.db", name, role, password)
    print(f"account {name} ({role}) can log in now")


# --- groups that stand with what they call --------------------------------------------------------------------------


@app.command("provision", **_PASSED_ON)
def provision(context: typer.Context) -> None:
    """Certificates of a room and bundles for its desks."""
    from provisioning.cli import app as provisioning_app

    provisioning_app(args=context.args, prog_name="invigil provision")


@app.command("archive", **_PASSED_ON)
def archive(context: typer.Context) -> None:
    """The institution's recordings: list, pull, verify, open, report."""
    with _needs("archive"):
        from appliance.archive.cli import app as archive_app
    archive_app(args=context.args, prog_name="invigil archive")


def main() -> int:
    """Entry point: named errors become two lines and a stable exit code, never a traceback."""
    try:
        try:
            app(prog_name="invigil")
        finally:
            sys.stdout.flush()
    except ApplianceError as error:
        return _report(error)
    except BrokenPipeError:  # `invigil … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.filename is None:
            return _report(ApplianceError(reason))
        return _report(
            BadInput(f"cannot use {error.filename}: {reason}", "check the path and its permissions")
        )
    except ValueError as error:
        from appliance.evf.errors import EvfError

        if not isinstance(error, EvfError):
            raise
        return _report(error)
    return 0


def _report(error: ApplianceError | EvfError) -> int:
    from appliance.service import exit_code, print_error

    print_error(error)
    return exit_code(error)


@contextlib.contextmanager
def _needs(extra: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("appliance", "provisioning"):
            raise
        raise ApplianceError(
            f"this command needs the extra '{extra}'", f"pip install 'invigil[{extra}]'"
        ) from error


def _secret(what: str, file: Path | None, *, twice: bool) -> str:
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise BadInput(f"{file} is not text", f"it holds the {what} in one line") from error
    if not sys.stdin.isatty():
        raise BadInput(f"no terminal to ask for the {what} on", f"give --{what}-file")
    from getpass import getpass

    first = getpass(f"{what.capitalize()}: ")
    if twice and getpass(f"{what.capitalize()} again: ") != first:
        raise BadInput(f"the two entries of the {what} differ", "type it again")
    return first


def _open_root(path: Path, passphrase_file: Path | None) -> RootKey:
    from appliance.archive.keys import open_root

    return open_root(path, _secret("passphrase", passphrase_file, twice=False))


def _write_document(path: Path, document: dict[str, object]) -> None:
    from appliance.evf.canonical import canonical

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(canonical(document))


if __name__ == "__main__":
    sys.exit(main())
