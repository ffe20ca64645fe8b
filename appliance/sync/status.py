"""Builds the desk's status from durable facts (pure): what the index, the ledger and the camera process say, in words.

Nothing seen in a picture and no name is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from appliance.protocol import DamagedFile, GapReport, Preflight, SessionPhase, SessionReport, Status
from appliance.store.ledger import OrderedSession
from appliance.store.view import GapRow, SessionRow, Totals
from appliance.sync.room_clock import ClockReading

# The camera process speaks every second; ten silences in a row and it is not there.
CAMERA_SILENCE_S = 10.0
# A camera that comes and goes for hours makes thousands of gaps; a status must stay far below a message's limit.
MOST_GAPS = 20
MOST_FAULTS = 20
MOST_SET_ASIDE = 5
# Whoever approves them may do so again for the rest.
MOST_DAMAGED = 64


@dataclass(frozen=True)
class CameraFacts:
    """The camera process's last word; `heard_mono_ns` is None before the first."""

    heard_mono_ns: int | None = None
    camera_open: bool = False
    camera_problem: str | None = None
    light_on: bool = False
    inference_rate_hz: float | None = None
    faults: tuple[str, ...] = ()

    def problem(self, now_mono_ns: int) -> str | None:
        """Why nothing can be recorded here, in words; None when something can."""
        if self.heard_mono_ns is None or now_mono_ns - self.heard_mono_ns > CAMERA_SILENCE_S * 1e9:
            return "the camera process does not answer"
        return self.camera_problem


def camera_facts(message: dict[str, object], now_mono_ns: int) -> CameraFacts:
    """From the local link's `facts`; what has another type than it should counts as not said."""
    rate_hz, problem, faults = (
        message.get("inference_rate_hz"),
        message.get("camera_problem"),
        message.get("faults"),
    )
    return CameraFacts(
        heard_mono_ns=now_mono_ns,
        camera_open=message.get("camera_open") is True,
        camera_problem=problem if isinstance(problem, str) else None,
        light_on=message.get("light_on") is True,
        inference_rate_hz=float(rate_hz) if isinstance(rate_hz, int | float) and 0 <= rate_hz < 1e6 else None,
        faults=tuple(str(fault) for fault in faults) if isinstance(faults, list) else (),
    )


@dataclass(frozen=True)
class SessionFacts:
    """One session as the two databases know it."""

    order: OrderedSession
    row: SessionRow | None
    totals: Totals
    duration_90k: int
    leaves: int
    witnessed: int
    gaps: Sequence[GapRow]
    manifest_sha256: str | None
    objects_total: int
    objects_there: int
    sending: bool
    set_aside: Sequence[str] = ()
    damaged: Sequence[DamagedFile] = ()


def phase_of(facts: SessionFacts) -> SessionPhase:
    """Where a session stands, from what is durable."""
    match facts.order.state:
        case "synced":
            return SessionPhase.SYNCED
        case "held" | "discarded":
            return SessionPhase.HELD
        case "released":
            return SessionPhase.SYNCING if facts.sending or facts.objects_there else SessionPhase.RELEASED
    if facts.manifest_sha256 is not None:
        return SessionPhase.CERTIFIED
    over = facts.row.ended is not None if facts.row is not None else facts.order.state == "ended"
    return SessionPhase.ENDED if over else SessionPhase.RECORDING


def session_report(facts: SessionFacts) -> SessionReport:
    """One session for the room."""
    return SessionReport(
        sid=facts.order.sid,
        phase=phase_of(facts),
        epoch=facts.row.epoch or 0 if facts.row is not None else 0,
        fragments=facts.totals.fragments,
        durable_bytes=facts.totals.bytes,
        duration_90k=facts.duration_90k,
        leaves=facts.leaves,
        witnessed=min(facts.witnessed, facts.leaves),
        gaps=tuple(
            GapReport(start_90k=gap.start_90k, end_90k=gap.end_90k, cause=gap.cause)
            for gap in facts.gaps[-MOST_GAPS:]
        ),
        gap_count=len(facts.gaps),
        manifest_sha256=facts.manifest_sha256,
        objects_total=facts.objects_total,
        objects_there=facts.objects_there,
        set_aside=tuple(facts.set_aside[:MOST_SET_ASIDE]),
        damaged=tuple(facts.damaged[:MOST_DAMAGED]),
    )


@dataclass(frozen=True)
class StatusFacts:
    """All that a status is made of."""

    desk: str
    boot_id: str
    connection: int
    at: str
    now_mono_ns: int
    camera: CameraFacts
    clock: ClockReading
    recording_age_s: float | None
    free_bytes: int
    preflight_problems: tuple[str, ...]
    recording: bool
    sessions: Sequence[SessionFacts]
    faults: Sequence[str] = field(default=())


def build_status(facts: StatusFacts) -> Status:
    """The message; its faults are the camera's, the clock's and the callers' own, each once."""
    faults = [*facts.faults]
    problem = facts.camera.problem(facts.now_mono_ns)
    if problem is not None:
        faults.append(problem)
    faults.extend(facts.camera.faults)
    if facts.clock.stepped_s is not None:
        faults.append(f"the clock was stepped by {facts.clock.stepped_s:+.1f} s")
    silent = problem is not None and problem != facts.camera.camera_problem
    problems = facts.preflight_problems
    if facts.recording:
        problems = (*problems, "a session is recording")
    return Status(
        desk=facts.desk,
        boot_id=facts.boot_id,
        connection=facts.connection,
        at=facts.at,
        preflight=Preflight(ready=not problems, problems=problems),
        camera_open=facts.camera.camera_open and not silent,
        light_on=facts.camera.light_on,
        recording_age_s=facts.recording_age_s,
        inference_rate_hz=None if silent else facts.camera.inference_rate_hz,
        free_bytes=facts.free_bytes,
        clock_offset_s=facts.clock.offset_s,
        clock_synced=facts.clock.synced,
        faults=_bounded(tuple(dict.fromkeys(faults))),
        sessions=tuple(session_report(session) for session in facts.sessions),
    )


def _bounded(faults: tuple[str, ...]) -> tuple[str, ...]:
    if len(faults) <= MOST_FAULTS:
        return faults
    return (*faults[:MOST_FAULTS], f"and {len(faults) - MOST_FAULTS} more; the desk's log has them all")
