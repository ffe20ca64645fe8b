"""What the pages and the JSON API show: plain dictionaries made from the live room; pictures and levels by role."""

from __future__ import annotations

import json
import sqlite3
from datetime import timedelta
from typing import Any

from appliance.card import card_lines
from appliance.clock import parse_utc, utc_text
from appliance.evidence.completeness import Kind
from appliance.policy import ACCOMMODATION_WORDS, parse_policy
from appliance.room.accounts import Account, Role
from appliance.room.core import Room
from appliance.room.desk import UNDER_WAY, Assessment, DeskState, Need
from appliance.room.live import LiveDesk, Seen
from appliance.room.rows import listed
from appliance.timecode import TICKS_PER_S

SENTENCE = "An indication is not proof of anything. It says where a person may want to look."  # F068
COUNTED = (DeskState.RECORDING, DeskState.BREAK_, DeskState.READY, DeskState.AWAITING_APPROVAL)
SENDING = frozenset({DeskState.RELEASED, DeskState.SYNCING})
# How long a session stands on the page for the end of the exam once it is over.
LISTED_FOR = timedelta(days=1)

View = dict[str, Any]


def room_view(room: Room, account: Account) -> View:
    """The whole room: what needs a person, then tiles in seat order."""
    loaded = room.planned()
    assessments = {desk: room.live.assess(desk) for desk in room.live.desks}
    counts = {state.value: 0 for state in COUNTED}
    for assessment in assessments.values():
        if assessment.state in COUNTED:
            counts[assessment.state.value] += 1
    needs = [
        {"since": item.since, "desk": item.desk, "words": item.need.words, "action": item.need.action}
        for item in room.live.needs(assessments)
        if account.may(Role.PROCTOR) or not item.need.key.startswith("look-")
    ]
    policy = loaded.policy if loaded else None
    return {
        "room": room.config.room,
        "title": room.config.title,
        "exam": policy.exam_title if policy else None,
        "policy": {"id": policy.id, "version": policy.version} if policy else None,
        "preview": bool(policy and policy.preview),
        "now": room.now(),
        "counts": counts,
        "needs": needs,
        "tiles": [tile(room, desk, assessments[desk], account) for desk in room.live.desks],
    }


def tile(room: Room, desk: str, assessment: Assessment, account: Account) -> View:
    """One desk; `recording_age_s` is whole seconds."""
    live, session = room.live.desks[desk], room.live.current(desk)
    sees = account.may(Role.PROCTOR)
    over = assessment.state in (DeskState.READY, DeskState.IDLE, DeskState.PREFLIGHT, DeskState.OFFLINE)
    age_s = assessment.recording_age_s
    level = assessment.level if sees and age_s is not None else None
    return {
        "desk": desk,
        "seat": live.seat.label,
        "sid": session.sid if session and not over else None,
        "candidate": session.candidate_code if session and not over else None,
        "name": room.live.names.get(session.sid) if session and sees else None,
        "state": assessment.state.value,
        "words": assessment.words,
        "link": assessment.link,
        "recording_age_s": None if age_s is None else int(age_s),
        "break_since": session.break_since if session else None,
        "level": level,
        "level_words": level or ("AI off" if sees else ""),
        "seen": _newest(live, session.sid) if sees and session and age_s is not None else None,
        "technical": list(assessment.technical),
        "needs_you": bool(_shown(assessment, sees)),
    }


def _shown(assessment: Assessment, sees: bool) -> list[Need]:
    """Who sees no observations is not told that there is one."""
    return [need for need in assessment.needs if sees or not need.key.startswith("look-")]


def desk_view(room: Room, desk: str, account: Account) -> View:
    """One desk with its observations, newest first, and the sentence that stands under them."""
    live, session = room.live.desks[desk], room.live.current(desk)
    assessment = room.live.assess(desk)
    sees = account.may(Role.PROCTOR)
    seen = live.observations.get(session.sid, {}) if session and sees else {}
    report = (
        next((r for r in live.status.sessions if session and r.sid == session.sid), None)
        if live.status
        else None
    )
    loaded = room.planned()
    return {
        **tile(room, desk, assessment, account),
        "preview": bool(loaded and loaded.policy.preview and sees),
        "accommodations": [
            {"code": code, "words": ACCOMMODATION_WORDS[code]}
            for code in (session.accommodations if session and sees and assessment.state in UNDER_WAY else ())
        ],
        "needs": [need.words for need in _shown(assessment, sees)],
        "observations": [observation(number, item) for number, item in sorted(seen.items(), reverse=True)],
        "sentence": SENTENCE,
        "certified": session.sid if session and session.manifest_sha256 else None,
        "recorded": None
        if report is None
        else {
            "seconds": report.duration_90k // TICKS_PER_S,
            "fragments": report.fragments,
            "leaves": report.leaves,
            "witnessed": report.witnessed,
            "gaps": max(report.gap_count, len(report.gaps)),
        },
        "looked_at_hz": _looked_at_hz(live) if sees else None,
        "free_bytes": live.status.free_bytes if live.status else None,
        "software": live.presence.software if live.presence else "",
    }


