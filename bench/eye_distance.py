"""What the pixels between the eyes are worth: labelled pictures shrunk in steps, how often the gaze is too uncertain to
be used, and how far off in yaw nine of ten renders are at the most.

    python -m bench.eye_distance ../shared/data

Renders, and photos of people who look into the lens; each as large as it is or smaller, on a picture of 640 x 360.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import cv2
import numpy as np

from appliance.acceptance.looking import eye_distance_px
from appliance.inference.inspect import read_picture
from appliance.inference.models import Models, load_models
from appliance.inference.observations import MAX_GAZE_UNCERTAINTY_DEG
from appliance.inference.signals import Signals
from appliance.inference.tracker import Tracker

DISTANCES_PX = (60, 50, 40, 35, 30, 25, 20, 16)
SIZE_PX = (640, 360)
# A picture is never enlarged by more than this.
MOST_ZOOM = 1.15


def pictures(folder: Path) -> list[tuple[Path, float | None]]:
    """Renders with the yaw of their gaze, then photos labelled as looking into the lens."""
    with (folder / "renders/labels.csv").open() as rows:
        found: list[tuple[Path, float | None]] = [
            (folder / "renders/images" / row["file"], float(row["gaze_yaw_from_camera"]))
            for row in csv.DictReader(rows)
        ]
    with (folder / "labels.csv").open() as rows:
        labelled = [row for row in csv.DictReader(rows) if row["file"].startswith("images/")]
    return found + [(folder / row["file"], None) for row in labelled if row["eyes"] == "camera"]


def shrunk(image: np.ndarray, zoom: float) -> np.ndarray:
    """The picture's middle on 640 x 360, its edge drawn out where it is smaller."""
    small = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    width, height = SIZE_PX
    across, down = max(0, width - small.shape[1]), max(0, height - small.shape[0])
    whole = cv2.copyMakeBorder(
        small, down // 2, down - down // 2, across // 2, across - across // 2, cv2.BORDER_REPLICATE
    )
    top, left = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 2
    return np.ascontiguousarray(whole[top : top + height, left : left + width])


def readings(models: Models, image: np.ndarray) -> dict[int, Signals]:
    """By distance: what is read; without those at which no gaze is."""
    tracker = Tracker(models)
    tracker.process(image, 0)
    found: dict[int, Signals] = {}
    if tracker.points is None:
        return found
    for distance_px in DISTANCES_PX:
        zoom = distance_px / eye_distance_px(tracker.points)
        if zoom <= MOST_ZOOM:
            signals = Tracker(models).process(shrunk(image, zoom).astype(np.uint8), 0)
            if signals.gaze_uncertainty_deg is not None:
                found[distance_px] = signals
    return found


def main(folder: Path) -> None:
    """Print a line a distance."""
    models = load_models()
    read = [(readings(models, read_picture(file)), yaw_deg) for file, yaw_deg in pictures(folder)]
    for distance_px in DISTANCES_PX:
        told = [(of[distance_px], yaw_deg) for of, yaw_deg in read if distance_px in of]
        unsure = sum((each.gaze_uncertainty_deg or 0.0) > MAX_GAZE_UNCERTAINTY_DEG for each, _ in told)
        off_deg = [abs((each.gaze_yaw_deg or 0.0) - yaw_deg) for each, yaw_deg in told if yaw_deg is not None]
        print(
            f"{distance_px:>3} px: too uncertain in {unsure:>2} of {len(told)} pictures, {unsure / len(told):.0%};"
            f" nine of ten of {len(off_deg)} renders within {np.percentile(off_deg, 90):.1f} degrees of yaw"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
