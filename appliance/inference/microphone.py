"""Sound of a desk's microphone as pieces of 512 samples at 16 kHz, in memory and one at a time; nothing keeps them.

Loaded only where a policy switches voices on. Any of it may block for as long as a driver likes: it runs in a thread of
its own (ear.py). `clip:` stands for the microphone alone: a sound file, read in real time on the same way.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from appliance.clock import Clock
from appliance.errors import MicrophoneUnavailable
from appliance.inference.voice_network import PIECE_SAMPLES, RATE_HZ
from appliance.light import Light

# Every USB microphone has it; PyAV's resampler then filters better than ALSA's own.
DEVICE_RATE_HZ = 48_000
SOUND_DEVICES = Path("/dev/snd")
NO_DEVICE_HINT = (
    "plug one in; on a desk under systemd also install systemd/microphone.conf (docs/operations.md)"
)
# PyAV's wheel looks for ALSA's settings, and for plug-ins to load, in a folder under /tmp that only its maker had.
# No plug-in is loaded from there: this folder is Debian's, and holds none.
_ALSA = "/usr/share/alsa"

Samples = NDArray[np.int16]


class Microphone:
    """`alsa:<name as arecord -L says it>`, or `clip:<path>`, which plays again and again.

    Its light is lit before the device is opened and out only after it is closed.
    """

    def __init__(
        self,
        spec: str,
        light: Light,
        stop: threading.Event,
        clock: Clock,
        wait: Callable[[float], bool] | None = None,
        sound_devices: Path = SOUND_DEVICES,
    ) -> None:
        """`spec`: NodeConfig.microphone. Opens nothing. `wait` is stop.wait except in tests; a clip alone waits."""
        self._kind, _, self._place = spec.partition(":")
        self._light = light
        self._stop = stop
        self._clock = clock
        self._wait = wait or stop.wait
        self._sound_devices = sound_devices

    def pieces(self) -> Iterator[Samples]:
        """Open it and give its sound until the stop is asked for; raises MicrophoneUnavailable when it is not there."""
        if self._kind == "alsa" and not any(self._sound_devices.glob("pcmC*c")):
            raise MicrophoneUnavailable("there is no microphone at this desk", NO_DEVICE_HINT)
        self._light.on()
        try:
            yield from self._device() if self._kind == "alsa" else self._clip()
        except av.FFmpegError as error:
            raise MicrophoneUnavailable(
                f"the microphone {self._place} cannot be read: {(error.strerror or str(error)).lower()}",
                "look at its plug, and at its name in node.toml: arecord -L lists them",
            ) from error
        finally:
            # By here the device is closed, also after an error; a driver that hangs never comes here.
            self._light.off()

    def _device(self) -> Iterator[Samples]:
        os.environ.setdefault("ALSA_CONFIG_DIR", _ALSA)
        os.environ["ALSA_PLUGIN_DIR"] = _ALSA
        options = {"sample_rate": str(DEVICE_RATE_HZ), "channels": "1"}
        with av.open(self._place, format="alsa", options=options) as container:
            yield from self._samples(container)

    def _clip(self) -> Iterator[Samples]:
        begun_s, given = self._clock.mono_ns() / 1e9, 0
        while not self._stop.is_set():
            with av.open(self._place) as container:
                if not container.streams.audio:
                    raise MicrophoneUnavailable(f"{self._place} holds no sound", "name a sound file")
                for piece in self._samples(container):
                    given += 1
                    due_s = begun_s + given * PIECE_SAMPLES / RATE_HZ
                    if self._wait(max(0.0, due_s - self._clock.mono_ns() / 1e9)):
                        return
                    yield piece

    def _samples(self, container: InputContainer) -> Iterator[Samples]:
        resampler = av.AudioResampler("s16", "mono", RATE_HZ)
        waiting = np.empty(0, np.int16)
        given = 0
        for frame in container.decode(container.streams.audio[0]):
            # The device's stamps are of the wall clock, and jump; the samples are simply one after the other.
            frame.pts, frame.time_base = given, Fraction(1, frame.sample_rate)
            given += frame.samples
            got = [part.to_ndarray().ravel() for part in resampler.resample(frame)]
            waiting = np.concatenate([waiting, *got])
            while len(waiting) >= PIECE_SAMPLES:
                if self._stop.is_set():
                    return
                yield waiting[:PIECE_SAMPLES]
                waiting = waiting[PIECE_SAMPLES:]
