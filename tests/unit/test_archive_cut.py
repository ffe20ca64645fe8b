"""A session whose files lost their tails opens up to the last whole record and says so; anything else is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.archive.opening import SessionKeys
from appliance.archive.opening_key import load_representative
from appliance.archive.session import LocalSession
from appliance.archive.session_records import require_authentic_cuts
from appliance.archive.trust import Trust
from appliance.archive.verify import check_files, cuts, require_unaltered
from appliance.config import ArchiveConfig, load_config
from appliance.errors import EvidenceBroken
from appliance.evf.scan import scan_segment
from tests.archive_commands import opened, refused, run, verify
from tests.sessions import GAP_CAUSE, PASSPHRASE, Built, Plan, build_session, observation

LOG = tuple(observation(number, "head_turned_away", number, number + 1) for number in range(1, 5))
FIRST, MIDDLE, LAST = "0-video-0.evf", "1-video-0.evf", "1-video-1.evf"  # from 0, 42 and 48 s on, 6 s each
CUT_GAP = "file cut after the recording"
PLAN = Plan()


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build_session(tmp_path, Plan(observations=LOG))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "exam.mp4"


def cut(built: Built, name: str, records: int, more_bytes: int = 0) -> None:
    """Keep so many whole records of a segment, and some bytes of the next."""
    path = built.segment(name)
    with path.open("rb") as stream:
        scan = scan_segment(stream)
    place = scan.records[records].offset_bytes
    path.write_bytes(path.read_bytes()[: place + more_bytes])


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def film_without(built: Built, *seconds: int) -> bytes:
    film = built.film.read_bytes()
    for second in seconds:
        assert film.count(PLAN.fragment(second)) == 1
        film = film.replace(PLAN.fragment(second), b"")
    return film


def test_cut_last_segment_opens_up_to_the_last_whole_record(built: Built, out: Path) -> None:
    cut(built, LAST, 3, 50)  # INIT, fragments at 48 and 50 s, and a piece of the one at 52 s
    said, events = opened(built, out)
    assert out.read_bytes() == film_without(built, 52)
    assert f"{out}: 11 fragments up to 00:00:52" in said
    assert (
        f"cut: {LAST} was cut after the recording: there until 00:00:52, missing from 00:00:52 to 00:00:54"
        in said
    )
    assert "all that was opened is authentic" in said
    assert events["gaps"] == [
        {"start_s": 12.0, "end_s": 42.0, "cause": GAP_CAUSE},
        {"start_s": 52.0, "end_s": 54.0, "cause": CUT_GAP},
    ]
    assert len(events["observations"]) == 4


@pytest.mark.parametrize(
    ("name", "lost_s", "there", "start_s"),
    [(FIRST, (4,), "00:00:04", 4.0), (MIDDLE, (46,), "00:00:46", 46.0)],
)
def test_cut_in_the_middle_leaves_a_gap_and_later_segments_follow(
    built: Built, out: Path, name: str, lost_s: tuple[int, ...], there: str, start_s: float
) -> None:
    cut(built, name, 3)
    said, events = opened(built, out)
    assert out.read_bytes() == film_without(built, *lost_s)
    assert f"{out}: 11 fragments up to 00:00:54" in said
    assert f"cut: {name} was cut after the recording: there until {there}, missing from {there} to" in said
    assert {"start_s": start_s, "end_s": start_s + 2, "cause": CUT_GAP} in events["gaps"]
    assert events["gaps"] == sorted(events["gaps"], key=lambda gap: str(gap["start_s"]).zfill(9))


def test_several_cut_files_are_each_named(built: Built, out: Path) -> None:
    cut(built, FIRST, 3)
    cut(built, LAST, 1, 10)
    said, events = opened(built, out)
    assert out.read_bytes() == film_without(built, 4, 48, 50, 52)
    assert said.count("cut: ") == 2
    assert [gap["cause"] for gap in events["gaps"]] == [CUT_GAP, GAP_CAUSE, CUT_GAP]
    assert f"{out}: 8 fragments up to 00:00:48" in said


def test_only_the_end_record_is_gone(built: Built, out: Path) -> None:
    """Nothing of the film is missing: no gap, but said."""
    cut(built, LAST, 4, 30)
    said, events = opened(built, out)
    assert out.read_bytes() == built.film.read_bytes()
    assert "there until 00:00:54, only its end record is missing" in said
    assert [gap["cause"] for gap in events["gaps"]] == [GAP_CAUSE]


def test_cut_log_keeps_the_film_whole(built: Built, out: Path) -> None:
    cut(built, "0-log-0.evf", 1, 9)
    said, events = opened(built, out)
    assert out.read_bytes() == built.film.read_bytes()
    assert "cut: 0-log-0.evf was cut after the recording" in said
    assert len(events["observations"]) == 3
    assert f"{CUT_GAP} (track log)" in [gap["cause"] for gap in events["gaps"]]


def test_verify_still_refuses_and_names_the_missing_span(built: Built) -> None:
    assert verify(built).exit_code == 0
    cut(built, MIDDLE, 3, 50)
    result = verify(built)
    assert isinstance(result.exception, EvidenceBroken)
    assert result.exception.exit_code == 7
    said = str(result.exception)
    assert said.startswith(
        f"{MIDDLE} (00:00:46-00:00:48 of the session): file was cut after the recording, 3 of"
    )
    assert "there until 00:00:46, missing from 00:00:46 to 00:00:48" in said
    assert f"cut     00:00:46-00:00:48  {MIDDLE}" in result.output
    assert f"ok      00:00:48-00:00:54  {LAST}" in result.output


def test_exit_codes_of_the_real_command(built: Built, out: Path) -> None:
    cut(built, LAST, 3, 50)

    def code(*arguments: str | Path) -> int:
        command = [sys.executable, "-m", "appliance.cli", "archive", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode

    assert code(*built.arguments("open", "--out", out)) == 0
    assert code("verify", built.folder, "--config", built.config) == 7


@pytest.mark.parametrize("length", [0, 5, 100, -1], ids=["empty", "in magic", "in header", "in first record"])
def test_cut_inside_the_header_or_first_record_is_refused(built: Built, out: Path, length: int) -> None:
    path = built.segment(MIDDLE)
    with path.open("rb") as stream:
        first = scan_segment(stream).records[1].offset_bytes
    path.write_bytes(path.read_bytes()[: length if length >= 0 else first - 1])
    assert refused(built, out).startswith(f"{MIDDLE} (00:00:42-00:00:48 of the session): file has ")


def test_control_one_byte_more_is_a_whole_first_record(built: Built, out: Path) -> None:
    cut(built, MIDDLE, 1)
    said, _ = opened(built, out)
    assert out.read_bytes() == film_without(built, 42, 44, 46)
    assert "there until 00:00:42, missing from 00:00:42 to 00:00:48" in said


def test_absent_file_is_refused(built: Built, out: Path) -> None:
    built.segment(MIDDLE).unlink()
    assert refused(built, out) == f"{MIDDLE} (00:00:42-00:00:48 of the session): file is missing"


@pytest.mark.parametrize("flipped", [FIRST, "0-log-0.evf", "1-video-0.evf"])
def test_cut_file_and_a_flipped_bit_in_another_is_refused(built: Built, out: Path, flipped: str) -> None:
    cut(built, LAST, 3, 50)
    flip(built.segment(flipped), -40)
    assert refused(built, out).startswith(f"{flipped} (")


def test_cut_file_with_a_foreign_manifest_or_an_extra_file_is_refused(built: Built, out: Path) -> None:
    cut(built, LAST, 3, 50)
    extra = built.folder / "note.txt"
    extra.write_text("more")
    assert "not named in the manifest" in refused(built, out)
    extra.unlink()
    flip(built.folder / "manifest.json", 400)
    assert refused(built, out).startswith("manifest.json")


@pytest.mark.parametrize("name", [LAST, "1-log-0.evf"])
def test_every_flipped_byte_of_what_a_cut_file_still_holds_is_refused(built: Built, name: str) -> None:
    """The manifest's hash cannot speak for it, so the key must: AEAD for records, COMMIT for the header."""
    kept = 3 if name == LAST else 1
    cut(built, name, kept, 12)
    path = built.segment(name)
    representative = load_representative(built.key, PASSPHRASE)
    trust = Trust.load(load_config(built.config, ArchiveConfig))
    session = LocalSession.load(built.folder, trust)

    def check() -> None:
        checks = check_files(session, lambda _count: None)
        require_unaltered(checks)
        found = replace(session, cuts=cuts(checks))
        assert list(found.cuts) == [name]
        require_authentic_cuts(found, SessionKeys(found, representative, trust))

    check()  # control: without a flip it passes
    data = path.read_bytes()
    for offset in range(0, len(data) - 12, 13):
        flip(path, offset)
        with pytest.raises(EvidenceBroken, match=name):
            check()
        path.write_bytes(data)


