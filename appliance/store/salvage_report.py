"""What a salvage found, as values, as JSON for programs and in words for the person who has to decide."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from appliance.store.salvage_scan import Damage, FoundRecord
from appliance.timecode import clock_text

FORMAT = "invigil salvage report"


@dataclass
class SegmentFound:
    """One segment file. `found`: its path in the source; `copied`, `as_found`: paths of the copies, if any.

    `records`: whole ones from the first on without a hole, which the copy holds; `behind`: whole ones after damage.
    `until_90k`: when the last of `records` begins. `key`: a wrap of its epoch and class is here.
    """

    name: str
    found: str
    cls: str
    epoch: int
    track: str
    seg: int
    size_bytes: int
    closed: bool
    records: int
    until_90k: int | None
    damage: tuple[Damage, ...]
    behind: tuple[FoundRecord, ...]
    copied: str | None = None
    as_found: str | None = None
    key: bool = False


@dataclass
class WrapFound:
    """One wrapped key; `problem` is empty when it has the form of one. Its signature is not checked here."""

    name: str
    found: str
    recipients: tuple[str, ...]
    problem: str = ""


@dataclass
class ManifestFound:
    """What the session's manifest, if one is here, says of the files; its signature is not checked here."""

    found: str
    approval: bool
    as_named: int
    missing: tuple[str, ...]
    differ: tuple[str, ...]


@dataclass
class SessionFound:
    """All that was found of one session; `missing` are segments between others that were found."""

    sid: str
    institution: str = ""
    policy_id: str = ""
    retain_until: str = ""
    segments: list[SegmentFound] = field(default_factory=list)
    wraps: list[WrapFound] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    manifest: ManifestFound | None = None

    @property
    def whole(self) -> bool:
        """Nothing damaged or missing as far as the files themselves show."""
        segments = all(segment.closed and segment.key for segment in self.segments)
        named = self.manifest is None or not (self.manifest.missing or self.manifest.differ)
        return segments and named and not self.missing and not any(wrap.problem for wrap in self.wraps)


@dataclass
class OtherFile:
    """A file that is none of a session, or could not be read; `trouble` when footage or keys may be lost with it."""

    found: str
    what: str
    trouble: bool = False


@dataclass
class SalvageReport:
    """Of one run; `made` is UTC text."""

    source: str
    made: str
    sessions: list[SessionFound] = field(default_factory=list)
    others: list[OtherFile] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """True when all that was found is whole."""
        return all(session.whole for session in self.sessions) and not any(
            other.trouble for other in self.others
        )


def to_json(report: SalvageReport) -> bytes:
    """The report for programs; `cannot_prove` as in words."""
    body: dict[str, Any] = {"format": FORMAT, "v": 1, "whole": report.whole, **asdict(report)}
    for session, found in zip(body["sessions"], report.sessions, strict=True):
        session["whole"] = found.whole
        session["cannot_prove"] = list(cannot_prove(found))
    return json.dumps(body, indent=1, sort_keys=True).encode() + b"\n"


def cannot_prove(session: SessionFound) -> Iterator[str]:
    """What nobody can say of a salvaged session, in sentences."""
    if session.manifest is None:
        yield (
            "no signed manifest is here: nothing shows that these are all of the session's files, when it ended, "
            "or that the room's controller ever witnessed them"
        )
        yield "a record that opens is authentic and in its place within its file; that is all that it proves"
    else:
        yield (
            "a manifest is here, but its signatures were not checked; invigil archive verify does that, with the "
            "approval, and says what was witnessed"
        )
    yield "gaps and their causes stood in index.db, which was not read; the film does not name them"
    last = {segment.epoch: segment for segment in session.segments if segment.track == "video"}
    if last and session.manifest is None:
        newest = last[max(last)]
        yield f"whether anything was recorded after {newest.name} is not known"


def in_words(report: SalvageReport) -> str:
    """The report for a person, line by line."""
    lines = [f"salvaged from {report.source} at {report.made}"]
    if not report.sessions:
        lines.append("no recording was found")
    for session in report.sessions:
        lines += ["", *_session_lines(session)]
    if report.others:
        lines += ["", "other files, not copied unless it says so:"]
        lines += [f"  {other.found}: {other.what}" for other in report.others]
    return "\n".join([*lines, ""])


def _session_lines(session: SessionFound) -> Iterator[str]:
    yield f"session {session.sid}: {'whole' if session.whole else 'not whole'}"
    if session.institution:
        yield (
            f"  institution {session.institution}, policy {session.policy_id}; "
            f"to be deleted, this copy as well, by {session.retain_until}"
        )
    for segment in session.segments:
        yield f"  {segment.name}: {_segment_words(segment)}"
        for damage in segment.damage:
            yield f"    from byte {damage.byte} on, {damage.bytes} bytes, record {damage.record}: {damage.what}"
        if segment.behind:
            places = ", ".join(
                f"{record.index} at byte {record.offset_bytes}" for record in segment.behind[:4]
            )
            more = f" and {len(segment.behind) - 4} more" if len(segment.behind) > 4 else ""
            yield f"    whole records behind it: {places}{more}; they stand in {segment.as_found}"
    for name in session.missing:
        yield f"  {name}: not found, though a later one of its track is"
    for wrap in session.wraps:
        people = f"wrapped for {len(wrap.recipients)} keys" if wrap.recipients else "a wrapped key"
        yield f"  {wrap.name}: {wrap.problem or people}"
    if session.manifest is not None:
        yield from _manifest_lines(session.manifest)
    for sentence in cannot_prove(session):
        yield f"  not proven: {sentence}"


def _segment_words(segment: SegmentFound) -> str:
    until = "" if segment.until_90k is None else f", the last begins at {clock_text(segment.until_90k)}"
    state = "whole" if segment.closed else "damaged" if segment.damage else "without its end record"
    key = "" if segment.key else "; no wrapped key of its epoch and class is here, so it cannot be opened"
    return f"{state}, {segment.records} whole records from its beginning{until}{key}"


def _manifest_lines(manifest: ManifestFound) -> Iterator[str]:
    yield f"  manifest ({manifest.found}): {manifest.as_named} files are as it says"
    for name in manifest.missing:
        yield f"    {name} is named there and was not found"
    for name in manifest.differ:
        yield f"    {name} is not the file that it names"
    if not manifest.approval:
        yield "    no approval is here: invigil archive opens the segments one by one, not the session"
