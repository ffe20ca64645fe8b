"""The room's MQTT broker: writes Mosquitto's settings and starts it; one listener, TLS 1.3, client certificates.

A client's name is its certificate's common name; the ACL gives a desk its own topics and the controller all.
When the broker dies, nodes record on unwitnessed and connect again; retained and queued messages are on disk.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from appliance.config import RoomConfig
from appliance.errors import BadConfig, PortInUse, RoomUnreachable
from appliance.protocol import VERSION, FromNode, ToNode, clock_topic

CONTROLLER_NAME = "controller"
CRL_NAME = "room-ca.crl"  # beside the room's CA certificate
MAX_PACKET_BYTES = 2 << 20  # protocol.MAX_MESSAGE_BYTES and as much again for topic and properties
MAX_QUEUED_MESSAGES = (
    2000  # a controller away for a minute: 200 desks, some checkpoints, observations and states each
)
MAX_QUEUED_BYTES = 64 << 20
# Far above the 60 s that Mosquitto gives a connection before its CONNECT: with exactly `max_keepalive` 2.0.21 may take
# the time for over at once and cut the connection (keepalive.c: the last place of its ring is the one just checked).
MAX_KEEPALIVE_S = 600
START_TIMEOUT_S = 10.0
_POLL_S = 0.05


def broker_config(config: RoomConfig, folder: Path) -> Path:
    """Write mosquitto.conf and its ACL into `folder`; returns the path of mosquitto.conf.

    Raises BadConfig when a certificate, key or list is missing, or when TLS is off.
    """
    if not config.broker_tls:
        raise BadConfig(
            "broker_tls = false is for a demo on one machine",
            "set broker_tls = true, or start the demo's embedded broker",
        )
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    acl = folder / "acl"
    acl.write_text(acl_text(config.room), encoding="utf-8")
    path = folder / "mosquitto.conf"
    path.write_text(_settings(config, folder, acl), encoding="utf-8")
    for private in (path, acl):
        private.chmod(0o600)
    return path


def acl_text(room: str) -> str:
    """Who may read and write what (Mosquitto's ACL file); `%u` is the certificate's common name."""
    root = f"invigil/{VERSION}/{room}"
    lines = [f"user {CONTROLLER_NAME}", f"topic readwrite {root}/#", ""]
    lines += [f"pattern write {root}/%u/{leaf.value}" for leaf in FromNode]
    lines += [f"pattern read {root}/%u/{leaf.value}" for leaf in ToNode]
    lines.append(f"pattern read {clock_topic(room)}")
    return "\n".join(lines) + "\n"


def run_broker(config: RoomConfig, folder: Path) -> subprocess.Popen[bytes]:
    """Start the broker and wait until its port answers; the caller ends the process.

    Raises PortInUse, RoomUnreachable (not installed, or it stopped at once) or BadConfig.
    """
    require_free_port(config.broker_host, config.broker_port)
    return _start([mosquitto_program(), "-c", str(broker_config(config, folder))], config)


def become_broker(config: RoomConfig, folder: Path) -> NoReturn:
    """Replace this process by the broker (for systemd); without `broker_tls` by the demo's. Raises as run_broker."""
    # first: the settings on disk are those of the one that runs
    require_free_port(config.broker_host, config.broker_port)
    if config.broker_tls:
        command = [mosquitto_program(), "-c", str(broker_config(config, folder))]
    else:
        command = _embedded_command(config)
    os.execv(command[0], command)  # noqa: S606  no shell; the program is named above


def embedded_broker(config: RoomConfig) -> subprocess.Popen[bytes]:
    """Start the demo's broker (loopback, no TLS, no ACL: `appliance.room.embedded_broker`), wait for its port."""
    require_free_port(config.broker_host, config.broker_port)
    return _start(_embedded_command(config), config)


def mosquitto_program() -> str:
    """Path of mosquitto; Debian keeps it in /usr/sbin, which is not in every PATH. Raises RoomUnreachable."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise RoomUnreachable("mosquitto is not installed", "apt install mosquitto")
    return found


def require_free_port(host: str, port: int) -> None:
    """Raise PortInUse if somebody listens there, BadConfig if this machine does not have the address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise BadConfig(f"broker_host {host} is not known here", "give this machine's address") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} at {host} is in use", "stop the other program, or set broker_port in room.toml"
            ) from error
        raise BadConfig(
            f"cannot listen at {host}, port {port}: {(error.strerror or str(error)).lower()}",
            "broker_host is an address of this machine, by which the nodes reach it",
        ) from error


def _embedded_command(config: RoomConfig) -> list[str]:
    module = "appliance.room.embedded_broker"
    return [sys.executable, "-m", module, config.broker_host, str(config.broker_port)]


def _start(command: list[str], config: RoomConfig) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command)
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None:
        try:
            socket.create_connection((config.broker_host, config.broker_port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline_s:
                process.kill()
                process.wait()
                raise RoomUnreachable(
                    f"broker did not answer within {START_TIMEOUT_S:.0f} s", "its own lines above say why"
                ) from None
            time.sleep(_POLL_S)
        else:
            return process
    raise RoomUnreachable(f"broker stopped at once, code {process.returncode}", "its own lines above say why")


def _settings(config: RoomConfig, folder: Path, acl: Path) -> str:
    trust = config.trust
    crl = trust.room_ca.with_name(CRL_NAME)
    made_by = "invigil provision ca makes it; copy the room's trust folder here"
    readers: tuple[tuple[Path, Callable[[bytes], object]], ...] = (
        (trust.room_ca, x509.load_pem_x509_certificate),
        (trust.broker_certificate, x509.load_pem_x509_certificate),
        (trust.broker_key, lambda data: load_pem_private_key(data, None)),
        (crl, x509.load_pem_x509_crl),
    )
    for path, read in readers:
        if not path.is_file():
            raise BadConfig(f"{path} is missing", made_by)
        try:
            read(path.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            raise BadConfig(f"{path} cannot be used", made_by) from error
    lines = [
        "# written by invigil at each start; changes here are lost",
        f"listener {config.broker_port} {config.broker_host}",
        f"cafile {trust.room_ca.resolve()}",
        f"certfile {trust.broker_certificate.resolve()}",
        f"keyfile {trust.broker_key.resolve()}",
        f"crlfile {crl.resolve()}",
        "tls_version tlsv1.3",
        "require_certificate true",
        "use_identity_as_username true",
        # the client id becomes the certificate's name: a desk cannot take over another's session
        "use_username_as_clientid true",
        "allow_anonymous false",
        f"acl_file {acl}",
        "persistence true",
        f"persistence_location {folder}/",
        "autosave_interval 60",
        f"max_packet_size {MAX_PACKET_BYTES}",
        f"max_queued_messages {MAX_QUEUED_MESSAGES}",
        f"max_queued_bytes {MAX_QUEUED_BYTES}",
        "queue_qos0_messages false",
        "max_inflight_messages 100",
        f"max_keepalive {MAX_KEEPALIVE_S}",
        "set_tcp_nodelay true",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        # addresses and names of who connects stay out of the journal
        "connection_messages false",
    ]
    if os.geteuid() == 0:
        # As root Mosquitto would become user `mosquitto` before it reads its keys, which belong to root (0600).
        # Root is for containers and demos: systemd starts it as invigil-broker, where this line is not written.
        lines.append("user root")
    return "\n".join(lines) + "\n"
