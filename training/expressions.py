"""What a face does: lids that close and follow the eyes, smiles that lift the cheeks, brows that rise or frown.

Mika Suominen's Face Units for MakeHuman (CC0) in mixtures that people show, each side a little apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.heads import RACES, Head, apply
from training.makehuman import LID_EDGES, MakeHuman

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
    half_shut = rng.random() < 0.1
    units = _units(rng, is_person)
    if not is_person:
        shut = rng.uniform(0.25, 0.55) if half_shut else rng.uniform(-0.5, 0.1)
        return Expression(units, (float(shut), float(shut)))
    # People's two eyes are never quite alike, and some screw one up.
    shut = rng.uniform(0.25, 0.6) if half_shut else rng.normal(0.0, 0.06)
    apart = rng.normal(0.0, 0.12) if rng.random() < 0.2 else rng.normal(0.0, 0.03)
    return Expression(units, (float(shut - apart), float(shut + apart)))


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
    head: Head, makehuman: MakeHuman, expression: Expression, follow_rad: float, edges_mm: Array | None
) -> Array:
    """Vertices of a head that does this; `follow_rad` is the eyes' upward turn that the lids go with, `edges_mm` where
    the edges of the lids are otherwise, see `eyes.Eyes.lid_edges_mm`."""
    vertices = head.vertices_mm.copy()
    for unit, weight in expression.units.items():
        moves = makehuman.face_unit(unit)
        vertices[moves.index] += weight * head.scale * moves.by_mm
    for side, shut in enumerate(expression.closed):
        down_to: tuple[float | None, float | None] = (None, None)
        if edges_mm is None:
            _closed(head, makehuman, vertices, side, shut)
        else:
            upper, lower = (float(each) for each in edges_mm[side])
            down_to = (upper + shut * (lower - upper), lower)
        # The upper lid goes with two thirds of the eye's turn, the lower with a third (Becker and Fuchs 1988); of what
        # its bone turns, MakeHuman's lower lid shows three quarters.
        for lid, share, y_mm in zip(("upper", "lower"), (0.6, 0.4), down_to, strict=True):
            turn = follow_rad * share + (0.0 if y_mm is None else _turn_to(head, makehuman, lid, side, y_mm))
            weights = makehuman.lid_weights[f"{lid}.{'RL'[side]}"]
            moved = np.flatnonzero(weights > 0)
            from_eye = vertices[moved] - head.eyes_mm[side]
            vertices[moved] += weights[moved, None] * (_turned_up(from_eye, turn) - from_eye)
    return vertices


def _closed(head: Head, makehuman: MakeHuman, vertices: Array, side: int, shut: float) -> None:
    unit = f"eye-{SIDES[side].lower()}-{'closure' if shut >= 0 else 'opened-up'}"
    for race, share in zip(RACES, head.identity.races, strict=True):
        apply(makehuman, vertices, f"expression/units/{race}/{unit}", share * abs(shut) * head.scale)


def _turn_to(head: Head, makehuman: MakeHuman, lid: str, side: int, y_mm: float) -> float:
    """By how much to turn a lid up (radians) so that the middle of its edge, in a face at rest, comes to `y_mm`."""
    edge = LID_EDGES[lid][side]
    _, y, z = (float(each) for each in head.vertices_mm[edge] - head.eyes_mm[side])
    to_y = y + (y_mm - head.eyes_mm[side, 1] - y) / makehuman.lid_weights[f"{lid}.{'RL'[side]}"][edge]
    radius = math.hypot(y, z)
    return math.asin(min(max(-to_y / radius, -1.0), 1.0)) - math.atan2(-y, -z)


def _turned_up(points: Array, by_rad: float) -> Array:
    cos, sin = np.cos(by_rad), np.sin(by_rad)
    y, z = points[:, 1], points[:, 2]
    return np.stack([points[:, 0], cos * y + sin * z, -sin * y + cos * z], axis=1)
