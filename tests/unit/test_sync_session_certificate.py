"""From the first leaf to the certificate: what is witnessed, what is missing, and when it is said."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from appliance.camera.orders import RecordingOrder
from appliance.clock import utc_text
from appliance.evf.format import RecordKind
from appliance.evidence.certifying import Certificate, countersign, verify_certificate
from appliance.evidence.manifest import verify_manifest, verify_session
from appliance.protocol import CheckpointMessage, EndSession, FromNode, Hold, ManifestMessage, decode
from appliance.store.view import RecordingView
from tests.syncing_desk import Setup, setup
from tests.unit.test_store_builders import FRAGMENT_90K, SID, Desk
from tests.unit.test_sync_room import ENDPOINT

__all__ = ["setup"]


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


@pytest.mark.parametrize(
    ("stated", "until"), [(date(2027, 11, 22), "2027-11-22"), (None, "2027-05-22")], ids=["a year", "unsaid"]
)
def test_weeks_without_the_room_move_no_date(setup: Setup, stated: date | None, until: str) -> None:
    """F108: it is kept from the day of the exam, however late it is certified and sent."""
    bench = setup.bench
    assert setup.node.take(bench.start(retain_until=stated))
    order = RecordingOrder.read(bench.ledger.order(SID), bench.trust.root_key)
    desk = Desk(bench.store, clock=bench.clock)
    desk.store.begin_session(order.new_session(bench.config, bench.clock, 1))
    desk.begin_epoch()
    desk.store.append_event(SID, {"kind": "epoch_open", "epoch": 0})
    bench.clock.advance(21 * 24 * 3600)
    assert setup.node.take(EndSession(sid=SID))
    desk.store.end_session(SID, utc_text(bench.clock.wall()))
    desk.store.close()
    setup.witness_all()
    data = decode(ManifestMessage, setup.said_again()).manifest.encode()
    manifest = verify_manifest(data, bench.authority.certificate, bench.trust.controller_key)
    assert (manifest.started[:10], manifest.ended[:10]) == ("2026-11-22", "2026-12-13")
    assert manifest.retain_until == until


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
    certificate = countersigned(setup)
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


def test_lost_key_is_a_line_of_the_certificate(setup: Setup) -> None:
    """fsck eats the wrap in mid-session, the desk records on: footage is there and nobody will ever open it."""
    assert setup.node.take(setup.bench.start())
    desk = setup.bench.record(end=False)
    desk.store.close()
    RecordingView(setup.bench.store).layout.wrap(f"{SID}.0.media.evk").unlink()
    again = Desk(setup.bench.store, clock=setup.bench.clock)  # the start that recovers
    assert [wrap.state for wrap in setup.bench.view.wraps(SID)] == ["missing"]
    again.begin_epoch()
    video = again.segment()
    video.put(RecordKind.INIT, 700, 3 * FRAGMENT_90K)
    video.put(RecordKind.FRAGMENT, 4000, 3 * FRAGMENT_90K)
    video.seal(4 * FRAGMENT_90K)
    again.store.end_session(SID, "2026-11-22T10:00:00.000Z")
    again.store.close()
    assert lines_of_certificate(setup) == [
        (0, 3 * FRAGMENT_90K, "gap", "no key is left for epoch 0: its footage cannot be opened")
    ]


def test_segment_whose_first_record_failed_makes_no_gap(setup: Setup) -> None:
    """The row stays, without records and so without times; the camera's first frame comes at 1.5 s."""
    assert setup.node.take(setup.bench.start())
    desk = Desk(setup.bench.store, clock=setup.bench.clock)
    desk.begin()
    desk.segment().file.abandon("cannot append record 0")
    video = desk.segment()
    video.put(RecordKind.INIT, 700, 135_000)
    video.put(RecordKind.FRAGMENT, 4000, 135_000)
    video.seal(135_000 + FRAGMENT_90K)
    desk.store.end_session(SID, "2026-11-22T10:00:00.000Z")
    desk.store.close()
    assert lines_of_certificate(setup) == []


def countersigned(setup: Setup) -> Certificate:
    """The desk's half of the certificate, with that of a room that finds the same."""
    message = decode(ManifestMessage, setup.said_again())
    assert message.certificate is not None
    bench, data = setup.bench, message.manifest.encode()
    manifest = verify_manifest(data, bench.authority.certificate, bench.trust.controller_key)
    certificate = countersign(message.certificate.encode(), manifest, data, bench.controller_key)
    verify_certificate(certificate, bench.authority.certificate, bench.trust.controller_key)
    return certificate


def lines_of_certificate(setup: Setup) -> list[tuple[int, int, str, str]]:
    """Of the ended session, signed by the desk and by a room that finds the same."""
    assert setup.node.take(EndSession(sid=SID))
    setup.witness_all()
    certificate = countersigned(setup)
    lines = certificate.lines or ()
    assert certificate.body.outcome == ("with gaps" if lines else "complete")
    return [(line.start_90k, line.end_90k, line.kind.value, line.cause) for line in lines]
