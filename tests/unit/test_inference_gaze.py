"""What becomes of the eyes' network's numbers: added to the head's, and never surer than is known of people."""

import math

import numpy as np
import pytest

from appliance.inference import gaze
from appliance.inference.eye_crops import ANGLE_UNIT_DEG, cut_eyes
from tests.unit.test_eye_crops import face_with_eyes
from tests.unit.test_inference_geometry import HEIGHT, WIDTH, pose, turned


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
