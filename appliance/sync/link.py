"""The MQTT link of a desk node: one connection after another, for ever, each with its own durable number.

paho's thread only puts events on a queue; everything else happens in the sync process's main thread. A connection is
"connected" after CONNACK and SUBACK with good reason codes, and its will says which connection was lost.
"""

from __future__ import annotations

import logging
import random
import ssl
from collections.abc import Callable
from typing import Literal

from paho.mqtt.client import MQTTMessageInfo
from paho.mqtt.enums import MQTTErrorCode

from appliance import __version__
from appliance.clock import Clock
from appliance.config import NodeConfig
from appliance.errors import BadConfig
from appliance.protocol import FromNode, Presence, desk_topic, encode
from appliance.sync.connection import Connected, Connection, Ended, Incoming, LinkEvent
from appliance.tls import TlsSocket

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 15.0
# A connection that lasted this long was none of a row of failures.
STEADY_S = 30.0
# Two machines that bear one name throw each other out. Either waits longer each time, so that the room is not kept
# busy with them, and comes again, so that the right one is there once the other is off.
FIRST_TAKEN_OVER_S = 30.0
MAX_TAKEN_OVER_S = 600.0
TAKEN_OVER_SHOWN_S = 2 * MAX_TAKEN_OVER_S
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def backoff_s(failures: int, spread: float) -> float:
    """Seconds to wait after so many failures in a row; `spread` 0..1 keeps a room's desks from coming all at once."""
    return float(min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(failures, 16)) * (0.5 + spread / 2))


def taken_over_backoff_s(times: int, spread: float) -> float:
    """Seconds to wait after the connection was taken over for so many times; `spread` 0..1 parts the two machines."""
    return float(min(MAX_TAKEN_OVER_S, FIRST_TAKEN_OVER_S * 2 ** min(times - 1, 16)) * (0.5 + spread / 2))


