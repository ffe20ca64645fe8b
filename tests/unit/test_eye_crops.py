"""What the eyes' network is shown: crops that are level, to scale and mirrored, whatever the light."""

import math

import cv2
import numpy as np
import pytest

from appliance.inference.eye_crops import CORNERS, CROP_MM, CROP_PX, LIDS, UP_MM, cut_eyes
from tests.average_face import HEIGHT, WIDTH, pixels_per_mm, seen, turned


def face_with_eyes(turn: np.ndarray, openness: float = 0.3) -> np.ndarray:
    """The average face with lids that are so far open."""
    points = seen(turn)
    for (outer, inner), (upper, lower) in zip(CORNERS, LIDS, strict=True):
        across = points[inner, :2] - points[outer, :2]
        upright = np.array([across[1], -across[0]]) * openness / 2
        points[upper, :2] = (points[outer, :2] + points[inner, :2]) / 2 + upright
        points[lower, :2] = (points[outer, :2] + points[inner, :2]) / 2 - upright
    return points


@pytest.mark.parametrize("up_mm", [0.0, UP_MM])
@pytest.mark.parametrize("roll_deg", [0, 25])
@pytest.mark.parametrize("side", [0, 1])
def test_eyes_are_cut_level_to_scale_and_mirrored(side: int, roll_deg: int, up_mm: float) -> None:
    """A dot 8 mm outward and 5 mm above an eye's middle comes out at the same place of both crops, lower by how far
    these lie higher."""
    points = face_with_eyes(turned(0, 0, roll_deg))
    scale = pixels_per_mm(points)
    outer, inner = CORNERS[side]
    outward = (points[outer, :2] - points[inner, :2]) / np.linalg.norm(points[outer, :2] - points[inner, :2])
    roll = math.radians(roll_deg)
    up = np.array([math.sin(roll), -math.cos(roll)])
    dot = (points[outer, :2] + points[inner, :2]) / 2 + (outward * 8 + up * 5) * scale
    frame = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    cv2.circle(frame, (round(float(dot[0])), round(float(dot[1]))), 2, (250, 250, 250), -1)
    crops = cut_eyes(frame, points, scale, up_mm)
    assert crops is not None
    assert crops.eyes.shape == (2, CROP_PX[1], CROP_PX[0], 1)
    eye = crops.eyes[side, :, :, 0]
    row, column = np.argwhere(eye > (eye.max() + eye.min()) / 2).mean(axis=0)
    per_mm = CROP_PX[0] / CROP_MM
    assert column == pytest.approx((CROP_PX[0] - 1) / 2 - 8 * per_mm, abs=1.0)
    assert row == pytest.approx((CROP_PX[1] - 1) / 2 - (5 - up_mm) * per_mm, abs=1.0)
    assert float(np.ptp(crops.eyes[1 - side])) == 0.0, "the other eye has no dot"


def test_light_and_contrast_of_a_crop_do_not_matter() -> None:
    points = face_with_eyes(turned(5, 0, 0))
    grain = np.random.default_rng(1).integers(60, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    frame = cv2.GaussianBlur(grain, (0, 0), 2).astype(np.uint8)
    scale = pixels_per_mm(points)
    bright, dim = (cut_eyes(np.asarray(each, np.uint8), points, scale) for each in (frame, frame // 2))
    assert bright is not None
    assert dim is not None
    assert np.abs(bright.eyes - dim.eyes).mean() < 0.3


@pytest.mark.parametrize("openness", [0.05, 0.2])
def test_how_far_the_lids_are_open(openness: float) -> None:
    points = face_with_eyes(turned(30, -15, 6), openness)
    crops = cut_eyes(np.zeros((HEIGHT, WIDTH, 3), np.uint8), points, pixels_per_mm(points))
    assert crops is not None
    assert crops.open_by == pytest.approx([openness, openness], abs=0.01)


def test_eyes_without_extent_are_not_cut() -> None:
    points = face_with_eyes(turned(0, 0, 0))
    points[133] = points[33]
    assert cut_eyes(np.zeros((HEIGHT, WIDTH, 3), np.uint8), points, 1.2) is None
