"""Random power cuts, one after the other, on disks that live through several of them."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.power.disk import LoopDisk
from tests.power.numbers import Numbers
from tests.power.recovered import Told, compare

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 160  # acknowledgements in the longest life; counted, so that a busy machine sees as many
LAST_S = 0.03  # then some fragments' time, so that the cut hits any step
START_S = 0.12  # opening, recovery, session, epoch and wraps take about this long
PATIENCE_S = 120.0
FULL_MIB = 90  # a disk with more on it is replaced by a new one


@dataclass
class Counts(Numbers):
    """Sums over all cuts; `lost` and `wrong` hold sentences."""

    seed: int
    cuts: int = 0
    disks: int = 0
    acknowledged: int = 0
    epochs: int = 0
    adopted: int = 0
    unacknowledged: int = 0
    closed: int = 0
    open_ended: int = 0
    quarantined: int = 0
    late: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def cut_power(folder: Path, count: int, seed: int, conduct: str = "product") -> Counts:
    """`count` cuts; stops after the first disk on which something acknowledged is lost (a control's purpose)."""
    dice = random.Random(seed)
    counts = Counts(seed)
    while counts.cuts < count and not counts.lost:
        counts.disks += 1
        with LoopDisk(folder / str(counts.disks)) as disk:
            _live_on(disk, count, dice, conduct, counts)
        (folder / str(counts.disks) / "disk.img").unlink()
    return counts


def _live_on(disk: LoopDisk, count: int, dice: random.Random, conduct: str, counts: Counts) -> None:
    told = Told()
    root = disk.mnt / "store"
    before = 0
    while counts.cuts < count and disk.used_mib() < FULL_MIB:
        if dice.random() < 0.25:
            _one_life(disk, root, conduct, 0, dice.uniform(0, START_S), told)
        else:
            _one_life(disk, root, conduct, dice.randint(1, MOST_LINES), dice.uniform(0, LAST_S), told)
        counts.cuts += 1
        if (
            counts.cuts < count and dice.random() < 0.2
        ):  # again, while the start after a cut still works on it
            _one_life(disk, root, conduct, 0, dice.uniform(0, START_S), told)
            counts.cuts += 1
        found = compare(root, told)
        counts.adopted += found.adopted
        counts.quarantined += found.quarantined
        counts.acknowledged, before = counts.acknowledged + told.count - before, told.count
        where = f"disk {counts.disks}, cut {counts.cuts}: "
        counts.lost += [where + what for what in found.lost]
        counts.wrong += [where + what for what in found.wrong]
        if told.epochs != sorted(set(told.epochs)):
            counts.wrong.append(f"{where}epochs {told.epochs}")
        if found.lost or found.wrong:
            break
    counts.epochs += len(told.epochs)
    counts.unacknowledged += found.unacknowledged
    counts.closed += found.closed
    counts.open_ended += found.open_ended
    counts.late += len(told.late)


def _one_life(disk: LoopDisk, root: Path, conduct: str, lines: int, delay_s: float, told: Told) -> None:
    """Start, cut, SIGKILL, hear what it had said, mount again."""
    said, cut_ns = lines_until_cut(disk, [str(root), conduct], lines, delay_s)
    for line in said:
        told.hear(line, cut_ns)
    disk.unmount()
    disk.mount()


def lines_until_cut(
    disk: LoopDisk, arguments: list[str], lines: int, delay_s: float
) -> tuple[list[bytes], int]:
    """Start a writer, cut its power `delay_s` after so many lines, kill it.

    Returns every whole line that it said, and when the cut began (CLOCK_MONOTONIC, ns).
    """
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.power.writer", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline(), "the writer does not start"
        said = _listen(writer.stdout, lines, delay_s)
        cut_ns = time.monotonic_ns()
        disk.cut()
    finally:
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read()
        writer.stdout.close()
        writer.wait()
    return [line for line in (said + rest).splitlines(keepends=True) if line.endswith(b"\n")], cut_ns


def _listen(pipe: IO[bytes], lines: int, delay_s: float) -> bytes:
    """Empties the pipe meanwhile, so that the writer never waits for us."""
    said = b""
    until = time.monotonic() + (PATIENCE_S if lines else delay_s)
    while (left := until - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            piece = os.read(pipe.fileno(), 1 << 16)
            if not piece:
                break
            said += piece
        if lines and said.count(b"\n") >= lines:
            lines, until = 0, time.monotonic() + delay_s
    assert not lines, f"the writer acknowledged nothing more for {PATIENCE_S} s"
    return said
