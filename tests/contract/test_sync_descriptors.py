"""A connection that ended gives its descriptors back at once, not when the garbage collector comes."""

from __future__ import annotations

import gc
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.config import NodeConfig
from appliance.room.broker import mosquitto_program
from appliance.sync.connection import Connected, Connection, Ended, LinkEvent
from demo.room import free_port, port_answers, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def sockets() -> int:
    """Open sockets of this process."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found += str(descriptor.readlink()).startswith("socket:")
    return found


def one_life(settings: Path, config: NodeConfig) -> None:
    """Connect to a broker, which is then killed."""
    events: list[LinkEvent] = []
    broker = subprocess.Popen([mosquitto_program(), "-c", str(settings)], stderr=subprocess.DEVNULL)
    try:
        wait_until("the broker", lambda: port_answers(config.broker_port), 60, 0.02)
        connection = Connection(config, SystemClock(), 1, b"{}", events.append, None)
        connection.start()
        wait_until("the connection", lambda: any(isinstance(event, Connected) for event in events), 60, 0.02)
    finally:
        broker.kill()
        broker.wait()
    wait_until("its end", lambda: any(isinstance(event, Ended) for event in events), 60, 0.02)
    connection.finish()


def test_ended_connections_leave_no_socket_open(tmp_path: Path, no_collector: None) -> None:
    port = free_port()
    settings = tmp_path / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    config = NodeConfig(
        institution="uni",
        room="room-1",
        desk="desk-1",
        broker_host="127.0.0.1",
        broker_port=port,
        broker_tls=False,
    )
    before = sockets()
    for _ in range(4):
        one_life(settings, config)
    begun = time.monotonic()
    # The thread that said the end may still be on its way out.
    while sockets() > before and time.monotonic() - begun < 30:
        time.sleep(0.05)
    assert sockets() == before
