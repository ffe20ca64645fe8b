"""Whether a recording is all that it should be, and each thing that it is not, in words (pure).

Desk, room, archive and certificate all ask this one function. Sequence and chain are the manifest's own account of
every leaf, verified before; picture and clock are what the desk noted in the log while a fragment was still in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from appliance.evf.wraps import wrap_name
from appliance.evidence.session import EventLeaf, Gap, LostLeaf, Manifest
from appliance.timecode import TICKS_PER_S

VIDEO_TRACK = "video"
# More between two segments is footage that is not there (the recorder names a gap from 0.4 s on) ...
HOLE_90K = TICKS_PER_S // 2
# ... and a camera needs this long to its first frame (the recorder's own figure).
START_90K = 3 * TICKS_PER_S
# A century either way, as everywhere on the wire: more is no session time.
MOST_90K = 284_018_400_000_000

Outcome = Literal["complete", "with gaps"]


class Kind(StrEnum):
    """What a line is about; the first two say that something is missing."""

    GAP = "gap"
    LOST = "lost"
    UNWITNESSED = "unwitnessed"
    BLACK = "black"
    COVERED = "covered"
    FROZEN = "frozen"
    UNDECODABLE = "undecodable"
    UNCHECKED = "unchecked"
    CLOCK_STEP = "clock step"
    UNREADABLE = "unreadable"


PICTURE_WORDS = {
    Kind.BLACK: "the picture was black",
    Kind.COVERED: "the camera was covered",
    Kind.FROZEN: "the picture was frozen",
    Kind.UNDECODABLE: "what was recorded could not be decoded",
    Kind.UNCHECKED: "picture and decoding were not checked",
}
NO_CAUSE = "there is no footage, and the desk names no cause"
NOTHING_RECORDED = "nothing was recorded"
UNREADABLE_WORDS = "the desk noted something about picture or clock that this version cannot read"


@dataclass(frozen=True)
class Line:
    """One thing that is not as promised, with its span: 90 kHz from the session's start."""

    start_90k: int
    end_90k: int
    kind: Kind
    cause: str

    @property
    def missing(self) -> bool:
        """True when footage, its key or a record is not there; other lines are about footage that is."""
        return self.kind in (Kind.GAP, Kind.LOST)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a certificate."""
        return {**asdict(self), "kind": self.kind.value}


@dataclass(frozen=True)
class Completeness:
    """Complete is what has no line."""

    lines: tuple[Line, ...]

    @property
    def complete(self) -> bool:
        """True when nothing is to be said."""
        return not self.lines

    @property
    def outcome(self) -> Outcome:
        """The word in a certificate."""
        return "complete" if self.complete else "with gaps"


def completeness_of(manifest: Manifest, cut: Iterable[Gap] = ()) -> Completeness:
    """All lines of a verified manifest in order of time; `cut`: what files lack that were shortened afterwards."""
    named = [
        Line(
            _bounded(gap.start_90k),
            _bounded(gap.end_90k),
            Kind.UNWITNESSED if gap.unwitnessed else Kind.GAP,
            gap.cause,
        )
        for gap in (*manifest.gaps, *cut)
    ]
    lines = [
        *named,
        *_holes(manifest),
        *keyless(manifest).values(),
        *_lost(manifest.lost),
        *_noted(manifest.events),
    ]
    return Completeness(
        tuple(sorted(lines, key=lambda line: (line.start_90k, line.end_90k, line.kind, line.cause)))
    )


def keyless(manifest: Manifest) -> dict[str, Line]:
    """By name of a .evk that is not there: the records of its epoch and class, which nobody can open.

    No re-wrap stands for it: a re-wrap holds exactly the keys of the manifest's wraps.
    """
    wraps = {wrap.name for wrap in manifest.wraps}
    lines: dict[str, Line] = {}
    for entry in manifest.segments:
        name = wrap_name(manifest.sid, entry.epoch, entry.cls)
        if name in wraps or not entry.records:
            continue
        what = "footage" if entry.cls == "media" else entry.cls
        cause = f"no key is left for epoch {entry.epoch}: its {what} cannot be opened"
        line = Line(_bounded(entry.start_90k), _bounded(entry.end_90k), Kind.GAP, cause)
        before = lines.get(name, line)
        lines[name] = replace(
            line,
            start_90k=min(before.start_90k, line.start_90k),
            end_90k=max(before.end_90k, line.end_90k),
        )
    return lines


def _bounded(time_90k: int) -> int:
    return min(max(time_90k, -MOST_90K), MOST_90K)


def _holes(manifest: Manifest) -> list[Line]:
    """Time between segments that no gap of the manifest names: a desk's silence is not taken for footage."""
    video = [
        (entry.start_90k, entry.end_90k)
        for entry in manifest.segments
        if entry.track == VIDEO_TRACK and entry.records  # one without records has no times: it says 0 to 0
    ]
    if not video:
        return [Line(0, 0, Kind.GAP, NOTHING_RECORDED)]
    named = [(gap.start_90k, gap.end_90k) for gap in manifest.gaps if not gap.unwitnessed]
    holes, covered_90k, allowed_90k = [], 0, START_90K
    for start_90k, end_90k in sorted((*video, *named)):
        if start_90k - covered_90k > allowed_90k:
            holes.append(Line(covered_90k, _bounded(start_90k), Kind.GAP, NO_CAUSE))
        covered_90k, allowed_90k = max(covered_90k, _bounded(end_90k)), HOLE_90K
    return holes


