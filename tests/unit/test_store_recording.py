"""Sessions, segments, leaves and gaps as the camera process writes them and others read them."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from appliance.errors import StoreFailed
from appliance.evf import Outcome, RecordKind
from appliance.store.rows import GapRow, LeafRun
from appliance.store.view import RecordingView
from tests.unit.test_store_builders import BOOT, FRAGMENT_90K, OTHER_SID, SID, Desk, new_session

INIT, FRAGMENT, EVENT = RecordKind.INIT, RecordKind.FRAGMENT, RecordKind.EVENT


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "store")
    yield desk
    desk.store.close()


@pytest.fixture
def view(desk: Desk) -> RecordingView:
    view = RecordingView(desk.root)
    yield view
    view.close()


def test_view_of_no_store_is_empty(tmp_path: Path) -> None:
    view = RecordingView(tmp_path)
    assert (
        view.sessions() == view.segments(SID) == view.wraps(SID) == view.leaves(SID) == view.events(SID) == []
    )
    assert view.session(SID) is None
    assert view.newest_fragment(SID) is None
    assert view.leaf_count(SID) == 0
    assert view.totals(SID) == (0, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_session_is_seen_from_begin_to_end(desk: Desk, view: RecordingView) -> None:
    desk.store.begin_session(new_session())
    row = view.session(SID)
    assert row is not None
    assert (row.candidate_code, row.policy_version, row.ended, row.epoch) == ("C-0042", 3, None, None)
    assert desk.store.active_session() == view.active_session() == row
    assert [desk.store.begin_epoch(SID, BOOT) for _ in range(3)] == [0, 1, 2]
    desk.store.end_session(SID, "2026-11-22T12:00:00.000Z")
    assert desk.store.active_session() is None
    assert [(row.ended, row.epoch) for row in view.sessions()] == [("2026-11-22T12:00:00.000Z", 2)]


def test_one_session_at_a_time(desk: Desk) -> None:
    desk.begin()
    with pytest.raises(StoreFailed, match="still recording"):
        desk.store.begin_session(new_session(OTHER_SID))
    desk.store.end_session(SID, "2026-11-22T12:00:00.000Z")
    desk.store.begin_session(new_session(OTHER_SID))
    with pytest.raises(StoreFailed, match="ended"):
        desk.store.begin_epoch(SID, BOOT)


def test_leaves_of_all_tracks_and_events_are_one_sequence(desk: Desk, view: RecordingView) -> None:
    desk.begin()
    video, log = desk.segment(), desk.segment("log", "log")
    places = [
        video.put(INIT, 500, 0),
        video.put(FRAGMENT, 900, 0),
        log.put(EVENT, 80, 90),
        desk.store.append_event(SID, {"kind": "camera_covered", "time_90k": 100}),
        video.put(FRAGMENT, 900, FRAGMENT_90K),
        video.seal(2 * FRAGMENT_90K),
    ]
    assert places == list(range(6)) == list(range(view.leaf_count(SID)))
    event_leaf = hashlib.sha256(b'\0{"kind":"camera_covered","time_90k":100}').digest()
    first, second, third, fourth = video.acknowledged
    assert view.leaves(SID) == [first, second, log.acknowledged[0], event_leaf, third, fourth]
    assert view.leaves(SID, start=2, limit=2) == [log.acknowledged[0], event_leaf]
    assert [(event.leaf_index, event.body["kind"]) for event in view.events(SID)] == [(3, "camera_covered")]
    by_track = {row.track: row for row in view.segments(SID)}
    assert by_track["video"].leaf_runs == (LeafRun(0, 2), LeafRun(4, 2))
    assert by_track["log"].leaf_runs == (LeafRun(2, 1),)
    assert (by_track["video"].start_90k, by_track["video"].end_90k) == (0, 2 * FRAGMENT_90K)


def test_a_sealed_row_says_what_the_file_is(desk: Desk, view: RecordingView) -> None:
    desk.begin()
    video = desk.segment()
    video.put(INIT, 500, 0)
    growing = view.segments(SID)[0]
    assert (growing.state, growing.sha256, growing.size_bytes, growing.records) == (
        "open",
        None,
        video.file.size_bytes,
        1,
    )
    video.put(FRAGMENT, 70_000, 0)
    video.seal(FRAGMENT_90K)
    data = desk.store.layout.segment(SID, "0-video-0.evf").read_bytes()
    row = view.segments(SID)[0]
    assert (row.name, row.state, row.size_bytes, row.records) == ("0-video-0.evf", "closed", len(data), 3)
    assert row.sha256 == hashlib.sha256(data).hexdigest()
    assert row.md5 == base64.b64encode(hashlib.md5(data).digest()).decode()
    assert desk.outcome(row.name) == (Outcome.CLOSED, 3)


def test_an_abandoned_segment_ends_after_its_last_record(desk: Desk, view: RecordingView) -> None:
    desk.begin()
    video = desk.segment()
    video.put(FRAGMENT, 3000, 0)
    video.file.abandon("disk refused a write")
    row = view.segments(SID)[0]
    data = desk.store.layout.segment(SID, row.name).read_bytes()
    assert (row.state, row.size_bytes, row.cause) == ("open_ended", len(data), "disk refused a write")
    assert row.sha256 == hashlib.sha256(data).hexdigest()
    assert desk.outcome(row.name) == (Outcome.OPEN_ENDED, 1)
    with pytest.raises(StoreFailed, match="finished"):
        video.put(FRAGMENT, 10, 1)


def test_ending_leaves_no_segment_open(desk: Desk, view: RecordingView) -> None:
    desk.begin()
    desk.segment().put(FRAGMENT, 3000, 0)
    desk.store.end_session(SID, "2026-11-22T12:00:00.000Z")
    assert [row.state for row in view.segments(SID)] == ["open_ended"]


def test_records_must_come_in_order_and_end_through_seal(desk: Desk) -> None:
    desk.begin()
    video = desk.segment()
    first = video.writer.record(FRAGMENT, b"a", 0)
    second = video.writer.record(FRAGMENT, b"b", 0)
    with pytest.raises(StoreFailed, match="where 0 belongs"):
        video.file.append(second)
    video.file.append(first)
    video.file.append(second)
    end = video.writer.end(0)
    with pytest.raises(StoreFailed, match="through seal"):
        video.file.append(end)
    video.file.seal(end)


def test_newest_fragment_is_the_health_of_the_desk(desk: Desk, view: RecordingView) -> None:
    desk.begin()
    video, log = desk.segment(), desk.segment("log", "log")
    video.put(INIT, 500, 0)
    assert view.newest_fragment(SID) is None
    assert view.recording_age_s(SID, desk.clock, BOOT) is None
    desk.clock.advance(2)
    video.put(FRAGMENT, 900, 0)
    desk.clock.advance(1.5)
    log.put(EVENT, 80, 90)
    assert view.newest_fragment(SID) == (FRAGMENT_90K, 3_000_000_000, "2026-11-22T09:00:02.000Z")
    desk.clock.step_wall(3600)
    assert view.recording_age_s(SID, desk.clock, BOOT) == 1.5
    assert view.recording_age_s(SID, desk.clock, "another boot") == 3601.5


def test_totals_count_what_is_acknowledged(desk: Desk, view: RecordingView) -> None:
    desk.begin()
    video, log = desk.segment(), desk.segment("log", "log")
    video.put(INIT, 500, 0)
    video.put(FRAGMENT, 900, 0)
    log.put(EVENT, 80, 90)
    sizes = [desk.store.layout.segment(SID, row.name).stat().st_size for row in view.segments(SID)]
    assert view.totals(SID) == (1, sum(sizes))


def test_gaps_and_wraps_are_kept(desk: Desk, view: RecordingView) -> None:
    desk.begin()
    desk.store.add_gap(SID, 400, 900, "camera unplugged")
    desk.store.add_gap(SID, 100, 200, "restart")
    assert view.gaps(SID) == [GapRow(100, 200, "restart"), GapRow(400, 900, "camera unplugged")]
    (wrap,) = view.wraps(SID)
    data = desk.store.layout.wrap(wrap.name).read_bytes()
    assert (wrap.name, wrap.cls, wrap.state) == (f"{SID}.0.media.evk", "media", "there")
    assert wrap.sha256 == hashlib.sha256(data).hexdigest()
    with pytest.raises(StoreFailed, match="exists already"):
        desk.store.write_wrap(SID, 0, "media", b"other")
    assert desk.store.layout.wrap(wrap.name).read_bytes() == data


def test_a_segment_file_is_never_overwritten(desk: Desk) -> None:
    desk.begin()
    path = desk.store.layout.segment(SID, "0-video-0.evf")
    path.write_bytes(b"somebody's")
    with pytest.raises(StoreFailed, match="cannot create"):
        desk.segment()
    assert path.read_bytes() == b"somebody's"


def test_only_declared_columns_and_no_names_in_the_index(desk: Desk) -> None:
    """F016, F039: the index holds pseudonyms, places, sizes and times."""
    desk.begin()
    desk.segment().put(FRAGMENT, 900, 0)
    columns = {
        row[1]
        for (table,) in desk.store._connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        ).fetchall()
        for row in desk.store._connection.execute(f"PRAGMA table_info({table})")
    }
    assert columns == {
        "key", "value", "number", "sid", "candidate_code", "exam", "institution", "policy_id", "policy_version",
        "retain_until", "started", "started_mono_ns", "boot_id", "room", "desk", "recipient_set_version", "ended",
        "epoch", "cls", "name", "size_bytes", "sha256", "md5", "state", "id", "track", "seg", "prefix_bytes", "cause",
        "segment_id", "record_index", "kind", "key_frame", "time_90k", "end_90k", "offset_bytes", "length_bytes",
        "leaf_index", "durable_mono_ns", "durable_wall", "leaf", "body", "start_90k", "stored_as", "original",
        "reason", "moved", "local_copy", "purge_reason", "purged",
    }  # fmt: skip
