"""`invigil store salvage`: every recording that the files alone still show, copied elsewhere. Reads the source only.

For a store whose index.db is lost, or a folder of .evf and .evk files from a dying card. Needs no key, no database and
no room; what it cannot prove it says.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from appliance.clock import Clock, utc_text
from appliance.errors import BadInput, NoSpace, Refused, StoreFailed
from appliance.evf.canonical import parse_canonical
from appliance.evf.errors import EvfError
from appliance.evf.format import MAGIC, check_sid
from appliance.evf.wraps import read_wrap, wrap_name
from appliance.store.durable import fsync_dir, store_failure
from appliance.store.layout import parse_wrap_name, segment_name
from appliance.store.salvage_copy import Read, copy_out, files_below, open_source
from appliance.store.salvage_report import (
    ManifestFound,
    OtherFile,
    SalvageReport,
    SegmentFound,
    SessionFound,
    WrapFound,
    in_words,
    to_json,
)
from appliance.store.salvage_scan import FoundSegment, examine_segment

SESSIONS = "sessions"
DAMAGED = "damaged"
DOCUMENTS = "documents"
COPIES = "other-copies"
# A manifest of a day's session, or all keys of one wrapped anew, stay far below it.
_MAX_DOCUMENT_BYTES = 32 << 20
# Beside the copies: the report, and what a file system needs for itself.
_FIXED_BYTES = 16 << 20
_REWRAP_NAME = re.compile(r"([0-9a-f]{32})\.r[1-9][0-9]{0,9}\.evk")
_OWN_FILES = re.compile(r"(index|ledger|room)\.db.*|store\.uuid(\.tmp)?|reserve|salvage\.(json|txt)")


def salvage_store(source: Path, out: Path, clock: Clock, read: Read = os.pread) -> SalvageReport:
    """Copy what can be read of `source` into `out`, with salvage.json and salvage.txt; returns the report.

    BadInput or Refused for folders that cannot be used; NoSpace or StoreFailed when `out` refuses. `read`: os.pread.
    """
    _require_folders(source, out)
    report = SalvageReport(str(source), utc_text(clock.wall()))
    work = _Salvage(source, out, read, report)
    try:
        out.mkdir(parents=True, exist_ok=True)
        work.require_room()
        for path in work.paths:
            work.take(path)
        work.finish()
        work.write("salvage.json", to_json(report))
        work.write("salvage.txt", in_words(report).encode())
        for folder in (*(path for path in out.rglob("*") if path.is_dir()), out):
            fsync_dir(folder)
    except StoreFailed:
        raise
    except OSError as error:
        raise store_failure(f"cannot write into {out}", error) from error
    return report


def _require_folders(source: Path, out: Path) -> None:
    if not source.is_dir():
        raise BadInput(f"{source} is not a folder", "name a store, or a folder with .evf and .evk files")
    if out.resolve().is_relative_to(source.resolve()):
        raise BadInput(f"{out} lies inside {source}", "name a folder on another disk")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Refused(f"{out} is not an empty folder", "name a new one; nothing is written over")


@dataclass
class _Documents:
    """Of one session, as found: (path in the source, bytes)."""

    wraps: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    manifest: tuple[str, bytes] | None = None
    approval: tuple[str, bytes] | None = None


class _Salvage:
    def __init__(self, source: Path, out: Path, read: Read, report: SalvageReport) -> None:
        self._source = source
        self._out = out
        self._read = read
        self._report = report
        self._segments: dict[tuple[str, str], SegmentFound] = {}
        self._sessions: dict[str, SessionFound] = {}
        self._documents: dict[str, _Documents] = {}
        self.paths = list(files_below(source, self._failed))

    def require_room(self) -> None:
        """Once the bytes of all that may be a recording's; what is damaged is kept twice and found out later."""
        sizes = (path.stat().st_size for path in self.paths if not _OWN_FILES.fullmatch(path.name))
        needed_bytes = sum(sizes) + _FIXED_BYTES
        free_bytes = shutil.disk_usage(self._out).free
        if free_bytes < needed_bytes:
            raise NoSpace(
                f"{needed_bytes - free_bytes} bytes missing in {self._out}: the copy may need {needed_bytes}",
                "name a folder on a larger disk with --out",
            )

    def take(self, path: Path) -> None:
        """Look at one file of the source."""
        if _OWN_FILES.fullmatch(path.name):
            self._other(path, "of the store itself, holds no footage")
            return
        try:
            fd = open_source(path)
        except OSError as error:
            self._failed(path, error)
            return
        try:
            head = self._head(fd)
            if head == MAGIC or path.suffix == ".evf":
                self._take_segment(path, fd)
            elif path.suffix in (".evk", ".json") or head[:1] == b"{":
                self._take_document(path, fd)
            else:
                self._other(path, "no part of a recording, by its first bytes")
        finally:
            os.close(fd)

    def finish(self) -> None:
        """Write documents beside the segments, and say what the files say of each other."""
        for (sid, _), segment in sorted(self._segments.items()):
            self._session(sid).segments.append(segment)
        for sid, documents in self._documents.items():
            self._write_documents(self._session(sid), documents)
        for session in self._sessions.values():
            session.segments.sort(key=lambda each: (each.track, each.epoch, each.seg))
            session.missing = _numbers_between(session.segments)
            self._match_keys(session)
        self._report.sessions = [self._sessions[sid] for sid in sorted(self._sessions)]

    def write(self, name: str, data: bytes) -> None:
        """A new file below `out`, synced."""
        target = self._out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())

    # --- segments ----------------------------------------------------------------------------------------------------

    def _take_segment(self, path: Path, fd: int) -> None:
        part = self._out / "part"
        with part.open("wb") as stream:
            unreadable = copy_out(fd, stream, self._read)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            found = examine_segment(part, unreadable)
        except EvfError as error:
            kept = self._keep(part, f"{DAMAGED}/without-session/{path.name}")
            self._other(
                path, f"a segment that nobody can open: {error}; copied as found to {kept}", trouble=True
            )
            return
        header = found.header
        name = segment_name(header.epoch, header.track, header.seg)
        segment = SegmentFound(
            name=name,
            found=self._where(path),
            cls=header.cls,
            epoch=header.epoch,
            track=header.track,
            seg=header.seg,
            size_bytes=found.size_bytes,
            closed=found.closed,
            records=len(found.beginning),
            until_90k=found.beginning[-1].time_90k if found.beginning else None,
            damage=found.damage,
            behind=found.behind,
        )
        session = self._session(header.sid)
        session.institution = session.institution or header.institution
        session.policy_id = session.policy_id or header.policy_id
        session.retain_until = session.retain_until or header.retain_until
        self._place(header.sid, segment, found, part)

    def _place(self, sid: str, segment: SegmentFound, found: FoundSegment, part: Path) -> None:
        """The better of two copies of one segment becomes the file; the other one is kept as it was found."""
        there = self._segments.get((sid, segment.name))
        if there is not None and _better(there, segment):
            same = there.closed and segment.closed and there.size_bytes == segment.size_bytes
            kept = "" if same else f", in {self._keep(part, f'{DAMAGED}/{sid}/{COPIES}/{segment.name}')}"
            part.unlink(missing_ok=True)
            self._report.others.append(OtherFile(segment.found, f"another copy of {there.found}{kept}"))
            return
        if there is not None:
            self._give_way(sid, there, segment)
        if found.damage and not found.cut:
            segment.as_found = self._keep(part, f"{DAMAGED}/{sid}/segments/{segment.name}", copy=True)
        if found.beginning:
            with part.open("r+b") as stream:
                stream.truncate(found.beginning_bytes)
                os.fsync(stream.fileno())
            segment.copied = self._keep(part, f"{SESSIONS}/{sid}/segments/{segment.name}")
        part.unlink(missing_ok=True)
        self._segments[sid, segment.name] = segment

    def _give_way(self, sid: str, worse: SegmentFound, better: SegmentFound) -> None:
        files = [self._out / name for name in (worse.as_found, worse.copied) if name is not None]
        kept = self._keep(files[0], f"{DAMAGED}/{sid}/{COPIES}/{worse.name}") if files else "nowhere"
        for beginning in files[1:]:
            beginning.unlink()
        self._report.others.append(OtherFile(worse.found, f"another copy of {better.found}, in {kept}"))

    def _keep(self, part: Path, name: str, *, copy: bool = False) -> str:
        """Move, or copy, to `name` below `out`, with a number if it is taken; returns the name."""
        target, number = self._out / name, 1
        target.parent.mkdir(parents=True, exist_ok=True)
        while target.exists():
            number += 1
            target = (self._out / name).with_name(f"{Path(name).stem}.{number}{Path(name).suffix}")
        if copy:
            shutil.copyfile(part, target)
            with target.open("rb") as stream:
                os.fsync(stream.fileno())
        else:
            part.rename(target)
        return str(target.relative_to(self._out))

    # --- documents ---------------------------------------------------------------------------------------------------

    def _take_document(self, path: Path, fd: int) -> None:
        if os.fstat(fd).st_size > _MAX_DOCUMENT_BYTES:
            self._other(path, "too large to be a document of a recording")
            return
        stream = io.BytesIO()
        unreadable = copy_out(fd, stream, self._read)
        data = stream.getvalue()
        place = (self._where(path), data)
        try:
            document: Mapping[str, Any] = parse_canonical(data)
        except EvfError:
            document = {}
        sid = _sid_of(document, path.name)
        purpose = document.get("purpose")
        if sid is None or (not document and path.suffix != ".evk"):
            trouble = path.suffix == ".evk" or bool(unreadable)
            what = "a wrapped key whose session cannot be read" if path.suffix == ".evk" else "no document"
            self._other(path, f"{what} of a recording", trouble=trouble)
        elif purpose == "manifest":
            self._of(sid).manifest = place
        elif purpose == "command":
            self._of(sid).approval = place
        elif purpose == "session-key" or path.suffix == ".evk":
            self._add_wrap(sid, path, data)
        else:
            part = self._out / "part"
            part.write_bytes(data)
            kept = self._keep(part, f"{DOCUMENTS}/{sid}/{path.name}")
            self._other(path, f"a document of session {sid}, copied to {kept}")

    def _add_wrap(self, sid: str, path: Path, data: bytes) -> None:
        name, problem = path.name, ""
        recipients: tuple[str, ...] = ()
        if not _REWRAP_NAME.fullmatch(name):
            try:
                context, wraps = read_wrap(data, None)
                name, recipients = wrap_name(context.sid, context.epoch, context.cls), tuple(sorted(wraps))
            except EvfError as error:
                problem = f"damaged, copied as found: {error}"
        known = self._of(sid).wraps.get(name)
        if known is not None and (problem or known[1] == data):
            self._other(path, f"another copy of {known[0]}")
            return
        self._of(sid).wraps[name] = (self._where(path), data)
        session = self._session(sid)
        session.wraps = [wrap for wrap in session.wraps if wrap.name != name]
        session.wraps.append(WrapFound(name, self._where(path), recipients, problem))

    def _write_documents(self, session: SessionFound, documents: _Documents) -> None:
        folder = f"{SESSIONS}/{session.sid}"
        for name, (_, data) in documents.wraps.items():
            self.write(f"{folder}/wraps/{name}", data)
            if any(segment.as_found for segment in session.segments):
                self.write(f"{DAMAGED}/{session.sid}/wraps/{name}", data)
        if documents.approval is not None:
            self.write(f"{folder}/approval.json", documents.approval[1])
        if documents.manifest is not None:
            self.write(f"{folder}/manifest.json", documents.manifest[1])
            session.manifest = self._hold_against_manifest(session, documents)

    def _hold_against_manifest(self, session: SessionFound, documents: _Documents) -> ManifestFound:
        found, data = documents.manifest or ("", b"{}")
        body = parse_canonical(data).get("body", {})
        as_named, missing, differ = 0, [], []
        for entry in [*_entries(body, "segments"), *_entries(body, "wraps")]:
            name = str(entry.get("name"))
            folder = "wraps" if name.endswith(".evk") else "segments"
            copied = self._out / SESSIONS / session.sid / folder / Path(name).name
            if not copied.is_file():
                missing.append(name)
                continue
            with copied.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if digest == entry.get("sha256"):
                as_named += 1
            else:
                differ.append(name)
        approval = documents.approval is not None
        return ManifestFound(found, approval, as_named, tuple(missing), tuple(differ))

    def _match_keys(self, session: SessionFound) -> None:
        whole = [wrap.name for wrap in session.wraps if not wrap.problem]
        wrapped = {parts[1:] for name in whole if (parts := parse_wrap_name(name)) is not None}
        again = any(_REWRAP_NAME.fullmatch(name) for name in whole)
        for segment in session.segments:
            segment.key = again or (segment.epoch, segment.cls) in wrapped

    # --- the source --------------------------------------------------------------------------------------------------

    def _head(self, fd: int) -> bytes:
        try:
            return self._read(fd, len(MAGIC), 0)
        except OSError:
            return b""

    def _session(self, sid: str) -> SessionFound:
        return self._sessions.setdefault(sid, SessionFound(sid))

    def _of(self, sid: str) -> _Documents:
        return self._documents.setdefault(sid, _Documents())

    def _where(self, path: Path) -> str:
        return str(path.relative_to(self._source))

    def _other(self, path: Path, what: str, *, trouble: bool = False) -> None:
        self._report.others.append(OtherFile(self._where(path), what, trouble))

    def _failed(self, path: Path, error: OSError) -> None:
        self._other(path, f"cannot be read: {(error.strerror or str(error)).lower()}", trouble=True)


