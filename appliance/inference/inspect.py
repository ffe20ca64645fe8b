"""`invigil inspect`: what the node would read from pictures and clips, by the same tracker and the same
policy.

For staff who set thresholds and for anybody who doubts an observation. Writes nothing but its output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.errors import BadInput
from appliance.inference.labelled import read_labels
from appliance.inference.models import Models, load_models
from appliance.inference.observations import Observation, ObservationPolicy
from appliance.inference.report import Report, make_report
from appliance.inference.report_text import as_markdown, as_text
from appliance.inference.signals import Signals
from appliance.inference.tracker import Tracker
from appliance.inference.watch import Watch

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
CLIP_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".ts"})
HINT = "give pictures (jpg, png, ...), clips (mp4, mkv, ...) or folders that hold some"

_COLUMNS = ("head_yaw_deg", "head_pitch_deg", "head_roll_deg", "gaze_yaw_deg", "gaze_pitch_deg")
_HEADING = (
    f"{'frame':>6} {'time s':>8} {'faces':>5} {'read':>5} {'quality':>8} "
    f"{'head yaw':>9} {'pitch':>7} {'roll':>7} {'gaze yaw':>9} {'pitch':>7} {'+-':>5}"
)


def inspect(paths: list[Path], json_lines: bool, write: Callable[[str], object] = sys.stdout.write) -> None:
    """Read every picture and clip in `paths` and write a line a frame.

    A picture has a tracker of its own; a clip is watched frame by frame on its own timestamps, and its
    observations come after its frames. Files that cannot be read are named in one BadInput after all others
    are done.
    """
    files = list(_files(paths))
    if not files:
        raise BadInput(f"no picture or clip in {', '.join(map(str, paths)) or 'nothing'}", HINT)
    models = load_models()
    unreadable = []
    for file in files:
        read = _inspect_picture if file.suffix.lower() in IMAGE_SUFFIXES else _inspect_clip
        try:
            read(file, models, json_lines, write)
        except BadInput as problem:
            unreadable.append(str(problem))
    if unreadable:
        raise BadInput("; ".join(unreadable), HINT)


def inspect_labelled(
    folders: list[Path],
    output: Literal["text", "json", "markdown"],
    write: Callable[[str], object] = sys.stdout.write,
) -> None:
    """Write counts and errors by group of each labelled folder; raises BadInput for one that cannot be used."""
    models = load_models()
    for folder in folders:
        report = report_on(folder, models)
        if output == "json":
            write(json.dumps({"folder": str(folder)} | asdict(report)) + "\n")
        else:
            write(as_markdown(report) if output == "markdown" else as_text(str(folder), report))


def report_on(folder: Path, models: Models) -> Report:
    """Read each picture that `labels.csv` names, with a tracker of its own, and compare."""
    labels = read_labels(folder)
    read = [Tracker(models).process(read_picture(folder / each.file), 0) for each in labels.pictures]
    return make_report(labels, read)


def read_picture(file: Path) -> NDArray[np.uint8]:
    """An H x W x 3 BGR picture, whatever its file holds; raises BadInput."""
    try:
        content = np.frombuffer(file.read_bytes(), np.uint8)
        picture = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except OSError as failure:
        raise BadInput(f"cannot read {file}: {(failure.strerror or 'unknown').lower()}", HINT) from failure
    except cv2.error as failure:
        raise BadInput(f"cannot read {file}: the picture is too large", HINT) from failure
    if picture is None:
        raise BadInput(f"cannot read {file}: it is not a picture", HINT)
    return picture.astype(np.uint8, copy=False)


def clip_frames(file: Path) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """(seconds since the first frame, H x W x 3 BGR frame) of a clip; raises BadInput where it breaks off."""
    start_s: float | None = None
    try:
        with av.open(str(file)) as container:
            for frame in container.decode(video=0):
                time_s = frame.time if frame.time is not None else 0.0
                start_s = time_s if start_s is None else start_s
                yield time_s - start_s, frame.to_ndarray(format="bgr24").astype(np.uint8, copy=False)
    except (av.error.FFmpegError, IndexError) as failure:
        reason = getattr(failure, "strerror", None) or "it holds no video"
        raise BadInput(f"cannot read {file}: {reason.lower()}", HINT) from failure
    if start_s is None:
        raise BadInput(f"cannot read {file}: it holds no picture", HINT)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            known = IMAGE_SUFFIXES | CLIP_SUFFIXES
            yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in known)
        else:
            yield path


def _inspect_picture(file: Path, models: Models, json_lines: bool, write: Callable[[str], object]) -> None:
    signals = Tracker(models).process(read_picture(file), 0)
    _head(file, json_lines, write)
    write(_line(file, 0, 0.0, signals, json_lines))


def _inspect_clip(file: Path, models: Models, json_lines: bool, write: Callable[[str], object]) -> None:
    watch, policy = Watch(models), ObservationPolicy()
    events: list[Observation] = []
    now_ns: int | None = None
    try:
        for number, (time_s, frame) in enumerate(clip_frames(file)):
            if now_ns is None:
                _head(file, json_lines, write)
            now_ns = round(time_s * 1e9)
            signals = watch.process(frame, now_ns)
            events += policy.process(signals)
            write(_line(file, number, time_s, signals, json_lines))
    finally:
        # Also where a clip breaks off: what was seen until then stands.
        if now_ns is not None:
            events += policy.close_all(now_ns)
            closed = [event for event in events if event.phase == "closed"]
            write(_summary(file, closed, json_lines))


def _head(file: Path, json_lines: bool, write: Callable[[str], object]) -> None:
    if not json_lines:
        write(f"{file}\n{_HEADING}\n")


def _line(file: Path, number: int, time_s: float, signals: Signals, json_lines: bool) -> str:
    if json_lines:
        values = asdict(signals)
        del values["taken_mono_ns"]
        values = {name: round(v, 2) if isinstance(v, float) else v for name, v in values.items()}
        return json.dumps({"source": str(file), "frame": number, "time_s": round(time_s, 3)} | values) + "\n"
    angles = [_number(getattr(signals, name)) for name in _COLUMNS]
    return (
        f"{number:>6} {time_s:>8.2f} {signals.faces:>5} {'yes' if signals.assessable else 'no':>5} "
        f"{signals.quality:>8} {angles[0]:>9} {angles[1]:>7} {angles[2]:>7} {angles[3]:>9} {angles[4]:>7} "
        f"{_number(signals.gaze_uncertainty_deg):>5}\n"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _summary(file: Path, observations: list[Observation], json_lines: bool) -> str:
    if json_lines:
        told = [asdict(one) | {"words": one.words} for one in observations]
        return json.dumps({"source": str(file), "observations": told}) + "\n"
    if not observations:
        return "no observation\n"
    return "".join(f"from {one.start_mono_ns / 1e9:.1f} s: {one.words}\n" for one in observations)
