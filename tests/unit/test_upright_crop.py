"""A nearly level face is cut upright: the same part of the picture, in less time than a turned square."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from appliance.inference.landmarks import Region, cut, to_picture, upright


def picture() -> np.ndarray:
    """Smooth noise, so that half a pixel is little and ten are much."""
    rough = np.random.default_rng(4).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    return cv2.resize(rough, (640, 480), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


@pytest.mark.parametrize("degrees", [0.0, 6.9, -6.9])
def test_a_nearly_level_square_becomes_upright_on_whole_pixels(degrees: float) -> None:
    found = upright(Region(300.3, 200.7, 250.4, math.radians(degrees)))
    assert found.angle_rad == 0.0
    assert found.side == 250
    assert (found.x - found.side / 2).is_integer()
    assert abs(found.x - 300.3) <= 0.51
    assert abs(found.y - 200.7) <= 0.51


def test_a_tilted_square_stays_as_it_is() -> None:
    region = Region(300.3, 200.7, 250.4, math.radians(7.1))
    assert upright(region) is region


@pytest.mark.parametrize(("x", "y"), [(320.0, 240.0), (60.0, 240.0), (320.0, 470.0)])
def test_the_upright_crop_shows_what_a_turned_one_shows(x: float, y: float) -> None:
    """Inside the picture and over its edges; the control is a square moved by ten pixels."""
    shown = picture()
    level = upright(Region(x, y, 250.0, 0.0))
    turned = cut(shown, Region(level.x, level.y, level.side, 1e-9), 192).astype(int)
    elsewhere = cut(shown, Region(level.x + 10.0, level.y, level.side, 1e-9), 192).astype(int)
    same, other = (
        np.abs(cut(shown, level, 192).astype(int) - turned).mean(),
        np.abs(elsewhere - turned).mean(),
    )
    assert same < 4.0
    assert other > 4 * same


def test_points_of_the_crop_lie_where_they_were_seen() -> None:
    level = upright(Region(320.4, 240.2, 251.3, 0.03))
    corner = to_picture(np.array([[0.0, 0.0, 0.0], [192.0, 192.0, 0.0]], np.float32), level, 192)
    assert np.abs(corner[:, :2] - [[195.0, 115.0], [446.0, 366.0]]).max() < 0.51
