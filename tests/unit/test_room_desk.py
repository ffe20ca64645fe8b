"""Scenarios of the desk state machine, as a proctor would tell them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocol import Preflight, Presence, SessionPhase, SessionReport, Status
from appliance.room.desk import (
    Decisions,
    DeskFacts,
    DeskState,
    OpenObservation,
    accept_presence,
    assess,
)

SID = "ab" * 16
START = Decisions(SID, "C-1", "2026-11-22T09:00:00.000Z")
ENDED = replace(START, ended_at="2026-11-22T12:00:00.000Z")
CERTIFIED = replace(ENDED, manifest_sha256="11" * 32, complete=True)


def presence(state: str = "online", connection: int = 1, boot_id: str = "b1") -> Presence:
    return Presence.model_validate(
        {"desk": "d7", "boot_id": boot_id, "connection": connection, "state": state}
    )


def report(phase: SessionPhase, there: int = 0, total: int = 0) -> SessionReport:
    return SessionReport(
        sid=SID, phase=phase, epoch=0, fragments=3, durable_bytes=9, duration_90k=540_000, leaves=4,
        witnessed=4, objects_there=there, objects_total=total,
    )  # fmt: skip


def status(*sessions: SessionReport, **changes: object) -> Status:
    values: dict[str, object] = {
        "desk": "d7", "boot_id": "b1", "connection": 1, "at": "2026-11-22T09:00:05.000Z",
        "preflight": Preflight(ready=True), "camera_open": True, "light_on": True, "recording_age_s": 1.0,
        "inference_rate_hz": 5.0, "free_bytes": 10**10, "clock_offset_s": 0.0, "clock_synced": True,
        "sessions": sessions,
    }  # fmt: skip
    return Status.model_validate(values | changes)


def facts(
    *sessions: SessionReport, session: Decisions | None = None, age_s: float = 0.5, **changes: object
) -> DeskFacts:
    return DeskFacts(
        label="7", exam_planned=True, presence=presence(), status=status(*sessions, **changes), status_age_s=age_s,
        session=session,
    )  # fmt: skip


def recording(**changes: object) -> DeskFacts:
    return facts(report(SessionPhase.RECORDING), session=START, **changes)  # type: ignore[arg-type]


def looked_at(level: str | None, **changes: object) -> OpenObservation:
    values: dict[str, object] = {
        "number": 1, "words": "outside the work area, 6.2 s", "level": level, "technical": False,
        "closed": True, "reviewed": False,
    }  # fmt: skip
    return OpenObservation(**(values | changes))  # type: ignore[arg-type]


def test_nobody_has_heard_of_the_desk() -> None:
    assert assess(DeskFacts("7")).state is DeskState.UNKNOWN


def test_a_day_from_switching_on_to_erasure() -> None:
    """F104: every state of an ordinary session, in order."""
    there = DeskFacts("7", presence=presence())
    not_ready = Preflight(ready=False, problems=("disk is full",))
    approved = replace(CERTIFIED, approved_at="2026-11-22T12:05:00.000Z")
    synced = replace(approved, synced_at="2026-11-22T12:09:00.000Z")
    phases = SessionPhase
    day = [
        there,
        facts(preflight=not_ready),
        facts(),
        facts(session=START),
        recording(),
        facts(report(phases.RECORDING), session=replace(START, break_since="2026-11-22T10:00:00.000Z")),
        recording(),
        facts(report(phases.ENDED), session=ENDED),
        facts(report(phases.CERTIFIED), session=ENDED),
        facts(report(phases.CERTIFIED), session=CERTIFIED),
        facts(report(phases.CERTIFIED), session=approved),
        facts(report(phases.SYNCING, 3, 9), session=approved),
        facts(report(phases.SYNCED, 9, 9), session=synced),
        facts(session=synced),
    ]
    assert [assess(each).state.value for each in day] == [
        "idle", "preflight", "ready", "check-in", "recording", "break", "recording", "ended", "certified",
        "awaiting approval", "released", "syncing", "synced", "purged",
    ]  # fmt: skip
    assert assess(day[11]).words == "sending 3 of 9"


def test_failed_preflight_says_why() -> None:
    problems = Preflight(ready=False, problems=("disk has room for 40 minutes", "the lens is covered"))
    needs = assess(facts(preflight=problems)).needs
    assert [need.words for need in needs] == [
        "Seat 7 cannot start: disk has room for 40 minutes; the lens is covered"
    ]


def test_refused_start_frees_the_desk_and_is_shown() -> None:
    found = assess(facts(session=replace(START, start_refused="clock is not in sync")))
    assert found.state is DeskState.READY
    assert found.needs[0].words == "Seat 7 did not start: clock is not in sync"


def test_late_lost_of_an_older_connection_is_ignored() -> None:
    now = presence(connection=2)
    assert accept_presence(now, presence("lost", connection=1)) is now
    assert accept_presence(now, presence("lost", connection=2)).state == "lost"


def test_late_lost_of_an_older_boot_is_ignored() -> None:
    rebooted = presence(connection=1, boot_id="b2")
    assert accept_presence(rebooted, presence("lost", connection=9, boot_id="b1")) is rebooted
    assert accept_presence(presence("lost", connection=9), rebooted) is rebooted


def test_a_lost_link_does_not_move_a_recording_desk() -> None:
    """F050: link loss stands beside the state and is technical, never a level."""
    lost = replace(recording(), presence=presence("lost"), lost_at="09:12:00")
    found = assess(lost)
    assert (found.state, found.link, found.level) == (DeskState.RECORDING, "lost", "green")
    assert found.technical == ("no contact since 09:12:00",)
    assert found.needs[0].words.startswith("Seat 7: no contact since 09:12:00. It records on by itself")


def test_a_silent_desk_is_late_and_then_lost() -> None:
    assert [assess(recording(age_s=age)).link for age in (0.5, 4.0, 11.0)] == ["live", "late", "lost"]


def test_offline_desk_without_a_session() -> None:
    gone = DeskFacts("7", presence=presence("lost"), lost_at="09:12:00")
    assert assess(gone).words == "no contact since 09:12:00"
    assert assess(gone).state is DeskState.OFFLINE


def test_recording_that_stops_growing_calls_a_person() -> None:
    assert assess(recording(recording_age_s=1.0)).needs == ()
    assert assess(recording(recording_age_s=16.0)).needs[0].key == "recording"
    assert assess(recording(recording_age_s=None)).needs[0].key == "recording"


@given(
    st.lists(st.text(max_size=20), max_size=3),
    st.booleans(),
    st.one_of(st.none(), st.floats(0, 1000)),
    st.floats(0, 60),
    st.sampled_from(["online", "lost", "stopped"]),
)
def test_technical_never_becomes_a_level(
    faults: list[str], synced: bool, recording_age_s: float | None, age_s: float, state: str
) -> None:
    """F050, F070: whatever is broken, the level is what observations say: nothing."""
    changes = {"faults": tuple(faults), "clock_synced": synced, "recording_age_s": recording_age_s}
    found = assess(replace(recording(age_s=age_s, **changes), presence=presence(state)))
    assert found.level == "green"
    assert found.state is DeskState.RECORDING


def test_a_technical_observation_is_no_level() -> None:
    observed = replace(recording(), observations=(looked_at("red", technical=True, closed=False),))
    assert assess(observed).level == "green"
    assert assess(observed).technical == ("outside the work area, 6.2 s",)


def test_a_thousand_red_observations_change_no_state() -> None:
    """F070."""
    many = tuple(looked_at("red", number=n) for n in range(1000))
    found = assess(replace(recording(), observations=many))
    assert (found.state, found.level) == (DeskState.RECORDING, "red")
    assert len(found.needs) == 1


def test_no_concern_takes_an_observation_from_the_tile() -> None:
    assert assess(replace(recording(), observations=(looked_at("yellow"),))).level == "yellow"
    assert assess(replace(recording(), observations=(looked_at("yellow", reviewed=True),))).level == "green"


def test_level_is_none_while_no_model_runs() -> None:
    assert assess(recording(inference_rate_hz=None)).level is None


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"held_reason": "the seat was moved"}, DeskState.HELD),
        ({"discarded_at": "2026-11-22T12:30:00.000Z"}, DeskState.DISCARDED),
        ({"set_aside_at": "2026-11-22T12:30:00.000Z"}, DeskState.READY),
    ],
)
def test_what_people_decide_stands(changes: dict[str, str], state: DeskState) -> None:
    found = assess(facts(report(SessionPhase.CERTIFIED), session=replace(CERTIFIED, **changes)))
    assert found.state is state


def test_every_state_can_be_forced_to_an_end() -> None:
    """A stuck desk is freed by setting its session aside, wherever it was stuck."""
    for phase in SessionPhase:
        for session in (START, ENDED, CERTIFIED):
            stuck = facts(report(phase), session=replace(session, set_aside_at="2026-11-22T13:00:00.000Z"))
            assert assess(stuck).state is DeskState.READY


def test_a_certificate_that_does_not_hold_waits_for_a_person() -> None:
    broken = replace(ENDED, manifest_problem="signature does not match")
    found = assess(facts(report(SessionPhase.CERTIFIED), session=broken))
    assert found.state is DeskState.CERTIFIED
    assert "does not hold" in found.needs[0].words


def test_a_session_nobody_here_started_is_shown() -> None:
    assert assess(facts(report(SessionPhase.RECORDING))).needs[0].key == "stray"
