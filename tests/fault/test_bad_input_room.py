"""A running room and what goes wrong around it: broker, camera, clock, disk, storage. It says so, and loses nothing."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.clock import utc_text
from appliance.protocol import clock_topic
from appliance.store.space import FIXED_BYTES, required_bytes
from demo.clips import STILL_PERSON
from demo.controller_client import ControllerClient
from demo.room import INVIGIL, NODE_ENVIRONMENT, ROOM, DemoRoom, DeskPlan, default_desks, wait_until
from demo.supervise import Supervised
from tests.hostile import Intruder, invigil, is_refusal, other_models, small_disk
from tests.room import Exam, longest_silence_s

pytestmark = pytest.mark.slow

FIRST, SECOND = "desk-1", "desk-2"
EXAM_S = 20


class Site:
    """The room, and what its start without a broker looked like; the second desk has a small disk and wrong models."""

    def __init__(self, room: DemoRoom) -> None:
        self.room = room
        self.disk = room.node_folder(SECOND) / "store"
        self.film = room.root / "camera.mp4"
        shutil.copy(STILL_PERSON, self.film)
        room.set_up()
        room.start_storage()
        room.start_node(FIRST)
        models = other_models(room.root / "packages")
        (models / "face_landmark.tflite").write_bytes(b"not the pinned one")
        self.start_second()
        time.sleep(5)
        self.pids_without_broker = self.pids(FIRST)
        self.said_without_broker = self.log(f"{FIRST}-sync")
        room.start_broker()
        room.start_controller()
        self.client = room.client()
        wait_until(
            "both ready", lambda: all(self.tile(desk)["state"] == "ready" for desk in (FIRST, SECOND)), 40
        )

    def start_second(self) -> None:
        config = str(self.room.node_folder(SECOND) / "node.toml")
        self.room.nodes[SECOND] = {
            part: Supervised(
                f"{SECOND} {part}", [*INVIGIL, "node", part, "--config", config],
                self.room.root / "logs" / f"{SECOND}-{part}.log", restart=part != "inference",
                env={**NODE_ENVIRONMENT, "PYTHONPATH": str(self.room.root / "packages")},
            )
            for part in ("camera", "inference", "sync")
        }  # fmt: skip

    def pids(self, desk: str) -> dict[str, int]:
        return {name: part.pid for name, part in self.room.nodes[desk].items() if part.running}

    def log(self, name: str) -> str:
        return (self.room.root / "logs" / f"{name}.log").read_text(errors="replace")

    def tile(self, desk: str) -> dict[str, Any]:
        return self.client.tile(desk)

    def needs(self) -> str:
        return " | ".join(need["words"] for need in self.client.get("/api/room")["needs"])

    def waits_for_words(self, words: str, timeout_s: float = 40) -> None:
        wait_until(f"the page says: {words}", lambda: words in self.needs(), timeout_s)

    def start_is_refused(self, desk: str, words: str) -> None:
        """409 with the reason, at once; the desk begins nothing."""
        with pytest.raises(httpx.HTTPStatusError) as refusal:
            self.client.post("/api/sessions/start", {"desk": desk, "candidate_code": "code-x"})
        assert refusal.value.response.status_code == 409
        said = refusal.value.response.json()
        assert words in said["error"], said


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("room")
    desks = [default_desks()[0], DeskPlan(SECOND, "2", f"clip:{root / 'camera.mp4'}")]
    with small_disk(root / "nodes" / SECOND / "store", "64m"):
        with DemoRoom(root, desks, EXAM_S) as room:
            site = Site(room)
            yield site
            site.client.close()
        for log in (root / "logs").glob("*.log"):
            assert "Traceback" not in log.read_text(errors="replace"), log.name


@pytest.fixture
def client(site: Site) -> ControllerClient:
    return site.client


def test_a_broker_that_is_not_there_is_said_once_and_waited_for(site: Site) -> None:
    said = [line for line in site.said_without_broker.splitlines() if "broker was not reached" in line]
    assert len(said) == 1, site.said_without_broker
    assert "connection refused" in said[0]
    assert len(site.pids_without_broker) == 3
    assert site.pids(FIRST) == site.pids_without_broker, "nobody had to start anew"
    assert "link.connected" in site.log(f"{FIRST}-sync")


@pytest.mark.parametrize("listener", ["serve", "broker"])
def test_a_port_in_use_is_named(site: Site, listener: str) -> None:
    port = site.room.http_port if listener == "serve" else site.room.broker_port
    is_refusal(invigil("room", listener, "--config", site.room.room_toml), 16, f"port {port}", "in use")
    assert site.tile(FIRST)["link"] == "live", "the first one goes on"


def test_a_second_recording_process_on_one_store_is_refused(site: Site) -> None:
    config = site.room.node_folder(FIRST) / "node.toml"
    is_refusal(invigil("node", "camera", "--config", config), 10, "index.db", "another process")
    is_refusal(invigil("node", "sync", "--config", config), 10, "ledger.db", "another process")
    assert site.tile(FIRST)["state"] == "ready"
    assert (site.room.run_dir / FIRST / "camera.sock").exists(), "the first one keeps its socket"


@pytest.mark.parametrize("damage", [None, b"garbage"], ids=["missing", "garbage"])
def test_a_recipient_set_that_cannot_be_used(site: Site, damage: bytes | None) -> None:
    """Nobody could open what is recorded, so nothing starts; the file may be put right while everything runs."""
    path = site.room.node_folder(FIRST) / "trust" / "recipient-set.json"
    right = path.read_bytes()
    path.unlink()
    try:
        if damage is not None:
            path.write_bytes(damage)
        wait_until("not ready", lambda: site.tile(FIRST)["state"] == "preflight", 60)
        site.start_is_refused(FIRST, "recipient-set.json")
    finally:
        path.write_bytes(right)
    wait_until("control: ready with the right one", lambda: site.tile(FIRST)["state"] == "ready", 60)


def test_a_clock_that_does_not_agree_starts_nothing(site: Site) -> None:
    """The room's time is 5 s ahead in one message; a desk goes by the soonest of eight, so this holds for a while."""
    intruder = Intruder(site.room)
    try:
        topic = clock_topic(ROOM)
        wait_until("the room says its time", lambda: topic in intruder.heard, 60)
        ahead = utc_text(datetime.now(UTC) + timedelta(seconds=5))
        intruder.say(topic, [json.dumps({**json.loads(intruder.heard[topic]), "at": ahead}).encode()])
        wait_until("not ready", lambda: site.tile(FIRST)["state"] == "preflight", 60)
        assert "clock" in site.tile(FIRST)["words"]
        site.start_is_refused(FIRST, "s behind the room's")
        for _ in range(8):
            now = utc_text(datetime.now(UTC))
            intruder.say(topic, [json.dumps({**json.loads(intruder.heard[topic]), "at": now}).encode()])
    finally:
        intruder.close()
    wait_until("in step again", lambda: site.tile(FIRST)["state"] == "ready", 60)


