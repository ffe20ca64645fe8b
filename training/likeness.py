"""Whether irises lie between the corners of drawn people's eyes as they do between those of people; into the lens, all.

    python -m training.likeness EYES.marks.tflite HELD_OUT HEAD.tflite ../shared/data

One network says where the marks of both lie, so that what it gets wrong of one it gets wrong of the other. True marks,
or those of another network, are no measure for it: FaceMesh sees half of how far an iris moves up or down. The photos
are no part of any training.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.inference.eye_crops import CROP_MM, CROP_PX
from appliance.inference.interpreter import Network
from appliance.inference.models import FACE_DETECTION, FACE_LANDMARK, HEAD, load
from training.dataset import as_shown, read_shards
from training.evaluate import crops_of, photos_into_lens
from training.network import MARKS
from training.train_head import with_head

Array = NDArray[np.float64]
MM_PER_PX = CROP_MM / CROP_PX[0]
# Drawn people who look into the lens as photographed ones do: heads not turned farther, lids not shut.
INTO_LENS_DEG, MOST_YAW_DEG, MOST_PITCH_DEG, LEAST_OPEN = 1.5, 35.0, 20.0, 0.6


def figures(marks_px: Array, head_deg: Array, open_by: Array) -> dict[str, Any]:
    """Of marks (N, 2, 3, 2) in crops, heads (N, 2) and how open both lids are (N, 2): millimetres at the face."""
    corners = marks_px[:, :, :2].mean(axis=2)
    off = (marks_px[:, :, 2] - corners) * MM_PER_PX
    up, aside = -off[..., 1].mean(axis=1), (off[:, 0, 0] - off[:, 1, 0]) / 2.0
    below_middle = (corners[..., 1].mean(axis=1) - (CROP_PX[1] - 1) / 2.0) * MM_PER_PX
    yaw, pitch = np.sin(np.radians(head_deg)).T
    return {
        "people": len(marks_px),
        "irises over the corners": _of(up),
        "for a head raised by sine 1": _slope(pitch, up),
        "irises aside, for a head turned by sine 1": _slope(yaw, aside),
        "corners below the middle of the crop": _of(below_middle),
        "lids, height by width": _of(open_by.mean(axis=1)),
    }


def _of(values: Array) -> dict[str, float]:
    return {"mean": round(float(values.mean()), 2), "sd": round(float(values.std()), 2)}


def _slope(by: Array, values: Array) -> dict[str, float]:
    """How `values` go with `by`, its standard error, and the spread that is left."""
    slope, at_zero = np.polyfit(by, values, 1)
    left = float((values - slope * by - at_zero).std())
    error = left / float(by.std()) / math.sqrt(len(by))
    return {"slope": round(float(slope), 1), "standard error": round(error, 1), "sd left": round(left, 2)}


def main() -> None:
    """Print one JSON object."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("marks", type=Path)
    options.add_argument("held_out", type=Path)
    options.add_argument("head", type=Path)
    options.add_argument("labelled", type=Path)
    chosen = options.parse_args()
    content = chosen.head.read_bytes()
    network = Network(chosen.marks.read_bytes(), ("Identity",), inputs=("eyes",))

    def marks(eyes: NDArray[np.float32]) -> NDArray[np.float32]:
        return network.run_tensors(eyes)[0].reshape(2, MARKS, 2)

    finders = (load(FACE_DETECTION), load(FACE_LANDMARK), Network(content, HEAD.outputs, inputs=HEAD.inputs))
    seen = [
        found for file in photos_into_lens(chosen.labelled) for found in crops_of(finders, file, up_mm=0.0)
    ]
    drawn = with_head(content, read_shards(sorted(chosen.held_out.glob("???????.npz"))))
    yaw, pitch = np.abs(drawn["read"][:, :2]).T
    alike = drawn["person"] & ~drawn["hard"] & (drawn["lid"] > LEAST_OPEN)
    alike &= (np.hypot(*drawn["gaze"].T) < INTO_LENS_DEG) & (yaw < MOST_YAW_DEG) & (pitch < MOST_PITCH_DEG)
    said = {
        "photographed": figures(
            np.array([marks(crops.eyes) for crops, _ in seen], np.float64),
            np.array([[head.yaw_deg, head.pitch_deg] for _, head in seen]),
            np.array([crops.open_by for crops, _ in seen]),
        ),
        "drawn": figures(
            np.array([marks(eyes) for eyes in as_shown(drawn["eyes"][alike])], np.float64),
            drawn["read"][alike, :2].astype(np.float64),
            drawn["open_by"][alike].astype(np.float64),
        ),
    }
    print(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()
