"""The room as it is now, in RAM: what desks say, the newest still of each, and what people decided.

Stills, observations and candidates' names live here and nowhere else; they end with the process (F016).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from appliance.clock import Clock, parse_utc, utc_text
from appliance.config import Desk
from appliance.policy import Level
from appliance.protocol import OBSERVATIONS_PER_EPOCH, DamagedFile, ObservationReport, Presence, Status
from appliance.room.desk import (
    LINK_LOST_S,
    Assessment,
    Decisions,
    DeskFacts,
    Need,
    OpenObservation,
    accept_presence,
    assess,
    link_of,
)
from appliance.timecode import TICKS_PER_S

log = logging.getLogger(__name__)

MOST_OBSERVATIONS = 500  # of one session on the page; the recording's own log holds them all
MOST_BOOTS = 16  # of one desk, newest last; a day holds a few
# Over in seconds, and yet the camera may look past the desk from then on: the tile says so until somebody has looked.
STAYS_UNTIL_SEEN = "camera_moved"
# Two machines of one name come again at the latest after ten minutes each (sync/link.py), so this bridges two silences.
TWO_MACHINES_S = 1200.0


@dataclass(slots=True)
class Seen:
    """An observation as it last arrived, and what a person said of it."""

    report: ObservationReport
    at: str
    review: str | None = None
    in_break: bool = False


@dataclass(slots=True)
class LiveDesk:
    """One desk's facts; `version` grows with every change that a page should show."""

    seat: Desk
    presence: Presence | None = None
    lost_at: str | None = None
    status: Status | None = None
    status_mono_ns: int = 0
    past_boots: list[str] = field(default_factory=list)
    two_machines_mono_ns: int | None = None
    started_wall: dict[str, str] = field(default_factory=dict)
    observations: dict[str, dict[int, Seen]] = field(default_factory=dict)
    jpeg: bytes | None = None
    jpeg_number: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class StandingNeed:
    """A need with the time since which it stands; `desk` is None for the room's own."""

    since: str
    desk: str | None
    need: Need


