"""The log track as people and machines read it: what was observed, when, by which rule, how sure (F072).

Pure: takes the plaintext of EVENT records and gives values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from appliance.errors import EvidenceBroken
from appliance.evidence.completeness import Completeness, Kind, Line
from appliance.evidence.manifest import Manifest
from appliance.policy import Strict, first_problem
from appliance.protocol import ObservationReport
from appliance.timecode import TICKS_PER_S, seconds

# Of docs/schemas/events.schema.json; 2 brought the cards.
EVENTS_VERSION = 2
# F068, word for word on every report and export
NOTICE = "An indication is not proof of anything. It says where a person may want to look."


class LoggedObservation(Strict):
    """Plaintext of one EVENT record on the track `log`; where it names its phase twice, both must agree."""

    number: int
    report: ObservationReport
    phase: Literal["opened", "closed"] | None = None


@dataclass(frozen=True)
class Subject:
    """Whose recording it is, as far as the manifest says: codes, never a name (F016)."""

    sid: str
    exam: str
    candidate_code: str
    policy_id: str
    policy_version: int

    @classmethod
    def of(cls, manifest: Manifest) -> Subject:
        """From a verified manifest."""
        return cls(
            sid=manifest.sid,
            exam=manifest.exam,
            candidate_code=manifest.candidate_code,
            policy_id=manifest.policy_id,
            policy_version=manifest.policy_version,
        )


class ObservationLog:
    """Collects EVENT records in the order of the log; a closed observation is never reopened."""

    def __init__(self) -> None:
        self._by_number: dict[int, ObservationReport] = {}

    def add(self, plaintext: bytes) -> None:
        """One authentic record; EvidenceBroken when it is not an observation as this version knows them."""
        try:
            entry = LoggedObservation.model_validate_json(plaintext)
        except ValidationError as error:
            raise EvidenceBroken(
                f"log track holds a record that is no observation: {first_problem(error)}",
                "it is authentic; a newer version of invigil may read it",
            ) from error
        if entry.phase is not None and entry.phase != entry.report.phase:
            raise EvidenceBroken(
                f"observation {entry.number} is both opened and closed", "report this as a bug"
            )
        known = self._by_number.get(entry.number)
        if known is None or known.phase == "opened":
            self._by_number[entry.number] = entry.report

    def reports(self) -> list[ObservationReport]:
        """In order of time."""
        return sorted(self._by_number.values(), key=lambda report: (report.start_90k, report.kind))


def end_90k(report: ObservationReport) -> int:
    """Where it ended, or, for one still open when the log stops, where it was last seen."""
    if report.end_90k is not None:
        return report.end_90k
    return report.start_90k + round(report.duration_s * TICKS_PER_S)


def events_document(
    manifest: Manifest, completeness: Completeness, reports: Sequence[ObservationReport]
) -> dict[str, Any]:
    """What `open --events` writes (F132); `end_s` is null for an observation that the log never closed.

    `completeness`: the manifest's, and what files lack that were cut later. docs/schemas/events.schema.json is its
    schema. `unwitnessed` is footage that exists, from a time when the room controller could not see it grow; `lost`
    are records that the desk's disk lost afterwards; `findings` are about picture and clock of footage that is there.
    """
    subject = Subject.of(manifest)
    by_kind: dict[str, list[dict[str, Any]]] = {"gaps": [], "unwitnessed": [], "findings": []}
    for line in completeness.lines:
        if line.kind is Kind.GAP:
            by_kind["gaps"].append(_span(line))
        elif line.kind is Kind.UNWITNESSED:
            by_kind["unwitnessed"].append(_span(line))
        elif line.kind is not Kind.LOST:
            by_kind["findings"].append({**_span(line), "kind": line.kind.value})
    return {
        "version": EVENTS_VERSION,
        "sid": subject.sid,
        "exam": subject.exam,
        "candidate_code": subject.candidate_code,
        "policy": {"id": subject.policy_id, "version": subject.policy_version},
        "observations": [_observation(report) for report in reports],
        "complete": completeness.complete,
        "gaps": by_kind["gaps"],
        "lost": [{"time_s": seconds(leaf.time_90k), "cause": leaf.cause} for leaf in manifest.lost],
        "unwitnessed": by_kind["unwitnessed"],
        "findings": by_kind["findings"],
        "notice": NOTICE,
    }


def _span(line: Line) -> dict[str, Any]:
    return {"start_s": seconds(line.start_90k), "end_s": seconds(line.end_90k), "cause": line.cause}


def _observation(report: ObservationReport) -> dict[str, Any]:
    return {
        "start_s": seconds(report.start_90k),
        "end_s": None if report.end_90k is None else seconds(report.end_90k),
        "duration_s": report.duration_s,
        "kind": report.kind,
        "words": report.words,
        "level": report.level,
        "rule": report.rule,
        "measured": report.measured,
        "uncertainty": report.uncertainty,
        "technical": report.technical,
        "card": None if report.card is None else report.card.model_dump(),
    }
