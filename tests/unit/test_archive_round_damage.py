"""The film of a damaged segment, record by record: all that is authentic and in its place, and nothing else."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.archive.opening import Film, SessionKeys, write_video
from appliance.archive.session import LocalSession
from appliance.archive.trust import Trust
from appliance.archive.verify import check_files, damaged, require_unaltered
from appliance.config import ArchiveConfig, load_config
from appliance.errors import EvidenceBroken
from appliance.evf.format import Header, RecordKind, read_prefix
from appliance.evf.keys import SegmentSecret
from appliance.evf.reader import Record
from appliance.evf.scan import scan_segment
from appliance.evf.writer import SegmentWriter
from tests.archive_commands import opened, refused
from tests.damaged_sessions import (
    DAMAGED_GAP,
    FIRST,
    LAST,
    PLAN,
    RELEASED,
    ROOT,
    SECOND,
    built,
    film_without,
    flip,
    inside,
    out,
    permit,
    place,
)
from tests.sessions import GAP_CAUSE, INIT, Built, Plan, build_session, representative

__all__ = ["built", "out"]


def test_flipped_bit_costs_its_fragment_and_no_other(built: Built, out: Path) -> None:
    flip(built, SECOND, at=inside(built, SECOND, 2))  # the fragment from 8 s on
    assert refused(built, out).startswith(f"{SECOND} (00:00:06-00:00:12 of the session): file was altered")
    permit(built, SECOND)
    said, events = opened(built, out)
    assert out.read_bytes() == film_without(built, 8)
    assert f"{out}: 11 fragments up to 00:00:54" in said
    assert f"lost: {SECOND} was damaged on the desk before it was sent, {RELEASED}" in said
    assert f"note: {SECOND} was damaged on the desk: 3 of 4 records open" in said
    assert f"note: {SECOND}: 1 records do not open and are left out, the first at 00:00:08: " in said
    assert ROOT in said
    assert events["gaps"] == [
        {"start_s": 6.0, "end_s": 12.0, "cause": DAMAGED_GAP},
        {"start_s": 12.0, "end_s": 42.0, "cause": GAP_CAUSE},
    ]
    assert len(events["observations"]) == 4


def test_flipped_bit_in_a_records_framing_costs_that_record(built: Built, out: Path) -> None:
    with place(built, LAST).open("rb") as stream:
        last = scan_segment(stream).records[3].offset_bytes
    flip(built, LAST, at=last + 1)
    permit(built, LAST)
    said, _ = opened(built, out)
    assert out.read_bytes() == film_without(built, 52)
    assert f"note: {LAST}: damaged from byte {last} on, " in said
    assert f"{out}: 11 fragments up to 00:00:50" in said


@pytest.mark.parametrize("at", [30, 200], ids=["in its length of names", "in its text"])
def test_flipped_bit_in_a_header_costs_the_segment(built: Built, out: Path, at: int) -> None:
    """The key of every record is derived from the header's bytes."""
    flip(built, FIRST, at=at)
    refused(built, out)
    permit(built, FIRST)
    said, events = opened(built, out)
    assert out.read_bytes() == film_without(built, 0, 2, 4)
    assert f"note: {FIRST}" in said
    assert f"{out}: 9 fragments up to 00:00:54" in said
    assert events["gaps"][0] == {"start_s": 0.0, "end_s": 6.0, "cause": DAMAGED_GAP}


def test_init_of_the_first_segment_is_taken_from_a_later_one(built: Built, out: Path) -> None:
    flip(built, FIRST, at=inside(built, FIRST, 0))
    refused(built, out)
    permit(built, FIRST)
    said, _ = opened(built, out)
    assert out.read_bytes() == built.film.read_bytes()
    assert f"note: {FIRST} was damaged on the desk: 3 of 4 records open" in said


def test_without_any_init_there_is_no_film(built: Built, out: Path) -> None:
    names = [name for name in built.names() if "video" in name]
    for name in names:
        flip(built, name, at=inside(built, name, 0))
    permit(built, *names)
    assert refused(built, out).endswith("no segment's init opens, and without one there is no film")


def test_damaged_segment_that_the_desk_could_not_close(tmp_path: Path, out: Path) -> None:
    built = build_session(tmp_path / "open-ended", Plan(open_ended=frozenset({LAST})))
    flip(built, LAST, at=inside(built, LAST, 2))
    permit(built, LAST)
    said, _ = opened(built, out)
    assert out.read_bytes() == film_without(built, 50)
    assert f"{LAST} was damaged on the desk: 3 of 4 records open" in said
    assert "is in the film" not in said


