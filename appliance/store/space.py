"""How many bytes an exam needs, and whether the disk has them; asked before a desk is armed."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from appliance.errors import NoSpace
from appliance.store.durable import store_failure

# F146: an encoder overshoots its target in busy scenes; framing and index take under 1 %.
RESERVE_FACTOR = 1.25
# Beside the footage: database, its log of up to 4 MiB, what the other process writes.
FIXED_BYTES = 16 << 20


def required_bytes(duration_s: int, bitrate_bps: int) -> int:
    """Bytes for one exam: duration x bitrate / 8, with a quarter more."""
    return math.ceil(duration_s * bitrate_bps / 8 * RESERVE_FACTOR)


def require_space(root: Path, bytes_needed: int) -> None:
    """Raise NoSpace, naming the bytes missing, unless `bytes_needed` are free on the disk of `root`."""
    try:
        free_bytes = shutil.disk_usage(root).free
    except OSError as error:
        raise store_failure(f"cannot see the free space of {root}", error) from error
    if free_bytes < bytes_needed:
        raise missing_space(bytes_needed, free_bytes)


def missing_space(bytes_needed: int, free_bytes: int) -> NoSpace:
    """The refusal, with the bytes missing: at least one, for a file system that needs some for itself."""
    missing_bytes = max(1, bytes_needed - free_bytes)
    return NoSpace(
        f"{missing_bytes} bytes missing: the exam needs {bytes_needed}, the disk has {free_bytes} free",
        "wait until released sessions are synced and purged, or use a larger disk",
    )
