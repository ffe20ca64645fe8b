"""The room controller's process: HTTPS, MQTT, the outbox, the clock and the watch leases on one event loop.

When it dies desks record on; the next start finds every decision in room.db and sends again what nobody answered.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from appliance.clock import Clock, SystemClock
from appliance.config import RoomConfig, StorageCredentials, load_config
from appliance.errors import BadConfig, PortInUse
from appliance.policy import Strict
from appliance.protocol import ClockMessage, encode
from appliance.room.app import build_app
from appliance.room.core import Room
from appliance.room.database import Database
from appliance.room.expiry import watch_certificates
from appliance.room.forgetting import forget_when_due
from appliance.room.intake import Intake
from appliance.room.link import Link
from appliance.room.sessions import Sessions
from appliance.room.trust import RoomKeys, load_keys
from appliance.room.watching import Watching
from appliance.room.web import Site
from appliance.service import notify

log = logging.getLogger(__name__)
CLOCK_PERIOD_S = 2.0
TIDY_S = 60.0
STOP_POLL_S = 0.2
STOP_PATIENCE_S = 3
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # for TLS 1.2; 1.3 has its own, all with forward secrecy (F082)


def run(config: RoomConfig, stop: threading.Event, clock: Clock | None = None) -> None:
    """Serve until `stop` is set, by the machine's own clock if none is given.

    Raises BadConfig, PortInUse or StoreFailed before anything is served."""
    keys = load_keys(config)
    if config.storage is not None:
        # Read now: an approval in three hours is too late to learn that the file cannot be used.
        load_config(config.storage.credentials, StorageCredentials)
    listener = _listen(config.listen_host, config.listen_port)
    try:
        database = Database(config.data / "room.db")
        try:
            asyncio.run(_serve(config, stop, keys, database, listener, clock or SystemClock()))
        finally:
            database.close()
    finally:
        listener.close()


async def _serve(
    config: RoomConfig,
    stop: threading.Event,
    keys: RoomKeys,
    database: Database,
    listener: socket.socket,
    clock: Clock,
) -> None:
    intake: Intake | None = None

    async def on_message(desk: str, message: Strict) -> None:
        if intake is not None:
            await intake.message(desk, message)

    def on_preview(desk: str, jpeg: bytes) -> None:
        if intake is not None:
            intake.preview(desk, jpeg)

    link = Link(config, on_message, on_preview)
    room = Room.open(config, clock, keys, database, link.publish)
    intake = Intake(room)
    watching = Watching(room)
    site = Site(room, Sessions(room), watching, lambda: link.problem)
    server = _server(config, site)
    async with asyncio.TaskGroup() as group:
        background = [
            group.create_task(link.run(), name="link"),
            group.create_task(room.outbox.run(), name="outbox"),
            group.create_task(watching.run(), name="watching"),
            group.create_task(_tell_time(room, link), name="clock"),
            group.create_task(watch_certificates(room), name="certificates"),
            group.create_task(forget_when_due(room), name="forgetting"),
            group.create_task(_tidy(), name="tidy"),
            group.create_task(_wait_for(stop, server, site), name="stop"),
        ]
        log.info("room.up listen=%s:%s room=%s", config.listen_host, config.listen_port, config.room)
        notify("READY=1")
        await server.serve(sockets=[listener])
        for task in background:
            task.cancel()
    log.info("room.down")


class _Server(uvicorn.Server):
    """Signals belong to `run_service`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(config: RoomConfig, site: Site) -> _Server:
    settings = uvicorn.Config(
        build_app(site),
        log_config=None,
        access_log=False,  # it would hold full addresses (F024)
        server_header=False,
        proxy_headers=False,
        ssl_certfile=config.trust.controller_certificate,
        ssl_keyfile=config.trust.controller_tls_key,
        ssl_ciphers=CIPHERS,
        timeout_graceful_shutdown=STOP_PATIENCE_S,
        lifespan="off",
    )
    try:
        settings.load()
    except (ssl.SSLError, OSError) as error:
        raise BadConfig(
            f"cannot use {config.trust.controller_certificate}: {error}", "make it anew"
        ) from error
    if settings.ssl is not None:
        settings.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return _Server(settings)


async def _wait_for(stop: threading.Event, server: uvicorn.Server, site: Site) -> None:
    while not stop.is_set():
        await asyncio.sleep(STOP_POLL_S)
    site.stopping = True
    server.should_exit = True


async def _tell_time(room: Room, link: Link) -> None:
    while True:
        if link.life:
            await link.publish_clock(encode(ClockMessage(at=room.now(), life=link.life)))
        notify("WATCHDOG=1")
        await asyncio.sleep(CLOCK_PERIOD_S)


async def _tidy() -> None:
    """Let go of closed connections and finished requests, whose parts hold each other, every minute.

    Under `make soak` five or six TLS connections a minute ended so, of a quarter of a megabyte each, and Python's own
    collector came by after half an hour. What lies between pieces still in use glibc gives back when it is asked to: of
    320 exams 5.4 MiB stayed without, 2.6 with it.
    """
    give_back = ctypes.CDLL(None).malloc_trim
    while True:
        await asyncio.sleep(TIDY_S)
        gc.collect()
        give_back(0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {host} is in use", "stop the other program or set listen_port"
            ) from error
        raise BadConfig(
            f"cannot listen on {host} port {port}: {error.strerror}", "correct listen_host"
        ) from error
    return listener
