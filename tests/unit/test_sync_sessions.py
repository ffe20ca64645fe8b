"""From the first leaf to the storage's confirmation, with the controller's real witness and a bucket at the edge."""

from __future__ import annotations

import base64
import hashlib
import json
import queue
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.clock import utc_text
from appliance.evf.format import RecordKind
from appliance.evidence.certifying import countersign, verify_certificate
from appliance.evidence.manifest import verify_manifest, verify_session
from appliance.protocol import (
    GRANTS_PURPOSE,
    CheckpointMessage,
    ConfirmSynced,
    EndSession,
    FromNode,
    Grant,
    GrantRequest,
    Grants,
    Hold,
    ManifestMessage,
    Release,
    SessionPhase,
    decode,
    sign_message,
)
from appliance.store.view import RecordingView
from appliance.sync.sender import Outcome, PutDone, Sender
from appliance.sync.sessions import Sessions
from appliance.sync.status import phase_of
from tests.unit.test_store_builders import FRAGMENT_90K, SID, Desk
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

    def states(self) -> dict[str, str]:
        return {row.name: row.state for row in self.bench.ledger.uploads(SID)}


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


def test_certificate_is_what_the_room_and_the_archive_verify(setup: Setup) -> None:
    data = setup.certify()
    ca = setup.bench.authority.certificate
    manifest = verify_manifest(data, ca, setup.bench.trust.controller_key)
    assert (manifest.sid, manifest.leaves, manifest.gaps, manifest.lost) == (SID, 6, (), ())
    assert (manifest.region, manifest.storage) == ("eu-west-1", f"{ENDPOINT}/exams")
    layout = setup.bench.view.layout

    def open_file(name: str) -> Any:
        return (layout.wrap(name) if name.endswith(".evk") else layout.segment(SID, name)).open("rb")

    assert verify_session(manifest, open_file) == []
    assert layout.manifest(SID).read_bytes() == data
    half = decode(ManifestMessage, setup.said_again()).certificate
    assert half is not None
    certificate = countersign(half.encode(), manifest, data, setup.bench.controller_key)
    verify_certificate(certificate, ca, setup.bench.trust.controller_key)
    assert (certificate.body.outcome, certificate.body.leaves) == ("complete", 6)
    setup.restart()
    assert decode(ManifestMessage, setup.said_again()).certificate == half  # kept nowhere, and the same again
    setup.restart()
    assert setup.node.only(FromNode.MANIFEST) != []  # said again, the same one
    assert setup.bench.certificates.manifest(SID) == data


def test_what_the_desk_noted_stands_in_the_certificate_it_signs(setup: Setup) -> None:
    """Events written through the store, as the camera process does: the room finds the same by itself, and signs."""
    assert setup.node.take(setup.bench.start())
    desk = setup.bench.record(fragments=3, end=False)
    utc = "2026-11-22T09:00:04.000Z"
    for start, end in ((FRAGMENT_90K, 2 * FRAGMENT_90K), (2 * FRAGMENT_90K, 3 * FRAGMENT_90K)):
        desk.store.append_event(
            SID, {"kind": "picture", "at": utc, "finding": "black", "from_90k": start, "to_90k": end}
        )
    desk.store.append_event(
        SID, {"kind": "clock_step", "at": utc, "at_90k": FRAGMENT_90K, "by_ms": 3_600_000}
    )
    desk.store.add_gap(SID, 3 * FRAGMENT_90K, 4 * FRAGMENT_90K, "camera lost: unplugged")
    assert setup.node.take(EndSession(sid=SID))
    desk.store.end_session(SID, "2026-11-22T10:00:00.000Z")
    desk.store.close()
    setup.witness_all()
    message = decode(ManifestMessage, setup.said_again())
    assert message.certificate is not None
    bench, data = setup.bench, message.manifest.encode()
    manifest = verify_manifest(data, bench.authority.certificate, bench.trust.controller_key)
    certificate = countersign(message.certificate.encode(), manifest, data, bench.controller_key)
    verify_certificate(certificate, bench.authority.certificate, bench.trust.controller_key)
    assert certificate.body.outcome == "with gaps"
    assert [(line.start_90k, line.end_90k, line.kind) for line in certificate.lines or ()] == [
        (FRAGMENT_90K, FRAGMENT_90K, "clock step"),
        (FRAGMENT_90K, 3 * FRAGMENT_90K, "black"),
        (3 * FRAGMENT_90K, 4 * FRAGMENT_90K, "gap"),
    ]


