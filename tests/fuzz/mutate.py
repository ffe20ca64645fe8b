"""Alters bytes: flips, cuts, repeats, moves, splices two seeds, writes interesting numbers, grows to 64 KiB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

MAX_BYTES = 64 * 1024
EDGES = (0, 1, 2, 7, 8, 9, 15, 16, 23, 24, 31, 32, 127, 128, 255, 256, 4095, 4096, 4097, 2**16, 2**20 - 1, 2**20,
         2**24, 2**24 + 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip

Alter = Callable[[Random, bytearray, Sequence[bytes]], None]


def altered(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds after one to some alterations; rarely it is unchanged by chance."""
    data = bytearray(rng.choice(seeds))
    while True:
        rng.choice(ALTERATIONS)(rng, data, seeds)
        del data[MAX_BYTES:]
        if rng.random() < 0.6:
            break
    if rng.random() < 0.01:
        grow(rng, data, seeds)
    return bytes(data)


def flip(rng: Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    """One bit."""
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def put(rng: Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    """One byte of the kind that parsers stumble over, else any."""
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x0A, 0x20, 0x22, 0x2C, 0x5C, 0x7B, 0x7F, 0x80, 0xFF,
                                                      rng.randrange(256)))  # fmt: skip


def cut(rng: Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    """The end is gone."""
    del data[rng.randint(0, len(data)) :]


def drop(rng: Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    """A piece is gone."""
    start, stop = span(rng, data)
    del data[start:stop]


def repeat(rng: Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    """A piece stands twice."""
    start, stop = span(rng, data)
    data[stop:stop] = data[start:stop]


def swap(rng: Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    """Two pieces change places."""
    a, b, c, d = sorted(rng.randint(0, len(data)) for _ in range(4))
    data[a:d] = data[c:d] + data[b:c] + data[a:b]


def insert(rng: Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    """Random bytes, zeros or a line's end in between."""
    place = rng.randint(0, len(data))
    data[place:place] = rng.choice(
        (rng.randbytes(rng.randint(1, 40)), bytes(rng.randint(1, 64)), b"\n", b"\r\n")
    )


def overwrite(rng: Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    """Random bytes over a piece."""
    start, stop = span(rng, data)
    data[start:stop] = rng.randbytes(stop - start)


def number(rng: Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    """A length or count: an edge, or a little more or less than what stands there."""
    size = rng.choice((1, 2, 4, 8))
    if len(data) < size:
        return
    place = rng.randint(0, len(data) - size)
    order = rng.choice(("big", "big", "little"))
    value = int.from_bytes(data[place : place + size], order)  # type: ignore[arg-type]
    value = rng.choice((rng.choice(EDGES), value + rng.choice((-1, 1, 2, 8, 256))))
    data[place : place + size] = (value % 2 ** (8 * size)).to_bytes(size, order)  # type: ignore[arg-type]


def splice(rng: Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    """The beginning of this one and the end of another."""
    other = rng.choice(seeds)
    data[rng.randint(0, len(data)) :] = other[rng.randint(0, len(other)) :]


def take(rng: Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    """A piece of another in place of one here."""
    other = rng.choice(seeds)
    start, stop = span(rng, data)
    first, last = span(rng, other)
    data[start:stop] = other[first:last]


def grow(rng: Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    """A piece stands so often that the whole is large."""
    start, stop = span(rng, data)
    piece = bytes(data[start:stop]) or b"["
    times = rng.randint(1, MAX_BYTES) // len(piece) + 1
    data[stop:stop] = (piece * times)[: max(MAX_BYTES - len(data), 0)]


ALTERATIONS: tuple[Alter, ...] = (
    flip, flip, put, cut, drop, repeat, swap, insert, overwrite, number, number, splice, take
)  # fmt: skip


def span(rng: Random, data: Sequence[int]) -> tuple[int, int]:
    """A place and a mostly short stretch behind it."""
    start = rng.randint(0, len(data))
    longest = len(data) - start
    return start, start + min(longest, rng.choice((1, 4, 16, rng.randint(0, 64), longest)))
