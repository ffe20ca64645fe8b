"""A desk's camera process as a child, with a stand-in for sync and inference at the other ends of its links."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from appliance.clock import SystemClock, parse_utc, utc_text
from appliance.local_link import LocalClient, Message
from appliance.store.rows import GapRow, SessionRow
from appliance.store.view import RecordingView
from tests.unit.test_store_builders import SID
from tests.unit.test_sync_room import DESK, Bench

CLIPS = Path(__file__).resolve().parents[1] / "build" / "clips"

S = 90_000
VIDEO = {"width_px": 320, "height_px": 240, "frame_rate_hz": 15, "bitrate_bps": 200_000}
OTHER_BOOT = "c" * 32
RUN = """
import sys
from pathlib import Path
from appliance.camera.process import run
from appliance.config import NodeConfig, load_config
from appliance.service import run_service
{before}
config = load_config(Path(sys.argv[1]), NodeConfig)
raise SystemExit(run_service("camera", lambda stop: run(config, stop)))
"""
# The hardware's edge: a device whose driver, once the file `hang` is there, neither delivers nor lets go.
HANGING_DEVICE = """
import threading, time
import numpy as np
import appliance.camera.v4l2
from appliance.camera.device import DeviceCamera
from appliance.camera.source import Frame
HANG = Path(sys.argv[2])
class Device(DeviceCamera):
    def __init__(self, device, width_px, height_px, frame_rate_hz, clock):
        super().__init__(f"camera {device}", frame_rate_hz, clock)
        self._image = np.full((height_px, width_px, 3), 90, np.uint8)
    def _start(self): pass
    def _stop(self): pass
    def _grab(self):
        time.sleep(1 / 15)
        if HANG.exists():
            threading.Event().wait()
        return self._clock.mono_ns(), Frame.from_bgr(self._image, 0, 1).picture
appliance.camera.v4l2.V4l2Camera = Device
"""


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, f"never saw: {what}"
        time.sleep(0.03)
    return found


class Node:
    """A desk: its camera process as a child; this process is the ledger's writer and the link's other end."""

    def __init__(self, folder: Path, run_dir: Path, camera: str) -> None:
        self.bench = Bench(folder, run_dir=run_dir, camera=camera)
        toml = folder / "node" / "node.toml"
        toml.write_text("light_pin = 17\n" + toml.read_text())
        self.folder, self.toml, self.socket = folder, toml, run_dir / "camera.sock"
        self.ring = run_dir / "frames"
        self.view = RecordingView(self.bench.store)
        self.heard: list[Message] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.link = LocalClient(self.socket, self.heard.append, retry_s=0.05)
        self.before = ""
        self.log = (folder / "camera.log").open("wb")

    def start(self) -> None:
        self.heard.clear()
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN.format(before=self.before), str(self.toml), str(self.folder / "hang")],
            env={**os.environ, "GPIOZERO_PIN_FACTORY": "mock"},
            stderr=self.log,
        )

    def stop(self, how: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(60)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.link.close()
        self.view.close()
        self.log.close()
        with suppress(AttributeError):
            self.bench.close()

    def order(self, **policy: Any) -> None:
        start = self.bench.start(**({"video": VIDEO, "preview": True} | policy))
        self.bench.ledger.order_start(SID, DESK, start.model_dump(mode="json"))
        self.link.send({"type": "wake"})

    def order_end(self, ended_at: str | None = None) -> None:
        at = ended_at or utc_text(SystemClock().wall())
        self.bench.ledger.order_end(SID, {"kind": "end", "sid": SID, "ended_at": at})
        self.link.send({"type": "wake"})

    def facts(self) -> Message | None:
        return next((message for message in reversed(self.heard) if message["type"] == "facts"), None)

    def observations(self, since: int = 0) -> list[Message]:
        return [message for message in self.heard[since:] if message["type"] == "observation"]

    @property
    def row(self) -> SessionRow | None:
        return self.view.session(SID)

    @property
    def covered_s(self) -> float:
        newest = self.view.newest_fragment(SID)
        return 0.0 if newest is None else newest.time_90k_end / S

    def records(self, seconds: float) -> None:
        until(lambda: self.covered_s >= seconds, f"{seconds:.1f} s durable", seconds + 60)

    def record_more(self, seconds: float) -> None:
        """So much from now on, whatever lies between."""
        row = self.row
        assert row is not None
        now_s = (SystemClock().wall() - parse_utc(row.started)).total_seconds()
        self.records(now_s + seconds)

    def end(self) -> SessionRow:
        self.order_end()
        return self.ended()

    def ended(self) -> SessionRow:
        until(lambda: self.row is not None and self.row.ended, "the end")
        row = self.row
        assert row is not None
        return row

    def gaps(self) -> list[GapRow]:
        return self.view.gaps(SID)

    def segment_states(self) -> list[str]:
        return [segment.state for segment in self.view.segments(SID)]

    def latencies_s(self) -> list[float]:
        """From the last frame of each fragment to its durable row."""
        row = self.row
        assert row is not None
        with closing(sqlite3.connect(f"file:{self.view.layout.index_db}?mode=ro", uri=True)) as rows:
            found = rows.execute("SELECT end_90k, durable_mono_ns FROM records WHERE kind = 2").fetchall()
        return [(durable - row.started_mono_ns) / 1e9 - end_90k / S for end_90k, durable in found]

    def fake_reboot(self) -> None:
        """The life that was killed was one of an earlier boot: the index says so, as it would."""
        with closing(sqlite3.connect(self.view.layout.index_db)) as rows:
            for table in ("sessions", "epochs"):
                rows.execute(f"UPDATE {table} SET boot_id = ?, started_mono_ns = 10", (OTHER_BOOT,))
            rows.commit()


@contextmanager
def camera_node(folder: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node whose camera is a clip of one person, or what a test gives its fixture as parameter."""
    run_dir = Path(tempfile.mkdtemp(prefix="invigil-", dir="/dev/shm"))
    made = Node(folder, run_dir, getattr(request, "param", f"clip:{CLIPS / 'single_face.mp4'}"))
    yield made
    made.close()
    shutil.rmtree(run_dir)
