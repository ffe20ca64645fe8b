"""What a disk that reorders may hold after a power cut: all up to a flush, and any half of what came after it."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.power.cuts import lines_until_cut
from tests.power.disk import LoopDisk, NoDisk
from tests.power.numbers import Numbers
from tests.power.recovered import Told, compare
from tests.power.write_log import Entry, LoggedFile, apply, entries, read_log

SIZE_MIB = 128
LINES = 250  # acknowledgements while the log grows


@dataclass
class States(Numbers):
    """Sums over all states; `lost`, `wrong` and `unmountable` hold sentences."""

    seed: int
    states: int = 0
    entries: int = 0
    flushes: int = 0
    dropped: int = 0
    acknowledged: int = 0  # of the last state
    adopted: int = 0
    quarantined: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unmountable: list[str] = field(default_factory=list)


def reordered_states(folder: Path, count: int, seed: int, conduct: str = "product") -> States:
    """Record once through the log, then start the store on `count` states that the disk may have had."""
    logged = folder / "logged"
    with LoggedFile(logged, SIZE_MIB) as file:
        with LoopDisk(folder / "live", source=file.disk) as disk:
            subprocess.run(["sync", "-f", str(disk.mnt)], check=True)
            first = entries(file.log)
            lines, _ = lines_until_cut(disk, [str(disk.mnt / "store"), conduct, str(file.log)], LINES, 0.05)
        file.close()
        return _examine(folder, file.log, lines, first, count, seed)


def _examine(folder: Path, log: Path, lines: list[bytes], first: int, count: int, seed: int) -> States:
    dice = random.Random(seed)
    log_entries = list(read_log(log))
    result = States(seed, entries=len(log_entries), flushes=sum(entry.flushes for entry in log_entries))
    base, state = folder / "base", folder / "state"
    with base.open("wb") as stream:
        stream.truncate(SIZE_MIB * 2**20)
    log_fd, base_fd = os.open(log, os.O_RDONLY), os.open(base, os.O_RDWR)
    done = 0  # entries in `base`: all up to the last flush
    try:
        for number in sorted(dice.sample(range(first, len(log_entries) + 1), count)):
            flushed = max((i + 1 for i in range(done, number) if log_entries[i].flushes), default=done)
            for entry in log_entries[done:flushed]:
                apply(entry, log_fd, base_fd)
            done = flushed
            shutil.copyfile(base, state)
            result.dropped += _apply_half(log_entries[flushed:number], log_fd, state, dice)
            _start_on(folder, state, number, lines, result)
            result.states += 1
    finally:
        os.close(log_fd)
        os.close(base_fd)
    return result


def _apply_half(after_flush: list[Entry], log_fd: int, state: Path, dice: random.Random) -> int:
    """Half of the writes, in their order, rounded down; returns how many were dropped."""
    kept = sorted(dice.sample(range(len(after_flush)), len(after_flush) // 2))
    fd = os.open(state, os.O_WRONLY)
    try:
        for place in kept:
            apply(after_flush[place], log_fd, fd)
    finally:
        os.close(fd)
    return len(after_flush) - len(kept)


def _start_on(folder: Path, state: Path, number: int, lines: list[bytes], result: States) -> None:
    told = Told()
    for line in lines:
        if json.loads(line)["at"] <= number:
            told.hear(line)
    where = f"after entry {number}: "
    try:
        disk = LoopDisk(folder / "state-mnt", source=state, made=True)
    except NoDisk as error:
        result.unmountable.append(f"{where}{error}")
        return
    with disk:
        found = compare(disk.mnt / "store", told)
    result.acknowledged = told.count
    result.adopted += found.adopted
    result.quarantined += found.quarantined
    result.lost += [where + what for what in found.lost]
    result.wrong += [where + what for what in found.wrong]
