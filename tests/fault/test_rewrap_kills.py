"""SIGKILL at every line that can change a folder while its keys are wrapped anew; run as a program it does the killing.

After each kill the session opens to the whole old set or the whole new one, and verifies; a second run finishes it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from appliance.archive import rewrapping
from appliance.archive.wrap_places import FolderPlace
from appliance.errors import EvidenceBroken
from tests.rewraps import at, openers, recipient_set, rewrap, verified
from tests.sessions import Built, Plan, build_session

OLD, NEW = {1, 2}, {1, 3}  # person 2 goes, person 3 comes
ROOT = Path(__file__).resolve().parents[2]
PLAN = Plan(recipients=(1, 2), epochs=1, segments=1, fragments=1)


class HastyPlace(FolderPlace):
    """The control: it writes only when everything else is done, as if a disk had kept the write back."""

    pending: tuple[str, bytes] | None = None

    def write(self, name: str, data: bytes) -> None:
        self.pending = (name, data)

    def read(self, name: str, limit_bytes: int) -> bytes:
        if self.pending and self.pending[0] == name:
            return self.pending[1]
        return super().read(name, limit_bytes)

    def finish(self) -> None:
        if self.pending:
            super().write(*self.pending)


# every function that changes something on the disk, and the one that calls them
STEPS = {
    each.__code__
    for each in (
        rewrapping.rewrap_session, FolderPlace.write, FolderPlace.erase, FolderPlace._sync_names, HastyPlace.finish
    )
}  # fmt: skip


def rewrap_counting(built: Built, kind: type[FolderPlace], kill_at: int) -> int:
    """Lines that were run; the process ends at line `kill_at` of them (0: never)."""
    lines = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal lines
        if frame.f_code not in STEPS:
            return None
        if event == "line":
            lines += 1
            if lines == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    place = kind(built.folder)
    sys.settrace(trace)
    try:
        rewrap(built, recipient_set(3, *sorted(NEW)), place=place)
        if isinstance(place, HastyPlace):
            place.finish()
    finally:
        sys.settrace(None)
    return lines


def state_of(built: Built) -> str:
    """Who opens it, in words, and whether it verifies."""
    try:
        verified(built)
    except EvidenceBroken:
        return "does not verify"
    found = openers(built)
    if found >= NEW:
        return "both sets" if found >= OLD else "new set"
    return "old set" if found >= OLD else "neither set"


def kill_everywhere(root: Path, kind: type[FolderPlace], step: int) -> Counter[str]:
    """One forked process a line, or for every `step`th. Counts of what was found after the kill and the second run."""
    built = build_session(root, PLAN)
    spare = root / "spare"
    shutil.copytree(built.folder, spare)
    lines = rewrap_counting(built, kind, 0)
    found: Counter[str] = Counter()
    for kill_at in range(1, lines + 1, step):
        found["killed"] += 1
        with tempfile.TemporaryDirectory(dir=root) as folder:
            copy = at(built, Path(shutil.copytree(spare, Path(folder) / built.folder.name)))
            child = os.fork()
            if child == 0:
                rewrap_counting(copy, kind, kill_at)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
            state = state_of(copy)
            found[state] += 1
            if state in ("old set", "both sets", "new set"):
                rewrap(copy, recipient_set(3, *sorted(NEW)))
                found["finished"] += state_of(copy) == "new set" and openers(copy) == NEW
    return found


def run_program(root: Path, kind: str) -> dict[str, int]:
    """In a process of its own: forking is safe only where no other thread runs."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fault.test_rewrap_kills", str(root), kind],
        capture_output=True, text=True, timeout=300, check=True, cwd=ROOT,
    )  # fmt: skip
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


def test_killed_anywhere_it_opens_to_the_old_set_or_the_new(tmp_path: Path) -> None:
    found = run_program(tmp_path, "product")
    assert found["killed"] > 40
    assert found["finished"] == found["killed"]
    assert set(found) == {"killed", "finished", "old set", "both sets", "new set"}, found


def test_control_that_erases_before_it_writes_is_caught(tmp_path: Path) -> None:
    found = run_program(tmp_path, "hasty")
    assert found["does not verify"] > 0
    assert found["finished"] < found["killed"]


if __name__ == "__main__":
    kinds = {"product": (FolderPlace, 1), "hasty": (HastyPlace, 4)}
    sys.stdout.write(json.dumps(kill_everywhere(Path(sys.argv[1]), *kinds[sys.argv[2]])))
