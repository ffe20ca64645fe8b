"""How far the eyes' network is off: held-out identities of our own generator, labelled renders, photos into the lens.

`python -m training.evaluate MODEL.tflite HELD_OUT [LABELLED]`; LABELLED is a folder like ../shared/data. Renders of one
generator are not people: every figure says on what it was measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from appliance.inference import head_pose
from appliance.inference.eye_crops import ANGLE_UNIT_DEG, EyeCrops, cut_eyes
from appliance.inference.face import find_faces
from appliance.inference.inspect import read_picture
from appliance.inference.landmarks import find_landmarks, region_of_face, region_of_points
from appliance.inference.models import FACE_DETECTION, FACE_LANDMARK, load
from training.dataset import CROP_STEPS, read_shards

Array = NDArray[np.float64]


class Eyes:
    """The model under test."""

    def __init__(self, content: bytes) -> None:
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()
        by_size = sorted(self._interpreter.get_input_details(), key=lambda each: -int(np.prod(each["shape"])))
        self._eyes, self._pose = (each["index"] for each in by_size)
        self._out = self._interpreter.get_output_details()[0]["index"]

    def look(self, eyes: NDArray[np.float32], pose: NDArray[np.float32], head_deg: Array) -> Array:
        """Gaze yaw and pitch and the expected error, degrees."""
        self._interpreter.set_tensor(self._eyes, eyes)
        self._interpreter.set_tensor(self._pose, pose[None])
        self._interpreter.invoke()
        out = self._interpreter.get_tensor(self._out)[0].astype(np.float64)
        return np.array(
            [head_deg[0] + out[0] * ANGLE_UNIT_DEG, head_deg[1] + out[1] * ANGLE_UNIT_DEG, math.exp(out[2])]
        )


def angle_deg(one: Array, other: Array) -> Array:
    """Angle between directions (N, 2) of yaw and pitch."""
    a, b = _unit(np.radians(one)), _unit(np.radians(other))
    return np.degrees(np.arccos(np.clip((a * b).sum(axis=1), -1.0, 1.0)))


def _unit(rad: Array) -> Array:
    yaw, pitch = rad[:, 0], rad[:, 1]
    return np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], axis=1)


def of_held_out(model: Eyes, data: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Errors by condition on identities that were never learned from."""
    looks = np.array(
        [
            model.look(eyes.astype(np.float32)[..., None] / np.float32(CROP_STEPS), pose, read)
            for eyes, pose, read in zip(data["eyes"], data["pose"], data["read"], strict=True)
        ]
    )
    error = angle_deg(looks[:, :2], data["gaze"])
    clear = ~data["hard"] & ~data["glasses"] & (data["lid"] > 0.75)
    parts = {
        "all": np.ones(len(error), bool),
        "clear": clear,
        "hard": data["hard"],
        "glasses": data["glasses"],
        "lids half shut": data["lid"] < 0.75,
        "eyes under 40 px apart": data["eye_px"] < 40,
        "person's anatomy": data["person"],
        "makehuman's eyes": ~data["person"],
        "makehuman's eyes, clear": ~data["person"] & clear,
        "person's anatomy, clear": data["person"] & clear,
        "african": data["group"][:, 0] == 0,
        "asian": data["group"][:, 0] == 1,
        "caucasian": data["group"][:, 0] == 2,
    }
    copied = angle_deg(data["read"][:, :2], data["gaze"])
    out = {name: _figures(error[part]) for name, part in parts.items() if part.any()}
    out["if the eyes were ignored"] = _figures(copied)
    out["share within 1.5 x the expected error"] = round(float((error < 1.5 * looks[:, 2]).mean()), 3)
    return out


