"""The whole camera process over a camera that goes black, is covered, hangs on one picture and is unplugged.

The hardware's edge stands in: the device, one damaged fragment out of the encoder, and a wall clock that is set.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.store.check import check_store
from tests.camera_node import Node, S, until
from tests.unit.test_store_builders import SID

pytestmark = pytest.mark.slow

# What the device shows until which second after the session began.
DEVICE = f"""
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
import random, time
from datetime import timedelta
import appliance.camera.capture, appliance.camera.process, appliance.camera.v4l2
from appliance.camera.device import DeviceCamera
from appliance.camera.encoder import Fragment, FragmentEncoder
from appliance.camera.source import Frame
from appliance.clock import SystemClock
from appliance.errors import CameraUnavailable
from tests.scenes import covered, desk, filmed
SCENES = {{"live": desk(), "black": desk() * 0, "covered": covered(desk())}}
SHOTS = {{name: [filmed(scene) for _ in range(64)] for name, scene in SCENES.items()}}
SHOTS["frozen"] = SHOTS["live"][:1]
PLAN = [(1.5, "live")]
PLAN += [(5.5, "black"), (9.5, "covered"), (15, "frozen"), (18.5, "live"), (19.5, "unplugged"), (99, "live")]
begun = None
def now_s():
    return 0.0 if begun is None else time.monotonic() - begun
def shown():
    return next(name for until_s, name in PLAN if now_s() < until_s)
class Device(DeviceCamera):
    def __init__(self, device, width_px, height_px, frame_rate_hz, clock):
        super().__init__(f"camera {{device}}", frame_rate_hz, clock)
    def _start(self):
        if shown() == "unplugged":
            raise CameraUnavailable("there is no camera")
    def _stop(self): pass
    def _grab(self):
        global begun
        time.sleep(1 / 15)
        if appliance.camera.process.RECORDING:
            begun = begun or time.monotonic()
        scene = shown()
        if scene == "unplugged":
            raise CameraUnavailable("the camera is gone")
        return self._clock.mono_ns(), Frame.from_bgr(random.choice(SHOTS[scene]), 0, 1).picture
class Miscoding(FragmentEncoder):
    def encode(self, frame, time_90k):
        return [self._damaged(each) if 15 < now_s() < 17 else each for each in super().encode(frame, time_90k)]
    def _damaged(self, piece):
        if piece.kind == "init":
            return piece
        at = piece.data.index(b"mdat") + 40  # in its key frame, which is always decoded
        data = piece.data[:at] + bytes(64) + piece.data[at + 64:]
        return Fragment(piece.kind, data, piece.time_90k, piece.duration_90k, True, piece.frames)
class Clock(SystemClock):
    def wall(self):
        return super().wall() + timedelta(seconds=3600 if now_s() > 4 else 0)
class Session(appliance.camera.process.RunningSession):
    def __init__(self, *wanted):
        appliance.camera.process.RECORDING = True
        super().__init__(*wanted)
appliance.camera.process.RECORDING = False
appliance.camera.process.RunningSession = Session
appliance.camera.process.SystemClock = Clock
appliance.camera.capture.FragmentEncoder = Miscoding
appliance.camera.v4l2.V4l2Camera = Device
"""

# A damaged fragment began up to 2 s before its last frame was damaged.
EXPECTED_S = {"black": (1.5, 5.5), "covered": (5.5, 9.5), "frozen": (9.5, 15), "undecodable": (13, 17.5)}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    run_dir = Path(tempfile.mkdtemp(prefix="invigil-", dir="/dev/shm"))
    made = Node(tmp_path, run_dir, "v4l2:/dev/video0")
    yield made
    made.close()
    shutil.rmtree(run_dir)


def events(node: Node, kind: str) -> list[dict[str, Any]]:
    return [event.body for event in node.view.events(SID) if event.body["kind"] == kind]


def test_each_fault_of_the_picture_is_found_named_and_told_while_the_recording_goes_on(node: Node) -> None:
    """Faces are off: the picture is judged all the same. Control: what is live between the faults is named nowhere."""
    node.before = DEVICE
    node.start()
    node.order(face=False)
    told: set[str] = set()

    def listen() -> bool:
        facts = node.facts()
        told.update(facts["faults"] if facts else [])
        return node.covered_s >= 21.5

    until(listen, "21.5 s durable", 120)
    node.end()
    found = {body["finding"]: (body["from_90k"] / S, body["to_90k"] / S) for body in events(node, "picture")}
    assert found.keys() == EXPECTED_S.keys()
    assert len(events(node, "picture")) == 4
    start_s = found["black"][0] - EXPECTED_S["black"][0]
    for finding, (least_s, most_s) in EXPECTED_S.items():
        from_s, to_s = found[finding]
        assert least_s - 1.1 <= from_s - start_s
        assert to_s - start_s <= most_s + 2.1
        assert to_s - from_s > 1.5
    [step] = events(node, "clock_step")
    assert step["by_ms"] == pytest.approx(3_600_000, abs=100)
    # A busy machine may make the stand-in late, which is a gap of its own.
    [gap] = [each for each in node.gaps() if each.cause == "camera lost: the camera is gone"]
    assert 0.5 < (gap.end_90k - gap.start_90k) / S < 6
    assert {"the picture is black", "the camera is covered", "the picture is frozen"} <= told
    assert {"what is recorded cannot be decoded", "the clock was set by +3600.0 s while recording"} <= told
    assert node.stop() == 0
    assert check_store(node.bench.store) == []
