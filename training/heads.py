"""Heads of people who do not exist: MakeHuman's morphs mixed at random, scaled to a human distance between the eyes.

Coordinates are millimetres from the middle between the eyes, axes as in makehuman.py. Side 0 is the eye that is left
in the picture (the person's right), side 1 the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.makehuman import MakeHuman

Array = NDArray[np.float64]
SIDES = ("r", "l")  # MakeHuman names the person's sides
RACES = ("african", "asian", "caucasian")
AGES = ("child", "young", "old")
# Between the pupils of adults: 63 mm, and 3.7 mm of spread (Dodgson 2004, 3,976 people).
IPD_MM, IPD_SPREAD_MM = 63.0, 3.7
# How often a local morph is used at all, and how far at most: all of them together would be no face.
MORPH_SHARE, MOST_MORPH, MORPH_SPREAD = 0.35, 0.7, 0.3
MORPH_FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "cheek", "chin", "ears", "neck")


@dataclass(frozen=True)
class Identity:
    """What makes a face; the same identity always gives the same head."""

    races: tuple[float, float, float]
    male: float
    ages: tuple[float, float, float]
    muscle: float
    weight: float
    morphs: dict[str, float]
    ipd_mm: float

    @property
    def race(self) -> str:
        """The largest part, for tables by group."""
        return RACES[int(np.argmax(self.races))]

    @property
    def sex(self) -> Literal["female", "male"]:
        """The larger part."""
        return "male" if self.male >= 0.5 else "female"

    @property
    def age(self) -> str:
        """The largest part."""
        return AGES[int(np.argmax(self.ages))]


@dataclass(frozen=True)
class Head:
    """A neutral face with open eyes; `eyes_mm` (2, 3) are the middles of MakeHuman's own eyeballs."""

    identity: Identity
    vertices_mm: Array
    eyes_mm: Array
    eye_radius_mm: float
    scale: float = field(default=1.0)


def draw(rng: Generator, makehuman: MakeHuman) -> Identity:
    """An identity at random: one race mostly, sometimes a mixture; adults mostly."""
    races = rng.dirichlet([0.25, 0.25, 0.25])
    male = float(rng.choice([0.0, 1.0]) if rng.random() < 0.7 else rng.random())
    old = float(rng.beta(0.7, 1.0))
    child = float(rng.uniform(0.0, 0.4)) if rng.random() < 0.15 else 0.0
    ages = (child, (1 - child) * (1 - old), (1 - child) * old)
    return Identity(
        (float(races[0]), float(races[1]), float(races[2])),
        male,
        ages,
        float(rng.random()),
        float(rng.beta(2, 2)),
        _morphs(rng, makehuman),
        float(np.clip(rng.normal(IPD_MM, IPD_SPREAD_MM), 52.0, 76.0)),
    )


def _morphs(rng: Generator, makehuman: MakeHuman) -> dict[str, float]:
    """Opposite morphs exclude each other; both sides of a face are alike but for a tenth."""
    chosen: dict[str, float] = {}
    for folder in MORPH_FOLDERS:
        for pair in _pairs(makehuman.targets(folder)):
            if rng.random() > MORPH_SHARE:
                continue
            name = pair[int(rng.integers(len(pair)))]
            weight = float(min(abs(rng.normal(0.0, MORPH_SPREAD)), MOST_MORPH))
            if "/l-" in name:
                chosen[name.replace("/l-", "/r-")] = weight * float(rng.uniform(0.9, 1.1))
            chosen[name] = weight
    return chosen


def _pairs(names: list[str]) -> list[list[str]]:
    """Targets that exclude each other (`-incr` and `-decr`), without the right side's, which follow the left's."""
    groups: dict[str, list[str]] = {}
    for name in names:
        if "/r-" not in name:
            groups.setdefault(name.rsplit("-", 1)[0], []).append(name)
    return list(groups.values())


def build(identity: Identity, makehuman: MakeHuman) -> Head:
    """The identity's head, centred between its eyes."""
    vertices = makehuman.base_mm.copy()
    for name, weight in _macro(identity).items():
        apply(makehuman, vertices, name, weight)
    for name, weight in identity.morphs.items():
        apply(makehuman, vertices, name, weight)
    eyes = np.array([vertices[makehuman.groups[f"helper-{side}-eye"]].mean(axis=0) for side in SIDES])
    scale = identity.ipd_mm / float(eyes[1, 0] - eyes[0, 0])
    middle = eyes.mean(axis=0)
    first = vertices[makehuman.groups["helper-r-eye"]]
    radius = float(np.linalg.norm(first - eyes[0], axis=1).mean()) * scale
    return Head(identity, (vertices - middle) * scale, (eyes - middle) * scale, radius, scale)


def _macro(identity: Identity) -> dict[str, float]:
    """MakeHuman's product rule: each macro target's weight is the product of the parts that its name holds."""
    sexes = {"female": 1.0 - identity.male, "male": identity.male}
    muscles, weights = _three(identity.muscle, "muscle"), _three(identity.weight, "weight")
    found: dict[str, float] = {}
    for sex, of_sex in sexes.items():
        for age, of_age in zip(AGES, identity.ages, strict=True):
            both = of_sex * of_age
            for race, of_race in zip(RACES, identity.races, strict=True):
                found[f"macrodetails/{race}-{sex}-{age}"] = both * of_race
            for muscle, of_muscle in muscles.items():
                for weight, of_weight in weights.items():
                    found[f"macrodetails/universal-{sex}-{age}-{muscle}-{weight}"] = (
                        both * of_muscle * of_weight
                    )
    return {name: share for name, share in found.items() if share > 0.01}


def _three(value: float, name: str) -> dict[str, float]:
    """A value 0..1 as parts of least, average and most."""
    least, most = max(0.0, 1.0 - 2.0 * value), max(0.0, 2.0 * value - 1.0)
    return {f"min{name}": least, f"average{name}": 1.0 - least - most, f"max{name}": most}


def apply(makehuman: MakeHuman, vertices: Array, name: str, weight: float) -> None:
    """Move vertices by a morph, in place."""
    morph = makehuman.morph(name)
    vertices[morph.index] += weight * morph.by_mm
