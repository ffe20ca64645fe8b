"""The page that the institution reads: all facts, the sentence of F068, nothing fetched, nothing executed."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance.archive.cli import app
from appliance.archive.observations import NOTICE
from appliance.archive.timeline import timeline
from appliance.card import NO_CARD, Card, card_lines
from appliance.errors import EvidenceBroken, Refused
from appliance.evidence.completeness import Kind, Line
from appliance.protocol import ObservationReport
from appliance.timecode import clock_text, duration_text, seconds, span_text
from tests.sessions import (
    CANDIDATE,
    CARD,
    DESK,
    EXAM,
    GAP_CAUSE,
    RATE,
    SID,
    Built,
    Plan,
    build_session,
    observation,
)

EVENTS = (
    observation(1, "gaze_outside_work_area", 3.5, 9.75),
    observation(
        2, "low_light", 44, 50.25, None, technical=True, measured={"exposure_ms": 33.25, "gain": None}
    ),
    observation(3, "nobody_at_desk", 50, None, "red"),
    observation(4, "head_turned_away", 1, 2, None, words='<script>alert("x")</script> & more', rule="<b>"),
)


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build_session(tmp_path, Plan(observations=EVENTS))


def page(built: Built, out: Path) -> str:
    result = CliRunner().invoke(app, built.arguments("report", "--out", out))
    assert result.exit_code == 0, result.exception
    return out.read_text()


class Reader(HTMLParser):
    """Checks that every element is closed in order, and keeps what a person reads and what a browser would load."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def test_page_says_what_a_person_needs(built: Built, tmp_path: Path) -> None:
    """F072: per candidate, all observations with their rules, technical ones apart, completeness, who approved."""
    text = " ".join(" ".join(read(page(built, tmp_path / "report.html")).text).split())
    for words in (
        EXAM,
        CANDIDATE,
        DESK,
        SID,
        "stat-2026, version 3",
        "2027-05-22",
        "m.jansen",
        "2026-11-22 12:10:04 UTC",
        "The recording of 54.0 s has one gap.",
        f"00:00:12-00:00:42 (30.0 s): {GAP_CAUSE}",
        "00:00:03-00:00:10",
        "gaze outside work area",
        "frames 31 yaw 31.5°",
        "exposure 33.25 ms gain unknown",
        "open when the log ended",
        "room CA, CN=Room 2.14 CA",
        "cosigned: room controller",
    ):
        assert words in text, words


def test_sentence_stands_above_and_below_the_observations(built: Built, tmp_path: Path) -> None:
    """F068"""
    assert page(built, tmp_path / "report.html").count(NOTICE) == 2


def test_page_is_self_contained_and_runs_nothing(built: Built, tmp_path: Path) -> None:
    html = page(built, tmp_path / "report.html")
    reader = read(html)
    assert not reader.tags & {"script", "link", "img", "iframe", "object", "form"}
    assert not reader.attributes & {"src", "href", "onclick", "onload", "action"}
    assert "url(" not in html
    assert "http:" not in html
    assert "https:" not in html
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; more" in html


def test_each_observation_has_its_explanation_or_says_that_it_has_none(tmp_path: Path) -> None:
    """F045, F072: what it rests on and does not show; a recording of an older version opens and says so."""
    log = (
        observation(1, "head_turned_away", 3.5, 9.75, card=CARD),
        observation(2, "nobody_at_desk", 50, None, "red"),
    )
    html = page(build_session(tmp_path, Plan(observations=log)), tmp_path / "report.html")
    text = " ".join(" ".join(read(html).text).split())
    for label, words in card_lines(Card.model_validate(CARD)):
        assert f"{label} {words}" in text
    assert html.count("<summary>Explanation</summary>") == 2
    assert text.count(NO_CARD) == 1
    assert "&lt;of one generator&gt;" in html


def test_complete_recording_is_called_complete(tmp_path: Path) -> None:
    built = build_session(tmp_path, Plan(epochs=1))
    text = " ".join(read(page(built, tmp_path / "report.html")).text)
    assert "The recording is complete: 12.0 s without a gap." in text
    assert "Nothing was noted in the log of this session." in text


