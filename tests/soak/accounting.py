"""Opens one session with the representative's key and holds it against what the observer noted.

Files lie either in a pulled folder or in the desk's store; the manifest's gaps are held against the frames' own times.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import av

from appliance.clock import parse_utc
from appliance.errors import ApplianceError
from appliance.evf.errors import EvfError
from appliance.evf.format import RecordKind
from appliance.evf.keys import EpochKey, secret_at
from appliance.evf.reader import SegmentReader
from appliance.evf.recipients import RepresentativeKey
from appliance.evf.wraps import open_wrap
from appliance.evidence.manifest import Manifest, verify_session
from tests.soak.observer import FRAGMENT, Acknowledged, Noted, Place

S = 90_000
# The encoder ends a fragment after 0.5 s without a frame, and the recorder names 0.4 s between two fragments.
ALLOWED_SILENCE_S = 0.55
# A camera's way from the command to its first frame is no gap (camera/recorder.py).
ALLOWED_START_S = 3.1
# The end is a time of the wall clock, in milliseconds, taken after sealing.
ALLOWED_END_S = 1.5


@dataclass
class Account:
    """What became of one session; `lost` and `unnamed` hold sentences, `found` counts fragments."""

    desk: str
    sid: str
    where: str
    acknowledged: int = 0
    found: int = 0
    named_s: float = 0.0
    unwitnessed_s: float = 0.0
    filmed_s: float = 0.0
    causes: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Files:
    """Two folders of one session."""

    where: str
    segments: Path
    wraps: Path

    @classmethod
    def pulled(cls, folder: Path) -> Files:
        """What `invigil archive pull` wrote."""
        return cls("storage", folder / "segments", folder / "wraps")

    @classmethod
    def local(cls, store: Path, sid: str) -> Files:
        """A desk's own copy."""
        return cls("desk", store / "segments" / sid, store / "wraps")

    def open(self, name: str) -> BinaryIO:
        """For `verify_session`; FileNotFoundError."""
        return ((self.wraps if name.endswith(".evk") else self.segments) / name).open("rb")


def account_for(
    noted: Acknowledged, files: Files, manifest: Manifest | None, representative: RepresentativeKey
) -> Account:
    """Without a manifest (never certified) whatever lies there is opened, and no gap counts as named."""
    account = Account(noted.desk, noted.sid, files.where, acknowledged=noted.fragments)
    account.damage += noted.problems
    found, film = _open_all(noted.sid, files, representative, account)
    for place, each in noted.records.items():
        there = found.get(place)
        if there != each:
            what = "is not there" if there is None else "is there with another time or other bytes"
            account.lost.append(f"{noted.desk} {noted.sid[:8]} {place.segment} record {place.record} {what}")
    account.found = sum(each.kind == FRAGMENT for each in found.values())
    if manifest is None:
        account.damage.append("never certified")
    else:
        account.damage += [f"{each.name}: {each.problem}" for each in verify_session(manifest, files.open)]
        _name_silences(frame_times_s(film), manifest, account)
    return account


def _open_all(
    sid: str, files: Files, representative: RepresentativeKey, account: Account
) -> tuple[dict[Place, Noted], io.BytesIO]:
    found: dict[Place, Noted] = {}
    film = io.BytesIO()
    keys: dict[str, EpochKey] = {}
    for path in sorted(files.segments.glob("*.evf"), key=_order):
        epoch, track, _ = path.stem.split("-")
        wrap = f"{sid}.{epoch}.{'media' if track == 'video' else 'log'}.evk"
        try:
            if wrap not in keys:
                keys[wrap] = open_wrap((files.wraps / wrap).read_bytes(), representative, None)
            for place, each, plaintext in _records(path, keys[wrap]):
                found[place] = each
                if track == "video" and (each.kind == FRAGMENT or not film.tell()):
                    film.write(plaintext)
        except (OSError, EvfError) as error:
            account.damage.append(f"{path.name}: {error}")
    film.seek(0)
    return found, film


def _records(path: Path, key: EpochKey) -> Iterator[tuple[Place, Noted, bytes]]:
    with path.open("rb") as stream, path.open("rb") as bytes_of:
        for record in SegmentReader(stream, lambda header: secret_at(key, header.track, header.seg)):
            bytes_of.seek(record.offset_bytes)
            sealed = hashlib.sha256(bytes_of.read(record.length_bytes)).digest()
            each = Noted(int(record.kind), record.time_90k, record.length_bytes, sealed)
            if record.kind is not RecordKind.END:
                yield Place(path.name, record.index), each, record.plaintext


def _order(path: Path) -> tuple[int, str, int]:
    epoch, track, seg = path.stem.split("-")
    return int(epoch), track, int(seg)


def frame_times_s(film: io.BytesIO) -> list[float]:
    """Session time of every frame, from the film's packets; nothing is decoded."""
    if not film.getbuffer().nbytes:
        return []
    try:
        with av.open(film, "r") as container:
            packets = container.demux(container.streams.video[0])
            times = [float(each.pts * each.time_base) for each in packets if each.pts is not None]
    except av.FFmpegError as error:
        raise ApplianceError(f"the film does not play: {error}") from error
    return sorted(times)


def _name_silences(times_s: list[float], manifest: Manifest, account: Account) -> None:
    """Whatever nobody filmed and no gap of the manifest names is `unnamed`."""
    length_s = (parse_utc(manifest.ended) - parse_utc(manifest.started)).total_seconds()
    gaps = [(gap.start_90k / S, gap.end_90k / S) for gap in manifest.gaps if not gap.unwitnessed]
    account.named_s = sum(end - start for start, end in gaps)
    account.unwitnessed_s = sum((gap.end_90k - gap.start_90k) / S for gap in manifest.gaps if gap.unwitnessed)
    account.causes.update(gap.cause for gap in manifest.gaps if not gap.unwitnessed)
    account.filmed_s = max(0.0, length_s - account.named_s)
    edges = [(0.0, times_s[0] if times_s else length_s, ALLOWED_START_S)]
    if times_s:
        edges += [(start, end, ALLOWED_SILENCE_S) for start, end in pairwise(times_s)]
        edges.append((times_s[-1], length_s, ALLOWED_END_S))
    for start, end, allowed_s in edges:
        left_s = unnamed_s(start, end, gaps)
        if left_s > allowed_s:
            account.unnamed.append(
                f"{account.desk} {account.sid[:8]}: no frame from {start:.2f} to {end:.2f} s,"
                f" {left_s:.2f} s of it in no gap"
            )


def unnamed_s(start: float, end: float, gaps: list[tuple[float, float]]) -> float:
    """How much of a silence no gap covers."""
    left, at = 0.0, start
    for gap_start, gap_end in sorted(gaps):
        if gap_start > at:
            left += max(0.0, min(gap_start, end) - at)
        at = max(at, gap_end)
        if at >= end:
            break
    return left + max(0.0, end - at)