def tls_context(config: NodeConfig) -> ssl.SSLContext | None:
    """TLS 1.3 with the device certificate; None only for a broker on loopback. BadConfig when files are unusable."""
    if not config.broker_tls:
        if config.broker_host not in LOOPBACK:
            raise BadConfig(
                f"broker_tls is off but the broker is {config.broker_host}",
                "only a broker on 127.0.0.1 may go without TLS",
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.sslsocket_class = TlsSocket
    trust = config.trust
    try:
        context.load_verify_locations(trust.room_ca)
        context.load_cert_chain(trust.device_certificate, trust.device_key)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig(
            f"device certificate or room ca cannot be used: {error.strerror or error}", "enrol the desk again"
        ) from error
    return context


class Link:
    """Owned by the main thread; `emit` is called in paho's thread and must only queue."""

    def __init__(
        self,
        config: NodeConfig,
        clock: Clock,
        boot_id: str,
        emit: Callable[[LinkEvent], None],
        certificate_problem: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._boot_id = boot_id
        self._emit = emit
        self._certificate_problem = certificate_problem
        self._connection: Connection | None = None
        self._failures = 0
        self._not_before_mono_ns = 0
        self._connected_mono_ns = 0
        self._taken_over_times = 0
        self._taken_over_mono_ns: int | None = None
        self._last_preview: MQTTMessageInfo | None = None
        self.connected = False
        self.number = 0
        self.problem = "not connected yet"
        tls_context(config)  # a wrong setting is told at once, not on every attempt

    def step(self, next_number: Callable[[], int]) -> None:
        """Begin a connection if there is none and the back-off is over; `next_number` is durable once it returns."""
        if self._connection is not None or self._clock.mono_ns() < self._not_before_mono_ns:
            return
        try:
            tls = tls_context(self._config)
        except BadConfig as error:  # a certificate is just being renewed, or badly
            self._wait(str(error), 1)
            return
        self.number = next_number()
        self._connection = Connection(
            self._config,
            self._clock,
            self.number,
            self._presence("lost"),
            self._emit,
            tls,
        )
        self._connection.start()

    def handle(self, event: Connected | Ended) -> None:
        """Take a change of state that came through the queue; those of an older connection change nothing."""
        if event.number != self.number or self._connection is None:
            return
        if isinstance(event, Connected):
            self.connected, self.problem = True, ""
            self._connected_mono_ns = self._clock.mono_ns()
            self.publish(FromNode.PRESENCE, self._presence("online"), retain=True)
            log.info("link.connected number=%d", event.number)
            return
        lasted_s = (self._clock.mono_ns() - self._connected_mono_ns) / 1e9 if self.connected else 0.0
        if lasted_s > STEADY_S:
            self._failures = 0
        if lasted_s > TAKEN_OVER_SHOWN_S:
            self._taken_over_times = 0
        self.connected = False
        self._connection.finish()
        self._connection = None
        spread = random.SystemRandom().random()
        if event.taken_over or (lasted_s and self.faults()):
            self.another_machine()
            self._taken_over_times += 1
            self._wait(self._words(event.reason), taken_over_backoff_s(self._taken_over_times, spread))
        else:
            self._wait(self._words(event.reason), backoff_s(self._failures, spread))
            self._failures += 1

    def another_machine(self) -> None:
        """The room or the broker has noticed that another machine bears this desk's name."""
        if not self.faults():
            log.error("link.another_machine desk=%s", self._config.desk)
        self._taken_over_mono_ns = self._clock.mono_ns()

    def faults(self) -> list[str]:
        """In words, for the room: that another machine bears this desk's name, for some time after it was noticed."""
        since_ns = self._taken_over_mono_ns
        if since_ns is None or self._clock.mono_ns() - since_ns > TAKEN_OVER_SHOWN_S * 1e9:
            return []
        return [
            f"another machine presents itself as {self._config.desk}; one of the two has to be switched off"
        ]

    def _words(self, reason: str) -> str:
        """A broker refuses an expired certificate without saying so: the desk's own look at it names the cause."""
        problem = self._certificate_problem()
        return reason if problem is None else f"{reason}; {problem}"

    def _wait(self, reason: str, wait_s: float) -> None:
        if self.problem != reason:
            log.warning("link.ended number=%d reason=%s retry_s=%.1f", self.number, reason, wait_s)
        self.problem = reason
        self._not_before_mono_ns = self._clock.mono_ns() + round(wait_s * 1e9)

    def publish(self, leaf: FromNode, payload: bytes, *, retain: bool = False) -> int | None:
        """Send with QoS 1; returns the message id that `Acknowledged` will name, None when not connected.

        Nothing is queued while offline: every message can be made again from what is durable.
        """
        if self._connection is None or not self.connected:
            return None
        info = self._connection.client.publish(self._topic(leaf), payload, qos=1, retain=retain)
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def publish_preview(self, jpeg: bytes) -> bool:
        """Send a picture with QoS 0, not retained; dropped while the one before is still waiting for the network."""
        if self._connection is None or not self.connected:
            return False
        if self._last_preview is not None and not _is_out(self._last_preview):
            return False
        self._last_preview = self._connection.client.publish(self._topic(FromNode.PREVIEW), jpeg, qos=0)
        return True

    def acknowledge(self, message: Incoming) -> None:
        """Tell the broker that the message has had its durable effect; otherwise it comes again."""
        if message.qos and self._connection is not None and message.number == self.number:
            self._connection.client.ack(message.message_id, message.qos)

    def close(self) -> None:
        """Say "stopped", wait for its PUBACK for a short time, disconnect without the will."""
        if self._connection is None:
            return
        if self.connected:
            self._connection.say_last(self._topic(FromNode.PRESENCE), self._presence("stopped"))
        self._connection.finish()
        self._connection = None
        self.connected = False

    def _presence(self, state: Literal["online", "lost", "stopped"]) -> bytes:
        return encode(
            Presence(
                desk=self._config.desk,
                boot_id=self._boot_id,
                connection=self.number,
                state=state,
                software=__version__,
            )
        )

    def _topic(self, leaf: FromNode) -> str:
        return desk_topic(self._config.room, self._config.desk, leaf)


def _is_out(info: MQTTMessageInfo) -> bool:
    try:
        return info.is_published()
    except (RuntimeError, ValueError):  # the connection that it belonged to is over
        return True
