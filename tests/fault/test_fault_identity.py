"""Certificates that are over or not yet begun, and two machines under one name."""

from __future__ import annotations

import gc
import logging
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from appliance.clock import SystemClock
from appliance.room.expiry import note_certificates
from provisioning.ca import open_authority
from provisioning.certificates import CERTIFICATE_VALIDITY, certificate_pem
from provisioning.renew import BUNDLE_NAME, renew_certificate
from tests.hostile import invigil, is_refusal
from tests.manual_clock import ManualClock
from tests.simulated_room import DESK, Node, SimulatedRoom, simulated_room
from tests.unit.test_room_kit import make_kit

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.room.expiry.LOOK_S", 0.3)


CLIENT = [ExtendedKeyUsageOID.CLIENT_AUTH]


def at(days: float) -> ManualClock:
    """So many days from now."""
    now = SystemClock()
    return ManualClock(now.mono_ns(), now.wall() + timedelta(days=days))


def expired() -> ManualClock:
    """When a certificate was made that expired yesterday."""
    return at(-CERTIFICATE_VALIDITY.days - 1)


# --- certificates


def record_past_a_lost_link(room: SimulatedRoom, node: Node) -> str:
    """A session under way when the broker restarts, so that the desk has to show its certificate again."""
    sid = room.begin(node)
    room.film_in_sight(node, sid, 15)
    return sid


def test_a_desk_whose_certificate_expires_in_an_exam_records_on_and_is_certified_after_its_renewal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with simulated_room(tmp_path) as room:
        node = room.start_node()
        sid = record_past_a_lost_link(room, node)
        # Two years pass in one moment: the same key under a certificate that is over.
        device = room.folder / DESK / "trust" / "device.pem"
        old = renew_certificate(room.authority, DESK, clock=at(0))
        over = room.authority.issue(DESK, old.public_key(), CLIENT, clock=expired())  # type: ignore[arg-type]
        write(room, device, over)
        room.kill_broker()
        node.film(20, each=lambda _: node.turn(0.01))
        room.start_broker()
        day = f"certificate of {DESK} expired on {over.not_valid_after_utc:%Y-%m-%d}"
        room.pump("the desk's log", lambda: day in caplog.text, pace=10)
        room.pump("the page", lambda: day in room.needs(), pace=10)
        assert f"invigil provision renew {DESK}" in room.needs()
        room.pump("no contact", lambda: "no contact" in room.technical())
        node.film(20, each=lambda _: node.turn(0.01))
        assert not room.witnessed(node, sid), "control: without a valid certificate nothing passes"

        done = invigil("provision", "renew", DESK, "--ca", room.folder / "room", "--out", tmp_path / "new")
        assert done.code == 0, done.err
        device.write_bytes((tmp_path / "new" / BUNDLE_NAME).read_bytes())
        room.pump("witnessed again", lambda: room.witnessed(node, sid), pace=10)
        room.pump("the page is calm", lambda: "expired" not in room.needs())
        ended = room.end(node, sid)
        assert ended["problem"] is None
        assert [gap["cause"] for gap in ended["gaps"]] == ["recorded while the room was not reached"]
        assert node.view.gaps(sid) == []


def test_a_session_that_ended_after_its_desks_certificate_waits_for_the_renewal(tmp_path: Path) -> None:
    """A link outlives the certificate that opened it; what would be signed then nobody would believe."""
    with simulated_room(tmp_path) as room:
        node = room.start_node()
        sid = record_past_a_lost_link(room, node)
        device = room.folder / DESK / "trust" / "device.pem"
        valid = device.read_bytes()
        old = renew_certificate(room.authority, DESK, clock=at(0))
        write(room, device, room.authority.issue(DESK, old.public_key(), CLIENT, clock=expired()))  # type: ignore[arg-type]
        room.page.post(f"/api/sessions/{sid}/end")
        room.pump("the end's order", lambda: node.ledger.is_ended(sid))
        node.finish()
        words = f"session {sid[:8]}: no certificate: the desk's certificate was not valid when it ended"
        room.pump("the cause", lambda: words in room.technical(), pace=10)
        assert f"certificate of {DESK} expired on" in room.technical()
        assert not room.page.session(sid)["certified"]
        device.write_bytes(valid)
        room.pump("the certificate", lambda: room.page.session(sid)["certified"], pace=10)
        assert room.page.session(sid)["problem"] is None


def test_thirty_days_ahead_the_page_says_which_certificate(tmp_path: Path) -> None:
    kit = make_kit(tmp_path)
    days = CERTIFICATE_VALIDITY.days
    note_certificates(kit.room)
    assert kit.room.live.room_needs == {}, "control: nothing is said of what is valid for long"
    kit.clock.advance((days - 31) * 86_400)
    note_certificates(kit.room)
    assert kit.room.live.room_needs == {}
    kit.clock.advance(2 * 86_400)
    note_certificates(kit.room)
    said = kit.room.live.room_needs
    assert set(said) == {"expiry-d1", "expiry-d2"}
    assert "certificate of d1 expires on" in said["expiry-d1"]
    assert "invigil provision renew d1" in said["expiry-d1"]
    kit.clock.advance(-days * 86_400)
    note_certificates(kit.room)
    assert "is valid only from" in kit.room.live.room_needs["expiry-d1"]
    kit.close()


