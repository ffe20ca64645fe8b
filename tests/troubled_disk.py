"""A disk that refuses what the test chooses, and notes what it took."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from appliance.store.durable import FileOps


class TroubledDisk(FileOps):
    """Notes what is done, and refuses a step of its choice while `refusals` lasts; a refused write is half done."""

    def __init__(self) -> None:
        self.step = ""
        self.code = errno.EIO
        self.refusals = 0
        self.refused = 0  # how often it refused
        self.done: list[str] = []

    def refuse(self, step: str, times: int = 10**6, code: int = errno.EIO) -> None:
        self.step, self.refusals, self.code = step, times, code

    def _meet(self, step: str) -> None:
        if step == self.step and self.refusals > 0:
            self.refusals -= 1
            self.refused += 1
            if step == "commit":
                raise sqlite3.OperationalError("disk I/O error")
            raise OSError(self.code, os.strerror(self.code))
        self.done.append(step)

    def create(self, path: Path) -> int:
        self._meet(f"create {path.name}")
        return super().create(path)

    def write(self, fd: int, data: memoryview) -> int:
        if self.step == "write" and self.refusals > 0:
            super().write(fd, data[: len(data) // 2])
        self._meet("write")
        return super().write(fd, data)

    def fdatasync(self, fd: int) -> None:
        self._meet("fdatasync")
        super().fdatasync(fd)

    def truncate(self, fd: int, size_bytes: int) -> None:
        self._meet("truncate")
        super().truncate(fd, size_bytes)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._meet(f"rename {target.name}")

    def commit(self, connection: sqlite3.Connection) -> None:
        self._meet("commit")
        super().commit(connection)
