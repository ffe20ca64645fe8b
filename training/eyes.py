"""An eyeball in its socket: a person's anatomy, or MakeHuman's own, which the labelled renders have.

Anatomy: a ball of 12 mm radius that turns about its middle, a cornea of 7.8 mm that bulges from it, an iris disc behind
(Gullstrand; Bron, Tripathi, Tripathi 1997); the line of sight lies kappa inward of the eye's axis. `sockets.py` lays
corners and lids on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training import shade
from training.heads import Head
from training.makehuman import CORNERS

Array = NDArray[np.float64]
Style = Literal["person", "makehuman"]
# Linear light, r g b, near the pupil and at the rim.
IRIS_COLOURS = (
    ((0.075, 0.036, 0.016), (0.045, 0.022, 0.011)),  # dark brown
    ((0.16, 0.075, 0.03), (0.09, 0.045, 0.022)),  # brown
    ((0.20, 0.13, 0.05), (0.10, 0.10, 0.05)),  # hazel
    ((0.16, 0.17, 0.09), (0.11, 0.15, 0.10)),  # green
    ((0.20, 0.26, 0.33), (0.10, 0.16, 0.25)),  # blue
    ((0.26, 0.28, 0.29), (0.14, 0.17, 0.19)),  # grey
)

# How high pupils lie over the line between the corners of an eye: one network sees those of 22 people 2.4 mm over it
# (1.2 mm one deviation) and, with these numbers, drawn ones 2.2 mm (1.1): a third of the height is lost where a ball
# finds no room for it.
ABOVE_CORNERS_MM, ABOVE_CORNERS_SPREAD_MM = 3.4, 1.1
# How far from a pupil the edges of the lids are: of people who look straight on, upper edges 4 and lower ones 5 mm
# (marginal reflex distances; Bashour and Geist 2007). MakeHuman's men have their upper lid over the pupil.
UPPER_LID_MM, UPPER_LID_SPREAD_MM, UPPER_LID_OLD_MM = 4.9, 1.4, -0.8
LOWER_LID_MM, LOWER_LID_SPREAD_MM = 4.2, 1.0
# Many narrow their eyes from both sides, in bright light, with age, to see better: how many, by how much at most.
NARROWED_SHARE, MOST_NARROWED = 0.45, 0.5
# How far the corners lie before the middle of the ball, and the inner one before the outer: the landmark network's
# average face has its outer corners 8 and its inner ones 2 mm behind the middles of the lids, which lie 12 before it.
# MakeHuman's lie 10 before it, so a head that is turned by 20 degrees shifted pupils by 2 mm too much.
AHEAD_MM, AHEAD_SPREAD_MM, INNER_AHEAD_MM, INNER_AHEAD_SPREAD_MM = 5.3, 1.3, 3.0, 1.5
# How much farther out than MakeHuman's front a person's ball lies, so that its corners need not go back all the way.
PROUD_MM = 2.5
CORNER_GAP_MM = 0.7
# Above the upper lid a fold's line, below the lower one another: how far, and of how many people.
FOLDS_MM, FOLDED_SHARE = ((1.0, 5.5), (2.5, 8.0)), 0.7
# Of women with a person's eyes, a drawn line along the upper lid.
LINED_SHARE = 0.3


@dataclass(frozen=True)
class Eyes:
    """What both eyes of a person share; where each lies against the corners of the lids, and the lids against it, and
    how much farther out than MakeHuman's (mm); `ahead_mm`: outer and inner corner before its middle; `corners_lift`:
    how far they go up for a millimetre that the upper lid is raised; `lids_follow`: how much the lids go with the eyes,
    1 as is usual."""

    style: Style
    radius_mm: float
    iris_mm: float
    pupil_mm: float
    inner: Array
    outer: Array
    sclera: Array
    kappa_rad: float
    kappa_up_rad: float
    above_corners_mm: float
    upper_lid_mm: float
    lower_lid_mm: float
    deeper_mm: float
    outward_mm: float
    ahead_mm: tuple[float, float]
    corners_lift: float
    lids_follow: float
    lash_mm: float
    lash_dark: float
    shadow: float
    phase: float
    liner_mm: float
    wing_mm: float
    folds_mm: tuple[float, float]
    folds_dark: tuple[float, float]

    def lid_edges_mm(self, head: Head) -> Array | None:
        """How far down the edges of upper and lower lid are (2 sides, 2), for eyes that look straight on; None where
        they are MakeHuman's own."""
        if self.style == "makehuman":
            return None
        pupils = np.array([self.centre_mm(head, side)[1] for side in (0, 1)])
        return np.stack([pupils - self.upper_lid_mm, pupils + self.lower_lid_mm], axis=1)

    def centre_mm(self, head: Head, side: int) -> Array:
        """Middle of the ball (3,), which touches MakeHuman's larger one from within or stands out of it."""
        socket = head.eyes_mm[side]
        if self.style == "makehuman":
            return socket
        room = head.eye_radius_mm - self.radius_mm
        corners_y = float(head.vertices_mm[list(CORNERS[side]), 1].mean())
        down = float(np.clip(corners_y - self.above_corners_mm - socket[1], -0.9 * room, 0.9 * room))
        outward = -self.outward_mm if side == 0 else self.outward_mm
        forward = float(np.sqrt(max(room**2 - down**2 - outward**2, 0.0)))
        return socket + np.array([outward, down, self.deeper_mm - PROUD_MM - forward])

    def behind_mm(self, head: Head, side: int) -> Array:
        """Middle (3,) of a ball of MakeHuman's size that closes the gaps beside a person's, just behind the corners."""
        if self.style == "makehuman":
            return head.eyes_mm[side]
        centre = self.centre_mm(head, side)
        aside = head.vertices_mm[list(CORNERS[side]), :2] - centre[:2]
        room = np.sqrt(np.maximum(head.eye_radius_mm**2 - (aside**2).sum(axis=1), 1.0))
        least = head.eye_radius_mm - self.radius_mm + 0.3
        return centre + np.array([0.0, 0.0, max(*(room - self.ahead_mm + CORNER_GAP_MM), least)])

    def row(self, head: Head, side: int, axis: Array, turn: Array, place_mm: Array) -> NDArray[np.float32]:
        """Numbers for `shade.eyeballs`; `axis` is the unit vector along which this eye points in the camera's axes,
        `turn` and `place_mm` bring the head there."""
        centre = self.centre_mm(head, side)
        radius = head.eye_radius_mm if self.style == "makehuman" else self.radius_mm
        row = np.zeros(shade.EYE_NUMBERS)
        iris_at = float(np.sqrt(radius**2 - self.iris_mm**2))
        row[shade.CENTRE : shade.CENTRE + 3] = turn @ centre + place_mm
        row[shade.AXIS : shade.AXIS + 3] = axis
        row[shade.RADIUS], row[shade.IRIS_MM], row[shade.PUPIL_MM] = radius, self.iris_mm, self.pupil_mm
        row[shade.IRIS_AT_MM] = iris_at
        if self.style == "person":
            cornea = 7.8 * self.radius_mm / 12.0
            row[shade.CORNEA_MM] = cornea
            row[shade.CORNEA_AT_MM] = iris_at - np.sqrt(max(cornea**2 - self.iris_mm**2, 1.0))
        else:
            # No bulge: the iris lies just under the ball's own surface.
            row[shade.CORNEA_MM], row[shade.CORNEA_AT_MM] = radius, 0.0
        row[shade.INNER : shade.INNER + 3], row[shade.OUTER : shade.OUTER + 3] = self.inner, self.outer
        row[shade.SCLERA : shade.SCLERA + 3] = self.sclera
        row[shade.PHASE] = self.phase + side
        row[shade.SOCKET : shade.SOCKET + 3] = turn @ self.behind_mm(head, side) + place_mm
        row[shade.SOCKET_MM] = head.eye_radius_mm
        row[shade.LASH_MM], row[shade.LASH_DARK], row[shade.SHADOW] = (
            self.lash_mm,
            self.lash_dark,
            self.shadow,
        )
        row[shade.LINER_MM], row[shade.WING_MM] = self.liner_mm, self.wing_mm
        row[shade.FOLDS_MM : shade.FOLDS_MM + 2] = self.folds_mm
        row[shade.FOLDS_DARK : shade.FOLDS_DARK + 2] = self.folds_dark
        return row.astype(np.float32)


