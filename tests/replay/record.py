"""`python -m tests.replay.record`: records traces with the node's own tracker, shows what is observed, approves it.

python -m tests.replay.record                      every film whose clips are here
python -m tests.replay.record NAME | CLIP.mp4 …    these; a clip of one's own is stored under its file's name
python -m tests.replay.record --show NAME …        approved and present observations side by side, no recording
python -m tests.replay.record --approve NAME … [--why "..."]   for a person who has read what --show says
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from appliance.inference.models import ALLOWED, load_models
from appliance.inference.signals import Signals
from appliance.inference.watch import Watch
from tests.replay import films, traces
from tests.scenes import Image


def signals_of(pictures: Iterable[Image], one_camera: bool = True) -> Iterator[Signals]:
    """What a node would read from a film at RATE_HZ; without `one_camera`, where it stands is left out."""
    watch = Watch(load_models())
    for number, picture in enumerate(pictures):
        signals = watch.process(picture, traces.START_NS + round(number * 1e9 / films.RATE_HZ))
        yield signals if one_camera else replace(signals, moved=None, in_place_percent=None)


def record(name: str, film: list[films.Part]) -> None:
    """Record one film and say what is observed in it."""
    about = {
        "parts": [f"{part.source.name} {part.seconds:g} s{_treated(part)}" for part in film],
        "rate_hz": films.RATE_HZ,
        "models": {model.file: model.sha256[:16] for model in ALLOWED},
    }
    path = traces.write(name, about, signals_of(films.frames(film), name not in films.CUT_TOGETHER))
    print(f"{name}: {path.stat().st_size} bytes")
    show(name)


def show(name: str) -> None:
    """Approved and present observations, side by side."""
    present = traces.replay(traces.read(name))
    known = name in traces.approved_names()
    why, then = traces.approved(name) if known else ("nobody has approved it yet", [])
    print(f"{name}: {why}\n{traces.side_by_side(then, present)}\n")


def approve(name: str, why: str | None) -> None:
    """Take the present observations as right."""
    reason = why or traces.approved(name)[0]
    traces.approve(name, reason, traces.replay(traces.read(name)))


def main(arguments: list[str]) -> int:
    """Returns 0; exits with 2 and a sentence where a name or a clip is not there."""
    options = argparse.ArgumentParser(
        prog="python -m tests.replay.record", description=__doc__.split("\n")[0]
    )
    options.add_argument("names", nargs="*", metavar="NAME|CLIP", help="default: every film, or every trace")
    options.add_argument("--show", action="store_true", help="record nothing, compare")
    options.add_argument("--approve", action="store_true", help="take what is observed now as right")
    options.add_argument("--why", help="with --approve: one sentence, needed the first time")
    chosen = options.parse_args(arguments)
    if chosen.approve and not chosen.names:
        options.error("name the traces to approve")
    if chosen.show or chosen.approve:
        names = chosen.names or traces.names()
        if strays := sorted(set(names) - set(traces.names())):
            options.error(f"no such trace: {', '.join(strays)}")
        if chosen.approve and not chosen.why and (bare := sorted(set(names) - set(traces.approved_names()))):
            options.error(f"say --why what is observed is right, for the first time: {', '.join(bare)}")
        for name in names:
            if chosen.approve:
                approve(name, chosen.why)
            show(name)
        return 0
    for name in chosen.names or films.FILMS:
        if name not in films.FILMS and not Path(name).is_file():
            options.error(f"no such film or clip: {name}")
        film = films.FILMS.get(name) or films.of_clip(Path(name))
        if absent := films.missing(film):
            print(f"{name}: not recorded, {', '.join(map(str, absent))} is not here")
        else:
            record(Path(name).stem, film)
    return 0


def _treated(part: films.Part) -> str:
    function = getattr(part.treatment, "func", part.treatment)
    name = getattr(function, "__name__", "")
    return f", {name.strip('_').replace('_', ' ')}" if name else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
