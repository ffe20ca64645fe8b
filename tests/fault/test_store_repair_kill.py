"""A repair killed at every step is simply asked for again; no byte of footage is gone at any time."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

from appliance.evf import RecordKind
from appliance.store.recording import RecordingStore
from appliance.store.repair import repair_store
from tests.killed_at import KilledAt, how_they_ended, lives
from tests.manual_clock import ManualClock
from tests.unit.test_store_builders import FRAGMENT_90K, SID, Desk
from tests.unit.test_store_check import flip
from tests.unit.test_store_repair import bytes_of

BACK, CHANGED, LONGER = (f"segments/{SID}/0-video-{number}.evf" for number in range(3))


def damaged_store(root: Path) -> None:
    """A segment that was missing and is back, one that has changed, one with bytes behind its end, a stray."""
    desk = Desk(root)
    desk.begin()
    for number in range(3):
        video = desk.segment()
        for at in (0, 1):
            video.put(RecordKind.FRAGMENT, 900, (2 * number + at) * FRAGMENT_90K)
        video.seal((2 * number + 2) * FRAGMENT_90K)
    desk.store.end_session(SID, "2026-11-22T12:00:00.000Z")
    desk.store.close()
    shutil.move(root / BACK, root / "aside")
    RecordingStore(root, ManualClock()).close()
    shutil.move(root / "aside", root / BACK)
    flip(root / CHANGED, -300)
    (root / LONGER).write_bytes((root / LONGER).read_bytes() + b"behind the end")
    (root / "segments/stray").write_bytes(b"stray")


def leave_killed_repairs(folder: Path, control: bool) -> None:
    """In a process of its own: one copy of the damaged store a step, its repair killed there; prints how each ended."""
    disk = MovesByHand if control else KilledAt

    def live(step: int) -> None:
        root = Path(shutil.copytree(folder / "damaged", folder / str(step)))
        repair_store(root, ManualClock(), disk(step))

    print(json.dumps(list(lives(live))))


class MovesByHand(KilledAt):
    """Negative control: takes a file from where it stands before it writes it where it should be."""

    def rename(self, source: Path, target: Path) -> None:
        data = source.read_bytes()
        source.unlink()
        self._step()
        target.write_bytes(data)


def killed_repairs(folder: Path, control: bool = False) -> list[Path]:
    """What each left of the store in `folder / "damaged"`; the last was not killed."""
    call = f"leave_killed_repairs(Path({str(folder)!r}), {control})"
    ended = how_they_ended(call, "test_store_repair_kill")
    assert ended == [-signal.SIGKILL] * (len(ended) - 1) + [0]
    return [folder / str(step) for step in range(1, len(ended) + 1)]


def test_a_repair_killed_at_every_step_ends_like_one_that_was_not(tmp_path: Path) -> None:
    damaged_store(tmp_path / "damaged")
    as_found = bytes_of(tmp_path / "damaged")
    killed = killed_repairs(tmp_path)
    assert len(killed) > 25
    calm = repair_store(killed[-1], ManualClock()).left
    lost = [problem for problem in calm if not problem.set_aside]
    assert lost != []
    for step, root in enumerate(killed[:-1], start=1):
        assert as_found <= bytes_of(root), f"step {step}: every file as it was found is somewhere"
        left = repair_store(root, ManualClock()).left
        assert as_found <= bytes_of(root), f"step {step}"
        assert [problem for problem in left if not problem.set_aside] == lost, f"step {step}"
        assert repair_store(root, ManualClock()).done == [], f"step {step}"


def test_control_a_move_that_a_kill_can_halve_is_noticed(tmp_path: Path) -> None:
    damaged_store(tmp_path / "damaged")
    as_found = bytes_of(tmp_path / "damaged")
    assert not all(as_found <= bytes_of(root) for root in killed_repairs(tmp_path, control=True))
