"""The demo's broker where no Mosquitto is installed: amqtt, on loopback only, with TLS and access rules off.

Own process (`python -m appliance.room.embedded_broker --config room.toml`, or HOST PORT), ended by SIGTERM.
It speaks MQTT 3.1.1 only.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import sys
from pathlib import Path

from appliance.config import RoomConfig, load_config
from appliance.errors import ApplianceError, BadInput, Refused
from appliance.room.broker import require_free_port
from appliance.service import print_error

WARNING = (
    "invigil: demo broker: TLS and access rules are OFF; any program on this machine can read and write\n"
)


def require_loopback(host: str) -> None:
    """Raise Refused for any address that another machine could reach."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise Refused(
            f"the demo broker does not listen at {host}",
            "it has no TLS: use 127.0.0.1, or Mosquitto with TLS",
        )


async def serve(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    require_loopback(host)
    require_free_port(host, port)
    try:
        from amqtt.broker import Broker  # extra of a demo, not of a room
    except ImportError as error:
        raise BadInput(
            "the demo broker needs amqtt", "pip install amqtt, or apt install mosquitto"
        ) from error
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    sys.stderr.write(WARNING)
    await broker.start()
    await stop.wait()
    await broker.shutdown()


def main(arguments: list[str]) -> int:
    """`--config room.toml` or HOST PORT; returns the exit code."""
    try:
        match arguments:
            case ["--config", path]:
                config = load_config(Path(path), RoomConfig)
                host, port = config.broker_host, config.broker_port
            case [host, digits] if digits.isdecimal():
                port = int(digits)
            case _:
                raise BadInput(
                    "wrong arguments", "python -m appliance.room.embedded_broker --config room.toml"
                )
        asyncio.run(serve(host, port))
    except ApplianceError as error:
        print_error(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
