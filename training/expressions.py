"""What a face does: lids that close and follow the eyes, smiles that lift the cheeks, brows that rise or frown.

Mika Suominen's Face Units for MakeHuman (CC0) in mixtures that people show, each side a little apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.heads import RACES, Head, apply
from training.makehuman import MakeHuman

Array = NDArray[np.float64]
SIDES = ("Right", "Left")  # the person's own; side 0 is left in the picture
# Units of which a face may do two or three at once: of each side, and of both together.
PAIRED = (
    "browDown", "browOuterUp", "cheekSquint", "eyeSquint", "mouthFrown", "mouthPress", "mouthStretch", "mouthUpperUp",
    "noseSneer",
)  # fmt: skip
MIDDLE = (
    "browInnerUp", "cheekPuff", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthFunnel", "mouthPucker",
    "mouthRollUpper", "mouthShrugUpper",
)  # fmt: skip
# Of an open eye, what a full squint hides.
SQUINT_HIDES = 0.4


@dataclass(frozen=True)
class Expression:
    """Weights of face units, 0..1; how far each eye is `closed` by its upper lid (below 0: wide open)."""

    units: dict[str, float]
    closed: tuple[float, float]

    @property
    def open_share(self) -> float:
        """Of a wide open eye, as far as lids alone say; the smaller of both."""
        squints = [SQUINT_HIDES * self.units.get(f"eyeSquint{side}", 0.0) for side in SIDES]
        return 1.0 - max(0.0, *(shut + squint for shut, squint in zip(self.closed, squints, strict=True)))


def draw(rng: Generator, is_person: bool) -> Expression:
    """What a face does at random. Heads with MakeHuman's own eyes, as labelled renders have them, mostly do nothing."""
    shut = rng.uniform(0.25, 0.55) if rng.random() < 0.1 else rng.uniform(-0.5, 0.1)
    units = _units(rng, is_person)
    if not is_person:
        return Expression(units, (float(shut), float(shut)))
    # People's two eyes are never quite alike, some screw one up, and upper lids hang lower than MakeHuman's.
    apart = rng.normal(0.0, 0.18) if rng.random() < 0.2 else rng.normal(0.0, 0.03)
    hang = rng.beta(1.2, 3.0) * 0.25
    left, right = (each + hang * (1.0 - max(each, 0.0)) for each in (shut - apart, shut + apart))
    return Expression(units, (float(left), float(right)))


def _units(rng: Generator, is_person: bool) -> dict[str, float]:
    kind = rng.random()
    if kind < 0.3:
        return _smiling(rng)
    if kind >= 0.65 or not is_person:
        return {}
    return _frowning(rng) if kind < 0.45 else _mixed(rng)


def _smiling(rng: Generator) -> dict[str, float]:
    much = rng.uniform(0.2, 1.0)
    return {
        "jawOpen": much * rng.uniform(0.0, 0.4),
        **_both(rng, "mouthSmile", much),
        **_both(rng, "mouthUpperUp", much * rng.uniform(0.0, 0.7)),
        **_both(rng, "cheekSquint", much * rng.uniform(0.3, 1.0)),
        **_both(rng, "eyeSquint", much * rng.uniform(0.0, 0.8)),
        **_both(rng, "noseSneer", much * rng.uniform(0.0, 0.3)),
    }


def _frowning(rng: Generator) -> dict[str, float]:
    return {
        **_both(rng, "browDown", rng.uniform(0.0, 1.0)),
        **_both(rng, "eyeSquint", rng.uniform(0.1, 1.0)),
        **_both(rng, "cheekSquint", rng.uniform(0.0, 0.6)),
        **_both(rng, "noseSneer", rng.uniform(0.0, 0.6)),
    }


def _mixed(rng: Generator) -> dict[str, float]:
    units: dict[str, float] = {}
    for name in rng.choice(PAIRED, 2, replace=False):
        units |= _both(rng, str(name), rng.uniform(0.0, 0.9))
    return units | {str(name): rng.uniform(0.0, 0.7) for name in rng.choice(MIDDLE, 2, replace=False)}


def _both(rng: Generator, unit: str, weight: float) -> dict[str, float]:
    return {f"{unit}{side}": weight * rng.uniform(0.8, 1.2) for side in SIDES}


def applied(
    head: Head,
    makehuman: MakeHuman,
    expression: Expression,
    follow_rad: float,
    lifted_mm: tuple[float, float],
) -> Array:
    """Vertices of a head that does this; `follow_rad` is the eyes' upward turn that the lids go with, `lifted_mm` how
    much higher than MakeHuman's its upper and lower lids are anyway."""
    vertices = head.vertices_mm.copy()
    for unit, weight in expression.units.items():
        moves = makehuman.face_unit(unit)
        vertices[moves.index] += weight * head.scale * moves.by_mm
    for side, shut in enumerate(expression.closed):
        unit = f"eye-{SIDES[side].lower()}-{'closure' if shut >= 0 else 'opened-up'}"
        for race, share in zip(RACES, head.identity.races, strict=True):
            apply(makehuman, vertices, f"expression/units/{race}/{unit}", share * abs(shut) * head.scale)
        # The upper lid goes with two thirds of the eye's turn, the lower with a third (Becker and Fuchs 1988); of what
        # its bone turns, MakeHuman's lower lid shows three quarters.
        for lid, share, lifted, shown in (
            ("upper", 0.6, lifted_mm[0], 1.0),
            ("lower", 0.3, lifted_mm[1], 0.75),
        ):
            weights = makehuman.lid_weights[f"{lid}.{'RL'[side]}"]
            moved = np.flatnonzero(weights > 0)
            from_eye = vertices[moved] - head.eyes_mm[side]
            turned = _turned_up(from_eye, (follow_rad * share + lifted / head.eye_radius_mm) / shown)
            vertices[moved] += weights[moved, None] * (turned - from_eye)
    return vertices


def _turned_up(points: Array, by_rad: float) -> Array:
    cos, sin = np.cos(by_rad), np.sin(by_rad)
    y, z = points[:, 1], points[:, 2]
    return np.stack([points[:, 0], cos * y + sin * z, -sin * y + cos * z], axis=1)
