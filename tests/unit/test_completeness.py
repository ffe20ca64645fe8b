"""What makes a recording complete, and what each thing that does not hold is called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.evidence.completeness import (
    NO_CAUSE,
    NOTHING_RECORDED,
    PICTURE_WORDS,
    UNREADABLE_WORDS,
    Kind,
    Line,
    completeness_of,
)
from appliance.evidence.manifest import EventLeaf, Gap, LostLeaf, Manifest, SegmentEntry, WrapEntry
from tests.both_verifiers import LOG, VERIFIER
from tests.sessions import GAP_CAUSE, RATE, Plan, build_session

EMPTY = Manifest(
    institution="uni-x", exam="e", room="r", desk="d", sid="ab" * 16, candidate_code="C", policy_id="p",
    policy_version=1, retain_until="2027-05-22", started="2026-11-22T09:00:00.000Z",
    ended="2026-11-22T10:00:00.000Z", recipient_set_version=1, segments=(), wraps=(), events=(), gaps=(), lost=(),
    leaves=0, checkpoint="", cosignature="", chain_pem=(),
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """12 s of one epoch, nothing wrong with it."""
    return build_session(tmp_path_factory.mktemp("whole"), Plan(epochs=1)).manifest


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Epoch 0 from 0 to 12 s, epoch 1 from 42 to 54 s, each with video and a log at its end."""
    return build_session(tmp_path_factory.mktemp("two"), Plan(observations=LOG)).manifest


def picture(finding: str, from_s: float, to_s: float) -> dict[str, Any]:
    return {
        "kind": "picture",
        "at": "2026-11-22T09:00:10.000Z",
        "finding": finding,
        "from_90k": round(from_s * RATE),
        "to_90k": round(to_s * RATE),
    }


def step(at_s: float, by_ms: int) -> dict[str, Any]:
    return {
        "kind": "clock_step",
        "at": "2026-11-22T09:00:10.000Z",
        "at_90k": round(at_s * RATE),
        "by_ms": by_ms,
    }


def with_events(manifest: Manifest, *bodies: dict[str, Any]) -> Manifest:
    """The events' places in the log do not matter here."""
    return replace(manifest, events=tuple(EventLeaf(index, body) for index, body in enumerate(bodies)))


def lines(manifest: Manifest) -> list[tuple[float, float, str, str]]:
    found = completeness_of(manifest)
    assert found.complete == (not found.lines)
    assert found.outcome == ("with gaps" if found.lines else "complete")
    return [(line.start_90k / RATE, line.end_90k / RATE, line.kind.value, line.cause) for line in found.lines]


def test_a_whole_recording_is_complete(whole: Manifest) -> None:
    assert lines(whole) == []
    assert lines(with_events(whole, {"kind": "epoch_open", "epoch": 0}, {"kind": "camera_back"})) == []


@pytest.mark.parametrize("finding", ["black", "covered", "frozen", "undecodable", "unchecked"])
def test_each_finding_about_the_picture_is_a_line(whole: Manifest, finding: str) -> None:
    words = PICTURE_WORDS[Kind(finding)]
    assert lines(with_events(whole, picture(finding, 3, 5))) == [(3.0, 5.0, finding, words)]


