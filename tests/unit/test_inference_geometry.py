"""Where a crop lies in the picture, and how it is turned."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.inference.landmarks import Region, cut, region_of_points, to_picture
from tests.average_face import seen, turned


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
