"""The MQTT link of a desk node: one connection after another, for ever, each with its own durable number.

paho's thread only puts events on a queue; everything else happens in the sync process's main thread. A connection is
"connected" after CONNACK and SUBACK with good reason codes, and its will says which connection was lost.
"""

from __future__ import annotations

import logging
import random
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from appliance import __version__
from appliance.clock import Clock
from appliance.config import NodeConfig
from appliance.errors import BadConfig
from appliance.protocol import (
    MAX_MESSAGE_BYTES,
    FromNode,
    Presence,
    ToNode,
    clock_topic,
    desk_topic,
    encode,
)

log = logging.getLogger(__name__)

KEEPALIVE_S = 5  # the broker publishes the will after 1.5 of these (MQTT 5, 3.1.2.10): a dead desk shows in 7.5 s
SESSION_EXPIRY_S = 24 * 3600  # orders wait at the broker for a node that is away for less than a day
ANSWER_TIMEOUT_S = 10.0
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 15.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Connected:
    """Broker and subscriptions said yes."""

    number: int


@dataclass(frozen=True)
class Ended:
    """The connection is over or never came about; `reason` in words."""

    number: int
    reason: str


@dataclass(frozen=True)
class Acknowledged:
    """PUBACK for a message of ours; `problem` is empty when the broker took it."""

    number: int
    message_id: int
    problem: str


@dataclass(frozen=True)
class Incoming:
    """A message for us, not yet acknowledged."""

    number: int
    topic: str
    payload: bytes
    message_id: int
    qos: int
    arrived_mono_ns: int
    arrived_wall: datetime


LinkEvent = Connected | Ended | Acknowledged | Incoming


def backoff_s(failures: int, spread: float) -> float:
    """Seconds to wait after so many failures in a row; `spread` 0..1 keeps a room's desks from coming all at once."""
    return float(min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(failures, 16)) * (0.5 + spread / 2))


def tls_context(config: NodeConfig) -> ssl.SSLContext | None:
    """TLS 1.3 with the device certificate; None only for a broker on loopback. BadConfig when files are unusable."""
    if not config.broker_tls:
        if config.broker_host not in LOOPBACK:
            raise BadConfig(
                f"broker_tls is off but the broker is {config.broker_host}", "only a broker on 127.0.0.1 may go without TLS"
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
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

    def __init__(self, config: NodeConfig, clock: Clock, boot_id: str, emit: Callable[[LinkEvent], None]) -> None:
        self._config = config
        self._clock = clock
        self._boot_id = boot_id
        self._emit = emit
        self._connection: _Connection | None = None
        self._failures = 0
        self._not_before_mono_ns = 0
        self._last_preview: MQTTMessageInfo | None = None
        self.connected = False
        self.number = 0
        self.problem = "not connected yet"
        tls_context(config)  # a wrong setting is told at once, not on every attempt

    def step(self, next_number: Callable[[], int]) -> None:
        """Begin a connection if there is none and the back-off is over. `next_number` must be durable before it returns."""
        if self._connection is not None or self._clock.mono_ns() < self._not_before_mono_ns:
            return
        self.number = next_number()
        self._connection = _Connection(
            self._config, self._clock, self.number, self._presence("lost"), self._emit, tls_context(self._config)
        )
        self._connection.start()

    def handle(self, event: Connected | Ended) -> None:
        """Take a change of state that came through the queue; those of an older connection change nothing."""
        if event.number != self.number or self._connection is None:
            return
        if isinstance(event, Connected):
            self.connected, self.problem, self._failures = True, "", 0
            self.publish(FromNode.PRESENCE, self._presence("online"), retain=True)
            log.info("link.connected number=%d", event.number)
            return
        self.connected, self.problem = False, event.reason
        self._connection.finish()
        self._connection = None
        wait_s = backoff_s(self._failures, random.SystemRandom().random())
        self._failures += 1
        self._not_before_mono_ns = self._clock.mono_ns() + round(wait_s * 1e9)
        log.warning("link.ended number=%d reason=%s retry_s=%.1f", event.number, event.reason, wait_s)

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
                desk=self._config.desk, boot_id=self._boot_id, connection=self.number, state=state, software=__version__
            )
        )

    def _topic(self, leaf: FromNode) -> str:
        return desk_topic(self._config.room, self._config.desk, leaf)


