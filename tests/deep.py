"""`make test-deep`: the full counts of what `make test` shows in short; prints one JSON line a part.

python -m tests.deep [cuts] [faults] [reorder] [models] [fuzz]     without a name: all of them
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from demo.room import DemoFailed
from tests.fault.test_fault_desk import faulty_room, kill_models
from tests.power.cuts import cut_power
from tests.power.injected import FAULTS, run_faults
from tests.power.reorder import reordered_states

CUTS = 200
CONTROL_CUTS = 12
STATES = 120
CONTROL_STATES = 10
MODEL_KILLS = 100
LIARS = {"none", "write-lies"}


def cuts(folder: Path) -> bool:
    """Random power cuts on loop-mounted ext4, and the two writers that must lose."""
    seed = time.time_ns() % 2**32
    counts = cut_power(folder / "product", CUTS, seed)
    well = _say("power cuts", counts.line(), counts.lost + counts.wrong)
    for conduct in ("normal", "no-fdatasync"):
        control = cut_power(folder / conduct, CONTROL_CUTS, seed, conduct)
        well &= _say(
            f"power cuts, control {conduct}", control.line(), [] if control.lost else ["it lost nothing"]
        )
    return well


def faults(folder: Path) -> bool:
    """Every fault at every call of a whole recording."""
    well = True
    for fault in sorted(FAULTS.keys() - LIARS):
        runs = run_faults(folder / fault, fault)
        well &= _say(f"syscall faults, {fault}", runs.line(), runs.lost + runs.wrong + runs.silent)
    return well


def reorder(folder: Path) -> bool:
    """States of a disk that reorders: half of the writes after the last flush dropped."""
    seed = time.time_ns() % 2**32
    states = reordered_states(folder / "product", STATES, seed)
    well = _say("write log, reordered", states.line(), states.lost + states.wrong + states.unmountable)
    for conduct in ("normal", "no-fdatasync"):
        control = reordered_states(folder / conduct, CONTROL_STATES, seed, conduct)
        well &= _say(
            f"write log, control {conduct}", control.line(), [] if control.lost else ["it lost nothing"]
        )
    return well


def models(folder: Path) -> bool:
    """The model process killed a hundred times while a desk records."""
    with faulty_room(folder) as room, patch("demo.supervise.RESTART_DELAY_S", 0.05):
        client = room.client()
        try:
            return _say("models killed", kill_models(room, client, MODEL_KILLS), [])
        except (AssertionError, DemoFailed) as error:
            return _say("models killed", {"kills": MODEL_KILLS}, [str(error)])
        finally:
            client.close()


def fuzz(_folder: Path) -> bool:
    """10^6 hostile inputs to everything that reads what others wrote, and 10^5 to evf1.mjs beside our reader."""
    ran = [
        subprocess.run([sys.executable, "-m", module], cwd=Path(__file__).parents[1], check=False).returncode
        for module in ("tests.fuzz", "tests.fuzz.javascript")
    ]
    return not any(ran)


PARTS: dict[str, Callable[[Path], bool]] = {
    "cuts": cuts,
    "faults": faults,
    "reorder": reorder,
    "models": models,
    "fuzz": fuzz,
}


def _say(part: str, numbers: dict[str, Any], sentences: list[str]) -> bool:
    print(json.dumps({"part": part, **numbers}), flush=True)
    for sentence in sentences:
        print(f"  {sentence}", flush=True)
    return not sentences


def main(names: list[str]) -> int:
    """0 if every part held."""
    unknown = set(names) - PARTS.keys()
    if unknown:
        print(f"no part named {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
        return 2
    with tempfile.TemporaryDirectory(prefix="invigil-deep-") as folder:
        held = [PARTS[name](Path(folder) / name) for name in names or PARTS]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
