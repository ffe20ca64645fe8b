"""Power cuts under a real writer on a real ext4: nothing acknowledged is lost (issue 3; 200 in tests.deep)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.power.cuts import cut_power
from tests.power.reorder import reordered_states

CUTS = 12
STATES = 16


@pytest.mark.slow
def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """F083 by F146: each cut drops what the kernel had not written; the next start gives every acknowledged row."""
    counts = cut_power(tmp_path, CUTS, seed=1)
    print(json.dumps(counts.line()))
    assert counts.lost == counts.wrong == []
    assert counts.cuts == CUTS
    assert counts.acknowledged > 20 * CUTS
    assert counts.closed > 0
    assert counts.open_ended > 0


@pytest.mark.slow
@pytest.mark.parametrize("conduct", ["normal", "no-fdatasync"])
def test_control_a_writer_that_does_not_wait_for_the_disk_loses(tmp_path: Path, conduct: str) -> None:
    counts = cut_power(tmp_path, CUTS, seed=2, conduct=conduct)
    print(json.dumps(counts.line()))
    assert counts.lost != []


@pytest.mark.slow
def test_a_disk_that_reorders_its_writes_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """F083 by F146: of the writes after the last flush half are dropped; each state mounts and is whole."""
    states = reordered_states(tmp_path, STATES, seed=3)
    print(json.dumps(states.line()))
    assert states.lost == states.wrong == states.unmountable == []
    assert states.states == STATES
    assert states.flushes > 50
    assert states.dropped > 0
    assert states.acknowledged > 20


@pytest.mark.slow
@pytest.mark.parametrize("conduct", ["normal", "no-fdatasync"])
def test_control_without_flushes_the_reordered_states_lose(tmp_path: Path, conduct: str) -> None:
    states = reordered_states(tmp_path, 6, seed=4, conduct=conduct)
    print(json.dumps(states.line()))
    assert states.lost != []
