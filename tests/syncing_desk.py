"""The sync process's session side, with the controller's real witness and a bucket at the network's edge."""

from __future__ import annotations

import base64
import hashlib
import queue
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.clock import utc_text
from appliance.protocol import (
    GRANTS_PURPOSE,
    CheckpointMessage,
    FromNode,
    Grant,
    GrantRequest,
    Grants,
    ManifestMessage,
    ObjectFacts,
    Release,
    decode,
    sign_message,
)
from appliance.sync.sender import AT_A_TIME, PutDone, PutJob, Sender
from appliance.sync.sessions import Sessions
from tests.unit.test_store_builders import SID
from tests.unit.test_sync_room import DESK, ENDPOINT, READY, ROOM, Bench, Controller


class Bucket:
    """The storage at the network's edge; `status` is answered to every PUT."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: list[httpx.Request] = []
        self.status: dict[str, int] = {}

    def transport(self) -> httpx.MockTransport:
        def handle(request: httpx.Request) -> httpx.Response:
            body = request.read()
            self.requests.append(request)
            name = request.url.path.rsplit("/", 1)[1]
            status = self.status.get(name, 200)
            if status == 200:
                assert request.headers["content-md5"] == base64.b64encode(hashlib.md5(body).digest()).decode()
                self.objects[name] = body
            return httpx.Response(
                status, content=b"<Error><Code>AccessDenied</Code></Error>" if status == 403 else b""
            )

        return httpx.MockTransport(handle)


class Node:
    """One life of the sync process's session side; what it publishes lies in `said` while `connected`."""

    def __init__(self, bench: Bench, bucket: Bucket) -> None:
        self.bench = bench
        self.connected = True
        self.said: list[tuple[FromNode, bytes]] = []
        self.done: queue.SimpleQueue[PutDone] = queue.SimpleQueue()
        self.sender = Sender(self.done.put, transport=bucket.transport())
        self.sessions = Sessions(
            bench.config,
            bench.trust,
            bench.ledger,
            bench.view,
            bench.certificates,
            self.sender,
            self._publish,
        )

    def _publish(self, leaf: FromNode, payload: bytes) -> int | None:
        if not self.connected:
            return None
        self.said.append((leaf, payload))
        return len(self.said)

    def step(self, seconds: float = 1.0) -> list[tuple[FromNode, bytes]]:
        """Let time pass, take one turn and return what was said."""
        self.bench.clock.advance(seconds)
        self.said = []
        self.sessions.step(self.bench.clock.mono_ns(), self.connected)
        return self.said

    def only(self, leaf: FromNode, seconds: float = 1.0) -> list[bytes]:
        return [payload for said, payload in self.step(seconds) if said is leaf]

    def take(self, order: Any) -> bool:
        reply = self.bench.orders.take(self.bench.command(order), READY)
        self.sessions.ledger_changed()
        return reply is not None and reply.accepted

    def finish_puts(self, count: int) -> list[PutDone]:
        results = [self.done.get(timeout=5) for _ in range(count)]
        for result in results:
            self.sessions.put_done(result, self.bench.clock.mono_ns())
        return results


class Setup:
    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder)
        self.bucket = Bucket()
        self.controller = Controller(self.bench)
        self.node = Node(self.bench, self.bucket)

    def restart(self) -> None:
        """As after SIGKILL: everything in memory is gone."""
        self.node.sender.close()
        self.bench.close()
        self.bench.open_ledger()
        self.node = Node(self.bench, self.bucket)

    def witness_all(self) -> None:
        while messages := self.node.only(FromNode.CHECKPOINT, 0):
            self.node.sessions.witnessed(self.controller.answer(decode(CheckpointMessage, messages[0])))

    def certify(self) -> bytes:
        self.bench.order_and_record()
        self.node.sessions.ledger_changed()
        self.witness_all()
        manifest = self.node.only(FromNode.MANIFEST)
        assert len(manifest) == 1
        return decode(ManifestMessage, manifest[0]).manifest.encode()

    def said_again(self) -> bytes:
        """The manifest's message on a new connection."""
        self.node.sessions.connection_began()
        [message] = self.node.only(FromNode.MANIFEST)
        return message

    def release(self) -> bytes:
        manifest = self.certify()
        assert self.node.take(approval(manifest))
        return manifest

    def request(self, seconds: float = 61.0) -> GrantRequest:
        payloads = self.node.only(FromNode.GRANT_REQUEST, seconds)
        assert len(payloads) == 1
        return decode(GrantRequest, payloads[0])

    def grants(self, request: GrantRequest, names: set[str] | None = None, **changes: Any) -> bytes:
        """Sign grants for what the bucket does not have, manifest.json only when all else is there."""
        endpoint = changes.pop("endpoint", ENDPOINT)
        key = changes.pop("key", self.bench.controller_key)
        present = tuple(item.name for item in request.objects if item.name in self.bucket.objects)
        absent = [item for item in request.objects if item.name not in self.bucket.objects]
        last = [item.name for item in absent] == ["manifest.json"]
        body: dict[str, Any] = {
            "room": ROOM,
            "desk": DESK,
            "sid": SID,
            "number": request.number,
            "issued": utc_text(self.bench.clock.wall()),
            "present": present,
            "grants": [
                Grant(
                    name=item.name,
                    url=f"{endpoint}/exams/{item.name}?sig=1",
                    headers={"Content-MD5": item.md5},
                )
                for item in absent
                if (item.name != "manifest.json" or last) and (names is None or item.name in names)
            ],
        }
        return sign_message(GRANTS_PURPOSE, Grants.model_validate(body | changes), key)

    def give(self, payload: bytes) -> None:
        self.node.sessions.granted(payload, self.bench.clock.mono_ns())

    def settle(self) -> None:
        settle(self.node.sender)

    def segment_facts(self) -> ObjectFacts:
        """Of the one segment, as a request names it."""
        data = self.bench.view.layout.segment(SID, "0-video-0.evf").read_bytes()
        md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
        sha256 = hashlib.sha256(data).hexdigest()
        return ObjectFacts(name="0-video-0.evf", size_bytes=len(data), md5=md5, sha256=sha256)

    def states(self) -> dict[str, str]:
        return {row.name: row.state for row in self.bench.ledger.uploads(SID)}


def settle(sender: Sender) -> None:
    """Return when no byte is on its way: every thread that sends has come to what is put behind all the rest."""
    together = threading.Barrier(AT_A_TIME + 1)
    for _ in range(AT_A_TIME):
        sender.put(PutJob(SID, 0, None, b"", "", {}), lambda: together.wait(30) is None)
    together.wait(30)


def approval(manifest: bytes) -> Release:
    return Release(
        sid=SID,
        manifest_sha256=hashlib.sha256(manifest).hexdigest(),
        approved_by="proctor-2",
        approved_at="2026-11-22T12:00:00.000Z",
    )


@pytest.fixture
def setup(tmp_path: Path) -> Any:
    made = Setup(tmp_path)
    yield made
    made.node.sender.close()
    made.bench.close()