def test_spans_that_touch_are_one_line_and_others_are_not(whole: Manifest) -> None:
    """A camera covered for 150 s is written every 60 s, and frozen in between is another thing."""
    found = lines(
        with_events(
            whole,
            picture("covered", 10, 70),
            picture("frozen", 69, 80),
            picture("covered", 70, 130),
            picture("covered", 130, 160),
            picture("covered", 160.5, 161),
        )
    )
    assert [(start, end, kind) for start, end, kind, _ in found] == [
        (10, 160, "covered"), (69, 80, "frozen"), (160.5, 161, "covered"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("by_ms", "words"), [(3_600_000, "forward by 3600.0 s"), (-61_500, "back by 61.5 s")]
)
def test_a_clock_step_makes_it_incomplete_and_says_that_footage_is_there(
    whole: Manifest, by_ms: int, words: str
) -> None:
    [(start, end, kind, cause)] = lines(with_events(whole, step(7, by_ms)))
    assert (start, end, kind) == (7, 7, "clock step")
    assert words in cause
    assert "footage is there" in cause


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "picture"},
        picture("tinted", 1, 2),
        picture("black", 2, 1),
        picture("black", 1, 2) | {"from_90k": "1"},
        picture("black", 1, 2) | {"from_90k": True},
        picture("black", 1, 2) | {"to_90k": 10**400},
        step(1, 10**400),
        step(1, 0),
        {"kind": "clock_step", "at_90k": 5},
    ],
)
def test_what_cannot_be_read_is_a_line_and_no_crash(whole: Manifest, body: dict[str, Any]) -> None:
    """A newer desk, or an altered event: silence would call the recording complete."""
    assert lines(with_events(whole, body)) == [(0, 0, "unreadable", UNREADABLE_WORDS)]


def test_gaps_losses_and_unwitnessed_spans_are_lines_in_order_of_time(whole: Manifest) -> None:
    found = lines(
        replace(
            with_events(whole, picture("black", 2, 3)),
            gaps=(Gap(4 * RATE, 5 * RATE, "camera lost", False), Gap(0, RATE, "room not reached", True)),
            lost=tuple(LostLeaf(index, "ab" * 32, "0-video-0.evf", 9 * RATE, "disk") for index in range(3)),
        )
    )
    assert found == [
        (0, 1, "unwitnessed", "room not reached"),
        (2, 3, "black", PICTURE_WORDS[Kind.BLACK]),
        (4, 5, "gap", "camera lost"),
        (9, 9, "lost", "3 records were lost: disk"),
    ]


def test_a_hole_that_no_gap_names_is_found(whole: Manifest) -> None:
    """A desk that drops a segment and stays silent about it is not taken at its word."""
    first, second = (entry for entry in whole.segments if entry.track == "video")
    without = tuple(entry for entry in whole.segments if entry is not second)
    later = replace(second, start_90k=10 * RATE)
    assert lines(replace(whole, segments=(*without, later))) == [(6, 10, "gap", NO_CAUSE)]
    named = (Gap(6 * RATE, 10 * RATE, "camera lost", False),)
    assert lines(replace(whole, segments=(*without, later), gaps=named)) == [(6, 10, "gap", "camera lost")]
    unwitnessed = (Gap(6 * RATE, 10 * RATE, "room not reached", True),)
    found = lines(replace(whole, segments=(*without, later), gaps=unwitnessed))
    assert [kind for _, _, kind, _ in found] == ["gap", "unwitnessed"], "unwitnessed is no footage's cause"
    assert lines(replace(whole, segments=tuple(e for e in whole.segments if e is not first))) == [
        (0, 6, "gap", NO_CAUSE)
    ]


