"""Direction of the eyes: what the eyes' network adds to the head's direction, and how unsure it is.

Pure but for the network it is handed. Says a direction, never what is looked at (F041). The network was trained on
rendered heads alone (training/README.md); on people its uncertainty is wider than on those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.inference.eye_crops import EyeCrops
from appliance.inference.head_pose import ANGLE_UNIT_DEG, HeadPose
from appliance.inference.interpreter import Network

# The network says which mean error to expect; so many times that is larger than four of five errors (held-out heads).
SPREAD_FACTOR = 1.5
# What renders do not show: real lids, lenses, cameras. Added to the network's own doubt as squares (observations.md).
PEOPLE_DEG = 5.0
# People are read so much higher than the drawn heads that the network learned from: median of 22 photos of people who
# look into the lens, in crops UP_MM higher. What is left of it is a person's own, and the session's zero.
PITCH_ZERO_DEG = 1.2
# Eyes that are all but shut show no iris, whatever the network says.
OPEN_ENOUGH = 0.12
SHUT_DEG = 30.0


@dataclass(frozen=True)
class Gaze:
    """Direction of both eyes together against the line to the camera, and its uncertainty; degrees."""

    yaw_deg: float
    pitch_deg: float
    uncertainty_deg: float


def estimate(network: Network, crops: EyeCrops, head: HeadPose) -> Gaze:
    """Where both eyes point, for a head that was measured on the same points as the crops."""
    across, up, log_deg = (
        float(each) for each in network.run_tensors(crops.eyes, pose_numbers(head, crops))[0]
    )
    return Gaze(
        head.yaw_deg + across * ANGLE_UNIT_DEG,
        head.pitch_deg + up * ANGLE_UNIT_DEG - PITCH_ZERO_DEG,
        uncertainty_deg(log_deg, min(crops.open_by)),
    )


def pose_numbers(head: HeadPose, crops: EyeCrops) -> NDArray[np.float32]:
    """What the network is told beside the crops (1, 5): head yaw, pitch and roll in its units, how open each eye is."""
    angles = (each / ANGLE_UNIT_DEG for each in (head.yaw_deg, head.pitch_deg, head.roll_deg))
    return np.array([[*angles, *crops.open_by]], np.float32)


def uncertainty_deg(log_deg: float, openness: float) -> float:
    """How far the gaze may be off: the network's doubt, what it cannot know of people, and lids that hide the iris."""
    doubt = SPREAD_FACTOR * math.exp(min(max(log_deg, 0.0), 4.0))
    return math.hypot(doubt, PEOPLE_DEG, SHUT_DEG * max(0.0, 1.0 - openness / OPEN_ENOUGH))