def truncated(film: bytes) -> bytes:
    return film[: len(film) // 50]


@pytest.mark.parametrize(
    "damage", [None, b"", b"this is no film\n" * 100, truncated], ids=["missing", "empty", "text", "cut"]
)
def test_a_clip_that_cannot_be_read(site: Site, damage: bytes | Callable[[bytes], bytes] | None) -> None:
    """The process stays, the desk says why it is not ready and starts nothing; `inspect` of it ends with code 4."""
    whole = site.film.read_bytes()
    camera = site.room.nodes[SECOND]["camera"]
    site.film.unlink()
    try:
        if damage is not None:
            site.film.write_bytes(damage(whole) if callable(damage) else damage)
        is_refusal(invigil("inspect", site.film), 4, str(site.film))
        begin_anew(camera)
        wait_until("not ready", lambda: site.tile(SECOND)["state"] == "preflight", 60)
        wait_until("the reason", lambda: "clip" in site.tile(SECOND)["words"], 60)
        pid = camera.pid
        site.start_is_refused(SECOND, "clip")
        assert (camera.running, camera.pid) == (True, pid)
    finally:
        site.film.write_bytes(whole)
        begin_anew(camera)
    wait_until("control: ready with the whole film", lambda: site.tile(SECOND)["state"] == "ready", 60)


def begin_anew(process: Supervised) -> None:
    process.hold_down()
    process.bring_back()


def fill(disk: Path, leave_bytes: int = 0) -> Path:
    """A file that takes all the room of the disk but so much."""
    ballast = disk / "ballast"
    left = shutil.disk_usage(disk).free - leave_bytes
    with ballast.open("wb", buffering=0) as sink:
        try:
            while left > 0:
                left -= sink.write(b"\0" * min(left, 65536))
        except OSError:
            pass
    return ballast


def test_too_little_room_for_the_exam_is_counted(site: Site, client: ControllerClient) -> None:
    ballast = fill(site.disk, 1_000_000)
    sid = client.post("/api/sessions/start", {"desk": SECOND, "candidate_code": "code-f"})["sid"]
    site.waits_for_words("bytes missing")
    assert f"the exam needs {required_bytes(EXAM_S, 1_200_000) + FIXED_BYTES}" in site.needs()
    ballast.unlink()
    exam = Exam(site.room, client, SECOND, sid)
    with exam.view() as view:
        assert view.session(sid) is None, "nothing was begun"


def test_a_disk_that_fills_up_and_models_that_are_not_the_pinned_ones(
    site: Site, client: ControllerClient
) -> None:
    """The recording survives both: it goes on in the room that it reserved (F146), with no gap, and opens."""
    exam = Exam.begin(site.room, client, SECOND, "code-d")
    exam.record_until(4)
    why = "face_landmark.tflite is not the pinned one"
    wait_until("the tile says why", lambda: why in str(site.tile(SECOND)["technical"]), 60)
    assert site.room.nodes[SECOND]["inference"].running, "who would listen for voices must not end with it"
    pid = site.room.nodes[SECOND]["camera"].pid
    ballast = fill(site.disk)
    durable_s = exam.durable_90k() / 90_000
    exam.record_until(durable_s + 7)
    [said] = [each for each in site.tile(SECOND)["technical"] if "assessed" in each]
    assert said.startswith("face and gaze are not being assessed: ")
    assert why in said
    assert site.room.nodes[SECOND]["camera"].pid == pid, site.log(f"{SECOND}-camera")[-2000:]
    ended = exam.end()
    ballast.unlink()
    assert ended["complete"]
    assert ended["gaps"] == []
    assert longest_silence_s(exam.frame_times_s()) < 1
    assert invigil("store", "check", site.disk).code == 0


def test_a_storage_that_is_away_or_refuses_keeps_the_session_released(
    site: Site, client: ControllerClient
) -> None:
    """Nothing is lost: the session waits with the reason in words, and goes when the storage takes it."""
    room = site.room
    assert room.storage is not None
    assert room.controller is not None
    exam = Exam.begin(room, client, FIRST, "code-s")
    exam.record_until(4)
    exam.end()
    room.storage.hold_down()
    client.post(f"/api/sessions/{exam.sid}/approve", {"accept_gaps": True})
    site.waits_for_words("does not answer")
    assert client.session(exam.sid)["state"] in {"released", "syncing"}
    for command in (["list"], ["pull", exam.sid, "--out", room.root / "pulled"]):
        refusal = invigil("archive", *command, "--config", room.archive_toml)
        is_refusal(refusal, 14, "does not answer")
    credentials = room.root / "room" / "storage-credentials.toml"
    right = credentials.read_text()
    credentials.write_text('access_key_id = "demo-controller"\nsecret_access_key = "wrong"\n')
    room.controller.kill()
    room.storage.bring_back()
    wait_until("the controller is back", lambda: answers(client), 60)
    room.nodes[FIRST]["sync"].kill()  # a new one asks at once, this one in a quarter of a minute
    site.waits_for_words("(403)")
    assert client.session(exam.sid)["state"] in {"released", "syncing"}
    shutil.copy(credentials, room.root / "keys" / credentials.name)
    is_refusal(invigil("archive", "list", "--config", room.archive_toml), 14, "refused")
    assert room.bucket_files() == []
    credentials.write_text(right)
    shutil.copy(credentials, room.root / "keys" / credentials.name)
    room.controller.kill()
    wait_until("the controller is back", lambda: answers(client), 60)
    wait_until("synced", lambda: client.session(exam.sid)["state"] in {"synced", "purged"}, 60)
    assert exam.sid in invigil("archive", "list", "--config", room.archive_toml).out
    pulled = invigil(
        "archive", "pull", exam.sid, "--out", room.root / "pulled", "--config", room.archive_toml
    )
    assert pulled.code == 0, pulled.err
    verified = invigil("archive", "verify", room.root / "pulled" / exam.sid, "--config", room.archive_toml)
    assert verified.code == 0, verified.err


def answers(client: ControllerClient) -> bool:
    try:
        return bool(client.tile(FIRST)["link"] == "live")
    except httpx.TransportError:
        return False