@pytest.mark.parametrize(("days", "words"), [(-732, "certificate has expired"), (10, "not yet valid")])
def test_a_broker_whose_certificate_is_not_valid_is_named_on_both_sides(
    days: int, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    room = SimulatedRoom(tmp_path, 9)
    try:
        reissue(room, "broker", at(days))
        room.start_broker()
        room.start_controller()
        node = room.start_node()
        room.pump("the page", lambda: words in room.needs())
        room.pump("the desk's log", lambda: f"certificate verify failed: {words}" in caplog.text.replace(
            "certificate is not", "not"), pace=5)  # fmt: skip
        room.pump("whose", lambda: "certificate of broker" in room.needs())
        assert "invigil provision renew broker" in room.needs()
        assert not node.sync._link.connected
        room.kill_broker()
        done = invigil("provision", "renew", "broker", "--ca", tmp_path / "room")
        assert done.code == 0, done.err
        if days < 0:
            room.start_broker()
            room.pump("the desk", lambda: room.tile()["link"] == "live", pace=5)
            room.pump("calm", lambda: "certificate of broker" not in room.needs())
    finally:
        room.close()
        gc.collect()


def test_renewal_keeps_key_names_and_beginning_and_refuses_what_it_should(tmp_path: Path) -> None:
    with_desk = SimulatedRoom(tmp_path, 9)
    authority, trust = open_authority(tmp_path / "room"), tmp_path / "room" / "trust"
    for name, path in ((DESK, trust / "desks" / f"{DESK}.pem"), ("controller", trust / "controller.pem")):
        old = load(path)
        new = renew_certificate(authority, name, clock=at(700))
        assert load(path) == new
        assert new.public_key() == old.public_key()
        assert new.not_valid_before_utc == old.not_valid_before_utc
        assert new.not_valid_after_utc > old.not_valid_after_utc + timedelta(days=690)
        for extension in old.extensions:
            assert new.extensions.get_extension_for_oid(extension.oid).value == extension.value
    is_refusal(invigil("provision", "renew", DESK, "--ca", tmp_path / "room"), 4, "goes to its node")
    unknown = invigil("provision", "renew", "desk-99", "--ca", tmp_path / "room", "--out", tmp_path / "x")
    is_refusal(unknown, 4, "desk-99.pem is missing")
    authority.revoke(authority.issued_to(DESK))
    revoked = invigil("provision", "renew", DESK, "--ca", tmp_path / "room", "--out", tmp_path / "x")
    is_refusal(revoked, 17, "was revoked")
    with_desk.close()


# --- two machines


def test_two_machines_under_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copied card: both are seen, neither starves the room, and the session that one records comes to its end."""
    with simulated_room(tmp_path) as room:
        node = room.start_node()
        sid = record_past_a_lost_link(room, node)
        monkeypatch.setattr("appliance.sync.process.boot_id", lambda: "c" * 32)
        second = room.start_node()
        words = f"two machines present themselves as {DESK}"
        room.pump("two machines", lambda: words in room.needs(), 60, pace=20)
        fault = f"another machine presents itself as {DESK}"
        room.pump("the desk's own word", lambda: fault in room.technical(), 60, pace=20)

        numbers = connections(node, second)
        node.film(1800, each=lambda number: number % 5 or (node.turn(0.005), second.turn(0.005)))
        more = connections(node, second) - numbers
        print(f"{more} connections of the two in an hour")
        assert 2 <= more <= 40, "they keep the room busy with each other"
        room.pump("still two machines", lambda: words in room.needs(), 60, pace=20)

        room.page.post(f"/api/sessions/{sid}/end")
        room.pump("the end's order", lambda: node.ledger.is_ended(sid), 60, pace=60)
        room.nodes.remove(second)
        second.close()
        node.finish()
        room.pump("the certificate", lambda: room.page.session(sid)["certified"], 60, pace=60)
        assert node.view.gaps(sid) == []
        assert node.view.totals(sid).fragments == 1815
        room.pass_time(1300)
        room.pump("calm again", lambda: words not in room.needs(), pace=5)


def test_control_a_desk_that_is_started_anew_is_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with simulated_room(tmp_path) as room:
        node = room.start_node()
        room.pump("there", lambda: room.tile()["link"] == "live")
        for boot in ("d" * 32, "e" * 32, "f" * 32):
            monkeypatch.setattr("appliance.sync.process.boot_id", lambda boot=boot: boot)
            node.restart_sync()
            room.pump(
                "there again", lambda boot=boot: node.sync._link.connected and room.tile()["link"] == "live"
            )
        assert "two machines" not in room.needs()
        assert "another machine" not in room.technical()


def connections(*nodes: Node) -> int:
    return sum(node.sync._link.number for node in nodes)


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def write(room: SimulatedRoom, device: Path, certificate: x509.Certificate) -> None:
    """On the node and, as enrolment does, on the controller."""
    device.write_bytes(certificate_pem(certificate))
    (room.folder / "room" / "trust" / "desks" / f"{DESK}.pem").write_bytes(certificate_pem(certificate))


def reissue(room: SimulatedRoom, name: str, clock: ManualClock) -> None:
    """The controller's or broker's certificate, made at another time."""
    path = room.folder / "room" / "trust" / f"{name}.pem"
    hosts = ["127.0.0.1", "localhost"]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH]
    key = load(path).public_key()
    path.write_bytes(certificate_pem(room.authority.issue(name, key, usages, hosts, clock)))  # type: ignore[arg-type]
