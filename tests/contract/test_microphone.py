"""The microphone in real time: ALSA itself over a device made of a file, and the whole inference process beside one."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from appliance.clock import SystemClock
from appliance.config import NodeConfig
from appliance.errors import MicrophoneUnavailable
from appliance.inference import process
from appliance.inference.microphone import DEVICE_RATE_HZ, Microphone
from appliance.local_link import LocalServer, Message, Peer
from tests.sounds import as_samples, noise, sentence
from tests.unit.test_listening import SESSION, write

pytestmark = pytest.mark.slow


class Lamp:
    """Notes, whenever it is switched, whether the device is open just then."""

    def __init__(self, device: Path) -> None:
        self.device = device
        self.is_lit = False
        self.switched: list[tuple[str, bool]] = []

    def on(self) -> None:
        self.is_lit = True
        self.switched.append(("on", self.device_open))

    def off(self) -> None:
        self.is_lit = False
        self.switched.append(("off", self.device_open))

    @property
    def device_open(self) -> bool:
        """As the kernel sees it."""
        return any(fd.is_symlink() and fd.readlink() == self.device for fd in Path("/proc/self/fd").iterdir())


@pytest.fixture
def lamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lamp:
    """Of a desk whose microphone hears a tone. ALSA's own file and null devices stand for the hardware: everything
    from `av.open` on is the product's way."""
    times = np.arange(DEVICE_RATE_HZ) / DEVICE_RATE_HZ
    tone = tmp_path / "tone.raw"
    tone.write_bytes((8000 * np.sin(2 * np.pi * 500 * times)).astype("<i2").tobytes())
    settings = tmp_path / "alsa.conf"
    settings.write_text(
        'pcm.desk { type file slave.pcm "nothing" file "/dev/null" format raw '
        f'infile "{tone}" }}\npcm.nothing {{ type null }}\n'
    )
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(settings))
    (tmp_path / "pcmC0D0c").touch()
    return Lamp(tone)


def test_sound_comes_through_alsa(lamp: Lamp, tmp_path: Path) -> None:
    """F033: the lamp is lit while the device is open as the kernel sees it."""
    stop = threading.Event()
    pieces = Microphone("alsa:desk", lamp, stop, SystemClock(), sound_devices=tmp_path).pieces()
    assert (lamp.is_lit, lamp.device_open) == (False, False)
    sound = np.concatenate([next(pieces) for _ in range(30)])
    assert (lamp.is_lit, lamp.device_open) == (True, True)
    stop.set()
    assert list(pieces) == []
    assert lamp.switched == [("on", False), ("off", False)]
    spectrum = np.abs(np.fft.rfft(sound[1600:14400] * np.hanning(12800)))
    assert np.argmax(spectrum) * 16_000 / 12_800 == pytest.approx(500, abs=2)


def test_f033_a_microphone_that_cannot_be_read_leaves_no_lamp_lit(lamp: Lamp, tmp_path: Path) -> None:
    unknown = Microphone(
        "alsa:elsewhere", lamp, threading.Event(), SystemClock(), sound_devices=tmp_path
    ).pieces()
    with pytest.raises(MicrophoneUnavailable, match="the microphone elsewhere cannot be read") as raised:
        next(unknown)
    assert "arecord -L" in raised.value.hint
    (tmp_path / "pcmC0D0c").unlink()
    missing = Microphone("alsa:desk", lamp, threading.Event(), SystemClock(), sound_devices=tmp_path).pieces()
    with pytest.raises(MicrophoneUnavailable, match="there is no microphone"):
        next(missing)
    assert lamp.switched == [("on", False), ("off", False)]


def test_f047_the_inference_process_hears_what_is_spoken_beside_a_picture_that_is_switched_off(
    tmp_path: Path,
) -> None:
    """F031: voice without face. As in an exam: the camera process says what is on, and is told of the voice."""
    said: list[Message] = []
    clock, stop = SystemClock(), threading.Event()
    session = SESSION | {"started_mono_ns": clock.mono_ns()}

    def greet(peer: Peer) -> None:
        peer.send(session)

    server = LocalServer(
        tmp_path / "camera.sock", lambda _peer, message: said.append(message), greet, lambda _peer: None
    )
    clip = write(tmp_path / "desk.wav", as_samples(noise("fan", 1, 100.0), sentence(0)))
    config = NodeConfig(
        institution="uni", room="r", desk="d", broker_host="b", run_dir=tmp_path, microphone=f"clip:{clip}"
    )
    thread = threading.Thread(target=process.run, args=(config, stop))
    thread.start()
    try:
        deadline_s = time.monotonic() + 60
        while not any(each["type"] == "observation" for each in said) and time.monotonic() < deadline_s:
            stop.wait(0.05)
    finally:
        stop.set()
        thread.join(20)
        server.close()
    reports = [each["report"] for each in said if each["type"] == "observation"]
    assert [(each["kind"], each["phase"]) for each in reports[:1]] == [("voice_nearby", "opened")]
    assert {"type": "listening", "problem": None} in said
    assert not thread.is_alive()