def test_a_slow_room_has_seen_what_it_answers_for(setup: Setup) -> None:
    """Each cosignature comes after the next fragment: late, but nothing is unwitnessed."""
    assert setup.node.take(setup.bench.start())
    desk = setup.bench.record(end=False)
    video = desk.segment()
    for number in range(3, 60):
        setup.bench.clock.advance(2)
        messages = setup.node.only(FromNode.CHECKPOINT)
        video.put(RecordKind.FRAGMENT, 100, number * FRAGMENT_90K)
        for payload in messages:
            setup.node.sessions.witnessed(setup.controller.answer(decode(CheckpointMessage, payload)))
    assert setup.bench.ledger.get(f"unwitnessed:{SID}") is None
    assert int(setup.bench.ledger.get(f"witnessed_until:{SID}") or 0) > 55 * FRAGMENT_90K
    desk.store.close()


def test_no_certificate_while_recording_or_unwitnessed(setup: Setup) -> None:
    assert setup.node.take(setup.bench.start())
    desk = setup.bench.record(end=False)
    setup.witness_all()
    assert setup.node.only(FromNode.MANIFEST) == []
    assert setup.node.take(EndSession(sid=SID))
    setup.node.connected = False
    desk.store.append_event(SID, {"kind": "camera_back"})
    desk.store.end_session(SID, "2026-11-22T10:00:00.000Z")  # leaves the segment open-ended
    desk.store.close()
    assert setup.node.only(FromNode.MANIFEST) == []
    setup.node.connected = True
    assert setup.bench.certificates.manifest(SID) is None
    setup.node.sessions.connection_began()
    setup.witness_all()
    assert len(setup.node.only(FromNode.MANIFEST)) == 1


def test_manifest_is_said_again_ever_more_rarely_and_at_once_on_a_new_connection(setup: Setup) -> None:
    setup.certify()
    said = [second for second in range(1, 100) if setup.node.only(FromNode.MANIFEST)]
    assert said == [10, 30, 70]
    setup.node.sessions.connection_began()
    assert setup.node.only(FromNode.MANIFEST) != []
    assert setup.node.take(Hold(sid=SID, reason="talk first"))
    assert setup.node.only(FromNode.MANIFEST, 1000) == []


def test_time_without_the_room_is_named_in_the_manifest(setup: Setup) -> None:
    assert setup.node.take(setup.bench.start())
    desk = setup.bench.record(fragments=2, end=False)
    setup.witness_all()
    setup.node.connected = False
    video = desk.segment()
    for number in range(2, 22):
        video.put(RecordKind.FRAGMENT, 100, number * FRAGMENT_90K)
        setup.node.step(2)
    setup.restart()
    setup.witness_all()
    video.seal(22 * FRAGMENT_90K)
    desk.store.end_session(SID, "2026-11-22T10:00:00.000Z")
    desk.store.close()
    assert setup.node.take(EndSession(sid=SID))
    setup.witness_all()
    data = decode(ManifestMessage, setup.node.only(FromNode.MANIFEST)[0]).manifest
    gaps = json.loads(data)["body"]["gaps"]
    assert [(gap["start_90k"], gap["end_90k"], gap["unwitnessed"]) for gap in gaps] == [
        (2 * FRAGMENT_90K, 22 * FRAGMENT_90K, True)
    ]


def test_nothing_leaves_before_the_release(setup: Setup) -> None:
    """F122: no request, no byte, even for grants that the controller signed; the control is the release itself."""
    manifest = setup.certify()
    setup.give(setup.grants(GrantRequest(sid=SID, objects=())))
    assert setup.node.only(FromNode.GRANT_REQUEST, 100) == []
    assert setup.node.take(Hold(sid=SID, reason="talk first"))
    assert setup.node.only(FromNode.GRANT_REQUEST, 100) == []
    assert (setup.node.sender.sent_bytes, setup.bucket.requests) == (0, [])
    assert setup.node.take(approval(manifest))
    setup.give(setup.grants(setup.request()))
    setup.node.finish_puts(3)
    assert setup.node.sender.sent_bytes > 0


