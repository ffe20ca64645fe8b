"""F069: no word of judgement in any string, field, topic, comment or page of the product."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = re.compile(
    r"\b(cheat\w*|fraud\w*|suspicio\w*|suspect\w*|violat\w*|verdict\w*|emotion\w*|guilt\w*|culprit\w*)\b",
    re.IGNORECASE,
)
KINDS = {".py", ".html", ".js", ".css", ".toml", ".service", ".md"}


def texts() -> list[Path]:
    folders = [ROOT / name for name in ("appliance", "provisioning", "systemd", "demo")]
    return sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in KINDS)


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_product_speaks_of_facts(path: Path) -> None:
    found = [line for line in path.read_text().splitlines() if FORBIDDEN.search(line)]
    assert found == []


def test_the_list_catches_what_it_should() -> None:
    assert FORBIDDEN.search('level = "Suspicious behaviour"')
    assert not FORBIDDEN.search("looking outside the work area, 6.2 s")