def test_a_hole_as_long_as_a_late_frame_is_none(whole: Manifest) -> None:
    first, second = (entry for entry in whole.segments if entry.track == "video")
    for jitter_90k, count in ((RATE // 2, 0), (RATE // 2 + 1, 1)):
        later = replace(second, start_90k=first.end_90k + jitter_90k)
        assert len(lines(replace(whole, segments=(first, later)))) == count


def without_key(manifest: Manifest, *places: str) -> Manifest:
    """As the desk signs it when fsck took these wraps: they are simply not there."""
    gone = {f"{manifest.sid}.{place}.evk" for place in places}
    return replace(manifest, wraps=tuple(wrap for wrap in manifest.wraps if wrap.name not in gone))


@pytest.mark.parametrize(
    ("place", "start_s", "end_s", "cause"),
    [
        ("0.media", 0, 12, "no key is left for epoch 0: its footage cannot be opened"),
        ("1.media", 42, 54, "no key is left for epoch 1: its footage cannot be opened"),
        ("1.log", 54, 54, "no key is left for epoch 1: its log cannot be opened"),
    ],
)
def test_a_lost_key_is_a_line_over_what_it_would_open(
    two: Manifest, place: str, start_s: int, end_s: int, cause: str
) -> None:
    manifest = without_key(two, place)
    assert sorted(lines(manifest)) == sorted([(12, 42, "gap", GAP_CAUSE), (start_s, end_s, "gap", cause)])
    assert (start_s * RATE, end_s * RATE, "gap") in alone(manifest)


def test_only_a_lost_key_makes_it_incomplete(whole: Manifest) -> None:
    cause = "no key is left for epoch 0: its footage cannot be opened"
    assert lines(without_key(whole, "0.media")) == [(0, 12, "gap", cause)]
    other = replace(whole, sid="cd" * 16)
    assert lines(other) == [(0, 12, "gap", cause)], "a wrap of another session is none of this one"


def test_what_was_never_written_needs_no_key(whole: Manifest) -> None:
    """A log without an event has no segment, and a segment without a record holds nothing to open."""
    assert {entry.cls for entry in whole.segments} == {"media"}
    without = without_key(whole, "0.log")
    assert len(without.wraps) == len(whole.wraps) - 1
    assert lines(without) == []
    assert alone(without) == []
    empty = replace(whole, segments=(*whole.segments, empty_segment(epoch=1)))
    assert lines(empty) == []
    assert alone(empty) == []


def empty_segment(epoch: int = 0) -> SegmentEntry:
    """What a write error on a new segment's first record leaves."""
    name = f"{epoch}-video-9.evf"
    return SegmentEntry(name, "video", "media", epoch, 9, 300, "ab" * 32, 0, "OPEN_ENDED", 0, 0, ())


def started_late(manifest: Manifest, start_s: float) -> Manifest:
    first, *others = manifest.segments
    late = replace(first, start_90k=round(start_s * RATE))
    return replace(manifest, segments=(empty_segment(), late, *others))


def test_a_segment_without_records_is_not_the_start_of_footage(whole: Manifest) -> None:
    """Its times are 0 to 0; a camera has 3 s to its first frame all the same."""
    assert lines(started_late(whole, 1.5)) == []
    assert alone(started_late(whole, 1.5)) == []
    assert lines(started_late(whole, 3.5)) == [(0, 3.5, "gap", NO_CAUSE)]
    assert alone(started_late(whole, 3.5)) == [(0, 3.5 * RATE, "gap")]


def test_segments_without_records_are_no_video(whole: Manifest) -> None:
    empty = replace(whole, segments=(empty_segment(),))
    assert lines(empty) == [(0, 0, "gap", NOTHING_RECORDED)]
    assert alone(empty) == [(0, 0, "gap")]


def test_a_session_without_video_is_not_complete(whole: Manifest) -> None:
    log = tuple(entry for entry in whole.segments if entry.track != "video")
    assert lines(replace(whole, segments=log)) == [(0, 0, "gap", NOTHING_RECORDED)]


def test_numbers_beyond_a_century_are_bounded(whole: Manifest) -> None:
    [line] = completeness_of(replace(whole, gaps=(Gap(10**400, 10**400, "?", True),))).lines
    assert line.end_90k / RATE < 3.2e9
    assert not line.missing
    assert Line(0, 1, Kind.LOST, "").missing


def test_what_files_lost_later_joins_the_lines(whole: Manifest) -> None:
    """The archive adds it; the certificate, made before, cannot know it."""
    cut = Gap(3 * RATE, 6 * RATE, "file cut after the recording", False)
    assert [line.cause for line in completeness_of(whole, (cut,)).lines] == ["file cut after the recording"]


# --- the stand-alone verifier names the same, and shares no line with us


def alone(manifest: Manifest) -> list[tuple[int, int, str]]:
    body = manifest.to_body()
    found = [(start, end, "gap") for start, end, _ in VERIFIER.holes(body)]
    found += [(start, end, "gap") for start, end, _ in VERIFIER.keyless(body).values()]
    for start, end, words in VERIFIER.noted(body["events"]):
        kind = "unreadable" if "cannot be read" in words else "clock step" if "clock" in words else words
        found.append((start, end, kind))
    return sorted(found)


def ours(manifest: Manifest) -> list[tuple[int, int, str]]:
    found = completeness_of(manifest).lines
    return sorted((line.start_90k, line.end_90k, line.kind.value) for line in found)


BODIES = st.lists(
    st.one_of(
        st.builds(
            picture,
            st.sampled_from(["black", "covered", "frozen", "undecodable", "unchecked", "tinted"]),
            st.integers(-2, 12),
            st.integers(-2, 12),
        ),
        st.builds(step, st.integers(0, 12), st.sampled_from([0, 1500, -1500, 10**20])),
        st.sampled_from(
            [{"kind": "picture"}, {"kind": "clock_step", "at_90k": None}, {"kind": "camera_back"}]
        ),
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(BODIES)
def test_both_verifiers_read_the_log_alike(bodies: list[dict[str, Any]]) -> None:
    segment = SegmentEntry(
        "0-video-0.evf", "video", "media", 0, 0, 1, "ab" * 32, 1, "CLOSED", 0, 12 * RATE, ()
    )
    manifest = with_events(replace(EMPTY, segments=(segment,)), *bodies)
    assert alone(manifest) == ours(manifest)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 60), st.integers(0, 12), st.booleans(), st.integers(0, 2), st.integers(0, 1)
        ),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=3),
    st.sets(st.sampled_from(["0.media", "1.media", "2.media", "0.log", "1.log"])),
)
def test_both_verifiers_find_the_same_holes(
    spans: list[tuple[int, int, bool, int, int]], named: list[tuple[int, int]], keys: set[str]
) -> None:
    """Times in quarters of a second; the log track and segments without records cover nothing."""
    quarter = RATE // 4
    segments = tuple(
        SegmentEntry(
            f"{epoch}-x-{n}.evf", "video" if video else "log", "media" if video else "log", epoch, n, 1, "ab" * 32,
            records, "CLOSED", start * quarter, (start + length) * quarter, (),
        )
        for n, (start, length, video, epoch, records) in enumerate(spans)
    )  # fmt: skip
    gaps = tuple(Gap(start * quarter, (start + length) * quarter, "named", False) for start, length in named)
    wraps = tuple(WrapEntry(f"{EMPTY.sid}.{place}.evk", "ab" * 32, 1) for place in keys)
    manifest = replace(EMPTY, segments=segments, gaps=gaps, wraps=wraps)
    found = [line for line in completeness_of(manifest).lines if line.cause != "named"]
    assert alone(manifest) == [(line.start_90k, line.end_90k, "gap") for line in found]
    words = {line.cause for line in found} - {NO_CAUSE, NOTHING_RECORDED}
    assert words == {words for *_, words in VERIFIER.keyless(manifest.to_body()).values()}


def test_the_stand_alone_verifier_says_what_the_desk_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = build_session(tmp_path, Plan(epochs=1, noted=(picture("black", 2, 4), step(5, -3_600_000))))
    trust = built.config.parent / "trust"
    code = VERIFIER.main(
        [
            str(built.folder),
            "--room-ca",
            str(trust / "room-ca.pem"),
            "--controller",
            str(trust / "controller.pub"),
        ]
    )
    said = capsys.readouterr().out
    assert code == 0
    assert "note    00:00:02-00:00:04  recorded, not as promised  black" in said
    assert "note    00:00:05-00:00:05  recorded, not as promised  clock set by -3600.0 s" in said
