"""A report by group in words: tables for a terminal, and the same in Markdown for documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from appliance.inference.report import Errors, Figures, Rate, Ratio, Report

Direction = Literal["head_yaw", "head_pitch", "gaze"]
DIRECTIONS: tuple[Direction, ...] = ("head_yaw", "head_pitch", "gaze")
LIMITS = (
    "Figures hold for these pictures and no others. They are of groups of pictures, never of a person, and renders of "
    "one generator are not people."
)
COUNTED = (
    "No face: nobody found in a picture with a face. Several: more found than the one there is. In brackets: Wilson's "
    "interval, 95 %."
)
DIVIDED = (
    "The ratio adds half a missed face and half a picture to each side; it is 1 where all rates are equal. In "
    "brackets: 95 % (Walter 1975), for two values that were chosen after counting."
)
MEASURED = (
    "Mean size of the error (95 % bootstrap interval of it); what nine in ten stay below; number of pictures."
)


@dataclass(frozen=True)
class Table:
    """Headings, rows, and what is to be known about them."""

    heads: list[str]
    rows: list[list[str]]
    notes: list[str]


def as_text(title: str, report: Report) -> str:
    """For a terminal."""
    parts = [f"{title}\n"]
    for table in tables(report, DIRECTIONS):
        widths = [max(map(len, column)) for column in zip(table.heads, *table.rows, strict=True)]
        padded = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in (table.heads, *table.rows)
        ]
        parts.append("\n".join([*padded, *table.notes]) + "\n")
    return "\n".join([*parts, LIMITS]) + "\n"


def as_markdown(report: Report, directions: Sequence[Direction] = DIRECTIONS) -> str:
    """For documentation, with the errors of the named directions."""
    parts = []
    for table in tables(report, directions):
        lines = [table.heads, ["---"] * len(table.heads), *table.rows]
        shown = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        parts.append("\n".join([*shown, "", *table.notes]) + "\n")
    return "\n".join([*parts, LIMITS]) + "\n"


def tables(report: Report, directions: Sequence[Direction]) -> Iterator[Table]:
    """What was found, the ratios where there are groups, and the errors where a row says an angle."""
    sets = [("all", report.everything)]
    for group in report.groups:
        sets += [(f"{_words(group.name)}: {value}", each) for value, each in group.values.items()]
    yield _found(report, sets)
    ratios = [
        [_words(group.name), *_ratio(group.no_face_ratio)] for group in report.groups if group.no_face_ratio
    ]
    if ratios:
        yield Table(["No face by", "highest by lowest", "which"], ratios, [DIVIDED])
    told = [name for name in directions if getattr(report.everything, name) is not None]
    if told:
        heads = ["Errors", *map(_words, told)]
        rows = [[name, *(_errors(getattr(each, direction)) for direction in told)] for name, each in sets]
        zero = report.head_pitch_zero_deg
        less = (
            []
            if zero is None
            else [f"Head pitch is less {zero:.1f}°, the median: where it is 0 is a convention."]
        )
        yield Table(heads, rows, [MEASURED, *less])


def _found(report: Report, sets: list[tuple[str, Figures]]) -> Table:
    heads = ["Pictures", "number", "no face", "several", "unassessable"]
    rows = [
        [name, str(each.pictures), *map(_rate, (each.no_face, each.several, each.unassessable))]
        for name, each in sets
    ]
    if report.everything.face_where_none.pictures:
        heads.append("a face where none is")
        rows = [[*row, _rate(each.face_where_none)] for row, (_, each) in zip(rows, sets, strict=True)]
    notes = [COUNTED]
    if report.not_found:
        notes.append(f"No face was found in {', '.join(report.not_found)}.")
    if report.remarks:
        notes.append(f"No group, having too many values: {', '.join(report.remarks)}.")
    return Table(heads, rows, notes)


def _rate(rate: Rate) -> str:
    if rate.low is None or rate.high is None:
        return "-"
    return f"{rate.count} of {rate.pictures} ({100 * rate.low:.1f} to {100 * rate.high:.1f} %)"


def _errors(errors: Errors | None) -> str:
    if errors is None:
        return "-"
    interval = "" if errors.low_deg is None else f" ({errors.low_deg:.1f} to {errors.high_deg:.1f})"
    return f"{errors.mean_deg:.1f}°{interval}; {errors.p90_deg:.1f}°; {errors.pictures}"


def _ratio(ratio: Ratio) -> tuple[str, str]:
    which = "all alike" if ratio.ratio == 1.0 else f"{ratio.highest} by {ratio.lowest}"
    return f"{ratio.ratio:.2f} ({ratio.low:.2f} to {ratio.high:.1f})", which


def _words(column: str) -> str:
    return column.replace("_", " ")
