"""Alters JSON values and how they are spelled: keys, types, nesting, numbers, surrogates, doubled keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from tests.fuzz.mutate import MAX_BYTES, altered

Place = tuple[Any, Any]  # a container and the key or index in it
DEEPEST = 150  # what Python copies without a thought; deeper text is made in `_otherwise`

WRONG: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 255, 2**31 - 1, 2**31, 2**32, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64, 10**40,
    -(10**18), 10**400, 0.0, -0.0, 0.5, 1.0, 1e300, 5e-324, float("nan"), float("inf"), float("-inf"),
    "", " ", "0", "1", "-1", "true", "null", "x" * 5000, "a" * 65, "\u0000", "\ud800", "\udfff\ud800", "é", "\u0660",
    "\u202e", "\U0001f600", "A\u0301", "line\nline", "\r\n\r\n", "../../etc/passwd", "%00", "' OR 1=1 --",
    "0" * 32, "0" * 64, "F" * 64, "AAAA", "AA==", "AB==", "=" * 8,
    "9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00.000Z", "2026-02-30T00:00:00.000Z", "2026-11-22T24:00:00Z",
    "2026-11-22T09:00:00.000Z", "2026-11-22", "10000-01-01", "http://[::1", "https://x:99999999/", "1e999",
    [], {}, [None], [[]], {"a": 1}, [0, 1], [1, 2, 3], {"": ""},
)  # fmt: skip


def altered_json(rng: Random, seeds: Sequence[Any]) -> Any:
    """A deep copy of one of the seeds after one to some alterations."""
    root = [_copy(rng.choice(seeds))]
    while True:
        _alter(rng, root, seeds)
        if rng.random() < 0.6:
            return root[0]


def altered_text(rng: Random, seeds: Sequence[Any], canonical: Callable[[Any], bytes] | None = None) -> bytes:
    """JSON as bytes: an altered value mostly in its usual spelling, at times in another one, or with bytes altered."""
    kind = rng.random()
    if kind < 0.25:
        return altered(rng, [spelled(seed, canonical) for seed in seeds])
    value = altered_json(rng, seeds)
    if kind < 0.85:
        return spelled(value, canonical)[:MAX_BYTES]
    if kind < 0.93:
        return _otherwise(rng, value)
    return altered(rng, [spelled(value, canonical)])


def spelled(value: Any, canonical: Callable[[Any], bytes] | None = None) -> bytes:
    """As the product spells it, where it can: sorted, no spaces, ASCII; Python's words for what is no JSON."""
    if canonical is not None:
        try:
            return canonical(value)
        except ValueError:
            pass
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    except RecursionError:
        return b"[" * MAX_BYTES


def _otherwise(rng: Random, value: Any) -> bytes:
    ascii_only, indent = rng.random() < 0.5, rng.choice((None, None, 1))
    try:
        text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    except RecursionError:
        text = "{}"
    match rng.randrange(7):
        case 0:  # a key stands twice
            head, brace, rest = text.partition("{")
            first = rest.partition(",")[0]
            text = f"{head}{brace}{first},{rest}" if brace and ":" in first else text
        case 1:
            text = " " * rng.randint(1, 9) + text
        case 2:
            text = text.replace("0", rng.choice(("00", "0.0", "0e0", "-0", "1" * rng.choice((20, 5000)))), 1)
        case 3:
            text = "[" * rng.choice((10, 500, 60_000)) + text
        case 4:
            text = '{"a":' * rng.choice((10, 500, 12_000)) + text
        case 5:
            text = "\ufeff" + text
        case 6:
            text = text.replace("a", "\\u0061", 1)
    return text.encode("utf-8", "surrogatepass")[:MAX_BYTES]


def _alter(rng: Random, root: list[Any], seeds: Sequence[Any]) -> None:
    places = list(_places(root))
    container, key = rng.choice(places)
    old = container[key]
    match rng.randrange(12):
        case 0 | 1 | 2:
            container[key] = _copy(rng.choice(WRONG))
        case 3:
            container[key] = _nested(rng, old)
        case 4 if isinstance(container, dict):
            del container[key]
        case 5 if isinstance(container, dict):
            container[rng.choice(("unknown", "cls", "class", "", "é", "\ud800", "__proto__", key + "x"))] = (
                old
            )
        case 4 | 5 | 6 if isinstance(container, list) and container is not root:
            container[key : key + rng.randint(0, 1)] = [old] * rng.choice((0, 1, 2, 3, rng.randint(3, 300)))
        case 7:  # what stands elsewhere, here or in another seed
            others = places if rng.random() < 0.5 else list(_places([rng.choice(seeds)]))
            there, name = rng.choice(others)
            container[key] = _copy(there[name])
        case _:
            container[key] = _like(rng, old)


def _like(rng: Random, old: Any) -> Any:
    """Of the same type, a little different."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return rng.choice(
            (old + 1, old - 1, -old, old * 2, old + 2**32, float(old) if abs(old) < 2**60 else 0, str(old))
        )
    if isinstance(old, str):
        if not old:
            return rng.choice(("x", "\n"))
        place = rng.randrange(len(old))
        letter = rng.choice(
            ("", "0", "f", "A", "=", " ", "\n", "\u0000", "\ud800", "é", old[place].swapcase())
        )
        return rng.choice(
            (old[:place] + letter + old[place + 1 :], old[:place], old + old, old + letter, old[::-1])
        )
    if isinstance(old, dict):
        return (
            list(old.items()) if rng.random() < 0.5 else {key.swapcase(): item for key, item in old.items()}
        )
    if isinstance(old, list):
        return (
            [*reversed(old)] if rng.random() < 0.7 else {str(place): item for place, item in enumerate(old)}
        )
    return rng.choice(WRONG)


def _nested(rng: Random, value: Any) -> Any:
    depth = rng.choice((1, 2, 20, DEEPEST))
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def _places(root: Any) -> list[Place]:
    """Every value with what holds it; the outermost too, in the list that `root` is."""
    found: list[Place] = []
    waiting = [root]
    while waiting and len(found) < 2000:
        each = waiting.pop()
        keys = list(each) if isinstance(each, dict) else range(len(each))
        for key in keys:
            found.append((each, key))
            if isinstance(each[key], dict | list):
                waiting.append(each[key])
    return found


def _copy(value: Any, depth: int = 0) -> Any:
    if depth > DEEPEST:
        return None
    if isinstance(value, dict):
        return {key: _copy(item, depth + 1) for key, item in value.items()}
    return [_copy(item, depth + 1) for item in value] if isinstance(value, list) else value
