"""Opens what `invigil store salvage` copied, also round damage: each record by itself, left out where it does not open.

Every record in the film is authentic and in its place within its segment. Nothing is held against a manifest, so it
proves nothing about completeness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from appliance.archive.opening import Film, Keys, OpenedVideo
from appliance.archive.session import SEGMENTS
from appliance.errors import BadInput, EvidenceBroken
from appliance.evf.errors import EvfError
from appliance.evf.format import PREFIX_FIXED_BYTES, RecordKind, header_json_length
from appliance.evf.reader import Record, open_record
from appliance.evidence.completeness import VIDEO_TRACK
from appliance.store.salvage import DAMAGED, SESSIONS
from appliance.store.salvage_scan import FoundSegment, examine_segment
from appliance.timecode import clock_text

MakeKeys = Callable[[Path], Keys]


def salvaged_segments(folder: Path) -> list[tuple[Path, FoundSegment]]:
    """Video segments of one salvaged session in order of time, each as found where it is damaged. BadInput for none.

    `folder`: SALVAGE/sessions/<sid>; what is damaged stands in SALVAGE/damaged/<sid>.
    """
    as_found = folder.parent.parent / DAMAGED / folder.name
    places = [folder] if folder.parent.name != SESSIONS else [folder, as_found]
    # A file as it was found comes after the copy of its beginning and takes its place.
    paths = {path.name: path for place in places for path in sorted((place / SEGMENTS).glob("*.evf"))}
    found: list[tuple[Path, FoundSegment]] = []
    for path in paths.values():
        try:
            segment = examine_segment(path)
        except EvfError as error:
            raise EvidenceBroken(f"{path}: {error}", "move it away and try again") from error
        if segment.header.track == VIDEO_TRACK:
            found.append((path, segment))
    if not found:
        raise BadInput(
            f"{folder} holds no video segment", "name a folder below sessions/ that store salvage wrote"
        )
    return sorted(found, key=lambda each: (each[1].header.epoch, each[1].header.seg))


@dataclass
class _Spoilt:
    """Records of one segment that did not open: how many, and the first one's time and reason."""

    count: int = 0
    time_90k: int = 0
    reason: str = ""


def write_salvaged_video(
    segments: list[tuple[Path, FoundSegment]], make_keys: MakeKeys, out: BinaryIO
) -> OpenedVideo:
    """All that opens, as one fragmented MP4; EvidenceBroken when nothing does. `make_keys`: of a segment's path."""
    film = Film(out)
    notes: list[str] = []
    init: bytes | None = None
    waiting: list[tuple[str, Record]] = []
    for path, segment in segments:
        spoilt = _Spoilt()
        for record in _records(path, segment, make_keys(path), spoilt):
            if record.kind is RecordKind.INIT:
                init = init or record.plaintext
            if (
                init is None
            ):  # the first segment's own init is damaged: a later one, of equal settings, serves
                waiting.append((path.name, record))
                continue
            film.add(path.name, record)
            while waiting:
                film.add(*waiting.pop(0))
        notes += _notes(path.name, segment, spoilt)
    if not film.fragments:
        raise EvidenceBroken("no fragment opens with this key", "; ".join(notes))
    return OpenedVideo(film.fragments, film.last_90k, tuple(notes))


def _records(path: Path, segment: FoundSegment, keys: Keys, spoilt: _Spoilt) -> Iterator[Record]:
    secret = keys.secret_for(segment.header)
    with path.open("rb") as stream:
        prefix = stream.read(segment.prefix_bytes)
        length = PREFIX_FIXED_BYTES + header_json_length(prefix[:PREFIX_FIXED_BYTES])
        header_bytes, commit = prefix[:length], prefix[length:]
        for place in (*segment.beginning, *segment.behind):
            if place.kind is RecordKind.END:
                continue
            stream.seek(place.offset_bytes)
            try:
                yield open_record(stream.read(place.length_bytes), header_bytes, secret, commit)
            except EvfError as error:
                if not spoilt.count:
                    spoilt.time_90k, spoilt.reason = place.time_90k, str(error)
                spoilt.count += 1


def _notes(name: str, segment: FoundSegment, spoilt: _Spoilt) -> Iterator[str]:
    for damage in segment.damage:
        yield f"{name}: damaged from byte {damage.byte} on, {damage.bytes} bytes: {damage.what}"
    if spoilt.count:
        yield (
            f"{name}: {spoilt.count} records do not open and are left out, the first at "
            f"{clock_text(spoilt.time_90k)}: {spoilt.reason}"
        )
    if not segment.closed and not segment.damage:
        yield f"{name}: without its end record; whether more was recorded in it is not known"
