"""`invigil archive open` of a long session against `age -d` of the same film: wall time, CPU and memory of both.

Run: python -m bench.open_session [--megabytes 2147] [--rounds 5] [--folder build]. Both are run as a user runs them, in
turns, from the page cache to the same disk. Ours holds all of the session against the witnessed root and
ends with fsync; age only decrypts and leaves the film to the kernel. The session is the format's own writer's,
of random fragments in the size of 1.2 Mbit/s; their content makes no difference to either side.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.sessions import Built, Plan, build_session

FRAGMENT_BYTES = 300_000  # 2 s at 1.2 Mbit/s
FRAGMENTS = 30  # one segment of 60 s
SMALL_MEGABYTES = 256
INVIGIL = Path(sys.executable).with_name("invigil")


@dataclass(frozen=True)
class Run:
    """One command: what it took, and what `fsync` of its output took after it."""

    wall_s: float
    cpu_s: float
    rss_mb: float
    sync_s: float


def build(folder: Path, megabytes: int) -> Built:
    """A session of as many whole segments as come nearest to the size."""
    fragments = [os.urandom(FRAGMENT_BYTES) for _ in range(16)]
    segments = round(megabytes * 1e6 / (FRAGMENT_BYTES * FRAGMENTS))
    plan = Plan(
        epochs=1,
        segments=segments,
        fragments=FRAGMENTS,
        fragment=lambda second: fragments[second // 2 % len(fragments)],
    )
    return build_session(folder, plan)


def run(command: list[str | Path], out: Path) -> Run:
    """Run to its end from a quiet disk; SystemExit with what it said if it fails."""
    out.unlink(missing_ok=True)
    os.sync()
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([str(part) for part in command], stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read().decode())
    start = time.perf_counter()
    with out.open("rb") as film:
        os.fsync(film.fileno())
    return Run(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, time.perf_counter() - start)


def age_commands(folder: Path, film: Path) -> list[str | Path]:
    """Encrypt the film for a new X25519 key and give the command that decrypts it."""
    if shutil.which("age") is None:
        raise SystemExit("invigil: error: age is not installed\ninvigil: hint: apt-get install age")
    key, sealed = folder / "age.key", folder / "film.age"
    made = subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True, text=True)
    recipient = made.stderr.split()[-1]
    subprocess.run(["age", "-r", recipient, "-o", sealed, film], check=True)
    return ["age", "-d", "-i", key, "-o", folder / "age.mp4", sealed]


def measure(folder: Path, megabytes: int, rounds: int) -> dict[str, float]:
    """Medians over rounds in which either side goes first as often as the other."""
    folder.mkdir()
    built = build(folder, megabytes)
    age_out, our_out = folder / "age.mp4", folder / "invigil.mp4"
    age = age_commands(folder, built.film)
    ours: list[str | Path] = [INVIGIL, "archive", *built.arguments("open", "--out", our_out)]
    run(age, age_out)
    run(ours, our_out)
    if not all(filecmp.cmp(out, built.film, shallow=False) for out in (age_out, our_out)):
        raise SystemExit("what came out is not the film")
    age_runs, our_runs = [], []
    for number in range(rounds):
        if number % 2:
            our_runs.append(run(ours, our_out))
            age_runs.append(run(age, age_out))
        else:
            age_runs.append(run(age, age_out))
            our_runs.append(run(ours, our_out))
    pairs = list(zip(age_runs, our_runs, strict=True))
    found = {
        "ratio": statistics.median(theirs.wall_s / mine.wall_s for theirs, mine in pairs),
        "ratio_age_with_fsync": statistics.median(
            (theirs.wall_s + theirs.sync_s) / (mine.wall_s + mine.sync_s) for theirs, mine in pairs
        ),
        "ratio_cpu": statistics.median(theirs.cpu_s / mine.cpu_s for theirs, mine in pairs),
    }
    for name, runs in (("age", age_runs), ("open", our_runs)):
        found[f"{name}_wall_s"] = statistics.median(each.wall_s for each in runs)
        found[f"{name}_cpu_s"] = statistics.median(each.cpu_s for each in runs)
        found[f"{name}_rss_mb"] = max(each.rss_mb for each in runs)
    found["film_mb"] = built.film.stat().st_size / 1e6
    shutil.rmtree(folder)
    return found


def main() -> None:
    """Print one JSON line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--megabytes", type=int, default=2147)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--folder", type=Path, default=Path("build"), help="needs four times the size")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="bench-open-") as folder:
        small = measure(Path(folder) / "small", min(SMALL_MEGABYTES, chosen.megabytes), 1)
        large = measure(Path(folder) / "large", chosen.megabytes, chosen.rounds)
    print(
        json.dumps(
            {
                "bench": "open_session",
                **{name: round(value, 2) for name, value in large.items()},
                f"open_rss_mb_at_{SMALL_MEGABYTES}_mb": round(small["open_rss_mb"], 2),
                "cores": os.cpu_count(),
                "rounds": chosen.rounds,
            }
        )
    )


if __name__ == "__main__":
    main()
