"""SIGKILL at every step of what a test does with a store: the disk that kills, and the processes that it kills."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from appliance.store.durable import FileOps

ROOT = Path(__file__).resolve().parents[1]
MOST_STEPS = 400


class KilledAt(FileOps):
    """Kills its own process just before the n-th step (from 1); a write dies with half of its bytes written."""

    def __init__(self, step: int) -> None:
        self._left = step

    def _reached(self) -> bool:
        self._left -= 1
        return self._left == 0

    def _step(self) -> None:
        if self._reached():
            os.kill(os.getpid(), signal.SIGKILL)

    def create(self, path: Path) -> int:
        self._step()
        return super().create(path)

    def overwrite(self, path: Path) -> int:
        self._step()
        return super().overwrite(path)

    def write(self, fd: int, data: memoryview) -> int:
        if self._reached():
            super().write(fd, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write(fd, data)

    def fdatasync(self, fd: int) -> None:
        self._step()
        super().fdatasync(fd)

    def fsync(self, fd: int) -> None:
        self._step()
        super().fsync(fd)

    def truncate(self, fd: int, size_bytes: int) -> None:
        self._step()
        super().truncate(fd, size_bytes)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)

    def make_dir(self, path: Path) -> None:
        self._step()
        super().make_dir(path)

    def commit(self, connection: sqlite3.Connection) -> None:
        self._step()
        super().commit(connection)


def lives(live: Callable[[int], object]) -> Iterator[int]:
    """Fork a process for step 1, 2, 3 … that runs `live(step)`, until one is not killed; the exit code of each."""
    for step in range(1, MOST_STEPS):
        pid = os.fork()
        if pid == 0:
            live(step)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        yield code
        if code != -signal.SIGKILL:
            return


def how_they_ended(call: str, module: str) -> list[Any]:
    """What a function of a fault test prints as JSON, called in a process of its own: forking is safe only there."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from pathlib import Path; from tests.fault import {module} as t; t.{call}",
        ],
        cwd=ROOT,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return list(json.loads(done.stdout))