def of_labelled(model: Eyes, folder: Path) -> dict[str, Any]:
    """Errors on labelled renders, and how people who look into the lens are read."""
    detector, landmarks = load(FACE_DETECTION), load(FACE_LANDMARK)
    renders, truth, heads, head_truth = [], [], [], []
    for row in _rows(folder / "renders/labels.csv"):
        for crops, head in _crops(detector, landmarks, folder / "renders/images" / row["file"]):
            renders.append(model.look(crops.eyes, crops.pose, np.array([head.yaw_deg, head.pitch_deg])))
            truth.append([float(row["gaze_yaw_from_camera"]), float(row["gaze_pitch_from_camera"])])
            heads.append([head.yaw_deg, head.pitch_deg])
            head_truth.append([float(row["head_yaw_from_camera"]), float(row["head_pitch_from_camera"])])
    looks = np.array(renders)
    error = angle_deg(looks[:, :2], np.array(truth))
    off = np.array(heads) - np.array(head_truth)
    lens, signs, files = [], [], []
    for row in _rows(folder / "labels.csv"):
        side = -1 if row["eyes"].startswith("left") else 1 if row["eyes"].startswith("right") else 0
        if not row["file"].startswith("images/") or (row["eyes"] != "camera" and not side):
            continue
        for crops, head in _crops(detector, landmarks, folder / row["file"]):
            look = model.look(crops.eyes, crops.pose, np.array([head.yaw_deg, head.pitch_deg]))
            if row["eyes"] == "camera":
                lens.append(look)
                files.append(
                    f"{row['file'][7:]} gaze {look[0]:.1f} {look[1]:.1f} head {head.yaw_deg:.0f} {head.pitch_deg:.0f}"
                )
            else:
                signs.append((row["file"], side, round(float(look[0]), 1), round(head.yaw_deg, 1)))
    at_lens = np.array(lens)
    pitch = float(np.median(at_lens[:, 1]))
    centred = angle_deg(at_lens[:, :2] - [0.0, pitch], np.zeros((len(at_lens), 2)))
    return {
        "renders": _figures(error),
        "renders, after their own pitch constant": _figures(
            angle_deg(looks[:, :2] - [0, np.median(looks[:, 1] - np.array(truth)[:, 1])], np.array(truth))
        ),
        "head": np.abs(off - np.median(off, axis=0)).mean(axis=0).round(2).tolist(),
        "photos into the lens": len(at_lens),
        "yaw within 10": int((np.abs(at_lens[:, 0]) < 10).sum()),
        "yaw mean, sd": [round(float(at_lens[:, 0].mean()), 2), round(float(at_lens[:, 0].std()), 2)],
        "pitch median, sd": [round(pitch, 2), round(float(at_lens[:, 1].std()), 2)],
        "within 10, 15 after one pitch constant": [
            round(float((centred < 10).mean()), 3),
            round(float((centred < 15).mean()), 3),
        ],
        "signs": signs,
        "each": files,
    }


def _figures(error: Array) -> dict[str, float]:
    return {
        "n": len(error),
        "mean": round(float(error.mean()), 2),
        "median": round(float(np.median(error)), 2),
        "p90": round(float(np.percentile(error, 90)), 2),
    }


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source))


def _crops(detector: Any, landmarks: Any, file: Path) -> Iterator[tuple[EyeCrops, head_pose.HeadPose]]:
    """Crops of the largest face, none where there is no face."""
    picture = read_picture(file)
    faces = find_faces(detector, picture)
    if not faces:
        return
    rough = find_landmarks(
        landmarks, picture, region_of_face(max(faces, key=lambda face: (face.is_sure, face.size)))
    )
    points = find_landmarks(landmarks, picture, region_of_points(rough.points)).points
    head = head_pose.estimate(points, picture.shape[1], picture.shape[0])
    crops = None if head is None else cut_eyes(picture, points, head)
    if head is not None and crops is not None:
        yield crops, head


def main() -> None:
    """Print one JSON object."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("model", type=Path)
    options.add_argument("held_out", type=Path)
    options.add_argument("labelled", type=Path, nargs="?")
    chosen = options.parse_args()
    model = Eyes(chosen.model.read_bytes())
    found = {"held out": of_held_out(model, read_shards(sorted(chosen.held_out.glob("???????.npz"))))}
    if chosen.labelled:
        found["labelled"] = of_labelled(model, chosen.labelled)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
