"""System calls that fail, by `strace --inject`, at the n-th call for every n; then the power goes as well.

A process of its own (it forks): python -m tests.power.injected FOLDER FAULT CONDUCT FIRST STEP; prints `Runs` as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from appliance.errors import StoreFailed
from tests.power.disk import LoopDisk, NoDisk
from tests.power.numbers import Numbers
from tests.power.recovered import Told, compare
from tests.power.writer import Life, teller

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 5  # of every part: each track fills, seals and begins a segment
MOST = 400
REPORTED_AND_LEFT = 3  # exit code of a writer that could not begin
# strace 6.1 can give a call another result, not another length. A result alone ("retval") is a kernel that lies, fit
# for a control; real short writes come from the kernel at RLIMIT_FSIZE, n times this many bytes.
LIMIT_BYTES = 40_009

FAULTS: dict[str, str | None] = {
    "none": None,
    "sync-eio": "fdatasync:error=EIO",
    "sync-kill": "fdatasync:signal=SIGKILL",
    "fsync-eio": "fsync:error=EIO",
    "write-enospc": "write:error=ENOSPC",
    "write-eio": "write:error=EIO",
    "write-lies": "write:retval=1000",
    "database-enospc": "pwrite64:error=ENOSPC",
    "database-kill": "pwrite64:signal=SIGKILL",
    "short-write": None,
}


@dataclass
class Runs(Numbers):
    """One fault at each n: how the writers took it. `lost`, `wrong` and `silent` hold sentences."""

    fault: str
    conduct: str
    runs: int = 0
    reported: int = 0
    died: int = 0
    acknowledged: int = 0
    adopted: int = 0
    unharmed: int = (
        0  # unreported before or after the recording: SQLite keeps its log until a later checkpoint
    )
    silent: list[str] = field(default_factory=list)  # while recording, and neither reported nor dead
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def run_faults(folder: Path, fault: str, conduct: str = "product", first: int = 1, step: int = 1) -> Runs:
    """In a process of its own: n = first, first + step … AssertionError with its last words if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.power.injected", str(folder), fault, conduct, str(first), str(step)],
        cwd=ROOT,
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return Runs(**json.loads(done.stdout))


def inject_at_each(folder: Path, fault: str, conduct: str, first: int, step: int) -> Runs:
    """Until a run meets the fault no more, or, what only a control does, loses something."""
    runs = Runs(fault, conduct)
    with LoopDisk(folder) as disk:
        for number in range(first, MOST, step):
            if disk.used_mib() > 90:
                disk.renew()
            met = _one_run(disk, disk.mnt / f"{fault}-{number}", number, runs)
            runs.runs += 1
            if not met or runs.lost:
                assert met or number > first or fault == "none", f"{fault}: the writer makes no such call"
                return runs
    raise AssertionError(f"{fault}: the writer makes more than {MOST} such calls")


def _one_run(disk: LoopDisk, root: Path, number: int, runs: Runs) -> bool:
    """One writer's whole life, a power cut, recovery; True if the fault happened."""
    ends, gate = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(gate[0], 1)
        if runs.fault == "short-write":
            resource.setrlimit(resource.RLIMIT_FSIZE, (number * LIMIT_BYTES, resource.RLIM_INFINITY))
        _live(root, runs.conduct, ends[1])
    os.close(ends[1])
    trace = disk.mnt.parent / "trace"
    inject = FAULTS[runs.fault]
    with _traced(pid, inject and f"{inject}:when={number}", trace):
        os.write(gate[1], b"!")
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    for fd in gate:
        os.close(fd)
    told = Told()
    with os.fdopen(ends[0], "rb") as pipe:
        for line in pipe:
            told.hear(line)
    disk.cut()
    disk.unmount()
    disk.mount()

    where = f"{runs.fault} {number}: "
    before, refused, _ = trace.read_text().partition("(INJECTED)")
    reported = bool(told.failures) or code == REPORTED_AND_LEFT
    died = code == -signal.SIGKILL
    if code not in (0, REPORTED_AND_LEFT) and not died:
        runs.wrong.append(f"{where}the writer left with {code}")
    runs.reported += reported
    runs.died += died
    if refused and not reported and not died:
        if "epoch" in before and "closing" not in before:
            runs.silent.append(where + before.splitlines()[-1])
        else:
            runs.unharmed += 1
    found = compare(root, told)
    runs.acknowledged += told.count
    runs.adopted += found.adopted
    runs.lost += [where + what for what in found.lost]
    runs.wrong += [where + what for what in found.wrong]
    return bool(refused) or reported or died


def _live(root: Path, conduct: str, pipe: int) -> None:
    """The forked writer: to the end, or to the first refusal that it cannot go round."""
    tell = teller(pipe)
    try:
        life = Life(root, conduct, tell)
        life.rounds(ROUNDS)
        tell(closing=True)
        life.close()
    except StoreFailed as error:
        tell(failed=str(error))
        os._exit(REPORTED_AND_LEFT)
    except BaseException as error:  # noqa: BLE001 (a fork must not run on into its parent's code)
        os.write(2, repr(error).encode())
        os._exit(4)
    os._exit(0)


@contextmanager
def _traced(pid: int, inject: str | None, trace: Path) -> Iterator[None]:
    """strace on a process that waits at its gate; without `inject`, nothing."""
    trace.write_text("")
    if inject is None:
        yield
        return
    call = inject.partition(":")[0]
    try:
        strace = subprocess.Popen(
            # writev carries the acknowledgements: the trace then shows between which of them the fault came.
            [
                "strace",
                "-f",
                "-y",
                "-o",
                trace,
                "-e",
                f"trace={call},writev",
                "-e",
                f"inject={inject}",
                "-p",
                f"{pid}",
            ],
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        os.kill(pid, signal.SIGKILL)
        raise NoDisk("strace is not installed: apt-get install strace") from error
    assert strace.stderr is not None
    said = strace.stderr.readline()  # strace: Process … attached
    if b"attached" not in said:
        os.kill(pid, signal.SIGKILL)
        raise NoDisk(
            f"strace cannot attach: {said.decode().strip()}; the test needs ptrace (root, CAP_SYS_PTRACE)"
        )
    yield
    strace.communicate()


if __name__ == "__main__":
    print(
        json.dumps(
            asdict(inject_at_each(Path(sys.argv[1]), sys.argv[2], sys.argv[3], *map(int, sys.argv[4:])))
        )
    )
