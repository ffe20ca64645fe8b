"""Nonsense from a valid certificate, on the local socket and over HTTP: nothing crashes, nothing stops."""

from __future__ import annotations

import copy
import json
import secrets
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.protocol import FromNode, ToNode, clock_topic, desk_topic
from demo.room import ACCOUNT, ROOM, DemoRoom, DeskPlan, default_desks, wait_until
from tests.hostile import Intruder
from tests.room import Exam, longest_silence_s

pytestmark = pytest.mark.slow

DESK, GHOST = "desk-1", "ghost"
OBSERVATION = {
    "kind": "face_absent", "words": "nobody", "phase": "closed", "start_90k": 9, "end_90k": 90, "duration_s": 1.0,
    "level": "red", "technical": False, "rule": "r", "measured": {"x": 1}, "uncertainty": "",
}  # fmt: skip
RAW = [
    b"", b"\x00", b"\xff\xfe\xfd", b"{", b"[]", b"null", b"nonsense", b'"', b"{}" * 1000, b"1e999", b"9" * 5000,
    b"[" * 50_000, b'{"sid": "\\ud800"}', b"\xff\xd8 no picture", b"A" * 1_200_000,
]  # fmt: skip
WRONG: list[Any] = [
    None, True, -1, 0, 2**31, 2**63, 2**64, 10**40, 10**400, 1e300, float("nan"), float("inf"),
    "", "x" * 5000, "'; DROP TABLE sessions; --", "\u0000",
    "../../etc/passwd", "0" * 32, "0" * 64, "9999-99-99T99:99:99.999Z", "0001-01-01T00:00:00.000Z",
    "9999-12-31T23:59:59.999Z", [], {}, [None], [[]], {"a": 1},
]  # fmt: skip


def altered(message: Any) -> Iterator[Any]:
    """The message with each of its values replaced by each wrong one, with each left out, and with one too many."""
    if isinstance(message, dict):
        yield {**message, "unknown": 1}
        for key in message:
            yield {name: value for name, value in message.items() if name != key}
            for wrong in WRONG:
                yield {**message, key: wrong}
            for inner in altered(message[key]):
                yield {**message, key: inner}
    elif isinstance(message, list) and message:
        for inner in altered(message[0]):
            yield [inner, *message[1:]]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoRoom]:
    """One desk that records, one that is on the plan and not there."""
    ghost = DeskPlan(GHOST, "G", "clip:none")
    with DemoRoom(tmp_path_factory.mktemp("room"), [default_desks()[0], ghost], 600) as room:
        room.set_up()
        room.start_storage()
        room.start_broker()
        room.start_controller()
        room.start_node(DESK)
        yield room


@pytest.fixture(scope="module")
def intruder(room: DemoRoom) -> Iterator[Intruder]:
    intruder = Intruder(room)
    yield intruder
    intruder.close()


@pytest.fixture(scope="module")
def exam(room: DemoRoom, intruder: Intruder) -> Iterator[Exam]:
    client = room.client()
    wait_until("ready", lambda: client.tile(DESK)["state"] == "ready", 40)
    yield Exam.begin(room, client, DESK, "code-1")
    client.close()


def pids(room: DemoRoom) -> dict[str, int]:
    assert room.controller is not None
    assert room.broker is not None
    parts = [room.controller, room.broker, *room.nodes[DESK].values()]
    return {part.name: part.pid for part in parts if part.running}


def logs(room: DemoRoom) -> str:
    return "".join(path.read_text(errors="replace") for path in (room.root / "logs").glob("*.log"))


@pytest.fixture
def unharmed(room: DemoRoom, exam: Exam) -> Iterator[None]:
    """Every process lives on, no log has a traceback, and the recording goes on while and after it."""
    before = pids(room)
    assert len(before) == 5
    yield
    durable = exam.durable_90k()
    wait_until("still recording", lambda: exam.durable_90k() > durable, 60)
    wait_until("the room still sees it", lambda: exam.client.tile(DESK)["state"] == "recording", 60)
    assert pids(room) == before, logs(room)[-3000:]
    assert "Traceback" not in logs(room)


def test_the_room_takes_nonsense_from_a_desk(exam: Exam, intruder: Intruder, unharmed: None) -> None:
    """Raw bytes, and every message of a real desk with each of its values made wrong."""
    wait_until("a status is on the wire", lambda: topic_of(FromNode.STATUS) in intruder.heard, 60)
    samples = desk_samples(exam, intruder)
    for leaf in FromNode:
        payloads = [*RAW]
        if leaf in samples:
            payloads += [json.dumps(each).encode() for each in altered(samples[leaf])]
        intruder.say(desk_topic(ROOM, GHOST, leaf), payloads)
    wait_until("the room has read it", lambda: "link.bad_message desk=ghost" in controller_log(exam), 60)


