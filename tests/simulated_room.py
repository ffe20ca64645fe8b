"""A whole room in one process, by a clock that tests turn: real broker, controller, HTTPS, ledger, store and S3.

Only the camera is played by hand: what it would have filmed is written by the recorder's own code.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.camera.encoder import Fragment
from appliance.camera.orders import RecordingOrder
from appliance.camera.recorder import EpochRecorder
from appliance.clock import SystemClock, boot_id, utc_text
from appliance.config import NodeConfig, RoomConfig
from appliance.evf.canonical import canonical
from appliance.evf.recipients import RecipientSet, RepresentativeKey, sign_recipient_set
from appliance.local_link import LocalServer
from appliance.policy import sign_policy
from appliance.room.accounts import add_account
from appliance.room.broker import run_broker
from appliance.room.process import run
from appliance.store.ledger import LedgerView
from appliance.store.recording import RecordingStore
from appliance.store.view import RecordingView
from appliance.sync.process import SyncProcess
from appliance.trust import load_private_key, load_public_key
from demo.controller_client import ControllerClient
from demo.room import free_port, port_answers, tmpfs_folder, wait_until
from provisioning.ca import create_room
from provisioning.certificates import public_key_line
from provisioning.desk import DeskSettings, write_bundle
from tests.manual_clock import ManualClock
from tests.storages import BUCKET, REGION
from tests.unit.test_room_kit import PASSWORD
from tests.unit.test_sync_room import policy

ROOM, DESK, INSTITUTION = "r2.14", "desk-3", "uni"
INIT = Fragment("init", b"init" * 50, 0, 0, False, 0)
CODEC = "avc1.42c01f"
FRAGMENT_90K = 180_000  # 2 s


@dataclass
class Recording:
    """What the camera process holds of one session: its store and recorder."""

    sid: str
    recorder: EpochRecorder
    fragments: int = 0


class Node:
    """One machine: the real sync process, turned by hand, and the camera process's part."""

    def __init__(self, room: SimulatedRoom, config: NodeConfig, folder: Path, clock: ManualClock) -> None:
        self.clock = clock
        self.config = config.model_copy(update={"store": folder / "store", "run_dir": folder})
        self.store = RecordingStore(self.config.store, clock)
        self.view = RecordingView(self.config.store)
        self.ledger = LedgerView(self.config.store / "ledger.db")
        self.recording: Recording | None = None
        self.camera_problem: str | None = None
        self._recipients = room.recipients
        self._local = LocalServer(folder / "camera.sock", lambda _p, _m: None, lambda _p: None)
        self._facts_ns = 0
        self.sync = SyncProcess(self.config, clock)

    def turn(self, wait_s: float = 0.0) -> None:
        """The camera's word once a second of its clock, and one turn of the sync process."""
        if self.clock.mono_ns() >= self._facts_ns:
            self._facts_ns = self.clock.mono_ns() + 10**9
            recording = self.recording is not None
            facts = {
                "type": "facts", "camera_open": recording, "camera_problem": self.camera_problem,
                "light_on": recording, "inference_rate_hz": None, "faults": [],
            }  # fmt: skip
            self._local.broadcast(facts)
        self.sync.turn(wait_s)

    def begin(self) -> Recording:
        """Follow the order in the ledger, as the camera process does."""
        order = self.ledger.wanted_session()
        assert order is not None
        wanted = RecordingOrder.read(order, load_public_key(self.config.trust.root_key))
        self.store.begin_session(wanted.new_session(self.config, self.clock, 1))
        row = self.store.active_session()
        assert row is not None
        recorder = EpochRecorder(
            self.store, row, self._recipients, load_private_key(self.config.trust.device_key), self.clock, boot_id(),
            covered_until_90k=None, gap_cause="camera was starting",
        )  # fmt: skip
        self.recording = Recording(row.sid, recorder)
        return self.recording

    def film(self, fragments: int, size_bytes: int = 300, each: Callable[[int], None] | None = None) -> None:
        """So many fragments of 2 s each; `each` is called after every one."""
        recording = self.recording
        assert recording is not None
        for number in range(fragments):
            self.clock.advance(2)
            start_90k = recording.fragments * FRAGMENT_90K
            data = number.to_bytes(4, "big") + b"x" * (size_bytes - 4)
            assert recording.recorder.fragment(
                Fragment("fragment", data, start_90k, FRAGMENT_90K, True, 30), INIT, CODEC
            )
            recording.fragments += 1
            if each is not None:
                each(number)

    def finish(self) -> None:
        """Seal and end, once the end was ordered."""
        recording = self.recording
        assert recording is not None
        recording.recorder.close(recording.fragments * FRAGMENT_90K)
        self.store.end_session(recording.sid, utc_text(self.clock.wall()))
        self.recording = None

    def restart_sync(self) -> None:
        """Stop the sync process and start it again."""
        self.sync.close()
        self.sync = SyncProcess(self.config, self.clock)

    def close(self) -> None:
        self.sync.close()
        self._local.close()
        self.store.close()
        self.view.close()
        self.ledger.close()


