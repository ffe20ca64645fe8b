"""An eyeball in its socket: a person's anatomy, or MakeHuman's own, which the labelled renders have.

Anatomy: a ball of 12 mm radius that turns about its middle, a cornea of 7.8 mm that bulges from it, an iris disc behind
(Gullstrand; Bron, Tripathi, Tripathi 1997); the line of sight lies kappa inward of the eye's axis. The lids are
MakeHuman's, so the ball touches them in front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training import shade
from training.heads import Head

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

# Real pupils sit higher between the lids than MakeHuman's, and pupil and lids together higher over the corners of the
# eyes, in some people more than in others: so the lids are what tells an eye's pitch, not the corners.
RAISED_MM, RAISED_SPREAD_MM = 1.2, 0.4
LIFTED_MM, LIFTED_SPREAD_MM = 0.5, 0.7
# A person's lower lid touches the iris, MakeHuman's leaves some white between.
LOWER_LID_MM, LOWER_LID_SPREAD_MM = 0.7, 0.5
# Of women with a person's eyes, a drawn line along the upper lid.
LINED_SHARE = 0.3


@dataclass(frozen=True)
class Eyes:
    """What both eyes of a person share, and how far each is from where MakeHuman has it (x outward, y down, mm);
    `lids_follow`: how much the lids go with the eyes, 1 as is usual."""

    style: Style
    radius_mm: float
    iris_mm: float
    pupil_mm: float
    inner: Array
    outer: Array
    sclera: Array
    kappa_rad: float
    kappa_up_rad: float
    raised_mm: float
    lifted_mm: float
    lower_lid_mm: float
    deeper_mm: float
    outward_mm: float
    lids_follow: float
    lash_mm: float
    lash_dark: float
    shadow: float
    phase: float
    liner_mm: float
    wing_mm: float

    @property
    def lids_lifted_mm(self) -> tuple[float, float]:
        """How much higher than MakeHuman's the upper and the lower lid are."""
        return self.lifted_mm, self.lifted_mm + self.lower_lid_mm

    def row(self, head: Head, side: int, axis: Array, turn: Array, place_mm: Array) -> NDArray[np.float32]:
        """Numbers for `shade.eyeballs`; `axis` is the unit vector along which this eye points in the camera's axes,
        `turn` and `place_mm` bring the head there."""
        outward = -1.0 if side == 0 else 1.0
        socket = head.eyes_mm[side]
        shift = np.array([outward * self.outward_mm, -self.raised_mm - self.lifted_mm, 0.0])
        radius = head.eye_radius_mm if self.style == "makehuman" else self.radius_mm
        forward = np.array([0.0, 0.0, -(head.eye_radius_mm - radius) + self.deeper_mm])
        centre = socket + (shift + forward if self.style == "person" else np.zeros(3))
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
        row[shade.SOCKET : shade.SOCKET + 3] = turn @ socket + place_mm
        row[shade.SOCKET_MM] = head.eye_radius_mm
        row[shade.LASH_MM], row[shade.LASH_DARK], row[shade.SHADOW] = (
            self.lash_mm,
            self.lash_dark,
            self.shadow,
        )
        row[shade.LINER_MM], row[shade.WING_MM] = self.liner_mm, self.wing_mm
        return row.astype(np.float32)


def draw(rng: Generator, head: Head, style: Style) -> Eyes:
    """A pair of eyes that suits the head: dark ones are commoner, and the rule outside Europe."""
    pale = head.identity.races[2]
    shares = np.array([0.5, 0.3, 0.05, 0.03, 0.07, 0.05]) * np.where(np.arange(6) < 2, 1.0, 4.0 * pale)
    inner, outer = IRIS_COLOURS[int(rng.choice(6, p=shares / shares.sum()))]
    # Lids and lashes shade it: on photographs it is hardly brighter than light skin.
    white = rng.uniform(0.22, 0.7)
    warm = rng.uniform(0.0, 0.14)
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
        raised_mm=float(np.clip(rng.normal(RAISED_MM, RAISED_SPREAD_MM), 0.0, 2.5)),
        lifted_mm=float(np.clip(rng.normal(LIFTED_MM, LIFTED_SPREAD_MM), -1.0, 2.0))
        if style == "person"
        else 0.0,
        lower_lid_mm=float(rng.normal(LOWER_LID_MM, LOWER_LID_SPREAD_MM)) if style == "person" else 0.0,
        deeper_mm=float(rng.uniform(0.2, 1.0)),
        outward_mm=float(rng.normal(0.0, 0.5)),
        # Labelled renders turn eyes without lids; people's lids go with them, more or less.
        lids_follow=float(rng.uniform(0.5, 1.1) if style == "person" else rng.choice([0.0, rng.random()])),
        lash_mm=float(rng.uniform(0.3, 1.6) if rng.random() < 0.8 else rng.uniform(1.6, 3.2)),
        lash_dark=float(rng.uniform(0.25, 0.95)),
        shadow=float(rng.uniform(0.15, 0.7)),
        phase=float(rng.uniform(0.0, 6.28)),
        liner_mm=float(rng.uniform(0.5, 2.2)) if lined else 0.0,
        # Below nothing: a line without a wing.
        wing_mm=float(rng.uniform(-4.0, 8.0)) if lined else 0.0,
    )
