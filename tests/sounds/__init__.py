"""Sounds for the tests: two spoken sentences, made by a machine, and noises of a room that are drawn here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000
SPOKEN = Path(__file__).parent / "spoken.opus"
# Where the two sentences stand in it, in seconds.
SENTENCES_S = ((0.0, 7.8), (9.2, 14.6))
USUAL_RMS = 600.0

Sound = NDArray[np.float64]


@cache
def spoken(path: Path = SPOKEN) -> Sound:
    """All of a sound file at 16 kHz, one channel, in steps of 16 bits."""
    resampler = av.AudioResampler("s16", "mono", RATE_HZ)
    with av.open(path) as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().ravel() for frame in frames]).astype(np.float64)


def sentence(number: int) -> Sound:
    """One of the two sentences, as loud as `USUAL_RMS`."""
    begin_s, end_s = SENTENCES_S[number]
    return at_rms(spoken()[round(begin_s * RATE_HZ) : round(end_s * RATE_HZ)], USUAL_RMS)


def at_rms(sound: Sound, rms: float) -> Sound:
    """The same, so loud."""
    return sound * (rms / max(float(np.sqrt(np.mean(sound**2))), 1e-9))


def as_samples(*sounds: Sound) -> NDArray[np.int16]:
    """One after the other, as a microphone gives them."""
    return np.clip(np.concatenate(sounds), -32768, 32767).astype(np.int16)


def noise(kind: str, seconds: float, rms: float = USUAL_RMS, seed: int = 1) -> Sound:
    """One of `NOISES`; the same seed gives the same sound."""
    made = NOISES[kind](round(seconds * RATE_HZ), np.random.default_rng(seed))
    return at_rms(made, rms) if kind != "nothing at all" else made


def _shaped(shape: Callable[[Sound], Sound]) -> Callable[[int, np.random.Generator], Sound]:
    """Noise with this amplitude over the frequency in Hz."""

    def make(count: int, draw: np.random.Generator) -> Sound:
        hertz = np.maximum(np.fft.rfftfreq(count, 1 / RATE_HZ), 5.0)
        spectrum = (draw.normal(size=hertz.size) + 1j * draw.normal(size=hertz.size)) * shape(hertz)
        return np.fft.irfft(spectrum, count)

    return make


def _knocks(per_s: float, hertz: float, ring_s: float) -> Callable[[int, np.random.Generator], Sound]:
    def make(count: int, draw: np.random.Generator) -> Sound:
        sound, length, at = 0.005 * draw.normal(size=count), 1600, 0
        times = np.arange(length) / RATE_HZ
        while (at := at + int(RATE_HZ * draw.exponential(1 / per_s))) + length < count:
            tone = np.sin(2 * np.pi * draw.uniform(0.7, 1.3) * hertz * times) + 0.6 * draw.normal(size=length)
            sound[at : at + length] += draw.uniform(0.3, 1.0) * np.exp(-times / ring_s) * tone
        return sound

    return make


def _swelling(
    make: Callable[[int, np.random.Generator], Sound], hertz: float
) -> Callable[[int, np.random.Generator], Sound]:
    def made(count: int, draw: np.random.Generator) -> Sound:
        swell = np.clip(np.sin(2 * np.pi * hertz * np.arange(count) / RATE_HZ), 0, 1)
        sound = make(count, draw)
        return np.asarray(sound * swell + 0.01 * float(sound.std()) * draw.normal(size=count))

    return made


def _tones(hertz: float, partials: int, swell_hz: float) -> Callable[[int, np.random.Generator], Sound]:
    def make(count: int, draw: np.random.Generator) -> Sound:
        times = np.arange(count) / RATE_HZ
        tone = sum(np.sin(2 * np.pi * hertz * n * times) / n for n in range(1, partials + 1))
        return np.asarray(tone * (1 + np.sin(2 * np.pi * swell_hz * times)) + 0.02 * draw.normal(size=count))

    return make


def _siren(count: int, draw: np.random.Generator) -> Sound:
    hertz = 700 + 300 * np.sin(np.pi * np.arange(count) / RATE_HZ)
    return np.asarray(np.sin(2 * np.pi * np.cumsum(hertz) / RATE_HZ) + 0.02 * draw.normal(size=count))


def _fan(count: int, draw: np.random.Generator) -> Sound:
    air = _shaped(lambda f: 1 / (1 + (f / 300) ** 2))(count, draw)
    return np.asarray(air / air.std() + _tones(118.0, 2, 0.0)(count, draw))


_BREATH = _shaped(lambda f: np.exp(-(((f - 900) / 700) ** 2)))
NOISES: Mapping[str, Callable[[int, np.random.Generator], Sound]] = {
    "nothing at all": lambda count, draw: np.zeros(count),
    "white noise": _shaped(np.ones_like),
    "pink noise": _shaped(lambda f: f**-0.5),
    "traffic": _shaped(lambda f: 1 / (1 + (f / 60) ** 4)),
    "fan": _fan,
    "air that swells four times a second": _swelling(_shaped(lambda f: f**-0.5), 4.0),
    "mains hum": _tones(50.0, 5, 0.0),
    "motor": _tones(120.0, 20, 4.0),
    "keyboard": _knocks(6.0, 2500.0, 0.006),
    "knocks on the table": _knocks(1.5, 180.0, 0.03),
    "steps": _knocks(2.0, 90.0, 0.05),
    "pen on paper": _swelling(_shaped(lambda f: np.exp(-(((f - 4000) / 1800) ** 2))), 2.3),
    "pages": _swelling(_shaped(lambda f: np.exp(-(((f - 3000) / 2500) ** 2))), 0.4),
    "breath": _swelling(_BREATH, 0.25),
    "panting": _swelling(_BREATH, 1.5),
    "coughs": _knocks(0.5, 350.0, 0.08),
    "beeps": _swelling(_tones(1000.0, 1, 0.0), 1.0),
    "telephone": _swelling(_tones(440.0, 3, 20.0), 0.25),
    "siren": _siren,
    "whistle": _tones(1800.0, 2, 5.0),
}
