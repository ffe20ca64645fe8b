"""The desk state machine: facts in, one state and what needs a person out; pure, no clock and no I/O.

States come from the node's durable facts and people's decisions. Link, recording age, level and technical
stand beside the state: none moves it, and technical never becomes a level (F050, F070).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from appliance.policy import Accommodation, Level
from appliance.protocol import Presence, SessionPhase, SessionReport, Status

LINK_LATE_S = 3.0  # a status comes every second: two in a row are missing
LINK_LOST_S = 10.0
RECORDING_LATE_S = 6.0  # a fragment is 2 s; three in a row are missing
RECORDING_STOPPED_S = 15.0


class DeskState(StrEnum):
    """Where a desk stands, in the words that the page shows."""

    UNKNOWN = "unknown"
    OFFLINE = "offline"
    IDLE = "idle"
    PREFLIGHT = "preflight"
    READY = "ready"
    CHECK_IN = "check-in"
    RECORDING = "recording"
    BREAK_ = "break"
    ENDED = "ended"
    CERTIFIED = "certified"
    AWAITING_APPROVAL = "awaiting approval"
    RELEASED = "released"
    SYNCING = "syncing"
    SYNCED = "synced"
    PURGED = "purged"
    HELD = "held"
    DISCARDED = "discarded"


UNDER_WAY = frozenset({DeskState.CHECK_IN, DeskState.RECORDING, DeskState.BREAK_, DeskState.ENDED})


@dataclass(frozen=True, slots=True)
class Decisions:
    """What people, and the room on their behalf, decided about one session; times are UTC text."""

    sid: str
    candidate_code: str
    started_at: str
    start_refused: str | None = None
    break_since: str | None = None
    ended_at: str | None = None
    manifest_sha256: str | None = None
    manifest_problem: str | None = None
    complete: bool = False
    certificate_problem: str | None = None
    approved_at: str | None = None
    held_reason: str | None = None
    synced_at: str | None = None
    discarded_at: str | None = None
    set_aside_at: str | None = None
    witness_refused: str | None = None
    accommodations: tuple[Accommodation, ...] = ()

    @property
    def waits_for_approval(self) -> bool:
        """Whether it has a certificate that holds, and nobody has decided yet."""
        decided = self.approved_at or self.held_reason or self.discarded_at or self.set_aside_at
        return self.manifest_sha256 is not None and self.manifest_problem is None and decided is None

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do or to decide."""
        return bool(self.synced_at or self.discarded_at or self.set_aside_at or self.start_refused)


@dataclass(frozen=True, slots=True)
class OpenObservation:
    """As much of an observation as the tile needs."""

    number: int
    words: str
    level: Level | None
    technical: bool
    closed: bool
    reviewed: bool


@dataclass(frozen=True, slots=True)
class DeskFacts:
    """All that is known of a desk; ages in seconds of monotonic time, None when never heard."""

    label: str
    desk: str = ""
    two_machines: bool = False
    exam_planned: bool = False
    presence: Presence | None = None
    lost_at: str | None = None
    status: Status | None = None
    status_age_s: float | None = None
    session: Decisions | None = None
    observations: tuple[OpenObservation, ...] = ()


Link = Literal["never seen", "live", "late", "lost"]


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a person has to do, in words; `key` stays the same while it is the same thing."""

    key: str
    words: str
    action: Literal["open", "end", "none"] = "open"


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the page shows of one desk."""

    state: DeskState
    words: str
    link: Link
    recording_age_s: float | None
    level: Level | None
    technical: tuple[str, ...]
    needs: tuple[Need, ...]


def accept_presence(known: Presence | None, arrived: Presence) -> Presence:
    """The presence that holds: a late `lost` of an older connection of the same boot changes nothing.

    A `lost` or `stopped` that names another boot than the known online one is as late: a new boot always
    announces itself with `online` first.
    """
    if known is None:
        return arrived
    if arrived.boot_id == known.boot_id:
        return arrived if arrived.connection >= known.connection else known
    return arrived if arrived.state == "online" else known