def test_whole_session_reaches_the_storage(setup: Setup) -> None:
    manifest = setup.release()
    first = setup.request()
    assert {item.name for item in first.objects} == {
        "0-video-0.evf", f"{SID}.0.media.evk", "approval.json", "manifest.json",
    }  # fmt: skip
    setup.give(setup.grants(first))
    assert {result.outcome for result in setup.node.finish_puts(3)} == {Outcome.SENT}
    setup.give(setup.grants(setup.request(0.1)))  # progress was made: asked again at once
    setup.node.finish_puts(1)
    assert setup.bucket.objects["manifest.json"] == manifest
    approved = json.loads(setup.bucket.objects["approval.json"])["body"]["order"]
    assert approved["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    setup.give(setup.grants(setup.request(0.1)))
    (facts,) = setup.node.sessions.facts()
    assert (facts.objects_there, facts.objects_total, phase_of(facts)) == (4, 4, SessionPhase.SYNCING)
    assert setup.node.take(
        ConfirmSynced(sid=SID, manifest_sha256=hashlib.sha256(manifest).hexdigest(), objects=4)
    )
    assert setup.node.step(100) == []
    (facts,) = setup.node.sessions.facts()
    assert phase_of(facts) is SessionPhase.SYNCED


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://s3.us-east-1.storage.example",
        "http://s3.eu-west-1.storage.example",
        "https://s3.eu-west-1.storage.example:8443",
        "https://s3.eu-west-1.storage.example@evil.example",
        "https://s3.eu-west-1.storage.example.evil.example",
        "https://s3.eu-west-1.storage.example\\@evil.example",
        "https://s3.eu-west-1.storage.exa\nmple",
    ],
)
def test_address_outside_the_eu_list_gets_no_byte(setup: Setup, endpoint: str) -> None:
    """F119: one wrong address and nothing of the answer is sent, though the controller signed it."""
    setup.release()
    request = setup.request()
    grants = json.loads(setup.grants(request))["body"]["grants"]
    grants[-1]["url"] = f"{endpoint}/exams/x"
    setup.give(setup.grants(request, grants=grants))
    assert setup.node.done.empty()
    assert (setup.node.sender.sent_bytes, setup.bucket.requests) == (0, [])
    assert any("EU list" in fault or "upload address" in fault for fault in setup.node.sessions.faults())
    setup.give(setup.grants(setup.request()))  # the control: the listed address gets it
    setup.node.finish_puts(3)
    assert setup.node.sender.sent_bytes > 0
    assert setup.node.sessions.faults() == []


def test_grants_of_another_key_desk_or_session_are_not_followed(setup: Setup) -> None:
    setup.release()
    request = setup.request()
    setup.give(setup.grants(request, key=Ed25519PrivateKey.generate()))
    setup.give(setup.grants(request, desk="desk-8"))
    setup.give(setup.grants(request, room="r9"))
    setup.give(setup.grants(request, sid="0" * 32))
    assert setup.node.sender.sent_bytes == 0
    assert "not signed by this room's controller" in setup.node.sessions.faults()[0]


def test_grants_delivered_twice_are_followed_once(setup: Setup) -> None:
    setup.release()
    payload = setup.grants(setup.request())
    setup.give(payload)
    setup.give(payload)
    setup.node.finish_puts(3)
    assert len(setup.bucket.requests) == 3
    assert setup.request(0).sid == SID  # asked again, waits for an answer
    setup.give(payload)
    assert setup.node.done.empty()


def test_forbidden_is_an_alarm_and_waits_for_a_new_grant(setup: Setup) -> None:
    """openpilot counted 401 and 403 as uploaded; here it stops the round and says so."""
    setup.release()
    setup.bucket.status = {"0-video-0.evf": 403}
    setup.give(setup.grants(setup.request(), {"0-video-0.evf"}))
    (result,) = setup.node.finish_puts(1)
    assert (result.outcome, result.reason) == (Outcome.FORBIDDEN, "storage answered 403 AccessDenied")
    assert "refused 0-video-0.evf: storage answered 403" in setup.node.sessions.faults()[0]
    assert setup.states()["0-video-0.evf"] == "failed"
    assert setup.node.only(FromNode.GRANT_REQUEST, 30) == []
    setup.bucket.status = {}
    setup.give(setup.grants(setup.request(31)))
    setup.node.finish_puts(3)
    assert setup.node.sessions.faults() == []
    assert "0-video-0.evf" in setup.bucket.objects


@pytest.mark.parametrize("status", [500, 503, 400, 307, 201])
def test_anything_but_200_is_asked_about_again_with_growing_patience(setup: Setup, status: int) -> None:
    setup.release()
    setup.bucket.status = {"0-video-0.evf": status}
    waits = []
    for _ in range(3):
        request = setup.request(0) if waits else setup.request()
        setup.give(setup.grants(request, {"0-video-0.evf"}))
        (result,) = setup.node.finish_puts(1)
        assert result.outcome is Outcome.LATER
        wait_s = 0.0
        while not setup.node.only(FromNode.GRANT_REQUEST, 0.5):
            wait_s += 0.5
        waits.append(wait_s)
        setup.node.sessions.connection_began()
    assert waits == [0.5, 1.5, 3.5]
    assert f"storage answered {status}" in setup.node.sessions.faults()[0]


