"""A desk as provisioning leaves it, and a controller that signs and witnesses; the other sync tests build on it."""

from __future__ import annotations

import base64
import json
from datetime import date
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.clock import utc_text
from appliance.config import NodeConfig
from appliance.evf.canonical import canonical
from appliance.evf.format import RecordKind
from appliance.evf.recipients import RecipientSet, RepresentativeKey, sign_recipient_set
from appliance.evidence.checkpoint import Witness, cosign, node_key_name, session_origin
from appliance.policy import ExamPolicy, sign_policy
from appliance.protocol import (
    COMMAND_PURPOSE,
    CheckpointMessage,
    Command,
    EndSession,
    Order,
    StartSession,
    WitnessMessage,
    sign_message,
)
from appliance.store.layout import Layout
from appliance.store.ledger import Ledger
from appliance.store.view import RecordingView
from appliance.sync.certificate import Certificates
from appliance.sync.orders import DeskFacts, Orders
from appliance.sync.room_clock import ClockReading
from appliance.sync.trust import load_trust
from appliance.trust import load_private_key
from provisioning.ca import create_room
from provisioning.certificates import public_key_line
from provisioning.desk import DeskSettings, write_bundle
from tests.manual_clock import ManualClock
from tests.unit.test_store_builders import FRAGMENT_90K, SID, Desk

ROOM, DESK, INSTITUTION = "r2.14", "desk-7", "uni"
ENDPOINT = "https://s3.eu-west-1.storage.example"
READY = DeskFacts(ClockReading(0.01, True), None)
POLICY: dict[str, Any] = {
    "id": "statistics-1",
    "version": 3,
    "institution": INSTITUTION,
    "exam": "statistics-1",
    "exam_title": "Statistics I",
    "authority": "Exam board",
    "legal_basis": "public_task",
    "dpa_ref": "DPA-7",
    "exam_date": date(2026, 11, 22),
    "duration_s": 60,
    "record_video": True,
    "preview": True,
    "video": {"bitrate_bps": 100_000},
    "storage": [{"endpoint": ENDPOINT, "region": "eu-west-1", "bucket": "exams"}],
}


def policy(**changes: Any) -> ExamPolicy:
    return ExamPolicy.model_validate(POLICY | changes)


class Bench:
    """One provisioned desk in a folder; `store` and `config` are what the node's processes get."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.root_key = Ed25519PrivateKey.generate()
        self.authority = create_room(folder / "room", ROOM, clock=self.clock)
        (folder / "root.pub").write_bytes(public_key_line(self.root_key.public_key()))
        self.recipient_file = folder / "recipients.json"
        self.write_recipients(self.recipient_file, 1)
        self.store = folder / "store"
        run_dir = folder / "run"
        run_dir.mkdir(exist_ok=True)
        options = {"broker_host": "127.0.0.1", "store": self.store, "run_dir": run_dir} | settings
        self.config: NodeConfig = write_bundle(
            self.authority,
            DeskSettings(desk=DESK, institution=INSTITUTION, **options),
            self.recipient_file,
            folder / "root.pub",
            folder / "node",
            clock=self.clock,
        )
        self.trust = load_trust(self.config)
        self.controller_key = load_private_key(folder / "room" / "trust" / "controller-signing.key")
        self.serial = 0
        self.open_ledger()

    def open_ledger(self) -> None:
        """As a start of the process does."""
        self.ledger = Ledger(Layout(self.store).ledger_db)
        self.view = RecordingView(self.store)
        self.certificates = Certificates(self.view, self.trust)
        self.orders = Orders(
            self.config, self.trust, self.ledger, self.view, self.clock, self.certificates.sha256
        )

    def close(self) -> None:
        self.ledger.close()
        self.view.close()

    def write_recipients(self, path: Path, version: int, institution: str = INSTITUTION) -> None:
        person = RepresentativeKey(b"\x01" * 32).representative("Board")
        recipients = RecipientSet(institution, version, "2026-11-01T09:00:00.000Z", (person,))
        path.write_bytes(canonical(sign_recipient_set(recipients, self.root_key)))

    def start(self, sid: str = SID, **changes: Any) -> StartSession:
        """An order to start under a signed policy."""
        document = sign_policy(policy(**changes), self.root_key)
        return StartSession(sid=sid, candidate_code="C-0042", policy=document)

    def command(self, order: Order, key: Ed25519PrivateKey | None = None, **changes: Any) -> bytes:
        """The signed command with the next serial."""
        self.serial += 1
        body = {"room": ROOM, "desk": DESK, "serial": self.serial, "issued": utc_text(self.clock.wall())}
        return sign_message(
            COMMAND_PURPOSE,
            Command.model_validate(body | {"order": order} | changes),
            key or self.controller_key,
        )

    def record(self, fragments: int = 3, sid: str = SID, end: bool = True) -> Desk:
        """Let the camera's side record the session (it has been ordered or not); closed again when it ends."""
        desk = Desk(self.store, clock=self.clock)
        desk.begin(sid)
        desk.store.append_event(sid, {"kind": "epoch_open", "epoch": 0})
        video = desk.segment(sid=sid)
        video.put(RecordKind.INIT, 700, 0)
        for number in range(fragments):
            video.put(RecordKind.FRAGMENT, 4000, number * FRAGMENT_90K)
        if end:
            video.seal(fragments * FRAGMENT_90K)
            desk.store.end_session(sid, utc_text(self.clock.wall()))
            desk.store.close()
        return desk

    def order_and_record(self, fragments: int = 3) -> None:
        """Start, record, end."""
        assert self.orders.take(self.command(self.start()), READY).accepted
        self.record(fragments)
        assert self.orders.take(self.command(EndSession(sid=SID)), READY).accepted


class Controller:
    """The controller's witness of one session, as the room keeps it."""

    def __init__(self, bench: Bench, sid: str = SID) -> None:
        self._bench = bench
        self._sid = sid
        public_key = bench.trust.device_key.public_key()
        self.witness = Witness(session_origin(DESK, sid), node_key_name(DESK), public_key)

    def answer(self, message: CheckpointMessage) -> WitnessMessage:
        leaves = [base64.b64decode(leaf) for leaf in message.leaves]
        checkpoint = self.witness.accept(message.note, message.first_index, leaves)
        line = cosign(message.note, self._bench.controller_key, ROOM, 1_790_000_000)
        return WitnessMessage(sid=self._sid, size=checkpoint.size, cosignature=line)


def test_provisioned_desk_loads_its_trust(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.trust.controller_key == bench.controller_key.public_key()
    assert len(bench.trust.chain_pem) == 2
    assert json.loads(bench.recipient_file.read_text())["purpose"] == "recipient-set"
    bench.close()
