"""Lids and creases over crops of drawn eyes, by the marks that say where corners and iris lie; for training alone.

MakeHuman's lids differ less than people's: nobody's lower lid stands in an arch before the iris while he looks straight
on, no crease goes on where the lids meet, no flesh fills the corners. Networks read all three as a look upward.
"""

from __future__ import annotations

import math

import tensorflow as tf

from appliance.inference.eye_crops import CROP_MM, CROP_PX

PX_PER_MM = CROP_PX[0] / CROP_MM
# How many pairs get lids, and how many of those a lower and an upper one; how many get creases.
NARROWED_SHARE, LOWER_SHARE, UPPER_SHARE = 0.6, 0.8, 0.6
CREASED_SHARE = 0.7
# From the middle of the iris to an edge (mm), and from the line between the corners to the ends of that edge.
LOWER_EDGE_MM, UPPER_EDGE_MM, ENDS_MM = (1.8, 6.0), (0.8, 6.5), (-0.5, 2.0)
# The two eyes of a pair differ by so much (one deviation).
APART_MM = 0.25
# How far an arch may leave the line between its ends, in pixels down.
LOWER_BOW_PX, UPPER_BOW_PX = (-6.0, 5.0), (-12.0, 2.0)
# A lid is the skin so many pixels farther away.
SKIN_FROM_PX = (4, 9)


def overdrawn(pairs: tf.Tensor, marks: tf.Tensor, allowed: tf.Tensor) -> tf.Tensor:
    """Pairs of crops (N, 2, height, width, 1) with other lids and creases where `allowed` (N); `marks` (N, 2, 3, 2)."""
    count = tf.shape(pairs)[0]
    eyes = pairs[..., 0]
    lids, creases = (
        allowed & (tf.random.uniform((count,)) < share) for share in (NARROWED_SHARE, CREASED_SHARE)
    )
    return _creased(_narrowed(eyes, marks, _weight(lids)), marks, _weight(creases))[..., None]


