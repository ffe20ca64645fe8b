"""The soak's room: the demo's, with small pictures, a purge at once, films that can go, and one small disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx

from demo.clips import MOVING_PERSON, STILL_PERSON, empty_seat, leaves_seat
from demo.controller_client import ControllerClient
from demo.room import BUCKET, DemoRoom, DeskPlan
from demo.supervise import Supervised
from tests.hostile import small_disk

WIDTH_PX, HEIGHT_PX, FRAME_RATE_HZ, BITRATE_BPS = 480, 270, 10, 250_000
LONGEST_EXAM_S = 300
SMALL_DISK = "192m"
GUEST = "guest-proctor"


def desks_for(root: Path, count: int) -> list[DeskPlan]:
    """`count` desks, each with a film of its own under `root`/films."""
    films = [STILL_PERSON, MOVING_PERSON, empty_seat(), leaves_seat()]
    folder = root / "films"
    folder.mkdir(parents=True)
    desks = []
    for number in range(1, count + 1):
        film = folder / f"desk-{number}.mp4"
        shutil.copy(films[(number - 1) % len(films)], film)
        desks.append(DeskPlan(f"desk-{number}", str(number), f"clip:{film}"))
    return desks


def may_mount() -> bool:
    """Whether a small disk can be had here: root, or sudo without a password."""
    if os.geteuid() == 0:
        return True
    return (
        shutil.which("sudo") is not None
        and not subprocess.run(["sudo", "-n", "true"], check=False).returncode
    )


class SoakClient(ControllerClient):
    """The dashboard's API and its event stream."""

    def __init__(self, url: str, room_ca: Path) -> None:
        super().__init__(url, room_ca)
        self._room_ca = room_ca

    def twin(self) -> SoakClient:
        """Another connection of the same log-in."""
        twin = SoakClient(str(self._http.base_url), self._room_ca)
        twin._http.cookies.update(self._http.cookies)
        twin._http.headers["X-CSRF-Token"] = self._http.headers["X-CSRF-Token"]
        return twin

    def watch(self, for_s: float, desk: str | None) -> int:
        """Hold the stream of the room, or of one desk, open like a browser; returns the events that came."""
        until, events = time.monotonic() + for_s, 0
        parameters = {} if desk is None else {"desk": desk}
        with self._http.stream("GET", "/events", params=parameters) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                events += line.startswith("event:")
                if time.monotonic() > until:
                    break
        return events

    def is_refused(self, name: str, password: str) -> bool:
        """Whether a log-in with these is turned away."""
        return self._http.post("/api/login", json={"name": name, "password": password}).status_code in (
            400, 401, 403, 409, 429,
        )  # fmt: skip


@dataclass
class SoakRoom(DemoRoom):
    """`small` is the desk whose store lies on a small disk; None where none can be mounted."""

    small: str | None = None
    policy_version: int = 1
    policy_day: str = field(default_factory=lambda: today())
    mounts: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def make(cls, root: Path, desks: int) -> SoakRoom:
        """Keys, certificates, films, disk; nothing runs yet."""
        planned = desks_for(root, desks)
        room = cls(
            root, desks=planned, duration_s=LONGEST_EXAM_S, small=planned[0].id if may_mount() else None
        )
        try:
            if room.small:
                room.mounts.enter_context(small_disk(room.store(room.small), SMALL_DISK))
            room.set_up()
            room.invigil(
                "room", "account", "add", GUEST, "--role", "proctor", "--config", room.room_toml,
                "--password-file", room.password_file,
            )  # fmt: skip
            for desk in planned:
                settings = room.node_folder(desk.id) / "node.toml"
                text = settings.read_text()
                settings.write_text(f"inference_rate_hz = 2.0\n{text}")
        except BaseException:
            room.stop()
            raise
        return room

    def stop(self) -> None:
        """Also gives the small disk back."""
        super().stop()
        self.mounts.close()

    def start(self) -> None:
        """Until every desk is ready."""
        super().start()
        client = self.client()
        self.wait_ready(client, 120)
        client.close()

    def stop_processes(self) -> None:
        """Everything ends as systemd would end it; the files stay."""
        for process in self.processes().values():
            process.stop()

    def client(self, name: str | None = None) -> SoakClient:
        """Logged in as the lead, or as `name`; httpx.HTTPError while the controller is away."""
        client = SoakClient(self.url, self.root / "room" / "trust" / "room-ca.pem")
        try:
            client.log_in(name or "proctor", self.password_file.read_text().strip())
        except httpx.HTTPError:
            client.close()
            raise
        return client

    def store(self, desk: str) -> Path:
        """A desk's store."""
        return self.node_folder(desk) / "store"

    def room_time(self, desk: str) -> str:
        """The room's time as the desk keeps it; empty before it was heard."""
        with closing(
            sqlite3.connect(f"file:{self.store(desk) / 'ledger.db'}?mode=ro", uri=True)
        ) as connection:
            row = connection.execute("SELECT value FROM kv WHERE key = 'room_time'").fetchone()
        return str(row[0]) if row else ""

    def film(self, desk: str) -> Path:
        """The file that a desk's camera plays."""
        return self.root / "films" / f"{desk}.mp4"

    def process(self, target: str) -> Supervised:
        """A process by the name that a fault gives it: `desk-1 camera`, `broker`."""
        if " " in target:
            desk, part = target.split()
            return self.nodes[desk][part]
        found: Supervised | None = getattr(self, target)
        assert found is not None, f"{target} does not run"
        return found

    def processes(self) -> dict[str, Supervised]:
        """All of them by that name."""
        parts = {
            f"{desk} {part}": process for desk, node in self.nodes.items() for part, process in node.items()
        }
        room = {name: self.process(name) for name in ("broker", "controller", "storage")}
        return {**parts, **room}

    def objects(self) -> dict[str, set[str]]:
        """Names in the bucket, by session."""
        found: dict[str, set[str]] = {}
        for path in self.bucket_files():
            found.setdefault(path.parent.name, set()).add(path.name)
        return found

    @property
    def bucket_folder(self) -> Path:
        """Where rclone keeps the objects."""
        return self.root / "bucket" / BUCKET

    def renew_policy(self) -> None:
        """After midnight: the same exam on the new day, as a new version that the institution signed."""
        self.policy_version += 1
        self.policy_day = today()
        keys = self.root / "keys"
        (keys / "policy.toml").write_text(self._policy_toml())
        fresh = keys / f"policy-{self.policy_version}.json"
        self.invigil(
            "policy", "sign", keys / "policy.toml", "--root", keys / "root.key", "--passphrase-file",
            self.passphrase_file, "--out", fresh,
        )  # fmt: skip
        shutil.copy(fresh, self.root / "room" / "data" / "policy.json.new")
        (self.root / "room" / "data" / "policy.json.new").replace(self.root / "room" / "data" / "policy.json")

    def _policy_toml(self) -> str:
        text = super()._policy_toml().replace("version = 1\n", f"version = {self.policy_version}\n")
        return (
            f"purge_after_h = 0\n{text}\n[video]\nwidth_px = {WIDTH_PX}\nheight_px = {HEIGHT_PX}\n"
            f"frame_rate_hz = {FRAME_RATE_HZ}\nbitrate_bps = {BITRATE_BPS}\n"
        )


def today() -> str:
    """UTC date."""
    return f"{datetime.now(UTC):%Y-%m-%d}"