def draw(rng: Generator, head: Head, style: Style) -> Eyes:
    """A pair of eyes that suits the head: dark ones are commoner, and the rule outside Europe."""
    pale = head.identity.races[2]
    shares = np.array([0.5, 0.3, 0.05, 0.03, 0.07, 0.05]) * np.where(np.arange(6) < 2, 1.0, 4.0 * pale)
    inner, outer = IRIS_COLOURS[int(rng.choice(6, p=shares / shares.sum()))]
    # Lids and lashes shade it: on photographs it is hardly brighter than light skin.
    white = rng.uniform(0.22, 0.7)
    warm = rng.uniform(0.0, 0.14)
    upper = rng.normal(UPPER_LID_MM + UPPER_LID_OLD_MM * head.identity.ages[2], UPPER_LID_SPREAD_MM)
    lower = rng.normal(LOWER_LID_MM, LOWER_LID_SPREAD_MM)
    narrowed = float(rng.uniform(0.0, MOST_NARROWED)) if rng.random() < NARROWED_SHARE else 0.0
    lined = style == "person" and rng.random() < LINED_SHARE * (1.0 - head.identity.male)
    return Eyes(
        style=style,
        radius_mm=float(np.clip(rng.normal(12.1, 0.4), 11.2, 13.2)),
        iris_mm=float(np.clip(rng.normal(5.9, 0.25), 5.3, 6.5)),
        pupil_mm=float(rng.uniform(1.0, 3.2)),
        inner=np.array(inner) * rng.uniform(0.6, 1.5),
        outer=np.array(outer) * rng.uniform(0.6, 1.5),
        sclera=np.array([white, white * (1 - warm * 0.7), white * (1 - warm)]),
        # Line of sight against the eye's axis: 5 degrees inward, 1 to 2 up of it (Tscherning; Atchison and Smith 2000).
        kappa_rad=np.radians(rng.normal(4.5, 1.5)) if style == "person" else 0.0,
        kappa_up_rad=np.radians(rng.normal(-1.0, 1.0)) if style == "person" else 0.0,
        above_corners_mm=float(rng.normal(ABOVE_CORNERS_MM, ABOVE_CORNERS_SPREAD_MM)),
        upper_lid_mm=float(np.clip(upper, 1.5, 7.0)) * (1.0 - 0.8 * narrowed),
        lower_lid_mm=float(np.clip(lower, 2.0, 7.0)) * (1.0 - narrowed),
        deeper_mm=float(rng.uniform(0.2, 1.0)),
        outward_mm=float(rng.normal(0.0, 0.5)),
        ahead_mm=_ahead(rng),
        corners_lift=float(rng.uniform(0.2, 1.0)),
        # Labelled renders turn eyes without lids; people's lids go with them, more or less.
        lids_follow=float(rng.uniform(0.5, 1.1) if style == "person" else rng.choice([0.0, rng.random()])),
        lash_mm=float(rng.uniform(0.3, 1.6) if rng.random() < 0.8 else rng.uniform(1.6, 3.2)),
        lash_dark=float(rng.uniform(0.25, 0.95)),
        shadow=float(rng.uniform(0.15, 0.7)),
        phase=float(rng.uniform(0.0, 6.28)),
        liner_mm=float(rng.uniform(0.5, 2.2)) if lined else 0.0,
        # Below nothing: a line without a wing.
        wing_mm=float(rng.uniform(-4.0, 8.0)) if lined else 0.0,
        folds_mm=(float(rng.uniform(*FOLDS_MM[0])), float(rng.uniform(*FOLDS_MM[1]))),
        folds_dark=(_fold_dark(rng, style), _fold_dark(rng, style)),
    )


def _fold_dark(rng: Generator, style: Style) -> float:
    return float(rng.uniform(0.1, 0.6)) if style == "person" and rng.random() < FOLDED_SHARE else 0.0


def _ahead(rng: Generator) -> tuple[float, float]:
    mean = rng.normal(AHEAD_MM, AHEAD_SPREAD_MM)
    apart = rng.normal(INNER_AHEAD_MM, INNER_AHEAD_SPREAD_MM)
    return float(mean - apart / 2.0), float(mean + apart / 2.0)
