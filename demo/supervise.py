"""Stands in for systemd on a laptop: starts the product's real processes and restarts them when they die."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

RESTART_DELAY_S = 0.5


class Supervised:
    """One process of the product with Restart=always; its output goes to a log file."""

    def __init__(
        self,
        name: str,
        argv: list[str],
        log: Path,
        *,
        restart: bool = True,
        env: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.argv = argv
        self.log = log
        self.restarts = 0
        self._restart = restart
        self._env = {**os.environ, **(env or {})}
        self._wanted = True
        self._lock = threading.Lock()
        self._process = self._spawn()
        self._thread = threading.Thread(target=self._watch, daemon=True, name=f"supervise-{name}")
        self._thread.start()

    @property
    def pid(self) -> int:
        """Process id of the present life."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the present life has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL; comes back like any service."""
        with self._lock:
            self._process.send_signal(signal.SIGKILL)

    def hold_down(self) -> None:
        """SIGKILL and stay dead until `bring_back`."""
        with self._lock:
            self._wanted = False
            self._process.kill()
        self._process.wait()

    def bring_back(self) -> None:
        """Start again after `hold_down`."""
        self._thread.join()
        self._wanted = True
        self._process = self._spawn()
        self._thread = threading.Thread(target=self._watch, daemon=True, name=f"supervise-{self.name}")
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> int:
        """SIGTERM, then SIGKILL after `timeout_s`; returns the exit code."""
        with self._lock:
            self._wanted = False
            self._process.terminate()
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._thread.join()
        return code

    def last_lines(self, count: int = 5) -> str:
        """The end of the log, for a message."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-count:])

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as sink:
            return subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=self._env,
                start_new_session=True,
            )

    def _watch(self) -> None:
        while True:
            self._process.wait()
            with self._lock:
                if not self._wanted or not self._restart:
                    return
            time.sleep(RESTART_DELAY_S)
            with self._lock:
                if not self._wanted:
                    return
                self._process = self._spawn()
                self.restarts += 1
