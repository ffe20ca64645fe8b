"""The session on one line of time, inline SVG: recording, gaps, observations in lanes, technical ones apart.

Pure: values in, text out. Colours come from the page's style by class: light, dark and paper have theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from appliance.archive.observations import end_90k
from appliance.evidence.completeness import Kind, Line
from appliance.policy import Level
from appliance.protocol import ObservationReport
from appliance.timecode import TICKS_PER_S, clock_text, duration_text, span_text

Span = tuple[int, int]  # start and end in 90 kHz
_Place = Callable[[int], float]  # 90 kHz -> horizontal place

# user units of the picture; 1000 wide, so that a unit is about a pixel on a page
_WIDTH = 1000
_LEFT = 176
_RIGHT = 984
_LANE = 28
_BAR = 12
_TOP = 8
_STEPS_S = (1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
_MOST_TICKS = 9
_SHAPES: dict[Level | None, str] = {
    "green": '<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>',
    "yellow": '<path d="M{x:.1f} {y:.1f}m-6 5h12l-6-10.5z"/>',
    "red": '<path d="M{x:.1f} {y:.1f}m-5-5h10v10h-10z"/>',
    None: '<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="4.2"/>',
}
_WRENCH = (
    '<path d="M{x:.1f} {y:.1f}m5.2-5.6-2.3 2.3-1.6-.3-.3-1.6 2.3-2.3a3.6 3.6 0 0 0-4.6 4.6l-4.5 4.5'
    'a1.6 1.6 0 0 0 0 2.2l.2.2a1.6 1.6 0 0 0 2.2 0l4.5-4.5a3.6 3.6 0 0 0 4.6-4.6z"/>'
)


def mark(level: Level | None, technical: bool) -> str:
    """The shape that stands for a level in the table, as a small picture; the word stands beside it."""
    shape = _WRENCH if technical else _SHAPES[level]
    name = "technical" if technical else level or "none"
    return f'<svg class="mark {name}" viewBox="0 0 16 16" aria-hidden="true">{shape.format(x=8, y=8)}</svg>'


def timeline(
    duration_90k: int,
    recorded: Sequence[Span],
    lines: Sequence[Line],
    reports: Sequence[ObservationReport],
) -> str:
    """The picture; every bar carries its words as a title, and the table below it says the same in text."""
    length = max(duration_90k, TICKS_PER_S)

    def at(time_90k: int) -> float:
        return _LEFT + (_RIGHT - _LEFT) * min(max(time_90k, 0), length) / length

    lanes = _lanes(reports)
    parts = [_recording_lane(at, recorded, lines)]
    y = _TOP + _LANE
    for number, (label, technical, members) in enumerate(lanes):
        if technical and (number == 0 or not lanes[number - 1][1]):
            y += 8
            parts.append(f'<path class="rule" d="M8 {y - 4}H{_RIGHT}"/>')
        parts.append(f'<text class="lane" x="8" y="{y + 18}">{escape(_short(label))}</text>')
        parts.extend(_observation(at, y + _LANE / 2, report) for report in members)
        y += _LANE
    parts.insert(0, _axis(at, length, y))
    missing = sum(1 for line in lines if line.kind is Kind.GAP)
    spoken = f"timeline of {clock_text(length)} with {missing} gaps and {len(reports)} observations"
    return (
        f'<svg class="timeline" viewBox="0 0 {_WIDTH} {y + 28}" role="img" aria-label="{spoken}">'
        + "".join(parts)
        + "</svg>"
    )


def _lanes(reports: Sequence[ObservationReport]) -> list[tuple[str, bool, list[ObservationReport]]]:
    by_kind: dict[tuple[bool, str], list[ObservationReport]] = {}
    for report in reports:
        by_kind.setdefault((report.technical, report.kind), []).append(report)
    return [
        (kind.replace("_", " "), technical, by_kind[technical, kind]) for technical, kind in sorted(by_kind)
    ]


def _short(label: str) -> str:
    return label if len(label) <= 24 else label[:23] + "…"


def _recording_lane(at: _Place, recorded: Sequence[Span], lines: Sequence[Line]) -> str:
    y = _TOP + (_LANE - _BAR) / 2
    parts = [f'<text class="lane" x="8" y="{_TOP + 18}">recording</text>']
    for start, end in recorded:
        parts.append(_bar("recorded", at(start), at(end), y, f"recorded {span_text(start, end)}"))
    for line in sorted(lines, key=lambda line: line.missing):  # what is missing is drawn over what is not
        name = "gap" if line.missing else "unwitnessed" if line.kind is Kind.UNWITNESSED else "finding"
        words = f"{line.kind.value} {span_text(line.start_90k, line.end_90k)}: {line.cause}"
        parts.append(_bar(name, at(line.start_90k), at(line.end_90k), y, words))
    return "".join(parts)


def _observation(at: _Place, y: float, report: ObservationReport) -> str:
    end = end_90k(report)
    name = "technical" if report.technical else report.level or "none"
    words = f"{span_text(report.start_90k, end)} {report.words}, {duration_text(report.duration_s)}"
    left, right = at(report.start_90k), at(end)
    shape = (_WRENCH if report.technical else _SHAPES[report.level]).format(x=(left + right) / 2, y=y)
    bar = f'<path class="span" d="M{left:.1f} {y:.1f}H{max(right, left + 1):.1f}"/>'
    return f'<g class="{name}"><title>{escape(words)}</title>{bar}{shape}</g>'


def _bar(name: str, left: float, right: float, y: float, words: str) -> str:
    # a gap of seconds in an exam of hours must still be seen
    width = max(right - left, 2.5)
    return (
        f'<rect class="{name}" x="{left:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_BAR}">'
        f"<title>{escape(words)}</title></rect>"
    )


def _axis(at: _Place, length: int, y: float) -> str:
    step_s = next((step for step in _STEPS_S if length / TICKS_PER_S / step <= _MOST_TICKS), _STEPS_S[-1])
    parts = [f'<path class="axis" d="M{_LEFT} {y + 4}H{_RIGHT}"/>']
    for tick in range(0, length + 1, step_s * TICKS_PER_S):
        x = at(tick)
        anchor = "end" if x > _RIGHT - 24 else "middle"
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{y + 8}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{y + 22}" text-anchor="{anchor}">{clock_text(tick)}</text>'
        )
    return "".join(parts)
