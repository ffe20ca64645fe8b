"""`invigil` and its groups: reads arguments, calls one function, prints; everything else stands in the packages.

Imports are inside the commands: `invigil --help` stays quick, and works where an extra is not installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from appliance import __version__
from appliance.archive.keys_cli import PassphraseFile, Root
from appliance.archive.keys_cli import app as keys
from appliance.command_line import ask_secret, command_group, install_hint
from appliance.errors import ApplianceError, BadInput

if TYPE_CHECKING:
    from appliance.archive.keys import RootKey
    from appliance.evf.errors import EvfError

EXIT_PROBLEMS_FOUND = 7  # as EvidenceBroken


app = command_group(
    "Invigil: recording and observations for exam rooms; nothing leaves before a proctor approves."
)
policy = command_group("The institution's signed exam policy.")
node = command_group("A desk node: its three services, self-test and acceptance.")
store = command_group("A desk node's store.")
room = command_group("The room controller.")
account = command_group("Staff accounts of the dashboard.")
for parent, child, name in (
    (app, keys, "keys"),
    (app, policy, "policy"),
    (app, node, "node"),
    (app, store, "store"),
    (app, room, "room"),
    (room, account, "account"),
):
    parent.add_typer(child, name=name)

OutFile = Annotated[Path, typer.Option("--out", help="file to write")]
RootPublic = Annotated[Path, typer.Option("--root-key", help="root.pub of the institution")]
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


# --- policy: the institution, offline ----------------------------------------------------------------------


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


@node.command("camera")
def node_camera(config: NodeToml) -> None:
    """Run the service that records."""
    _run_node("camera", config)


@node.command("inference")
def node_inference(config: NodeToml) -> None:
    """Run the service that looks for face and gaze."""
    _run_node("inference", config)


@node.command("sync")
def node_sync(config: NodeToml) -> None:
    """Run the service that links the desk to room and storage."""
    _run_node("sync", config)


def _run_node(service: str, config: Path) -> None:
    from appliance.config import NodeConfig, load_config
    from appliance.service import run_service

    settings = load_config(config, NodeConfig)
    with _needs("node"):
        run = import_module(f"appliance.{service}.process").run
    raise typer.Exit(run_service(service, lambda stop: run(settings, stop)))


@node.command("selftest")
def node_selftest() -> None:
    """Compare what each model computes here with its golden numbers.

    Each reads a drawn face. Exit code 7 where they differ.
    """
    with _needs("node"):
        from appliance.inference.selftest import self_test
    report = self_test()
    print(report.in_words(), end="")
    if not report.passed:
        raise typer.Exit(EXIT_PROBLEMS_FOUND)


@node.command("accept")
def node_accept(
    config: NodeToml,
    out: Annotated[Path, typer.Option("--out", help="folder for the report")] = Path(),
    steps: Annotated[str | None, typer.Option("--steps", metavar="3,7", help="only these of the 24")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="begin without waiting for Enter")] = False,
) -> None:
    """Two people act 24 behaviours; report what this desk sees.

    Exit code 7 unless all 24 ran.
    """
    with _needs("node"):
        from appliance.acceptance.desk import accept_here
    if not accept_here(config, out, steps, begin_at_once=yes):
        raise typer.Exit(EXIT_PROBLEMS_FOUND)


@store.command("check")
def store_check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="the folder that `store` in node.toml names")],
    repair: Annotated[
        bool, typer.Option("--repair", help="mend what can be mended; stop the node's services first")
    ] = False,
) -> None:
    """Compare a store's files with its databases. Exit code 7 when something is wrong.

    Changes nothing, unless asked to repair; then no bytes are deleted, and 0 means that nothing is lost.
    """
    from appliance.store.check import check_store

    if not path.is_dir():
        raise BadInput(f"{path} is not a folder", "give the folder that `store` in node.toml names")
    if repair:
        from appliance.clock import SystemClock
        from appliance.store.repair import repair_store

        found = repair_store(path, SystemClock())
        for problem in found.done:
            print(f"repaired: {problem.where}: {problem.what}")
        problems, whole = found.left, found.whole
    else:
        problems = check_store(path)
        whole = not problems
    for problem in problems:
        prefix = "" if not repair else "set aside: " if problem.set_aside else "stays: "
        print(f"{prefix}{problem.where}: {problem.what}")
    if not whole:
        raise typer.Exit(EXIT_PROBLEMS_FOUND)
    print(f"{path}: files and databases agree")


@store.command("salvage")
def store_salvage(
    path: Annotated[
        Path, typer.Argument(metavar="STORE", help="a store, or any folder with .evf and .evk files")
    ],
    out: Annotated[Path, typer.Option("--out", help="empty or new folder on another disk")],
) -> None:
    """Copy out what can be read of a store without its database.

    The store itself is only read.

    Exit code 7 when something is damaged or missing; salvage.txt says what.
    """
    from appliance.clock import SystemClock
    from appliance.store.salvage import salvage_store
    from appliance.store.salvage_report import in_words

    report = salvage_store(path, out, SystemClock())
    print(in_words(report), end="")
    if not report.whole:
        raise typer.Exit(EXIT_PROBLEMS_FOUND)


@app.command("inspect")
def inspect_files(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="pictures, clips, or folders that hold some")
    ],
    json_lines: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="PATH is a folder with labels.csv: counts and errors by group")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="the report as tables in Markdown")] = False,
) -> None:
    """Show what the models read in pictures and clips."""
    if markdown and (json_lines or not report):
        raise BadInput("--markdown is a form of --report, as --json is another", "give --report --markdown")
    with _needs("node"):
        from appliance.inference.inspect import inspect, inspect_labelled
    if report:
        inspect_labelled(paths, "json" if json_lines else "markdown" if markdown else "text")
    else:
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
    password = ask_secret("password", password_file, twice=True)
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
    """The institution's recordings: list, pull, verify, open."""
    with _needs("archive"):
        from appliance.archive.cli import app as archive_app
    archive_app(args=context.args, prog_name="invigil archive")


@app.command("certificate", **_PASSED_ON)
def certificate(context: typer.Context) -> None:
    """Completeness certificates of sessions: check one."""
    from appliance.certificate_cli import app as certificate_app

    certificate_app(args=context.args, prog_name="invigil certificate")


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
        raise ApplianceError(f"this command needs the extra '{extra}'", install_hint(extra)) from error


def _open_root(path: Path, passphrase_file: Path | None) -> RootKey:
    from appliance.archive.keys import open_root

    return open_root(path, ask_secret("passphrase", passphrase_file, twice=False))


def _write_document(path: Path, document: dict[str, object]) -> None:
    from appliance.evf.canonical import canonical

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(canonical(document))


if __name__ == "__main__":
    sys.exit(main())
