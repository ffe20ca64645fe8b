"""Whether this processor and runtime compute what the models were measured with: each network reads a drawn face.

Runs when a session's networks were loaded, and as `invigil node selftest`. After a change of PROBES:

    python -m appliance.inference.selftest --write    on the machine whose figures docs/observations.md gives
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.errors import ModelMissing, ModelsDiffer
from appliance.inference import voice_selftest
from appliance.inference.eye_crops import CROP_PX
from appliance.inference.head_pose import FACE_PX, SHAPE_NUMBERS
from appliance.inference.interpreter import Network
from appliance.inference.level_crop import LEAST_CONTRAST
from appliance.inference.models import EYES, FACE_DETECTION, FACE_LANDMARK, HEAD, ModelFile, Models, load
from appliance.inference.voice_network import VOICE, load_voice_network

Outputs = Sequence[NDArray[np.float32]]
Golden = dict[str, Any]

GOLDEN_JSON = Path(__file__).with_name("golden.json")
# As a share of an output's largest value. Measured on x86-64 (docs/observations.md): all float32 kernels of LiteRT 2.3
# and tflite-runtime 2.14 lie within 6.4e-7; half precision in nothing but the input is 1.1e-4 off at the least.
TOLERANCE = 3e-5
STRETCHES = 16
TIMED_RUNS = 5
DIFFERENT = "this desk's processor gives other numbers than the models were measured with"

# (middle x, middle y, half width, half height, B, G, R) on a square of 960.
ELLIPSES = (
    *(
        (480, 1000, 420, 260, 90, 60, 50),
        (480, 330, 300, 290, 30, 40, 60),
        (480, 430, 240, 320, 140, 170, 215),
    ),
    *((380, 325, 62, 12, 40, 55, 80), (580, 325, 62, 12, 40, 55, 80)),
    *((380, 385, 48, 24, 235, 235, 240), (580, 385, 48, 24, 235, 235, 240)),
    *((380, 385, 22, 22, 60, 80, 60), (580, 385, 22, 22, 60, 80, 60)),
    *((380, 385, 10, 10, 15, 15, 15), (580, 385, 10, 10, 15, 15, 15)),
    *((480, 480, 28, 70, 120, 150, 200), (480, 545, 48, 16, 90, 110, 160), (480, 630, 90, 26, 90, 90, 170)),
)
WALL_BGR = (150, 160, 165)


def drawn_face(side_px: int) -> NDArray[np.uint8]:
    """A face of ellipses with grain, side x side x 3 BGR, in whole numbers alone: the same bytes everywhere."""
    rows, columns = np.indices((side_px, side_px), dtype=np.int64)
    x, y = (2 * columns + 1) * 480 // side_px, (2 * rows + 1) * 480 // side_px
    picture = np.empty((side_px, side_px, 3), np.int64)
    picture[...] = WALL_BGR
    for middle_x, middle_y, wide, high, *colour in ELLIPSES:
        inside = ((x - middle_x) * high) ** 2 + ((y - middle_y) * wide) ** 2 <= (wide * high) ** 2
        picture[inside] = colour
    # Knuth's multiplicative hash of the place: a grain of -8 to 8.
    mixed = ((columns * 73856093) ^ (rows * 19349663)) * 2654435761 & 0xFFFFFFFF
    picture += ((mixed >> 24) % 17 - 8)[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8)


def drawn_eyes() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The drawn face's image-left eye twice, and a head a little to one side, as `eye_crops` would give them."""
    width, height = CROP_PX
    eye = _part(drawn_face(width * 6), width * 15 // 8, width * 21 // 10, width, height)
    return np.stack([eye, eye]), np.array([[0.25, -0.125, 0.0625, 0.375, 0.3125]], np.float32)


def drawn_head() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The drawn face's upper part and points somewhere about its middle, in sizes that `head_pose` would give them."""
    width, height = FACE_PX
    face = _part(drawn_face(width * 3 // 2), width // 4, width // 4, width, height)
    points = (np.arange(SHAPE_NUMBERS, dtype=np.int64) * 37 % 64 - 32) / 32
    return face[None], points[None].astype(np.float32)


def _part(picture: NDArray[np.uint8], left: int, top: int, width: int, height: int) -> NDArray[np.float32]:
    """(height, width, 1) out of a picture, of unit contrast."""
    grey = picture[top : top + height, left : left + width, 1].astype(np.float32)
    even: NDArray[np.float32] = (grey - grey.mean()) / (grey.std() + LEAST_CONTRAST)
    return even[..., None]


@dataclass(frozen=True)
class Probe:
    """How one model is tried: where its network stands among the loaded ones, and what it is shown."""

    model: ModelFile
    network: Callable[[Models], Network | None]
    run: Callable[[Network], Outputs]


# Every allowed model has one; a new one needs an entry here and `--write`.
PROBES = (
    Probe(FACE_DETECTION, lambda loaded: loaded.detector, lambda one: one.run(drawn_face(one.input_size))),
    Probe(FACE_LANDMARK, lambda loaded: loaded.landmarks, lambda one: one.run(drawn_face(one.input_size))),
    Probe(HEAD, lambda loaded: loaded.head, lambda one: one.run_tensors(*drawn_head())),
    Probe(EYES, lambda loaded: loaded.eyes, lambda one: one.run_tensors(*drawn_eyes())),
)


@dataclass(frozen=True)
class Reading:
    """One model's numbers against the golden ones; `difference` as its `tolerance` counts it, `run_ms` of one run."""

    model: ModelFile
    difference: float
    run_ms: float
    tolerance: float = TOLERANCE

    @property
    def agrees(self) -> bool:
        """Whether the numbers are the golden ones within the tolerance."""
        return self.difference <= self.tolerance

    def in_words(self) -> str:
        """A line for a terminal."""
        word = "ok" if self.agrees else "other numbers than the golden ones"
        return (
            f"{self.model.file:<40} {self.model.sha256[:12]}  {self.run_ms:6.2f} ms"
            f"  difference {self.difference:.1e} of {self.tolerance:.0e}  {word}"
        )


@dataclass(frozen=True)
class Report:
    """What `invigil node selftest` says; `voice` is why the network for voices cannot be tried where it cannot."""

    runtime: str
    readings: tuple[Reading, ...]
    voice: Reading | str

    @property
    def sees(self) -> bool:
        """Whether every model that sees agrees."""
        return all(reading.agrees for reading in self.readings)

    @property
    def passed(self) -> bool:
        """Whether every model agrees that can be tried."""
        return self.sees and (isinstance(self.voice, str) or self.voice.agrees)

    def in_words(self) -> str:
        """Lines for a terminal."""
        voice = self.voice if isinstance(self.voice, str) else self.voice.in_words()
        what_follows = "nothing is assessed" if not self.sees else "voices are not listened for"
        last = "nothing differs" if self.passed else f"{DIFFERENT}; {what_follows}"
        return "\n".join([self.runtime, *(each.in_words() for each in self.readings), voice, last]) + "\n"


def summary(values: NDArray[np.float32]) -> list[list[float]]:
    """First, mean, least and largest of each of 16 stretches of an output, so that no value is left out."""
    parts = np.array_split(values.astype(np.float64), min(STRETCHES, values.size))
    return [[float(part[0]), float(part.mean()), float(part.min()), float(part.max())] for part in parts]


def difference(golden: Sequence[Sequence[Sequence[float]]], outputs: Outputs) -> float:
    """Largest difference of any number, as a share of its output's largest; infinite for another shape or no number."""
    if len(golden) != len(outputs):
        return math.inf
    worst = 0.0
    for expected, values in zip(golden, outputs, strict=True):
        wanted, found = np.array(expected), np.array(summary(values))
        if wanted.shape != found.shape or not np.isfinite(found).all():
            return math.inf
        worst = max(worst, float(np.abs(found - wanted).max() / np.abs(wanted).max()))
    return worst


def check(models: Models, golden: Golden | None = None) -> None:
    """Raises ModelsDiffer unless each of the loaded networks gives its golden numbers; measured: 40 ms."""
    expected = read_golden() if golden is None else golden
    different = [
        probe.model.file
        for probe in PROBES
        if (network := probe.network(models)) is not None
        and not difference(_golden_outputs(expected, probe.model), probe.run(network)) <= TOLERANCE
    ]
    if different:
        raise ModelsDiffer(DIFFERENT, f"see `invigil node selftest`: {', '.join(different)}")


def self_test(golden: Golden | None = None) -> Report:
    """Load and try every model. Raises ModelMissing (not for voices), ModelsDiffer where one has no golden numbers."""
    expected = read_golden() if golden is None else golden
    readings = tuple(_read(probe, expected) for probe in PROBES)
    return Report(runtime_words(), readings, _read_voice())


def runtime_words() -> str:
    """Which runtime computes here, on what."""
    package = next(name for name in ("ai_edge_litert", "tflite_runtime") if name in sys.modules)
    return f"{package} {version(package)}, numpy {np.__version__}, {platform.machine()}"


def read_golden() -> Golden:
    """Numbers by a model's SHA-256."""
    golden: Golden = json.loads(GOLDEN_JSON.read_text(encoding="utf-8"))
    return golden


def make_golden() -> Golden:
    """The golden numbers as this machine computes them, to 8 digits."""
    return {
        probe.model.sha256: {
            "file": probe.model.file,
            "outputs": [_rounded(summary(values)) for values in probe.run(load(probe.model))],
        }
        for probe in PROBES
    }


def face_sha256(side_px: int) -> str:
    """Of the drawn face's bytes; a test holds it."""
    return hashlib.sha256(drawn_face(side_px).tobytes()).hexdigest()


def _rounded(rows: list[list[float]]) -> list[list[float]]:
    return [[float(f"{number:.8g}") for number in row] for row in rows]


def _golden_outputs(golden: Golden, model: ModelFile) -> Any:
    try:
        return golden[model.sha256]["outputs"]
    except KeyError as missing:
        hint = "make them with `python -m appliance.inference.selftest --write`"
        raise ModelsDiffer(f"there are no golden numbers for the model {model.file}", hint) from missing


def _read(probe: Probe, golden: Golden) -> Reading:
    expected = _golden_outputs(golden, probe.model)
    network = load(probe.model)
    found = difference(expected, probe.run(network))
    times_ns = []
    for _ in range(TIMED_RUNS):
        begun_ns = time.perf_counter_ns()
        network.invoke()
        times_ns.append(time.perf_counter_ns() - begun_ns)
    return Reading(probe.model, found, statistics.median(times_ns) / 1e6)


def _read_voice() -> Reading | str:
    try:
        network = load_voice_network()
    except ModelMissing as error:
        return f"{VOICE.file:<40} cannot be tried: {error}"
    begun_ns = time.perf_counter_ns()
    found = voice_selftest.difference(network)
    run_ms = (time.perf_counter_ns() - begun_ns) / 1e6 / voice_selftest.PIECES
    return Reading(VOICE, found, run_ms, voice_selftest.TOLERANCE)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("python -m appliance.inference.selftest --write; to compare: invigil node selftest")
    lines = [f"{json.dumps(sha256)}: {json.dumps(entry)}" for sha256, entry in make_golden().items()]
    GOLDEN_JSON.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    sys.stdout.write(f"{GOLDEN_JSON}: {len(PROBES)} models, {runtime_words()}\n")
