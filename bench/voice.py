"""How often the rule "voice nearby" hears a voice, and how often it hears one where there is none.

    python -m bench.voice [FOLDER]

FOLDER holds sound files: those whose names begin with `other` hold no voice, all others speak without a break of more
than a second. They are cut into pieces of 8 s and played between 8 s of a noise of a room, mixed with it. Without a
folder: the two sentences of tests/sounds. Noises that are drawn follow, two minutes of each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from appliance.inference.voice import YES_SHARE
from appliance.inference.voice_network import RATE_HZ
from tests.replay.heard import hear, replay
from tests.sounds import NOISES, SPOKEN, Sound, as_samples, at_rms, noise, spoken

PIECE_S, AROUND_S, NOISE_S = 8.0, 8.0, 120.0
BACKGROUNDS = ("fan", "pink noise", "keyboard")
LOUDER_DB = (20, 10, 5, 0, -5)


def pieces(folder: Path | None) -> Iterator[tuple[str, Sound]]:
    """Of every file that speaks."""
    paths = sorted(folder.iterdir()) if folder is not None else [SPOKEN]
    for path in paths:
        if path.name.startswith("other"):
            continue
        sound, length = spoken(path), round(PIECE_S * RATE_HZ)
        for at in range(0, max(1, len(sound) - length // 2), length):
            yield path.name, sound[at : at + length]


def main() -> None:
    """Print the table."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    spoken_pieces = list(pieces(folder))
    print(f"{len(spoken_pieces)} pieces of a voice, {sum(len(p) for _, p in spoken_pieces) / RATE_HZ:.0f} s")
    for background in BACKGROUNDS:
        for louder_db in LOUDER_DB:
            missed, begins, outside = [], [], 0
            for number, (name, piece) in enumerate(spoken_pieces):
                voice = at_rms(piece, 600.0)
                whole = np.concatenate(
                    [np.zeros(round(AROUND_S * RATE_HZ)), voice, np.zeros(round(AROUND_S * RATE_HZ))]
                )
                around = noise(background, len(whole) / RATE_HZ, 600.0 * 10 ** (-louder_db / 20), seed=number)
                found = replay(hear(as_samples(whole + around)))
                end_s = AROUND_S + len(piece) / RATE_HZ
                inside = [each for each in found if each[0] < end_s and each[1] > AROUND_S]
                outside += len(found) - len(inside)
                if inside:
                    begins.append(inside[0][0] - AROUND_S)
                else:
                    missed.append(name)
            print(
                f"{background:12s} voice {louder_db:3d} dB over it: heard {len(begins)} of {len(spoken_pieces)}, "
                f"beside it {outside}; begins after {np.median(begins) if begins else float('nan'):.1f} s; "
                f"missed {sorted(set(missed))}"
            )
    others = [(kind, noise(kind, NOISE_S)) for kind in NOISES]
    others += [(f"{kind}, ten times as loud", noise(kind, NOISE_S, 6000.0, seed=2)) for kind in NOISES]
    if folder is not None:
        others += [(path.name, spoken(path)) for path in sorted(folder.glob("other*"))]
    used_s, whole_s = time.process_time(), 0.0
    for name, sound in others:
        heard = hear(as_samples(sound))
        whole_s += len(sound) / RATE_HZ
        yes = sum(each.share is not None and each.share >= YES_SHARE for each in heard)
        print(
            f"{name}: {len(sound) / RATE_HZ:.0f} s, {len(replay(heard))} observed, {yes} of {len(heard)} moments yes"
        )
    print(f"{(time.process_time() - used_s) / whole_s * 1000:.1f} ms of CPU a second of sound")


if __name__ == "__main__":
    main()
