"""A fragment until it is durable, against bare AES-256-GCM, SHA-256, write and fdatasync of the same bytes.

Run: python -m bench.write_path [--rounds 21] [--folder build]. CPU is user + system of this process for a fragment:
`ratio` up to the COMMIT that acknowledges it, `ratio_whole` until the recorder is free again (the file's digests for
the upload, new segments and seals included), `ratio_commit` for the bare loop with two rows and a COMMIT added to it.
Rounds of one segment alternate; ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.camera.track import Entry, Track
from appliance.clock import SystemClock
from appliance.evf.format import RecordKind
from appliance.evf.keys import EpochKey
from appliance.store.durable import FileOps
from appliance.store.recording import NewSession, RecordingStore

FRAGMENT_BYTES = 300_000  # 2 s at 1.2 Mbit/s
FRAGMENT_90K = 2 * 90_000
FRAGMENTS = 30  # one segment of 60 s, and one round
FOOTAGE_BYTES = 1 << 30
SID = "5e" * 16
INIT = bytes(800)


@dataclass
class Round:
    """What each fragment of a round took up to its durable moment, and the whole round's CPU."""

    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    whole_cpu_s: float = 0.0


class Stopwatch(FileOps):
    """Notes when a COMMIT came back: from then on the fragment is acknowledged."""

    def __init__(self) -> None:
        self.committed_cpu_s = self.committed_s = 0.0

    def commit(self, connection: sqlite3.Connection) -> None:
        """As ever."""
        super().commit(connection)
        self.committed_cpu_s, self.committed_s = time.process_time(), time.perf_counter()


class Product:
    """The recorder's own path: `Track` into `RecordingStore`, with the session's room reserved."""

    def __init__(self, folder: Path) -> None:
        self._stopwatch = Stopwatch()
        clock = SystemClock()
        self._store = RecordingStore(folder, clock, self._stopwatch)
        session = NewSession(
            sid=SID,
            candidate_code="C-1",
            exam="bench",
            institution="bench",
            policy_id="bench",
            policy_version=1,
            retain_until="2027-05-22",
            started="2026-11-22T09:00:00.000Z",
            started_mono_ns=0,
            boot_id="bench",
            room="room",
            desk="desk",
            recipient_set_version=1,
        )
        self._store.begin_session(session, FOOTAGE_BYTES)
        epoch = self._store.begin_epoch(SID, "bench")
        row = self._store.active_session()
        if row is None:
            raise SystemExit("no session began")
        self._track = Track(self._store, row, epoch, "media", EpochKey.generate().track("video"), clock)
        self._time_90k = 0

    def record(self, fragments: list[bytes]) -> Round:
        """One segment; the one before is sealed on the way."""
        done, begun = Round(), time.process_time()
        for fragment in fragments:
            end_90k = self._time_90k + FRAGMENT_90K
            entry = Entry(RecordKind.FRAGMENT, fragment, self._time_90k, key_frame=True, end_90k=end_90k)
            cpu_s, start_s = time.process_time(), time.perf_counter()
            self._track.append(entry, "avc1.42c01f", INIT)
            done.cpu_s.append(self._stopwatch.committed_cpu_s - cpu_s)
            done.wall_s.append(self._stopwatch.committed_s - start_s)
            self._time_90k = end_90k
        done.whole_cpu_s = time.process_time() - begun
        return done

    def close(self) -> None:
        """Give the store back."""
        self._store.close()


def bare(folder: Path, fragments: list[bytes], commit: Callable[[int], None] | None = None) -> Round:
    """As many fragments with nothing but what the issue names, and `commit` after each if there is one."""
    done, begun = Round(), time.process_time()
    key, sealed = AESGCM(os.urandom(32)), bytearray(FRAGMENT_BYTES + 16)
    path = folder / "bare.bin"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
    for number, fragment in enumerate(fragments):
        cpu_s, start_s = time.process_time(), time.perf_counter()
        key.encrypt_into(number.to_bytes(12, "big"), fragment, b"", sealed)
        hashlib.sha256(sealed).digest()
        os.write(fd, sealed)
        os.fdatasync(fd)
        if commit is not None:
            commit(number)
        done.cpu_s.append(time.process_time() - cpu_s)
        done.wall_s.append(time.perf_counter() - start_s)
    os.close(fd)
    done.whole_cpu_s = time.process_time() - begun
    path.unlink()
    return done


class BareRows:
    """The least that keeps a record's place and leaf: two rows, synchronous=FULL."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, kind, time, place, bytes)")
        self._connection.execute("CREATE TABLE leaves (id INTEGER PRIMARY KEY, leaf, segment, record)")

    def commit(self, number: int) -> None:
        """One fragment's rows."""
        self._connection.execute("BEGIN IMMEDIATE")
        values = (2, number * FRAGMENT_90K, number * FRAGMENT_BYTES, FRAGMENT_BYTES)
        self._connection.execute("INSERT INTO records (kind, time, place, bytes) VALUES (?, ?, ?, ?)", values)
        self._connection.execute(
            "INSERT INTO leaves (leaf, segment, record) VALUES (?, ?, ?)", (bytes(32), 1, number)
        )
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Give the database back."""
        self._connection.close()


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """Medians over rounds, microseconds of CPU and milliseconds of wall time a fragment."""
    fragments = [os.urandom(FRAGMENT_BYTES) for _ in range(FRAGMENTS)]
    product, rows = Product(folder / "store"), BareRows(folder / "bare.db")
    sides: dict[str, Callable[[], Round]] = {
        "product": lambda: product.record(fragments),
        "bare": lambda: bare(folder, fragments),
        "bare_commit": lambda: bare(folder, fragments, rows.commit),
    }
    done: dict[str, list[Round]] = {name: [] for name in sides}
    for number in range(-1, rounds):
        for name in sorted(sides, reverse=bool(number % 2)):
            took = sides[name]()
            if number >= 0:  # the first only warms up
                done[name].append(took)
    product.close()
    rows.close()

    def ratio(one: Callable[[Round], float], name: str) -> float:
        pairs = zip(done[name], done["bare"], strict=True)
        return statistics.median(one(each) / statistics.mean(other.cpu_s) for each, other in pairs)

    found = {
        "ratio": ratio(lambda each: statistics.mean(each.cpu_s), "product"),
        "ratio_whole": ratio(lambda each: each.whole_cpu_s / FRAGMENTS, "product"),
        "ratio_commit": ratio(lambda each: statistics.mean(each.cpu_s), "bare_commit"),
    }
    for name, all_rounds in done.items():
        wall_ms = sorted(each * 1e3 for one in all_rounds for each in one.wall_s)
        found[f"{name}_cpu_us"] = statistics.median(statistics.mean(one.cpu_s) for one in all_rounds) * 1e6
        found[f"{name}_p50_ms"] = statistics.median(wall_ms)
        found[f"{name}_p99_ms"] = wall_ms[len(wall_ms) * 99 // 100]
    return found


def main() -> None:
    """Print one JSON line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=21)
    options.add_argument("--folder", type=Path, default=Path("build"), help="on the disk to be measured")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="bench-write-") as folder:
        (Path(folder) / "store").mkdir()
        found = measure(Path(folder), chosen.rounds)
    print(
        json.dumps(
            {
                "bench": "write_path",
                **{name: round(value, 2) for name, value in found.items()},
                "fragment_bytes": FRAGMENT_BYTES,
                "rounds": chosen.rounds,
            }
        )
    )


if __name__ == "__main__":
    main()
