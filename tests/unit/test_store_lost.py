"""A lost leaf says exactly which file, when and why; other files that were damaged are not blamed for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.evf import RecordKind
from appliance.evidence.completeness import Kind, completeness_of
from appliance.evidence.manifest import Manifest
from appliance.store.ledger import Witness
from appliance.store.recording import RecordingStore
from appliance.store.repair import repair_store
from appliance.store.view import RecordingView
from appliance.sync.certificate import SessionParts, build_manifest
from tests.manual_clock import ManualClock
from tests.unit.test_store_builders import FRAGMENT_90K, SID, Desk
from tests.unit.test_store_check import flip
from tests.unit.test_sync_room import policy


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two closed segments of video and one that grew, an event between them."""
    desk = Desk(tmp_path)
    desk.begin()
    for first in (0, 2):
        video = desk.segment()
        for number in (first, first + 1):
            video.put(RecordKind.FRAGMENT, 900, number * FRAGMENT_90K)
        desk.store.append_event(SID, {"kind": "epoch_open", "epoch": 0})
        video.seal((first + 2) * FRAGMENT_90K)
    growing = desk.segment()
    for number in (4, 5):
        growing.put(RecordKind.FRAGMENT, 900, number * FRAGMENT_90K)
    desk.store.close()
    return tmp_path


def restart_and_end(root: Path) -> None:
    store = RecordingStore(root, ManualClock())
    store.end_session(SID, "2026-11-22T12:00:00.000Z")
    store.close()


def manifest_of(root: Path) -> Manifest:
    view = RecordingView(root)
    parts = SessionParts.read(view, SID)
    view.close()
    assert parts is not None
    assert [row.leaf for row in parts.lost] == [parts.leaves[row.leaf_index] for row in parts.lost]
    return build_manifest(parts, policy(), Witness(len(parts.leaves), "", ""), (), ())


def lost(root: Path) -> list[tuple[int, str, int, str]]:
    """(leaf, file, fragment number, cause) as the manifest says it."""
    return [
        (leaf.index, leaf.name, leaf.time_90k // FRAGMENT_90K, leaf.cause) for leaf in manifest_of(root).lost
    ]


def test_nothing_is_lost_in_a_whole_session(root: Path) -> None:
    restart_and_end(root)
    assert lost(root) == []


def test_each_lost_leaf_names_its_own_file_time_and_cause(root: Path) -> None:
    (root / "segments" / SID / "0-video-1.evf").unlink()
    flip(root / "segments" / SID / "0-video-2.evf", -9)
    restart_and_end(root)
    gone = "segment file 0-video-1.evf is missing"
    assert lost(root)[:3] == [
        (4, "0-video-1.evf", 2, gone),
        (5, "0-video-1.evf", 3, gone),
        (7, "0-video-1.evf", 4, gone),  # its end record
    ]
    ((leaf, name, number, cause),) = lost(root)[3:]
    assert (leaf, name, number) == (9, "0-video-2.evf", 5)
    assert cause.startswith("0-video-2.evf: bytes from ")


def test_a_loss_that_a_repair_found_is_named_as_well(root: Path) -> None:
    flip(root / "segments" / SID / "0-video-0.evf", -300)
    restart_and_end(root)
    assert lost(root) == [], "control: a start does not read a closed segment again"
    repair_store(root, ManualClock())
    assert [(leaf, name, number) for leaf, name, number, _ in lost(root)] == [
        (1, "0-video-0.evf", 1),
        (3, "0-video-0.evf", 2),
    ]


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_lost_log_is_named_and_is_no_gap_in_the_film(tmp_path: Path, damage: str) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    desk.store.write_wrap(SID, 0, "log", b"wrapped key " * 20)
    video, log = desk.segment(), desk.segment("log", "log")
    for number in range(3):
        video.put(RecordKind.FRAGMENT, 900, number * FRAGMENT_90K)
        log.put(RecordKind.EVENT, 80, number * FRAGMENT_90K)
    desk.store.close()
    path = tmp_path / "segments" / SID / "0-log-0.evf"
    if damage == "missing":
        path.unlink()
    else:
        flip(path, -9)
    restart_and_end(tmp_path)
    manifest = manifest_of(tmp_path)
    assert manifest.gaps == ()
    assert {leaf.name for leaf in manifest.lost} == {"0-log-0.evf"}
    lines = completeness_of(manifest).lines
    assert {line.kind for line in lines} == {Kind.LOST}
    assert len(lines) == (3 if damage == "missing" else 1)
    assert all("0-log-0.evf" in line.cause for line in lines)


def test_control_the_same_loss_in_the_film_is_a_gap(root: Path) -> None:
    (root / "segments" / SID / "0-video-1.evf").unlink()
    restart_and_end(root)
    assert [gap.start_90k for gap in manifest_of(root).gaps] == [2 * FRAGMENT_90K]
