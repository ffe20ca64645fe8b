"""`invigil node accept` at a desk: refuses while the camera is needed, opens it as an exam does, writes the report.

Nothing is recorded: readings are numbers in memory, and the two files of the report are all that is written.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from av.video.reformatter import VideoReformatter

from appliance.acceptance.document import Place, document
from appliance.acceptance.looking import Looking, Sample, eye_distance_px
from appliance.acceptance.page import render, summary
from appliance.acceptance.script import NEEDED, PRACTICE_S, SCRIPT, Step, chosen, duration_s
from appliance.acceptance.walk import Run, Walk
from appliance.camera.lit_source import LitSource
from appliance.camera.picture_planes import small_bgr
from appliance.camera.pictures import RING_HEIGHT_PX, RING_WIDTH_PX
from appliance.camera.probe import require_frame
from appliance.camera.source import CameraSource, Frame, open_source
from appliance.clock import Clock, SystemClock
from appliance.config import NodeConfig, load_config
from appliance.errors import BadInput, CameraUnavailable, Refused, StoreFailed
from appliance.hardening import protect_memory
from appliance.inference.models import load_models
from appliance.inference.pace import Pace
from appliance.inference.selftest import check, runtime_words
from appliance.inference.watch import Watch
from appliance.light import Light, light_at
from appliance.one_thread import stay_in_one_thread
from appliance.policy import Video
from appliance.store.database import hold_lock
from appliance.store.durable import write_file_durably
from appliance.store.layout import Layout
from appliance.store.view import RecordingView

# What a policy has that says nothing else; only the signed policy of an exam could.
VIDEO = Video()
AS_CAMERA_USER = "run it as the camera's user, as docs/operations.md says"


@dataclass(frozen=True)
class Equipment:
    """The desk's edge: `make_source` opens nothing yet, `write` takes words for the terminal."""

    make_source: Callable[[Video], CameraSource]
    light: Light
    clock: Clock
    write: Callable[[str], object]
    wait_for_start: Callable[[], object]


def accept_here(config_path: Path, out: Path, numbers: str | None, *, begin_at_once: bool) -> bool:
    """The command: `numbers` of some steps, else all; waits for Enter on the terminal. Otherwise as `accept`."""
    protect_memory("acceptance")
    stay_in_one_thread()
    config = load_config(config_path, NodeConfig)
    steps = chosen(SCRIPT, numbers)
    if not begin_at_once and not sys.stdin.isatty():
        raise BadInput("no terminal to wait for Enter on", "give --yes to begin at once")
    clock = SystemClock()

    def make_source(video: Video) -> CameraSource:
        return open_source(config.camera, video.width_px, video.height_px, video.frame_rate_hz, clock)

    def wait_for_start() -> None:
        if not begin_at_once:
            _say("\nPress Enter to begin. ")
            if not sys.stdin.readline():
                raise BadInput("the terminal ended before Enter", "give --yes to begin at once")

    with ExitStack() as held:
        # Before the lamp's pin is asked for: the camera service has it.
        hold_desk(config.store, held)
        equipment = Equipment(make_source, light_at(config.light_pin), clock, _say, wait_for_start)
        return accept(config, SCRIPT, steps, out, equipment)


def accept(
    config: NodeConfig,
    script: tuple[Step, ...],
    steps: tuple[Step, ...],
    out: Path,
    equipment: Equipment,
    practice_s: float = PRACTICE_S,
) -> bool:
    """Run `steps` of `script` and write the report into the folder `out`; True if every step of the script ran.

    Raises BadInput, ModelMissing, ModelsDiffer or CameraUnavailable before anybody had to act.
    """
    _require_folder(out)
    models = load_models()
    check(models)
    # One picture, before two people get ready.
    require_frame(equipment.make_source(VIDEO), equipment.light)
    equipment.write(_introduction(config, steps))
    equipment.wait_for_start()
    looking = Looking(_reader(Watch(models)), Pace.of(config), equipment.clock)
    began = equipment.clock.wall()
    with _asked_to_stop() as stop:
        run = _film(equipment, steps, looking, stop, practice_s)
        report = document(_place(config), script, run, looking, began, equipment.clock.wall())
        files = _save(out, report, f"{began:%Y-%m-%dT%H-%M-%SZ}")
    _conclude(report, files, equipment.write)
    return bool(report["full"])