class SimulatedRoom:
    """Provisioned, with every part down; the parts share `clock` unless a test gives a node one of its own."""

    def __init__(self, folder: Path, storage_port: int, credentials: Path | None = None) -> None:
        now = SystemClock()
        self.folder = folder
        self.clock = ManualClock(now.mono_ns(), now.wall())
        self.root_key = Ed25519PrivateKey.generate()
        self.authority = create_room(folder / "room", ROOM, clock=self.clock)
        person = RepresentativeKey(b"\x01" * 32).representative("Board")
        self.recipients = RecipientSet(INSTITUTION, 1, utc_text(self.clock.wall()), (person,))
        (folder / "root.pub").write_bytes(public_key_line(self.root_key.public_key()))
        (folder / "recipients.json").write_bytes(
            canonical(sign_recipient_set(self.recipients, self.root_key))
        )
        self.broker_port, self.https_port = free_port(), free_port()
        endpoint = f"http://127.0.0.1:{storage_port}"
        trust = folder / "room" / "trust"
        data = folder / "data"
        data.mkdir()
        self.config = RoomConfig.model_validate(
            {
                "institution": INSTITUTION, "room": ROOM, "listen_port": self.https_port,
                "broker_port": self.broker_port, "data": data, "desks": [{"id": DESK, "label": "3"}],
                "storage": {
                    "endpoint": endpoint, "region": REGION, "bucket": BUCKET,
                    "credentials": credentials or folder / "credentials.toml",
                },
                "trust": {
                    "room_ca": trust / "room-ca.pem", "broker_certificate": trust / "broker.pem",
                    "broker_key": trust / "broker.key", "controller_certificate": trust / "controller.pem",
                    "controller_tls_key": trust / "controller-tls.key",
                    "signing_key": trust / "controller-signing.key", "root_key": trust / "root.pub",
                    "recipient_set": trust / "recipient-set.json",
                },
            }
        )  # fmt: skip
        if credentials is None:
            (folder / "credentials.toml").write_text('access_key_id = "k"\nsecret_access_key = "s"\n')
        exam = policy(
            exam_date=self.clock.wall().date(), duration_s=36_000, video={"bitrate_bps": 100_000},
            storage=[{"endpoint": endpoint, "region": REGION, "bucket": BUCKET}],
        )  # fmt: skip
        (data / "policy.json").write_bytes(canonical(sign_policy(exam, self.root_key)))
        self.node_config = self.enrol(DESK)
        add_account(data / "room.db", "lead-1", "lead", PASSWORD, self.clock)
        self.broker: subprocess.Popen[bytes] | None = None
        self.client: ControllerClient | None = None
        self.nodes: list[Node] = []
        self._controller: threading.Thread | None = None
        self._stop = threading.Event()
        self._memory: list[Path] = []

    def enrol(self, desk: str, clock: ManualClock | None = None) -> NodeConfig:
        """A bundle for a desk; `clock`: when its certificate is made."""
        return write_bundle(
            self.authority,
            DeskSettings(desk=desk, institution=INSTITUTION, broker_host="127.0.0.1", broker_port=self.broker_port),
            self.folder / "recipients.json", self.folder / "root.pub", self.folder / desk,
            clock=clock or self.clock, replace=True,
        )  # fmt: skip

    def start_broker(self) -> None:
        self.broker = run_broker(self.config, self.folder / "broker")

    def kill_broker(self) -> None:
        assert self.broker is not None
        self.broker.kill()
        self.broker.wait()
        self.broker = None

    def start_controller(self) -> None:
        self._stop = threading.Event()
        stop = self._stop
        self._controller = threading.Thread(target=lambda: run(self.config, stop, self.clock))
        self._controller.start()
        wait_until("controller answers", lambda: port_answers(self.https_port), 20, 0.02)
        self.client = ControllerClient(f"https://127.0.0.1:{self.https_port}", self.config.trust.room_ca)
        self.client.log_in("lead-1", PASSWORD)

    def stop_controller(self) -> None:
        assert self._controller is not None
        if self.client is not None:
            self.client.close()
        self._stop.set()
        self._controller.join(60)
        assert not self._controller.is_alive()
        self._controller = None

    def start_node(self, clock: ManualClock | None = None, config: NodeConfig | None = None) -> Node:
        """A machine with an empty store of its own, in memory."""
        self._memory.append(tmpfs_folder())
        node = Node(self, config or self.node_config, self._memory[-1], clock or self.clock)
        self.nodes.append(node)
        return node

    def pump(
        self, what: str, condition: Callable[[], Any], timeout_s: float = 30.0, pace: float = 1.0
    ) -> Any:
        """Turn every node, `pace` seconds of the clocks a second, until the condition holds; returns its value."""
        ends = time.monotonic() + timeout_s
        while not (found := condition()):
            if time.monotonic() > ends:
                raise AssertionError(f"never saw: {what}; the page says {self.said()}")
            for _ in range(5):
                self.pass_time(0.02 * pace)
                for node in self.nodes:
                    node.turn(0.02 / len(self.nodes))
        return found

    def pass_time(self, seconds: float) -> None:
        """On every clock."""
        for clock in {
            id(clock): clock for clock in (self.clock, *(node.clock for node in self.nodes))
        }.values():
            clock.advance(seconds)

    # --- what the page says -------------------------------------------------------------------------------------------

    @property
    def page(self) -> ControllerClient:
        assert self.client is not None
        return self.client

    def tile(self) -> dict[str, Any]:
        return self.page.tile(DESK)

    def technical(self) -> str:
        return "; ".join(self.tile()["technical"])

    def needs(self) -> str:
        return "; ".join(need["words"] for need in self.page.get("/api/room")["needs"])

    def said(self) -> dict[str, Any]:
        """For a message: the tile and the needs."""
        if self._controller is None:
            return {}
        return {"tile": self.tile(), "needs": self.needs()}

    # --- a session ----------------------------------------------------------------------------------------------------

    def begin(self, node: Node) -> str:
        """Start by the page, up to the recorder's first record."""
        self.pump("ready", lambda: self.tile()["state"] == "ready")
        body = {"desk": DESK, "candidate_code": "C-1"}
        sid = self.page.post("/api/sessions/start", body)["sid"]
        self.pump("the order", lambda: node.ledger.wanted_session() is not None)
        node.begin()
        return str(sid)

    def witnessed(self, node: Node, sid: str) -> bool:
        """Whether the controller has cosigned every leaf there is."""
        witness = node.ledger.witness(sid)
        return witness is not None and witness.size == node.view.leaf_count(sid)

    def film_in_sight(self, node: Node, sid: str, fragments: int, size_bytes: int = 300) -> None:
        """Never more than 8 s of film without the room's cosignature, however slow this machine is."""
        for begun in range(0, fragments, 4):
            node.film(min(4, fragments - begun), size_bytes)
            self.pump("witnessed", lambda: self.witnessed(node, sid), pace=0.1)

    def end(self, node: Node, sid: str) -> dict[str, Any]:
        """End by the page, up to the certificate; returns the end-of-exam row."""
        self.page.post(f"/api/sessions/{sid}/end")
        self.pump("the end's order", lambda: node.ledger.is_ended(sid))
        node.finish()
        self.pump("the certificate", lambda: self.page.session(sid)["certified"])
        return self.page.session(sid)

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        if self._controller is not None:
            self.stop_controller()
        if self.broker is not None:
            self.kill_broker()
        for folder in self._memory:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def simulated_room(folder: Path, storage_port: int = 9, **options: Any) -> Iterator[SimulatedRoom]:
    """Broker, controller and nothing else up."""
    room = SimulatedRoom(folder, storage_port, **options)
    try:
        room.start_broker()
        room.start_controller()
        yield room
    finally:
        room.close()
