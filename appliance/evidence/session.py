"""What a manifest says of one session, its JSON form, and the rules it must keep in itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from appliance.errors import EvidenceBroken

T = TypeVar("T")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SegmentEntry:
    """One segment file. Times: 90 kHz from the session's start; `leaf_runs`: (first leaf, count) in order."""

    name: str
    track: str
    cls: str
    epoch: int
    seg: int
    size_bytes: int
    sha256: str
    records: int
    outcome: str
    start_90k: int
    end_90k: int
    leaf_runs: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class WrapEntry:
    """One .evk file."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Gap:
    """Time without recording, or (`unwitnessed`) recorded while no controller could see the checkpoints."""

    start_90k: int
    end_90k: int
    cause: str
    unwitnessed: bool


@dataclass(frozen=True)
class EventLeaf:
    """An event's place in the log and its body; its leaf is SHA256(0x00 || canonical(body))."""

    index: int
    body: Mapping[str, Any]


@dataclass(frozen=True)
class LostLeaf:
    """A committed record whose bytes the node lost (damaged disk, missing file); `leaf`: its hash in hex."""

    index: int
    leaf: str
    name: str
    time_90k: int
    cause: str


@dataclass(frozen=True)
class Manifest:
    """All of one session. `checkpoint`: the note over all `leaves`; `cosignature`: the controller's line or ""."""

    institution: str
    exam: str
    room: str
    desk: str
    sid: str
    candidate_code: str
    policy_id: str
    policy_version: int
    retain_until: str
    started: str
    ended: str
    recipient_set_version: int
    segments: tuple[SegmentEntry, ...]
    wraps: tuple[WrapEntry, ...]
    events: tuple[EventLeaf, ...]
    gaps: tuple[Gap, ...]
    lost: tuple[LostLeaf, ...]
    leaves: int
    checkpoint: str
    cosignature: str
    chain_pem: tuple[str, ...]
    region: str = ""
    storage: str = ""
    v: int = field(default=1)

    def to_body(self) -> dict[str, Any]:
        """JSON form; a segment's `cls` is spelled class."""
        body: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        body["segments"] = [_segment_json(entry) for entry in self.segments]
        body["wraps"] = [vars(entry) for entry in self.wraps]
        body["events"] = [{"index": event.index, "body": dict(event.body)} for event in self.events]
        body["gaps"] = [vars(gap) for gap in self.gaps]
        body["lost"] = [vars(leaf) for leaf in self.lost]
        body["chain_pem"] = list(self.chain_pem)
        return body

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Manifest:
        """Inverse of `to_body`; EvidenceBroken for anything malformed."""
        values = _typed(cls, body, "manifest")
        if values["v"] != 1:
            raise EvidenceBroken("manifest version is not 1", "use a newer program")
        segments = tuple(_segment(item) for item in values["segments"])
        wraps = tuple(_entry(WrapEntry, item, "wrap") for item in values["wraps"])
        gaps = tuple(_entry(Gap, item, "gap") for item in values["gaps"])
        lost = tuple(_entry(LostLeaf, item, "lost leaf") for item in values["lost"])
        events = tuple(_entry(EventLeaf, item, "event") for item in values["events"])
        if not all(isinstance(pem, str) for pem in values["chain_pem"]):
            raise EvidenceBroken("manifest is malformed: chain_pem")
        values.update(
            segments=segments,
            wraps=wraps,
            gaps=gaps,
            lost=lost,
            events=events,
            chain_pem=tuple(values["chain_pem"]),
        )
        return cls(**values)


def check_consistent(manifest: Manifest) -> None:
    """EvidenceBroken unless every leaf is exactly one record or event and names are plain file names."""
    owners: list[tuple[int, int]] = [(event.index, 1) for event in manifest.events]
    owners.extend((leaf.index, 1) for leaf in manifest.lost)
    if not all(_DIGEST.fullmatch(leaf.leaf) for leaf in manifest.lost):
        raise EvidenceBroken("manifest names a lost leaf of a wrong form")
    entries: list[SegmentEntry | WrapEntry] = [*manifest.segments, *manifest.wraps]
    names = [entry.name for entry in entries]
    for entry in entries:
        if (
            not _FILE_NAME.fullmatch(entry.name)
            or not _DIGEST.fullmatch(entry.sha256)
            or entry.size_bytes < 0
        ):
            raise EvidenceBroken(f"manifest names a file or digest of a wrong form: {entry.name!r}")
    if len(set(names)) != len(names):
        raise EvidenceBroken("manifest names a file twice")
    for segment in manifest.segments:
        if sum(count for _, count in segment.leaf_runs) != segment.records:
            raise EvidenceBroken(f"manifest counts the records of {segment.name} in two ways")
        if segment.outcome not in ("CLOSED", "OPEN_ENDED") or segment.start_90k > segment.end_90k:
            raise EvidenceBroken(f"manifest has no possible outcome or span for {segment.name}")
        owners.extend(segment.leaf_runs)
    following = 0
    for first, count in sorted(owners):
        if first != following or count < 1:
            raise EvidenceBroken(f"manifest does not say what leaf {following} is, or says it twice")
        following = first + count
    if following != manifest.leaves:
        raise EvidenceBroken(f"manifest accounts for {following} of {manifest.leaves} leaves")


def _segment_json(entry: SegmentEntry) -> dict[str, Any]:
    values = {**vars(entry), "class": entry.cls, "leaf_runs": [list(run) for run in entry.leaf_runs]}
    del values["cls"]
    return values


def _segment(item: Any) -> SegmentEntry:
    if not isinstance(item, dict) or "class" not in item or "cls" in item:
        raise EvidenceBroken("manifest is malformed: segment")
    values = {**item, "cls": item["class"]}
    del values["class"]
    entry = _entry(SegmentEntry, values, "segment")
    runs = []
    for run in entry.leaf_runs:
        match run:
            case [int(first), int(count)] if type(first) is int and type(count) is int:
                runs.append((first, count))
            case _:
                raise EvidenceBroken("manifest is malformed: leaf_runs")
    return replace(entry, leaf_runs=tuple(runs))


# The annotations are strings at run time; JSON has these types for them.
_JSON_TYPES: dict[str, type] = {"str": str, "int": int, "bool": bool, "Mapping[str, Any]": dict}


def _typed(kind: type[Any], item: Any, what: str) -> dict[str, Any]:
    wanted = {each.name: _JSON_TYPES.get(str(each.type), list) for each in fields(kind)}
    if not isinstance(item, Mapping) or set(item) != set(wanted):
        raise EvidenceBroken(f"manifest is malformed: {what} has unknown or missing keys")
    for name, json_type in wanted.items():
        if type(item[name]) is not json_type:
            raise EvidenceBroken(f"manifest is malformed: {what} {name}")
    return dict(item)


def _entry(kind: type[T], item: Any, what: str) -> T:
    return kind(**_typed(kind, item, what))
