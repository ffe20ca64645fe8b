"""Spans of a film are written by the piece: every byte at its place, none of a neighbour's, none that was not kept."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from appliance.archive.film_file import PIECE_BYTES, FilmFile, FilmSpan
from appliance.errors import NoSpace

OTHERS = b"\xee"


def put(span: FilmSpan, data: bytes) -> None:
    span.opened(len(data))[:] = data
    span.keep(len(data))


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "through the page cache"])
@pytest.mark.parametrize("seed", range(4))
def test_spans_of_any_size_at_any_place_leave_their_neighbours_alone(
    tmp_path: Path, seed: int, direct: bool
) -> None:
    """Written by two workers in turns; between the spans lie bytes of nobody."""
    chance = random.Random(seed)
    path = tmp_path / "film"
    expected = bytearray(OTHERS * (9 * PIECE_BYTES))
    path.write_bytes(expected)
    with path.open("r+b", buffering=0) as stream, FilmFile(stream.fileno(), path) as film:
        film.direct &= direct
        workers = [FilmSpan(film) for _ in range(2)]
        place = chance.choice([0, 1, 4095, 4096])
        for number in range(8):
            place += chance.choice([0, 1, 4095, 5000])
            span = workers[number % 2]
            span.begin(place)
            for _ in range(chance.randrange(9)):
                data = chance.randbytes(chance.choice([0, 1, 100, 4096, 70_000, 2 * PIECE_BYTES // 5]))
                put(span, data)
                expected[place : place + len(data)] = data
                place += len(data)
                assert span.end == place
            span.finish()
    assert path.read_bytes() == expected


def test_record_larger_than_a_piece(tmp_path: Path) -> None:
    path = tmp_path / "film"
    small, large = os.urandom(10_000), os.urandom(5 * PIECE_BYTES + 7)
    with path.open("w+b", buffering=0) as stream, FilmFile(stream.fileno(), path) as film:
        span = FilmSpan(film)
        span.begin(0)
        for data in (small, large, small):
            put(span, data)
        span.finish()
    assert path.read_bytes() == small + large + small


def test_file_system_that_refuses_a_direct_write_gets_it_as_usual(tmp_path: Path) -> None:
    """Refused here for its place and length, which are no whole blocks."""
    path = tmp_path / "film"
    with path.open("w+b", buffering=0) as stream, FilmFile(stream.fileno(), path) as film:
        for place in (1, 4):
            film.write_blocks(memoryview(b"abc"), place)
    assert path.read_bytes() == b"\0abcabc"


def test_what_is_not_kept_is_never_written(tmp_path: Path) -> None:
    """A record that did not authenticate, and the rest of a segment that was refused; the control is kept."""
    path = tmp_path / "film"
    with path.open("w+b", buffering=0) as stream, FilmFile(stream.fileno(), path) as film:
        span = FilmSpan(film)
        span.begin(0)
        put(span, b"refused later")
        span.begin(5)
        put(span, b"kept")
        span.opened(9)[:] = b"forgeries"
        span.finish()
    assert path.read_bytes() == bytes(5) + b"kept"


def test_full_disk_is_named(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    with Path("/dev/full").open("wb", buffering=0) as stream, FilmFile(stream.fileno(), target) as film:
        span = FilmSpan(film)
        span.begin(0)
        put(span, b"record")
        with pytest.raises(NoSpace, match=r"out\.mp4"):
            span.finish()
