"""A session with files that were damaged on the desk and released so: verified, and opened round the damage.

In each test the damage is there first without permission, or with another one: that is the control.
"""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from appliance.archive.cli import app
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
from tests.damaged_sessions import (
    DAMAGES,
    EXCESSES,
    FIRST,
    LAST,
    LOG_FILE,
    MALFORMED,
    RELEASED,
    SECOND,
    WRAP,
    as_it_lies,
    flip,
    permit,
    permit_items,
    place,
    remove,
)
from tests.sessions import GAP_CAUSE, INIT, SID, Built, Plan, build_session, observation, representative

PLAN = Plan(
    observations=tuple(observation(number, "head_turned_away", number, number + 1) for number in range(1, 5))
)
DAMAGED_GAP, GONE_GAP = "file damaged on the desk, what is left of it opens", "file gone from the desk"
OTHER_WRAP = f"{SID}.1.media.evk"
ROOT = "the root that the room witnessed cannot be computed"


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build_session(tmp_path, PLAN)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "exam.mp4"


def verify(built: Built) -> Result:
    return CliRunner().invoke(app, ["verify", str(built.folder), "--config", str(built.config)])


def run(built: Built, command: str, *more: str | Path) -> Result:
    return CliRunner().invoke(app, built.arguments(command, *more))


def opened(built: Built, out: Path) -> tuple[str, dict[str, list[dict[str, object]]]]:
    events = out.with_name("events.json")
    result = run(built, "open", "--out", out, "--events", events, "--force")
    assert result.exit_code == 0, result.exception
    return result.stdout, json.loads(events.read_text())


def refused(built: Built, out: Path) -> str:
    result = run(built, "open", "--out", out)
    assert isinstance(result.exception, EvidenceBroken), result.output
    assert result.exception.hint
    assert "\n" not in str(result.exception)
    assert not out.exists()
    assert not list(out.parent.glob(".*.part"))
    return str(result.exception)


def states(result: Result, state: str) -> dict[str, str]:
    """{file: words} of the lines of this state."""
    lines = (line.split("  ") for line in result.output.splitlines() if line.startswith(state))
    return {parts[-2]: parts[-1] for parts in lines}


def film_without(built: Built, *seconds: int) -> bytes:
    film = built.film.read_bytes()
    for second in seconds:
        assert film.count(PLAN.fragment(second)) == 1
        film = film.replace(PLAN.fragment(second), b"")
    return film


def inside(built: Built, name: str, record: int) -> int:
    """A byte in the sealed part of a record of the undamaged file."""
    with place(built, name).open("rb") as stream:
        found = scan_segment(stream).records[record]
    return found.offset_bytes + found.length_bytes // 2


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_was_released_as_damaged_is_lost_and_the_rest_opens(built: Built, kind: str, out: Path) -> None:
    damage = DAMAGES[kind]
    damage.do(built)
    before = verify(built)
    assert isinstance(before.exception, EvidenceBroken)  # control: nobody permitted it
    assert not states(before, "lost")
    permit(built, *damage.names)
    said = verify(built)
    assert isinstance(said.exception, EvidenceBroken)
    assert said.exception.exit_code == 7
    assert "approval itself shows it" in said.exception.hint
    assert states(said, "lost") == dict.fromkeys(damage.names, damage.words)
    assert not states(said, "broken")
    assert not states(said, "cut")
    if kind != "all":
        assert f"lost: {damage.names[0]} " in opened(built, out)[0]


@pytest.mark.parametrize("kind", EXCESSES)
def test_no_release_excuses_anything_else(built: Built, kind: str, out: Path) -> None:
    excess = EXCESSES[kind]
    excess.do(built)
    said = verify(built)
    assert isinstance(said.exception, EvidenceBroken), said.output
    assert said.exception.exit_code == 7
    assert str(said.exception).startswith(excess.name)
    if excess.released:
        assert list(states(said, "broken")) == [excess.name]
    refused(built, out)