class LiveRoom:
    """Used by the event loop only."""

    def __init__(self, seats: Iterable[Desk], clock: Clock) -> None:
        self._clock = clock
        self.desks = {
            seat.id: LiveDesk(seat)
            for seat in sorted(seats, key=lambda seat: (seat.row, seat.column, seat.id))
        }
        self.sessions: dict[str, tuple[str, Decisions]] = {}
        self.names: dict[str, str] = {}
        self.reviews: dict[str, dict[int, str]] = {}
        self.room_needs: dict[str, str] = {}
        self.exam_planned = False
        self._since: dict[tuple[str | None, str], str] = {}

    def put_session(self, desk: str, decisions: Decisions) -> None:
        """Take over what the database now holds of a session; an over or set-aside one loses its name."""
        self.sessions[decisions.sid] = (desk, decisions)
        if decisions.ended_at or decisions.set_aside_at or decisions.start_refused:
            self.names.pop(decisions.sid, None)
        self._forget_over(desk)
        self._touch(desk)

    def drop_session(self, sid: str) -> None:
        """Keep nothing more of it here."""
        self.reviews.pop(sid, None)
        desk, _ = self.sessions.pop(sid, (None, None))
        if desk is not None:
            self.desks[desk].observations.pop(sid, None)
            self.desks[desk].started_wall.pop(sid, None)
            self._touch(desk)

    def _forget_over(self, desk: str) -> None:
        """What is over and has a successor at its desk lives on in the database alone, without its observations."""
        own = [decisions for at, decisions in self.sessions.values() if at == desk]
        newest = max(own, key=lambda decisions: decisions.started_at)
        for decisions in own:
            if decisions.is_over and decisions is not newest:
                self.drop_session(decisions.sid)

    def current(self, desk: str) -> Decisions | None:
        """The desk's newest session that nobody has set aside."""
        own = [d for at, d in self.sessions.values() if at == desk and d.set_aside_at is None]
        return max(own, key=lambda decisions: decisions.started_at, default=None)

    def take_presence(self, desk: str, presence: Presence) -> None:
        """Boot id and connection number decide whether it holds."""
        live = self.desks[desk]
        accepted = accept_presence(live.presence, presence)
        if accepted is not live.presence:
            self._note_boot(live, accepted)
            went = accepted.state != "online"
            live.lost_at = self.room_time() if went else None
            live.presence = accepted
            if went:
                live.jpeg = None
            self._touch(desk)

    def _note_boot(self, live: LiveDesk, presence: Presence) -> None:
        """A machine that was started anew never speaks as the one before: who does is a second one."""
        before = live.presence
        if presence.boot_id in live.past_boots:
            log.warning("desk.two_machines desk=%s", presence.desk)
            live.two_machines_mono_ns = self._clock.mono_ns()
            live.past_boots.remove(presence.boot_id)
        if before is not None and before.boot_id != presence.boot_id:
            live.past_boots = [*live.past_boots, before.boot_id][-MOST_BOOTS:]

    def two_machines(self, desk: str) -> bool:
        """Whether two machines were heard under this desk's name of late."""
        heard_ns = self.desks[desk].two_machines_mono_ns
        return heard_ns is not None and self._clock.mono_ns() - heard_ns < TWO_MACHINES_S * 1e9

    def damaged(self, sid: str) -> tuple[DamagedFile, ...]:
        """Files of a session that its desk cannot send as they were recorded, by the desk's newest status."""
        desk, _ = self.sessions.get(sid, ("", None))
        status = self.desks[desk].status if desk in self.desks else None
        reports = status.sessions if status is not None else ()
        return next((report.damaged for report in reports if report.sid == sid), ())

    def take_status(self, desk: str, status: Status) -> None:
        """A status of an older connection than the known one is late and ignored."""
        live = self.desks[desk]
        known = live.presence
        if known is not None and known.boot_id == status.boot_id and status.connection < known.connection:
            return
        live.status = status
        live.status_mono_ns = self._clock.mono_ns()
        old_s = (self._clock.wall() - parse_utc(status.at)).total_seconds()
        if status.clock_synced and old_s > LINK_LOST_S:  # a retained one, from before the desk went away
            live.status_mono_ns -= round(old_s * 1e9)
        if not status.camera_open:
            live.jpeg = None  # nothing of the candidate stays on the page once the camera is closed (F118)
        for report in status.sessions:
            if report.sid in self.sessions and report.sid not in live.started_wall:
                began = parse_utc(status.at) - timedelta(seconds=report.duration_90k / TICKS_PER_S)
                live.started_wall[report.sid] = utc_text(began)
            self._close_orphans(live.observations.get(report.sid, {}), report.epoch)
        self._touch(desk)

    def _close_orphans(self, seen: dict[int, Seen], epoch: int) -> None:
        """What a camera process left open that was killed ends with it: nobody will ever close it."""
        for number, item in seen.items():
            if number < epoch * OBSERVATIONS_PER_EPOCH and item.report.phase == "opened":
                item.report = item.report.model_copy(update={"phase": "closed"})

    def take_observation(self, desk: str, sid: str, number: int, report: ObservationReport) -> None:
        """A resend replaces the same number; the review stays. Of a session that is forgotten nothing is kept."""
        if sid not in self.sessions:
            return
        live = self.desks[desk]
        seen = live.observations.setdefault(sid, {})
        in_break = self.sessions[sid][1].break_since is not None
        if number in seen:
            seen[number].report = report
            seen[number].in_break &= in_break
        elif len(seen) < MOST_OBSERVATIONS or _let_one_go(seen):
            began = live.started_wall.get(sid)
            at = (
                utc_text(parse_utc(began) + timedelta(seconds=report.start_90k / TICKS_PER_S))
                if began
                else utc_text(self._clock.wall())
            )
            seen[number] = Seen(report, at, self.reviews.get(sid, {}).get(number), in_break)
        self._touch(desk)

    def take_preview(self, desk: str, jpeg: bytes) -> None:
        """Only the newest still is kept."""
        live = self.desks[desk]
        live.jpeg = jpeg
        live.jpeg_number += 1

    def review(self, desk: str, sid: str, number: int, outcome: str) -> bool:
        """Mark an observation as looked at; False if there is none of that number."""
        seen = self.desks[desk].observations.get(sid, {}).get(number)
        if seen is None:
            return False
        self.reviews.setdefault(sid, {})[number] = seen.review = outcome
        self._touch(desk)
        return True

    def facts(self, desk: str) -> DeskFacts:
        """Input of the state machine."""
        live, session = self.desks[desk], self.current(desk)
        age_s = (self._clock.mono_ns() - live.status_mono_ns) / 1e9 if live.status is not None else None
        seen = live.observations.get(session.sid, {}) if session else {}
        on_break = session is not None and session.break_since is not None
        return DeskFacts(
            label=live.seat.label,
            desk=desk,
            two_machines=self.two_machines(desk),
            exam_planned=self.exam_planned,
            presence=live.presence,
            lost_at=live.lost_at,
            status=live.status,
            status_age_s=age_s,
            session=session,
            observations=tuple(_open(number, item, on_break) for number, item in seen.items()),
        )

    def assess(self, desk: str) -> Assessment:
        """The desk now; a link that fell silent without a word gets its time here."""
        facts = self.facts(desk)
        live = self.desks[desk]
        if link_of(facts) == "lost" and live.lost_at is None:
            live.lost_at = self.room_time()
            facts = self.facts(desk)
        elif link_of(facts) == "live" and live.lost_at is not None:
            live.lost_at = None
            facts = self.facts(desk)
        return assess(facts)

    def needs(self, assessments: dict[str, Assessment]) -> list[StandingNeed]:
        """All that needs a person, oldest first."""
        now = utc_text(self._clock.wall())
        found: list[tuple[str | None, Need]] = [
            (None, Need(k, w, "none")) for k, w in self.room_needs.items()
        ]
        for desk, assessment in assessments.items():
            found.extend((desk, need) for need in assessment.needs)
        waiting = sum(decisions.waits_for_approval for _, decisions in self.sessions.values())
        if waiting:
            words = "1 session waits" if waiting == 1 else f"{waiting} sessions wait"
            found.append((None, Need("approve", f"{words} for approval", "end")))
        keys = {(desk, need.key) for desk, need in found}
        self._since = {key: since for key, since in self._since.items() if key in keys}
        standing = [
            StandingNeed(self._since.setdefault((desk, need.key), now), desk, need) for desk, need in found
        ]
        return sorted(standing, key=lambda item: item.since)

    def room_time(self) -> str:
        """The room's clock as people read it, HH:MM:SS in the machine's own zone."""
        return self._clock.wall().astimezone().strftime("%H:%M:%S")

    def _touch(self, desk: str) -> None:
        self.desks[desk].version += 1


def _open(number: int, seen: Seen, on_break: bool) -> OpenObservation:
    # In a granted break nothing counts for the tile's level (F048), nor afterwards what began and ended in it; the
    # list still shows it.
    of_break = on_break or (seen.in_break and seen.report.phase == "closed")
    level: Level | None = None if of_break else seen.report.level
    report, reviewed = seen.report, seen.review is not None
    words, over = f"{report.words}, {report.duration_s:.1f} s", report.phase == "closed"
    if report.kind == STAYS_UNTIL_SEEN:
        local = parse_utc(seen.at).astimezone()
        words, over = f"{report.words} at {local:%H:%M:%S}: is the desk still in view?", over and reviewed
    return OpenObservation(number, words, level, report.technical, over, reviewed)


def _let_one_go(seen: dict[int, Seen]) -> bool:
    """Forget the oldest that nobody needs to look at any more, else the oldest that is over; False if none is."""
    over = sorted(number for number, item in seen.items() if item.report.phase == "closed")
    looked_at = [number for number in over if seen[number].review or seen[number].report.technical]
    for number in (looked_at or over)[:1]:
        del seen[number]
    return bool(over)