def _swap_records(data: bytes, built: Built) -> bytes:
    with place(built, FIRST).open("rb") as stream:
        two, three, four = scan_segment(stream).records[1:4]
    return (
        data[: two.offset_bytes]
        + data[three.offset_bytes : four.offset_bytes]
        + data[two.offset_bytes : three.offset_bytes]
        + data[four.offset_bytes :]
    )


def _repeat_record(data: bytes, built: Built) -> bytes:
    with place(built, FIRST).open("rb") as stream:
        two, three = scan_segment(stream).records[1:3]
    return (
        data[: three.offset_bytes] + data[two.offset_bytes : three.offset_bytes] + data[three.offset_bytes :]
    )


def _another_segment(_data: bytes, built: Built) -> bytes:
    return place(built, SECOND).read_bytes()


def _record_of_another_segment(data: bytes, built: Built) -> bytes:
    with place(built, SECOND).open("rb") as stream:
        three = scan_segment(stream).records[2]
    end = three.offset_bytes + three.length_bytes
    return (
        data[: three.offset_bytes] + place(built, SECOND).read_bytes()[three.offset_bytes : end] + data[end:]
    )


@pytest.mark.parametrize(
    ("spoil", "missing"),
    [
        (_swap_records, (0,)),
        (_repeat_record, ()),
        (_another_segment, (0, 2, 4)),
        (_record_of_another_segment, (2,)),
    ],
)
def test_record_in_a_wrong_place_is_left_out(
    built: Built, out: Path, spoil: Callable[[bytes, Built], bytes], missing: tuple[int, ...]
) -> None:
    """It is authentic, but not there, or not a second time."""
    place(built, FIRST).write_bytes(spoil(place(built, FIRST).read_bytes(), built))
    permit(built, FIRST)
    opened(built, out)
    assert out.read_bytes() == film_without(built, *missing)


def test_record_that_the_manifest_does_not_count_is_left_out(built: Built, out: Path) -> None:
    """As after a write error: never acknowledged, and sealed again into the next segment."""
    path = place(built, FIRST)
    header_bytes, _ = read_prefix(io.BytesIO(path.read_bytes()))
    header = Header.decode(header_bytes)
    writer = SegmentWriter(header, SegmentSecret(header.seg, bytearray(keys_of(built).secret_for(header))))
    data = bytearray(writer.prefix) + writer.record(RecordKind.INIT, INIT, 0, False).data
    for second in (0, 2, 4, 6):
        data += writer.record(RecordKind.FRAGMENT, PLAN.fragment(second), second * 90_000, True).data
    path.write_bytes(data)
    permit(built, FIRST)
    said, _ = opened(built, out)
    assert out.read_bytes() == built.film.read_bytes()
    assert "left out, the first at 00:00:06: its manifest does not count it" in said


def keys_of(built: Built) -> SessionKeys:
    trust = Trust.load(load_config(built.config, ArchiveConfig))
    return SessionKeys(LocalSession.load(built.folder, trust), representative(1), trust)


def film_of(built: Built) -> bytes:
    """As the command opens a session that is not whole."""
    trust = Trust.load(load_config(built.config, ArchiveConfig))
    session = LocalSession.load(built.folder, trust)
    checks = check_files(session, lambda _count: None)
    require_unaltered(checks)
    session = replace(session, damaged=damaged(session, checks))
    assert list(session.damaged) == [FIRST]
    film = io.BytesIO()
    write_video(session, SessionKeys(session, representative(1), trust), film, lambda _count: None)
    return film.getvalue()


def test_of_every_flipped_byte_the_film_has_what_is_authentic_and_no_more(tmp_path: Path) -> None:
    built = build_session(tmp_path, Plan(epochs=1))
    path = place(built, FIRST)
    data = path.read_bytes()
    with path.open("rb") as stream:
        records = scan_segment(stream).records
    for offset in range(0, len(data), 11):
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        with pytest.raises(EvidenceBroken, match=FIRST):  # control: the permission is for the byte before
            film_of(built)
        permit(built, FIRST)
        hit = next((each.index for each in reversed(records) if each.offset_bytes <= offset), None)
        lost = {None: (0, 2, 4), 1: (0,), 2: (2,), 3: (4,)}.get(hit, ())
        assert film_of(built) == film_without(built, *lost), offset


def test_fragments_wait_for_the_first_init_and_no_longer() -> None:
    out = io.BytesIO()
    film = Film(out)
    for index, (kind, plaintext) in enumerate(
        (
            (RecordKind.FRAGMENT, b"a"),
            (RecordKind.FRAGMENT, b"b"),
            (RecordKind.INIT, b"i"),
            (RecordKind.FRAGMENT, b"c"),
        )
    ):
        assert film.waits == (index in (1, 2))
        film.add("0-video-0.evf", Record(kind, False, index, index, plaintext, 0, 1, b""))
    assert (out.getvalue(), film.fragments, film.last_90k) == (b"iabc", 3, 3)
