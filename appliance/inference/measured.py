"""What was measured of the rules' readings: the figures that explanation cards quote. Pure data.

`what` and `figure` are a row of the table in docs/observations.md, word for word (test_cards.py holds them together):
whoever measures again (`python -m bench.inference --accuracy ../shared/data`) changes both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# True of every figure below.
LIMITS = "One reading a picture, not the rule over time; glasses not told apart; not on real exams."

SOUND_LIMITS = (
    "Played as numbers, not through a microphone in a room; whispering, far voices, radio not measured."
)


@dataclass(frozen=True)
class Figure:
    """One measurement for `kinds`; `light` is the condition in which it holds.

    `sample_size` pictures, `sample` says of what they are.
    """

    kinds: tuple[str, ...]
    light: Literal["good", "any"]
    what: str
    figure: str
    sample_size: int
    sample: str
    limits: str = LIMITS


FIGURES: tuple[Figure, ...] = (
    Figure(
        kinds=("nobody_at_desk", "several_people"),
        light="good",
        what="nobody, one or several people",
        figure="47 of 47 photos right",
        sample_size=47,
        sample="photos, on which the thresholds were chosen",
    ),
    Figure(
        kinds=("head_turned_away",),
        light="good",
        what="head yaw, mean absolute error",
        figure="1.4° (95 %: 4.2°), side right in 29 of 29 beyond 5°",
        sample_size=36,
        sample="renders of one generator, none beyond 37°, so none where this rule begins",
    ),
    Figure(
        kinds=("gaze_outside_work_area",),
        light="good",
        what="gaze, mean angle to the true direction",
        figure="2.5° (median 2.4°, worst 6.9°) after an offset in pitch, side right in 23 of 23 beyond 10°",
        sample_size=36,
        sample="renders of one generator",
    ),
    Figure(
        kinds=("gaze_outside_work_area",),
        light="good",
        what="gaze of 22 photos looking into the lens",
        figure="4.7° from it; in yaw 20° at most, within 10° for 21 of 22",
        sample_size=22,
        sample="photos",
    ),
    Figure(
        kinds=("camera_moved",),
        light="good",
        what="a camera that stands, before people and light that move, is taken for moved",
        figure="0 of 9,400 looks, 1,275 of which cannot be told",
        sample_size=47,
        sample="photos, as backgrounds of drawn scenes",
    ),
    Figure(
        kinds=("camera_moved",),
        light="good",
        what="tilted by 20 %; rolled by 10°; knocked (15 % aside, 5 % down, 5°)",
        figure="47; 42; 45 of 47",
        sample_size=47,
        sample="photos, moved by drawing",
    ),
    Figure(
        kinds=("camera_covered", "camera_blurred"),
        light="any",
        what="pictures blurred by 1 % of their width; hand; cap",
        figure="all blur; all covered; all covered",
        sample_size=47,
        sample="photos, spoilt by drawing",
    ),
    Figure(
        kinds=("voice_nearby",),
        light="any",
        what="a voice of 8 s, 0 to 20 dB over a fan, pink noise or a keyboard",
        figure="heard in 415 of 432 (5 dB under it: 87 of 108)",
        sample_size=36,
        sample="pieces of 8 s in 15 mixtures, 28 of them from two recordings of people, 8 spoken by a machine",
        limits=SOUND_LIMITS,
    ),
    Figure(
        kinds=("voice_nearby",),
        light="any",
        what="20 kinds of noise without a voice, 80 minutes",
        figure="0 observed; 0 of 9,360 half seconds",
        sample_size=40,
        sample="drawn noises of 2 minutes",
        limits=SOUND_LIMITS,
    ),
)
