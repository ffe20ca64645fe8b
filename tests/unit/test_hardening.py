"""Neither a core file nor swap gets what a service holds in memory; seen as the kernel shows it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICE = """
import resource
from appliance import hardening
from appliance.service import run_service
{before}
def body(stop):
    {body}
raise SystemExit(run_service("{name}", body))
"""
SHOW = 'print(open("/proc/self/limits").read(), open("/proc/self/status").read(), sep="", flush=True)'
FACTS = "print(hardening.core_files_forbidden(), hardening.keys_stay_in_memory())"
# Files of many lines and of none stand in for /proc/swaps: the tests' machine may have swap or not.
SWAP = "from pathlib import Path; hardening.SWAPS = Path('/proc/mounts')"
NO_SWAP = "from pathlib import Path; hardening.SWAPS = Path('/dev/null')"
CRASH = "import ctypes; print('up', flush=True); ctypes.string_at(0)"
WITH_CORES = "resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))"
# As a user whom nobody allowed anything; imports come first, the checkout may be closed to that user.
UNPRIVILEGED = "import os; os.setgid(65534); os.setuid(65534)"


def ran(name: str, body: str, before: str = "", folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    program = SERVICE.format(name=name, body=body, before=before)
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )


def locked_kib(shown: str) -> int:
    match = re.search(r"^VmLck:\s+(\d+) kB$", shown, re.MULTILINE)
    assert match
    return int(match[1])


@pytest.mark.parametrize("name", ["camera", "inference", "sync", "room"])
def test_no_service_may_leave_a_core_file(name: str) -> None:
    """F083: pictures and keys are in these processes' memory."""
    shown = ran(name, SHOW, WITH_CORES).stdout
    assert re.search(r"^Max core file size +0 +0 +bytes", shown, re.MULTILINE)
    assert ran(name, FACTS, WITH_CORES).stdout.startswith("True")


def test_recording_process_is_locked_into_memory() -> None:
    """F083: what swap never gets cannot be read from it. The tests run as root, which may lock."""
    shown = ran("camera", SHOW).stdout
    resident = re.search(r"^VmRSS:\s+(\d+) kB$", shown, re.MULTILINE)
    assert resident
    assert locked_kib(shown) >= int(resident[1]) // 2
    assert ran("camera", FACTS, SWAP).stdout == "True True\n"


def test_processes_without_recording_keys_are_not_locked() -> None:
    assert locked_kib(ran("inference", SHOW).stdout) == 0


def test_memory_that_comes_later_is_locked_as_well() -> None:
    grow = f"{SHOW}; more = bytearray(b'x') * (32 << 20); {SHOW}"
    first, then = ran("camera", grow).stdout.split("Max cpu time")[1:]
    assert locked_kib(then) - locked_kib(first) >= 32 << 10


def test_a_system_that_refuses_is_a_warning_and_the_service_goes_on() -> None:
    result = ran("camera", FACTS, f"{UNPRIVILEGED}; {SWAP}")
    assert (result.returncode, result.stdout) == (0, "True False\n")
    assert "memory.not_protected reason=only a part of the memory may be locked" in result.stderr
    assert "LimitMEMLOCK=infinity" in result.stderr


def test_without_swap_there_is_nothing_to_warn_of() -> None:
    result = ran("camera", FACTS, f"{UNPRIVILEGED}; {NO_SWAP}")
    assert (result.returncode, result.stdout, result.stderr) == (0, "True True\n", "")


def test_a_crash_leaves_no_core_file(tmp_path: Path) -> None:
    """A service that dies of SIGSEGV although its machine would keep core files."""
    result = ran("camera", CRASH, WITH_CORES, tmp_path)
    assert (result.returncode, result.stdout) == (-signal.SIGSEGV, "up\n")
    assert list(tmp_path.iterdir()) == []


def test_the_same_crash_unprotected_does_leave_one(tmp_path: Path) -> None:
    """Control: without it the kernel writes, or at least marks the process as dumped."""
    program = f"import resource; {WITH_CORES}; {CRASH}"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.DEVNULL
    ) as process:
        _, status = os.waitpid(process.pid, 0)
        process.returncode = status
    assert status & 0x7F == signal.SIGSEGV
    assert status & 0x80, "core dumped"


def test_the_same_crash_protected_is_not_marked_as_dumped(tmp_path: Path) -> None:
    program = SERVICE.format(name="camera", body=CRASH, before=WITH_CORES)
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.DEVNULL
    ) as process:
        _, status = os.waitpid(process.pid, 0)
        process.returncode = status
    assert (status & 0x7F, status & 0x80) == (signal.SIGSEGV, 0)


FREE = (
    "import ctypes; c = ctypes.CDLL(None); c.malloc.restype = ctypes.c_void_p; c.free.argtypes = [ctypes.c_void_p]; "
    "keep = c.malloc(65536); at = c.malloc(65536); last = c.malloc(65536); ctypes.memset(at, 0x46, 65536); c.free(at); "
    "print(ctypes.string_at(at, 65536).count(b'F') > 60000)"
)


def test_freed_memory_is_overwritten() -> None:
    """F083: film that was encrypted and let go does not wait in the heap for whoever reads it."""
    assert ran("camera", FREE).stdout == "False\n"


def test_freed_memory_is_not_overwritten_by_itself() -> None:
    """Control: a service that holds no pictures' plaintext and goes without."""
    assert ran("sync", FREE).stdout == "True\n"


@pytest.mark.parametrize("unit", ["camera", "inference", "sync", "room"])
def test_units_forbid_core_files_and_swap(unit: str) -> None:
    text = (ROOT / "systemd" / f"invigil-{unit}.service").read_text()
    assert "\nLimitCORE=0\n" in text
    assert "\nMemorySwapMax=0\n" in text
    assert ("\nLimitMEMLOCK=infinity\n" in text) is (unit == "camera")
