"""Signs and sizes of angles, on faces whose direction is known because the test turned them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.inference import head_pose
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
