"""Counts and errors on labelled pictures, of all and by group: pure statistics for `invigil inspect --report`.

Says how often faces of a group of pictures are found and how far angles are off. Nothing here is about a person, and no
picture is set above another: figures hold for the pictures that they were counted on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.inference.labelled import LabelledPicture, Labels
from appliance.inference.signals import Signals

Z_95 = 1.959964
RESAMPLES = 2000
# Fewer errors than this say nothing about their own spread.
FEWEST_FOR_INTERVAL = 5


@dataclass(frozen=True)
class Reading:
    """What is true of a picture and what was read from it."""

    picture: LabelledPicture
    signals: Signals


@dataclass(frozen=True)
class Rate:
    """`count` of `pictures`, with Wilson's interval at 95 % (shares 0..1, None where there is no picture)."""

    count: int
    pictures: int
    share: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Errors:
    """Sizes of errors in degrees; `low` and `high` are a bootstrap interval of the mean at 95 %, None below
    FEWEST_FOR_INTERVAL pictures."""

    pictures: int
    mean_deg: float
    low_deg: float | None
    high_deg: float | None
    p90_deg: float


@dataclass(frozen=True)
class Figures:
    """One group of pictures, or all. `no_face` and `several` count where there is one face or more, and exactly one."""

    pictures: int
    no_face: Rate
    several: Rate
    face_where_none: Rate
    unassessable: Rate
    head_yaw: Errors | None
    head_pitch: Errors | None
    gaze: Errors | None


@dataclass(frozen=True)
class Ratio:
    """The group's highest rate of "no face" by its lowest, and which values have them; see `no_face_ratio`."""

    highest: str
    lowest: str
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """A column of labels.csv: figures of each of its values; `no_face_ratio` is None with fewer than two values."""

    name: str
    values: dict[str, Figures]
    no_face_ratio: Ratio | None


@dataclass(frozen=True)
class Report:
    """`head_pitch_zero_deg` is the constant that was taken out of the pitch errors, the median of all of them;
    `not_found` names the pictures in which a face is and none was found."""

    everything: Figures
    groups: tuple[Group, ...]
    head_pitch_zero_deg: float | None
    not_found: tuple[str, ...]
    remarks: tuple[str, ...]


def make_report(labels: Labels, signals: Sequence[Signals]) -> Report:
    """The report on pictures that were read in the order of their labels."""
    readings = [Reading(picture, read) for picture, read in zip(labels.pictures, signals, strict=True)]
    pitch = [off for reading in readings if (off := _head_off(reading, "head_pitch_deg")) is not None]
    zero_deg = float(np.median(pitch)) if pitch else None
    return Report(
        figures(readings, zero_deg or 0.0),
        tuple(_group(column, readings, zero_deg or 0.0) for column in labels.groups),
        zero_deg,
        tuple(reading.picture.file for reading in readings if _unseen(reading)),
        labels.remarks,
    )


def figures(readings: list[Reading], pitch_zero_deg: float) -> Figures:
    """Counts and errors of some pictures."""
    with_face = [reading for reading in readings if reading.picture.faces >= 1]
    single = [reading for reading in readings if reading.picture.faces == 1]
    empty = [reading for reading in readings if reading.picture.faces == 0]
    return Figures(
        pictures=len(readings),
        no_face=_rate(with_face, _unseen),
        several=_rate(single, lambda reading: reading.signals.faces > 1),
        face_where_none=_rate(empty, lambda reading: reading.signals.faces > 0),
        unassessable=_rate(readings, lambda reading: not reading.signals.assessable),
        head_yaw=errors([_head_off(reading, "head_yaw_deg") for reading in readings]),
        head_pitch=errors(
            [_less(_head_off(reading, "head_pitch_deg"), pitch_zero_deg) for reading in readings]
        ),
        gaze=errors([_gaze_off_deg(reading) for reading in readings]),
    )


def _group(column: str, readings: list[Reading], pitch_zero_deg: float) -> Group:
    """Pictures whose row leaves the column empty count in none of its values."""
    named = list(dict.fromkeys(r.picture.values[column] for r in readings if r.picture.values[column]))
    values = {
        value: figures([r for r in readings if r.picture.values[column] == value], pitch_zero_deg)
        for value in named
    }
    return Group(column, values, no_face_ratio({value: each.no_face for value, each in values.items()}))


