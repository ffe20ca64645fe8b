"""From the release to the storage's confirmation: refusals, files set aside, restarts."""

from __future__ import annotations

import hashlib
import json

import pytest

from appliance.protocol import ConfirmSynced, DamagedFile, FromNode, SessionPhase
from appliance.sync.sender import Outcome
from appliance.sync.status import phase_of
from tests.syncing_desk import Setup, approval, setup
from tests.unit.test_store_builders import SID

__all__ = ["setup"]


def test_whole_session_reaches_the_storage(setup: Setup) -> None:
    manifest = setup.release()
    first = setup.request()
    assert {item.name for item in first.objects} == {
        "0-video-0.evf", f"{SID}.0.media.evk", "approval.json", "manifest.json",
    }  # fmt: skip
    setup.give(setup.grants(first))
    assert {result.outcome for result in setup.node.finish_puts(3)} == {Outcome.SENT}
    setup.give(setup.grants(setup.request(0.1)))  # progress was made: asked again at once
    setup.node.finish_puts(1)
    assert setup.bucket.objects["manifest.json"] == manifest
    approved = json.loads(setup.bucket.objects["approval.json"])["body"]["order"]
    assert approved["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    setup.give(setup.grants(setup.request(0.1)))
    (facts,) = setup.node.sessions.facts()
    assert (facts.objects_there, facts.objects_total, phase_of(facts)) == (4, 4, SessionPhase.SYNCING)
    assert setup.node.take(
        ConfirmSynced(sid=SID, manifest_sha256=hashlib.sha256(manifest).hexdigest(), objects=4)
    )
    assert setup.node.step(100) == []
    (facts,) = setup.node.sessions.facts()
    assert phase_of(facts) is SessionPhase.SYNCED


def test_forbidden_is_an_alarm_and_waits_for_a_new_grant(setup: Setup) -> None:
    """openpilot counted 401 and 403 as uploaded; here it stops the round and says so."""
    setup.release()
    setup.bucket.status = {"0-video-0.evf": 403}
    setup.give(setup.grants(setup.request(), {"0-video-0.evf"}))
    (result,) = setup.node.finish_puts(1)
    assert (result.outcome, result.reason) == (Outcome.FORBIDDEN, "storage answered 403 AccessDenied")
    assert "refused 0-video-0.evf: storage answered 403" in setup.node.sessions.faults()[0]
    assert setup.states()["0-video-0.evf"] == "failed"
    assert setup.node.only(FromNode.GRANT_REQUEST, 30) == []
    setup.bucket.status = {}
    setup.give(setup.grants(setup.request(31)))
    setup.node.finish_puts(3)
    assert setup.node.sessions.faults() == []
    assert "0-video-0.evf" in setup.bucket.objects


@pytest.mark.parametrize("status", [500, 503, 400, 307, 201])
def test_anything_but_200_is_asked_about_again_with_growing_patience(setup: Setup, status: int) -> None:
    setup.release()
    setup.bucket.status = {"0-video-0.evf": status}
    waits = []
    for _ in range(3):
        request = setup.request(0) if waits else setup.request()
        setup.give(setup.grants(request, {"0-video-0.evf"}))
        (result,) = setup.node.finish_puts(1)
        assert result.outcome is Outcome.LATER
        wait_s = 0.0
        while not setup.node.only(FromNode.GRANT_REQUEST, 0.5):
            wait_s += 0.5
        waits.append(wait_s)
        setup.node.sessions.connection_began()
    assert waits == [0.5, 1.5, 3.5]
    assert f"storage answered {status}" in setup.node.sessions.faults()[0]


def test_altered_and_missing_files_are_set_aside_and_the_others_go_on(setup: Setup) -> None:
    """Teleport #61538: one corrupt file stopped every upload."""
    setup.release()
    layout = setup.bench.view.layout
    segment = layout.segment(SID, "0-video-0.evf")
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    layout.wrap(f"{SID}.0.media.evk").unlink()
    setup.give(setup.grants(setup.request()))
    outcomes = {result.name: result.outcome for result in setup.node.finish_puts(3)}
    assert outcomes == {
        "0-video-0.evf": Outcome.UNFIT, f"{SID}.0.media.evk": Outcome.UNFIT, "approval.json": Outcome.SENT,
    }  # fmt: skip
    assert set(setup.bucket.objects) == {"approval.json"}
    assert setup.states()["0-video-0.evf"] == "quarantined"
    faults = setup.node.sessions.faults()
    assert any("0-video-0.evf is set aside: was altered" in fault for fault in faults)
    assert any("evk is set aside: cannot be read" in fault for fault in faults)
    setup.restart()
    assert {item.name for item in setup.request().objects} == {
        "approval.json"
    }  # nothing claims to be complete


def spoil(setup: Setup, place: int = -1) -> bytes:
    """One bit of the segment on the disk."""
    segment = setup.bench.view.layout.segment(SID, "0-video-0.evf")
    data = bytearray(segment.read_bytes())
    data[place] ^= 1
    segment.write_bytes(data)
    return bytes(data)


def released_as_told(setup: Setup, manifest: bytes) -> bool:
    """A person lets go what the desk says of its files."""
    (facts,) = setup.node.sessions.facts()
    files = tuple(facts.damaged)
    return setup.node.take(approval(manifest).model_copy(update={"damaged": files}))


def test_what_is_damaged_is_told_and_leaves_as_it_lies_once_that_is_released(setup: Setup) -> None:
    manifest = setup.release()
    spoilt = spoil(setup)
    wrap = f"{SID}.0.media.evk"
    setup.bench.view.layout.wrap(wrap).unlink()
    setup.give(setup.grants(setup.request()))
    setup.node.finish_puts(3)
    (facts,) = setup.node.sessions.facts()
    assert facts.damaged == [
        DamagedFile(name="0-video-0.evf", size_bytes=len(spoilt), sha256=hashlib.sha256(spoilt).hexdigest()),
        DamagedFile(name=wrap, size_bytes=0, sha256=None),
    ]
    assert released_as_told(setup, manifest)
    del setup.bucket.objects["approval.json"]  # as the room reads it: not the one that is wanted now
    setup.give(setup.grants(setup.request()))
    assert {result.outcome for result in setup.node.finish_puts(3)} == {Outcome.SENT}
    assert setup.bucket.objects["0-video-0.evf"] == spoilt
    assert setup.bucket.objects["leaves.bin"] == b"".join(setup.bench.view.leaves(SID))
    setup.give(setup.grants(setup.request(0.1)))
    setup.node.finish_puts(1)
    assert set(setup.bucket.objects) == {"0-video-0.evf", "leaves.bin", "approval.json", "manifest.json"}
    released = json.loads(setup.bucket.objects["approval.json"])["body"]["order"]
    assert [file["name"] for file in released["damaged"]] == ["0-video-0.evf", wrap]
    setup.give(setup.grants(setup.request(0.1)))
    (facts,) = setup.node.sessions.facts()
    assert (facts.objects_there, facts.objects_total, list(facts.damaged)) == (4, 4, [])
    done = ConfirmSynced(sid=SID, manifest_sha256=hashlib.sha256(manifest).hexdigest(), objects=4)
    assert not setup.node.take(done.model_copy(update={"objects": 3}))  # control
    assert setup.node.take(done)


def test_what_was_released_as_gone_and_can_be_read_again_is_asked_about_anew(setup: Setup) -> None:
    """The room would take the session for complete without it, and the desk would not."""
    manifest = setup.release()
    segment = setup.bench.view.layout.segment(SID, "0-video-0.evf")
    data = segment.read_bytes()
    segment.unlink()
    setup.give(setup.grants(setup.request(), {"0-video-0.evf"}))
    setup.node.finish_puts(1)
    assert released_as_told(setup, manifest)
    segment.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    setup.restart()
    assert {item.name for item in setup.request().objects} == {
        "approval.json", "leaves.bin", f"{SID}.0.media.evk",
    }  # fmt: skip
    (facts,) = setup.node.sessions.facts()
    assert [file.sha256 is None for file in facts.damaged] == [False]
    segment.unlink()
    setup.restart()  # control: gone as released, and the manifest may go
    assert "manifest.json" in {item.name for item in setup.request().objects}


def test_a_restart_after_such_a_release_goes_on_with_it(setup: Setup) -> None:
    manifest = setup.release()
    spoilt = spoil(setup)
    setup.give(setup.grants(setup.request()))
    setup.node.finish_puts(3)
    assert released_as_told(setup, manifest)
    setup.restart()
    offered = {item.name: item.sha256 for item in setup.request().objects}
    assert offered["0-video-0.evf"] == hashlib.sha256(spoilt).hexdigest()
    assert setup.states()["0-video-0.evf"] == "waiting"


def test_what_decays_further_is_set_aside_again_and_what_was_put_right_leaves_whole(setup: Setup) -> None:
    """Nobody let those bytes go."""
    manifest = setup.release()
    segment = setup.bench.view.layout.segment(SID, "0-video-0.evf")
    recorded = segment.read_bytes()
    spoil(setup)
    setup.give(setup.grants(setup.request(), {"0-video-0.evf"}))
    setup.node.finish_puts(1)
    assert released_as_told(setup, manifest)
    request = setup.request()
    spoil(setup, 40)
    setup.give(setup.grants(request, {"0-video-0.evf"}))
    (result,) = setup.node.finish_puts(1)
    assert result.outcome is Outcome.UNFIT
    setup.restart()
    assert "0-video-0.evf" not in {item.name for item in setup.request().objects}
    assert any("not as it was when it was released" in fault for fault in setup.node.sessions.faults())
    segment.write_bytes(recorded)
    setup.restart()
    offered = {item.name: item.sha256 for item in setup.request().objects}
    assert offered["0-video-0.evf"] == hashlib.sha256(recorded).hexdigest()


def test_restart_asks_what_the_bucket_has(setup: Setup) -> None:
    setup.release()
    setup.give(setup.grants(setup.request(), {"0-video-0.evf"}))
    setup.node.done.get(timeout=5)  # sent, and the process is killed before it could note it
    setup.restart()
    setup.give(setup.grants(setup.request()))
    setup.node.finish_puts(2)
    sent = [request.url.path.rsplit("/", 1)[1] for request in setup.bucket.requests]
    assert sorted(sent) == ["0-video-0.evf", f"{SID}.0.media.evk", "approval.json"]


def test_released_session_without_its_manifest_is_told_and_sends_nothing(setup: Setup) -> None:
    setup.release()
    setup.bench.view.layout.manifest(SID).unlink()
    setup.restart()
    assert setup.node.only(FromNode.GRANT_REQUEST, 100) == []
    assert "approval or manifest is gone" in setup.node.sessions.faults()[0]
