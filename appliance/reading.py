"""Files that a person names on the command line, read whole."""

from __future__ import annotations

from pathlib import Path

from appliance.errors import BadInput


def read_file(path: Path, limit_bytes: int) -> bytes:
    """A small file, whole; BadInput when it cannot be read or is larger."""
    try:
        with path.open("rb") as source:
            data = source.read(limit_bytes + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BadInput(f"cannot read {path}: {reason}", "check the path and its permissions") from error
    if len(data) > limit_bytes:
        raise BadInput(f"{path} is larger than {limit_bytes} bytes", "name the right file")
    return data