def no_face_ratio(rates: dict[str, Rate]) -> Ratio | None:
    """How many times as often a face is missed where it is missed most as where it is missed least.

    Half a missed face and half a picture are added on both sides, so that a rate of nothing can be divided by:
    (a + 1/2) / (n + 1/2) by (b + 1/2) / (m + 1/2), with the interval of its logarithm (Walter 1975). Where all rates
    are equal, as without any miss, the ratio is 1, whatever the numbers of pictures. Of values with equal rates the one
    with more pictures is taken. The two are chosen after counting, which the interval does not know. None below two.
    """
    shares = {value: rate.share for value, rate in rates.items() if rate.share is not None}
    if len(shares) < 2:
        return None
    by_share = sorted(shares, key=lambda value: shares[value])
    least, most = shares[by_share[0]], shares[by_share[-1]]
    lowest = max((v for v in by_share if shares[v] == least), key=lambda v: rates[v].pictures)
    others = [v for v in by_share if shares[v] == most and v != lowest]
    highest = max(others, key=lambda v: rates[v].pictures)
    a, n = rates[highest].count + 0.5, rates[highest].pictures + 0.5
    b, m = rates[lowest].count + 0.5, rates[lowest].pictures + 0.5
    ratio = 1.0 if least == most else (a / n) / (b / m)
    reach = math.exp(Z_95 * math.sqrt(1 / a - 1 / n + 1 / b - 1 / m))
    return Ratio(highest, lowest, ratio, ratio / reach, ratio * reach)


def rate(count: int, pictures: int) -> Rate:
    """Wilson's score interval (Wilson 1927), which is of use near 0 and 1 too."""
    if pictures == 0:
        return Rate(0, 0, None, None, None)
    share, z2 = count / pictures, Z_95**2
    middle = (share + z2 / (2 * pictures)) / (1 + z2 / pictures)
    reach = Z_95 * math.sqrt(share * (1 - share) / pictures + z2 / (4 * pictures**2)) / (1 + z2 / pictures)
    return Rate(count, pictures, share, max(0.0, middle - reach), min(1.0, middle + reach))


def errors(off_deg: Sequence[float | None]) -> Errors | None:
    """Of the sizes of those that there are; None where there is none. The bootstrap draws the same each time."""
    sizes: NDArray[np.float64] = np.abs(np.array([off for off in off_deg if off is not None], np.float64))
    if not len(sizes):
        return None
    low = high = None
    if len(sizes) >= FEWEST_FOR_INTERVAL:
        drawn = np.random.default_rng(0).integers(len(sizes), size=(RESAMPLES, len(sizes)))
        low, high = (float(edge) for edge in np.percentile(sizes[drawn].mean(axis=1), (2.5, 97.5)))
    return Errors(len(sizes), float(sizes.mean()), low, high, float(np.percentile(sizes, 90)))


def _rate(readings: list[Reading], counts: Callable[[Reading], bool]) -> Rate:
    return rate(sum(map(counts, readings)), len(readings))


def _unseen(reading: Reading) -> bool:
    return reading.picture.faces >= 1 and reading.signals.faces == 0


def _head_off(reading: Reading, angle: str) -> float | None:
    true: float | None = getattr(reading.picture, angle)
    read: float | None = getattr(reading.signals, angle)
    return None if true is None or read is None else read - true


def _less(off_deg: float | None, zero_deg: float) -> float | None:
    return None if off_deg is None else off_deg - zero_deg


def _gaze_off_deg(reading: Reading) -> float | None:
    """Angle between the direction that was read and the true one."""
    true, read = reading.picture, reading.signals
    angles = (true.gaze_yaw_deg, true.gaze_pitch_deg, read.gaze_yaw_deg, read.gaze_pitch_deg)
    if None in angles:
        return None
    yaw, pitch, read_yaw, read_pitch = (math.radians(angle) for angle in angles if angle is not None)
    cosine = math.sin(pitch) * math.sin(read_pitch)
    cosine += math.cos(pitch) * math.cos(read_pitch) * math.cos(read_yaw - yaw)
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))