def test_picture_and_clock_make_a_recording_incomplete_though_nothing_is_missing(tmp_path: Path) -> None:
    """The same lines as in the certificate; footage that shows nothing is not called complete."""
    noted = (
        {"kind": "picture", "finding": "frozen", "from_90k": 2 * RATE, "to_90k": 6 * RATE},
        {"kind": "clock_step", "at_90k": 8 * RATE, "by_ms": 3_600_000},
    )
    built = build_session(tmp_path, Plan(epochs=1, noted=noted))
    html = page(built, tmp_path / "report.html")
    text = " ".join(read(html).text)
    assert "The recording of 12.0 s has no gap, but not all is as promised." in text
    assert "Recorded, but not as promised: 00:00:02-00:00:06 (4.0 s): the picture was frozen" in text
    assert "set forward by 3600.0 s" in text
    assert 'class="state partial"' in html
    result = CliRunner().invoke(app, ["verify", str(built.folder), "--config", str(built.config)])
    assert result.output.splitlines()[-1].endswith("recording of 00:00:12, 2 other findings")
    assert "frozen: 00:00:02-00:00:06 the picture was frozen" in result.output


def test_altered_session_gets_no_report(built: Built, tmp_path: Path) -> None:
    path = built.segment("0-log-0.evf")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    result = CliRunner().invoke(app, built.arguments("report", "--out", tmp_path / "report.html"))
    assert isinstance(result.exception, EvidenceBroken)
    assert not (tmp_path / "report.html").exists()


def test_report_does_not_overwrite(built: Built, tmp_path: Path) -> None:
    page(built, tmp_path / "report.html")
    again = CliRunner().invoke(app, built.arguments("report", "--out", tmp_path / "report.html"))
    assert isinstance(again.exception, Refused)


def test_timeline_draws_technical_lanes_apart_and_below() -> None:
    reports = [ObservationReport.model_validate(event["report"]) for event in EVENTS]
    lines = [
        Line(12 * RATE, 42 * RATE, Kind.GAP, GAP_CAUSE),
        Line(44 * RATE, 46 * RATE, Kind.BLACK, "the picture was black"),
        Line(47 * RATE, 47 * RATE, Kind.CLOCK_STEP, "the clock was set"),
    ]
    picture = ET.fromstring(timeline(54 * RATE, [(0, 12 * RATE), (42 * RATE, 54 * RATE)], lines, reports))
    lanes = {
        item.text: float(item.attrib["y"]) for item in picture.iter("text") if item.get("class") == "lane"
    }
    assert list(lanes) == [
        "recording",
        "gaze outside work area",
        "head turned away",
        "nobody at desk",
        "low light",
    ]
    assert lanes["low light"] == max(lanes.values())
    assert len([item for item in picture.iter("path") if item.get("class") == "rule"]) == 1
    titles = [item.text for item in picture.iter("title")]
    assert f"gap 00:00:12-00:00:42: {GAP_CAUSE}" in titles
    assert "black 00:00:44-00:00:46: the picture was black" in titles
    bars = [item.get("class") for item in picture.iter("rect")]
    assert bars == ["recorded", "recorded", "finding", "finding", "gap"]
    ticks = [item.text for item in picture.iter("text") if item.get("class") == "tick"]
    assert ticks == ["00:00:00", "00:00:10", "00:00:20", "00:00:30", "00:00:40", "00:00:50"]


@pytest.mark.parametrize("duration_s", [0, 1, 59, 600, 3 * 3600, 24 * 3600])
def test_timeline_keeps_everything_inside_the_picture(duration_s: int) -> None:
    late = ObservationReport.model_validate(observation(1, "nobody_at_desk", duration_s, None)["report"])
    picture = ET.fromstring(timeline(duration_s * RATE, [(0, duration_s * RATE)], [], [late]))
    ticks = [item for item in picture.iter("text") if item.get("class") == "tick"]
    assert 1 <= len(ticks) <= 13
    assert all(176 <= float(tick.attrib["x"]) <= 984 for tick in ticks)
    bars = list(picture.iter("rect"))
    assert all(float(bar.attrib["x"]) + float(bar.attrib["width"]) <= 988 for bar in bars)


def test_times_as_people_read_them() -> None:
    assert clock_text(3 * 3600 * RATE + 61 * RATE + RATE - 1) == "03:01:01"
    assert span_text(RATE // 2, RATE + 1) == "00:00:00-00:00:02"
    assert span_text(6 * RATE, 12 * RATE) == "00:00:06-00:00:12"
    assert [duration_text(value) for value in (6.21, 200, 3900)] == ["6.2 s", "3 min 20 s", "1 h 05 min"]
    assert seconds(90_090) == 1.001
