"""Settings of a node, a room and an archive, each one TOML file; an unknown key is refused by name."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import Field, ValidationError

from appliance.errors import BadConfig
from appliance.policy import Code, Strict, first_problem


class NodeTrust(Strict):
    """What provisioning pinned on the node; paths relative to the settings file."""

    room_ca: Path = Path("trust/room-ca.pem")
    device_certificate: Path = Path("trust/device.pem")
    device_key: Path = Path("trust/device.key")
    controller_key: Path = Path("trust/controller.pub")
    root_key: Path = Path("trust/root.pub")
    recipient_set: Path = Path("trust/recipient-set.json")


class NodeConfig(Strict):
    """`node.toml`: one desk node."""

    institution: Code
    room: Code
    desk: Code
    broker_host: str
    broker_port: int = Field(default=8883, ge=1, le=65535)
    broker_tls: bool = Field(default=True, description="off only for the demo's embedded loopback broker")
    store: Path = Path("/var/lib/invigil/store")
    run_dir: Path = Path("/run/invigil")
    camera: str = "v4l2:/dev/video0"
    microphone: str = Field(
        default="alsa:default",
        pattern=r"^(alsa|clip):\S",
        description="alsa:<name as arecord -L says it>; opened only where a policy switches voices on",
    )
    light_pin: int | None = None
    microphone_light_pin: int | None = None
    inference_rate_hz: float = Field(default=5.0, gt=0, le=30)
    inference_cpu_percent: int = Field(default=60, ge=10, le=100, description="of one core, at the most")
    trust: NodeTrust = NodeTrust()


class StorageConfig(Strict):
    """The institution's S3 bucket as the controller reaches it; secrets stand in a file only the controller reads."""

    endpoint: str = Field(pattern=r"^https?://[^/\s]+$")
    region: str
    bucket: str
    credentials: Path = Path("storage-credentials.toml")
    ca: Path | None = None


class RoomTrust(Strict):
    """Keys and certificates of the room controller, made by `invigil provision ca`."""

    room_ca: Path = Path("trust/room-ca.pem")
    broker_certificate: Path = Path("trust/broker.pem")
    broker_key: Path = Path("trust/broker.key")
    controller_certificate: Path = Path("trust/controller.pem")
    controller_tls_key: Path = Path("trust/controller-tls.key")
    signing_key: Path = Path("trust/controller-signing.key")
    root_key: Path = Path("trust/root.pub")
    recipient_set: Path = Path("trust/recipient-set.json")


class Desk(Strict):
    """A seat on the plan: desk id, the label on the table, its place in the room."""

    id: Code
    label: str = Field(max_length=12)
    row: int = Field(default=1, ge=1)
    column: int = Field(default=1, ge=1)


class RoomConfig(Strict):
    """`room.toml`: one room controller."""

    institution: Code
    room: Code
    title: str = Field(default="", max_length=60)
    listen_host: str = "127.0.0.1"
    listen_port: int = Field(default=8443, ge=1, le=65535)
    broker_host: str = "127.0.0.1"
    broker_port: int = Field(default=8883, ge=1, le=65535)
    broker_tls: bool = True
    data: Path = Path("data")
    desks: tuple[Desk, ...] = ()
    storage: StorageConfig | None = None
    trust: RoomTrust = RoomTrust()


class ArchiveConfig(Strict):
    """`archive.toml`: the institution's own tool."""

    institution: Code
    storage: StorageConfig
    room_ca: Path = Path("room-ca.pem")
    controller_key: Path = Path("controller.pub")
    root_key: Path = Path("root.pub")


class StorageCredentials(Strict):
    """An S3 key pair, in a file of its own."""

    access_key_id: str
    secret_access_key: str


AnyConfig = TypeVar("AnyConfig", bound=Strict)


def load_config(path: Path, kind: type[AnyConfig]) -> AnyConfig:
    """Read one settings file; relative paths in it are taken from its own folder.

    Raises BadConfig with the file, the key and a hint.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfig(
            f"cannot read {path}: {(error.strerror or str(error)).lower()}",
            "name the settings file with --config",
        ) from error
    except (ValueError, RecursionError) as error:  # no TOML or UTF-8, or a number or nesting out of measure
        raise BadConfig(
            f"{path} is not TOML: {error}", "each line is key = value; text stands in quotes"
        ) from error
    try:
        config = kind.model_validate(raw)
    except ValidationError as error:
        problem = first_problem(error)
        raise BadConfig(f"{path}: {problem}", f"known keys: {_known_keys(kind, problem)}") from error
    return _anchored(config, path.resolve().parent)


def _known_keys(kind: type[Strict], problem: str) -> str:
    """Of the section that the problem is in: storage's for "unknown key storage.bukket"."""
    *sections, _key = problem.removeprefix("unknown key ").partition(":")[0].split(".")
    for section in sections:
        field = kind.model_fields.get(section)
        inner = [field.annotation, *get_args(field.annotation)] if field is not None else []
        kind = next((each for each in inner if isinstance(each, type) and issubclass(each, Strict)), kind)
    return ", ".join(sorted(kind.model_fields))


def _anchored(config: AnyConfig, folder: Path) -> AnyConfig:
    changes: dict[str, object] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Path):
            changes[name] = folder / value
        elif isinstance(value, Strict):
            changes[name] = _anchored(value, folder)
    return config.model_copy(update=changes)
