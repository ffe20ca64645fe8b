"""A trace of what was heard: half seconds of yes or no, no sound. Made of the sounds in tests/sounds, then replayed.

python -m tests.replay.heard          record anew; what is observed in it is approved in heard.json by hand
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.inference.ear import is_muted
from appliance.inference.rules import SOUND_RULES
from appliance.inference.voice import Moment, Moments, VoiceObserver
from appliance.inference.voice_network import PIECE_SAMPLES, RATE_HZ, load_voice_network
from tests.sounds import as_samples, noise, sentence

TRACE = Path(__file__).parent / "heard.json"
# (what, seconds): a noise; or a sentence's number with what lies under it, for its first seconds or for all of it.
SCENE: tuple[tuple[str, float], ...] = (
    ("fan", 10), ("0 fan", 1.5), ("fan", 8), ("0 fan", 0), ("keyboard", 8), ("coughs", 10), ("1 keyboard", 0),
    ("fan", 2), ("1 fan", 0), ("pages", 10), ("0 pages", 5), ("nothing at all", 15), ("breath", 8), ("siren", 8),
    ("knocks on the table", 8), ("1 fan", 2), ("pink noise", 8),
)  # fmt: skip


def sound() -> NDArray[np.int16]:
    """The scene as a microphone gives it; a voice is 10 dB over what lies under it."""
    parts = []
    for number, (what, seconds) in enumerate(SCENE):
        if what[0].isdigit():
            voice = sentence(int(what[0]))[: round(seconds * RATE_HZ) or None]
            parts.append(voice + noise(what[2:], len(voice) / RATE_HZ, 190.0, seed=number))
        else:
            parts.append(noise(what, seconds, 190.0, seed=number))
    return as_samples(*parts)


def hear(samples: NDArray[np.int16]) -> list[Moment]:
    """What the network of today hears of it, without a clock; times from its beginning."""
    network, gathered, found = load_voice_network(), Moments(), []
    for at in range(0, len(samples) - PIECE_SAMPLES + 1, PIECE_SAMPLES):
        piece = samples[at : at + PIECE_SAMPLES]
        sure = network.hear(piece.astype(np.float32) / np.float32(32768))
        ended_ns = (at + PIECE_SAMPLES) * 10**9 // RATE_HZ
        moment = gathered.add(None if is_muted(piece) else sure, ended_ns)
        if moment is not None:
            found.append(moment)
    return found


def replay(moments: list[Moment], observer: VoiceObserver | None = None) -> list[list[float]]:
    """Begin and end of what is observed, in seconds."""
    observer = observer or VoiceObserver(SOUND_RULES)
    events = [event for moment in moments for event in observer.process(moment)]
    events += observer.close(moments[-1].ended_mono_ns)
    return [
        [round(event.start_mono_ns / 1e9, 1), round(event.end_mono_ns / 1e9, 1)]
        for event in events
        if event.end_mono_ns is not None
    ]


def stored() -> tuple[list[Moment], dict[str, Any]]:
    """The moments of the trace, and the whole document."""
    document = json.loads(TRACE.read_text())
    return [Moment(round(at * 1e6), share) for at, share in document["moments_ms_share"]], document


def main() -> None:
    """Record anew and show what is observed."""
    moments = hear(sound())
    document = json.loads(TRACE.read_text()) if TRACE.exists() else {"why": "", "approved_s": []}
    document["moments_ms_share"] = [
        [each.ended_mono_ns // 10**6, None if each.share is None else round(each.share, 3)]
        for each in moments
    ]
    TRACE.write_text(json.dumps(document) + "\n")
    print("observed, begin and end in s:", replay(moments))
    print("approved:", document["approved_s"])


if __name__ == "__main__":
    main()
