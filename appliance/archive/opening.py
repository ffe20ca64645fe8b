"""Opens a session with a representative's key: records streamed in order, one in memory at a time (F083).

The plaintext goes only into the stream that the caller gives; what does not authenticate is never written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from appliance.archive.observations import ObservationLog
from appliance.archive.session import LOG_TRACK, LocalSession
from appliance.archive.session_records import REPORT_BUG, Keys, Reading, track_segments
from appliance.archive.trust import Trust
from appliance.errors import BadInput, EvidenceBroken, NotTrusted
from appliance.evf.errors import EvfError, NotARecipient
from appliance.evf.format import Header, RecordKind
from appliance.evf.keys import EpochKey, secret_at
from appliance.evf.reader import Outcome, Record, SegmentReader
from appliance.evf.recipients import RepresentativeKey
from appliance.evf.rewraps import MAX_FILE_BYTES as MAX_REWRAP_BYTES
from appliance.evf.rewraps import Rewrap, rewrap_version, verify_rewrap
from appliance.evf.wraps import MAX_FILE_BYTES as MAX_WRAP_BYTES
from appliance.evf.wraps import WrapContext, open_wrap, read_wrap, wrap_name
from appliance.evidence.completeness import VIDEO_TRACK
from appliance.protocol import ObservationReport
from appliance.reading import read_file
from appliance.timecode import clock_text

_NOTHING_LEFT = "ask the test centre whether the desk's disk still holds another copy"


class SessionKeys:
    """Every K(0) of a session that the representative can open, by epoch and class; made from verified wraps.

    A re-wrap that is for this person comes first, then the desk's own wraps as far as they are still there.
    """

    def __init__(self, session: LocalSession, representative: RepresentativeKey, trust: Trust) -> None:
        self._session = session
        self._representative = representative
        self._trust = trust
        self._wraps: dict[tuple[int, str], str] = {}
        self._opened: dict[tuple[int, str], EpochKey] = {}
        self._newest = session.rewrapped.newest
        for wrap in session.manifest.wraps:
            if self._newest is not None and not session.path(wrap.name).exists():
                continue  # erased; `verify` says whether on purpose
            if wrap.name in session.damaged:
                # What is left of it may well open. But whoever wrote it could have sealed segments of their own with
                # it, and those would be authentic under it: a wrap counts with the desk's signature or not at all.
                continue
            context = self._context(wrap.name)
            self._wraps[context.epoch, context.cls] = wrap.name

    def _context(self, name: str) -> WrapContext:
        manifest = self._session.manifest
        evk = read_file(self._session.path(name), MAX_WRAP_BYTES)
        try:
            context, _ = read_wrap(evk, self._session.device_key)
        except EvfError as error:
            raise EvidenceBroken(f"{name}: {error}", error.hint or REPORT_BUG) from error
        said = (context.sid, context.institution, context.policy_id, context.retain_until)
        if said != (manifest.sid, manifest.institution, manifest.policy_id, manifest.retain_until):
            raise EvidenceBroken(
                f"{name} belongs to another session, institution, policy or retention date", REPORT_BUG
            )
        return context

    def secret_for(self, header: Header) -> bytes:
        """See `Keys`."""
        place = (header.epoch, header.cls)
        if place not in self._opened:
            self._opened[place] = self._open(*place)
        return secret_at(self._opened[place], header.track, header.seg)

    def _open(self, epoch: int, cls: str) -> EpochKey:
        newest, name = self._newest, self._wraps.get((epoch, cls))
        if newest is not None and (name is None or self._representative.kid in newest.kids):
            return unwrap_again(newest, epoch, cls, self._representative, self._trust)
        if name is None:
            raise EvidenceBroken(f"no wrapped key for epoch {epoch}, class {cls}", REPORT_BUG)
        evk = read_file(self._session.path(name), MAX_WRAP_BYTES)
        return unwrap(name, evk, self._representative, self._trust, self._session)


def unwrap(
    name: str, evk: bytes, representative: RepresentativeKey, trust: Trust, session: LocalSession | None
) -> EpochKey:
    """K(0) of one .evk file; NotTrusted says whose it is. Without a session its signature is not checked."""
    device_key = session.device_key if session else None
    try:
        return open_wrap(evk, representative, device_key)
    except NotARecipient as error:
        _, wraps = read_wrap(evk, device_key)
        raise _no_recipient(representative, [_person(kid, trust) for kid in wraps], trust) from error
    except EvfError as error:
        raise EvidenceBroken(f"{name}: {error}", error.hint) from error


def unwrap_again(
    rewrap: Rewrap, epoch: int, cls: str, representative: RepresentativeKey, trust: Trust
) -> EpochKey:
    """K(0) of one epoch and class from a verified re-wrap; errors as `unwrap`."""
    try:
        return rewrap.open(epoch, cls, representative)
    except NotARecipient as error:
        people = [f"{person.name} ({person.kid[:8]})" for person in rewrap.recipients.representatives]
        raise _no_recipient(representative, people, trust) from error
    except EvfError as error:
        raise EvidenceBroken(f"{rewrap.name}: {error}", error.hint) from error


def _no_recipient(representative: RepresentativeKey, people: list[str], trust: Trust) -> NotTrusted:
    return NotTrusted(
        f"key {_person(representative.kid, trust)} is not among the recipients of this recording: "
        f"{', '.join(people)}",
        "open it with one of their keys, or ask one of them to open it for you",
    )


@dataclass(frozen=True)
class OpenedVideo:
    """What was written; `notes` say in words where the recording stops short."""

    fragments: int
    end_90k: int
    notes: tuple[str, ...]


class Film:
    """One init and all fragments in order; the fragments carry the session's time themselves.

    Where the first segment's init is damaged, its fragments wait in memory for a later one: all segments of a film
    have equal settings.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._init: bytes | None = None
        self._waiting: list[Record] = []
        self.fragments = 0
        self.last_90k = 0

    def add(self, name: str, record: Record) -> None:
        """One record; EvidenceBroken for one that one MP4 file cannot hold."""
        if record.kind is RecordKind.INIT:
            self._begin(name, record.plaintext)
        elif record.kind is not RecordKind.FRAGMENT:
            raise EvidenceBroken(f"{name} holds a record that is no video", REPORT_BUG)
        elif self._init is None:
            self._waiting.append(record)
        else:
            self._write(record)

    @property
    def waits(self) -> bool:
        """True while no init came that the fragments so far could follow; then none of them is in the film."""
        return bool(self._waiting)

    def _begin(self, name: str, init: bytes) -> None:
        if self._init is None:
            self._init = init
            self._out.write(init)
            while self._waiting:
                self._write(self._waiting.pop(0))
        elif init != self._init:
            raise EvidenceBroken(
                f"{name} begins with other picture settings than the first segment; one film cannot hold both",
                REPORT_BUG,
            )

    def _write(self, record: Record) -> None:
        self._out.write(record.plaintext)
        self.fragments += 1
        self.last_90k = record.time_90k


