"""The controller's end of MQTT: connects for ever, checks the broker's reason, decodes what desks say.

A refused or lost connection is a sentence in `problem`, which the page shows; desks record on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable

import aiomqtt

from appliance.config import RoomConfig
from appliance.errors import BadConfig, BadInput, RoomUnreachable
from appliance.policy import Strict
from appliance.protocol import (
    VERSION,
    CheckpointMessage,
    FromNode,
    GrantRequest,
    ManifestMessage,
    ObservationMessage,
    Presence,
    Reply,
    Status,
    ToNode,
    clock_topic,
    decode,
    desk_topic,
)
from appliance.tls import TlsSocket

log = logging.getLogger(__name__)
RETRY_S = 2.0
PUBLISH_TIMEOUT_S = 5.0
MAX_PREVIEW_BYTES = 256 * 1024
MAX_WAITING_MESSAGES = 4096
_KINDS: dict[FromNode, type[Strict]] = {
    FromNode.PRESENCE: Presence,
    FromNode.STATUS: Status,
    FromNode.REPLY: Reply,
    FromNode.CHECKPOINT: CheckpointMessage,
    FromNode.OBSERVATION: ObservationMessage,
    FromNode.MANIFEST: ManifestMessage,
    FromNode.GRANT_REQUEST: GrantRequest,
}
_QOS = {ToNode.COMMAND: 1, ToNode.WITNESS: 1, ToNode.GRANTS: 1, ToNode.WATCH: 0, ToNode.NOTICE: 0}
_DESK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

OnMessage = Callable[[str, Strict], Awaitable[None]]
OnPreview = Callable[[str, bytes], None]


class Link:
    """One connection at a time, each a `life` of its own; `publish` says whether the broker has the message."""

    def __init__(self, config: RoomConfig, on_message: OnMessage, on_preview: OnPreview) -> None:
        self._config = config
        self._on_message = on_message
        self._on_preview = on_preview
        self._client: aiomqtt.Client | None = None
        self._tls = tls_context(config) if config.broker_tls else None
        self.problem: str | None = "the room is connecting to its broker"
        self.life = ""

    async def run(self) -> None:
        """Connect, receive, and connect again, until cancelled."""
        while True:
            try:
                await self._one_connection()
            except (aiomqtt.MqttError, OSError) as error:
                unreachable = RoomUnreachable(
                    f"broker {self._config.broker_host}:{self._config.broker_port}: {error}",
                    "is it running, and are its certificates this room's",
                )
                if self.problem != str(unreachable):
                    log.warning("link.down reason=%s", unreachable)
                self.problem = str(unreachable)
            finally:
                self._client = None
            await asyncio.sleep(RETRY_S)

    async def publish(self, desk: str, leaf: ToNode, payload: bytes) -> bool:
        """Send to one desk; False when the broker did not take it. Never raises."""
        return await self._publish(desk_topic(self._config.room, desk, leaf), payload, _QOS[leaf])

    async def publish_clock(self, payload: bytes) -> bool:
        """Tell all desks the time."""
        return await self._publish(clock_topic(self._config.room), payload, 0)

    async def _publish(self, topic: str, payload: bytes, qos: int) -> bool:
        if self._client is None:
            return False
        try:
            await self._client.publish(topic, payload, qos, timeout=PUBLISH_TIMEOUT_S)
        except (aiomqtt.MqttError, ValueError) as error:
            log.warning("link.publish_failed topic=%s reason=%s", topic, error)
            return False
        return True

    async def _one_connection(self) -> None:
        client = aiomqtt.Client(
            self._config.broker_host,
            self._config.broker_port,
            identifier=f"controller-{self._config.room}",
            # the demo's embedded broker, the only one without TLS, speaks 3.1.1
            protocol=aiomqtt.ProtocolVersion.V5 if self._tls else aiomqtt.ProtocolVersion.V311,
            keepalive=10,
            tls_context=self._tls,
            max_queued_incoming_messages=MAX_WAITING_MESSAGES,
        )
        async with client:  # raises MqttError with the broker's words unless CONNACK says success
            prefix = f"invigil/{VERSION}/{self._config.room}/+/"
            for leaf in FromNode:
                qos = 0 if leaf is FromNode.PREVIEW else 1
                codes = await client.subscribe(prefix + leaf.value, qos)
                if any(getattr(code, "is_failure", False) for code in codes):
                    raise aiomqtt.MqttError(f"the broker does not allow {leaf.value}: {codes[0]}")
            # Between two connections the broker threw away what it had taken for us: desks say again what is open.
            self.life = secrets.token_hex(8)
            self._client = client
            self.problem = None
            log.info("link.up broker=%s:%s", self._config.broker_host, self._config.broker_port)
            async for message in client.messages:
                await self._take(str(message.topic), message.payload)

    async def _take(self, topic: str, payload: object) -> None:
        parts = topic.split("/")
        if len(parts) != 5 or not isinstance(payload, bytes) or not _DESK.fullmatch(parts[3]):
            return
        desk, leaf = parts[3], parts[4]
        if leaf not in list(FromNode):
            return  # nothing that was subscribed to
        if leaf == FromNode.PREVIEW:
            if len(payload) <= MAX_PREVIEW_BYTES and payload.startswith(b"\xff\xd8"):
                self._on_preview(desk, payload)
            return
        try:
            message = decode(_KINDS[FromNode(leaf)], payload)
        except BadInput as error:
            log.warning("link.bad_message desk=%s leaf=%s reason=%s", desk, leaf, error)
            return
        await self._on_message(desk, message)


def tls_context(config: RoomConfig) -> ssl.SSLContext:
    """Mutual TLS with the controller's certificate, only this room's CA, nothing older than TLS 1.2 (F082)."""
    trust = config.trust
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(trust.room_ca))
        context.sslsocket_class = TlsSocket
        context.load_cert_chain(str(trust.controller_certificate), str(trust.controller_tls_key))
    except (OSError, ssl.SSLError) as error:
        raise BadConfig(
            f"cannot use {trust.controller_certificate} for TLS: {error}", "make it with invigil provision ca"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
