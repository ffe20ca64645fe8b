"""From looks and decoded fragments to spans: lengths that count, the split by the minute, silence, what comes first."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from appliance.camera.clip import ClipSource
from appliance.camera.picture_judge import SHORTEST_90K, PictureJudge
from appliance.camera.picture_planes import luma_and_grey
from appliance.camera.picture_spans import Span, Spans
from appliance.camera.source import Frame
from appliance.picture_quality import is_same
from tests.manual_clock import ManualClock
from tests.scenes import Image, covered, desk, dimmed, filmed

S = 90_000
ROOM = desk()
BLACK = np.zeros_like(ROOM)
HAND = covered(ROOM)
CLIPS = Path(__file__).resolve().parents[2] / "build" / "clips"
NAMES = ["single_face.mp4", "no_face.mp4", "WolfgangLanger_Pexels.mp4"]


class Looks:
    """A judge that looks once a second at what the test says."""

    def __init__(self) -> None:
        self.spans = Spans(SHORTEST_90K)
        self.judge = PictureJudge(self.spans)
        self.reformatter = VideoReformatter()

    def at(self, second: float, image: Image) -> None:
        picture = Frame.from_bgr(image, 0, 1).picture
        self.judge.look(round(second * S), *luma_and_grey(picture, 320, self.reformatter))

    def over(self, end_s: float) -> list[tuple[str, float, float]]:
        self.judge.stand_until(round(end_s * S))
        self.spans.end_all()
        return [(each.finding, each.from_90k / S, each.to_90k / S) for each in self.spans.take()]


def looks_at(images: list[Image], noise: float = 1.5) -> list[tuple[str, float, float]]:
    looks = Looks()
    for second, image in enumerate(images):
        looks.at(second, filmed(image, noise) if noise else image)
    return looks.over(len(images))


# --- spans


def test_what_is_found_again_and_again_is_one_span() -> None:
    spans = Spans({})
    for at in range(5):
        spans.add("black", at * S, (at + 1) * S)
    assert spans.lasting == ["black"]
    assert spans.take() == []
    spans.end("black")
    assert spans.take() == [Span("black", 0, 5 * S)]
    assert spans.take() == spans.lasting == []


def test_a_long_span_is_handed_out_by_the_minute_without_a_hole() -> None:
    spans = Spans({"black": 2 * S})
    for at in range(0, 121 * S + S // 2, S // 2):
        spans.add("black", at, at + S // 2)
    parts = spans.take()
    spans.end("black")
    parts += spans.take()
    assert [(part.from_90k / S, part.to_90k / S) for part in parts] == [(0, 60), (60, 120), (120, 121.5)]


def test_the_rest_of_a_span_counts_however_short() -> None:
    spans = Spans({"black": 2 * S})
    spans.add("black", 0, 60 * S + 9)
    assert spans.lasting == ["black"]
    spans.end("black")
    assert spans.take() == [Span("black", 0, 60 * S), Span("black", 60 * S, 60 * S + 9)]


def test_two_spans_with_time_between_are_two() -> None:
    spans = Spans({})
    spans.add("undecodable", 0, 2 * S)
    spans.add("undecodable", 4 * S, 6 * S)
    spans.end_all()
    assert spans.take() == [Span("undecodable", 0, 2 * S), Span("undecodable", 4 * S, 6 * S)]


def test_what_is_too_short_is_nothing() -> None:
    spans = Spans({"covered": 2 * S})
    spans.add("covered", 0, S)
    assert spans.lasting == []
    spans.end("covered")
    assert spans.take() == []


# --- looks


def test_a_live_room_is_none_of_it() -> None:
    assert looks_at([ROOM] * 20) == []


def test_a_dark_but_visible_room_is_not_black() -> None:
    assert looks_at([dimmed(ROOM, 0.05)] * 20, noise=1.0) == []


@pytest.mark.parametrize(("scene", "finding"), [(BLACK, "black"), (HAND, "covered")])
def test_black_and_covered_from_their_first_look_to_the_first_clear_one(scene: Image, finding: str) -> None:
    assert looks_at([ROOM] * 3 + [scene] * 4 + [ROOM] * 3) == [(finding, 3, 7)]
    assert looks_at([ROOM] * 3 + [scene] + [ROOM] * 3) == []


def test_a_hand_and_a_lamp_are_covered_in_any_light() -> None:
    for light in (1.0, 0.5, 0.3):
        assert looks_at([dimmed(HAND, light)] * 5) == [("covered", 0, 5)]
    assert looks_at([np.full_like(ROOM, 255)] * 5) == [("covered", 0, 5)]


def test_the_same_picture_for_four_seconds_is_frozen_and_for_two_is_not() -> None:
    for looks_of_it, expected in ((6, [("frozen", 2, 8)]), (4, [("frozen", 2, 6)]), (3, []), (1, [])):
        looks, shot = Looks(), filmed(ROOM)
        for second in range(12):
            looks.at(second, shot if 2 <= second < 2 + looks_of_it else filmed(ROOM))
        assert looks.over(12) == expected


def test_a_frozen_picture_with_a_running_clock_in_its_corner_is_frozen() -> None:
    looks, shot = Looks(), filmed(ROOM)
    for second in range(8):
        shot[2:8, 2:10] = filmed(shot[2:8, 2:10], 40)
        looks.at(second, shot)
    assert looks.over(8) == [("frozen", 0, 8)]


def test_black_without_any_noise_is_black_and_not_frozen() -> None:
    assert looks_at([BLACK] * 8, noise=0) == [("black", 0, 8)]


def test_a_camera_that_was_lost_ends_what_was_found_and_begins_anew() -> None:
    looks, shot = Looks(), filmed(ROOM)
    for second in (0, 1, 2, 3, 4, 30, 31, 32):
        looks.at(second, shot)
    assert looks.over(33) == [("frozen", 0, 5)]


def test_other_sizes_are_other_pictures() -> None:
    assert not is_same(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))


# --- real clips


def clip_looks(name: str, seconds: int) -> list[Image]:
    clock = ManualClock()
    source = ClipSource(CLIPS / name, 640, 360, 15, clock, sleep=clock.advance)
    images = []
    with source:
        for number in range(seconds * 15):
            frame = source.read(1.0)
            assert frame is not None
            if number % 15 == 0:
                images.append(frame.bgr())
    return images


@pytest.mark.parametrize("name", NAMES)
def test_real_clips_are_clear_and_live_until_somebody_spoils_them(name: str) -> None:
    """Still person, empty seat, moving person: without noise of ours, as they are and nearly in the dark."""
    images = clip_looks(name, 6)
    assert looks_at(images, noise=0) == []
    assert looks_at([dimmed(image, 0.05) for image in images], noise=1.0) == []
    assert looks_at([images[0]] * 6, noise=0) == [("frozen", 0, 6)]
    assert looks_at([covered(image) for image in images]) == [("covered", 0, 6)]
    assert looks_at([dimmed(image, 0.004) for image in images]) == [("black", 0, 6)]
    soft = [np.asarray(cv2.GaussianBlur(image, (0, 0), 640 * 0.005), np.uint8) for image in images]
    assert looks_at(soft) == [], "slightly out of focus is not covered"
