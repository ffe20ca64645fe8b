"""The room's last word on a session: everything was read back, as the release in force names it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.evidence.manifest import WrapEntry
from appliance.protocol import DamagedFile, GrantRequest, ObjectFacts, SessionPhase
from appliance.room.granting import Granting
from appliance.room.storage import StoredObject
from tests.unit.test_room_kit import Kit, end, make_kit, orders, start

KEY_FILE, CONTENT = "k.evk", b"wrapped"


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with closing(make_kit(tmp_path)) as made:
        made.ready("d1")
        yield made


class FullBucket:
    """Has whatever is asked about; `meanwhile` happens while it is listed."""

    def __init__(self, objects: tuple[ObjectFacts, ...], meanwhile: Callable[[], object]) -> None:
        self._objects = objects
        self._meanwhile = meanwhile

    def present(self, prefix: str) -> dict[str, StoredObject]:
        self._meanwhile()
        return {
            prefix + item.name: StoredObject(item.size_bytes, base64.b64decode(item.md5).hex())
            for item in self._objects
        }


def facts(name: str, data: bytes) -> ObjectFacts:
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    return ObjectFacts(name=name, size_bytes=len(data), md5=md5, sha256=hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("decided_meanwhile", [False, True])
def test_a_session_is_synced_by_the_release_that_was_read_back(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, decided_meanwhile: bool
) -> None:
    """A person lets a damaged file go while the storage is listed: what was read back is not what counts now."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    end(kit, proctor, sid)
    wrap = WrapEntry(KEY_FILE, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    manifest = kit.certify("d1", sid, wraps=(wrap,))
    assert proctor.post(f"/api/sessions/{sid}/approve", {"accept_gaps": True}).status_code == 200
    spoilt = DamagedFile(name=KEY_FILE, size_bytes=7, sha256="a" * 64)
    kit.hear("d1", kit.status("d1", kit.report(sid, SessionPhase.SYNCING, damaged=(spoilt,))))
    query = "SELECT release FROM sessions WHERE sid = ?"
    release = bytes(kit.room.database.transact(lambda c: c.execute(query, (sid,)).fetchone()[0]))
    objects = (
        facts(KEY_FILE, CONTENT),
        facts("approval.json", release),
        facts("manifest.json", manifest),
    )
    answers: list[int] = []

    def decide() -> None:
        if decided_meanwhile and not answers:
            body = {"files": [spoilt.model_dump()]}
            answers.append(proctor.post(f"/api/sessions/{sid}/approve-damaged", body).status_code)

    granting = Granting(kit.room)
    monkeypatch.setattr(granting, "_storage", lambda _policy: FullBucket(objects, decide))
    asyncio.run(granting.answer("d1", GrantRequest(sid=sid, number=1, objects=objects)))
    assert answers == [200] * decided_meanwhile
    kinds = [made["order"]["kind"] for made in orders(kit, "d1")]
    assert ("synced" in kinds) == (not decided_meanwhile)
    [shown] = proctor.get("/api/room").json()["sessions"]
    assert (shown["state"] == "synced") == (not decided_meanwhile)
