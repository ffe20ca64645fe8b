"""The demo's broker where no Mosquitto is installed: amqtt, on loopback only, with TLS and access rules off.

Own process (`python -m appliance.room.embedded_broker HOST PORT`), ended by SIGTERM; MQTT 3.1.1 only.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import sys

from appliance.errors import ApplianceError, BadInput, Refused
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
    """HOST PORT; returns the exit code."""
    try:
        if len(arguments) != 2 or not arguments[1].isdecimal():
            raise BadInput("usage: python -m appliance.room.embedded_broker HOST PORT")
        asyncio.run(serve(arguments[0], int(arguments[1])))
    except ApplianceError as error:
        print_error(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
