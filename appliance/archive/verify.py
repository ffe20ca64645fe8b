"""What can be said of a session without a key that opens it: every file against the signed manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import BinaryIO, cast

from appliance.archive.rewrapped import rewrap_words
from appliance.archive.session import LocalSession
from appliance.errors import BadInput, EvidenceBroken
from appliance.evf.wraps import wrap_name
from appliance.evidence.completeness import keyless
from appliance.evidence.cut import Cut
from appliance.evidence.manifest import (
    DAMAGED,
    GONE,
    LEAVES_NAME,
    FileState,
    Finding,
    OpenedSegment,
    verify_session,
)
from appliance.protocol import APPROVAL_NAME, MANIFEST_NAME, DamagedFile
from appliance.timecode import clock_text, span_text

# Nobody signed them, and without them is as good as with these: no reason to keep what is left of a session shut.
_UNPROVEN = "these leaves do not lead to the witnessed root and prove nothing"


@dataclass(frozen=True)
class FileCheck:
    """One file: the span of the session that it concerns, facts about it, what is wrong (empty: nothing).

    `declared`: a loss that the signed manifest or release itself shows, of the desk's disk and nobody's alteration;
    with `damaged` the file is not the manifest's, but what was released in its place.
    `cut`: a segment of which only the beginning is there; the span is the one that is missing.
    """

    name: str
    start_90k: int
    end_90k: int
    facts: str
    problem: str = ""
    declared: bool = False
    cut: Cut | None = None
    damaged: bool = False

    def line(self) -> str:
        """One line for a person."""
        state = (
            "ok    "
            if not self.problem
            else "lost  "
            if self.declared
            else "cut   "
            if self.cut
            else "broken"
        )
        return (
            f"{state}  {span_text(self.start_90k, self.end_90k)}  {self.name}  {self.problem or self.facts}"
        )


def check_files(
    session: LocalSession,
    on_bytes: Callable[[int], None],
    opened: Mapping[str, OpenedSegment] | None = None,
) -> list[FileCheck]:
    """Sizes, hashes, structure, the Merkle root under the cosigned checkpoint, and that nothing is extra.

    `on_bytes` is told what was read; each segment is read twice (`bytes_to_read`), but for those in `opened`.
    """

    def open_file(name: str) -> BinaryIO:
        path = session.path(name)
        try:
            return cast(BinaryIO, _Counted(session.file(name), on_bytes))
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise BadInput(f"cannot read {path}: {reason}", "check its permissions") from error

    findings = verify_session(session.manifest, open_file, opened, _released(session), session.leaves or ())
    wrong = {
        finding.name: finding
        for finding in findings
        if (finding.damaged or not finding.declared) and not _erased_on_purpose(session, finding.name)
    }
    found = [_judged(session, check, wrong.get(check.name)) for check in _named(session)]
    found.extend(
        FileCheck(name, 0, session.end_90k, rewrap_words(rewrap))
        for name, rewrap in session.rewrapped.valid.items()
    )
    found.extend(
        FileCheck(name, 0, session.end_90k, "", f"is no re-wrap of this session: {problem}")
        for name, problem in session.rewrapped.problems.items()
    )
    found.extend(
        FileCheck(finding.name, finding.start_90k, finding.end_90k, "", finding.problem, declared=True)
        for finding in findings
        if finding.declared and not finding.damaged
    )
    found.extend(
        FileCheck(name, line.start_90k, line.end_90k, "", line.cause, declared=True)
        for name, line in keyless(session.manifest).items()
    )
    found.extend(
        FileCheck(name, 0, session.end_90k, "", "file is not named in the manifest")
        for name in session.unnamed_files()
    )
    return found


def bytes_to_read(session: LocalSession) -> int:
    """What `check_files` reads of an unbroken session."""
    segments = sum(segment.size_bytes for segment in session.manifest.segments)
    return 2 * segments + sum(wrap.size_bytes for wrap in session.manifest.wraps)


def require_unaltered(checks: list[FileCheck]) -> None:
    """EvidenceBroken with the first broken file's name and span.

    A loss that manifest or release declares is none, nor is a file that was only cut: what is left of it can be opened.
    """
    _refuse(
        [check for check in checks if check.problem and not check.declared and not check.cut],
        "pull the session again; if it stays so, the storage's copy is not what the desk recorded",
    )


def require_whole(checks: list[FileCheck]) -> None:
    """`require_unaltered`, no file cut, and no record or key lost on the desk either."""
    require_unaltered(checks)
    _refuse(
        [check for check in checks if check.cut],
        "pull the session again for the whole file; what is there can be opened",
    )
    _refuse(
        [check for check in checks if check.problem],
        "the signed manifest or approval itself shows it; all else is unaltered and can be opened where a key is left",
    )


def cuts(checks: Iterable[FileCheck]) -> dict[str, Cut]:
    """By file name, as `LocalSession.cuts` wants them."""
    return {check.name: check.cut for check in checks if check.cut}


def damaged(session: LocalSession, checks: Iterable[FileCheck]) -> dict[str, DamagedFile]:
    """By file name, as `LocalSession.damaged` wants them: what is as released, and not as the manifest says."""
    names = {check.name for check in checks if check.damaged}
    return {file.name: file for file in session.release.damaged if file.name in names}


def damaged_words(session: LocalSession) -> list[str]:
    """What to know of each file that left the desk damaged, or not at all."""
    return [
        f"{name} was {GONE if file.sha256 is None else DAMAGED}, {_released_by(session)}"
        for name, file in session.damaged.items()
    ]


def cut_words(session: LocalSession) -> list[str]:
    """What to know of each file that was cut: what is there, what is missing."""
    return [
        f"{entry.name} was cut after the recording: {_missing_words(cut, entry.end_90k)}"
        for entry in session.manifest.segments
        if (cut := session.cuts.get(entry.name))
    ]


def _missing_words(cut: Cut, end_90k: int) -> str:
    there = f"there until {clock_text(cut.until_90k)}"
    if not cut.missing:
        return f"{there}, only its end record is missing"
    start, _, end = span_text(cut.until_90k, end_90k).partition("-")
    return f"{there}, missing from {start} to {end}"


def _released(session: LocalSession) -> dict[str, FileState]:
    """What may lie in a file's place. Where nothing may, a pipe or a dangling link is something."""
    return {
        file.name: FileState(file.size_bytes, file.sha256)
        for file in session.release.damaged
        if file.sha256 is not None or not _stands(session.path(file.name))
    }


