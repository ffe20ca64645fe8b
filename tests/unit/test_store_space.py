"""An exam starts only if its recording fits, and a refusal says how much is missing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from appliance.errors import NoSpace, StoreFailed
from appliance.store.space import require_space, required_bytes


def test_three_hours_at_the_usual_bit_rate() -> None:
    assert required_bytes(3 * 3600, 1_200_000) == 2_025_000_000
    assert required_bytes(1, 1) == 1


def test_the_missing_bytes_are_named(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    free_bytes = shutil.disk_usage(tmp_path).free
    with pytest.raises(NoSpace, match=r"^\d+ bytes missing") as refusal:
        require_space(tmp_path, free_bytes + 10**12)
    missing_bytes = int(re.match(r"\d+", str(refusal.value))[0])
    assert missing_bytes == pytest.approx(10**12, rel=0.01)


def test_a_disk_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="cannot see"):
        require_space(tmp_path / "nowhere", 1)
