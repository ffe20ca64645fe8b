"""Labelled folders: pictures with a `labels.csv` that says what is true of each.

docs/observations.md lists its columns. Read for `invigil inspect --report`; every row is checked before the first
picture is opened.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import BadInput
from appliance.reading import read_file

LABELS = "labels.csv"
HINT = "docs/observations.md, Figures by group, lists the columns of labels.csv"
MAX_LABELS_BYTES = 16 * 2**20
REQUIRED = ("file", "faces")
# Largest size in degrees of an angle that a column may hold.
ANGLES = {"head_yaw_deg": 180.0, "head_pitch_deg": 90.0, "gaze_yaw_deg": 180.0, "gaze_pitch_deg": 90.0}
MOST_FACES = 1000
# A column with more different values than this holds remarks, not groups.
MOST_VALUES = 12


@dataclass(frozen=True)
class LabelledPicture:
    """One row: what is true of a picture. Angles as in `Signals`, None where the row says nothing."""

    file: str
    faces: int
    head_yaw_deg: float | None
    head_pitch_deg: float | None
    gaze_yaw_deg: float | None
    gaze_pitch_deg: float | None
    values: dict[str, str]


@dataclass(frozen=True)
class Labels:
    """All rows; `groups` are the columns to report by, `remarks` those with too many values for that."""

    pictures: tuple[LabelledPicture, ...]
    groups: tuple[str, ...]
    remarks: tuple[str, ...]


def read_labels(folder: Path) -> Labels:
    """The labels of a folder; raises BadInput, with the line, where one cannot be used."""
    path = folder / LABELS
    rows = _rows(path)
    columns = list(rows[0]) if rows else []
    others = [column for column in columns if column not in (*REQUIRED, *ANGLES)]
    pictures = []
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        picture = _picture(f"{path} row {number}", row, others)
        if picture.file in seen:
            raise BadInput(f"{path} row {number}: {picture.file} is there twice", HINT)
        if not (folder / picture.file).is_file():
            raise BadInput(f"{path} row {number}: there is no file {picture.file}", HINT)
        seen.add(picture.file)
        pictures.append(picture)
    if not pictures:
        raise BadInput(f"{path} has no row", HINT)
    different = {column: len({picture.values[column] for picture in pictures} - {""}) for column in others}
    return Labels(
        tuple(pictures),
        tuple(column for column in others if 0 < different[column] <= MOST_VALUES),
        tuple(column for column in others if different[column] > MOST_VALUES),
    )


def _rows(path: Path) -> list[dict[str, str]]:
    """Rows by column; a row number counts the heading as 1 and leaves empty lines out."""
    try:
        text = read_file(path, MAX_LABELS_BYTES).decode("utf-8-sig")
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text", HINT) from error
    except csv.Error as error:
        raise BadInput(f"{path} is not a table of commas: {str(error).lower()}", HINT) from error
    columns = [name.strip() for name in lines[0]] if lines else []
    for name in REQUIRED:
        if name not in columns:
            raise BadInput(f"{path} has no column {name}", HINT)
    if len(set(columns)) < len(columns) or "" in columns:
        raise BadInput(f"{path} has a column twice or without a name", HINT)
    found = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(columns):
            raise BadInput(f"{path} row {number} has {len(line)} values for {len(columns)} columns", HINT)
        found.append(dict(zip(columns, (value.strip() for value in line), strict=True)))
    _refuse_unprintable(path, columns, found)
    return found


def _refuse_unprintable(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    # They are printed again: an escape sequence would reach the terminal.
    if not all(text.isprintable() for text in [*columns, *(value for row in rows for value in row.values())]):
        raise BadInput(f"{path} holds a character that cannot be printed", HINT)


def _picture(where: str, row: dict[str, str], others: list[str]) -> LabelledPicture:
    if not row["file"]:
        raise BadInput(f"{where}: no file", HINT)
    if not (row["faces"].isdecimal() and len(row["faces"]) < 5 and int(row["faces"]) <= MOST_FACES):
        raise BadInput(
            f"{where}: faces is not a number from 0 to {MOST_FACES}: {row['faces'] or 'empty'}", HINT
        )
    angles = {name: _angle(where, name, row.get(name, ""), most) for name, most in ANGLES.items()}
    if int(row["faces"]) != 1 and any(angle is not None for angle in angles.values()):
        raise BadInput(f"{where}: angles are of one face, and faces is {row['faces']}", HINT)
    if (angles["gaze_yaw_deg"] is None) != (angles["gaze_pitch_deg"] is None):
        raise BadInput(f"{where}: a gaze has both, gaze_yaw_deg and gaze_pitch_deg", HINT)
    return LabelledPicture(
        file=row["file"],
        faces=int(row["faces"]),
        values={column: row[column] for column in others},
        **angles,
    )


def _angle(where: str, name: str, text: str, most_deg: float) -> float | None:
    if not text:
        return None
    try:
        angle = float(text)
    except ValueError:
        angle = math.nan
    if not abs(angle) <= most_deg:
        raise BadInput(f"{where}: {name} is not a number from -{most_deg:g} to {most_deg:g}: {text}", HINT)
    return angle
