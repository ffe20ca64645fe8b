"""What a frame costs: beyond its bare model runs, against MediaPipe's FaceMesh with irises; and (`--accuracy DIR`) how
far the angles are off.

python -m bench.inference          FaceMesh takes part where `make bench` has installed it
python -m bench.inference --accuracy ../shared/data
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance import picture_quality
from appliance.inference.inspect import clip_frames, read_picture
from appliance.inference.interpreter import Network
from appliance.inference.models import Models, load_models
from appliance.inference.signals import Signals
from appliance.inference.tracker import Tracker
from appliance.one_thread import stay_in_one_thread

CLIP = Path("build/clips/single_face.mp4")
SIZE = (640, 480)
# The rate at which a node hands frames to its models.
FRAME_RATE_HZ = 15
ROUNDS = 15
PEER = Path("build/face-mesh/bin/python")
# The detector runs once in the clip: what a frame costs that is only followed.
NEVER_S = 1e6


def bench(clip: Path) -> dict[str, object]:
    """Median over interleaved rounds of CPU milliseconds a frame: the tracker, only the model runs that it made, the
    tracker between two looks of the detector, and the peer."""
    stay_in_one_thread()
    frames = [
        cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA).astype(np.uint8)
        for _, frame in clip_frames(clip)
    ]
    models = load_models()
    networks = [
        network for network in (models.detector, models.landmarks, models.head, models.eyes) if network
    ]
    runs = runs_of_frames(models, networks, frames)
    sides: dict[str, Callable[[], float]] = {
        "frame": lambda: track(models, frames),
        "bare_invokes": lambda: invoke(networks, runs),
        "followed_frame": lambda: track(models, frames, NEVER_S),
    }
    with ExitStack() as stack:
        if PEER.exists():
            sides["face_mesh"] = stack.enter_context(face_mesh(clip))
        took: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(ROUNDS):
            for name in sorted(sides, reverse=bool(number % 2)):
                took[name].append(sides[name]() / len(frames))
    found: dict[str, object] = {"bench": "inference"}
    found |= {f"{name}_ms": round(statistics.median(each), 3) for name, each in took.items()}
    found["ratio"] = _ratio(took["frame"], took["bare_invokes"])
    if "face_mesh" in took:
        found["ratio_face_mesh"] = _ratio(took["frame"], took["face_mesh"])
        found["ratio_face_mesh_followed"] = _ratio(took["followed_frame"], took["face_mesh"])
    return found


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(ours, theirs, strict=True)), 3)


@contextmanager
def face_mesh(clip: Path) -> Iterator[Callable[[], float]]:
    """One pass of the peer over the clip at each call; CPU milliseconds of all its frames."""
    frames = sum(1 for _ in clip_frames(clip))
    command = [str(PEER), str(Path(__file__).with_name("face_mesh_worker.py")), str(clip)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise SystemExit("the peer has no pipes")
        ask, answer = process.stdin, process.stdout

        def once() -> float:
            ask.write("again\n")
            ask.flush()
            frame_ms, seen = answer.readline().split()
            if int(seen) != frames:
                raise SystemExit(f"the peer saw a face in {seen} of {frames} frames")
            return float(frame_ms) * frames

        once()
        yield once
        ask.close()


def runs_of_frames(
    models: Models, networks: list[Network], frames: list[NDArray[np.uint8]]
) -> list[list[int]]:
    """How often each network ran for each frame."""
    tracker, runs = Tracker(models), []
    for number, frame in enumerate(frames):
        before = [network.invocations for network in networks]
        tracker.process(frame, number * 1_000_000_000 // FRAME_RATE_HZ)
        runs.append([network.invocations - count for network, count in zip(networks, before, strict=True)])
    return runs


def track(models: Models, frames: list[NDArray[np.uint8]], detector_interval_s: float = 0.5) -> float:
    """CPU milliseconds to read all frames with a fresh tracker."""
    tracker = Tracker(models, detector_interval_s)
    begun_s = time.process_time()
    for number, frame in enumerate(frames):
        tracker.process(frame, number * 1_000_000_000 // FRAME_RATE_HZ)
    return 1e3 * (time.process_time() - begun_s)


def invoke(networks: list[Network], runs: list[list[int]]) -> float:
    """CPU milliseconds of the bare runs alone, frame by frame.

    A network run twice in a row finds its weights in the cache.
    """
    begun_s = time.process_time()
    for counts in runs:
        for network, count in zip(networks, counts, strict=True):
            for _ in range(count):
                network.invoke()
    return 1e3 * (time.process_time() - begun_s)


def accuracy(data: Path) -> dict[str, object]:
    """Errors against `labels.csv` and `renders/labels.csv` in `data`."""
    models = load_models()
    photos = [row for row in _rows(data / "labels.csv") if row["file"].startswith("images/")]
    read = [(row, _read(models, data / row["file"])) for row in photos]
    right = sum(min(2, signals.faces) == min(2, int(row["faces"])) for row, signals in read)
    at_lens = [
        signals for row, signals in read if row["eyes"] == "camera" and signals.gaze_yaw_deg is not None
    ]
    lens = np.array([_between(signals, 0.0, 0.0) for signals in at_lens])
    renders = [
        (row, _read(models, data / "renders/images" / row["file"]))
        for row in _rows(data / "renders/labels.csv")
    ]
    head = np.array([_head_error(signals, row) for row, signals in renders])
    gaze_offset_deg = float(np.median([_gaze_pitch_error(signals, row) for row, signals in renders]))
    gaze = np.array(
        [
            _between(
                signals,
                float(row["gaze_yaw_from_camera"]),
                float(row["gaze_pitch_from_camera"]) + gaze_offset_deg,
            )
            for row, signals in renders
        ]
    )
    unsure = np.array([signals.gaze_uncertainty_deg for signals in at_lens + [s for _, s in renders]])
    errors = np.concatenate([lens, gaze])
    offset = np.median(head, axis=0)
    return {
        "bench": "inference-accuracy",
        "pictures": len(photos),
        "one_none_several_right": right,
        "good_quality": sum(signals.quality == "good" for _, signals in read),
        "renders": len(renders),
        "head_offset_deg": _rounded(offset),
        "head_mean_abs_error_deg": _rounded(np.abs(head - offset).mean(axis=0)),
        "head_95_percent_deg": _rounded(np.percentile(np.abs(head - offset), 95, axis=0)),
        "head_yaw_sign_right": _sign(
            [(float(r["head_yaw_from_camera"]), s.head_yaw_deg) for r, s in renders], beyond_deg=5.0
        ),
        "gaze_yaw_sign_right": _sign(
            [(float(r["gaze_yaw_from_camera"]), s.gaze_yaw_deg) for r, s in renders], beyond_deg=10.0
        ),
        "gaze_pitch_offset_deg": round(gaze_offset_deg, 2),
        "gaze_mean_error_deg": round(float(gaze.mean()), 2),
        "gaze_median_error_deg": round(float(np.median(gaze)), 2),
        "gaze_90_percent_deg": round(float(np.percentile(gaze, 90)), 2),
        "gaze_worst_error_deg": round(float(gaze.max()), 2),
        "photos_at_lens": len(at_lens),
        "photos_at_lens_yaw_within_10_deg": sum(abs(s.gaze_yaw_deg or 0.0) <= 10 for s in at_lens),
        "photos_at_lens_yaw_spread_deg": round(float(np.std([s.gaze_yaw_deg or 0.0 for s in at_lens])), 2),
        "photos_at_lens_gaze_mean_error_deg": round(float(lens.mean()), 2),
        "errors_within_uncertainty": round(float((errors <= unsure).mean()), 2),
        "uncertainty_against_error_correlation": round(float(np.corrcoef(errors, unsure)[0, 1]), 2),
        "quality_of_altered_pictures": _altered([data / row["file"] for row in photos]),
    }


def _read(models: Models, file: Path) -> Signals:
    return Tracker(models).process(read_picture(file), 0)


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source))


def _head_error(signals: Signals, row: dict[str, str]) -> tuple[float, float, float]:
    yaw, pitch, roll = signals.head_yaw_deg, signals.head_pitch_deg, signals.head_roll_deg
    if yaw is None or pitch is None or roll is None:
        raise SystemExit(f"no head found in {row['file']}")
    return (
        yaw - float(row["head_yaw_from_camera"]),
        pitch - float(row["head_pitch_from_camera"]),
        roll - float(row["head_roll"]),
    )


def _gaze_pitch_error(signals: Signals, row: dict[str, str]) -> float:
    return (
        0.0
        if signals.gaze_pitch_deg is None
        else signals.gaze_pitch_deg - float(row["gaze_pitch_from_camera"])
    )


def _between(signals: Signals, yaw_deg: float, pitch_deg: float) -> float:
    """Angle in degrees between the gaze that was read and the true one."""
    if signals.gaze_yaw_deg is None or signals.gaze_pitch_deg is None:
        return 180.0
    read, true = _unit(signals.gaze_yaw_deg, signals.gaze_pitch_deg), _unit(yaw_deg, pitch_deg)
    return float(np.degrees(np.arccos(np.clip(read @ true, -1.0, 1.0))))


def _unit(yaw_deg: float, pitch_deg: float) -> NDArray[np.float64]:
    yaw, pitch = np.radians(yaw_deg), np.radians(pitch_deg)
    return np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])


def _sign(pairs: list[tuple[float, float | None]], beyond_deg: float) -> str:
    """How many readings lie on the true side, of those with a true angle beyond `beyond_deg`."""
    clear = [(true, read) for true, read in pairs if abs(true) > beyond_deg]
    return f"{sum(read is not None and true * read > 0 for true, read in clear)}/{len(clear)}"


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 2) for value in values]


def _altered(files: list[Path]) -> dict[str, dict[str, int]]:
    """What `picture_quality.assess` says of each picture with its light, focus or lens spoiled."""
    noise = np.random.default_rng(1)
    counts: dict[str, dict[str, int]] = {}
    for file in files:
        whole = read_picture(file)
        scale = SIZE[0] / max(whole.shape[:2])
        picture = cv2.resize(whole, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.float32)
        hand = cv2.GaussianBlur(picture, (0, 0), SIZE[0] * 0.15) * 0.3 + 60.0
        spoiled = {
            "as it is": picture,
            "light / 2": picture * 0.5,
            "light / 5": picture * 0.2,
            "light / 20": picture * 0.05,
            "exposure x 5": picture * 5.0,
            "blur 1 % of width": cv2.GaussianBlur(picture, (0, 0), SIZE[0] * 0.01),
            "hand on the lens": hand,
            "cap on the lens": np.full_like(picture, 4.0),
        }
        for name, values in spoiled.items():
            noisy = np.clip(np.asarray(values) + noise.normal(0.0, 3.0, picture.shape), 0, 255).astype(
                np.uint8
            )
            said = picture_quality.assess(noisy)
            counts.setdefault(name, {})[said] = counts.setdefault(name, {}).get(said, 0) + 1
    return counts


def main() -> None:
    """Print one JSON line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--clip", type=Path, default=CLIP)
    options.add_argument("--accuracy", type=Path, metavar="DIR", help="labelled pictures instead of the time")
    chosen = options.parse_args()
    print(json.dumps(accuracy(chosen.accuracy) if chosen.accuracy else bench(chosen.clip)))


if __name__ == "__main__":
    main()
