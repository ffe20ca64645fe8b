"""Whether drawn eyes lie between their corners as people's do.

    python -m training.corners HELD_OUT HEAD.tflite ../shared/data

Four numbers (where the ball's middle lies from the middle of the corners, and how far the iris from it) are fitted on
drawn heads, whose marks and gaze are known. With FaceMesh's points of people who look into the lens they must make a
direction into the lens: nothing is learned of lids or skin, so what is off is the drawn heads' anatomy or the points.
Needs `make build/face-mesh/.ready`. The photos are no part of any training.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance import picture_quality
from appliance.inference import head_pose
from appliance.inference.eye_crops import CROP_MM, CROP_PX
from appliance.inference.face import find_faces
from appliance.inference.inspect import read_picture
from appliance.inference.interpreter import Network
from appliance.inference.landmarks import (
    box_of_points,
    find_landmarks,
    region_of_face,
    region_of_points,
)
from appliance.inference.models import FACE_DETECTION, FACE_LANDMARK, HEAD, load
from training.dataset import read_shards
from training.evaluate import angle_deg, photos_into_lens
from training.samples import in_crops
from training.train_head import with_head

Array = NDArray[np.float64]
PEER = Path("build/face-mesh/bin/python")
MM_PER_PX = CROP_MM / CROP_PX[0]
# Aside, up and ahead of the ball's middle lie the corners; so far from it the iris (mm): where the fit begins.
FIRST_MM = (1.0, -1.0, 6.0, 11.0)
STEPS = 30
# Errors beyond this count less; heads turned farther hide a corner.
OUTLIER_DEG, MOST_TURNED_DEG = 4.0, 35.0


def iris_from_corners_mm(marks: NDArray[Any]) -> Array:
    """Marks (N, 2, 3, 2) in pixels of crops as millimetres right and up of the corners' middle: (N, 2, 2)."""
    off = (marks[:, :, 2] - marks[:, :, :2].mean(axis=2)).astype(np.float64) * MM_PER_PX
    off[..., 1] *= -1.0
    off[:, 1, 0] *= -1.0
    return off


def gaze_deg(anatomy_mm: Array, off_mm: Array, head_deg: Array) -> Array:
    """Yaw and pitch (N, 2) of both eyes together, the nearer one counting more."""
    aside, up, ahead, radius = anatomy_mm
    yaw, pitch = np.radians(head_deg).T
    of_each = []
    for side, outward in enumerate((aside, -aside)):
        right = outward * np.cos(yaw) + (ahead * np.cos(pitch) - up * np.sin(pitch)) * np.sin(yaw)
        above = up * np.cos(pitch) + ahead * np.sin(pitch)
        gaze_pitch = np.arcsin(np.clip((off_mm[:, side, 1] + above) / radius, -0.9, 0.9))
        sideways = (off_mm[:, side, 0] + right) / radius / np.cos(gaze_pitch)
        of_each.append(np.degrees([np.arcsin(np.clip(sideways, -0.95, 0.95)), gaze_pitch]).T)
    shown = np.maximum(np.stack([np.cos(yaw) + np.sin(yaw), np.cos(yaw) - np.sin(yaw)]), 0.1)
    left, right = (shown / shown.sum(axis=0))[..., None]
    return np.asarray(left * of_each[0] + right * of_each[1])


def fitted(off_mm: Array, head_deg: Array, true_deg: Array) -> Array:
    """The four numbers that read drawn heads best (Gauss and Newton, outliers counting less)."""
    numbers, nudge = np.array(FIRST_MM), 1e-3
    for _ in range(STEPS):
        left = (gaze_deg(numbers, off_mm, head_deg) - true_deg).ravel()
        slopes = np.stack(
            [
                ((gaze_deg(numbers + nudge * one, off_mm, head_deg) - true_deg).ravel() - left) / nudge
                for one in np.eye(4)
            ],
            axis=1,
        )
        weight = 1.0 / np.sqrt(1.0 + (left / OUTLIER_DEG) ** 2)
        weighed = slopes * weight[:, None]
        numbers = numbers - np.linalg.solve(weighed.T @ slopes, weighed.T @ left)
    return numbers


