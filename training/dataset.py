"""Samples of many identities as arrays on disk, drawn by all cores.

    python -m training.dataset WHEEL OUT --identities N [--held-out]

An identity belongs to one set for good: those from HELD_OUT on are never learned from.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.inference.models import FACE_LANDMARK, load
from training.heads import AGES, RACES
from training.makehuman import MakeHuman
from training.samples import Sample, Sampler

SEED = 2026
HELD_OUT = 1_000_000
IDENTITIES_A_SHARD = 100
# Crops are of unit contrast; this keeps five of its units in eight bits.
CROP_STEPS = 24.0
FIELDS = (
    "identity",
    "eyes",
    "open_by",
    "marks",
    "face",
    "shape",
    "angle",
    "head",
    "gaze",
    "eye_px",
    "lid",
    "hard",
    "glasses",
    "group",
    "person",
)


def record(identity: int, sample: Sample) -> dict[str, Any]:
    """One sample as FIELDS."""
    labels, (race, sex, age) = sample.labels, sample.group
    return {
        "identity": identity,
        "eyes": _stored(sample.crops.eyes),
        "open_by": np.array(sample.crops.open_by, np.float32),
        "marks": sample.marks,
        "face": _stored(sample.face),
        "shape": sample.shape.points.reshape(-1),
        "angle": np.float32(sample.eye_line_deg),
        "head": np.array([*labels.head_deg, labels.roll_deg], np.float32),
        "gaze": np.array(labels.gaze_deg, np.float32),
        "eye_px": np.float32(labels.eye_px),
        "lid": np.float32(labels.lid),
        "hard": labels.hard,
        "glasses": labels.glasses,
        "group": np.array([RACES.index(race), int(sex == "male"), AGES.index(age)], np.int8),
        "person": sample.style == "person",
    }


def _stored(crop: NDArray[np.float32]) -> NDArray[np.int8]:
    return np.clip(crop[..., 0] * CROP_STEPS, -127, 127).astype(np.int8)


def as_shown(stored: NDArray[np.int8]) -> NDArray[np.float32]:
    """Stored crops (…, height, width) as a network is shown them (…, height, width, 1)."""
    return stored.astype(np.float32)[..., None] / np.float32(CROP_STEPS)


def write_shard(wheel: Path, out: Path, first: int) -> tuple[int, int]:
    """Draw IDENTITIES_A_SHARD identities from `first` on; returns its number and how many samples it has."""
    target = out / f"{first:07d}.npz"
    if target.exists():
        with np.load(target) as there:
            return first, len(there["identity"])
    sampler = Sampler(MakeHuman(wheel), load(FACE_LANDMARK), SEED)
    numbers = range(first, first + IDENTITIES_A_SHARD)
    rows = [record(number, sample) for number in numbers for sample in sampler.of_identity(number)]
    part = target.with_suffix(".part.npz")
    columns: dict[str, Any] = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in FIELDS}
    np.savez(part, **columns)
    part.rename(target)
    return first, len(rows)


def read_shards(files: Iterable[Path]) -> dict[str, NDArray[Any]]:
    """All samples of some shards, field by field."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in FIELDS}
    for file in files:
        with np.load(file) as shard:
            for name in FIELDS:
                parts[name].append(shard[name])
    return {name: np.concatenate(each) for name, each in parts.items()}


def main() -> None:
    """Draw what is not there yet."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("wheel", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--identities", type=int, required=True)
    options.add_argument(
        "--held-out", action="store_true", help="of the identities that are never learned from"
    )
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    begin = HELD_OUT if chosen.held_out else 0
    firsts = range(begin, begin + chosen.identities, IDENTITIES_A_SHARD)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for first, count in pool.map(partial(write_shard, chosen.wheel, chosen.out), firsts):
            print(f"{first}: {count} samples", flush=True)


if __name__ == "__main__":
    main()
