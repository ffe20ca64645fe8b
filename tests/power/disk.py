"""A small ext4 disk in a file, whose power can be cut: what the kernel had not yet written is gone."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path

# linux/fs: FS_IOC_SHUTDOWN = _IOR('X', 125, __u32); EXT4_GOING_FLAGS_NOLOGFLUSH: not even the journal is written out
FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
BUSY_S = 30.0  # how long a killed writer's last file may keep the disk busy


class NoDisk(AssertionError):
    """The machine cannot give the test its disk; that fails, it does not skip."""


class LoopDisk:
    """`mnt` is the mounted root. `source`: the file that holds the bytes, `made` with an ext4 on it already."""

    def __init__(
        self, folder: Path, size_mib: int = 192, source: Path | None = None, made: bool = False
    ) -> None:
        self.mnt = folder / "mnt"
        self.mnt.mkdir(parents=True, exist_ok=True)
        self._source = source or folder / "disk.img"
        if source is None:
            with self._source.open("wb") as image:
                image.truncate(size_mib * 2**20)
        if made:
            self.mount()
        else:
            self._make()

    def renew(self) -> None:
        """Empty again."""
        self.unmount()
        self._make()

    def _make(self) -> None:
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self._source))
        self.mount()

    def mount(self) -> None:
        """Replays the journal, as after a power cut."""
        _run("mount", "-o", "loop,noinit_itable", str(self._source), str(self.mnt))

    def cut(self) -> None:
        """From here nothing reaches the disk: neither data, nor what the journal holds in memory."""
        fd = os.open(self.mnt, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        except OSError as error:
            raise NoDisk(f"FS_IOC_SHUTDOWN is refused on {self.mnt}: {error}") from error
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """Gives the loop device back."""
        until = time.monotonic() + BUSY_S
        while True:
            done = subprocess.run(["umount", str(self.mnt)], capture_output=True, check=False)
            if done.returncode == 0:
                return
            if time.monotonic() > until:
                raise NoDisk(f"cannot unmount {self.mnt}: {done.stderr.decode().strip()}")
            time.sleep(0.05)

    def used_mib(self) -> int:
        """What is taken of it."""
        room = os.statvfs(self.mnt)
        return (room.f_blocks - room.f_bfree) * room.f_frsize // 2**20

    def close(self) -> None:
        """Unmount if mounted."""
        if os.path.ismount(self.mnt):
            self.unmount()

    def __enter__(self) -> LoopDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _run(*command: str) -> None:
    try:
        subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = (
            error.stderr.decode().strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        )
        raise NoDisk(
            f"{command[0]} failed: {said}; the test needs root, e2fsprogs, /dev/loop-control and free loop devices"
        ) from error
