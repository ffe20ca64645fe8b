"""What the head's network is shown, the same for any place, size and roll of a face; and what becomes of its words."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.inference.head_pose import (
    ANGLE_UNIT_DEG,
    FACE_MM,
    FACE_PX,
    FACE_UP_MM,
    MIRRORED,
    PITCH_ZERO_DEG,
    RIGID,
    RIGID_MM,
    Shape,
    cut_face,
    estimate,
    shape_of,
)
from appliance.inference.landmarks import Landmarks, Region
from tests.average_face import FOCAL_PX, seen, turned
from tests.unit.test_inference_gaze import Says

SIDE = 192


def shape(points: np.ndarray) -> Shape:
    found = shape_of(points)
    assert found is not None
    return found


def region_of(points: np.ndarray) -> Region:
    """An upright square about the face."""
    rigid = points[RIGID, :2]
    x, y = rigid.mean(axis=0).tolist()
    return Region(x, y, 2.0 * float(np.ptp(rigid, axis=0).max()), 0.0)


def in_crop(points: np.ndarray) -> np.ndarray:
    """The points in that square, drawn with SIDE pixels."""
    region = region_of(points)
    out = points * np.float32(SIDE / region.side)
    out[:, :2] += SIDE / 2 - np.array([region.x, region.y]) * SIDE / region.side
    return np.asarray(out, np.float32)


@settings(max_examples=60, deadline=None)
@given(st.floats(-30, 30), st.floats(-20, 20), st.floats(-60, 60), st.floats(0.2, 4.0), st.floats(-300, 300))
def test_shape_is_the_same_for_any_place_size_and_roll(
    yaw: float, pitch: float, roll: float, size: float, place: float
) -> None:
    face = seen(turned(yaw, pitch, 0))
    one = shape(face)
    cos, sin = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    about = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    other = shape((face @ about * size + [place, -place, 0]).astype(np.float32))
    assert other.points == pytest.approx(one.points, abs=2e-3)
    assert math.degrees(other.angle_rad - one.angle_rad) == pytest.approx(roll, abs=0.1)
    assert other.size_px == pytest.approx(one.size_px * size, rel=1e-3)


def test_shape_tells_how_a_face_is_turned() -> None:
    """Control of the one above: what must not be taken away."""
    straight = shape(seen(turned(0, 0, 0))).points
    for turn in (turned(15, 0, 0), turned(0, 15, 0)):
        assert float(np.abs(shape(seen(turn)).points - straight).max()) > 0.1


def test_points_without_extent_are_no_face() -> None:
    assert shape_of(np.zeros((468, 3), np.float32)) is None
    assert shape_of(np.full((468, 3), np.nan, np.float32)) is None


def test_in_a_mirror_left_and_right_are_exchanged() -> None:
    straight = shape(seen(turned(0, 0, 0))).points
    assert straight[MIRRORED] * [-1, 1, 1] == pytest.approx(straight, abs=1e-3)
    aside = shape(seen(turned(20, 5, 0))).points
    assert aside[MIRRORED] * [-1, 1, 1] == pytest.approx(shape(seen(turned(-20, 5, 0))).points, abs=1e-3)


@pytest.mark.parametrize("roll_deg", [0, 25])
def test_the_upper_face_is_cut_level_and_to_scale(roll_deg: int) -> None:
    """A dot 30 mm to the right of the middle of the points and 20 mm above it comes out at its own place."""
    points = in_crop(seen(turned(0, 0, roll_deg)))
    found = shape(points)
    roll = math.radians(roll_deg)
    along, up = np.array([math.cos(roll), math.sin(roll)]), np.array([math.sin(roll), -math.cos(roll)])
    x, y = (found.middle + (along * 30 + up * 20) * found.size_px / RIGID_MM).tolist()
    crop = np.full((SIDE, SIDE, 3), 100, np.uint8)
    cv2.circle(crop, (round(x), round(y)), 2, (250, 250, 250), -1)
    face = cut_face(crop, found)
    assert face.shape == (FACE_PX[1], FACE_PX[0], 1)
    row, column = np.unravel_index(int(face.argmax()), (FACE_PX[1], FACE_PX[0]))
    per_mm = FACE_PX[0] / FACE_MM
    assert column == pytest.approx((FACE_PX[0] - 1) / 2 + 30 * per_mm, abs=1.2)
    assert row == pytest.approx((FACE_PX[1] - 1) / 2 - (20 - FACE_UP_MM) * per_mm, abs=1.2)


def test_light_and_contrast_of_the_picture_do_not_matter() -> None:
    patches = np.random.default_rng(1).integers(60, 200, (12, 12, 3), dtype=np.uint8)
    crop = np.asarray(cv2.resize(patches, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)
    found = shape(in_crop(seen(turned(0, 0, 0))))
    bright, dim = cut_face(crop, found), cut_face(crop // 2, found)
    assert np.abs(bright - dim).mean() < 0.3 < np.abs(bright).mean()


def test_what_the_network_says_becomes_a_pose() -> None:
    points = seen(turned(0, 0, 20))
    crop = np.zeros((SIDE, SIDE, 3), np.uint8)
    network = Says(0.5, -0.25, 0.1)
    found = Landmarks(points, 1.0, region_of(points), crop, in_crop(points))
    pose = estimate(network, found)  # type: ignore[arg-type]
    assert pose is not None
    assert pose.yaw_deg == pytest.approx(0.5 * ANGLE_UNIT_DEG)
    assert pose.pitch_deg == pytest.approx(-0.25 * ANGLE_UNIT_DEG - PITCH_ZERO_DEG)
    assert pose.roll_deg == pytest.approx(20 + 0.1 * ANGLE_UNIT_DEG, abs=0.2)
    assert pose.pixels_per_mm == pytest.approx(FOCAL_PX / 600, rel=0.03)
    assert [part.shape for part in network.told] == [(1, 48, 64, 1), (1, 138)]
    empty = np.zeros((468, 3), np.float32)
    assert estimate(network, replace(found, in_crop=empty)) is None  # type: ignore[arg-type]
    turned_square = replace(found, region=replace(found.region, angle_rad=math.radians(9)))
    again = estimate(network, turned_square)  # type: ignore[arg-type]
    assert again is not None
    assert again.roll_deg == pytest.approx(pose.roll_deg + 9)
