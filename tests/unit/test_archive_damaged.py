"""A session with files that were damaged on the desk and released so: what is said of it, and what still opens.

In each test the damage is there first without permission, or with another one: that is the control.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import Result

from appliance.errors import EvidenceBroken
from appliance.evf.scan import scan_segment
from tests.archive_commands import opened, refused, run, verify
from tests.damaged_sessions import (
    DAMAGED_GAP,
    DAMAGES,
    EXCESSES,
    FIRST,
    GONE_GAP,
    LAST,
    LOG_FILE,
    MALFORMED,
    PLAN,
    RELEASED,
    ROOT,
    WRAP,
    as_it_lies,
    built,
    film_without,
    flip,
    inside,
    out,
    permit,
    permit_items,
    place,
    remove,
)
from tests.sessions import GAP_CAUSE, SID, Built, build_session

__all__ = ["built", "out"]

OTHER_WRAP = f"{SID}.1.media.evk"


def states(result: Result, state: str) -> dict[str, str]:
    """{file: words} of the lines of this state."""
    lines = (line.split("  ") for line in result.output.splitlines() if line.startswith(state))
    return {parts[-2]: parts[-1] for parts in lines}


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


@pytest.mark.parametrize(
    "at", [lambda size: size - 5, lambda size: size // 2], ids=["its signature", "somebody's sealed key"]
)
def test_damaged_wrap_closes_its_epoch_and_no_other(
    built: Built, out: Path, at: Callable[[int], int]
) -> None:
    """With another signature what is sealed in it may be another's, who then can seal segments of their own."""
    flip(built, WRAP, at=at(place(built, WRAP).stat().st_size))
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