@pytest.mark.parametrize("kind", MALFORMED)
def test_list_of_damaged_files_that_no_room_writes_is_no_release(built: Built, kind: str) -> None:
    flip(built, FIRST)
    item = as_it_lies(built, FIRST)
    permit_items(built, [item])
    assert states(verify(built), "lost")  # control: the item itself would do
    permit_items(built, MALFORMED[kind](item))
    said = verify(built)
    assert isinstance(said.exception, EvidenceBroken), said.output
    assert str(said.exception).startswith("approval.json")
    assert said.exception.hint


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("not of the session", "releases 9-video-0.evf as damaged twice, or the manifest does not name it"),
        ("twice", f"releases {FIRST} as damaged twice, or the manifest does not name it"),
        ("gone with a size", f"gives {FIRST} a size and no SHA-256"),
        ("empty", "has an empty list of damaged files"),
    ],
)
def test_what_is_wrong_with_such_a_list_is_said(built: Built, kind: str, words: str) -> None:
    flip(built, FIRST)
    permit_items(built, MALFORMED[kind](as_it_lies(built, FIRST)))
    assert str(verify(built).exception) == f"approval.json {words} (concerns the whole session)"


def test_file_that_is_whole_though_a_release_names_it(built: Built, out: Path) -> None:
    whole = place(built, FIRST).read_bytes()
    flip(built, FIRST)
    permit(built, FIRST)
    assert verify(built).exit_code != 0
    place(built, FIRST).write_bytes(whole)
    said = verify(built)
    assert said.exit_code == 0
    assert "nothing was altered" in said.output
    said_open, events = opened(built, out)
    assert out.read_bytes() == built.film.read_bytes()
    assert "damaged" not in said_open
    assert ROOT not in said_open
    assert [gap["cause"] for gap in events["gaps"]] == [GAP_CAUSE]


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


@pytest.mark.parametrize(("name", "seconds"), [(FIRST, (0, 2, 4)), (LAST, (48, 50, 52))])
def test_segment_that_is_gone(built: Built, out: Path, name: str, seconds: tuple[int, ...]) -> None:
    remove(built, name)
    assert refused(built, out).endswith("file is missing")
    permit(built, name)
    said, events = opened(built, out)
    assert out.read_bytes() == film_without(built, *seconds)
    assert f"{out}: 9 fragments up to 00:00:{54 if name == FIRST else 48}" in said
    assert f"lost: {name} was gone from the desk before the rest was sent, {RELEASED}" in said
    assert f"note: {name} is gone from the desk and left out" in said
    gap = {"start_s": seconds[0] * 1.0, "end_s": seconds[0] + 6.0, "cause": GONE_GAP}
    assert gap in events["gaps"]


def test_damaged_log_keeps_the_film_whole_and_its_other_records(built: Built, out: Path) -> None:
    flip(built, LOG_FILE, at=inside(built, LOG_FILE, 0))
    refused(built, out)
    permit(built, LOG_FILE)
    said, events = opened(built, out)
    assert out.read_bytes() == built.film.read_bytes()
    assert f"lost: {LOG_FILE} was damaged on the desk" in said
    assert f"note: {LOG_FILE} was damaged on the desk: 1 of 2 records open" in said
    assert [seen["start_s"] for seen in events["observations"]] == [2, 3, 4]
    assert [gap["cause"] for gap in events["gaps"]] == [GAP_CAUSE]


