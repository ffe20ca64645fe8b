"""F114: a purge killed before each of its steps is finished at the next start; what is readable only ever shrinks."""

from __future__ import annotations

import json
import shutil
import signal
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.evf import RecordKind
from appliance.evf.signed import sign_document, verify_document
from appliance.store.check import check_store
from appliance.store.purge import PURPOSE
from appliance.store.recording import RecordingStore
from appliance.store.view import RecordingView
from tests.killed_at import KilledAt, how_they_ended, lives
from tests.manual_clock import ManualClock
from tests.unit.test_store_builders import FRAGMENT_90K, OTHER_SID, SID, Desk

KEY = Ed25519PrivateKey.from_private_bytes(b"\x03" * 32)


class KilledAtPurge(KilledAt):
    """Counts from `armed` on, when the store has started."""

    armed = False

    def _reached(self) -> bool:
        return self.armed and super()._reached()


def sign(body: dict[str, object]) -> dict[str, object]:
    return sign_document(PURPOSE, body, KEY)


def two_sessions(root: Path) -> None:
    desk = Desk(root)
    for sid in (OTHER_SID, SID):
        desk.begin(sid)
        for _ in range(2):
            video = desk.segment(sid=sid)
            video.put(RecordKind.FRAGMENT, 900, 0)
            video.seal(FRAGMENT_90K)
        desk.store.end_session(sid, "2026-11-22T12:00:00.000Z")
    desk.store.layout.manifest(SID).write_bytes(b"manifest")
    desk.store.close()


def leave_killed_purges(folder: Path, control: bool) -> None:
    """In a process of its own: one store a step, its purge killed before that step; prints how each ended."""
    two_sessions(folder / "whole")

    def live(step: int) -> None:
        root = Path(shutil.copytree(folder / "whole", folder / str(step)))
        disk = KilledAtPurge(step)
        store = RecordingStore(root, ManualClock(), disk)
        disk.armed = True
        if control:
            remove_what_it_finds_in_any_order(root, disk)
        store.purge(SID, "test", sign)

    print(json.dumps(list(lives(live))))


def remove_what_it_finds_in_any_order(root: Path, disk: KilledAtPurge) -> None:
    """Negative control: the session's files are gone before the mark says so, and segments before their wraps."""
    for path in (*root.glob(f"segments/{SID}/*"), *root.glob(f"wraps/{SID}.*")):
        disk.unlink(path)


def out_of_order(root: Path) -> str | None:
    """What a killed purge may not leave, in words."""
    wraps, segments = list(root.glob(f"wraps/{SID}.*")), list(root.glob(f"segments/{SID}/*.evf"))
    if wraps and len(segments) < 2:
        return "a segment is gone before its wrap"
    with closing(RecordingView(root)) as view:
        if SID not in view.purged() and (len(wraps), len(segments)) != (1, 2):
            return "a file is gone before the mark"
    return None


def test_a_purge_killed_at_each_step_is_finished_at_the_next_start(tmp_path: Path) -> None:
    ended = how_they_ended(f"leave_killed_purges(Path({str(tmp_path)!r}), False)", "test_store_purge_kill")
    assert ended[-1] == 0
    assert set(ended[:-1]) == {-signal.SIGKILL}
    assert len(ended) >= 12, "mark, wrap, directory, segments, directories, receipt, rows"
    untouched, half_way = 0, 0
    for step in range(1, len(ended) + 1):
        root = tmp_path / str(step)
        assert out_of_order(root) is None, f"step {step}"
        view = RecordingView(root)
        marked = SID in view.purged()
        assert check_store(root) == [], f"step {step}"

        store = RecordingStore(root, ManualClock())
        assert store.recovery.missing == store.recovery.damaged == store.recovery.quarantined == []
        store.finish_purges(sign)
        store.close()
        if not marked:
            untouched += 1
            assert view.session(SID).local_copy == "there"
        else:
            half_way += 1
            assert view.session(SID).local_copy == "purged", f"step {step}"
            assert not list(root.glob(f"wraps/{SID}.*")) + list(root.glob(f"segments/{SID}/*"))
            receipt = json.loads((root / "manifests" / f"{SID}.receipt.json").read_bytes())
            body = verify_document(PURPOSE, receipt, KEY.public_key())
            assert (body["wraps"], body["segments"]) == (1, 2)
        assert view.session(OTHER_SID).local_copy == "there"
        assert len(view.segments(OTHER_SID)) == len(list(root.glob(f"segments/{OTHER_SID}/*.evf"))) == 2
        view.close()
        assert check_store(root) == [], f"step {step}"
    assert untouched >= 1
    assert half_way >= 10


def test_control_files_that_go_in_any_order_are_noticed(tmp_path: Path) -> None:
    ended = how_they_ended(f"leave_killed_purges(Path({str(tmp_path)!r}), True)", "test_store_purge_kill")
    found = {out_of_order(tmp_path / str(step)) for step in range(1, len(ended) + 1)}
    assert found == {None, "a segment is gone before its wrap", "a file is gone before the mark"}
