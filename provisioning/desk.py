"""Enrolling a desk: its one Ed25519 key (mutual TLS, checkpoints, manifests), its certificate, its bundle.

The bundle is the only place where the device key exists; it is copied to the node once and then removed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from appliance.clock import Clock
from appliance.config import NodeConfig, load_config
from appliance.errors import BadConfig, BadInput, NotTrusted
from appliance.evf.canonical import canonical
from appliance.evf.errors import EvfError
from appliance.evf.recipients import verify_recipient_set
from appliance.trust import load_document, load_public_key
from provisioning.ca import CA_CERTIFICATE, RESERVED_NAMES, RoomAuthority
from provisioning.certificates import certificate_pem, private_key_pem, public_key_line
from provisioning.files import check_code, refuse_existing, write_file


@dataclass(frozen=True)
class DeskSettings:
    """What a node's `node.toml` says beside the trust files; None leaves the default of `NodeConfig`."""

    desk: str
    institution: str
    broker_host: str
    broker_port: int = 8883
    broker_tls: bool = True
    camera: str | None = None
    store: Path | None = None
    run_dir: Path | None = None


def write_bundle(
    authority: RoomAuthority,
    settings: DeskSettings,
    recipient_set: Path,
    root_key: Path,
    out: Path,
    *,
    replace: bool = False,
    clock: Clock | None = None,
) -> NodeConfig:
    """Write node.toml and trust/ for one desk into `out`; returns the settings as the node will read them.

    Raises BadInput for a name that cannot be used, for another institution's recipient set, and when a bundle
    is there already and `replace` is not given; NotTrusted when the set is not signed by the root key.
    """
    check_code("desk", settings.desk)
    check_code("institution", settings.institution)
    if settings.desk in RESERVED_NAMES:
        raise BadInput(f"desk cannot be called {settings.desk}", "that name is the room controller's own")
    settings_text = node_toml(settings, authority.room)
    trust = out / "trust"
    refuse_existing([out / "node.toml", trust / "device.key"], replace)
    root_public_key = read_root_key(root_key)
    document = verified_recipient_set(recipient_set, root_public_key, settings.institution)
    controller_public_key = (authority.folder / "trust" / "controller.pub").read_bytes()
    pin_institution(authority.folder / "trust", root_public_key, document)

    key = Ed25519PrivateKey.generate()
    certificate = authority.issue(
        settings.desk, key.public_key(), [ExtendedKeyUsageOID.CLIENT_AUTH], clock=clock
    )
    write_file(trust / "room-ca.pem", (authority.folder / CA_CERTIFICATE).read_bytes())
    write_file(trust / "controller.pub", controller_public_key)
    write_file(trust / "root.pub", public_key_line(root_public_key))
    write_file(trust / "recipient-set.json", canonical(document))
    write_file(trust / "device.pem", certificate_pem(certificate))
    write_file(authority.folder / "trust" / "desks" / f"{settings.desk}.pem", certificate_pem(certificate))
    write_file(trust / "device.key", private_key_pem(key), secret=True)
    write_file(out / "node.toml", settings_text.encode())
    return load_config(out / "node.toml", NodeConfig)


def pin_institution(room_trust: Path, root_key: Ed25519PublicKey, recipient_set: dict[str, Any]) -> None:
    """Put root.pub and the recipient set into the room's own trust folder, which goes to the controller.

    Raises NotTrusted for another root key than the room has or an older set: a room has one institution.
    """
    root_path, set_path = room_trust / "root.pub", room_trust / "recipient-set.json"
    if root_path.exists() and read_root_key(root_path) != root_key:
        raise NotTrusted(
            f"{root_path} is another root key",
            "a room has one institution; remove that file only to hand the room over",
        )
    if set_path.exists():
        present = verify_recipient_set(load_document(set_path), root_key, 0)
        verify_recipient_set(recipient_set, root_key, present.version)
    write_file(root_path, public_key_line(root_key))
    write_file(set_path, canonical(recipient_set))


def node_toml(settings: DeskSettings, room: str) -> str:
    """The settings file's text."""
    values: dict[str, str | int | bool] = {
        "institution": settings.institution,
        "room": room,
        "desk": settings.desk,
        "broker_host": settings.broker_host,
        "broker_port": settings.broker_port,
    }
    if not settings.broker_tls:
        values["broker_tls"] = False
    for name in ("camera", "store", "run_dir"):
        value = getattr(settings, name)
        if value is not None:
            values[name] = str(value)
    return "".join(f"{name} = {_toml_value(name, value)}\n" for name, value in values.items())


def read_root_key(path: Path) -> Ed25519PublicKey:
    """The institution's root.pub; raises BadInput."""
    try:
        return load_public_key(path)
    except BadConfig as error:
        raise BadInput(str(error), "give the root.pub that the institution made") from error


def verified_recipient_set(path: Path, root_key: Ed25519PublicKey, institution: str) -> dict[str, Any]:
    """The signed document in `path`, if the root key signed it and it is this institution's."""
    try:
        document = load_document(path)
        found = verify_recipient_set(document, root_key, 0)
    except EvfError as error:
        raise NotTrusted(
            f"{path}: {error}", error.hint or "use a set signed with the institution's root key"
        ) from error
    except BadConfig as error:
        raise BadInput(str(error), "give the file that invigil keys recipient-set wrote") from error
    if found.institution != institution:
        raise BadInput(
            f"{path} belongs to institution {found.institution}, not {institution}",
            "give --institution as the root key's holder spells it",
        )
    return document


def _toml_value(name: str, value: str | int | bool) -> str:
    if isinstance(value, str):
        if not value.isprintable():
            raise BadInput(f"{name} holds a character that cannot be printed", "type it again")
        # a JSON string of printable characters is a TOML basic string
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower()