class _Connection:
    """One client, one number, one will. Its thread lives from TCP connect to the end of the connection."""

    def __init__(
        self,
        config: NodeConfig,
        clock: Clock,
        number: int,
        will: bytes,
        emit: Callable[[LinkEvent], None],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._number = number
        self._emit = emit
        self._over = threading.Event()
        self._answered = threading.Event()
        self._reason = "connection lost"
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"mqtt-{number}")
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"desk-{config.desk}",
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self.client.connect_timeout = ANSWER_TIMEOUT_S
        self.client.will_set(desk_topic(config.room, config.desk, FromNode.PRESENCE), will, qos=1, retain=True)
        if tls is not None:
            self.client.tls_set_context(tls)
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = self._on_subscribe
        self.client.on_disconnect = self._on_disconnect
        self.client.on_publish = self._on_publish
        self.client.on_message = self._on_message

    def start(self) -> None:
        """Connect in the background."""
        self._thread.start()

    def finish(self) -> None:
        """Disconnect and wait for the threads."""
        self.client.disconnect()
        self._over.set()
        self._thread.join(ANSWER_TIMEOUT_S)

    def say_last(self, topic: str, payload: bytes) -> None:
        """Publish retained and wait up to 2 s until the broker has it."""
        info = self.client.publish(topic, payload, qos=1, retain=True)
        try:
            info.wait_for_publish(2.0)
        except (RuntimeError, ValueError) as error:
            log.warning("link.last_word_lost reason=%s", error)

    def _run(self) -> None:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.MaximumPacketSize = MAX_MESSAGE_BYTES + 4096
        config = self._config
        try:
            self.client.connect(
                config.broker_host, config.broker_port, KEEPALIVE_S, clean_start=False, properties=properties
            )
        except OSError as error:
            self._emit(Ended(self._number, f"broker not reached: {(error.strerror or str(error)).lower()}"))
            return
        self.client.loop_start()
        if not self._answered.wait(ANSWER_TIMEOUT_S) and not self._over.is_set():
            self._end("the broker did not answer in time")
        self._over.wait()
        self.client.loop_stop()
        self._emit(Ended(self._number, self._reason))

    def _end(self, reason: str) -> None:
        if not self._over.is_set():
            self._reason = reason
        self._over.set()
        self._answered.set()

    def _on_connect(
        self, client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            words = str(reason).lower()
            log.error("link.refused number=%d reason=%s", self._number, words)
            self._end(f"the broker refused the connection: {words}")
            return
        topics = [(desk_topic(self._config.room, self._config.desk, leaf), 1) for leaf in ToNode if leaf != ToNode.WATCH]
        watch = desk_topic(self._config.room, self._config.desk, ToNode.WATCH)
        client.subscribe([*topics, (watch, 0), (clock_topic(self._config.room), 0)])

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        refused = [str(reason).lower() for reason in reasons if reason.is_failure]
        if refused:
            log.error("link.subscription_refused number=%d reason=%s", self._number, refused[0])
            self._end(f"the broker refused a subscription: {refused[0]}")
            return
        self._answered.set()
        self._emit(Connected(self._number))

    def _on_disconnect(
        self, _client: Client, _data: Any, flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        by_broker = flags.is_disconnect_packet_from_server
        self._end(f"the broker ended the connection: {str(reason).lower()}" if by_broker else "connection lost")

    def _on_publish(
        self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        problem = str(reason).lower() if reason.is_failure else ""
        if problem:
            log.error("link.publish_refused number=%d reason=%s", self._number, problem)
        self._emit(Acknowledged(self._number, mid, problem))

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self._emit(
            Incoming(
                self._number,
                message.topic,
                bytes(message.payload),
                message.mid,
                message.qos,
                self._clock.mono_ns(),
                self._clock.wall(),
            )
        )


def _is_out(info: MQTTMessageInfo) -> bool:
    try:
        return info.is_published()
    except (RuntimeError, ValueError):  # the connection that it belonged to is over
        return True
