"""Every small alteration of a small segment, by name: nothing here is random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

Alteration = tuple[str, bytes]


def of_bytes(data: bytes, others: Sequence[bytes] = ()) -> Iterator[Alteration]:
    """Each truncation, flipped bit, byte left out, doubled or swapped, block of zeros, splice at the same byte."""
    for length in range(len(data)):
        yield f"cut at {length}", data[:length]
        yield f"byte {length} left out", data[:length] + data[length + 1 :]
        yield f"byte {length} twice", data[: length + 1] + data[length:]
        if length and data[length] != data[length - 1]:
            swapped = data[: length - 1] + bytes([data[length], data[length - 1]]) + data[length + 1 :]
            yield f"bytes {length - 1} and {length} swapped", swapped
        if any(data[length : length + 16]):
            hole = bytes(len(data[length : length + 16]))
            yield f"zeros at {length}", data[:length] + hole + data[length + 16 :]
        for bit in range(8):
            yield f"bit {bit} of byte {length} flipped", _flipped(data, length, bit)
        for number, other in enumerate(others):
            if data[:length] != other[:length] and data[length:] != other[length:]:
                yield f"other {number} from byte {length} on", data[:length] + other[length:]
    for tail in (b"\0", b"C", b"CHNK", data, data[-40:], bytes(24), bytes(4096)):
        yield f"{len(tail)} bytes more", data + tail


def of_records(pieces: Sequence[bytes], others: Sequence[Sequence[bytes]] = ()) -> Iterator[Alteration]:
    """Each pair swapped, each set left out, each piece doubled anywhere, turned round, each splice with another."""
    parts = list(pieces)
    places = range(len(parts))
    for one, two in combinations(places, 2):
        again = parts.copy()
        again[one], again[two] = parts[two], parts[one]
        yield f"records {one} and {two} swapped", b"".join(again)
    for many in range(1, len(parts)):
        for gone in combinations(places, many):
            yield (
                f"records {gone} dropped",
                b"".join(part for place, part in enumerate(parts) if place not in gone),
            )
    for one in places:
        for place in range(len(parts) + 1):
            yield f"record {one} again at {place}", b"".join([*parts[:place], parts[one], *parts[place:]])
    yield "records turned round", b"".join([parts[0], *reversed(parts[1:])])
    for number, other in enumerate(others):
        for end in range(len(parts) + 1):
            for start in range(len(other) + 1):
                yield f"spliced {end} with {number} from {start}", b"".join([*parts[:end], *other[start:]])
        for place in range(min(len(parts), len(other))):
            again = parts.copy()
            again[place] = other[place]
            yield f"spliced record {place} of {number}", b"".join(again)


def of_segment(pieces: Sequence[bytes], others: Sequence[Sequence[bytes]]) -> Iterator[Alteration]:
    """All of both, each once, that are neither this segment nor one of the others."""
    valid = {b"".join(pieces), *(b"".join(other) for other in others)}
    seen = set(valid)
    whole = b"".join(pieces)
    for name, data in (*of_bytes(whole, [b"".join(other) for other in others]), *of_records(pieces, others)):
        if data not in seen:
            seen.add(data)
            yield name, data


def _flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