def _narrowed(eyes: tf.Tensor, marks: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Eyes (N, 2, height, width) with a lower and an upper lid that cover more of them, or nothing."""
    count = tf.shape(eyes)[0]
    outer, inner, iris = (marks[:, :, number] for number in range(3))
    half = tf.maximum(_wide((inner - outer)[..., 0]) / 2.0, 6.0)
    middle = (outer + inner) / 2.0
    aside = (_across() - _wide(middle[..., 0])) / half
    line = _wide(middle[..., 1]) + _wide((inner - outer)[..., 1]) / 2.0 * tf.clip_by_value(aside, -1.3, 1.3)
    lean = _wide(tf.random.uniform((count, 2), -0.25, 0.25))
    bow = 1.0 - tf.minimum(tf.abs(aside - lean), 1.4) ** 2

    def edge(below: float, edge_mm: tuple[float, float], bow_px: tuple[float, float]) -> tf.Tensor:
        ends = _wide(_alike(count, ENDS_MM)) * below * PX_PER_MM
        top = _wide(iris[..., 1]) + _wide(_alike(count, edge_mm)) * below * PX_PER_MM
        arch = tf.clip_by_value(top - _wide(middle[..., 1]) - ends, *bow_px)
        return line + ends + arch * bow

    down = _down()
    beside = tf.cast(tf.abs(aside) < 1.0, tf.float32)
    for below, share, lash, edge_mm, bow_px in (
        (1.0, LOWER_SHARE, 0.5, LOWER_EDGE_MM, LOWER_BOW_PX),
        (-1.0, UPPER_SHARE, 1.0, UPPER_EDGE_MM, UPPER_BOW_PX),
    ):
        one = weight * _weight(tf.random.uniform((count,)) < share)
        beyond = (down - edge(below, edge_mm, bow_px)) * below
        covered = one * tf.sigmoid(beyond / 0.4)
        eyes = eyes * (1.0 - covered) + _from_beyond(eyes, below) * covered
        eyes -= one * lash * _each(count, 0.0, 1.2) * tf.exp(-((beyond / 0.85) ** 2)) * beside
    return eyes


def _from_beyond(eyes: tf.Tensor, below: float) -> tf.Tensor:
    """What lies some pixels farther below (or above, where `below` is negative) each pixel."""
    by = tf.random.uniform((), *SKIN_FROM_PX, tf.int32)
    if below > 0:
        return tf.concat([eyes[:, :, by:], tf.repeat(eyes[:, :, -1:], by, axis=2)], axis=2)
    return tf.concat([tf.repeat(eyes[:, :, :1], by, axis=2), eyes[:, :, :-by]], axis=2)


def _creased(eyes: tf.Tensor, marks: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Eyes with lines from the outer corner outward, one from the inner corner below the eye, and filled corners."""
    count = tf.shape(eyes)[0]
    outer, inner, iris = (marks[:, :, number] for number in range(3))
    for corner, angle, length_px, dark in (
        (outer, (math.pi - 0.9, math.pi + 0.35), (4.0, 16.0), 1.3),
        (outer, (math.pi - 0.9, math.pi + 0.35), (4.0, 16.0), 1.3),
        (inner, (math.pi - 0.9, math.pi - 0.15), (6.0, 22.0), 1.0),
    ):
        at = corner + tf.random.normal((count, 1, 2)) * tf.constant([1.0, 1.2])
        strength = weight * _weight(tf.random.uniform((count,)) < 0.5) * _each(count, 0.2, dark)
        eyes -= strength * _line(count, at, _each(count, *angle), _each(count, *length_px))
    for corner, wide_px, tone in ((inner, (2.0, 4.5), (-1.2, 0.8)), (outer, (1.5, 3.5), (-1.6, 0.2))):
        at = corner + (iris - corner) * tf.random.uniform((count, 1, 1), 0.05, 0.22)
        across, down = _across() - _wide(at[..., 0]), _down() - _wide(at[..., 1])
        spot = tf.exp(-((across / _each(count, *wide_px)) ** 2) - (down / _each(count, 1.0, 2.2)) ** 2)
        filled = weight * _weight(tf.random.uniform((count,)) < 0.55) * _each(count, 0.3, 1.0) * spot
        eyes = eyes * (1.0 - filled) + _each(count, *tone) * filled
    return eyes


def _line(count: tf.Tensor, at: tf.Tensor, angle: tf.Tensor, length_px: tf.Tensor) -> tf.Tensor:
    """A soft line from near `at` (N, 2, 2) on; angles are clockwise from the right."""
    across, down = _across() - _wide(at[..., 0]), _down() - _wide(at[..., 1])
    along = across * tf.cos(angle) + down * tf.sin(angle) - _each(count, -3.0, 3.0)
    off = (down * tf.cos(angle) - across * tf.sin(angle)) / _each(count, 0.6, 1.6)
    return tf.sigmoid(along / 0.7) * tf.sigmoid((length_px - along) / 1.5) * tf.exp(-(off**2))


def _across() -> tf.Tensor:
    return tf.range(CROP_PX[0], dtype=tf.float32)[None, None, None, :]


def _down() -> tf.Tensor:
    return tf.range(CROP_PX[1], dtype=tf.float32)[None, None, :, None]


def _wide(of_each_eye: tf.Tensor) -> tf.Tensor:
    return of_each_eye[:, :, None, None]


def _weight(chosen: tf.Tensor) -> tf.Tensor:
    return tf.cast(chosen, tf.float32)[:, None, None, None]


def _each(count: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return tf.random.uniform((count, 1, 1, 1), low, high)


def _alike(count: tf.Tensor, between_mm: tuple[float, float]) -> tf.Tensor:
    """A length (N, 2) that the two eyes of a pair all but share."""
    return tf.random.uniform((count, 1), *between_mm) + tf.random.normal((count, 2)) * APART_MM
