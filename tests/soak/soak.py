"""One soak from a made room to its report: exams and faults side by side, then healing, settling, counting."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from appliance.clock import SystemClock, utc_text
from appliance.evf.recipients import RepresentativeKey
from demo.room import DemoFailed, wait_until
from tests.soak.books import Books
from tests.soak.exams import DeskExams
from tests.soak.faults import Faults
from tests.soak.observer import Observer
from tests.soak.plan import make_plan
from tests.soak.residue import Residue, complaints, tracebacks, unbounded_files, unexplained_objects
from tests.soak.samples import Life, Sampler, Slope, cpu_share, kinds_of, slopes
from tests.soak.site import GUEST, SoakRoom

# A day of ten hours may cost a process 80 MiB, a sixth of the tightest limit in systemd/ (sync: MemoryMax=512M).
MEMORY_MIB_PER_H = 8.0
# What an allocator and SQLite's caches move by themselves in a short run; less growth than this says nothing.
MEMORY_NOISE_MIB = 8.0
# The whole way from a process's first minute to its highest, warm-up and all.
MEMORY_WHOLE_MIB = 64.0
DESCRIPTORS_PER_H = 4.0
DESCRIPTORS_NOISE = 8.0
JUDGED = ("camera", "inference", "sync", "controller")


@dataclass(frozen=True)
class Options:
    """Times in seconds. `patience_s`: how long one exam may wait for a room with faults, and the end for all."""

    length_s: float
    seed: int
    exam_s: tuple[float, float] = (15.0, 75.0)
    mean_fault_s: float = 8.0
    sample_s: float = 5.0
    # Measured: a camera process reaches its level after some sessions (threads get arenas of their own), by steps of
    # 2 MiB, and has 5.5 MiB more while it records; before, or in less than some more sessions, that is all one sees.
    warm_up_s: float = 600.0
    shortest_life_s: float = 600.0
    say_every_s: float = 30.0
    # A broker, controller or storage that is away for a minute, and what comes after it on a busy machine.
    patience_s: float = 240.0
    control: bool = False


@dataclass
class Soak:
    """`run` once in a running room, stop the room, `conclude`; then `report` and `failures`."""

    room: SoakRoom
    options: Options
    say: Callable[[str], None]
    report: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Exams and faults for the time given, then everything healed and settled."""
        room, options = self.room, self.options
        client = room.client()
        plan = make_plan(
            options.seed, options.length_s, [desk.id for desk in room.desks], room.small, options.mean_fault_s
        )
        key_file = room.root / "keys" / "representative.key"
        representative = RepresentativeKey.load(
            key_file.read_bytes(), room.passphrase_file.read_text().strip()
        )
        self.books = books = Books()
        self.observers = {desk.id: Observer(desk.id, room.store(desk.id)) for desk in room.desks}
        self.faults = Faults(room, plan, room.client(GUEST))
        self.sampler = Sampler(room.processes, options.sample_s)
        self.desks = {
            name: DeskExams(
                room, observer, client.twin(), books, representative, random.Random(f"{options.seed} {name}"),
                options.exam_s, options.patience_s, control=options.control and number == 0,
            )
            for number, (name, observer) in enumerate(self.observers.items())
        }  # fmt: skip
        self._unexpected: list[str] = []
        before, threading.excepthook = threading.excepthook, self._note_thread
        try:
            self._live()
            self._settle()
        finally:
            threading.excepthook = before
            client.close()
            self.faults.close()
            for desk in self.desks.values():
                desk.close()

    def _live(self) -> None:
        self.begin = Residue.of(self.room)
        self._in_bucket = set(self.room.objects())
        self.begun = time.monotonic()
        for thread in (*self.observers.values(), self.sampler, *self.desks.values(), self.faults):
            thread.start()
        while (left_s := self.begun + self.options.length_s - time.monotonic()) > 0:
            time.sleep(min(left_s, self.options.say_every_s))
            self.say(self._line())
        self.peak = Residue.of(self.room)
        self.faults.stop()
        for desk in self.desks.values():
            desk.ask_to_stop()
        for desk in self.desks.values():
            desk.join()
        self.sampler.stop()
        self.say(self._line())

    def _settle(self) -> None:
        """Whatever is still open gets its account, then what may go must go."""
        room, books = self.room, self.books
        settling = utc_text(SystemClock().wall())
        for name, observer in self.observers.items():
            for sid in list(observer.sessions):
                if sid in books.pending:
                    self._wait(f"session {sid[:8]} in the storage", lambda: self.desks[name].is_stored(sid))  # noqa: B023
        if not self.options.control:
            self._purge_all(settling)
        for observer in self.observers.values():
            observer.stop()
        for name, observer in self.observers.items():
            for sid in observer.sessions:
                if sid not in books.accounts:
                    self.desks[name].settle(sid)
        self.end = Residue.of(room)
        stored = {sid for sid, account in books.accounts.items() if account.where == "storage"}
        self._left = [sentence for desk in room.desks for sentence in unbounded_files(room, desk.id)]
        self._left += unexplained_objects(room, self._in_bucket | books.approved, stored)

    def _purge_all(self, settling: str) -> None:
        """A start is a recovery, so one more of each.

        A purge goes by the room's time, which sync keeps every 10 minutes and after a start; the camera process looks
        for what may go every 30 s and after a start.
        """
        room = self.room
        for node in room.nodes.values():
            node["sync"].kill()
        self._wait(
            "the room's time at every desk", lambda: all(room.room_time(d) > settling for d in self.desks)
        )
        for node in room.nodes.values():
            node["camera"].kill()
        self._wait("every purge", self._all_purged)

    def _wait(self, what: str, true: Callable[[], bool]) -> None:
        limit_s = min(self.options.patience_s, 20.0) if self.options.control else self.options.patience_s
        try:
            wait_until(what, true, limit_s)
        except DemoFailed as error:
            self.failures.append(str(error))

    def _all_purged(self) -> bool:
        return all(
            self.observers[account.desk].sessions[account.sid].local_copy == "purged"
            for account in list(self.books.accounts.values())
            if account.where == "storage"
        )

    # --- what is said -------------------------------------------------------------------------------------------------

    def _line(self) -> str:
        seconds = round(time.monotonic() - self.begun)
        fragments = sum(observer.fragments for observer in self.observers.values())
        return (
            f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
            f"  exams {self.books.exams['certified']} of {self.books.exams['begun']}"
            f"  faults {self.faults.done.total()}  acknowledged {fragments}"
            f"  sessions checked {len(self.books.accounts)}  lost {len(self.books.lost)}"
        )

    def conclude(self) -> None:
        """When nothing writes into the logs any more."""
        books, accounts = self.books, list(self.books.accounts.values())
        lives, options = self.sampler.lives, self.options
        kinds = kinds_of(lives)
        grown = {
            what: {
                kind: slopes(lives, kind, value, options.warm_up_s, options.shortest_life_s) for kind in kinds
            }
            for what, value in {
                "rss_mib": lambda sample: sample.rss_mib,
                "pss_mib": lambda sample: sample.pss_mib,
                "descriptors": lambda sample: float(sample.descriptors),
                "threads": lambda sample: float(sample.threads),
            }.items()
        }
        found = tracebacks(self.room)
        causes = sum((account.causes for account in accounts), Counter())
        self.failures += [f"lost: {sentence}" for sentence in books.lost]
        self.failures += [f"not named: {sentence}" for sentence in books.unnamed]
        self.failures += [f"damaged: {sentence}" for sentence in books.damage]
        self.failures += [f"left behind: {sentence}" for sentence in self._left]
        self.failures += [f"traceback: {sentence}" for sentence in found]
        self.failures += [f"the soak itself: {sentence}" for sentence in self._unexpected]
        self.failures += self.faults.problems
        self.failures += too_steep(grown["rss_mib"], MEMORY_MIB_PER_H, MEMORY_NOISE_MIB, "MiB")
        self.failures += too_high(lives)
        self.failures += too_steep(grown["descriptors"], DESCRIPTORS_PER_H, DESCRIPTORS_NOISE, "descriptors")
        self.report = {
            "hours": round(options.length_s / 3600, 4),
            "seed": options.seed,
            "desks": len(self.room.desks),
            "exams": dict(books.exams),
            "fragments": {
                "acknowledged": sum(observer.fragments for observer in self.observers.values()),
                "checked": sum(account.acknowledged for account in accounts),
                "found": sum(account.found for account in accounts),
                "in_storage": sum(account.found for account in accounts if account.where == "storage"),
                "on_desk": sum(account.found for account in accounts if account.where == "desk"),
            },
            "lost": len(books.lost),
            "faults": dict(sorted(self.faults.done.items())),
            "faults_not_tried": dict(self.faults.skipped),
            "events_watched": self.faults.events_watched,
            "filmed_s": round(sum(account.filmed_s for account in accounts), 1),
            "named_gaps_s": round(sum(account.named_s for account in accounts), 1),
            "gaps_by_cause": dict(causes.most_common()),
            "unwitnessed_s": round(sum(account.unwitnessed_s for account in accounts), 1),
            "unnamed_silences": len(books.unnamed),
            "growth_per_h": {
                what: {kind: _numbers(slope) for kind, slope in each.items()} for what, each in grown.items()
            },
            "memory_judged": [kind for kind in JUDGED if kind in kinds and grown["rss_mib"][kind].samples],
            "highest_rss_mib": {
                kind: round(max(s.rss_mib for life in lives if life.kind == kind for s in life.samples), 1)
                for kind in kinds
            },
            "cpu_share": {kind: round(cpu_share(lives, kind), 3) for kind in kinds},
            "files": {
                "begin": asdict(self.begin),
                "before_last_purge": asdict(self.peak),
                "end": asdict(self.end),
            },
            "late": books.late,
            "tracebacks": len(found),
            "complaints": complaints(self.room),
            "observer_waited": sum(observer.busy for observer in self.observers.values()),
        }

    def _note_thread(self, arguments: threading.ExceptHookArgs) -> None:
        place = "" if arguments.thread is None else arguments.thread.name
        line = arguments.exc_traceback
        while line is not None and line.tb_next is not None:
            line = line.tb_next
        at = "" if line is None else f" ({line.tb_frame.f_code.co_filename}:{line.tb_lineno})"
        self._unexpected.append(f"{place}: {arguments.exc_type.__name__} {arguments.exc_value}{at}")


def too_high(lives: list[Life]) -> list[str]:
    """Lives of our own processes whose memory rose by more than MEMORY_WHOLE_MIB above its first minute."""
    found = []
    for life in lives:
        first = [each.rss_mib for each in life.samples if each.t_s <= life.samples[0].t_s + 60.0]
        rose = max((each.rss_mib for each in life.samples), default=0.0) - max(first, default=0.0)
        if life.kind in JUDGED and rose > MEMORY_WHOLE_MIB:
            found.append(f"{life.name} rose by {rose:.1f} MiB in one life")
    return found


def too_steep(grown: dict[str, Slope], most_per_h: float, noise: float, unit: str) -> list[str]:
    """Kinds of our own processes that grow faster than the limit, by more than what says nothing."""
    return [
        f"{kind} grows by {slope.per_h:.1f} {unit} an hour, {slope.grown:.1f} in {slope.longest_s:.0f} s"
        for kind, slope in grown.items()
        if kind in JUDGED and slope.per_h > most_per_h and slope.grown > noise
    ]


def _numbers(slope: Slope) -> dict[str, float]:
    return {name: round(value, 2) for name, value in slope._asdict().items()}