def test_control_a_desk_that_speaks_sense_is_heard(exam: Exam, intruder: Intruder, unharmed: None) -> None:
    presence = json.loads(intruder.heard[topic_of(FromNode.PRESENCE)])
    for connection, state in ((2**53 - 2, "lost"), (2**53 - 1, "online")):
        said = {**presence, "desk": GHOST, "connection": connection, "state": state}
        intruder.say(desk_topic(ROOM, GHOST, FromNode.PRESENCE), [json.dumps(said).encode()])

    def heard() -> bool:
        """Some of the nonsense may have been a status that could be; a newer one makes the desk live."""
        status = {
            **json.loads(intruder.heard[topic_of(FromNode.STATUS)]),
            "desk": GHOST,
            "connection": 2**53 - 1,
        }
        intruder.say(desk_topic(ROOM, GHOST, FromNode.STATUS), [json.dumps(status).encode()])
        return bool(exam.client.tile(GHOST)["link"] == "live")

    wait_until("the ghost is there", heard, 60)


def test_a_desk_takes_nonsense_from_the_room(exam: Exam, intruder: Intruder, unharmed: None) -> None:
    witness = {"sid": exam.sid, "size": 1, "cosignature": "— x AAAA", "refused": None}
    grants = {"room": ROOM, "desk": DESK, "sid": exam.sid, "issued": "2026-01-01T00:00:00.000Z", "grants": []}
    command = {
        "room": ROOM, "desk": DESK, "serial": 7, "issued": "2026-01-01T00:00:00.000Z",
        "order": {"kind": "end", "sid": exam.sid, "reason": ""},
    }  # fmt: skip
    for leaf, body in ((ToNode.COMMAND, command), (ToNode.GRANTS, grants)):
        document = {"purpose": leaf.value, "body": body, "signature": "AAAA"}
        payloads = [json.dumps(each).encode() for each in [document, body, *altered(document)]]
        intruder.say(desk_topic(ROOM, DESK, leaf), [*RAW, *payloads])
    for topic, body in (
        (desk_topic(ROOM, DESK, ToNode.WITNESS), witness),
        (desk_topic(ROOM, DESK, ToNode.WATCH), {"mode": "still", "lease_s": 1.0}),
        (clock_topic(ROOM), {"at": "2026-01-01T00:00:00.000Z"}),
    ):
        intruder.say(topic, [*RAW, *(json.dumps(each).encode() for each in altered(body))])


def test_the_recording_takes_nonsense_on_its_socket(room: DemoRoom, exam: Exam, unharmed: None) -> None:
    """Garbage lines, half lines and messages of wrong types on camera.sock."""
    path = room.run_dir / DESK / "camera.sock"
    report = {**OBSERVATION, "phase": "opened", "end_90k": None, "level": None}
    messages: list[Any] = [
        {"type": "wake"}, {"type": "watch", "mode": "still", "lease_s": 1.0}, {"type": "inference", "rate_hz": 5.0},
        {"type": "observation", "key": 1, "report": report}, {"type": "session", "sid": None}, {"type": "durable"},
    ]  # fmt: skip
    lines = [*RAW, b"\xff" * 3_000_000, *(json.dumps(m).encode() for each in messages for m in altered(each))]
    for line in lines:
        say_locally(path, line)


