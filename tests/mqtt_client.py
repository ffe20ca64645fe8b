"""How a test lets go of paho's client: at once, and not when the garbage collector comes by."""

from __future__ import annotations

import paho.mqtt.client as mqtt


def let_go(client: mqtt.Client) -> None:
    """Disconnect and stop its thread; what calls back would hold it, and its sockets would close in another test."""
    client.disconnect()
    client.loop_stop()
    if (left := client.socket()) is not None:
        left.close()
    client.on_connect = client.on_subscribe = client.on_publish = None
    client.on_message = client.on_disconnect = None
