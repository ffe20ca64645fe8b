"""The records of a pulled session's segments: of whole and cut ones all, of those damaged on the desk what opens.

What no release names as damaged has to be as the manifest says; one record is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from appliance.archive.round_damage import RoundDamage
from appliance.archive.session import LocalSession
from appliance.errors import EvidenceBroken
from appliance.evf.errors import EvfError
from appliance.evf.format import Header
from appliance.evf.reader import Outcome, Record, SegmentReader
from appliance.evidence.manifest import SegmentEntry, header_problem, leaf_indices
from appliance.store.salvage_scan import examine_segment
from appliance.timecode import span_text

REPORT_BUG = "the files are as the desk signed them; report this as a bug of the desk's software"


class Keys(Protocol):
    """Gives S(seg) for a segment's header."""

    def secret_for(self, header: Header) -> bytes:
        """EvidenceBroken or NotTrusted when there is no key for it."""
        ...


class Reading:
    """Segments of one session, read with its keys: whole or cut ones as they must be, damaged ones round the damage.

    `notes`: what was left out. `until_90k`: how far in session time that which was read reaches at least.
    """

    def __init__(self, session: LocalSession, keys: Keys) -> None:
        self._session = session
        self._keys = keys
        self.notes: list[str] = []
        self.until_90k = 0

    def records(self, entry: SegmentEntry) -> Iterator[Record]:
        """All authentic records; EvidenceBroken when a file that nobody released as damaged is not as it must be."""
        wrap = self._session.lost_key(entry)
        if wrap:
            self._note(
                f"{wrap}: the wrapped key was damaged on the desk; segments of epoch {entry.epoch}, class {entry.cls} "
                "do not open and are left out"
            )
        elif entry.name in self._session.damaged:
            yield from self._round_damage(entry)
        else:
            yield from _records(self._session, entry, self._keys)
            self._reach(self._session.there_until_90k(entry))

    def _round_damage(self, entry: SegmentEntry) -> Iterator[Record]:
        if self._session.gone(entry):
            self.notes.append(f"{entry.name} is gone from the desk and left out")
            return
        path = self._session.file(entry.name)
        try:
            found = examine_segment(path)
            problem = header_problem(self._session.manifest, entry, found.header)
        except EvfError as error:
            problem = str(error)
        if problem:
            self.notes.append(f"{entry.name}: nothing of it opens, it is left out: {problem}")
            return
        content = entry.records - (entry.outcome == Outcome.CLOSED.value)
        witnessed = (
            [self._session.leaves[index] for index in leaf_indices(entry)] if self._session.leaves else None
        )
        damaged = RoundDamage(path, found, self._keys.secret_for(found.header), content, witnessed)
        yield from damaged
        self.notes.append(f"{entry.name} was damaged on the desk: {damaged.opened} of {content} records open")
        self.notes.extend(damaged.notes())
        if damaged.opened:
            self._reach(entry.end_90k if damaged.last_index == content - 1 else damaged.last_90k)

    def _note(self, words: str) -> None:
        if words not in self.notes:
            self.notes.append(words)

    def _reach(self, time_90k: int) -> None:
        self.until_90k = max(self.until_90k, time_90k)


def require_authentic_cuts(session: LocalSession, keys: Keys) -> None:
    """Open what is left of every cut file, of tracks too that nobody asked for; EvidenceBroken names an altered one.

    The manifest's hash speaks for whole files only: of a cut one nothing is known before its records were opened.
    """
    for entry in session.manifest.segments:
        if entry.name in session.cuts and not session.lost_key(entry):
            for _ in _records(session, entry, keys):
                pass


def track_segments(session: LocalSession, track: str) -> list[SegmentEntry]:
    """One track's segments in order of time."""
    entries = (entry for entry in session.manifest.segments if entry.track == track)
    return sorted(entries, key=lambda entry: (entry.epoch, entry.seg))


def _records(session: LocalSession, entry: SegmentEntry, keys: Keys) -> Iterable[Record]:
    with session.file(entry.name).open("rb") as stream:
        reader = SegmentReader(stream, keys.secret_for)
        yield from reader
    cut = session.cuts.get(entry.name)
    wanted = (Outcome.OPEN_ENDED.value, cut.records) if cut else (entry.outcome, entry.records)
    if (reader.outcome.value, reader.records) != wanted:
        raise EvidenceBroken(
            f"{entry.name} ({span_text(entry.start_90k, entry.end_90k)} of the session): "
            f"{reader.reason or 'it ends otherwise than its manifest says'}",
            "the file was cut and altered; pull the session again" if cut else REPORT_BUG,
        )