def observation(number: int, item: Seen) -> View:
    """A physical fact with its span, the rule and what was measured."""
    report = item.report
    return {
        "number": number,
        "at": item.at,
        "words": report.words,
        "duration_s": round(report.duration_s, 1),
        "until": utc_text(parse_utc(item.at) + timedelta(seconds=report.duration_s))
        if report.end_90k is not None
        else None,
        "closed": report.phase == "closed",
        "level": report.level if not report.technical else None,
        "technical": report.technical,
        "rule": report.rule,
        "measured": report.measured,
        "uncertainty": report.uncertainty,
        "card": card_lines(report.card),
        "review": item.review,
    }


def states(room: Room) -> dict[str, str]:
    """Each desk's state. A page that is fetched anew when one changes takes them before it reads anything else: then
    no change falls between the two."""
    return {desk: room.live.assess(desk).state.value for desk in room.live.desks}


async def end_view(room: Room) -> list[View]:
    """The table of /end: seats in room order, with each session's certificate, and its state in words.

    What is over and began more than LISTED_FOR ago is not in it.
    """
    since = utc_text(room.clock.wall() - LISTED_FOR)
    table = await room.database.run(lambda connection: [_session(row) for row in listed(connection, since)])
    order = {desk: place for place, desk in enumerate(room.live.desks)}
    shown = []
    for entry in table:
        desk = entry["desk"]
        if desk not in order:
            continue
        current = room.live.current(desk)
        if current is not None and current.sid == entry["sid"]:
            assessment = room.live.assess(desk)
            entry["state"], entry["words"] = assessment.state.value, assessment.words
        entry["seat"] = room.live.desks[desk].seat.label
        damaged = room.live.damaged(entry["sid"]) if entry["state"] in SENDING else ()
        entry["damaged"] = [file.model_dump() for file in damaged]
        shown.append(entry)
    return sorted(shown, key=lambda entry: (order[entry["desk"]], entry["started_at"]))


def notes(connection: sqlite3.Connection, sid: str) -> list[View]:
    """What people wrote beside a session, newest first."""
    rows = connection.execute(
        "SELECT at, by, text FROM notes WHERE sid = ? ORDER BY id DESC", (sid,)
    ).fetchall()
    return [dict(row) for row in rows]


def _session(row: sqlite3.Row) -> View:
    policy = parse_policy(json.loads(row["policy"])["body"])
    gaps = [
        {
            "from_s": start / TICKS_PER_S,
            "to_s": end / TICKS_PER_S,
            "cause": cause,
            "kind": kind,
            "unwitnessed": kind == Kind.UNWITNESSED,
        }
        for start, end, cause, kind in json.loads(row["gaps"] or "[]")
    ]
    state, words = _stored_state(row)
    return {
        "sid": row["sid"],
        "desk": row["desk"],
        "candidate": row["candidate_code"],
        "policy": {"id": policy.id, "version": policy.version},
        "started_at": row["started_at"],
        "ended_at": row["ended_at"],
        "certified": row["manifest_sha256"] is not None,
        "complete": bool(row["complete"]),
        "gaps": gaps,
        "problem": row["manifest_problem"],
        "certificate": row["certificate"] is not None,
        "certificate_problem": row["certificate_problem"],
        "state": state,
        "words": words,
        "approved_by": row["approved_by"],
        "held_reason": row["held_reason"],
        "discard_asked_by": row["discard_asked_by"],
        "may_approve": state in (DeskState.AWAITING_APPROVAL, DeskState.HELD)
        and row["manifest_sha256"] is not None
        and row["manifest_problem"] is None,
        "may_hold": state in (DeskState.ENDED, DeskState.AWAITING_APPROVAL, DeskState.CERTIFIED),
    }


def _stored_state(row: sqlite3.Row) -> tuple[DeskState, str]:
    """A session's state from decisions alone, for those that are no longer on a tile."""
    if row["set_aside_at"]:
        return DeskState.UNKNOWN, f"set aside by {row['set_aside_by']}: {row['set_aside_reason']}"
    if row["discarded_at"]:
        return DeskState.DISCARDED, f"discarded by {row['discard_asked_by']} and {row['discarded_by']}"
    if row["synced_at"]:
        return DeskState.SYNCED, "in the institution's storage, read back"
    if row["approved_at"]:
        return DeskState.RELEASED, f"approved by {row['approved_by']}"
    if row["held_reason"]:
        return DeskState.HELD, f"held: {row['held_reason']}"
    if row["manifest_sha256"] and not row["manifest_problem"]:
        return DeskState.AWAITING_APPROVAL, "complete" if row["complete"] else "certified with gaps"
    if row["ended_at"]:
        return DeskState.ENDED, row["manifest_problem"] or "ended; the certificate is being made"
    return DeskState.RECORDING, "under way"


def _looked_at_hz(live: LiveDesk) -> float | None:
    """In tenths, so that the page does not change for less."""
    rate_hz = live.status.inference_rate_hz if live.status else None
    return None if rate_hz is None else round(rate_hz, 1)


def _newest(live: LiveDesk, sid: str) -> str | None:
    """The newest observation that nobody has looked at, in words."""
    for _, item in sorted(live.observations.get(sid, {}).items(), reverse=True):
        if item.review is None and not item.report.technical and item.report.level in ("yellow", "red"):
            return f"{item.report.words}, {item.report.duration_s:.1f} s"
    return None
