"""One target in a process of its own: a segmentation fault, an endless wait or a gulp of memory is seen from outside.

The child writes the number of each input before it begins, so what killed it has a name.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import select
import signal
import struct
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import IO, Any

from tests.fuzz.engine import MOST_FAILURES, Build, Report, run

NUMBER = struct.Struct("<q")
# The machine may be busy; what waits for nothing at all waits longer.
STILL_S = 120.0
MEMORY_BYTES = 1 << 30
BEGINNING = -1


def run_apart(name: str, build: Build, seed: int, count: int, first: int = 0) -> Report:
    """`count` inputs in children, a new one after each that died or stood still."""
    whole = Report(name, seed)
    end = first + count
    while first < end and len(whole.failures) < MOST_FAILURES:
        lines, stopped_at, how = _child(name, build, seed, first, end - first)
        for line in lines:
            if "what" in line:
                whole.fail(line["what"], line["number"])
            else:
                whole.merge(line)
        if not how:
            break
        whole.inputs += max(stopped_at - first, 0) + 1
        whole.fail(how, stopped_at)
        if stopped_at == BEGINNING:
            break
        first = stopped_at + 1
    return whole


def _child(
    name: str, build: Build, seed: int, first: int, count: int
) -> tuple[list[dict[str, Any]], int, str]:
    shared = mmap.mmap(-1, NUMBER.size)
    NUMBER.pack_into(shared, 0, BEGINNING)
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of imported libraries sleep
        pid = os.fork()
    if pid == 0:
        os.close(reading)
        status = 1
        try:
            with os.fdopen(writing, "w") as out:
                _work(name, build, seed, first, count, shared, out)
            status = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(status)
    os.close(writing)
    try:
        return _watch(pid, reading, shared)
    finally:
        os.close(reading)
        shared.close()


def _work(
    name: str, build: Build, seed: int, first: int, count: int, shared: mmap.mmap, out: IO[str]
) -> None:
    """Says each failure at once, since the next input may be the end of this process."""

    def say(line: dict[str, Any]) -> None:
        print(json.dumps(line), file=out, flush=True)

    folder = tempfile.TemporaryDirectory(prefix="invigil-fuzz-", dir=_memory())
    with folder as path, build(Path(path)) as target:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.RLIM_INFINITY))
        report = run(
            name,
            target,
            seed,
            first,
            count,
            lambda number: NUMBER.pack_into(shared, 0, number),
            lambda what, number: say({"what": what, "number": number}),
        )
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        say(report.line())


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _watch(pid: int, reading: int, shared: mmap.mmap) -> tuple[list[dict[str, Any]], int, str]:
    """(what it said, the last input that it began, how it died or "")."""
    answer = b""
    number, since_s = NUMBER.unpack_from(shared)[0], time.monotonic()
    how = ""
    while True:
        if select.select([reading], [], [], 1.0)[0]:
            chunk = os.read(reading, 1 << 16)
            if not chunk:
                break
            answer += chunk
        now = NUMBER.unpack_from(shared)[0]
        if now != number:
            number, since_s = now, time.monotonic()
        elif not how and time.monotonic() - since_s > STILL_S:
            how = f"stood still for {STILL_S:.0f} s"
            os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        how = how or f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    elif os.WEXITSTATUS(status):
        how = f"ended with {os.WEXITSTATUS(status)}"
    whole = answer[: answer.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], NUMBER.unpack_from(shared)[0], how
