"""Signs and sizes of angles, on faces whose direction is known because the test turned them."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.inference import gaze, head_pose
from appliance.inference.eye_crops import (
    ANGLE_UNIT_DEG,
    CORNERS,
    CROP_MM,
    CROP_PX,
    LIDS,
    cut_eyes,
)
from appliance.inference.head_pose import FACE_INDEX, FACE_MM, FOCAL_WIDTHS, PITCH_ZERO_DEG, HeadPose
from appliance.inference.landmarks import Region, cut, region_of_points, to_picture

WIDTH, HEIGHT = 640, 480


def turned(yaw_deg: float, pitch_deg: float, roll_deg: float) -> np.ndarray:
    """Rotation that turns a face toward the image's right, up, and clockwise."""
    yaw, pitch, roll = (math.radians(angle) for angle in (yaw_deg, pitch_deg, roll_deg))
    about_y = np.array([[math.cos(yaw), 0, -math.sin(yaw)], [0, 1, 0], [math.sin(yaw), 0, math.cos(yaw)]])
    about_x = np.array(
        [[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]]
    )
    about_z = np.array([[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def seen(turn: np.ndarray, place_mm: tuple[float, float, float] = (0.0, 0.0, 600.0)) -> np.ndarray:
    """The 468 points of the average face, turned, as the pinhole camera sees it."""
    at = FACE_MM @ turn.T + np.array(place_mm)
    points = np.zeros((468, 3), np.float32)
    points[FACE_INDEX, 0] = FOCAL_WIDTHS * WIDTH * at[:, 0] / at[:, 2] + WIDTH / 2
    points[FACE_INDEX, 1] = FOCAL_WIDTHS * WIDTH * at[:, 1] / at[:, 2] + HEIGHT / 2
    return points


def pose(points: np.ndarray) -> HeadPose:
    found = head_pose.estimate(points, WIDTH, HEIGHT)
    assert found is not None
    return found


@settings(max_examples=60, deadline=None)
@given(st.floats(-60, 60), st.floats(-40, 40), st.floats(-40, 40))
def test_head_angles_are_the_cameras(yaw: float, pitch: float, roll: float) -> None:
    found = pose(seen(turned(yaw, pitch, roll)))
    assert found.yaw_deg == pytest.approx(yaw, abs=0.2)
    assert found.pitch_deg - PITCH_ZERO_DEG == pytest.approx(pitch, abs=0.2)
    assert found.roll_deg == pytest.approx(roll, abs=0.2)


def test_face_beside_the_middle_that_faces_the_camera_reads_zero() -> None:
    """Where somebody sits in the picture is no direction of the head."""
    place = (150.0, -80.0, 600.0)
    toward_camera = turned(
        -math.degrees(math.atan2(place[0], place[2])),
        -math.degrees(math.atan2(-place[1], math.hypot(place[0], place[2]))),
        0.0,
    )
    found = pose(seen(toward_camera, place))
    assert found.yaw_deg == pytest.approx(0.0, abs=0.3)
    assert found.pitch_deg - PITCH_ZERO_DEG == pytest.approx(0.0, abs=0.3)


def test_points_without_extent_are_no_face() -> None:
    assert head_pose.estimate(np.zeros((468, 3), np.float32), WIDTH, HEIGHT) is None
    assert head_pose.estimate(np.full((468, 3), np.nan, np.float32), WIDTH, HEIGHT) is None


def face_with_eyes(turn: np.ndarray, openness: float = 0.3) -> np.ndarray:
    """The average face with lids that are so far open."""
    points = seen(turn)
    for (outer, inner), (upper, lower) in zip(CORNERS, LIDS, strict=True):
        across = points[inner, :2] - points[outer, :2]
        upright = np.array([across[1], -across[0]]) * openness / 2
        points[upper, :2] = (points[outer, :2] + points[inner, :2]) / 2 + upright
        points[lower, :2] = (points[outer, :2] + points[inner, :2]) / 2 - upright
    return points


@pytest.mark.parametrize("roll_deg", [0, 25])
@pytest.mark.parametrize("side", [0, 1])
def test_eyes_are_cut_level_to_scale_and_mirrored(side: int, roll_deg: int) -> None:
    """A dot 8 mm outward and 5 mm above an eye's middle comes out at the same place of both crops."""
    points = face_with_eyes(turned(0, 0, roll_deg))
    head = pose(points)
    outer, inner = CORNERS[side]
    outward = (points[outer, :2] - points[inner, :2]) / np.linalg.norm(points[outer, :2] - points[inner, :2])
    roll = math.radians(roll_deg)
    up = np.array([math.sin(roll), -math.cos(roll)])
    dot = (points[outer, :2] + points[inner, :2]) / 2 + (outward * 8 + up * 5) * head.pixels_per_mm
    frame = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    cv2.circle(frame, (round(float(dot[0])), round(float(dot[1]))), 2, (250, 250, 250), -1)
    crops = cut_eyes(frame, points, head)
    assert crops is not None
    assert crops.eyes.shape == (2, CROP_PX[1], CROP_PX[0], 1)
    row, column = np.unravel_index(int(crops.eyes[side].argmax()), (CROP_PX[1], CROP_PX[0]))
    per_mm = CROP_PX[0] / CROP_MM
    assert column == pytest.approx(CROP_PX[0] / 2 - 8 * per_mm, abs=2.5)
    assert row == pytest.approx(CROP_PX[1] / 2 - 5 * per_mm, abs=2.5)
    assert float(np.ptp(crops.eyes[1 - side])) == 0.0, "the other eye has no dot"


def test_light_and_contrast_of_a_crop_do_not_matter() -> None:
    points = face_with_eyes(turned(5, 0, 0))
    grain = np.random.default_rng(1).integers(60, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    frame = cv2.GaussianBlur(grain, (0, 0), 2).astype(np.uint8)
    bright, dim = (cut_eyes(np.asarray(each, np.uint8), points, pose(points)) for each in (frame, frame // 2))
    assert bright is not None
    assert dim is not None
    assert np.abs(bright.eyes - dim.eyes).mean() < 0.3
    assert bright.pose == pytest.approx(dim.pose)


def test_the_pose_that_goes_with_the_crops() -> None:
    points = face_with_eyes(turned(30, -15, 6), openness=0.2)
    head = pose(points)
    crops = cut_eyes(np.zeros((HEIGHT, WIDTH, 3), np.uint8), points, head)
    assert crops is not None
    angles = [head.yaw_deg, head.pitch_deg, head.roll_deg]
    assert crops.pose[:3] * ANGLE_UNIT_DEG == pytest.approx(angles, abs=1e-3)
    assert crops.pose[3:] == pytest.approx([0.2, 0.2], abs=0.01)
    assert crops.openness == pytest.approx(0.2, abs=0.01)


def test_eyes_without_extent_are_not_cut() -> None:
    points = face_with_eyes(turned(0, 0, 0))
    points[133] = points[33]
    assert cut_eyes(np.zeros((HEIGHT, WIDTH, 3), np.uint8), points, pose(seen(turned(0, 0, 0)))) is None


class Says:
    """Stands for the network: what it adds to the head, in its own units."""

    def __init__(self, *numbers: float) -> None:
        self._numbers = numbers

    def run_tensors(self, *_tensors: np.ndarray) -> list[np.ndarray]:
        return [np.array(self._numbers, np.float32)]


def test_the_network_s_angles_are_added_to_the_head_s_with_people_s_own_zero() -> None:
    points = face_with_eyes(turned(30, -15, 6))
    head = pose(points)
    crops = cut_eyes(np.zeros((HEIGHT, WIDTH, 3), np.uint8), points, head)
    assert crops is not None
    look = gaze.estimate(Says(-0.5, 0.25, math.log(4.0)), crops, head)  # type: ignore[arg-type]
    assert look.yaw_deg == pytest.approx(head.yaw_deg - 0.5 * ANGLE_UNIT_DEG)
    assert look.pitch_deg == pytest.approx(head.pitch_deg + 0.25 * ANGLE_UNIT_DEG - gaze.PITCH_ZERO_DEG)
    assert look.uncertainty_deg == pytest.approx(gaze.uncertainty_deg(math.log(4.0), crops.openness))


def test_what_makes_gaze_worse_makes_it_unsurer() -> None:
    """And nothing that a network says makes it surer than what is known of people."""
    plain = gaze.uncertainty_deg(math.log(3.0), 0.3)
    assert gaze.uncertainty_deg(math.log(9.0), 0.3) > plain
    assert gaze.uncertainty_deg(math.log(3.0), 0.02) > 16.0
    assert gaze.uncertainty_deg(-40.0, 0.3) >= gaze.PEOPLE_DEG
    assert gaze.uncertainty_deg(math.inf, 0.3) > 16.0


@settings(max_examples=40, deadline=None)
@given(st.floats(100, 500), st.floats(100, 400), st.floats(50, 300), st.floats(-3.1, 3.1))
def test_points_of_a_crop_go_back_to_the_picture(x: float, y: float, side: float, angle: float) -> None:
    region = Region(x, y, side, angle)
    middle_and_right = np.array([[96, 96, 0], [192, 96, 19.2]], np.float32)
    back = to_picture(middle_and_right, region, 192)
    assert back[0, :2] == pytest.approx((x, y), abs=0.01)
    assert back[1, :2] == pytest.approx(
        (x + side / 2 * math.cos(angle), y + side / 2 * math.sin(angle)), abs=0.01
    )
    assert back[1, 2] == pytest.approx(side / 10, rel=1e-4)


def test_crop_of_a_turned_region_is_upright() -> None:
    """A bright dot on the region's own right side comes out at the crop's right."""
    picture = np.zeros((200, 200, 3), np.uint8)
    picture[128:133, 98:103] = 255
    crop = cut(picture, Region(100, 100, 100, math.pi / 2), 50)
    row, column = np.unravel_index(int(crop[:, :, 0].argmax()), (50, 50))
    assert column == pytest.approx(40, abs=2)
    assert row == pytest.approx(25, abs=2)


def test_square_round_points_follows_the_roll() -> None:
    region = region_of_points(seen(turned(0, 0, 20)))
    assert math.degrees(region.angle_rad) == pytest.approx(20, abs=1)
