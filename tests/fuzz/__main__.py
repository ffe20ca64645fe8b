"""Fuzzes parsers with hostile bytes; prints one JSON line a target, exits 1 when one of them failed.

python -m tests.fuzz [target ...] [--count N] [--seed S] [--first F]     N is for each target; without it, its share
of 10^6. A failed input is made again with --seed S --first F --count 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time

from tests.fuzz.catalogue import TARGETS
from tests.fuzz.isolation import run_apart


def main(arguments: list[str] | None = None) -> int:
    """0 when nothing failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="target", help=", ".join(TARGETS))
    parser.add_argument("--count", type=int, help="inputs for each target")
    parser.add_argument("--share", type=float, default=1.0, help="part of each target's share of 10^6")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args(arguments)
    unknown = set(given.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"no target named {', '.join(sorted(unknown))}")
    logging.disable(logging.CRITICAL)
    failed = False
    for name in given.targets or TARGETS:
        build, share = TARGETS[name]
        count = given.count if given.count is not None else max(1, round(share * given.share))
        report = run_apart(name, build, given.seed, count, given.first)
        print(json.dumps(report.line()), flush=True)
        failed |= bool(report.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
