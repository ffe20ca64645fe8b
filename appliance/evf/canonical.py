"""The one JSON form that is hashed and signed: sorted keys, no spaces, ASCII.

`canonical` and `parse_canonical` are inverse to each other; nothing else is accepted when reading.
"""

from __future__ import annotations

import json
from typing import Any

from appliance.evf.errors import EvfError


def canonical(value: Any) -> bytes:
    """Encode str, int, bool, None, finite float, and lists and dicts (str keys) of them; else EvfError."""
    try:
        _check(value)
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
        ).encode("ascii")
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, EvfError):
            raise
        raise EvfError(f"value has no canonical form: {error}") from error


def parse_canonical(data: bytes) -> dict[str, Any]:
    """Decode an object; EvfError unless encoding it again gives the same bytes (so no duplicate keys)."""
    try:
        value = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise EvfError("not JSON") from error
    if not isinstance(value, dict):
        raise EvfError("JSON is not an object")
    if canonical(value) != data:
        raise EvfError("JSON is not in canonical form", "it was edited or written by another program")
    return value


def _check(value: Any) -> None:
    # json.dumps would turn integer keys into strings and accept subclasses such as enums silently
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise EvfError(f"object key is not a string: {key!r}")
            _check(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item)
    elif value is not None and type(value) not in (str, int, bool, float):
        raise EvfError(f"type has no canonical form: {type(value).__name__}")
