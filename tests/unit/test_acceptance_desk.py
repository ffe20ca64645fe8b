"""The room acceptance test at a desk: a real clip, the store's lock, and the real command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance.acceptance.desk import Equipment, accept, accept_here, hold_desk
from appliance.acceptance.script import Expected, Step
from appliance.camera.clip import ClipSource
from appliance.config import NodeConfig
from appliance.errors import BadInput, Refused
from appliance.store.recording import RecordingStore
from tests.manual_clock import ManualClock
from tests.unit.test_archive_schema import problems, schema
from tests.unit.test_store_builders import SID, new_session

CLIP = Path(__file__).resolve().parents[2] / "build" / "clips" / "single_face.mp4"

# --- at a desk --------------------------------------------------------------------------------------------------------

SHORT = (
    Step(1, "reads from the screen", "Read.", 2, None, ready_s=1),
    Step(2, "leaves the seat", "Leave.", 2, Expected("nobody_at_desk"), ready_s=1),
)


@dataclass
class Lamp:
    """A lamp; `history` of what was asked of it."""

    is_lit: bool = False
    history: str = ""

    def on(self) -> None:
        self.is_lit, self.history = True, self.history + "1"

    def off(self) -> None:
        self.is_lit, self.history = False, self.history + "0"


def node(folder: Path, **changes: Any) -> NodeConfig:
    values: dict[str, Any] = {
        "institution": "uni", "room": "room-2.14", "desk": "desk-7", "broker_host": "10.0.0.5",
        "camera": f"clip:{CLIP}", "store": folder / "store", "run_dir": folder / "run",
    }  # fmt: skip
    return NodeConfig(**(values | changes))


def equipped(lamp: Lamp, clock: ManualClock, write: Callable[[str], object], clip: Path = CLIP) -> Equipment:
    return Equipment(
        lambda video: ClipSource(
            clip, video.width_px, video.height_px, video.frame_rate_hz, clock, sleep=clock.advance
        ),
        lamp,
        clock,
        write,
        lambda: write("[waits]"),
    )


def test_a_desk_with_a_real_clip_writes_two_files_and_nothing_else(tmp_path: Path) -> None:
    """The same camera source, picture for the models, tracker, rules and pace as in an exam."""
    lamp, words = Lamp(), []
    whole = accept(node(tmp_path), SHORT, SHORT, tmp_path, equipped(lamp, ManualClock(), words.append), 2.0)
    assert whole is True
    names = sorted(path.name for path in tmp_path.rglob("*"))
    stem = "acceptance-desk-7-2026-11-22T09-00-00Z"
    assert names == [f"{stem}.html", f"{stem}.json"]
    report = json.loads((tmp_path / names[1]).read_text())
    rule = schema("acceptance")
    assert problems(report, rule, rule) == []
    assert [step["outcome"] for step in report["steps"]] == ["nothing observed", "miss"]
    assert (report["totals"]["staged"]["of"], report["totals"]["innocent"]["of"]) == (1, 1)
    assert report["steps"][1]["why"] == "a face was seen in 100% of the pictures"
    assert 30 < report["eyes"]["median_px"] < 150
    assert report["frames"]["reached_hz"] == pytest.approx(5.0, abs=0.4)
    assert report["camera"]["models_width_px"] == 640
    # Lit for the look whether there is a camera, and for the run; out after each.
    assert (lamp.history, lamp.is_lit) == ("1010", False)
    said = "".join(words)
    assert said.index("The camera is on while you act") < said.index("[waits]") < said.index("PRACTICE")


def test_without_a_camera_nobody_has_to_act(tmp_path: Path) -> None:
    lamp, words = Lamp(), []
    missing = equipped(lamp, ManualClock(), words.append, tmp_path / "absent.mp4")
    with pytest.raises(BadInput, match=r"clip cannot be read: .*absent\.mp4"):
        accept(node(tmp_path), SHORT, SHORT, tmp_path, missing)
    assert (words, lamp.history, list(tmp_path.iterdir())) == ([], "10", [])


def test_a_folder_that_is_not_there_is_refused_before_anything_begins(tmp_path: Path) -> None:
    lamp = Lamp()
    with pytest.raises(BadInput, match="no folder"):
        accept(node(tmp_path), SHORT, SHORT, tmp_path / "no", equipped(lamp, ManualClock(), str))
    assert lamp.history == ""


def test_refused_while_the_camera_service_has_the_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    service = RecordingStore(store, ManualClock())
    with ExitStack() as held, pytest.raises(Refused, match="camera service is running") as refused:
        hold_desk(store, held)
    assert "systemctl stop invigil-camera" in refused.value.hint
    service.close()
    with ExitStack() as held:
        hold_desk(store, held)
        with pytest.raises(Exception, match="being written by another process"):
            RecordingStore(store, ManualClock())  # nor can it start meanwhile
    RecordingStore(store, ManualClock()).close()


def test_refused_while_a_session_has_not_ended_though_the_service_is_stopped(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    service = RecordingStore(store, ManualClock())
    service.begin_session(new_session())
    service.close()
    with ExitStack() as held, pytest.raises(Refused, match=f"session {SID} has not ended"):
        hold_desk(store, held)


def test_a_desk_that_was_never_started_has_nothing_to_keep(tmp_path: Path) -> None:
    with ExitStack() as held:
        hold_desk(tmp_path / "store", held)
    assert list(tmp_path.iterdir()) == []


def node_toml(folder: Path) -> Path:
    lines = (
        f'{name} = "{value}"\n'
        for name, value in node(folder).model_dump(mode="json").items()
        if name in TEXTS
    )
    path = folder / "node.toml"
    path.write_text("".join(lines))
    return path


TEXTS = ("institution", "room", "desk", "broker_host", "camera", "store", "run_dir")


def test_without_a_terminal_and_without_yes_it_does_not_begin(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no terminal") as refused:
        accept_here(node_toml(tmp_path), tmp_path, "3", begin_at_once=False)
    assert "--yes" in refused.value.hint


def test_the_real_command_stopped_with_ctrl_c_says_how_far_it_came(tmp_path: Path) -> None:
    """In the first minute of a run of step 3: exit code 7, a report, no traceback."""
    command = [sys.executable, "-m", "appliance.cli", "node", "accept", "--config", str(node_toml(tmp_path))]
    running = subprocess.Popen(
        [*command, "--out", str(tmp_path), "--steps", "3", "--yes"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    first = "".join(iter(lambda: running.stdout.readline(), "        Nothing is tested in this minute.\n"))
    assert "ROOM ACCEPTANCE of desk-7: 1 step, 2 minutes" in first
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (7, "")
    assert (
        "stopped before the first step had ended (by hand); 0 of 24 steps ran: not a full acceptance" in out
    )
    (report,) = (json.loads(path.read_text()) for path in tmp_path.glob("acceptance-desk-7-*.json"))
    assert (report["full"], report["steps"], report["stopped"]) == (False, [], "by hand")
