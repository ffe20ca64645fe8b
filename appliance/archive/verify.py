"""What can be said of a session without a key that opens it: every file against the signed manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import BinaryIO, cast

from appliance.archive.session import LocalSession
from appliance.archive.timecode import span_text
from appliance.errors import BadInput, EvidenceBroken
from appliance.evidence.manifest import Finding, verify_session
from appliance.protocol import APPROVAL_NAME, MANIFEST_NAME


@dataclass(frozen=True)
class FileCheck:
    """One file: the span of the session that it concerns, facts about it, what is wrong (empty: nothing).

    `declared`: a loss that the signed manifest itself names, of the desk's disk and nobody's alteration.
    """

    name: str
    start_90k: int
    end_90k: int
    facts: str
    problem: str = ""
    declared: bool = False

    def line(self) -> str:
        """One line for a person."""
        state = "ok    " if not self.problem else "lost  " if self.declared else "broken"
        return (
            f"{state}  {span_text(self.start_90k, self.end_90k)}  {self.name}  {self.problem or self.facts}"
        )


def check_files(session: LocalSession, on_bytes: Callable[[int], None]) -> list[FileCheck]:
    """Sizes, hashes, structure, the Merkle root under the cosigned checkpoint, and that nothing is extra.

    `on_bytes` is told what was read; each segment is read twice (`bytes_to_read`).
    """

    def open_file(name: str) -> BinaryIO:
        path = session.path(name)
        try:
            return cast(BinaryIO, _Counted(path, on_bytes))
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise BadInput(f"cannot read {path}: {reason}", "check its permissions") from error

    losses = {_lost(leaf.name, leaf.time_90k, leaf.cause) for leaf in session.manifest.lost}
    findings = verify_session(session.manifest, open_file)
    problems = {finding.name: finding.problem for finding in findings if finding not in losses}
    found = [replace(check, problem=problems.get(check.name, "")) for check in _named(session)]
    found.extend(
        FileCheck(finding.name, finding.start_90k, finding.end_90k, "", finding.problem, declared=True)
        for finding in findings
        if finding in losses
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
    """EvidenceBroken with the first broken file's name and span; a loss that the manifest declares is none."""
    _refuse(
        [check for check in checks if check.problem and not check.declared],
        "pull the session again; if it stays so, the storage's copy is not what the desk recorded",
    )


def require_whole(checks: list[FileCheck]) -> None:
    """`require_unaltered`, and no record lost on the desk either."""
    require_unaltered(checks)
    _refuse(
        [check for check in checks if check.problem],
        "the desk itself says so in its signed manifest; what is there is unaltered and can be opened",
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
    for segment in manifest.segments:
        open_ended = ", open-ended" if segment.outcome == "OPEN_ENDED" else ""
        yield FileCheck(
            segment.name, segment.start_90k, segment.end_90k, f"{segment.records} records{open_ended}"
        )
    for wrap in manifest.wraps:
        start_90k, end_90k = _span_of_key(session, wrap.name)
        yield FileCheck(wrap.name, start_90k, end_90k, "wrapped key")


def _span_of_key(session: LocalSession, name: str) -> tuple[int, int]:
    """What nobody could open without this wrap: the segments of its epoch and class (<sid>.<epoch>.<class>.evk)."""
    segments = [
        segment
        for segment in session.manifest.segments
        if name == f"{session.manifest.sid}.{segment.epoch}.{segment.cls}.evk"
    ]
    return (
        min((segment.start_90k for segment in segments), default=0),
        max((segment.end_90k for segment in segments), default=session.end_90k),
    )


def _lost(name: str, time_90k: int, cause: str) -> Finding:
    return Finding(name, time_90k, time_90k, f"record was lost on the node: {cause}")


class _Counted(FileIO):
    def __init__(self, path: Path, on_bytes: Callable[[int], None]) -> None:
        super().__init__(path, "rb")
        self._on_bytes = on_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size)
        self._on_bytes(len(data))
        return data
