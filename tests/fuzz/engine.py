"""Runs inputs through one target: what is not a documented refusal or a right answer is a failure.

A time limit of processor time for each input stops what spins or grows too fast; `isolation` sees the rest.
"""

from __future__ import annotations

import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

# Inputs are 64 KiB at most and the slowest honest one takes some 100 ms on this machine.
LIMIT_CPU_S = 3.0
MOST_FAILURES = 20
KEPT = Path(__file__).parents[2] / "build" / "fuzz"


class Accepted(AssertionError):
    """Something was taken for right that nobody made so."""


class TookTooLong(BaseException):
    """An input used more than LIMIT_CPU_S; no handler of the product's may swallow it."""


@dataclass(frozen=True)
class Target:
    """`make` gives an input, `check` a word for what became of it; any exception from `check` is a failure.

    `check` catches the errors that the parser's docstring names, and raises Accepted for a wrong yes.
    """

    make: Callable[[Random], Any]
    check: Callable[[Any], str]


Build = Callable[[Path], AbstractContextManager[Target]]


@dataclass
class Report:
    """What became of `inputs` inputs; `failures`: a sentence with its place -> numbers of the first few inputs.

    `slowest_ms`: processor time of input `slowest`, all threads together.
    """

    target: str
    seed: int
    inputs: int = 0
    seconds: float = 0.0
    slowest_ms: float = 0.0
    slowest: int = -1
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, list[int]] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "target": self.target,
            "inputs": self.inputs,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "slowest_ms": round(self.slowest_ms, 1),
            "slowest": self.slowest,
            "outcomes": dict(sorted(self.outcomes.items())),
            "failures": self.failures,
        }

    def fail(self, what: str, number: int) -> bool:
        """Note a failure under its sentence; True for the first few of one sentence, whose numbers are kept."""
        numbers = self.failures.setdefault(what, [])
        if len(numbers) < 5:
            numbers.append(number)
            return True
        return False

    def merge(self, other: dict[str, Any]) -> None:
        """Take in the counts of another report's line about later inputs of the same target and seed."""
        self.inputs += other["inputs"]
        self.seconds += other["seconds"]
        if other["slowest_ms"] > self.slowest_ms:
            self.slowest_ms, self.slowest = other["slowest_ms"], other["slowest"]
        self.outcomes.update(other["outcomes"])


def random_of(target: str, seed: int, number: int) -> Random:
    """The randomness of one input; the same on every machine and Python."""
    return Random(f"{target}/{seed}/{number}")


def run(
    name: str,
    target: Target,
    seed: int,
    first: int,
    count: int,
    begins: Callable[[int], object] = lambda _number: None,
    failed: Callable[[str, int], object] = lambda _what, _number: None,
) -> Report:
    """Inputs `first` to `first + count`; stops early after MOST_FAILURES different failures."""
    report = Report(name, seed)
    began_s = time.perf_counter()
    with _limited():
        for number in range(first, first + count):
            begins(number)
            report.inputs += 1
            value = target.make(random_of(name, seed, number))
            start_s = time.process_time()
            try:
                signal.setitimer(signal.ITIMER_PROF, LIMIT_CPU_S)
                outcome = target.check(value)
            except (Exception, TookTooLong) as error:  # noqa: BLE001 - anything undocumented is what is looked for
                signal.setitimer(signal.ITIMER_PROF, 0)
                failed(_sentence(error), number)
                if report.fail(_sentence(error), number):
                    _keep(name, seed, number, value)
                outcome = "failed"
            signal.setitimer(signal.ITIMER_PROF, 0)
            took_ms = (time.process_time() - start_s) * 1000
            if took_ms > report.slowest_ms:
                report.slowest_ms, report.slowest = took_ms, number
            report.outcomes[outcome] += 1
            if len(report.failures) >= MOST_FAILURES:
                break
    report.seconds = time.perf_counter() - began_s
    return report


def _keep(name: str, seed: int, number: int, value: Any) -> None:
    """The input itself: artefacts hold random keys, so the next run's differ in those bytes."""
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{name}-{seed}-{number}.txt").write_text(ascii(value))


def _sentence(error: BaseException) -> str:
    """Type, beginning of the message, and the innermost line of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        frame for frame in frames if any(part in frame.filename for part in ("/appliance/", "/verifier/"))
    ]
    where = (ours or frames)[-1]
    words = str(error).splitlines()[0][:100] if str(error) else ""
    place = "/".join(Path(where.filename).parts[-2:])
    return f"{type(error).__name__} at {place}:{where.lineno}: {words}"


@contextmanager
def _limited() -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TookTooLong(f"more than {LIMIT_CPU_S} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
