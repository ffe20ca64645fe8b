"""Copies of our modules with one check taken out: a test that still passes with such a copy could not have failed."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

_numbers = count()


def weakened(module: ModuleType, *changes: tuple[str, str], **names: Any) -> ModuleType:
    """The module run again from its source with each (old, new) exchanged, and `names` put in place of its imports.

    AssertionError when an old piece does not stand in the source exactly once.
    """
    assert module.__file__ is not None
    path = Path(module.__file__)
    copy = ModuleType(f"{module.__name__}_weakened_{next(_numbers)}")
    copy.__file__ = str(path)
    sys.modules[copy.__name__] = copy  # dataclasses look up the module of their annotations
    exec(compile(changed(path.read_text(), *changes), str(path), "exec"), copy.__dict__)
    copy.__dict__.update(names)
    return copy


def changed(source: str, *changes: tuple[str, str]) -> str:
    """The source with pieces exchanged."""
    for old, new in changes:
        assert source.count(old) == 1, f"stands there {source.count(old)} times: {old}"
        source = source.replace(old, new)
    return source
