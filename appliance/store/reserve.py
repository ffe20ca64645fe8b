"""The room that an armed session reserved: a file that shrinks before each write by as much as the write takes (F146).

Owned by the camera process through `RecordingStore`. A crash leaves the file: the next start gives from it, then makes
it again for a session that goes on, or removes it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from appliance.errors import NoSpace
from appliance.store.durable import FileOps, store_failure
from appliance.store.space import FIXED_BYTES, missing_space

# Given back at once while others leave the disk alone: one ftruncate and one sync in half a minute of 720p.
STEP_BYTES = 4 << 20
# Left free before every write: what SQLite's log grows by up to its checkpoint is taken from here, for both databases.
FLOOR_BYTES = 1 << 20
# The same once somebody else has taken the fixed part.
LEAST_FLOOR_BYTES = 32 << 10
# Footage beyond the plan leaves this much to rows: gaps, the end of segments, the end of the session.
KEPT_FOR_ROWS_BYTES = 8 << 20
_BLOCK_BYTES = 4096


class Reserve:
    """Used by one thread at a time, under the store's writer. Without a file it does nothing."""

    def __init__(self, path: Path, file_ops: FileOps) -> None:
        self._path = path
        self._file_ops = file_ops
        self.held_bytes = path.stat().st_size if path.is_file() else 0
        self._owed_bytes = max(0, self.held_bytes - FIXED_BYTES)  # of it for footage still to come
        self._refused_bytes = 0

    def hold(self, footage_bytes: int) -> None:
        """Reserve for footage and the fixed part; NoSpace with the bytes missing, and then nothing is held."""
        wanted_bytes = footage_bytes + FIXED_BYTES
        try:
            self._allocate(wanted_bytes)
        except OSError as error:
            self.release()
            failure = store_failure("cannot reserve room for the session", error)
            if isinstance(failure, NoSpace):
                failure = missing_space(wanted_bytes, self._free_bytes())
            raise failure from error
        self._owed_bytes = footage_bytes

    def hold_again(self, footage_bytes: int) -> None:
        """Reserve anew for what is left of a session, as far as the disk has room; never raises for want of it."""
        wanted_bytes = footage_bytes + FIXED_BYTES
        try:
            self._allocate(wanted_bytes)
        except OSError:
            most_bytes = self.held_bytes + self._free_bytes() - FLOOR_BYTES
            if most_bytes > self.held_bytes:
                with suppress(OSError):  # what was held before is still held
                    self._allocate(min(wanted_bytes, most_bytes))
        self._owed_bytes = min(footage_bytes, max(0, self.held_bytes - FIXED_BYTES))

    def make_room(self, bytes_needed: int = 0, *, footage: bool = False) -> None:
        """Give back before a write. NoSpace for footage that could only take what rows still need."""
        if not self.held_bytes:
            return
        planned_bytes = self._owed_bytes
        if footage:
            self._owed_bytes = max(0, planned_bytes - bytes_needed)
        # A refused fragment is tried in a new segment: that must not begin before there is room for the fragment.
        wanted_bytes = max(bytes_needed, self._refused_bytes) if footage else bytes_needed
        beyond_plan = footage and planned_bytes == 0
        fixed_bytes = self.held_bytes - self._owed_bytes - (KEPT_FOR_ROWS_BYTES if footage else 0)
        floor_bytes = FLOOR_BYTES if beyond_plan else min(FLOOR_BYTES, max(LEAST_FLOOR_BYTES, fixed_bytes))
        free_bytes = self._free_bytes()
        short_bytes = wanted_bytes + floor_bytes - free_bytes
        surplus_bytes = self.held_bytes - self._owed_bytes - FIXED_BYTES
        # On a full disk exactly what is short: whatever else lay free, another program could take.
        if short_bytes <= 0 and surplus_bytes > 0:
            short_bytes = max(STEP_BYTES, surplus_bytes)
        may_give_bytes = (
            max(planned_bytes, self.held_bytes - KEPT_FOR_ROWS_BYTES) if footage else self.held_bytes
        )
        given_bytes = min(max(0, short_bytes), may_give_bytes, self.held_bytes)
        if footage and free_bytes + given_bytes < wanted_bytes + floor_bytes:
            self._refused_bytes = wanted_bytes
            raise NoSpace(
                "the disk is full and the session's reserved room is used up",
                "free space on the node's disk; recordings are never removed for it",
            )
        if footage and bytes_needed >= self._refused_bytes:
            self._refused_bytes = 0
        if given_bytes:
            self._give(given_bytes)

    def footage_bytes(self) -> int:
        """What footage may still take: what is held, without what rows keep, and what is free."""
        held_bytes = max(self._owed_bytes, self.held_bytes - KEPT_FOR_ROWS_BYTES)
        return held_bytes + max(0, self._free_bytes() - FLOOR_BYTES)

    def release(self) -> None:
        """Give everything back."""
        with suppress(OSError):  # the next start tries again
            self._file_ops.unlink(self._path)
        self.held_bytes = self._owed_bytes = self._refused_bytes = 0

    def _allocate(self, size_bytes: int) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            self._file_ops.allocate(fd, size_bytes)
            self._file_ops.truncate(fd, size_bytes)
        except OSError:
            with suppress(OSError):  # some file systems keep the part that fitted
                self._file_ops.truncate(fd, self.held_bytes)
            raise
        finally:
            self._file_ops.close(fd)
        self.held_bytes = size_bytes

    def _give(self, given_bytes: int) -> None:
        left_bytes = max(0, self.held_bytes - given_bytes) // _BLOCK_BYTES * _BLOCK_BYTES
        with suppress(OSError):  # then the write itself says what the disk refuses
            fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                self._file_ops.truncate(fd, left_bytes)
                # Blocks are free for others only when the cut is in the file system's journal.
                self._file_ops.fsync(fd)
            finally:
                self._file_ops.close(fd)
        self.held_bytes = left_bytes

    def _free_bytes(self) -> int:
        try:
            return self._file_ops.free_bytes(self._path.parent)
        except OSError as error:
            raise store_failure("cannot see the free space of the store", error) from error
