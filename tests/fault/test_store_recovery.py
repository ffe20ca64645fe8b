"""What start-up finds after a crash, and what it makes of it; nothing is ever deleted."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from appliance.evf import Outcome, RecordKind, SealedRecord
from appliance.store.check import check_store
from appliance.store.recording import RecordingStore
from appliance.store.recovery import RecoveryReport
from appliance.store.rows import GapRow
from appliance.store.view import RecordingView
from tests.manual_clock import ManualClock
from tests.unit.test_store_builders import FRAGMENT_90K, SID, Desk, Growing
from tests.unit.test_store_durable import Recorder

FRAGMENT = RecordKind.FRAGMENT


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    desk.begin()
    return desk


def sealed(growing: Growing, size_bytes: int, time_90k: int) -> SealedRecord:
    return growing.writer.record(FRAGMENT, b"\x5a" * size_bytes, time_90k)


def leave(desk: Desk, name: str, *tail: bytes) -> None:
    """Bytes that a dead process had appended without a row."""
    with desk.store.layout.segment(SID, name).open("ab") as stream:
        stream.write(b"".join(tail))


def restarted(desk: Desk) -> RecoveryReport:
    desk.store.close()
    store = RecordingStore(desk.root, ManualClock())
    store.close()
    return store.recovery


def test_nothing_to_do_after_a_clean_stop(desk: Desk) -> None:
    desk.segment().seal(0)
    desk.store.end_session(SID, "2026-11-22T12:00:00.000Z")
    assert restarted(desk) == RecoveryReport()


def test_whole_records_are_adopted_and_a_torn_one_is_cut(desk: Desk) -> None:
    video = desk.segment()
    video.put(FRAGMENT, 900, 0)
    whole, torn = sealed(video, 900, FRAGMENT_90K), sealed(video, 900, 2 * FRAGMENT_90K)
    leave(desk, "0-video-0.evf", whole.data, torn.data[:-1])
    report = restarted(desk)
    assert (report.adopted_records, report.truncated_bytes) == (1, len(torn.data) - 1)
    assert report.interrupted_sessions == [SID]
    view = RecordingView(desk.root)
    assert view.leaves(SID) == [*video.acknowledged, whole.leaf]
    (row,) = view.segments(SID)
    assert (row.state, row.records, row.end_90k) == ("open_ended", 2, FRAGMENT_90K)
    view.close()
    assert desk.outcome(row.name) == (Outcome.OPEN_ENDED, 2)
    assert check_store(desk.root) == []


def test_an_adopted_record_is_synced_before_its_row(desk: Desk) -> None:
    video = desk.segment()
    leave(desk, "0-video-0.evf", sealed(video, 900, 0).data)
    desk.store.close()
    recorder = Recorder()
    RecordingStore(desk.root, ManualClock(), recorder).close()
    synced = recorder.calls.index("fdatasync")
    assert "commit" in recorder.calls[synced:]
    recorder.calls.clear()
    RecordingStore(desk.root, ManualClock(), recorder).close()
    assert "fdatasync" not in recorder.calls  # control: nothing to adopt


def test_an_end_record_without_its_row_closes_the_segment(desk: Desk) -> None:
    video = desk.segment()
    video.put(FRAGMENT, 900, 0)
    leave(desk, "0-video-0.evf", video.writer.end(FRAGMENT_90K).data)
    restarted(desk)
    view = RecordingView(desk.root)
    assert [(row.state, row.records, row.cause) for row in view.segments(SID)] == [("closed", 2, "")]
    view.close()
    assert desk.outcome("0-video-0.evf") == (Outcome.CLOSED, 2)


def test_tails_of_several_tracks_are_adopted_by_time_then_track(desk: Desk) -> None:
    video, log, audio = desk.segment(), desk.segment("log", "log"), desk.segment("audio")
    video.put(FRAGMENT, 900, 0)
    of_video = [sealed(video, 10, 300), sealed(video, 10, 500)]
    of_log = [sealed(log, 10, 100), sealed(log, 10, 300)]
    of_audio = [
        sealed(audio, 10, 300),
        sealed(audio, 10, 200),
    ]  # a time that steps back keeps its file's order
    for name, records in (("video", of_video), ("log", of_log), ("audio", of_audio)):
        leave(desk, f"0-{name}-0.evf", *(record.data for record in records))
    assert restarted(desk).adopted_records == 6
    expected = [of_log[0], of_audio[0], of_audio[1], of_log[1], of_video[0], of_video[1]]
    view = RecordingView(desk.root)
    assert view.leaves(SID) == [*video.acknowledged, *(record.leaf for record in expected)]
    view.close()
    assert check_store(desk.root) == []


def test_a_page_that_was_counted_but_never_written_is_torn(desk: Desk) -> None:
    video = desk.segment()
    holed = bytearray(sealed(video, 20_000, 0).data)
    holed[8192:12288] = bytes(4096)
    leave(desk, "0-video-0.evf", holed, sealed(video, 900, FRAGMENT_90K).data)
    report = restarted(desk)
    assert report.adopted_records == 0
    assert report.truncated_bytes > 20_000
    assert desk.outcome("0-video-0.evf") == (Outcome.OPEN_ENDED, 0)


def test_control_the_same_records_without_a_hole_are_adopted(desk: Desk) -> None:
    video = desk.segment()
    leave(desk, "0-video-0.evf", sealed(video, 20_000, 0).data, sealed(video, 900, FRAGMENT_90K).data)
    assert restarted(desk).adopted_records == 2


def drop_row(desk: Desk, statement: str) -> None:
    connection = sqlite3.connect(desk.root / "index.db")
    assert connection.execute(statement).rowcount == 1
    connection.commit()
    connection.close()


def test_a_file_whose_row_was_not_committed_is_adopted(desk: Desk) -> None:
    video = desk.segment()
    record = sealed(video, 900, 0)
    desk.store.close()
    drop_row(desk, "DELETE FROM segments")
    leave(desk, "0-video-0.evf", record.data)
    report = restarted(desk)
    assert (report.adopted_segments, report.adopted_records, report.quarantined) == (1, 1, [])
    assert check_store(desk.root) == []


def test_what_belongs_to_nothing_goes_to_quarantine_with_its_reason(desk: Desk) -> None:
    desk.segment().put(FRAGMENT, 900, 0)
    layout = desk.store.layout
    data = layout.segment(SID, "0-video-0.evf").read_bytes()
    strangers = {
        f"segments/{SID}/0-video-9.evf": data,  # a copy under another name
        f"segments/{SID}/0-video-1.evf": b"EVF1",  # the header was never finished
        f"segments/{'9' * 32}/0-video-0.evf": data,  # another session's directory
        f"wraps/{SID}.7.media.evk": b"wrap of an epoch that never began",
        f"wraps/{SID}.0.log.evk.tmp": b"half a wr",
    }
    for name, content in strangers.items():
        (desk.root / name).parent.mkdir(exist_ok=True)
        (desk.root / name).write_bytes(content)
    assert sorted(restarted(desk).quarantined) == sorted(strangers)
    for name, content in strangers.items():
        assert not (desk.root / name).exists()
        assert (desk.root / "quarantine" / name.replace("/", "_")).read_bytes() == content
    problems = check_store(desk.root)
    assert len(problems) == len(strangers)
    assert all(problem.where.startswith("quarantine/") and "was " in problem.what for problem in problems)


def test_a_second_stranger_of_the_same_name_displaces_none(desk: Desk) -> None:
    path = desk.store.layout.segment(SID, "stranger")
    for content in (b"one", b"two"):
        path.write_bytes(content)
        restarted(desk)
    assert [p.read_bytes() for p in sorted((desk.root / "quarantine").iterdir())] == [b"one", b"two"]


def test_a_wrap_without_its_row_is_adopted(desk: Desk) -> None:
    desk.store.close()
    drop_row(desk, "DELETE FROM wraps")
    assert restarted(desk).quarantined == []
    view = RecordingView(desk.root)
    assert [wrap.name for wrap in view.wraps(SID)] == [f"{SID}.0.media.evk"]
    view.close()
    assert check_store(desk.root) == []


@pytest.mark.parametrize("closed", [True, False])
def test_a_missing_file_becomes_a_gap_once(desk: Desk, closed: bool) -> None:
    video = desk.segment()
    video.put(FRAGMENT, 900, 0)
    video.put(FRAGMENT, 900, FRAGMENT_90K)
    if closed:
        video.seal(2 * FRAGMENT_90K)
    desk.store.layout.segment(SID, "0-video-0.evf").unlink()
    assert restarted(desk).missing == [f"segments/{SID}/0-video-0.evf"]
    assert restarted(desk).missing == []
    view = RecordingView(desk.root)
    assert view.gaps(SID) == [GapRow(0, 2 * FRAGMENT_90K, "segment file 0-video-0.evf is missing")]
    assert [(row.state, row.records) for row in view.segments(SID)] == [("missing", 0)]
    assert view.leaf_count(SID) == (3 if closed else 2)
    assert view.totals(SID) == (0, 0)
    view.close()


def test_a_missing_wrap_is_marked(desk: Desk) -> None:
    name = f"{SID}.0.media.evk"
    desk.store.layout.wrap(name).unlink()
    assert restarted(desk).missing == [f"wraps/{name}"]
    view = RecordingView(desk.root)
    assert [wrap.state for wrap in view.wraps(SID)] == ["missing"]
    view.close()


def test_damaged_acknowledged_bytes_are_kept_in_quarantine_and_named_as_a_gap(desk: Desk) -> None:
    video = desk.segment()
    for number in range(3):
        video.put(FRAGMENT, 900, number * FRAGMENT_90K)
    path = desk.store.layout.segment(SID, "0-video-0.evf")
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1  # in the second record
    path.write_bytes(data)
    report = restarted(desk)
    assert report.damaged == [f"segments/{SID}/0-video-0.evf"]
    assert [p.read_bytes() for p in (desk.root / "quarantine").iterdir()] == [bytes(data)]
    view = RecordingView(desk.root)
    (row,) = view.segments(SID)
    assert (row.state, row.records) == ("open_ended", 1)
    (gap,) = view.gaps(SID)
    assert (gap.start_90k, gap.end_90k) == (FRAGMENT_90K, 3 * FRAGMENT_90K)
    assert view.leaf_count(SID) == 3
    view.close()
    assert desk.outcome(row.name) == (Outcome.OPEN_ENDED, 1)
    assert restarted(desk).damaged == []


def test_a_destroyed_header_makes_the_segment_missing(desk: Desk) -> None:
    video = desk.segment()
    video.put(FRAGMENT, 900, 0)
    path = desk.store.layout.segment(SID, "0-video-0.evf")
    path.write_bytes(bytes(path.stat().st_size))
    report = restarted(desk)
    assert report.damaged == report.missing == report.quarantined == [f"segments/{SID}/0-video-0.evf"]
    assert len(list((desk.root / "quarantine").iterdir())) == 1


def test_the_session_goes_on_with_a_new_epoch(desk: Desk) -> None:
    desk.segment().put(FRAGMENT, 900, 0)
    desk.store.close()
    again = Desk(desk.root)
    active = again.store.active_session()
    assert active is not None
    assert (active.sid, active.epoch) == (SID, 0)
    again.begin_epoch()
    again.segment().put(FRAGMENT, 900, 5 * FRAGMENT_90K)
    again.store.end_session(SID, "2026-11-22T12:00:00.000Z")
    view = RecordingView(again.root)
    assert [row.name for row in view.segments(SID)] == ["0-video-0.evf", "1-video-0.evf"]
    view.close()
    again.store.close()
    assert check_store(desk.root) == []
