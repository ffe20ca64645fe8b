"""Shared-memory ring of small frames, camera to inference: nobody waits, a slow reader loses frames.

Lives on tmpfs alone (plaintext never reaches a disk) and vanishes with `close`. Either side may be killed at
any time: a new writer puts a new file in the old one's place, and the reader moves over to it.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from appliance.errors import BadConfig, BadInput, NoSpace

Image = NDArray[np.uint8]

MAGIC = b"IVRING1\0"
# magic, width, height, slots, reserved; then the newest sequence at its own offset
HEADER = struct.Struct("<8sIIII")
NEWEST = struct.Struct("<Q")
NEWEST_AT = 32
HEADER_BYTES = 64
# version (odd while being written), sequence, taken_mono_ns, check sum
SLOT = struct.Struct("<QQqQ")
SLOT_HEADER_BYTES = 64
ATTEMPTS = 3
HINT = "put the frame ring under /run or /dev/shm"


@dataclass(frozen=True, slots=True)
class RingFrame:
    """A frame where it lies in the ring, not a copy: who keeps some of it copies that, and asks `is_whole` afterwards.

    `image` is a height x width x 3 uint8 BGR view that cannot be written to; `sequence` counts a writer's from 1.
    """

    sequence: int
    taken_mono_ns: int
    image: Image
    _memory: mmap.mmap
    _slots: int

    def is_whole(self) -> bool:
        """Whether nothing has been written over `image` yet, so that all that was read of it is of this frame.

        False already once the frame before the one that takes this slot is there: on ARM stores may be seen in another
        order than they were made in, but not a whole frame's time apart. False also for a number below this frame's:
        the writer is just setting it, and `pack_into` clears before it writes.
        """
        (newest,) = NEWEST.unpack_from(self._memory, NEWEST_AT)
        return bool(0 <= newest - self.sequence < self._slots - 1)


def _slot_bytes(width_px: int, height_px: int) -> int:
    return SLOT_HEADER_BYTES + -(-width_px * height_px * 3 // 64) * 64


def _check_sum(pixels: Image, sequence: int, taken_mono_ns: int) -> int:
    """Sum of the 64-bit words, which catches what the version cannot.

    Python sets no memory barrier between two stores to a mapping, so on ARM a reader may see the closing
    version before the last pixels. Measured: 14 µs for 640x360.
    """
    words = pixels.view(np.uint64).sum(dtype=np.uint64)
    return (int(words) + sequence + taken_mono_ns) % 2**64


def _pixels(memory: mmap.mmap, slot_at: int, slot_bytes: int) -> Image:
    return np.frombuffer(memory, np.uint8, slot_bytes - SLOT_HEADER_BYTES, slot_at + SLOT_HEADER_BYTES)


def require_memory_backed(directory: Path) -> None:
    """Raises BadConfig unless `directory` lies on tmpfs or ramfs, by the kernel's own mount table (F085)."""
    try:
        device = directory.stat().st_dev
    except OSError as error:
        raise BadConfig(f"frame ring's directory cannot be used: {directory}", HINT) from error
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds = set()
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        mount, _, file_system = line.partition(" - ")
        if mount.split()[2] == number:
            kinds.add(file_system.split()[0])
    if not kinds or not kinds <= {"tmpfs", "ramfs"}:
        raise BadConfig(f"frame ring would lie on a disk: {directory}", HINT)


