"""`invigil inspect --report`: statistics of labelled pictures, and labels that cannot be used (F040, F043)."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance.cli import app
from appliance.errors import BadInput
from appliance.inference.inspect import inspect_labelled
from appliance.inference.labelled import LabelledPicture, Labels, read_labels
from appliance.inference.report import Report, errors, make_report, no_face_ratio, rate
from appliance.inference.report_text import as_markdown, as_text
from appliance.inference.signals import Signals
from tests.renders.table import FOLDER
from tests.unit.test_archive_schema import problems, schema

SEEN = Signals(0, 1, True, "good", 10.0, -3.0, 0.0, 10.0, 0.0, 6.0)
NOBODY = Signals(0, 0, True, "good")


def picture(name: str, faces: int = 1, **values: str) -> LabelledPicture:
    angles = (8.0, 1.0, 0.0, 0.0) if faces == 1 else (None, None, None, None)
    return LabelledPicture(name, faces, *angles, values)


def report(*pairs: tuple[LabelledPicture, Signals]) -> Report:
    groups = tuple(pairs[0][0].values)
    return make_report(Labels(tuple(each for each, _ in pairs), groups, ()), [read for _, read in pairs])


def test_interval_of_a_rate_is_wilsons() -> None:
    """Against the textbook's: 5 of 10, and none of 48."""
    half = rate(5, 10)
    assert (half.share, half.low, half.high) == (
        0.5,
        pytest.approx(0.2366, abs=1e-4),
        pytest.approx(0.7634, abs=1e-4),
    )
    assert (rate(0, 48).low, rate(0, 48).high) == (0.0, pytest.approx(0.0741, abs=1e-4))
    assert rate(48, 48).high == 1.0
    assert rate(0, 0).share is None


def test_ratio_adds_a_half_and_is_one_where_nobody_is_missed() -> None:
    nobody = no_face_ratio({"a": rate(0, 10), "b": rate(0, 1000)})
    assert nobody
    assert nobody.ratio == 1.0
    assert nobody.low < 0.03 < 40 < nobody.high
    some = no_face_ratio({"a": rate(3, 50), "b": rate(9, 50), "c": rate(4, 50)})
    assert some
    assert (some.highest, some.lowest) == ("b", "a")
    assert some.ratio == pytest.approx(9.5 / 3.5)
    # log: sqrt(1/9.5 - 1/50.5 + 1/3.5 - 1/50.5) = 0.593
    assert (some.low, some.high) == (pytest.approx(0.849, abs=0.01), pytest.approx(8.68, abs=0.05))


def test_ratio_takes_the_rate_that_most_pictures_stand_for() -> None:
    found = no_face_ratio({"few": rate(0, 10), "many": rate(0, 100), "one": rate(1, 100)})
    assert found
    assert (found.highest, found.lowest) == ("one", "many")


def test_ratio_needs_two_values_with_faces() -> None:
    assert no_face_ratio({"a": rate(1, 4), "empty": rate(0, 0)}) is None
    assert no_face_ratio({}) is None


def test_errors_say_how_many_and_draw_the_same_each_time() -> None:
    sizes = [-1.0, 2.0, None, 3.0, -4.0, 10.0]
    found = errors(sizes)
    assert found == errors(sizes)
    assert found
    assert found.low_deg is not None
    assert found.high_deg is not None
    assert (found.pictures, found.mean_deg) == (5, 4.0)
    assert found.low_deg < 4.0 < found.high_deg
    assert found.p90_deg == pytest.approx(7.6)
    few = errors(sizes[:4])
    assert few
    assert few.low_deg is None
    assert errors([None]) is None


def test_counts_stand_on_the_pictures_that_they_are_about() -> None:
    """F043: nobody where somebody is, several where one is, somebody where nobody is."""
    found = report(
        (picture("one", 1, light="good"), SEEN),
        (picture("missed", 1, light="dim"), NOBODY),
        (picture("two", 1, light="dim"), replace(SEEN, faces=2)),
        (picture("group", 3, light="good"), replace(SEEN, faces=2)),
        (picture("empty", 0, light=""), replace(NOBODY, faces=1)),
        (picture("dark", 1, light="dim"), replace(SEEN, assessable=False)),
    )
    all_of = found.everything
    assert (all_of.no_face.count, all_of.no_face.pictures) == (1, 5)
    assert (all_of.several.count, all_of.several.pictures) == (1, 4)
    assert (all_of.face_where_none.count, all_of.face_where_none.pictures) == (1, 1)
    assert (all_of.unassessable.count, all_of.unassessable.pictures) == (1, 6)
    assert found.not_found == ("missed",)
    (group,) = found.groups
    assert {value: each.pictures for value, each in group.values.items()} == {"good": 2, "dim": 3}
    assert group.no_face_ratio
    assert (group.no_face_ratio.highest, group.no_face_ratio.lowest) == ("dim", "good")


def test_errors_are_of_pictures_where_the_angle_is_known_and_read() -> None:
    found = report(
        (picture("a"), SEEN), (picture("b"), replace(SEEN, head_pitch_deg=-5.0)), (picture("c"), NOBODY)
    )
    assert found.everything.head_yaw
    assert (found.everything.head_yaw.pictures, found.everything.head_yaw.mean_deg) == (2, 2.0)
    assert found.everything.gaze
    assert found.everything.gaze.mean_deg == pytest.approx(10.0)
    assert found.head_pitch_zero_deg == -5.0
    assert found.everything.head_pitch
    assert found.everything.head_pitch.mean_deg == pytest.approx(1.0)


