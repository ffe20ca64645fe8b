"""Which 32 bytes of a heap of bytes could be a key: the search's filter, as numpy sees it.

A random key of 32 bytes has 30 different values on average, 16 bytes over 0x7f, neighbours 85 apart. The bounds below
lose one key in 10^4 and pass hardly any text, code or picture. In a longer run of random bytes (film, ciphertext,
models) no key is looked for but at both ends.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

KEY_BYTES = 32
MIN_DIFFERENT = 24
MAX_UNEVEN = 12
MIN_APART = 40
LONG_BYTES = 1024
END_BYTES = 128
_CHUNK = 1 << 16


def windows(data: bytes, *, step: int, leave_long_runs: bool) -> tuple[NDArray[np.uint8], int]:
    """(n, 64) candidates, each 32 bytes and the 32 that follow, at every `step`-th byte (1 or 8); bytes left out."""
    found: list[NDArray[np.uint8]] = []
    left_out = 0
    padded = data + bytes(72)
    for shift in range(0, 8, step):
        usable = (len(padded) - shift) // 8 * 8
        words = np.frombuffer(padded, "<u8", usable // 8, shift)
        starts, out = _starts(words, leave_long_runs)
        left_out = max(left_out, out)
        rows = sliding_window_view(words, 8)
        for begin in range(0, len(starts), _CHUNK):
            picked = np.ascontiguousarray(rows[starts[begin : begin + _CHUNK]]).view(np.uint8).reshape(-1, 64)
            found.append(picked[_looks_random(picked[:, :KEY_BYTES])])
    return np.concatenate(found) if found else np.empty((0, 64), np.uint8), left_out


def _starts(words: NDArray[np.uint64], leave_long_runs: bool) -> tuple[NDArray[np.intp], int]:
    """Word numbers at which four words begin that are no pointers, small numbers or padding."""
    random_like = words >> np.uint64(48) != 0
    random_like[1:] &= words[1:] != words[:-1]
    edges = np.flatnonzero(np.diff(np.concatenate(([False], random_like, [False])).astype(np.int8)))
    begins, ends = edges[::2], edges[1::2]
    left_out = 0
    if leave_long_runs:
        long = (ends - begins) * 8 > LONG_BYTES
        keep = END_BYTES // 8
        left_out = int(((ends - begins)[long] * 8 - 2 * END_BYTES).sum())
        begins, ends = (
            np.concatenate((begins[~long], begins[long], ends[long] - keep)),
            np.concatenate((ends[~long], begins[long] + keep, ends[long])),
        )
    lengths = np.maximum(ends - begins - 3, 0)
    offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    starts = np.repeat(begins, lengths) + offsets
    return starts[starts <= len(words) - 8], left_out


def _looks_random(rows: NDArray[np.uint8]) -> NDArray[np.bool_]:
    different = 1 + (np.diff(np.sort(rows, axis=1), axis=1) != 0).sum(axis=1)
    high = (rows >= 0x80).sum(axis=1)
    apart = np.abs(np.diff(rows.astype(np.int16), axis=1)).mean(axis=1)
    keep: NDArray[np.bool_] = (
        (different >= MIN_DIFFERENT) & (np.abs(high - KEY_BYTES // 2) <= MAX_UNEVEN) & (apart >= MIN_APART)
    )
    return keep