def write_video(
    session: LocalSession, keys: Keys, out: BinaryIO, on_bytes: Callable[[int], None]
) -> OpenedVideo:
    """All segments of the video track as one fragmented MP4 into `out`.

    EvidenceBroken when files were damaged and no fragment opens.
    """
    film, reading = Film(out), Reading(session, keys)
    for entry in track_segments(session, VIDEO_TRACK):
        for record in reading.records(entry):
            film.add(entry.name, record)
            on_bytes(record.length_bytes)
    if film.waits:
        reading.notes.append("no segment's init opens, and without one there is no film")
    if film.waits or (reading.notes and not film.fragments):
        hint = _NOTHING_LEFT if session.damaged else REPORT_BUG
        raise EvidenceBroken(f"no fragment can be shown: {'; '.join(reading.notes)}", hint)
    return OpenedVideo(film.fragments, reading.until_90k, (*reading.notes, *video_notes(session)))


def opened_whole(session: LocalSession, fragments: int) -> OpenedVideo:
    """What to say of a film of that many fragments, of a session in which no file is damaged or cut."""
    end_90k = max((entry.end_90k for entry in track_segments(session, VIDEO_TRACK)), default=0)
    return OpenedVideo(fragments, end_90k, tuple(video_notes(session)))


def video_notes(session: LocalSession) -> list[str]:
    """Where the recording itself stops short and why, as its manifest says."""
    notes = [
        f"{entry.name} ends without its end record: the desk stopped there; everything up to "
        f"{clock_text(entry.end_90k)} is in the film"
        for entry in track_segments(session, VIDEO_TRACK)
        if entry.outcome == Outcome.OPEN_ENDED.value and session.whole(entry)
    ]
    notes.extend(
        f"a record of {leaf.name} at {clock_text(leaf.time_90k)} was lost on the desk: {leaf.cause}"
        for leaf in session.manifest.lost
    )
    return notes