def _released_by(session: LocalSession) -> str:
    return f"released so by {session.release.approved_by} at {session.release.approved_at}"


def _judged(session: LocalSession, check: FileCheck, finding: Finding | None) -> FileCheck:
    if finding is None:
        return check
    if finding.damaged:
        problem = f"{finding.problem}, {_released_by(session)}"
        return replace(check, problem=problem, declared=True, damaged=True)
    if finding.cut is None:
        return replace(check, problem=finding.problem)
    return replace(
        check,
        start_90k=finding.start_90k,
        end_90k=finding.end_90k,
        problem=f"{finding.problem}: {_missing_words(finding.cut, finding.end_90k)}",
        cut=finding.cut,
    )


def _refuse(broken: list[FileCheck], hint: str) -> None:
    if broken:
        first = broken[0]
        more = f"; and {len(broken) - 1} more" if len(broken) > 1 else ""
        span = span_text(first.start_90k, first.end_90k)
        raise EvidenceBroken(f"{first.name} ({span} of the session): {first.problem}{more}", hint)


def _named(session: LocalSession) -> Iterator[FileCheck]:
    manifest, end = session.manifest, session.end_90k
    yield FileCheck(
        MANIFEST_NAME,
        0,
        end,
        f"signed by desk {manifest.desk}, {manifest.leaves} leaves cosigned by the room controller",
    )
    yield FileCheck(APPROVAL_NAME, 0, end, f"{session.release.approved_by}, {session.release.approved_at}")
    if session.leaves is None:
        yield FileCheck(LEAVES_NAME, 0, end, "", _UNPROVEN, declared=True)
    elif session.leaves:
        yield FileCheck(LEAVES_NAME, 0, end, "all leaves, they lead to the witnessed root")
    for segment in manifest.segments:
        open_ended = ", open-ended" if segment.outcome == "OPEN_ENDED" else ""
        yield FileCheck(
            segment.name, segment.start_90k, segment.end_90k, f"{segment.records} records{open_ended}"
        )
    for wrap in manifest.wraps:
        start_90k, end_90k = _span_of_key(session, wrap.name)
        yield FileCheck(wrap.name, start_90k, end_90k, _wrap_facts(session, wrap.name))


def _wrap_facts(session: LocalSession, name: str) -> str:
    newest = session.rewrapped.newest
    if newest is None or not session.rewrapped.erased(name):
        return "wrapped key"
    if _erased_on_purpose(session, name):
        return f"wrapped key, erased when {newest.name} replaced it"
    return f"wrapped key, still there though {newest.name} replaced it: run invigil archive rewrap again"


def _erased_on_purpose(session: LocalSession, name: str) -> bool:
    """A wrap that is gone as a re-wrap says, which a representative signed; nothing else may be missing."""
    return session.rewrapped.erased(name) and not _stands(session.path(name))


def _stands(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _span_of_key(session: LocalSession, name: str) -> tuple[int, int]:
    """What nobody could open without this wrap: the segments of its epoch and class."""
    segments = [
        segment
        for segment in session.manifest.segments
        if name == wrap_name(session.manifest.sid, segment.epoch, segment.cls)
    ]
    return (
        min((segment.start_90k for segment in segments), default=0),
        max((segment.end_90k for segment in segments), default=session.end_90k),
    )


class _Counted(FileIO):
    def __init__(self, path: Path, on_bytes: Callable[[int], None]) -> None:
        super().__init__(path, "rb")
        self._on_bytes = on_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size)
        self._on_bytes(len(data))
        return data
