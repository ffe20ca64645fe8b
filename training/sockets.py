"""Skin about a person's eyes: corners as deep as people's, lids that lie on the ball.

MakeHuman's corners lie where its balls of 17 mm radius want them, 10 mm before the middle of a person's. How far pupils
shift between the corners when a head turns tells a turned head from turned eyes, so they go back to their place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.eyes import UPPER_LID_MM, Eyes
from training.heads import Head
from training.makehuman import CORNERS

Array = NDArray[np.float64]
# A corner takes along what lies so near (one deviation of a bell curve); skin farther from an eye stays.
CORNER_REACH_MM = 6.5
EYE_REACH_MM = 40.0
# Skin over the ball, and over what closes the gaps beside it; what lies deeper than MOST_LIFTED_MM is no skin.
LID_THICK_MM, GAP_SKIN_MM = 0.7, 0.4
MOST_LIFTED_MM = 5.0
# A wide eye lifts its corners too; upper lids this far below the usual are not wide yet.
WIDE_FROM_MM = UPPER_LID_MM - 0.6


def seated(vertices: Array, head: Head, pair: Eyes) -> Array:
    """Vertices (N, 3) of a face in any expression with corners and lids in their place; MakeHuman's as they are."""
    if pair.style == "makehuman":
        return vertices
    moved = vertices.copy()
    rest = head.vertices_mm
    for side, corners in enumerate(CORNERS):
        centre = pair.centre_mm(head, side)
        at = rest[list(corners)]
        near = np.flatnonzero(np.linalg.norm(rest - at.mean(axis=0), axis=1) < EYE_REACH_MM)
        shares = _shares(rest[near], at)
        # Each corner's bell reaches the other corner: so high that both together move each as far as it should.
        heights = np.linalg.solve(_shares(at, at), centre[2] - np.array(pair.ahead_mm) - at[:, 2])
        moved[near, 2] += shares @ heights
        lift_mm = pair.corners_lift * max(0.0, pair.upper_lid_mm - WIDE_FROM_MM)
        moved[near, 1] -= lift_mm * np.minimum(shares.sum(axis=1), 1.0)
        for middle, least_mm in (
            (pair.behind_mm(head, side), head.eye_radius_mm + GAP_SKIN_MM),
            (centre, pair.radius_mm + LID_THICK_MM),
        ):
            moved[near] = _outside(moved[near], middle, least_mm, centre[2])
    return moved


def _shares(points: Array, corners: Array) -> Array:
    """How much each point (N, 3) goes with each of two corners: (N, 2)."""
    apart = points[:, None] - corners[None]
    return np.asarray(np.exp(-0.5 * (apart**2).sum(axis=2) / CORNER_REACH_MM**2))


def _outside(points: Array, middle: Array, least_mm: float, front_of_z: float) -> Array:
    """Points (N, 3) in front that lie within a ball, brought to its surface."""
    from_middle = points - middle
    away = np.linalg.norm(from_middle, axis=1)
    within = (away < least_mm) & (away > least_mm - MOST_LIFTED_MM) & (points[:, 2] < front_of_z)
    stretch = np.where(within, least_mm / np.maximum(away, 1.0), 1.0)
    return np.asarray(middle + from_middle * stretch[:, None])
