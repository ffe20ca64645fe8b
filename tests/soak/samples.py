"""Memory, descriptors and processor time of every process, and how fast they grow within its lives."""

from __future__ import annotations

import csv
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from demo.supervise import Supervised

MIB = 1 << 20
Line = list[tuple[float, float]]


class Sample(NamedTuple):
    """One look at one process."""

    t_s: float
    rss_mib: float
    pss_mib: float
    descriptors: int
    threads: int
    cpu_s: float


class Slope(NamedTuple):
    """`per_h`: growth an hour; `grown`: over the longest life; `error_per_h`: its standard error."""

    per_h: float
    error_per_h: float
    grown: float
    longest_s: float
    samples: int


NOTHING = Slope(0.0, 0.0, 0.0, 0.0, 0)


def pooled_slope(lives: list[Line], warm_up_s: float, shortest_s: float) -> Slope:
    """Least squares with one slope for all lives and an intercept for each, so that a restart is no growth.

    The first `warm_up_s` of a life are left out (imports, models, first buffers); then lives under `shortest_s`.
    """
    kept = [[point for point in life if point[0] - life[0][0] >= warm_up_s] for life in lives if life]
    kept = [life for life in kept if len(life) > 2 and life[-1][0] - life[0][0] >= shortest_s]
    over = under = 0.0
    centred: Line = []
    for life in kept:
        mean_t = sum(t for t, _ in life) / len(life)
        mean_y = sum(y for _, y in life) / len(life)
        centred += [(t - mean_t, y - mean_y) for t, y in life]
    over = sum(t * y for t, y in centred)
    under = sum(t * t for t, _ in centred)
    if not under:
        return NOTHING
    slope = over / under
    left = sum((y - slope * t) ** 2 for t, y in centred)
    freedom = max(1, len(centred) - len(kept) - 1)
    longest_s = max(life[-1][0] - life[0][0] for life in kept)
    error = math.sqrt(left / freedom / under)
    return Slope(slope * 3600, error * 3600, slope * longest_s, longest_s, len(centred))


@dataclass
class Life:
    """One process from start to end; `name` as a fault calls it."""

    name: str
    samples: list[Sample]

    @property
    def kind(self) -> str:
        """Without the desk."""
        return self.name.split()[-1]


class Sampler(threading.Thread):
    """Looks at all processes every `every_s`."""

    def __init__(self, processes: Callable[[], dict[str, Supervised]], every_s: float) -> None:
        super().__init__(daemon=True, name="sampler")
        self._processes = processes
        self._every_s = every_s
        self._lives: dict[tuple[str, int, float], Life] = {}
        self._stopping = threading.Event()
        self._begun = time.monotonic()

    def run(self) -> None:
        while not self._stopping.wait(self._every_s):
            for name, supervised in self._processes().items():
                with suppress(psutil.Error):
                    self._look(name, psutil.Process(supervised.pid))

    def stop(self) -> None:
        """After the last look."""
        self._stopping.set()
        self.join()

    @property
    def lives(self) -> list[Life]:
        """All so far."""
        return list(self._lives.values())

    def _look(self, name: str, process: psutil.Process) -> None:
        with process.oneshot():
            memory, cpu = process.memory_full_info(), process.cpu_times()
            sample = Sample(
                time.monotonic() - self._begun,
                memory.rss / MIB,
                memory.pss / MIB,
                process.num_fds(),
                process.num_threads(),
                cpu.user + cpu.system,
            )
            key = (name, process.pid, process.create_time())
        if sample.rss_mib:  # 0: it has just ended
            self._lives.setdefault(key, Life(name, [])).samples.append(sample)


def write_lives(lives: list[Life], path: Path) -> None:
    """A line a sample, to be looked at when a slope is too steep."""
    with path.open("w", newline="") as sink:
        lines = csv.writer(sink)
        lines.writerow(["name", "life", *Sample._fields])
        for number, life in enumerate(lives):
            for sample in life.samples:
                lines.writerow([life.name, number, *(round(value, 2) for value in sample)])


def kinds_of(lives: list[Life]) -> list[str]:
    """Kinds of process, in order."""
    return sorted({life.kind for life in lives})


def slopes(
    lives: list[Life], kind: str, value: Callable[[Sample], float], warm_up_s: float, shortest_s: float
) -> Slope:
    """Of one kind of process, over all its lives."""
    lines = [[(s.t_s, value(s)) for s in life.samples] for life in lives if life.kind == kind]
    return pooled_slope(lines, warm_up_s, shortest_s)


def cpu_share(lives: list[Life], kind: str) -> float:
    """Mean share of one core that one process of the kind uses, over the time in which it was seen."""
    ours = [life.samples for life in lives if life.kind == kind and len(life.samples) > 1]
    seen_s = sum(samples[-1].t_s - samples[0].t_s for samples in ours)
    used_s = sum(samples[-1].cpu_s - samples[0].cpu_s for samples in ours)
    return used_s / seen_s if seen_s else 0.0
