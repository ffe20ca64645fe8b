"""Faces of all groups of renders are found alike, and the documentation says today's figures (F040, F043, F054).

What 144 pictures allow: with 48 of a value, one face missed on one side alone makes a ratio of 3. So on this set nobody
is missed, or groups are missed alike. A value of which one face in twenty were missed would be noticed nine times in
ten, one in a hundred four times in ten. Renders of one generator are not people.
"""

from __future__ import annotations

import csv
import itertools
import re
import shutil
from collections import Counter
from pathlib import Path

import cv2
import pytest

from appliance.inference.inspect import read_picture, report_on
from appliance.inference.labelled import read_labels
from appliance.inference.models import Models, load_models
from appliance.inference.report import Report, no_face_ratio, rate
from tests.renders.table import FOLDER, fresh, rows, written

MOST_RATIO = 1.25
CROSSED = ("skin_tone", "MakeHuman_morph", "age", "sex", "glasses", "light", "distance")
GROUPS = (*CROSSED, "skin_tone_in_light")
ANEW = "run `python -m tests.renders` and read what changed"


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models()


@pytest.fixture(scope="module")
def report(models: Models) -> Report:
    return report_on(FOLDER, models)


def beyond(report: Report) -> dict[str, float]:
    """Groups whose values differ by more than MOST_RATIO in how often a face is not found."""
    ratios = {group.name: group.no_face_ratio.ratio for group in report.groups if group.no_face_ratio}
    return {name: ratio for name, ratio in ratios.items() if ratio > MOST_RATIO}


def test_no_group_of_renders_is_missed_a_quarter_more_often_than_another(report: Report) -> None:
    """F043, F054: highest by lowest rate of "no face", by tone, morph, age, sex, glasses, light and distance."""
    assert [group.name for group in report.groups if group.no_face_ratio] == list(GROUPS)
    assert beyond(report) == {}, f"not found: {report.not_found}"


@pytest.mark.parametrize("tone", ["light", "dark"])
def test_a_group_that_is_harder_to_see_is_noticed(tone: str, models: Models, tmp_path: Path) -> None:
    """Control: half of the set, one skin tone of it in a thirtieth of the light."""
    with (FOLDER / "labels.csv").open(encoding="utf-8", newline="") as source:
        labels = list(csv.DictReader(source))
    kept = [row for row in labels if row["light"] == "good" and row["skin_tone"] != "medium"]
    with (tmp_path / "labels.csv").open("w", encoding="utf-8", newline="") as target:
        table = csv.DictWriter(target, list(kept[0]))
        table.writeheader()
        table.writerows(kept)
    for row in kept:
        if row["skin_tone"] == tone:
            dark = read_picture(FOLDER / row["file"]) // 30
            assert cv2.imwrite(str(tmp_path / row["file"]), dark)
        else:
            shutil.copy(FOLDER / row["file"], tmp_path)
    spoilt = report_on(tmp_path, models)
    assert "skin_tone" in beyond(spoilt)
    ratio = next(group.no_face_ratio for group in spoilt.groups if group.name == "skin_tone")
    assert ratio
    assert ratio.highest == tone


def test_what_the_limit_lets_through_and_what_not() -> None:
    def ratio(one: int, other: int) -> float:
        found = no_face_ratio({"a": rate(one, 48), "b": rate(other, 48)})
        assert found
        return found.ratio

    assert ratio(0, 0) == 1.0
    assert ratio(1, 0) == pytest.approx(3.0)
    assert ratio(12, 10) <= MOST_RATIO < ratio(13, 10)


def test_every_two_values_meet_equally_often() -> None:
    """So what is said of one column is not due to another."""
    pictures = read_labels(FOLDER).pictures
    for one, other in itertools.combinations(CROSSED, 2):
        met = Counter((each.values[one], each.values[other]) for each in pictures)
        assert len(set(met.values())) == 1, (one, other)
        assert len(met) == len({pair[0] for pair in met}) * len({pair[1] for pair in met})
    assert len(pictures) == 144


def test_pictures_are_those_of_the_labels_and_small() -> None:
    named = {each.file for each in read_labels(FOLDER).pictures}
    files = {path.name: path.stat().st_size for path in FOLDER.glob("*.webp")}
    assert set(files) == named
    assert sum(files.values()) < 1_500_000


def test_documentation_has_todays_figures(report: Report) -> None:
    """F040: counts to the picture (what is unassessable, to one: it hangs on a brightness), errors to 0.3 degrees."""
    now, told = rows(fresh(report)), rows(written())
    assert list(now) == list(told), ANEW
    for key, cells in now.items():
        for heading, cell, stands in zip(now[key[0], key[0]], cells, told[key], strict=True):
            assert differs(heading, cell, stands) is False, (
                f"{key[1]}, {heading}: {stands} is now {cell}; {ANEW}"
            )


def differs(heading: str, now: str, told: str) -> bool:
    """Whether two cells of a column say something else, beyond what another processor may round otherwise."""
    if "°" in now:
        pairs = zip(re.findall(r"[\d.]+(?=°)", now), re.findall(r"[\d.]+(?=°)", told), strict=True)
        mean, _ = (abs(float(one) - float(other)) for one, other in pairs)
        return mean > 0.3
    if heading == "unassessable" and now != heading:
        return abs(int(now.split()[0]) - int(told.split()[0])) > 1
    return now != told


def test_a_table_of_other_figures_would_be_noticed() -> None:
    assert differs("no face", "1 of 48 (0.4 to 10.9 %)", "0 of 48 (0.0 to 7.4 %)")
    assert differs("head yaw", "2.5° (1.8 to 3.1); 6.3°; 47", "2.1° (1.8 to 3.1); 6.3°; 47")
    assert differs("unassessable", "3 of 48 (1 to 2 %)", "1 of 48 (1 to 2 %)")
    assert not differs("head yaw", "2.2° (1.8 to 3.1); 6.3°; 47", "2.1° (1.7 to 3.1); 6.4°; 47")
