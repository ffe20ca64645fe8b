"""The tracker on pictures of people.

The labelled set beside the checkout, or else the clips in build/clips.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.inference.inspect import clip_frames
from appliance.inference.landmarks import box_of_points
from appliance.inference.models import Models, load_models
from appliance.inference.tracker import Tracker

CLIPS = Path("build/clips")
FRAME_NS = 66_666_667


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models()


@pytest.fixture(scope="module")
def person() -> list[np.ndarray]:
    """Two seconds of one person, 640 x 360."""
    return [frame for _, frame in clip_frames(CLIPS / "single_face.mp4")][:30]


def empty() -> np.ndarray:
    picture = np.full((360, 640, 3), 120, np.uint8)
    cv2.putText(picture, "NOBODY", (100, 200), cv2.FONT_HERSHEY_SIMPLEX, 3, (220, 220, 220), 5)
    return picture


def test_one_person_is_followed(models: Models, person: list[np.ndarray]) -> None:
    tracker = Tracker(models)
    for number, frame in enumerate(person):
        signals = tracker.process(frame, number * FRAME_NS)
        assert (signals.faces, signals.assessable, signals.quality) == (1, True, "good")
        assert signals.head_yaw_deg == pytest.approx(0.0, abs=12.0)
        assert signals.gaze_yaw_deg == pytest.approx(0.0, abs=15.0)
        assert signals.gaze_uncertainty_deg is not None
        assert signals.gaze_uncertainty_deg > 0.0


def test_detector_runs_twice_a_second_and_points_on_every_frame(
    models: Models, person: list[np.ndarray]
) -> None:
    tracker = Tracker(models, detector_interval_s=0.5)
    before = (models.detector.invocations, models.landmarks.invocations)
    for number, frame in enumerate(person):
        tracker.process(frame, number * FRAME_NS)
    assert models.detector.invocations - before[0] == 4
    # One more at the start: a new face is read twice, the second time on the points' own square.
    assert models.landmarks.invocations - before[1] == len(person) + 1


def test_loss_is_looked_into_on_the_same_frame(models: Models, person: list[np.ndarray]) -> None:
    tracker = Tracker(models)
    assert tracker.process(person[0], 0).faces == 1
    before = models.detector.invocations
    gone = tracker.process(empty(), FRAME_NS)
    assert models.detector.invocations == before + 1
    assert (gone.faces, gone.assessable, gone.head_yaw_deg, gone.gaze_yaw_deg) == (0, True, None, None)


def test_person_who_comes_back_is_found_within_the_interval(models: Models, person: list[np.ndarray]) -> None:
    tracker = Tracker(models, detector_interval_s=0.2)
    assert tracker.process(empty(), 0).faces == 0
    seen = [tracker.process(person[0], number * FRAME_NS).faces for number in range(1, 5)]
    assert seen[-1] == 1


def test_two_people_are_two(models: Models, person: list[np.ndarray]) -> None:
    """F043: the same face twice in one picture, side by side."""
    pair = np.concatenate([person[0], person[0]], axis=1)
    assert Tracker(models).process(pair, 0).faces == 2


def test_mirrored_picture_mirrors_yaw(models: Models, person: list[np.ndarray]) -> None:
    straight = Tracker(models).process(person[0], 0)
    mirrored = Tracker(models).process(np.ascontiguousarray(person[0][:, ::-1]), 0)
    for name in ("head_yaw_deg", "head_roll_deg", "gaze_yaw_deg"):
        assert getattr(mirrored, name) == pytest.approx(-getattr(straight, name), abs=4.0)
    assert mirrored.head_pitch_deg == pytest.approx(straight.head_pitch_deg, abs=4.0)


def test_picture_turned_clockwise_has_positive_roll(models: Models, person: list[np.ndarray]) -> None:
    turn = cv2.getRotationMatrix2D((320, 180), -15, 1.0)
    straight = Tracker(models).process(person[0], 0)
    turned = Tracker(models).process(cv2.warpAffine(person[0], turn, (640, 360)), 0)
    assert turned.head_roll_deg - straight.head_roll_deg == pytest.approx(15.0, abs=3.0)


def test_dark_room_is_unassessable(models: Models, person: list[np.ndarray]) -> None:
    """F041: whatever is still found in the dark, the frame counts neither way."""
    signals = Tracker(models).process((person[0] * 0.1).astype(np.uint8), 0)
    assert (signals.assessable, signals.quality) == (False, "dark")


@pytest.mark.parametrize("times", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(("face_light", "other_light", "quality"), [(1.0, 0.05, "good"), (0.1, 1.0, "dark")])
def test_the_faces_light_counts_in_pictures_of_any_size(
    models: Models,
    person: list[np.ndarray],
    times: float,
    face_light: float,
    other_light: float,
    quality: str,
) -> None:
    """A face in pixels of the picture, wherever the detector and the judge of the light look at a smaller one."""
    picture = cv2.resize(person[0], None, fx=times, fy=times, interpolation=cv2.INTER_AREA)
    tracker = Tracker(models)
    assert tracker.process(picture, 0).faces == 1
    assert tracker.points is not None
    left, top, right, bottom = (int(edge) for edge in box_of_points(tracker.points))
    light = np.full((*picture.shape[:2], 1), other_light)
    light[top:bottom, left:right] = face_light
    assert tracker.process((picture * light).astype(np.uint8), 10**9).quality == quality


def test_without_the_eyes_model_there_is_no_gaze(person: list[np.ndarray]) -> None:
    """F042: gaze off, face on."""
    signals = Tracker(load_models(gaze=False)).process(person[0], 0)
    assert signals.faces == 1
    assert signals.head_yaw_deg is not None
    assert (signals.gaze_yaw_deg, signals.gaze_pitch_deg, signals.gaze_uncertainty_deg) == (None, None, None)


def test_clock_that_went_back_makes_it_look_again(models: Models, person: list[np.ndarray]) -> None:
    tracker = Tracker(models)
    tracker.process(empty(), 10 * 10**9)
    assert tracker.process(person[0], 0).faces == 1


def test_tiny_picture_is_read_without_failing(models: Models) -> None:
    assert Tracker(models).process(np.zeros((2, 3, 3), np.uint8), 0).faces == 0
