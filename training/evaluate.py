"""How far the networks are off: held-out identities of our own generator, labelled renders, photos into the lens.

`python -m training.evaluate HEAD.tflite EYES.tflite HELD_OUT [LABELLED]`; LABELLED is a folder like
../shared/data. Renders of one generator are not people: every figure says on what it was measured.
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
from numpy.typing import NDArray

from appliance import picture_quality
from appliance.inference import head_pose
from appliance.inference.eye_crops import UP_MM, EyeCrops, cut_eyes
from appliance.inference.face import find_faces
from appliance.inference.gaze import pose_numbers
from appliance.inference.head_pose import ANGLE_UNIT_DEG, HeadPose
from appliance.inference.inspect import read_picture
from appliance.inference.interpreter import Network
from appliance.inference.landmarks import find_landmarks, region_of_face, region_of_points
from appliance.inference.models import EYES, FACE_DETECTION, FACE_LANDMARK, HEAD, load
from training.dataset import as_shown, read_shards
from training.train_head import head_error_deg, with_head

Array = NDArray[np.float64]
Finders = tuple[Network, Network, Network]  # of faces, of their landmarks, of the head


def look(eyes: Network, crops: NDArray[np.float32], pose: NDArray[np.float32], head_deg: Array) -> Array:
    """Gaze yaw and pitch and the expected error, degrees."""
    across, up, log_deg = (float(each) for each in eyes.run_tensors(crops, pose.reshape(1, -1))[0])
    return np.array(
        [head_deg[0] + across * ANGLE_UNIT_DEG, head_deg[1] + up * ANGLE_UNIT_DEG, math.exp(log_deg)]
    )


def angle_deg(one: Array, other: Array) -> Array:
    """Angle between directions (N, 2) of yaw and pitch."""
    a, b = _unit(np.radians(one)), _unit(np.radians(other))
    return np.degrees(np.arccos(np.clip((a * b).sum(axis=1), -1.0, 1.0)))


def _unit(rad: Array) -> Array:
    yaw, pitch = rad[:, 0], rad[:, 1]
    return np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], axis=1)


def of_held_out(eyes: Network, data: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Errors by condition on identities that were never learned from."""
    looks = np.array(
        [
            look(eyes, as_shown(crops), pose, read)
            for crops, pose, read in zip(data["eyes"], data["pose"], data["read"], strict=True)
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
    out: dict[str, Any] = {name: _figures(error[part]) for name, part in parts.items() if part.any()}
    turned = head_error_deg(data)
    out["head, all"], out["head, clear"] = (
        turned[part].mean(axis=0).round(2).tolist() for part in (parts["all"], clear)
    )
    out["if the eyes were ignored"] = _figures(copied)
    out["share within 1.5 x the expected error"] = round(float((error < 1.5 * looks[:, 2]).mean()), 3)
    return out


def of_labelled(head_network: Network, eyes: Network, folder: Path) -> dict[str, Any]:
    """Errors on labelled renders, and how people who look into the lens or aside are read."""
    finders = (load(FACE_DETECTION), load(FACE_LANDMARK), head_network)
    return {
        **_of_renders(finders, eyes, folder),
        **_of_lens(finders, eyes, folder),
        "signs": _signs(finders, eyes, folder),
    }


def _of_renders(finders: Finders, eyes: Network, folder: Path) -> dict[str, Any]:
    said, gaze, heads, turned = [], [], [], []
    for row in _rows(folder / "renders/labels.csv"):
        for crops, head in crops_of(finders, folder / "renders/images" / row["file"]):
            said.append(_look(eyes, crops, head))
            gaze.append([float(row["gaze_yaw_from_camera"]), float(row["gaze_pitch_from_camera"])])
            heads.append([head.yaw_deg, head.pitch_deg])
            turned.append([float(row["head_yaw_from_camera"]), float(row["head_pitch_from_camera"])])
    looks, truth = np.array(said)[:, :2], np.array(gaze)
    constant = [0.0, np.median(looks[:, 1] - truth[:, 1])]
    off = np.array(heads) - np.array(turned)
    return {
        "renders": _figures(angle_deg(looks, truth)),
        "renders, after their own pitch constant": _figures(angle_deg(looks - constant, truth)),
        "head": np.abs(off - np.median(off, axis=0)).mean(axis=0).round(2).tolist(),
    }


def _of_lens(finders: Finders, eyes: Network, folder: Path) -> dict[str, Any]:
    looks, each = [], []
    for file in photos_into_lens(folder):
        for crops, head in crops_of(finders, file):
            yaw, pitch = _look(eyes, crops, head)[:2]
            looks.append([yaw, pitch])
            each.append(
                f"{file.name} gaze {yaw:.1f} {pitch:.1f} head {head.yaw_deg:.0f} {head.pitch_deg:.0f}"
            )
    yaws, pitches = np.array(looks).T
    constant = float(np.median(pitches))
    centred = angle_deg(np.array(looks) - [0.0, constant], np.zeros((len(looks), 2)))
    return {
        "photos into the lens": len(looks),
        "yaw within 10": int((np.abs(yaws) < 10).sum()),
        "yaw mean, sd": [round(float(yaws.mean()), 2), round(float(yaws.std()), 2)],
        "pitch median, sd": [round(constant, 2), round(float(pitches.std()), 2)],
        "within 10, 15 after one pitch constant": [
            round(float((centred < limit_deg).mean()), 3) for limit_deg in (10, 15)
        ],
        "each": each,
    }


def _signs(finders: Finders, eyes: Network, folder: Path) -> list[tuple[str, int, float, float]]:
    """Photos of people who look aside: file, side (-1 left, 1 right), yaw said of the eyes and of the head."""
    found = []
    for row in _photos(folder):
        side = -1 if row["eyes"].startswith("left") else 1 if row["eyes"].startswith("right") else 0
        if side:
            for crops, head in crops_of(finders, folder / row["file"]):
                yaw = round(float(_look(eyes, crops, head)[0]), 1)
                found.append((row["file"], side, yaw, round(head.yaw_deg, 1)))
    return found


def photos_into_lens(folder: Path) -> list[Path]:
    """Photos of one person each who looks into the lens."""
    return [folder / row["file"] for row in _photos(folder) if row["eyes"] == "camera"]


def _photos(folder: Path) -> list[dict[str, str]]:
    return [row for row in _rows(folder / "labels.csv") if row["file"].startswith("images/")]


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


def _look(eyes: Network, crops: EyeCrops, head: HeadPose) -> Array:
    return look(eyes, crops.eyes, pose_numbers(head, crops), np.array([head.yaw_deg, head.pitch_deg]))


def crops_of(finders: Finders, file: Path, up_mm: float = UP_MM) -> Iterator[tuple[EyeCrops, HeadPose]]:
    """Crops of the largest face, none where there is no face; `up_mm` as of `cut_eyes`."""
    detector, landmarks, head_network = finders
    picture = read_picture(file)
    small = picture_quality.small(picture)
    faces = find_faces(detector, small, picture.shape[1] / small.shape[1])
    if not faces:
        return
    rough = find_landmarks(
        landmarks, picture, region_of_face(max(faces, key=lambda face: (face.is_sure, face.size)))
    )
    found = find_landmarks(landmarks, picture, region_of_points(rough.points))
    head = head_pose.estimate(head_network, found)
    crops = None if head is None else cut_eyes(picture, found.points, head.pixels_per_mm, up_mm)
    if head is not None and crops is not None:
        yield crops, head


def main() -> None:
    """Print one JSON object."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("head", type=Path)
    options.add_argument("eyes", type=Path)
    options.add_argument("held_out", type=Path)
    options.add_argument("labelled", type=Path, nargs="?")
    chosen = options.parse_args()
    content = chosen.head.read_bytes()
    eyes = Network(chosen.eyes.read_bytes(), EYES.outputs, inputs=EYES.inputs)
    held_out = with_head(content, read_shards(sorted(chosen.held_out.glob("???????.npz"))))
    found = {"held out": of_held_out(eyes, held_out)}
    if chosen.labelled:
        head = Network(content, HEAD.outputs, inputs=HEAD.inputs)
        found["labelled"] = of_labelled(head, eyes, chosen.labelled)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