class FrameRingWriter:
    """Owns the ring at `path`: replaces what was there, removes it on `close`.

    Raises BadConfig for a path that is not on tmpfs/ramfs, NoSpace when it does not fit.
    """

    def __init__(self, path: Path, width_px: int, height_px: int, slots: int = 8, mode: int = 0o600) -> None:
        if min(width_px, height_px) < 1 or slots < 2:
            raise ValueError(f"ring of {slots} frames of {width_px}x{height_px} is too small")
        require_memory_backed(path.parent)
        self._path = path
        self._shape = (height_px, width_px, 3)
        self._slots = slots
        self._slot_bytes = _slot_bytes(width_px, height_px)
        self._sequence = 0
        size = HEADER_BYTES + slots * self._slot_bytes
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, mode)
            # Reserved now, so that a full tmpfs is an error here and not a SIGBUS later.
            os.posix_fallocate(descriptor, 0, size)
            self._memory = mmap.mmap(descriptor, size)
            self._inode = os.fstat(descriptor).st_ino
            HEADER.pack_into(self._memory, 0, MAGIC, width_px, height_px, slots, 0)
            fresh.replace(path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise NoSpace(
                f"frame ring of {size} bytes cannot be made: {error.strerror}", "free memory in its tmpfs"
            ) from error
        finally:
            os.close(descriptor)

    def write(self, image: Image, taken_mono_ns: int) -> int:
        """Copy a height x width x 3 uint8 BGR image over the oldest one; returns its sequence.

        ValueError for another shape.
        """
        if image.shape != self._shape or image.dtype != np.uint8:
            raise ValueError(f"ring takes uint8 {self._shape}, not {image.dtype} {image.shape}")
        sequence = self._sequence + 1
        slot_at = HEADER_BYTES + sequence % self._slots * self._slot_bytes
        version = 2 * sequence
        SLOT.pack_into(self._memory, slot_at, version - 1, 0, 0, 0)
        pixels = _pixels(self._memory, slot_at, self._slot_bytes)
        pixels[: image.size].reshape(self._shape)[...] = image
        check_sum = _check_sum(pixels, sequence, taken_mono_ns)
        SLOT.pack_into(self._memory, slot_at, version, sequence, taken_mono_ns, check_sum)
        NEWEST.pack_into(self._memory, NEWEST_AT, sequence)
        self._sequence = sequence
        return sequence

    def close(self) -> None:
        """Remove the ring, unless a newer writer has taken its place."""
        if self._memory.closed:
            return
        self._memory.close()
        try:
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        except FileNotFoundError:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class FrameRingReader:
    """Reads the newest frame of the ring at `path`, which may come, go and be replaced at any time.

    `lost_frames` counts frames that were overwritten or skipped between two that were read from one writer,
    `torn_reads` the frames not given because the writer was in that slot.
    """

    def __init__(self, path: Path) -> None:
        self.lost_frames = 0
        self.torn_reads = 0
        self._path = path
        self._memory: mmap.mmap | None = None
        self._identity = (0, 0)
        self._fresh = True

    def latest(self, after_sequence: int) -> RingFrame | None:
        """The newest frame if its sequence is above `after_sequence` (0: any), else None.

        After a change of writer, whose sequence begins at 1 again, its first frame is given whatever
        `after_sequence` is. Raises BadInput for a file that is no frame ring.
        """
        self._follow()
        if self._memory is None:
            return None
        after = 0 if self._fresh else after_sequence
        for _ in range(ATTEMPTS):
            (newest,) = NEWEST.unpack_from(self._memory, NEWEST_AT)
            if newest <= after:
                return None
            frame = self._frame(newest)
            if frame is not None:
                if after > 0:
                    self.lost_frames += newest - after - 1
                self._fresh = False
                return frame
            self.torn_reads += 1
        return None

    def close(self) -> None:
        """Let go of the ring; `latest` opens it again. A frame that somebody still holds stays readable."""
        self._memory = None

    def _follow(self) -> None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self.close()
            return
        if self._memory is not None and (found.st_dev, found.st_ino) == self._identity:
            return
        self.close()
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            opened = os.fstat(descriptor)
            if opened.st_size < HEADER_BYTES:
                raise BadInput(f"not a frame ring: {self._path}", "remove it and restart the camera service")
            memory = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        magic, self._width_px, self._height_px, self._slots, _ = HEADER.unpack_from(memory)
        self._slot_bytes = _slot_bytes(self._width_px, self._height_px)
        possible = magic == MAGIC and min(self._width_px, self._height_px, self._slots) > 0
        if not possible or opened.st_size != HEADER_BYTES + self._slots * self._slot_bytes:
            memory.close()
            raise BadInput(f"not a frame ring: {self._path}", "remove it and restart the camera service")
        self._memory = memory
        self._identity = (opened.st_dev, opened.st_ino)
        self._fresh = True

    def _frame(self, sequence: int) -> RingFrame | None:
        """The frame `sequence`, or None if its slot has not, or not any more, all of it."""
        assert self._memory is not None  # noqa: S101
        slot_at = HEADER_BYTES + sequence % self._slots * self._slot_bytes
        version, found, taken_mono_ns, check_sum = SLOT.unpack_from(self._memory, slot_at)
        if version != 2 * sequence or found != sequence:
            return None
        pixels = _pixels(self._memory, slot_at, self._slot_bytes)
        if _check_sum(pixels, sequence, taken_mono_ns) != check_sum:
            return None
        size = self._height_px * self._width_px * 3
        image = pixels[:size].reshape(self._height_px, self._width_px, 3)
        return RingFrame(sequence, taken_mono_ns, image, self._memory, self._slots)
