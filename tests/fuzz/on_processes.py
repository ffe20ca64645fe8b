"""Targets that are a whole process but for its sockets: room controller, sync process, camera's local link, HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np

from appliance.camera.inbox import Inbox, Observed
from appliance.camera.peers import Peers
from appliance.camera.pictures import WatchLease
from appliance.errors import BadInput
from appliance.frames import HEADER_BYTES, FrameRingReader, FrameRingWriter
from appliance.local_link import Message, Peer, encode_line
from appliance.policy import Strict
from appliance.protocol import (
    CheckpointMessage,
    EndSession,
    FromNode,
    GrantRequest,
    Grants,
    ManifestMessage,
    ObservationMessage,
    Presence,
    Release,
    Reply,
    Status,
    ToNode,
    clock_topic,
    desk_topic,
    encode,
)
from appliance.room.link import Link
from appliance.sync.connection import Connected, Incoming
from appliance.sync.process import SyncProcess
from appliance.sync.sender import Sender
from tests.fuzz.engine import Accepted, Target
from tests.fuzz.mutate import altered
from tests.fuzz.mutate_json import altered_json, altered_text
from tests.fuzz.on_wire import messages, signed_or_not
from tests.manual_clock import ManualClock
from tests.sessions import observation
from tests.unit.test_room_kit import make_kit
from tests.unit.test_store_builders import SID as NODE_SID
from tests.unit.test_sync_room import DESK, ROOM, Bench, Controller

FROM_NODE: dict[FromNode, type[Strict]] = {
    FromNode.PRESENCE: Presence,
    FromNode.STATUS: Status,
    FromNode.REPLY: Reply,
    FromNode.CHECKPOINT: CheckpointMessage,
    FromNode.OBSERVATION: ObservationMessage,
    FromNode.MANIFEST: ManifestMessage,
    FromNode.GRANT_REQUEST: GrantRequest,
}


@contextmanager
def room(folder: Path) -> Iterator[Target]:
    """Everything that the controller hears from desks, of two desks with a session each; one is certified."""
    with closing(make_kit(folder)) as kit:
        kit.ready("d1", "d2")
        proctor = kit.logged_in("proctor")
        sids = [started(proctor, desk) for desk in ("d1", "d2")]
        for desk, sid in zip(("d1", "d2"), sids, strict=True):
            kit.hear(desk, kit.status(desk, kit.report(sid)))
        proctor.post(f"/api/sessions/{sids[0]}/end")
        manifest = kit.certify("d1", sids[0])
        loop = asyncio.new_event_loop()
        taken: list[str] = []

        async def take(desk: str, message: Strict) -> None:
            taken.append(type(message).__name__)
            await kit.intake.message(desk, message)

        link = Link(kit.room.config.model_copy(update={"broker_tls": False}), take, kit.intake.preview)
        samples = _of_session(messages(), sids[0], manifest)

        def make(rng: Random) -> tuple[str, bytes]:
            if rng.random() < 0.03:
                topic = altered(rng, [b"invigil/1/room-214/d1/status"]).decode("utf-8", "replace")
                return topic, rng.randbytes(20)
            leaf = rng.choice(list(FromNode))
            desk = rng.choice(("d1", "d1", "d2", "stranger"))
            topic = desk_topic("room-214", desk, leaf)
            if leaf is FromNode.PREVIEW:
                return topic, altered(rng, [b"\xff\xd8\xff\xe0 a picture \xff\xd9", bytes(300)])
            return topic, altered_text(rng, samples[FROM_NODE[leaf]])

        async def hear(topic: str, payload: bytes) -> None:
            await link._take(topic, payload)
            await kit.intake.settled()

        def check(value: tuple[str, bytes]) -> str:
            loop.run_until_complete(hear(*value))
            kit.room.live.room_needs = {
                key: words
                for key, words in kit.room.live.room_needs.items()
                if not key.startswith("stranger")
            }
            return taken.pop() if taken else "refused"

        try:
            yield Target(make, check)
        finally:
            loop.close()


def started(proctor: Any, desk: str) -> str:
    """A session on a desk that is ready."""
    answer = proctor.post("/api/sessions/start", {"desk": desk, "candidate_code": f"C-{desk}"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["sid"])


def _of_session(samples: dict[type[Strict], Any], sid: str, manifest: bytes) -> dict[type[Strict], Any]:
    """The samples, as said of a session that the room knows; and its true manifest."""
    text = json.dumps({kind.__name__: values for kind, values in samples.items()}).replace("ab" * 16, sid)
    again = json.loads(text)
    again["ManifestMessage"].append({"sid": sid, "manifest": manifest.decode()})
    return {kind: again[kind.__name__] for kind in samples}


@contextmanager
def node(folder: Path) -> Iterator[Target]:
    """Everything that the sync process hears from the room and from the camera process; nothing is sent anywhere."""
    bench = Bench(folder, broker_tls=False)
    bench.order_and_record()
    leaves = bench.view.leaves(NODE_SID)
    bench.close()  # the ledger has one writer
    clock = ManualClock()
    with closing(SyncProcess(bench.config, clock)) as process:
        process._sender.close()
        process._sender = Sender(
            process._items.put, transport=httpx.MockTransport(lambda _: httpx.Response(503))
        )
        process._sessions._sender = process._sender
        samples = _to_node(bench, process, len(leaves))
        asked_again_ns = [0]

        def make(rng: Random) -> Incoming | Message:
            if rng.random() < 0.15:
                value = altered_json(rng, _LOCAL)
                return (
                    {**value, "type": str(value.get("type"))}
                    if isinstance(value, dict)
                    else {"type": "facts"}
                )
            topic, purpose, values = rng.choice(samples)
            payload = altered_text(rng, values)
            if purpose and rng.random() < 0.7:
                payload, _ = signed_or_not(rng, purpose, values, bench.controller_key)
            return Incoming(0, topic, payload, 1, 1, clock.mono_ns())

        def check(value: Incoming | Message) -> str:
            process._handle(value)
            clock.advance(0.01)
            with contextlib.suppress(queue.Empty):
                while True:
                    process._handle(process._items.get_nowait())
            if clock.mono_ns() >= asked_again_ns[0]:
                asked_again_ns[0] = clock.mono_ns() + 10**9
                process._handle(Connected(0))
            process._sessions.step(clock.mono_ns(), True)
            process._sessions.faults()
            for key, waiting in process._observations.unsent():
                encode(waiting)
                process._observations.sent(key, 1)
                process._observations.acknowledged(1)
            process._sessions.facts()
            require_living(failed)
            return value.topic.rpartition("/")[2] if isinstance(value, Incoming) else "local"

        with dying_threads() as failed:
            yield Target(make, check)


_LOCAL: list[dict[str, Any]] = [
    {"type": "facts", "camera_open": True, "camera_problem": None, "light_on": True, "inference_rate_hz": 4.5,
     "faults": ["a"]},
    {"type": "preview", "jpeg": "/9j/4AAQ"},
    {"type": "durable", "sid": "ab" * 16},
    {"type": "observation", "sid": "ab" * 16, "number": 7, "report": observation(1, "k", 1, 2)["report"]},
]  # fmt: skip


def _to_node(bench: Bench, process: SyncProcess, leaves: int) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """(topic, purpose or "", true values) of each topic; a certified, released session is waiting to be sent."""
    session_log = process._sessions._log(NODE_SID)
    message = session_log.next_message(0)
    assert message is not None
    answer = Controller(bench).answer(message)
    process._sessions.witnessed(answer)
    process._sessions.step(10**12, False)
    sha256 = process._sessions._certificates.sha256(NODE_SID)
    assert sha256 is not None
    at = "2026-11-22T09:00:00.000Z"
    release = Release(sid=NODE_SID, manifest_sha256=sha256, approved_by="m", approved_at=at)
    orders = [release, EndSession(sid=NODE_SID), bench.start("cd" * 16)]
    bodies = [json.loads(bench.command(order))["body"] for order in orders]
    grants = Grants.model_validate({
        "room": ROOM, "desk": DESK, "sid": NODE_SID, "number": 1, "issued": at, "present": ["manifest.json"],
        "refused": {"x": "y"},
        "grants": [{"name": "approval.json", "url": "https://s3.eu-west-1.storage.example/x", "headers": {"a": "b"}}],
    })  # fmt: skip
    witness = [
        answer.model_dump(mode="json"),
        {"sid": NODE_SID, "size": leaves, "cosignature": None, "refused": "r"},
    ]
    return [
        (desk_topic(ROOM, DESK, ToNode.COMMAND), "command", bodies),
        (desk_topic(ROOM, DESK, ToNode.GRANTS), "grants", [grants.model_dump(mode="json")]),
        (desk_topic(ROOM, DESK, ToNode.WITNESS), "", witness),
        (desk_topic(ROOM, DESK, ToNode.WATCH), "", [{"mode": "live", "lease_s": 2.5}]),
        (clock_topic(ROOM), "", [{"at": at, "life": "0123456789abcdef"}]),
    ]


@contextmanager
def dying_threads() -> Iterator[list[BaseException]]:
    """What ended a thread."""
    failed: list[BaseException] = []
    before = threading.excepthook
    threading.excepthook = lambda given: failed.append(given.exc_value or RuntimeError("a thread died"))
    try:
        yield failed
    finally:
        threading.excepthook = before


def require_living(failed: list[BaseException]) -> None:
    """Raise what a thread died of."""
    if failed:
        raise failed.pop()


@contextmanager
def camera_link(folder: Path) -> Iterator[Target]:
    """Lines on camera.sock, each input a connection of its own through the real reader thread."""
    inbox, clock = Inbox(), ManualClock()
    peers = Peers(folder / "camera.sock", inbox, WatchLease(clock), clock)
    report = observation(1, "head_turned_away", 3, 5)["report"]
    said: list[dict[str, Any]] = [
        {"type": "wake"}, {"type": "replay"}, {"type": "watch", "mode": "live", "lease_s": 2.5},
        {"type": "inference", "rate_hz": 4.5}, {"type": "observation", "key": 3, "report": report},
    ]  # fmt: skip
    lines = [encode_line(each) for each in said]

    def make(rng: Random) -> bytes:
        if rng.random() < 0.4:
            return altered(rng, [*lines, b"".join(lines)])
        return altered_text(rng, said) + b"\n" + rng.choice((b"", lines[0]))

    def check(data: bytes) -> str:
        ours, theirs = socket.socketpair()
        gone = threading.Event()

        def closed(peer: Peer) -> None:
            peers._on_close(peer)
            gone.set()

        Peer(ours, peers._on_message, closed).start()
        with theirs:
            try:
                theirs.sendall(data)
                theirs.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it hung up in the middle of nonsense
            if not gone.wait(60):
                raise TimeoutError("the reader does not come back")
        require_living(failed)
        taken = 0
        while (item := inbox.get(0)) is not None:
            taken += 1
            if isinstance(item, Observed) and not 0 <= item.key < 2**53:
                raise Accepted("an observation with an impossible key")
        return "taken" if taken else "nothing"

    with dying_threads() as failed, closing(peers):
        yield Target(make, check)


@contextmanager
def ring(folder: Path) -> Iterator[Target]:
    """The frame ring's file as another process could have left it."""
    path = folder / "frames"
    with FrameRingWriter(path, 16, 8, slots=3) as writer:
        for number in range(5):
            writer.write(np.full((8, 16, 3), number, np.uint8), 10**9 + number)
        whole = path.read_bytes()
    empty = struct.pack("<8sIIII", b"IVRING1\0", 0, 0, 0, 0).ljust(HEADER_BYTES, b"\1")

    def make(rng: Random) -> bytes:
        head = altered(rng, [whole[:HEADER_BYTES], empty])
        return (
            head + whole[HEADER_BYTES:] if rng.random() < 0.6 else rng.choice((head, altered(rng, [whole])))
        )

    def check(data: bytes) -> str:
        fresh = folder / "fresh"
        fresh.write_bytes(data)
        fresh.replace(path)
        with closing(FrameRingReader(path)) as reader:
            try:
                frame = reader.latest(0)
            except BadInput:
                return "refused"
        if frame is None:
            return "no frame"
        if frame.image.shape[2] != 3 or frame.image.size > len(data):
            raise Accepted("a picture of an impossible shape")
        return "frame"

    yield Target(make, check)