def assess(facts: DeskFacts) -> Assessment:
    """One desk's state, what stands beside it, and what needs a person."""
    link = link_of(facts)
    report = report_of(facts)
    state, words = _state(facts, link, report)
    age_s = _recording_age_s(facts, state)
    technical = _technical(facts, state, link, age_s)
    needs = _needs(facts, state, link, report, age_s)
    return Assessment(state, words, link, age_s, _level(facts), technical, needs)


def link_of(facts: DeskFacts) -> Link:
    """Whether the desk is heard: its presence, and how old its last status is."""
    if facts.presence is None and facts.status is None:
        return "never seen"
    if facts.presence is not None and facts.presence.state != "online":
        return "lost"
    if facts.status_age_s is None or facts.status_age_s < LINK_LATE_S:
        return "live"
    return "late" if facts.status_age_s < LINK_LOST_S else "lost"


def report_of(facts: DeskFacts) -> SessionReport | None:
    """The node's own report of the session on the tile."""
    if facts.status is None or facts.session is None:
        return None
    return next((report for report in facts.status.sessions if report.sid == facts.session.sid), None)


def _state(facts: DeskFacts, link: Link, report: SessionReport | None) -> tuple[DeskState, str]:
    session = facts.session
    refused_start = session is not None and session.start_refused is not None and report is None
    if session is None or session.set_aside_at is not None or refused_start:
        return _state_without_session(facts, link)
    if session.discarded_at is not None:
        return DeskState.DISCARDED, "discarded by two people; nothing leaves this room"
    if session.synced_at is not None:
        if facts.status is not None and link == "live" and report is None:
            return DeskState.PURGED, "in the institution's storage, local copy erased"
        return DeskState.SYNCED, "in the institution's storage, read back"
    if session.approved_at is not None and session.manifest_sha256 is not None:
        there, total = (report.objects_there, report.objects_total) if report else (0, 0)
        if total and report and report.phase in (SessionPhase.SYNCING, SessionPhase.SYNCED):
            return DeskState.SYNCING, f"sending {there} of {total}"
        return DeskState.RELEASED, "approved; sending begins as soon as the desk answers"
    if session.held_reason is not None:
        return DeskState.HELD, f"held: {session.held_reason}"
    if session.manifest_sha256 is not None and session.manifest_problem is None:
        return DeskState.AWAITING_APPROVAL, "complete" if session.complete else "certified with gaps"
    return _state_by_phase(session, report)


def _state_by_phase(session: Decisions, report: SessionReport | None) -> tuple[DeskState, str]:
    if report is None:
        if session.ended_at is not None:
            return DeskState.ENDED, "ended; waiting for the desk"
        return DeskState.CHECK_IN, "starting; waiting for the desk's answer"
    if report.phase is SessionPhase.RECORDING:
        if session.ended_at is not None:
            return DeskState.ENDED, "ending; the desk closes its files"
        if session.break_since is not None:
            return DeskState.BREAK_, "on a break"
        return DeskState.RECORDING, "recording"
    if report.phase is SessionPhase.ENDED:
        return DeskState.ENDED, "ended; the certificate is being made"
    return DeskState.CERTIFIED, "certified; the room checks it"


def _state_without_session(facts: DeskFacts, link: Link) -> tuple[DeskState, str]:
    if link == "never seen":
        return DeskState.UNKNOWN, "never heard of since the room started"
    if link == "lost":
        return DeskState.OFFLINE, f"no contact since {facts.lost_at}" if facts.lost_at else "no contact"
    if facts.status is None or not facts.exam_planned:
        return DeskState.IDLE, "here; no exam is planned" if facts.status else "here; no report yet"
    if facts.status.preflight.ready:
        return DeskState.READY, "ready"
    problems = facts.status.preflight.problems
    return DeskState.PREFLIGHT, f"not ready: {problems[0]}" if problems else "being checked"


def _recording_age_s(facts: DeskFacts, state: DeskState) -> float | None:
    if state not in (DeskState.RECORDING, DeskState.BREAK_) or facts.status is None:
        return None
    if facts.status.recording_age_s is None:
        return None
    return facts.status.recording_age_s + (facts.status_age_s or 0.0)


