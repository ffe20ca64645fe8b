"""What the head's network says of drawn heads whose direction is known: sides, sizes, no pull toward straight ahead."""

from __future__ import annotations

import numpy as np
import pytest

from appliance.inference.inspect import read_picture
from appliance.inference.labelled import read_labels
from appliance.inference.models import load_models
from appliance.inference.tracker import Tracker
from tests.renders.table import FOLDER


@pytest.fixture(scope="module")
def readings() -> np.ndarray:
    """(N, 2, 2): true and read, yaw and pitch in degrees, of the renders in good light."""
    models, found = load_models(gaze=False), []
    for picture in read_labels(FOLDER).pictures:
        if picture.values["light"] != "good":
            continue
        signals = Tracker(models).process(read_picture(FOLDER / picture.file), 0)
        true = [picture.head_yaw_deg, picture.head_pitch_deg]
        if signals.head_yaw_deg is not None and signals.head_pitch_deg is not None:
            found.append([true, [signals.head_yaw_deg, signals.head_pitch_deg]])
    return np.array(found)


def test_heads_are_turned_to_the_side_that_is_said(readings: np.ndarray) -> None:
    true, read = readings[:, 0, 0], readings[:, 1, 0]
    aside = np.abs(true) > 8.0
    assert aside.sum() > 10
    assert (np.sign(true[aside]) == np.sign(read[aside])).all()
    assert float(np.abs(read - true).mean()) < 3.0


@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_read_grows_as_the_truth_does(readings: np.ndarray, axis: int) -> None:
    """The points alone are drawn toward a face that looks ahead: of a pitch they showed two thirds (0.67)."""
    slope = np.polyfit(readings[:, 0, axis], readings[:, 1, axis], 1)[0]
    assert 0.85 < slope < 1.15
