"""python -m tests.soak --hours 1 [--seed N] [--desks 4] [--control]: `make soak HOURS=1`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from demo.room import CHECKOUT
from tests.soak.samples import write_lives
from tests.soak.site import SoakRoom
from tests.soak.soak import Options, Soak


def main() -> int:
    """0 only if nothing was lost, no log has a traceback, and neither memory nor files grow without bound."""
    parser = argparse.ArgumentParser(prog="make soak")
    parser.add_argument("--hours", type=float, default=1.0, help="length, e.g. 0.1")
    parser.add_argument("--seed", type=int, help="of an earlier run, to have its faults again")
    parser.add_argument("--desks", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=CHECKOUT / "build" / "soak")
    parser.add_argument(
        "--control", action="store_true", help="remove a sealed segment: the run must say lost"
    )
    arguments = parser.parse_args()
    seed = time.time_ns() % 2**32 if arguments.seed is None else arguments.seed
    shutil.rmtree(arguments.folder, ignore_errors=True)
    options = Options(arguments.hours * 3600, seed, control=arguments.control)
    if arguments.control:
        options = replace(options, patience_s=30.0)  # what was taken away never comes
    print(f"a room of {arguments.desks} desks, {arguments.hours:g} hours, seed {seed}", flush=True)
    room = SoakRoom.make(arguments.folder, arguments.desks)
    with room:
        if room.small is None:
            print("no small disk: it takes root, or sudo without a password", flush=True)
        soak = Soak(
            room,
            options,
            lambda line: print(line, flush=True),
        )
        room.start()
        soak.run()
        room.stop_processes()
        soak.conclude()
    text = json.dumps(soak.report, indent=2)
    (arguments.folder / "report.json").write_text(text + "\n")
    write_lives(soak.sampler.lives, arguments.folder / "samples.csv")
    print(text)
    for failure in soak.failures:
        print(f"failed: {failure}")
    print(f"lost = {soak.report['lost']}")
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