def _better(one: SegmentFound, other: SegmentFound) -> bool:
    """True when `other` adds nothing to `one`."""
    rank, of_other = ((len(each.behind) + each.records, each.closed, each.records) for each in (one, other))
    return rank >= of_other


def _sid_of(document: Mapping[str, Any], name: str) -> str | None:
    """By what the document says, else by its file's name."""
    body = document.get("body")
    places = (body, body.get("context"), body.get("order")) if isinstance(body, Mapping) else ()
    said = [place.get("sid") for place in places if isinstance(place, Mapping)]
    for sid in (*said, name.split(".")[0]):
        try:
            check_sid(sid)
        except EvfError:
            continue
        return str(sid)
    return None


def _entries(body: Any, name: str) -> list[Mapping[str, Any]]:
    entries = body.get(name) if isinstance(body, Mapping) else None
    return [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []


def _numbers_between(segments: list[SegmentFound]) -> list[str]:
    """Segments whose number lies below that of one that was found, of the same epoch and track; runs as one line."""
    missing: list[str] = []
    for epoch, track in sorted({(segment.epoch, segment.track) for segment in segments}):
        found = {segment.seg for segment in segments if (segment.epoch, segment.track) == (epoch, track)}
        for before, after in pairwise([-1, *sorted(found)]):
            first, last = (segment_name(epoch, track, seg) for seg in (before + 1, after - 1))
            if after - before > 1:
                missing.append(first if first == last else f"{first} to {last}")
    return missing
