"""Opens and verifies a session that is whole, each byte read once: hashed, decrypted, put in its place in the film.

Segments are worked on side by side, a few records of each in memory. Whatever is not as it should be ends it, and the
caller opens the session in the other order: `verify.py` first, which says what is wrong, then `opening.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

from appliance.archive.film_file import FilmFile, FilmSpan
from appliance.archive.opening import OpenedVideo, opened_whole
from appliance.archive.output import allocate, write_at
from appliance.archive.session import LocalSession
from appliance.archive.session_records import Keys, track_segments
from appliance.archive.verify import check_files
from appliance.errors import EvidenceBroken
from appliance.evf.format import (
    CHAIN_BYTES,
    PRE_BYTES,
    TAG_BYTES,
    Pre,
    RecordKind,
    read_prefix,
    read_up_to,
)
from appliance.evf.reader import Outcome, SegmentReader
from appliance.evf.sframe import encode_header
from appliance.evidence.completeness import VIDEO_TRACK
from appliance.evidence.manifest import OpenedSegment, SegmentEntry

# While some wait for the disk each core has one to work on; more gain nothing on two cores, and each takes 3 MB.
SEGMENTS_AT_ONCE = 8
_INIT_INDEX = 0


@dataclass(frozen=True)
class _Part:
    """One segment's share of the film: its fragments from `begin_bytes` to `end_bytes`."""

    entry: SegmentEntry
    begin_bytes: int
    end_bytes: int


@dataclass(frozen=True)
class _Read:
    init: bytes
    fragments: int
    segment: OpenedSegment | None  # None without END


def write_whole_video(
    session: LocalSession, keys: Keys, out: BinaryIO, target: Path, on_bytes: Callable[[int], None]
) -> OpenedVideo:
    """The film as `write_video` gives it, of a session in which nothing is wrong and no file was damaged or cut.

    StoreFailed or NoSpace when `target` cannot be written. Any other error, EvidenceBroken, NotTrusted, BadInput,
    EvfError, OSError, says that this is no such session; what is in `out` then is worth nothing.
    """
    init, parts = _plan(session)
    fd = out.fileno()
    if parts:
        allocate(fd, parts[-1].end_bytes, target)
    with FilmFile(fd, target) as film:
        done = _write_parts(session, keys, parts, film, on_bytes)
    inits = {each.init for each in done.values()}
    if len(inits) > 1 or any(len(each) != init for each in inits):
        raise EvidenceBroken("segments begin with different picture settings")
    for each in inits:
        write_at(fd, each, 0, target)
    opened = {name: each.segment for name, each in done.items() if each.segment is not None}
    for check in check_files(session, on_bytes, opened):
        if check.problem and (check.damaged or not check.declared):
            raise EvidenceBroken(f"{check.name}: {check.problem}")
    return opened_whole(session, sum(each.fragments for each in done.values()))


def _plan(session: LocalSession) -> tuple[int, list[_Part]]:
    """Length of the film's init, and where each segment's fragments go; from lengths alone, nothing is trusted yet."""
    parts: list[_Part] = []
    init_bytes = place = 0
    for entry in track_segments(session, VIDEO_TRACK):
        with session.file(entry.name).open("rb") as stream:
            header_bytes, commit = read_prefix(stream)
            first = Pre.decode(read_up_to(stream, PRE_BYTES))
        if not parts:
            init_bytes = place = first.plain_len
        framing_bytes = sum(
            PRE_BYTES + len(encode_header(entry.seg, index)) + TAG_BYTES for index in range(entry.records)
        )
        end_bytes = CHAIN_BYTES if entry.outcome == Outcome.CLOSED.value else 0
        other_bytes = len(header_bytes) + len(commit) + framing_bytes + first.plain_len + end_bytes
        if first.kind is not RecordKind.INIT or other_bytes > entry.size_bytes:
            raise EvidenceBroken(f"{entry.name} does not begin like a segment of video")
        parts.append(_Part(entry, place, place + entry.size_bytes - other_bytes))
        place = parts[-1].end_bytes
    return init_bytes, parts


def _write_parts(
    session: LocalSession, keys: Keys, parts: list[_Part], film: FilmFile, on_bytes: Callable[[int], None]
) -> dict[str, _Read]:
    free: SimpleQueue[FilmSpan] = SimpleQueue()
    for _ in range(SEGMENTS_AT_ONCE):
        free.put(FilmSpan(film))

    def read(part: _Part) -> _Read:
        span = free.get()
        try:
            return _write_part(session, keys, part, span, on_bytes)
        finally:
            free.put(span)

    with ThreadPoolExecutor(SEGMENTS_AT_ONCE) as pool:
        return dict(zip((part.entry.name for part in parts), pool.map(read, parts), strict=True))


def _write_part(
    session: LocalSession,
    keys: Keys,
    part: _Part,
    span: FilmSpan,
    on_bytes: Callable[[int], None],
) -> _Read:
    entry = part.entry
    init = b""
    span.begin(part.begin_bytes)
    with session.file(entry.name).open("rb", buffering=0) as stream:
        reader = SegmentReader(stream, keys.secret_for, span)
        for pre, plaintext in reader.in_place():
            if pre.kind is RecordKind.INIT and pre.index == _INIT_INDEX:
                init = bytes(plaintext)
                continue
            if pre.kind is not RecordKind.FRAGMENT or span.end + len(plaintext) > part.end_bytes:
                raise EvidenceBroken(f"{entry.name} holds another record than its place in the film")
            span.keep(len(plaintext))
        size_bytes = stream.tell()
    span.finish()
    on_bytes(size_bytes)
    found = (reader.outcome.value, reader.records, span.end)
    if found != (entry.outcome, entry.records, part.end_bytes) or reader.header is None:
        raise EvidenceBroken(f"{entry.name}: {reader.reason or 'it ends otherwise than its manifest says'}")
    closed = reader.outcome is Outcome.CLOSED
    segment = OpenedSegment(reader.header, size_bytes, tuple(reader.leaves)) if closed else None
    return _Read(init, reader.records - 1 - closed, segment)