def people(head: Network, files: list[Path]) -> tuple[Array, Array]:
    """The peer's marks (N, 2, 3, 2) in our crops of people, and how we read their heads (N, 2)."""
    detector, landmarks = load(FACE_DETECTION), load(FACE_LANDMARK)
    marks, heads = [], []
    if not PEER.exists():
        raise SystemExit(f"{PEER} is not there: make build/face-mesh/.ready")
    command = [str(PEER), str(Path(__file__).with_name("face_mesh_points.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as peer:
        if peer.stdin is None or peer.stdout is None:
            raise SystemExit("the peer has no pipes")
        for file in files:
            picture = read_picture(file)
            small = picture_quality.small(picture)
            faces = find_faces(detector, small, picture.shape[1] / small.shape[1])
            if not faces:
                continue
            rough = find_landmarks(landmarks, picture, region_of_face(faces[0]))
            found = find_landmarks(landmarks, picture, region_of_points(rough.points))
            pose = head_pose.estimate(head, found)
            left, top, right, bottom = box_of_points(found.points)
            reach = max(right - left, bottom - top)
            x, y = (left + right) / 2.0, (top + bottom) / 2.0
            square = [max(0, math.floor(each)) for each in (x - reach, y - reach, x + reach, y + reach)]
            peer.stdin.write(json.dumps({"file": str(file), "square": square}) + "\n")
            peer.stdin.flush()
            seen = json.loads(peer.stdout.readline())
            if pose is not None and seen is not None:
                marks.append(in_crops(np.array(seen), found.points, pose.pixels_per_mm))
                heads.append([pose.yaw_deg, pose.pitch_deg])
        peer.stdin.close()
    return np.array(marks, np.float64), np.array(heads)


def main() -> None:
    """Print one JSON object."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("held_out", type=Path)
    options.add_argument("head", type=Path)
    options.add_argument("labelled", type=Path)
    chosen = options.parse_args()
    content = chosen.head.read_bytes()
    drawn = with_head(content, read_shards(sorted(chosen.held_out.glob("???????.npz"))))
    plain = drawn["person"] & ~drawn["hard"] & (drawn["lid"] > 0.6)
    plain &= np.abs(drawn["read"][:, 0]) < MOST_TURNED_DEG
    head_deg, true_deg = drawn["read"][plain, :2].astype(np.float64), drawn["gaze"][plain].astype(np.float64)
    off_mm = iris_from_corners_mm(drawn["marks"][plain])
    anatomy_mm = fitted(off_mm, head_deg, true_deg)
    network = Network(content, HEAD.outputs, inputs=HEAD.inputs)
    marks, heads = people(network, photos_into_lens(chosen.labelled))
    read = gaze_deg(anatomy_mm, iris_from_corners_mm(marks), heads)
    pitch = float(np.median(read[:, 1]))
    off = angle_deg(read - [0.0, pitch], np.zeros_like(read))
    print(
        json.dumps(
            {
                "corners aside, up, ahead of the ball's middle, iris from it, mm": anatomy_mm.round(
                    2
                ).tolist(),
                "drawn heads": len(true_deg),
                "drawn heads, mean": round(
                    float(angle_deg(gaze_deg(anatomy_mm, off_mm, head_deg), true_deg).mean()), 2
                ),
                "photos into the lens": len(read),
                "yaw within 10": int((np.abs(read[:, 0]) < 10).sum()),
                "yaw sd": round(float(read[:, 0].std()), 2),
                "pitch median, sd": [round(pitch, 2), round(float(read[:, 1].std()), 2)],
                "within 10, 15 after one pitch constant": [
                    round(float((off < limit).mean()), 3) for limit in (10, 15)
                ],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