def hold_desk(store: Path, held: ExitStack) -> None:
    """Keep the camera's service away until `held` ends; raises Refused while it runs, or a session has not ended.

    A desk that was never started has nothing to keep.
    """
    layout = Layout(store)
    if not layout.index_db.is_file():
        return
    try:
        held.enter_context(hold_lock(layout.index_db))
    except StoreFailed as error:
        if not isinstance(error.__cause__, BlockingIOError):
            raise StoreFailed(str(error), AS_CAMERA_USER) from error
        raise Refused(
            "the desk's camera service is running",
            "between exams: systemctl stop invigil-camera, and start it again afterwards",
        ) from error
    with closing(RecordingView(store)) as view:
        session = view.active_session()
    if session is not None:
        raise Refused(
            f"session {session.sid} has not ended: the desk would go on recording it",
            "start the desk's services, end the session in the room, and come back then",
        )


def _film(
    equipment: Equipment, steps: tuple[Step, ...], looking: Looking, stop: threading.Event, practice_s: float
) -> Run:
    run: Run | None = None
    try:
        with LitSource(equipment.make_source(VIDEO), equipment.light) as source:
            run = Walk(steps, source, looking, equipment.clock, equipment.write, stop, practice_s).run()
    except CameraUnavailable as error:
        # The light stays on: the sensor may.
        if run is None:
            raise
        run.stopped = run.stopped or str(error)
    return run


def _reader(watch: Watch) -> Callable[[Frame], Sample]:
    """Frames as the camera process shrinks them for the models."""
    reformatter = VideoReformatter()

    def read(frame: Frame) -> Sample:
        image = small_bgr(frame.picture, RING_WIDTH_PX, RING_HEIGHT_PX, reformatter)
        signals = watch.process(image, frame.taken_mono_ns)
        return Sample(signals, None if watch.points is None else eye_distance_px(watch.points))

    return read


def _place(config: NodeConfig) -> Place:
    return Place(
        config.institution,
        config.room,
        config.desk,
        config.camera,
        (VIDEO.width_px, VIDEO.height_px),
        VIDEO.frame_rate_hz,
        (RING_WIDTH_PX, RING_HEIGHT_PX),
        config.inference_rate_hz,
        config.inference_cpu_percent,
        config.light_pin is not None,
        runtime_words(),
    )


def _require_folder(out: Path) -> None:
    if not out.is_dir():
        raise BadInput(f"no folder {out}", "make it first, or name another one with --out")
    if not os.access(out, os.W_OK | os.X_OK):
        raise BadInput(f"nothing may be written into {out}", "name another folder with --out")


def _introduction(config: NodeConfig, steps: tuple[Step, ...]) -> str:
    light = "is lit" if config.light_pin is not None else "is the camera's own: this desk has no light_pin"
    count = "1 step" if len(steps) == 1 else f"{len(steps)} steps"
    return (
        f"ROOM ACCEPTANCE of {config.desk}: {count}, {duration_s(steps) / 60:.0f} minutes.\n\n"
        "One of you sits at the desk as a candidate does; the other reads each step aloud from here.\n"
        f"You need {NEEDED}.\n"
        f"The camera is on while you act, and its light {light}. Nothing is recorded.\n"
        "Ctrl-C stops; the report then says how far you came.\n"
    )


def _save(out: Path, report: dict[str, Any], stamp: str) -> tuple[Path, Path]:
    stem = f"acceptance-{report['desk']}-{stamp}"
    page, data = out / f"{stem}.html", out / f"{stem}.json"
    write_file_durably(data, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    write_file_durably(page, render(report).encode())
    return page, data


def _conclude(report: dict[str, Any], files: tuple[Path, Path], write: Callable[[str], object]) -> None:
    lines = [*summary(report), *(f"to do: {one}" for one in report["advice"])]
    with suppress(OSError):  # the terminal may be gone; the report is written
        write("\n" + "".join(f"{line}\n" for line in (*lines, *map(str, files))))


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Set by Ctrl-C, SIGTERM, or a terminal that goes away: the camera is closed in order and its light put out."""
    stop = threading.Event()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
