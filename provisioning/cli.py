"""`invigil provision`: what staff run on their own machine to set up a room and its desks; thin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from appliance.command_line import command_group
from appliance.errors import BadInput
from provisioning.ca import RESERVED_NAMES, create_room, open_authority
from provisioning.desk import DeskSettings, write_bundle
from provisioning.recipients import install_recipient_set
from provisioning.renew import BUNDLE_NAME, renew_certificate

app = command_group("Certificates of a room and bundles for its desks.")

Authority = Annotated[Path, typer.Option("--ca", help="the folder that provision ca wrote")]
Out = Annotated[Path, typer.Option("--out", help="folder to write into; made if missing")]
Replace = Annotated[bool, typer.Option("--replace", help="throw away the keys that are there")]


@app.command("ca")
def provision_ca(
    room_name: Annotated[str, typer.Option("--room", help="the room's name")],
    out: Out,
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host", help="name or address by which desks and browsers reach the controller; repeat"
        ),
    ] = None,
    replace: Replace = False,
) -> None:
    """Make a room's certificate authority. With it come the broker's and the controller's certificates and keys."""
    create_room(out, room_name, host or (), replace=replace)
    typer.echo(
        f"{out / 'trust'}: goes to the controller\n{out / 'ca'}: stays with you; it enrols and revokes desks"
    )


@app.command("desk")
def provision_desk(
    desk: Annotated[str, typer.Argument(metavar="DESK", help="the desk's id, as in room.toml")],
    ca: Authority,
    recipient_set: Annotated[
        Path, typer.Option("--recipient-set", help="recipient-set.json of the institution")
    ],
    root_key: Annotated[Path, typer.Option("--root-key", help="root.pub of the institution")],
    institution: Annotated[str, typer.Option("--institution", help="its name, as in its policies")],
    broker_host: Annotated[str, typer.Option("--broker-host", help="name or address of the room's broker")],
    out: Out,
    broker_port: Annotated[int, typer.Option("--broker-port", min=1, max=65535)] = 8883,
    camera: Annotated[str | None, typer.Option("--camera", help="such as v4l2:/dev/video0")] = None,
    store_folder: Annotated[Path | None, typer.Option("--store", help="where recordings are kept")] = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="folder for sockets and frames, on a tmpfs")
    ] = None,
    no_broker_tls: Annotated[
        bool, typer.Option("--no-broker-tls", help="only for a demo on loopback")
    ] = False,
    replace: Replace = False,
) -> None:
    """Make a desk's key, certificate and bundle. The bundle goes to the node, once."""
    settings = DeskSettings(
        desk=desk,
        institution=institution,
        broker_host=broker_host,
        broker_port=broker_port,
        broker_tls=not no_broker_tls,
        camera=camera,
        store=store_folder,
        run_dir=run_dir,
    )
    write_bundle(open_authority(ca), settings, recipient_set, root_key, out, replace=replace)
    typer.echo(f"{out}: copy it to the node, then remove it here; it holds the desk's only key")


@app.command("renew")
def provision_renew(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a desk's id, controller or broker")],
    ca: Authority,
    out: Annotated[
        Path | None, typer.Option("--out", help="folder for what goes to a desk's node; made if missing")
    ] = None,
) -> None:
    """Two more years for a certificate, over the key that is there."""
    is_desk = name not in RESERVED_NAMES
    if is_desk and out is None:
        raise BadInput("a desk's certificate goes to its node", "give --out and a folder")
    new = renew_certificate(open_authority(ca), name, out if is_desk else None)
    until = f"valid until {new.not_valid_after_utc:%Y-%m-%d}"
    if is_desk and out is not None:
        typer.echo(f"{until}; copy {out / BUNDLE_NAME} to /etc/invigil/trust of {name}, no restart is needed")
        typer.echo(f"copy {ca / 'trust' / 'desks'} to the controller")
    else:
        typer.echo(
            f"{until}; copy {ca / 'trust'} to the controller and restart invigil-broker and invigil-room"
        )


@app.command("recipients")
def provision_recipients(
    recipient_set: Annotated[
        Path, typer.Argument(metavar="SET", help="recipient-set.json of the institution")
    ],
    trust: Annotated[
        Path, typer.Option("--trust", help="the room's trust folder, or on a desk /etc/invigil/trust")
    ],
) -> None:
    """Give a room or a running desk a new recipient set. Desks seal for it from their next session on."""
    found, before = install_recipient_set(recipient_set, trust)
    names = ", ".join(person.name for person in found.representatives)
    typer.echo(f"{trust}: recipient set {found.version} of {found.institution}: {names}")
    if before is not None and before.version < found.version:
        typer.echo(f"it was {before.version}; nothing has to be restarted")


@app.command("revoke")
def provision_revoke(
    desk: Annotated[str, typer.Argument(metavar="DESK", help="the desk's id, as in room.toml")],
    ca: Authority,
) -> None:
    """Revoke every certificate of a desk. For example when its node was stolen."""
    authority = open_authority(ca)
    issued = authority.issued_to(desk)
    if not issued:
        raise BadInput(f"no certificate was issued to {desk}", f"names are in {ca / 'ca' / 'issued'}")
    added = authority.revoke(issued)
    typer.echo(
        f"{added} revoked; copy {ca / 'trust' / 'room-ca.crl'} to the controller and restart invigil-broker"
    )