def test_http_nonsense_is_refused_in_words(room: DemoRoom, exam: Exam, unharmed: None) -> None:
    """Wrong JSON, huge bodies, strangers, wrong types, unknown sessions: 4xx with {error, hint}, whoever asks."""
    context = ssl.create_default_context(cafile=str(room.root / "room" / "trust" / "room-ca.pem"))
    as_json = {"Content-Type": "application/json"}
    password = room.password_file.read_text().strip()
    with httpx.Client(base_url=room.url, verify=context, timeout=20) as http:
        for body in (b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"name": 1}', b"[" * 50_000, b"1" * 60_000):
            refused(http.post("/api/login", content=body, headers=as_json))
        refused(http.post("/api/login", content=b"x" * 200_000), 400)
        refused(http.post("/api/login", json={"name": ACCOUNT, "password": "wrong"}), 401)
        refused(http.post("/api/login", json={"name": "' OR 1=1 --", "password": "' OR 1=1 --"}), 401)
        refused(http.post("/api/sessions/end"), 401)
        refused(http.get("/api/room"), 401)
        refused(http.get("/api/audit?first=x"), 401)
        csrf = http.post("/api/login", json={"name": ACCOUNT, "password": password}).json()["csrf"]
        refused(http.post("/api/sessions/end"), 403)
        refused(http.post("/api/sessions/end", headers={"X-CSRF-Token": "\u00e9".encode("latin-1")}), 403)
        http.headers["X-CSRF-Token"] = csrf
        refused(http.post("/api/sessions/end", headers={"Origin": "https://elsewhere.example"}), 403)
        for path, code in (
            ("/api/nothing", 404), ("/api/desks/nobody", 400),
            ("/api/desks/%00", 400), ("/api/desks/..%2f..%2fetc", 404),
            ("/api/audit?first=x", 422), (f"/api/audit?first={10**30}", 422), ("/api/audit?first=-1", 422),
            ("/api/login", 405), ("/api/sessions/start", 405),
        ):  # fmt: skip
            assert refused(http.get(path)) in (code, 400), path
        starts = altered({"desk": DESK, "all": False, "candidate_code": "code-2", "name": "Nobody"})
        ends = ({"reason": wrong} for wrong in WRONG if not isinstance(wrong, str) or len(wrong) > 200)
        for body in (each for each in starts if each.get("all") is not True):
            refused(http.post("/api/sessions/start", content=json.dumps(body), headers=as_json))
        for body in ends:
            refused(http.post(f"/api/sessions/{exam.sid}/end", content=json.dumps(body), headers=as_json))
        for action in ("end", "approve", "hold", "break", "note", "review", "set-aside", "discard"):
            for sid in ("0" * 32, "x", "' OR '1'='1", "%00", "0" * 5000):
                body = {
                    "hold": {"reason": "r"},
                    "break": {"on": True},
                    "note": {"text": "t"},
                    "review": {"number": 1},
                }
                asked = body.get(action, {"reason": "r"} if action in ("set-aside", "discard") else {})
                refused(http.post(f"/api/sessions/{sid}/{action}", json=asked))
            refused(http.post(f"/api/sessions/{exam.sid}/{action}", json=["nonsense"]))
        for number in (-1, 2**53, 2**63, 10**40):
            refused(
                http.post(f"/api/sessions/{exam.sid}/review", json={"number": number, "outcome": "referred"})
            )
        assert http.get("/api/room").json()["sessions"][0]["sid"] == exam.sid, "control: sense is answered"


def test_what_was_recorded_meanwhile_is_whole(room: DemoRoom, exam: Exam) -> None:
    """Once its link has started anew the desk certifies; no gap, not a frame is missing, and the film opens."""
    room.nodes[DESK]["sync"].kill()
    wait_until(
        "back", lambda: room.nodes[DESK]["sync"].restarts == 1 and room.recording(exam.client, DESK), 20
    )
    ended = exam.end()
    assert ended["complete"], ended
    assert ended["gaps"] == []
    times_s = exam.frame_times_s()
    assert len(times_s) > 15 * 10
    assert longest_silence_s(times_s) < 0.25
    assert "Traceback" not in logs(room)


def say_locally(path: Path, line: bytes) -> None:
    """One line on a connection of its own; the other end may well hang up in the middle."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        with suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(line + b"\n")


def refused(answer: httpx.Response, code: int | None = None) -> int:
    """A 4xx whose body is an error and a hint in words."""
    assert 400 <= answer.status_code < 500, (answer.request.url, answer.status_code, answer.text[:300])
    said = answer.json()
    assert set(said) == {"error", "hint"}, (answer.request.url, said)
    assert said["error"]
    assert code in (None, answer.status_code), (answer.request.url, answer.status_code, said)
    return answer.status_code


def topic_of(leaf: FromNode) -> str:
    return desk_topic(ROOM, DESK, leaf)


def controller_log(exam: Exam) -> str:
    return (exam.room.root / "logs" / "controller.log").read_text(errors="replace")


def desk_samples(exam: Exam, intruder: Intruder) -> dict[FromNode, Any]:
    """One real message of each kind, as the ghost would say it."""
    sha256 = secrets.token_hex(32)
    samples: dict[FromNode, Any] = {
        FromNode.REPLY: {"serial": 1, "accepted": True, "reason": ""},
        FromNode.OBSERVATION: {"sid": exam.sid, "number": 1, "observation": OBSERVATION},
        FromNode.MANIFEST: {"sid": exam.sid, "manifest": '{"body": {}, "signature": ""}'},
        FromNode.GRANT_REQUEST: {
            "sid": exam.sid,
            "objects": [{"name": "manifest.json", "size_bytes": 1, "md5": "AAAA", "sha256": sha256}],
        },
    }
    for leaf in (FromNode.PRESENCE, FromNode.STATUS, FromNode.CHECKPOINT):
        sample = json.loads(intruder.heard[topic_of(leaf)])
        samples[leaf] = copy.deepcopy({**sample, "desk": GHOST} if "desk" in sample else sample)
    return samples