def _lost(leaves: Iterable[LostLeaf]) -> list[Line]:
    """One line for all that the same fault took at the same time."""
    counts: dict[tuple[int, str], int] = {}
    for leaf in leaves:
        fault = (_bounded(leaf.time_90k), leaf.cause)
        counts[fault] = counts.get(fault, 0) + 1
    return [
        Line(at, at, Kind.LOST, f"{'a record was' if count == 1 else f'{count} records were'} lost: {cause}")
        for (at, cause), count in counts.items()
    ]


def _noted(events: Iterable[EventLeaf]) -> list[Line]:
    """The log's events `picture` and `clock_step`; spans of one finding that touch are one."""
    lines: list[Line] = []
    newest: dict[Kind, int] = {}
    for event in events:
        line = _line_of(event.body)
        if line is None:
            continue
        place = newest.get(line.kind)
        if line.kind in PICTURE_WORDS and place is not None and _touch(lines[place], line):
            lines[place] = replace(lines[place], end_90k=max(lines[place].end_90k, line.end_90k))
            continue
        newest[line.kind] = len(lines)
        lines.append(line)
    return lines


def _touch(before: Line, after: Line) -> bool:
    return before.start_90k <= after.start_90k <= before.end_90k


def _line_of(body: Mapping[str, Any]) -> Line | None:
    match body:
        case {"kind": "picture", "finding": str(finding), "from_90k": int(start), "to_90k": int(end)} if (
            finding in {kind.value for kind in PICTURE_WORDS} and _span(start, end)
        ):
            kind = Kind(finding)
            return Line(start, end, kind, PICTURE_WORDS[kind])
        case {"kind": "clock_step", "at_90k": int(at), "by_ms": int(by_ms)} if (
            _span(at, at) and _span(by_ms, by_ms) and by_ms != 0
        ):
            return Line(at, at, Kind.CLOCK_STEP, _step_words(by_ms))
        case {"kind": "picture" | "clock_step"}:
            return Line(0, 0, Kind.UNREADABLE, UNREADABLE_WORDS)
    return None


def _span(start_90k: int, end_90k: int) -> bool:
    numbers = type(start_90k) is int and type(end_90k) is int
    return numbers and -MOST_90K <= start_90k <= end_90k <= MOST_90K


def _step_words(by_ms: int) -> str:
    direction = "forward" if by_ms > 0 else "back"
    return (
        f"the desk's clock was set {direction} by {abs(by_ms) / 1000:.1f} s: footage is there, but times of day before "
        "and after do not fit together"
    )
