"""Signal traces (numbers, no picture), what the policy observes in them, and what a person approved."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from appliance.inference.observations import ObservationPolicy
from appliance.inference.rules import DEFAULT_RULES, KINDS, Rule
from appliance.inference.signals import Signals

FOLDER = Path(__file__).parent
TRACES, APPROVED = FOLDER / "traces", FOLDER / "approved"
# A trace's clock begins somewhere, as a node's does.
START_NS = 100_000_000_000
BLANK = "-"


@dataclass(frozen=True)
class Seen:
    """One observation as a person approves it; times from the trace's start."""

    kind: str
    start_s: float
    end_s: float
    level: str | None

    def words(self) -> str:
        return f"{self.start_s:6.1f} to {self.end_s:6.1f} s  {KINDS[self.kind].words} ({self.level or 'technical'})"


def names() -> list[str]:
    """Of all stored traces."""
    return sorted(path.name.removesuffix(".jsonl.gz") for path in TRACES.glob("*.jsonl.gz"))


def approved_names() -> list[str]:
    """Of all traces that a person approved."""
    return sorted(path.stem for path in APPROVED.glob("*.json"))


def write(name: str, about: dict[str, Any], trace: Iterable[Signals]) -> Path:
    """One line about it, then one Signals a line; the same signals give the same bytes."""
    lines = [json.dumps(about)]
    for signals in trace:
        values = {key: _rounded(value) for key, value in asdict(signals).items() if key != "taken_mono_ns"}
        time_s = round((signals.taken_mono_ns - START_NS) / 1e9, 3)
        lines.append(json.dumps({"time_s": time_s} | values, separators=(",", ":")))
    path = TRACES / f"{name}.jsonl.gz"
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))
    return path


def about(name: str) -> dict[str, Any]:
    """How it was recorded."""
    told: dict[str, Any] = json.loads(_lines(name)[0])
    return told


def read(name: str) -> list[Signals]:
    """A stored trace."""
    rows = [json.loads(line) for line in _lines(name)[1:]]
    return [Signals(taken_mono_ns=START_NS + round(row.pop("time_s") * 1e9), **row) for row in rows]


def replay(trace: Sequence[Signals], rules: Sequence[Rule] = DEFAULT_RULES) -> list[Seen]:
    """What the policy observes, in order of time."""
    policy = ObservationPolicy(rules)
    events = [event for signals in trace for event in policy.process(signals)]
    events += policy.close_all(trace[-1].taken_mono_ns)
    return sorted(
        (
            Seen(event.kind, _since_start(event.start_mono_ns), _since_start(event.end_mono_ns), event.level)
            for event in events
            if event.end_mono_ns is not None
        ),
        key=lambda seen: (seen.start_s, seen.kind),
    )


def approved(name: str) -> tuple[str, list[Seen]]:
    """Why it is right, and what it is."""
    document = json.loads((APPROVED / f"{name}.json").read_text())
    return document["why"], [Seen(**each) for each in document["observations"]]


def approve(name: str, why: str, observations: Sequence[Seen]) -> None:
    """Keep them as what shall be observed."""
    document = {"why": why, "observations": [asdict(each) for each in observations]}
    (APPROVED / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")


def side_by_side(then: Sequence[Seen], now: Sequence[Seen]) -> str:
    """Two timelines in words; what only one of them has faces a dash."""
    rows = [("approved", "now")]
    for each in sorted({*then, *now}, key=lambda seen: (seen.start_s, seen.kind, seen.end_s)):
        rows.append((each.words() if each in then else BLANK, each.words() if each in now else BLANK))
    if len(rows) == 1:
        rows.append(("nothing", "nothing"))
    width = max(len(left) for left, _ in rows)
    marks = ["  " if left == right or number == 0 else "> " for number, (left, right) in enumerate(rows)]
    return "\n".join(
        f"{mark}{left:<{width}}  |  {right}" for mark, (left, right) in zip(marks, rows, strict=True)
    )


def _lines(name: str) -> list[str]:
    return gzip.decompress((TRACES / f"{name}.jsonl.gz").read_bytes()).decode().splitlines()


def _since_start(mono_ns: int) -> float:
    return round((mono_ns - START_NS) / 1e9, 1)


def _rounded(value: Any) -> Any:
    return round(value, 1) if isinstance(value, float) else value
