"""One MQTT connection of a desk node, from TCP connect to its end: one client, one number, one will.

paho's thread and this one's own only hand events to `emit`; nothing of ours runs in them.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from appliance.clock import Clock
from appliance.config import NodeConfig
from appliance.protocol import MAX_MESSAGE_BYTES, FromNode, ToNode, clock_topic, desk_topic

log = logging.getLogger(__name__)

KEEPALIVE_S = (
    5  # the broker publishes the will after 1.5 of these (MQTT 5, 3.1.2.10): a dead desk shows in 7.5 s
)
SESSION_EXPIRY_S = 24 * 3600  # orders wait at the broker for a node that is away for less than a day
ANSWER_TIMEOUT_S = 10.0
# MQTT 5, 3.14.2.1: somebody connected under the same client id, the certificate's name. Mosquitto 2.0.11 closes
# without a word; then the room's notice tells it.
TAKEN_OVER = 0x8E


@dataclass(frozen=True)
class Connected:
    """Broker and subscriptions said yes."""

    number: int


@dataclass(frozen=True)
class Ended:
    """The connection is over or never came about; `reason` in words. `taken_over`: by another of this desk's name."""

    number: int
    reason: str
    taken_over: bool = False


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


LinkEvent = Connected | Ended | Acknowledged | Incoming


class Connection:
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
        self._taken_over = False
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"mqtt-{number}")
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"desk-{config.desk}",
            # The demo's embedded broker, the only one without TLS, speaks nothing newer than 3.1.1.
            protocol=MQTTProtocolVersion.MQTTv311 if tls is None else MQTTProtocolVersion.MQTTv5,
            clean_session=False if tls is None else None,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self.client.connect_timeout = ANSWER_TIMEOUT_S
        self.client.will_set(
            desk_topic(config.room, config.desk, FromNode.PRESENCE), will, qos=1, retain=True
        )
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
        ended = self._live()
        # They hold this object, which holds the client: its sockets would wait for the garbage collector.
        self.client.on_connect = self.client.on_subscribe = self.client.on_disconnect = None
        self.client.on_publish = self.client.on_message = None
        self._emit(ended)

    def _live(self) -> Ended:
        config = self._config
        try:
            if config.broker_tls:
                self.client.connect(
                    config.broker_host,
                    config.broker_port,
                    KEEPALIVE_S,
                    clean_start=False,
                    properties=_connect_properties(),
                )
            else:
                self.client.connect(config.broker_host, config.broker_port, KEEPALIVE_S)
        except OSError as error:
            return Ended(self._number, f"the broker was not reached: {self._words(error)}")
        self.client.loop_start()
        if not self._answered.wait(ANSWER_TIMEOUT_S) and not self._over.is_set():
            self._end("the broker did not answer in time")
        self._over.wait()
        self.client.disconnect()  # an attempt that was given up must not leave its socket open
        self.client.loop_stop()
        return Ended(self._number, self._reason, self._taken_over)

    def _words(self, error: OSError) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            today = f"{self._clock.wall():%Y-%m-%d}"
            return f"certificate verify failed: {error.verify_message}; by this desk's clock it is {today}"
        return (error.strerror or str(error)).lower()

    def _end(self, reason: str) -> None:
        if not self._over.is_set():
            self._reason = reason
        self._over.set()
        self._answered.set()

    def _on_connect(
        self,
        client: Client,
        _data: Any,
        _flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            words = str(reason).lower()
            log.error("link.refused number=%d reason=%s", self._number, words)
            self._end(f"the broker refused the connection: {words}")
            return
        topics = [
            (desk_topic(self._config.room, self._config.desk, leaf), 1)
            for leaf in ToNode
            if leaf not in (ToNode.WATCH, ToNode.NOTICE)
        ]
        passing = [
            (desk_topic(self._config.room, self._config.desk, leaf), 0)
            for leaf in (ToNode.WATCH, ToNode.NOTICE)
        ]
        client.subscribe([*topics, *passing, (clock_topic(self._config.room), 0)])

    def _on_subscribe(
        self,
        _client: Client,
        _data: Any,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        refused = [str(reason).lower() for reason in reasons if reason.is_failure]
        if refused:
            log.error("link.subscription_refused number=%d reason=%s", self._number, refused[0])
            self._end(f"the broker refused a subscription: {refused[0]}")
            return
        self._answered.set()
        self._emit(Connected(self._number))

    def _on_disconnect(
        self,
        _client: Client,
        _data: Any,
        flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        by_broker = flags.is_disconnect_packet_from_server
        self._taken_over = by_broker and reason.value == TAKEN_OVER
        self._end(
            f"the broker ended the connection: {str(reason).lower()}" if by_broker else "connection lost"
        )

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
            )
        )


def _connect_properties() -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = SESSION_EXPIRY_S
    properties.MaximumPacketSize = MAX_MESSAGE_BYTES + 4096
    return properties
