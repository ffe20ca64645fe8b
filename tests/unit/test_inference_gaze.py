"""What becomes of the eyes' network's numbers: added to the head's, and never surer than is known of people."""

import math

import numpy as np
import pytest

from appliance.inference import gaze
from appliance.inference.eye_crops import cut_eyes
from appliance.inference.head_pose import ANGLE_UNIT_DEG
from tests.average_face import HEIGHT, WIDTH, head, turned
from tests.unit.test_eye_crops import face_with_eyes


class Says:
    """Stands for the network: what it adds to the head, in its own units; `told` is what it was shown."""

    def __init__(self, *numbers: float) -> None:
        self._numbers = numbers
        self.told: tuple[np.ndarray, ...] = ()

    def run_tensors(self, *tensors: np.ndarray) -> list[np.ndarray]:
        self.told = tensors
        return [np.array(self._numbers, np.float32)]


def test_the_network_s_angles_are_added_to_the_head_s_with_people_s_own_zero() -> None:
    points = face_with_eyes(turned(30, -15, 6))
    turn = head(30, -15, 6, points)
    crops = cut_eyes(np.zeros((HEIGHT, WIDTH, 3), np.uint8), points, turn.pixels_per_mm)
    assert crops is not None
    network = Says(-0.5, 0.25, math.log(4.0))
    look = gaze.estimate(network, crops, turn)  # type: ignore[arg-type]
    assert look.yaw_deg == pytest.approx(30 - 0.5 * ANGLE_UNIT_DEG)
    assert look.pitch_deg == pytest.approx(-15 + 0.25 * ANGLE_UNIT_DEG - gaze.PITCH_ZERO_DEG)
    assert look.uncertainty_deg == pytest.approx(gaze.uncertainty_deg(math.log(4.0), min(crops.open_by)))
    eyes, pose = network.told
    assert eyes is crops.eyes
    assert pose.shape == (1, 5)
    assert pose[0] == pytest.approx([1.0, -0.5, 0.2, *crops.open_by])


def test_what_makes_gaze_worse_makes_it_unsurer() -> None:
    """And nothing that a network says makes it surer than what is known of people."""
    plain = gaze.uncertainty_deg(math.log(3.0), 0.3)
    assert gaze.uncertainty_deg(math.log(9.0), 0.3) > plain
    assert gaze.uncertainty_deg(math.log(3.0), 0.02) > 16.0
    assert gaze.uncertainty_deg(-40.0, 0.3) >= gaze.PEOPLE_DEG
    assert gaze.uncertainty_deg(math.inf, 0.3) > 16.0