@pytest.mark.parametrize("at", [-1, 3000], ids=["its signature", "somebody's sealed key"])
def test_damaged_wrap_closes_its_epoch_and_no_other(built: Built, out: Path, at: int) -> None:
    """With another signature what is sealed in it may be another's, who then can seal segments of their own."""
    flip(built, WRAP, at=-5 if at == -1 else len(place(built, WRAP).read_bytes()) // 2)
    refused(built, out)
    permit(built, WRAP)
    said, events = opened(built, out)
    assert out.read_bytes() == film_without(built, 0, 2, 4, 6, 8, 10)
    assert said.count(WRAP) == 2
    assert (
        f"note: {WRAP}: the wrapped key was damaged on the desk; segments of epoch 0, class media do not"
        in said
    )
    assert ROOT not in said  # no segment is damaged
    assert events["gaps"][0] == {
        "start_s": 0.0,
        "end_s": 12.0,
        "cause": "no key is left for epoch 0: its footage cannot be opened",
    }


def test_when_no_key_is_left_the_error_names_the_wraps(built: Built, out: Path) -> None:
    flip(built, WRAP, at=-5)
    remove(built, OTHER_WRAP)
    permit(built, WRAP, OTHER_WRAP)
    said = refused(built, out)
    assert WRAP in said
    assert OTHER_WRAP in said


def test_log_without_its_key_is_said(built: Built, out: Path) -> None:
    name = f"{SID}.0.log.evk"
    flip(built, name, at=-5)
    permit(built, name)
    said, events = opened(built, out)
    assert out.read_bytes() == built.film.read_bytes()
    assert (
        f"note: {name}: the wrapped key was damaged on the desk; segments of epoch 0, class log do not"
        in said
    )
    assert len(events["observations"]) == 2


def test_cut_file_that_a_release_names_is_damaged_and_another_is_cut(built: Built, out: Path) -> None:
    for name in (FIRST, LAST):
        with place(built, name).open("rb") as stream:
            end = scan_segment(stream).records[2].offset_bytes
        place(built, name).write_bytes(place(built, name).read_bytes()[: end + 40])
    permit(built, FIRST)
    said = verify(built)
    assert list(states(said, "lost")) == [FIRST]
    assert list(states(said, "cut")) == [LAST]
    said_open, events = opened(built, out)
    assert out.read_bytes() == film_without(built, 2, 4, 50, 52)
    assert [gap["cause"] for gap in events["gaps"]] == [
        DAMAGED_GAP,
        GAP_CAUSE,
        "file cut after the recording",
    ]
    assert f"cut: {LAST} was cut after the recording" in said_open


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
    built: Built, out: Path, spoil: object, missing: tuple[int, ...]
) -> None:
    """It is authentic, but not there, or not a second time."""
    assert callable(spoil)
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


def test_report_shows_what_was_damaged_and_does_not_say_that_all_was_verified(
    built: Built, tmp_path: Path
) -> None:
    whole, page = tmp_path / "whole.html", tmp_path / "page.html"
    assert run(built, "report", "--out", whole).exit_code == 0
    log_wrap = f"{SID}.1.log.evk"
    flip(built, FIRST, at=inside(built, FIRST, 2))
    flip(built, LOG_FILE, at=inside(built, LOG_FILE, 0))
    flip(built, log_wrap, at=-5)
    remove(built, LAST)
    assert isinstance(run(built, "report", "--out", page).exception, EvidenceBroken)
    assert not page.exists()
    permit(built, FIRST, LOG_FILE, LAST, log_wrap)
    result = run(built, "report", "--out", page)
    assert result.exit_code == 0, result.exception
    assert "1 observations in 2 log segments" in result.stdout
    assert f"lost: {LAST} was gone from the desk" in result.stdout
    text = page.read_text()
    assert f"00:00:00-00:00:06 (6.0 s): {DAMAGED_GAP}" in text
    assert f"00:00:48-00:00:54 (6.0 s): {GONE_GAP}" in text
    assert f"{FIRST} was damaged on the desk before it was sent, {RELEASED}" in text
    assert f"{LOG_FILE} was damaged on the desk: 1 of 2 records open" in text
    assert "4 files were damaged on the desk before the upload and released so by m.jansen" in text
    assert ROOT in text
    assert f"<td>{log_wrap}</td>" not in text
    assert f"<td>{log_wrap}</td>" in whole.read_text()
    assert "nothing was altered" not in text
    assert "nothing was altered" in whole.read_text()


def test_report_with_only_its_log_damaged_is_not_complete(tmp_path: Path) -> None:
    built = build_session(tmp_path, replace(PLAN, epochs=1))
    page = tmp_path / "page.html"
    assert run(built, "report", "--out", page).exit_code == 0
    assert "The recording is complete" in page.read_text()
    remove(built, LOG_FILE)
    permit(built, LOG_FILE)
    assert run(built, "report", "--out", page, "--force").exit_code == 0
    text = page.read_text()
    assert "The recording is complete" not in text
    assert f"{LOG_FILE} is gone from the desk and left out" in text
    assert "Nothing was noted in what is left of the log" in text


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