def test_altered_and_missing_files_are_set_aside_and_the_others_go_on(setup: Setup) -> None:
    """Teleport #61538: one corrupt file stopped every upload."""
    setup.release()
    layout = setup.bench.view.layout
    segment = layout.segment(SID, "0-video-0.evf")
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    layout.wrap(f"{SID}.0.media.evk").unlink()
    setup.give(setup.grants(setup.request()))
    outcomes = {result.name: result.outcome for result in setup.node.finish_puts(3)}
    assert outcomes == {
        "0-video-0.evf": Outcome.UNFIT, f"{SID}.0.media.evk": Outcome.UNFIT, "approval.json": Outcome.SENT,
    }  # fmt: skip
    assert set(setup.bucket.objects) == {"approval.json"}
    assert setup.states()["0-video-0.evf"] == "quarantined"
    faults = setup.node.sessions.faults()
    assert any("0-video-0.evf is set aside: was altered" in fault for fault in faults)
    assert any("evk is set aside: cannot be read" in fault for fault in faults)
    setup.restart()
    assert {item.name for item in setup.request().objects} == {"approval.json", "manifest.json"}


def test_restart_asks_what_the_bucket_has(setup: Setup) -> None:
    setup.release()
    setup.give(setup.grants(setup.request(), {"0-video-0.evf"}))
    setup.node.done.get(timeout=5)  # sent, and the process is killed before it could note it
    setup.restart()
    setup.give(setup.grants(setup.request()))
    setup.node.finish_puts(2)
    sent = [request.url.path.rsplit("/", 1)[1] for request in setup.bucket.requests]
    assert sorted(sent) == ["0-video-0.evf", f"{SID}.0.media.evk", "approval.json"]


def test_hold_stops_an_upload_under_way(setup: Setup) -> None:
    setup.release()
    payload = setup.grants(setup.request())
    assert setup.node.take(Hold(sid=SID, reason="stop"))
    setup.give(payload)
    assert setup.node.sender.sent_bytes == 0
    assert setup.node.only(FromNode.GRANT_REQUEST, 100) == []


def test_lost_answer_is_asked_for_again(setup: Setup) -> None:
    setup.release()
    setup.request()
    assert setup.node.only(FromNode.GRANT_REQUEST, 10) == []
    setup.request(5)
    setup.node.sessions.connection_began()
    setup.request(0)


def test_what_the_room_does_not_grant_is_told(setup: Setup) -> None:
    setup.release()
    request = setup.request()
    setup.give(setup.grants(request, set(), refused={"0-video-0.evf": "its size is not the manifest's"}))
    assert setup.states()["0-video-0.evf"] == "refused"
    assert "granted no upload of 0-video-0.evf" in setup.node.sessions.faults()[0]


def test_lost_segment_is_named_in_the_manifest_and_the_rest_is_certified(setup: Setup) -> None:
    assert setup.node.take(setup.bench.start())
    desk = setup.bench.record(end=False)
    desk.store.close()
    setup.witness_all()
    RecordingView(setup.bench.store).layout.segment(SID, "0-video-0.evf").unlink()
    again = Desk(setup.bench.store, clock=setup.bench.clock)  # the start that recovers
    again.store.end_session(SID, "2026-11-22T10:00:00.000Z")
    again.store.close()
    assert setup.node.take(EndSession(sid=SID))
    setup.witness_all()
    data = decode(ManifestMessage, setup.node.only(FromNode.MANIFEST)[0]).manifest.encode()
    ca = setup.bench.authority.certificate
    manifest = verify_manifest(data, ca, setup.bench.trust.controller_key)
    assert manifest.segments == ()
    assert len(manifest.lost) == 4
    assert {leaf.name for leaf in manifest.lost} == {"0-video-0.evf"}
    assert manifest.gaps


def test_released_session_without_its_manifest_is_told_and_sends_nothing(setup: Setup) -> None:
    setup.release()
    setup.bench.view.layout.manifest(SID).unlink()
    setup.restart()
    assert setup.node.only(FromNode.GRANT_REQUEST, 100) == []
    assert "approval or manifest is gone" in setup.node.sessions.faults()[0]