@dataclass(frozen=True)
class OpenedLog:
    """What was observed, in order of time; `notes` say what of the log was left out."""

    reports: list[ObservationReport]
    notes: tuple[str, ...]


def read_log(session: LocalSession, keys: Keys) -> OpenedLog:
    """The log track of all epochs."""
    log, reading = ObservationLog(), Reading(session, keys)
    for entry in track_segments(session, LOG_TRACK):
        for record in reading.records(entry):
            if record.kind is RecordKind.EVENT:
                log.add(record.plaintext)
    return OpenedLog(log.reports(), tuple(reading.notes))


def write_lone_segment(path: Path, keys: Keys, out: BinaryIO, on_bytes: Callable[[int], None]) -> OpenedVideo:
    """One segment without its session; a cut tail is left out and said. Its records are authentic, no more."""
    film = Film(out)
    with path.open("rb") as stream:
        reader = SegmentReader(stream, keys.secret_for)
        for record in reader:
            film.add(path.name, record)
            on_bytes(record.length_bytes)
    if film.waits:
        raise EvidenceBroken(f"{path.name} has a fragment before any init", REPORT_BUG)
    if reader.outcome is Outcome.CORRUPT or not film.fragments:
        raise EvidenceBroken(
            f"{path.name} is broken after {clock_text(film.last_90k)}: {reader.reason or 'it holds no fragment'}",
            "nothing was written",
        )
    notes = []
    if reader.outcome is Outcome.OPEN_ENDED:
        notes.append(
            f"{path.name} is cut: {reader.reason}; the last whole fragment begins at {clock_text(film.last_90k)}"
        )
    return OpenedVideo(film.fragments, film.last_90k, tuple(notes))


class LoneKeys:
    """The key of one segment file from the .evk beside it, or in ../wraps as `pull` lays it out.

    The newest re-wrap that the institution's root stands behind comes before the desk's own wrap.
    """

    def __init__(self, segment: Path, representative: RepresentativeKey, trust: Trust) -> None:
        self._segment = segment
        self._representative = representative
        self._trust = trust

    def secret_for(self, header: Header) -> bytes:
        """See `Keys`."""
        name = wrap_name(header.sid, header.epoch, header.cls)
        folders = (self._segment.parent, self._segment.parent.parent / "wraps")
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        rewrap = self._newest(folders, header.sid)
        if rewrap is not None and (path is None or self._representative.kid in rewrap.kids):
            key = unwrap_again(rewrap, header.epoch, header.cls, self._representative, self._trust)
            return secret_at(key, header.track, header.seg)
        if path is None:
            raise BadInput(f"no {name} beside {self._segment}", "put the wrapped key into the same folder")
        key = unwrap(name, read_file(path, MAX_WRAP_BYTES), self._representative, self._trust, None)
        return secret_at(key, header.track, header.seg)

    def _newest(self, folders: Iterable[Path], sid: str) -> Rewrap | None:
        found = {
            version: path
            for folder in folders
            for path in folder.glob(f"{sid}.r*.evk")
            if (version := rewrap_version(path.name, sid)) is not None
        }
        for version in sorted(found, reverse=True):
            with contextlib.suppress(EvfError):  # another file of that name: an older one may hold
                rewrap = verify_rewrap(read_file(found[version], MAX_REWRAP_BYTES), self._trust.root_key)
                if (rewrap.sid, rewrap.recipients.version) == (sid, version):
                    return rewrap
        return None


def _person(kid: str, trust: Trust) -> str:
    name = trust.recipients.get(kid)
    return f"{name} ({kid[:8]})" if name else kid
