"""F114: a purge killed before each of its steps is finished at the next start; what is readable only ever shrinks."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.evf import RecordKind
from appliance.evf.signed import sign_document, verify_document
from appliance.store.check import check_store
from appliance.store.purge import PURPOSE
from appliance.store.recording import RecordingStore
from appliance.store.view import RecordingView
from tests.fault.test_store_kill import MOST_STEPS, KilledAt, how_they_ended
from tests.manual_clock import ManualClock
from tests.unit.test_store_builders import FRAGMENT_90K, OTHER_SID, SID, Desk

KEY = Ed25519PrivateKey.from_private_bytes(b"\x03" * 32)


class KilledAtPurge(KilledAt):
    """Also dies before an unlink; counts from `armed` on, when the store has started."""

    armed = False

    def _reached(self) -> bool:
        return self.armed and super()._reached()

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)


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


def leave_killed_purges(folder: Path) -> None:
    """In a process of its own: one store a step, its purge killed before that step; prints how each ended."""
    two_sessions(folder / "whole")
    ended: list[int] = []
    for step in range(1, MOST_STEPS):
        shutil.copytree(folder / "whole", folder / str(step))
        pid = os.fork()
        if pid == 0:
            disk = KilledAtPurge(step)
            store = RecordingStore(folder / str(step), ManualClock(), disk)
            disk.armed = True
            store.purge(SID, "test", sign)
            os._exit(0)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        if ended[-1] != -signal.SIGKILL:
            break
    print(json.dumps(ended))


def test_a_purge_killed_at_each_step_is_finished_at_the_next_start(tmp_path: Path) -> None:
    code = f"import tests.fault.test_store_purge_kill as p; p.leave_killed_purges(Path({str(tmp_path)!r}))"
    ended = how_they_ended(f"os; {code}")
    assert ended[-1] == 0
    assert set(ended[:-1]) == {-signal.SIGKILL}
    assert len(ended) >= 12, "mark, wrap, directory, segments, directories, receipt, rows"
    untouched, half_way = 0, 0
    for step in range(1, len(ended) + 1):
        root = tmp_path / str(step)
        wraps = list(root.glob(f"wraps/{SID}.*"))
        segments = list(root.glob(f"segments/{SID}/*.evf"))
        view = RecordingView(root)
        assert not wraps or len(segments) == 2, "wraps go before segments"
        marked = SID in view.purged()
        assert marked or (len(wraps), len(segments)) == (1, 2), "nothing goes before the mark"
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
