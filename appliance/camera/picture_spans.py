"""From findings, check by check, to spans of session time. Pure.

A span that goes on is handed out in parts of a minute, so that a process that is killed loses no more than the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from appliance.timecode import TICKS_PER_S

Finding = Literal["black", "covered", "frozen", "undecodable", "unchecked"]

SPLIT_90K = 60 * TICKS_PER_S
# Half a second between two checks is jitter, not a change.
JOIN_90K = TICKS_PER_S // 2


@dataclass(frozen=True)
class Span:
    """90 kHz of the session; `finding` held from `from_90k` until `to_90k`."""

    finding: Finding
    from_90k: int
    to_90k: int


@dataclass
class _Open:
    from_90k: int
    to_90k: int
    handed_out: bool = False


class Spans:
    """What is found now and what is over; `shortest_90k` names findings that count only from a length on."""

    def __init__(self, shortest_90k: Mapping[Finding, int]) -> None:
        self._shortest_90k = shortest_90k
        self._open: dict[Finding, _Open] = {}
        self._over: list[Span] = []

    @property
    def lasting(self) -> list[Finding]:
        """What is found now and has lasted long enough to count."""
        return [finding for finding, span in self._open.items() if self._counts(finding, span)]

    def add(self, finding: Finding, from_90k: int, to_90k: int) -> None:
        """`finding` held over this span; it continues an open one that it touches, else begins one."""
        span = self._open.get(finding)
        if span is not None and from_90k - span.to_90k > JOIN_90K:
            self.end(finding)
            span = None
        if span is None:
            span = self._open[finding] = _Open(from_90k, to_90k)
        span.to_90k = max(span.to_90k, to_90k)
        while span.to_90k - span.from_90k >= SPLIT_90K:
            self._over.append(Span(finding, span.from_90k, span.from_90k + SPLIT_90K))
            span.from_90k += SPLIT_90K
            span.handed_out = True

    def end(self, finding: Finding) -> None:
        """It is no longer found; harmless when it was not."""
        span = self._open.pop(finding, None)
        if span is not None and span.to_90k > span.from_90k and self._counts(finding, span):
            self._over.append(Span(finding, span.from_90k, span.to_90k))

    def end_all(self) -> None:
        """Nothing more will be checked."""
        for finding in list(self._open):
            self.end(finding)

    def take(self) -> list[Span]:
        """What is over and not yet taken, in the order in which it ended."""
        over, self._over = self._over, []
        return over

    def _counts(self, finding: Finding, span: _Open) -> bool:
        return span.handed_out or span.to_90k - span.from_90k >= self._shortest_90k.get(finding, 0)