def test_words_say_what_the_figures_are_and_are_not() -> None:
    found = report((picture("a", skin_tone="dark|er"), SEEN), (picture("b", skin_tone="light"), NOBODY))
    for words in (as_text("folder", found), as_markdown(found)):
        assert "never of a person" in words
        assert "not people" in words
        assert "No face was found in b." in words
        assert "0 of 1 (0.0 to 79.3 %)" in words
        assert "3.00 (" in words
    assert "| skin tone: dark\\|er | 1 |" in as_markdown(found)
    assert "gaze" not in as_markdown(found, ("head_yaw",))


def test_json_keeps_to_the_published_schema() -> None:
    rule = schema("inspect-report")
    with_gaze = report(*((picture(str(number), light="good"), SEEN) for number in range(6)))
    alone = report((picture("missed", light="good"), NOBODY), (picture("empty", 0, light="dim"), NOBODY))
    for found in (with_gaze, alone):
        document = json.loads(json.dumps({"folder": "here"} | asdict(found)))
        assert problems(document, rule, rule) == []
    assert problems(document | {"person": 1}, rule, rule) == ["$.person: unknown"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("0000.webp", "0001.webp"):
        shutil.copy(FOLDER / name, tmp_path)
    labels(tmp_path, "file,faces,light", "0000.webp,1,good", "0001.webp,1,dim")
    return tmp_path


def labels(folder: Path, *lines: str) -> None:
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_command_reads_a_folder_in_each_form(folder: Path) -> None:
    told: dict[str, list[str]] = {"text": [], "json": [], "markdown": []}
    for form in told:
        inspect_labelled([folder], form, told[form].append)  # type: ignore[arg-type]
    (line,) = told["json"]
    document = json.loads(line)
    assert document["everything"]["no_face"] == {
        "count": 0, "pictures": 2, "share": 0.0, "low": 0.0, "high": pytest.approx(0.6576, abs=1e-4)
    }  # fmt: skip
    assert document["everything"]["gaze"] is None
    assert list(document["groups"][0]["values"]) == ["good", "dim"]
    assert told["text"][0].startswith(f"{folder}\n\nPictures")
    assert "| light: dim | 1 | 0 of 1" in told["markdown"][0]


def test_markdown_is_a_form_of_the_report_alone(folder: Path) -> None:
    for flags in (["--markdown"], ["--report", "--json", "--markdown"]):
        asked = CliRunner().invoke(app, ["inspect", *flags, str(folder)])
        assert isinstance(asked.exception, BadInput)
        assert asked.exception.hint
    reported = CliRunner().invoke(app, ["inspect", "--report", "--markdown", str(folder)])
    assert reported.exit_code == 0, reported.output


def test_columns_of_remarks_are_no_groups_and_empty_ones_nothing(folder: Path) -> None:
    rows = [f"0000{number}.webp,1,note {number},young,," for number in range(13)]
    for row in rows:
        shutil.copy(FOLDER / "0000.webp", folder / row.split(",")[0])
    labels(folder, "\ufefffile,faces,notes,age,sex,head_yaw_deg", *rows)
    read = read_labels(folder)
    assert (read.groups, read.remarks) == (("age",), ("notes",))
    assert read.pictures[0].head_yaw_deg is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((), "has no column file"),
        (("file;faces", "0000.webp;1"), "has no column file"),
        (("file,light", "0000.webp,dim"), "has no column faces"),
        (("file,faces,age,age", "0000.webp,1,a,b"), "a column twice"),
        (("file,faces",), "has no row"),
        (("file,faces", "0000.webp,1", "absent.webp,1"), "row 3: there is no file absent.webp"),
        (("file,faces", ",1"), "row 2: no file"),
        (("file,faces", "0000.webp,1", "0000.webp,1"), "row 3: 0000.webp is there twice"),
        (("file,faces", "0000.webp,one"), "row 2: faces is not a number from 0 to 1000: one"),
        (("file,faces", "0000.webp,"), "row 2: faces is not a number from 0 to 1000: empty"),
        (("file,faces", "0000.webp,-1"), "faces is not a number"),
        (("file,faces", "0000.webp,1,good"), "row 2 has 3 values for 2 columns"),
        (
            ("file,faces,head_yaw_deg", "0000.webp,1,left"),
            "head_yaw_deg is not a number from -180 to 180: left",
        ),
        (("file,faces,head_yaw_deg", "0000.webp,1,nan"), "head_yaw_deg is not a number"),
        (
            ("file,faces,head_pitch_deg", "0000.webp,1,91"),
            "head_pitch_deg is not a number from -90 to 90: 91",
        ),
        (("file,faces,head_yaw_deg", "0000.webp,2,3"), "angles are of one face"),
        (("file,faces,gaze_yaw_deg", "0000.webp,1,3"), "a gaze has both"),
        (("file,faces,age", "0000.webp,1,\x1b[2J"), "cannot be printed"),
        (("file,faces", '"0000.webp,1'), "not a table of commas"),
    ],
)
def test_labels_that_cannot_be_used_are_named_with_their_row(
    folder: Path, lines: tuple[str, ...], said: str
) -> None:
    labels(folder, *lines)
    with pytest.raises(BadInput) as raised:
        read_labels(folder)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.hint
    assert raised.value.exit_code == 4


def test_folder_without_labels_and_a_file_that_is_no_picture_are_named(folder: Path) -> None:
    labels(folder, "file,faces", "labels.csv,1")
    with pytest.raises(BadInput, match="it is not a picture"):
        inspect_labelled([folder], "text", str)
    (folder / "labels.csv").write_bytes(b"file,faces\n\xff.webp,1\n")
    with pytest.raises(BadInput, match="is not UTF-8 text"):
        read_labels(folder)
    (folder / "labels.csv").unlink()
    with pytest.raises(BadInput, match=r"cannot read .*labels\.csv: no such file"):
        read_labels(folder)
