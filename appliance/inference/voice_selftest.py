"""Whether the network for voices gives the numbers here that it was measured with: it hears a drawn voice.

Runs when a microphone is to be opened, and as a part of `invigil node selftest`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from appliance.errors import ModelsDiffer
from appliance.inference.voice_network import PIECE_SAMPLES, RATE_HZ, VOICE, VoiceNetwork

# It remembers what it heard, so a small difference grows from piece to piece: a noise of 3 of 32,768 steps changes
# 0.25. What another right processor changes was not measured.
TOLERANCE = 0.03
# How sure it is in each piece of the drawn voice, on x86-64.
# fmt: off
GOLDEN = (
    0.0017, 0.0070, 0.0090, 0.0079, 0.0060, 0.0060, 0.0059, 0.0057, 0.0055, 0.0052, 0.0051, 0.0049,
    0.0048, 0.0046, 0.0045, 0.0310, 0.7628, 0.6755, 0.4577, 0.4655, 0.7337, 0.4206, 0.4003, 0.3819,
    0.1937, 0.1881, 0.2071, 0.1420, 0.2080, 0.0996, 0.1030, 0.1141, 0.0644, 0.0337, 0.0535, 0.0482,
    0.0301, 0.1015, 0.0401, 0.0325, 0.0197, 0.0121, 0.0119, 0.0263, 0.0245, 0.0170, 0.0080, 0.0098,
)
# fmt: on
PIECES = len(GOLDEN)


def drawn_voice() -> NDArray[np.int16]:
    """Half a second of silence, then a hum with the resonances of a vowel, at 16 kHz, in whole numbers alone."""
    n = np.arange(PIECES * PIECE_SAMPLES, dtype=np.int64)
    sound = np.zeros_like(n)
    for hz in range(130, 3800, 130):
        loud = 24 * (hz < 390) + 64 * max(0, 400 - abs(hz - 600)) // 400
        loud += 48 * max(0, 500 - abs(hz - 1700)) // 500 + 20 * max(0, 600 - abs(hz - 2700)) // 600
        phase = (n * 2**24 // (RATE_HZ * 256 // hz)) % 2**16
        sound += loud * (np.abs(phase - 2**15) // 64 - 256)
    swelling = np.where(n < RATE_HZ // 2, 0, np.abs(n % 4000 - 2000))
    return np.clip(sound * swelling // 8000, -32768, 32767).astype(np.int16)


def difference(network: VoiceNetwork) -> float:
    """Largest of any piece when it hears the drawn voice from the beginning; it has forgotten all afterwards."""
    network.forget()
    pieces = drawn_voice().reshape(PIECES, PIECE_SAMPLES).astype(np.float32) / np.float32(32768)
    heard = np.array([network.hear(piece) for piece in pieces])
    network.forget()
    found = float(np.abs(heard - np.array(GOLDEN)).max())
    return found if math.isfinite(found) else math.inf


def check(network: VoiceNetwork) -> None:
    """Raises ModelsDiffer unless it hears what it should."""
    if difference(network) > TOLERANCE:
        raise ModelsDiffer(
            "this desk's processor hears other numbers than the network for voices was measured with",
            f"see `invigil node selftest`: {VOICE.file}",
        )
