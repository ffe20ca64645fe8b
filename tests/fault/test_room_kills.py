"""SIGKILL of each process of a running room while a desk records."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from appliance.camera.encoder import GAP_S
from demo.controller_client import ControllerClient
from demo.room import DemoRoom, default_desks, port_answers, wait_until
from tests.room import Exam, longest_silence_s, running_room

pytestmark = pytest.mark.slow

FRAME_S = 1 / 15
FRAGMENT_S = 2.0


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoRoom]:
    with running_room(
        tmp_path_factory.mktemp("room"), desks=[default_desks()[0], default_desks()[2]]
    ) as room:
        yield room


@pytest.fixture
def client(room: DemoRoom) -> Iterator[ControllerClient]:
    client = room.client()
    yield client
    client.close()


@pytest.fixture
def exam(room: DemoRoom, client: ControllerClient, request: pytest.FixtureRequest) -> Exam:
    return Exam.begin(room, client, "desk-1", re.sub(r"\W", "-", request.node.name)[:60])


def every_frame_is_there(exam: Exam) -> None:
    """What the camera filmed is what the recording holds; a picture less is one that a busy machine never took."""
    log = (exam.room.root / "logs" / f"{exam.desk}-camera.log").read_text()
    said = re.findall(r"camera\.closed filmed_frames=(\d+) dropped_frames=(\d+)", log)
    filmed, dropped = (int(count) for count in said[-1])
    times_s = exam.frame_times_s()
    assert len(times_s) == filmed > 0
    assert round((times_s[-1] - times_s[0]) / FRAME_S) + 1 - filmed <= dropped
    assert longest_silence_s(times_s) < GAP_S


def test_killed_inference_costs_no_frame(exam: Exam) -> None:
    """A model that dies costs not a frame, and the room says that nothing is being assessed."""
    exam.record_until(4)
    inference = exam.room.nodes["desk-1"]["inference"]
    inference.hold_down()
    wait_until("the room says so", lambda: assessing(exam) is False, 60)
    inference.bring_back()
    wait_until("assessed again", lambda: assessing(exam) is True, 60)
    ended = exam.end()
    assert ended["complete"]
    assert ended["gaps"] == []
    every_frame_is_there(exam)
    kinds = exam.event_kinds()
    assert kinds.count("assessment_stopped") == 1
    assert kinds.count("assessment_began") == 2


def test_killed_camera_costs_at_most_the_open_fragment(exam: Exam) -> None:
    """What was durable stays, at most the open fragment is lost, and the gap has its time and its cause (F146)."""
    exam.record_until(6)
    camera = exam.room.nodes["desk-1"]["camera"]
    killed_90k = session_now_90k(exam)
    camera.kill()
    durable_90k = exam.durable_90k()
    exam.record_until(killed_90k / 90_000 + 8)
    ended = exam.end()
    times_s = exam.frame_times_s()
    before_s = max(time for time in times_s if time <= killed_90k / 90_000 + 0.1)
    after_s = min(time for time in times_s if time > before_s)
    assert before_s >= durable_90k / 90_000 - 2 * FRAME_S, "something acknowledged was lost"
    assert killed_90k / 90_000 - before_s < FRAGMENT_S + 0.5, "more than the open fragment was lost"
    assert not ended["complete"]
    [gap] = ended["gaps"]
    assert gap["cause"] == "recording process restarted"
    assert gap["from_s"] == pytest.approx(before_s, abs=0.2)
    assert gap["to_s"] == pytest.approx(after_s, abs=0.2)
    assert {entry["outcome"] for entry in exam.manifest()["segments"]} == {"CLOSED", "OPEN_ENDED"}


def test_an_exam_over_before_the_camera_process_woke_is_certified_as_nothing_recorded(
    room: DemoRoom, client: ControllerClient
) -> None:
    """And the desk takes its next candidate."""
    wait_until("desk-1 can start", lambda: room.startable(client, "desk-1"), 60)
    camera = room.nodes["desk-1"]["camera"]
    camera.hold_down()
    started = client.post("/api/sessions/start", {"desk": "desk-1", "candidate_code": "C-0001"})
    exam = Exam(room, client, "desk-1", started["sid"])
    client.post(f"/api/sessions/{exam.sid}/end")
    wait_until("the room says it", lambda: "ended before anything" in str(client.tile("desk-1")), 60)
    camera.bring_back()
    wait_until("the certificate", lambda: bool(client.session(exam.sid)["certified"]), 60)
    ended = client.session(exam.sid)
    assert not ended["complete"]
    assert "nothing was recorded" in str(ended)
    assert exam.event_kinds() == ["session_close"]
    assert exam.manifest()["segments"] == []
    following = Exam.begin(room, client, "desk-1", "C-0002")
    following.record_until(2)
    following.end()


@pytest.mark.parametrize("part", ["broker", "controller", "desk-1 sync"])
def test_killed_room_parts_cost_nothing(exam: Exam, part: str) -> None:
    """Broker, controller and the node's own link: no frame, no witness, no decision is lost (F050)."""
    processes = {
        "broker": exam.room.broker,
        "controller": exam.room.controller,
        "desk-1 sync": exam.room.nodes["desk-1"]["sync"],
    }
    process = processes[part]
    assert process is not None
    exam.record_until(4)
    process.hold_down()
    time.sleep(3)
    process.bring_back()
    exam.record_until(session_now_90k(exam) / 90_000 + 2)
    wait_until("the room sees the desk again", lambda: room_sees(exam), 60)
    ended = exam.end()
    assert ended["gaps"] == []
    assert ended["complete"]
    every_frame_is_there(exam)
    manifest = exam.manifest()
    assert manifest["cosignature"]
    assert manifest["leaves"] == exam.leaf_count()


def test_restarted_controller_gets_the_observations_back(room: DemoRoom, client: ControllerClient) -> None:
    """They live in RAM only, on both sides: the desk's camera process says them again to a new controller."""
    exam = Exam.begin(room, client, "desk-3", "empty-seat")
    wait_until("something is observed", lambda: bool(observed(exam)), 60)
    assert room.controller is not None
    room.controller.kill()
    wait_until("the controller forgets", lambda: not port_answers(room.http_port), 60, poll_s=0.01)
    wait_until("the controller is back", lambda: port_answers(room.http_port), 60)
    wait_until("it knows again", lambda: "nobody seen at the desk" in observed(exam), 60)
    exam.end()


def observed(exam: Exam) -> list[str]:
    return [each["words"] for each in exam.client.get(f"/api/desks/{exam.desk}")["observations"]]


def assessing(exam: Exam) -> bool:
    return exam.client.tile("desk-1")["level"] is not None


def room_sees(exam: Exam) -> bool:
    if not port_answers(exam.room.http_port):
        return False
    tile = exam.client.tile("desk-1")
    return bool(tile["link"] == "live" and tile["state"] == "recording")


def session_now_90k(exam: Exam) -> int:
    return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - exam.row.started_mono_ns) * 9 // 100_000
