"""Opens what `invigil store salvage` copied, also round damage: each record by itself, left out where it does not open.

Every record in the film is authentic and in its place within its segment. Nothing is held against a manifest, so it
proves nothing about completeness.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from appliance.archive.opening import Film, OpenedVideo
from appliance.archive.round_damage import RoundDamage
from appliance.archive.session import SEGMENTS
from appliance.archive.session_records import Keys
from appliance.errors import BadInput, EvidenceBroken
from appliance.evf.errors import EvfError
from appliance.evidence.completeness import VIDEO_TRACK
from appliance.store.salvage import DAMAGED, SESSIONS
from appliance.store.salvage_scan import FoundSegment, examine_segment

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


def write_salvaged_video(
    segments: list[tuple[Path, FoundSegment]], make_keys: MakeKeys, out: BinaryIO
) -> OpenedVideo:
    """All that opens, as one fragmented MP4; EvidenceBroken when nothing does. `make_keys`: of a segment's path."""
    film = Film(out)
    notes: list[str] = []
    for path, segment in segments:
        damaged = RoundDamage(path, segment, make_keys(path).secret_for(segment.header))
        for record in damaged:
            film.add(path.name, record)
        notes += damaged.notes()
        if not segment.closed and not segment.damage:
            notes.append(f"{path.name}: without its end record; whether more was recorded in it is not known")
    if not film.fragments:
        raise EvidenceBroken("no fragment opens with this key", "; ".join(notes))
    return OpenedVideo(film.fragments, film.last_90k, tuple(notes))
