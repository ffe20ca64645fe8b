"""The controller lets go of what holds itself, without waiting for Python's own collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from appliance.room import process


class Connection:
    """As a closed one: its parts know each other."""

    def __init__(self) -> None:
        self.protocol = self


@pytest.fixture
def collector_off() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


async def _kept() -> bool:
    """Whether a closed connection is still in memory after a while."""
    tidying = asyncio.create_task(process._tidy())
    connection = weakref.ref(Connection())
    await asyncio.sleep(0.3)
    tidying.cancel()
    return connection() is not None


@pytest.mark.parametrize(("tidy_s", "kept"), [(0.01, False), (60.0, True)], ids=["", "control"])
def test_closed_connections_are_let_go(
    tidy_s: float, kept: bool, collector_off: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "TIDY_S", tidy_s)
    assert asyncio.run(_kept()) == kept