def test_flipped_bit_in_a_cut_log_is_refused_though_only_the_film_was_asked_for(
    built: Built, out: Path
) -> None:
    cut(built, "1-log-0.evf", 1)
    flip(built.segment("1-log-0.evf"), -3)
    assert refused(built, out).startswith("1-log-0.evf ")


def test_cut_wrap_is_refused(built: Built, out: Path) -> None:
    built.wrap().write_bytes(built.wrap().read_bytes()[:-20])
    assert "file has " in refused(built, out)


def test_longer_file_is_refused(built: Built, out: Path) -> None:
    path = built.segment(LAST)
    path.write_bytes(path.read_bytes() + b"CHNK")
    assert "file has " in refused(built, out)


def test_report_shows_the_cut_and_no_longer_says_that_all_is_there(built: Built, tmp_path: Path) -> None:
    whole, short = tmp_path / "whole.html", tmp_path / "short.html"
    assert run(built, "report", "--out", whole).exit_code == 0
    cut(built, LAST, 3, 50)
    result = run(built, "report", "--out", short)
    assert result.exit_code == 0
    assert f"cut: {LAST} was cut after the recording" in result.stdout
    page = short.read_text()
    assert f"{LAST} was cut after the recording: there until 00:00:52" in page
    assert f"00:00:52-00:00:54 (2.0 s): {CUT_GAP}" in page
    assert "One file was cut after the recording" in page
    assert "nothing was altered" not in page
    assert "nothing was altered" in whole.read_text()
    assert "cut after the recording" not in whole.read_text()


def test_report_of_a_cut_and_altered_film_is_refused(built: Built, tmp_path: Path) -> None:
    cut(built, LAST, 3)
    flip(built.segment(LAST), -3)
    result = run(built, "report", "--out", tmp_path / "report.html")
    assert isinstance(result.exception, EvidenceBroken)
    assert not (tmp_path / "report.html").exists()