def _level(facts: DeskFacts) -> Level | None:
    """The highest level of what nobody has looked at yet; None while no model runs (the page says AI off)."""
    if facts.status is None or facts.status.inference_rate_hz is None:
        return None
    open_levels = {o.level for o in facts.observations if not o.technical and not o.reviewed}
    if "red" in open_levels:
        return "red"
    return "yellow" if "yellow" in open_levels else "green"


def _technical(facts: DeskFacts, state: DeskState, link: Link, age_s: float | None) -> tuple[str, ...]:
    said: list[str] = []
    if link == "late":
        said.append(f"its reports are {facts.status_age_s:.0f} s late")
    if link == "lost" and state is not DeskState.OFFLINE:
        said.append(f"no contact since {facts.lost_at}" if facts.lost_at else "no contact")
    if age_s is not None and age_s >= RECORDING_LATE_S and link == "live":
        said.append(f"nothing was recorded for {age_s:.0f} s")
    if facts.status is not None:
        said.extend(facts.status.faults)
        if not facts.status.clock_synced:
            said.append("its clock does not agree with the room's")
    said.extend(o.words for o in facts.observations if o.technical and not o.closed)
    return tuple(dict.fromkeys(said))


def _needs(
    facts: DeskFacts, state: DeskState, link: Link, report: SessionReport | None, age_s: float | None
) -> tuple[Need, ...]:
    seat, session = f"Seat {facts.label}", facts.session
    needs: list[Need] = []
    if facts.two_machines:
        words = (
            f"{seat}: two machines present themselves as {facts.desk}. Find the second one and switch it off"
        )
        needs.append(Need("identity", words))
    for kept in facts.status.sessions if facts.status is not None else ():
        if kept.set_aside:
            words = f"{seat}: a file of session {kept.sid[:8]} cannot be sent, {kept.set_aside[0]}"
            if len(kept.set_aside) > 1:
                words += f"; and {len(kept.set_aside) - 1} more"
            words += ". The others are sent. Put it right, or send what is left of it"
            needs.append(Need(f"set-aside-{kept.sid[:8]}", words, "end"))
    if state is DeskState.PREFLIGHT and facts.status and facts.status.preflight.problems:
        needs.append(Need("preflight", f"{seat} cannot start: {'; '.join(facts.status.preflight.problems)}"))
    if session is not None and session.start_refused and report is None and session.set_aside_at is None:
        needs.append(Need("start", f"{seat} did not start: {session.start_refused}"))
    if state in UNDER_WAY and link == "lost":
        since = f" since {facts.lost_at}" if facts.lost_at else ""
        now = (
            "Its certificate waits"
            if state is DeskState.ENDED
            else "It records on by itself; look at its light"
        )
        needs.append(Need("link", f"{seat}: no contact{since}. {now}"))
    if link == "live" and state in (DeskState.RECORDING, DeskState.BREAK_):
        if age_s is None:
            needs.append(Need("recording", f"{seat}: the desk does not say that it records"))
        elif age_s >= RECORDING_STOPPED_S:
            needs.append(
                Need("recording", f"{seat}: nothing was recorded for some time. Move to a spare desk")
            )
    if session is not None and session.witness_refused:
        needs.append(
            Need(
                "witness", f"{seat}: its record contradicts what the room has seen: {session.witness_refused}"
            )
        )
    if session is not None and session.manifest_problem and state is not DeskState.DISCARDED:
        needs.append(
            Need("manifest", f"{seat}: its certificate does not hold: {session.manifest_problem}", "end")
        )
    if session is not None and session.certificate_problem and session.waits_for_approval:
        words = f"{seat}: there is no certificate for its candidate: {session.certificate_problem}"
        needs.append(Need("certificate", words, "end"))
    for observation in facts.observations if state is DeskState.RECORDING else ():
        if observation.level == "red" and not observation.technical and not observation.reviewed:
            needs.append(
                Need(f"look-{observation.number}", f"{seat}: {observation.words}. Look when you can")
            )
            break
    if facts.status is not None and session is None and facts.status.sessions:
        stray = [r for r in facts.status.sessions if r.phase is not SessionPhase.SYNCED]
        if stray:
            needs.append(
                Need("stray", f"{seat} keeps a session that this room does not know: {stray[0].sid[:8]}")
            )
    return tuple(needs)
