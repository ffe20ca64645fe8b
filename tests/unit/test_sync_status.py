"""The desk's status from durable facts, and what passes through from the camera."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from appliance.protocol import MAX_MESSAGE_BYTES, SessionPhase, Watch, encode
from appliance.store.ledger import OrderedSession
from appliance.store.rows import GapRow, SessionRow, Totals
from appliance.sync.link import backoff_s, taken_over_backoff_s
from appliance.sync.previews import MAX_WAITING_OBSERVATIONS, ObservationOutbox, WatchLease, jpeg_of
from appliance.sync.room_clock import ClockReading
from appliance.sync.status import CameraFacts, SessionFacts, StatusFacts, build_status, camera_facts, phase_of
from tests.unit.test_store_builders import SID, new_session

SECOND_NS = 10**9
ORDER = OrderedSession(SID, "desk-7", {}, None, "ordered", "")
ROW = SessionRow(**vars(new_session()), ended=None, epoch=2)
SESSION = SessionFacts(
    ORDER, ROW, Totals(7, 9000), 14 * 90_000, 9, 8, [GapRow(1, 2, "power")], None, 0, 0, False
)
CAMERA = CameraFacts(heard_mono_ns=0, camera_open=True, light_on=True, inference_rate_hz=4.9)
FACTS = StatusFacts(
    desk="desk-7",
    boot_id="b" * 32,
    connection=3,
    at="2026-11-22T09:00:00.000Z",
    now_mono_ns=SECOND_NS,
    camera=CAMERA,
    clock=ClockReading(0.01, True),
    recording_age_s=1.2,
    free_bytes=10**9,
    preflight_problems=(),
    recording=True,
    sessions=[SESSION],
)


def test_recording_desk() -> None:
    status = build_status(FACTS)
    assert (status.recording_age_s, status.camera_open, status.light_on, status.faults) == (
        1.2,
        True,
        True,
        (),
    )
    assert status.preflight.problems == ("a session is recording",)
    report = status.sessions[0]
    assert (report.phase, report.epoch, report.fragments, report.witnessed) == (
        SessionPhase.RECORDING,
        2,
        7,
        8,
    )
    assert report.gaps[0].cause == "power"


def test_idle_desk_is_ready_or_says_why() -> None:
    idle = replace(FACTS, recording=False, sessions=[], recording_age_s=None)
    assert build_status(idle).preflight.ready
    problems = build_status(replace(idle, preflight_problems=("the camera is not there",))).preflight
    assert (problems.ready, problems.problems) == (False, ("the camera is not there",))


def test_silent_camera_process_is_a_fault_and_its_old_words_do_not_count() -> None:
    status = build_status(replace(FACTS, now_mono_ns=11 * SECOND_NS))
    assert status.faults == ("the camera process does not answer",)
    assert not status.camera_open
    assert status.inference_rate_hz is None
    assert CameraFacts().problem(0) == "the camera process does not answer"


def test_step_of_the_clock_and_camera_faults_are_told_once() -> None:
    camera = replace(CAMERA, faults=("no frames",), camera_problem="no frames")
    status = build_status(
        replace(FACTS, camera=camera, clock=ClockReading(0.0, True, -3600.0), faults=["no frames"])
    )
    assert status.faults == ("no frames", "the clock was stepped by -3600.0 s")


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        ({}, SessionPhase.RECORDING),
        ({"row": replace(ROW, ended="2026-11-22T10:00:00.000Z")}, SessionPhase.ENDED),
        ({"row": None}, SessionPhase.RECORDING),
        ({"row": None, "order": replace(ORDER, state="ended")}, SessionPhase.ENDED),
        (
            {"order": replace(ORDER, state="ended")},
            SessionPhase.RECORDING,
        ),  # the camera is still closing its files
        ({"order": replace(ORDER, state="ended"), "manifest_sha256": "ab" * 32}, SessionPhase.CERTIFIED),
        ({"order": replace(ORDER, state="held"), "manifest_sha256": "ab" * 32}, SessionPhase.HELD),
        ({"order": replace(ORDER, state="released"), "manifest_sha256": "ab" * 32}, SessionPhase.RELEASED),
        ({"order": replace(ORDER, state="released"), "sending": True}, SessionPhase.SYNCING),
        ({"order": replace(ORDER, state="synced")}, SessionPhase.SYNCED),
    ],
)
def test_phase_follows_the_databases(changes: dict[str, Any], phase: SessionPhase) -> None:
    assert phase_of(replace(SESSION, **changes)) is phase


def test_facts_of_a_wrong_type_count_as_not_said() -> None:
    facts = camera_facts({"camera_open": "yes", "light_on": 1, "inference_rate_hz": "fast", "faults": 7}, 5)
    assert facts == CameraFacts(heard_mono_ns=5)
    message = {"camera_open": True, "camera_problem": "cable", "inference_rate_hz": 5, "faults": ["a"]}
    assert camera_facts(message, 5) == CameraFacts(5, True, "cable", False, 5.0, ("a",))


def test_pictures_pass_only_while_somebody_looks() -> None:
    lease = WatchLease()
    assert not lease.running(0)
    assert lease.renew(Watch(mode="live", lease_s=3), 0) == {"type": "watch", "mode": "live", "lease_s": 3.0}
    assert lease.running(3 * SECOND_NS - 1)
    assert not lease.running(3 * SECOND_NS)


@pytest.mark.parametrize("jpeg", [None, 7, "%%%", base64.b64encode(b"GIF89a").decode()])
def test_what_is_no_picture_is_not_sent(jpeg: object) -> None:
    assert jpeg_of({"type": "preview", "jpeg": jpeg}) is None


def test_picture_is_decoded_and_bounded() -> None:
    assert jpeg_of({"jpeg": base64.b64encode(b"\xff\xd8data").decode()}) == b"\xff\xd8data"
    assert jpeg_of({"jpeg": base64.b64encode(b"\xff\xd8" + bytes(MAX_MESSAGE_BYTES)).decode()}) is None


def observation(number: int, phase: str = "opened") -> dict[str, Any]:
    report = {
        "kind": "head_turned_away",
        "words": "head turned away",
        "phase": phase,
        "start_90k": 90_000,
        "end_90k": None,
        "duration_s": 4.0,
        "level": "yellow",
        "rule": "yaw over 25 degrees for 4 s",
        "measured": {"yaw_deg": 31.5},
    }
    return {"type": "observation", "sid": SID, "number": number, "report": report}


def test_observation_waits_until_the_broker_has_it() -> None:
    outbox = ObservationOutbox()
    assert outbox.add(observation(1))
    assert outbox.add(observation(1, "closed"))
    assert not outbox.add({"type": "observation", "sid": "nobody"})
    (first, message), (second, _) = outbox.unsent()
    assert message.observation.measured == {"yaw_deg": 31.5}
    outbox.sent(first, 10)
    outbox.sent(second, 11)
    assert outbox.unsent() == []
    outbox.acknowledged(10)
    outbox.acknowledged(99)
    outbox.connection_lost()
    assert [key for key, _ in outbox.unsent()] == [second]


def test_long_outage_keeps_the_newest_observations() -> None:
    outbox = ObservationOutbox()
    for number in range(MAX_WAITING_OBSERVATIONS + 3):
        assert outbox.add(observation(number))
    assert outbox.dropped == 3
    assert outbox.unsent()[0][0][1] == 3


def test_hours_of_a_loose_plug_and_of_faults_fit_into_a_message() -> None:
    """A status over the limit would be dropped, and the desk would seem to be gone."""
    gaps = [GapRow(number, number + 1, "camera lost: " + "x" * 80) for number in range(10_000)]
    session = replace(
        SESSION, gaps=gaps, set_aside=[f"0-video-{number}.evf: altered" for number in range(3000)]
    )
    faults = tuple(f"0-video-{number}.evf is set aside" for number in range(3000))
    status = build_status(replace(FACTS, sessions=[session] * 8, faults=faults))
    report = status.sessions[0]
    assert (len(report.gaps), report.gap_count, report.gaps[-1].start_90k) == (20, 10_000, 9_999)
    assert len(report.set_aside) == 5
    assert status.faults[-1] == "and 2980 more; the desk's log has them all"
    assert len(encode(status)) < MAX_MESSAGE_BYTES // 8


def test_machines_of_one_name_wait_longer_each_time() -> None:
    assert [taken_over_backoff_s(times, 1.0) for times in (1, 2, 3, 50)] == [30, 60, 120, 600]
    assert taken_over_backoff_s(1, 0.0) == 15


def test_backoff_is_spread_capped_and_never_ends() -> None:
    assert backoff_s(0, 1.0) == 0.5
    assert backoff_s(3, 0.0) == 2.0
    assert [backoff_s(failures, 1.0) for failures in (5, 50, 10**6)] == [15.0, 15.0, 15.0]
