"""What the room's tests share: a whole room in a temporary folder, and a desk that speaks its part by hand."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from fastapi import FastAPI
from starlette.routing import Mount, Route

from appliance.clock import utc_text
from appliance.config import Desk, RoomConfig, StorageConfig
from appliance.errors import NotTrusted
from appliance.evf.canonical import canonical
from appliance.evidence.certifying import sign_as_desk
from appliance.evidence.checkpoint import node_key_name, session_origin, sign_checkpoint
from appliance.evidence.manifest import EventLeaf, Gap, Manifest, sign_manifest
from appliance.evidence.merkle import Frontier, event_leaf
from appliance.policy import ExamPolicy, Storage, Strict, parse_policy, sign_policy
from appliance.protocol import (
    CheckpointMessage,
    ManifestMessage,
    Preflight,
    Presence,
    Reply,
    SessionPhase,
    SessionReport,
    Status,
    ToNode,
    WitnessMessage,
)
from appliance.room.accounts import add_account
from appliance.room.app import build_app
from appliance.room.core import Room
from appliance.room.database import Database
from appliance.room.intake import Intake
from appliance.room.sessions import Sessions
from appliance.room.trust import RoomKeys
from appliance.room.watching import Watching
from appliance.room.web import CSRF_HEADER, Site
from provisioning.ca import create_room
from provisioning.certificates import certificate_pem
from tests.manual_clock import ManualClock

PASSWORD = "correct horse battery staple"
SID = "ab" * 16
ENDPOINT, REGION, BUCKET = "http://127.0.0.1:9", "eu-test-1", "exams"


def policy_document(root: Ed25519PrivateKey, **changes: Any) -> dict[str, Any]:
    """A signed policy; storage is the one that the room is set to unless changed."""
    body = {
        "id": "stat-2026",
        "version": 3,
        "institution": "uni-x",
        "exam": "statistics-1",
        "exam_title": "Statistics I",
        "authority": "Examination board",
        "legal_basis": "public_task",
        "dpa_ref": "DPA-2026-11",
        "exam_date": date(2026, 11, 22),
        "duration_s": 10_800,
        "record_video": True,
        "face": True,
        "preview": True,
        "storage": (Storage(endpoint=ENDPOINT, region=REGION, bucket=BUCKET),),
    }
    return sign_policy(parse_policy(body | changes), root)


class Browser:
    """Requests straight into the application, with cookies; each runs on a loop of its own."""

    def __init__(self, app: FastAPI, address: str = "192.0.2.77") -> None:
        self._app = app
        self._address = address
        self.cookies = httpx.Cookies()
        self.headers: dict[str, str] = {}

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, json: Any = None, **more: Any) -> httpx.Response:
        return self.request("POST", path, json={} if json is None else json, **more)

    def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, client=(self._address, 50_000))
            async with httpx.AsyncClient(
                transport=transport, base_url="https://room.test", cookies=self.cookies
            ) as client:
                answer = await client.request(method, path, headers=self.headers | (headers or {}), **more)
                self.cookies = client.cookies
                return answer

        return asyncio.run(send())


@dataclass
class Kit:
    """A room without its sockets: what would go out is in `sent`."""

    folder: Path
    clock: ManualClock
    root: Ed25519PrivateKey
    device_keys: dict[str, Ed25519PrivateKey]
    room: Room
    site: Site
    intake: Intake
    sent: list[tuple[str, ToNode, bytes]] = field(default_factory=list)
    opened: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Give the database back; may be called twice."""
        self.opened.close()

    def hear(self, desk: str, *messages: Strict) -> None:
        """Let the room take messages of a desk, and what they set going finish."""

        async def take() -> None:
            for message in messages:
                await self.intake.message(desk, message)
            await self.intake.settled()

        asyncio.run(take())

    def answer(self, desk: str, number: int = 1, refused: str | None = None) -> None:
        """The desk's reply to the order of that number that was made for it."""
        serial = self.serials(desk)[number - 1]
        self.hear(desk, Reply(serial=serial, accepted=refused is None, reason=refused or ""))

    def serials(self, desk: str) -> list[int]:
        """Of all orders that were made for a desk."""
        query = "SELECT serial FROM commands WHERE desk = ? ORDER BY serial"
        return [row[0] for row in self.room.database.transact(lambda c: c.execute(query, (desk,)).fetchall())]

    def client(self) -> Browser:
        """A browser without a log-in."""
        return Browser(build_app(self.site))

    def logged_in(self, role: str, name: str | None = None) -> Browser:
        """A browser of a new account with that role; its POSTs carry the token."""
        name = name or f"{role}-1"
        add_account(self.folder / "data" / "room.db", name, role, PASSWORD, self.clock)
        client = self.client()
        answer = client.post("/api/login", json={"name": name, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        client.headers[CSRF_HEADER] = answer.json()["csrf"]
        return client

    def report(self, sid: str, phase: SessionPhase = SessionPhase.RECORDING, **changes: Any) -> SessionReport:
        values: dict[str, Any] = {
            "sid": sid, "phase": phase, "epoch": 0, "fragments": 30, "durable_bytes": 9_000_000,
            "duration_90k": 60 * 90_000, "leaves": 31, "witnessed": 31,
        }  # fmt: skip
        return SessionReport(**(values | changes))

    def status(self, desk: str, *sessions: SessionReport, **changes: Any) -> Status:
        values: dict[str, Any] = {
            "desk": desk, "boot_id": "b1", "connection": 1, "at": utc_text(self.clock.wall()),
            "preflight": Preflight(ready=True), "camera_open": bool(sessions), "light_on": bool(sessions),
            "recording_age_s": 1.0 if sessions else None, "inference_rate_hz": 5.0 if sessions else None,
            "free_bytes": 50_000_000_000, "clock_offset_s": 0.001, "clock_synced": True, "sessions": sessions,
        }  # fmt: skip
        return Status(**(values | changes))

    def online(self, desk: str, connection: int = 1, boot_id: str = "b1") -> Presence:
        return Presence(desk=desk, boot_id=boot_id, connection=connection, state="online", software="0.1.0")

    def ready(self, *desks: str) -> None:
        """Desks that are here and may start."""
        for desk in desks:
            self.hear(desk, self.online(desk), self.status(desk))

    def certify(self, desk: str, sid: str, /, gaps: tuple[Gap, ...] = (), **changes: Any) -> bytes:
        """Speak a short session's checkpoint and manifest as its desk would; returns the manifest."""
        key = self.device_keys[desk]
        bodies = [{"event": "open"}, {"event": "close"}]
        frontier = Frontier()
        for body in bodies:
            frontier.append(event_leaf(body))
        note = sign_checkpoint(session_origin(desk, sid), 2, frontier.root(), key, node_key_name(desk))
        leaves = tuple(base64.b64encode(event_leaf(body)).decode() for body in bodies)
        before = len(self.sent)
        self.hear(desk, CheckpointMessage(sid=sid, first_index=0, leaves=leaves, note=note))
        answers = [m for d, leaf, m in self.sent[before:] if leaf is ToNode.WITNESS and d == desk]
        line = WitnessMessage.model_validate_json(answers[-1]).cosignature
        assert line is not None
        _, decisions = self.room.live.sessions[sid]
        loaded = self.room.planned()
        assert loaded is not None
        values: dict[str, Any] = {
            "institution": "uni-x", "exam": "statistics-1", "room": self.room.config.room, "desk": desk, "sid": sid,
            "candidate_code": decisions.candidate_code, "policy_id": loaded.policy.id,
            "policy_version": loaded.policy.version, "retain_until": "2027-05-22",
            "started": utc_text(self.clock.wall()), "ended": utc_text(self.clock.wall()), "recipient_set_version": 1,
            "segments": (), "wraps": (), "events": tuple(EventLeaf(i, body) for i, body in enumerate(bodies)),
            "gaps": gaps, "lost": (), "leaves": 2, "checkpoint": note, "cosignature": line,
            "chain_pem": ((self.folder / "trust" / "desks" / f"{desk}.pem").read_text(),),
        }  # fmt: skip
        manifest = Manifest(**(values | changes))
        data = sign_manifest(manifest, key)
        half = None
        with suppress(NotTrusted):  # of a manifest that contradicts itself a desk signs nothing
            half = sign_as_desk(manifest, data, key).decode()
        self.hear(desk, ManifestMessage(sid=sid, manifest=data.decode(), certificate=half))
        return data


def make_kit(folder: Path, desks: tuple[str, ...] = ("d1", "d2"), **policy: Any) -> Kit:
    """Certificates, a signed policy, an empty database, and the room over them."""
    clock = ManualClock(now_wall=datetime.now(UTC))
    authority = create_room(folder, "room-214", (), clock=clock)
    root = Ed25519PrivateKey.generate()
    device_keys = {desk: Ed25519PrivateKey.generate() for desk in desks}
    for desk, key in device_keys.items():
        certificate = authority.issue(desk, key.public_key(), [ExtendedKeyUsageOID.CLIENT_AUTH], clock=clock)
        (folder / "trust" / "desks").mkdir(exist_ok=True)
        (folder / "trust" / "desks" / f"{desk}.pem").write_bytes(certificate_pem(certificate))
    (folder / "data").mkdir()
    document = policy_document(root, **policy)
    (folder / "data" / "policy.json").write_bytes(canonical(document))
    (folder / "credentials.toml").write_text('access_key_id = "k"\nsecret_access_key = "s"\n')
    config = RoomConfig(
        institution="uni-x",
        room="room-214",
        title="Room 2.14",
        data=folder / "data",
        desks=tuple(
            Desk(id=desk, label=desk.removeprefix("d"), column=n + 1) for n, desk in enumerate(desks)
        ),
        storage=StorageConfig(
            endpoint=ENDPOINT, region=REGION, bucket=BUCKET, credentials=folder / "credentials.toml"
        ),
    )
    signing = Ed25519PrivateKey.generate()
    keys = RoomKeys(authority.certificate, signing, root.public_key(), folder / "trust" / "desks")
    sent: list[tuple[str, ToNode, bytes]] = []

    async def publish(desk: str, leaf: ToNode, payload: bytes) -> bool:
        sent.append((desk, leaf, payload))
        return True

    with ExitStack() as opened:
        database = opened.enter_context(closing(Database(folder / "data" / "room.db")))
        room = Room.open(config, clock, keys, database, publish)
        site = Site(room, Sessions(room), Watching(room))
        return Kit(folder, clock, root, device_keys, room, site, Intake(room), sent, opened.pop_all())


def policy_of(kit: Kit) -> ExamPolicy:
    """The policy in force."""
    loaded = kit.room.planned()
    assert loaded is not None
    return loaded.policy


def orders(kit: Kit, desk: str) -> list[dict[str, Any]]:
    """Bodies of all commands that were made for a desk, in order."""
    rows = kit.room.database.transact(
        lambda c: c.execute("SELECT payload FROM commands WHERE desk = ? ORDER BY serial", (desk,)).fetchall()
    )
    return [json.loads(row["payload"]).get("body", {}) for row in rows]


def start(browser: Browser, desk: str = "d1", **more: Any) -> str:
    """A session begun from the page; its id."""
    answer = browser.post("/api/sessions/start", {"desk": desk, "candidate_code": f"C-{desk}", **more})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["sid"])


def end(kit: Kit, browser: Browser, sid: str, desk: str = "d1") -> None:
    """The session ended from the page, and its desk says so."""
    kit.hear(desk, kit.status(desk, kit.report(sid)))
    assert browser.post(f"/api/sessions/{sid}/end").status_code == 200
    kit.hear(desk, kit.status(desk, kit.report(sid, SessionPhase.CERTIFIED)))


def audit(kit: Kit) -> list[tuple[str, str]]:
    """Who did what, in order."""
    return kit.room.database.transact(
        lambda c: [
            (r["actor"], r["action"]) for r in c.execute("SELECT actor, action FROM audit ORDER BY row")
        ]
    )


def flat(routes: list[object]) -> list[Route]:
    """All routes of the application, those of its routers too."""
    found: list[Route] = []
    for route in routes:
        if isinstance(route, Mount):
            continue
        if isinstance(route, Route):
            found.append(route)
        elif (inner := getattr(route, "original_router", None)) is not None:
            found.extend(flat(inner.routes))
    return found
