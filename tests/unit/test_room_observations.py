"""What the room's pages say of an observation, while it lasts, after it and in a break."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.card import LABELS, NO_CARD, Card
from appliance.clock import parse_utc
from appliance.protocol import ObservationMessage, ObservationReport
from appliance.room import live
from appliance.room.core import Room
from appliance.room.desk import Decisions
from tests.sessions import CARD
from tests.unit.test_room_kit import (
    Browser,
    Kit,
    make_kit,
    start,
)
from tests.unit.test_store_builders import OTHER_SID

GONE = ObservationReport(
    kind="nobody_at_desk", words="nobody at the desk", phase="opened", start_90k=0, end_90k=None,
    duration_s=40.0, level="red", rule="nobody for over 10 s", measured={},
)  # fmt: skip


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with closing(make_kit(tmp_path)) as made:
        made.ready("d1", "d2")
        yield made


def recording(kit: Kit) -> tuple[Browser, str]:
    """A proctor at the dashboard, and the session that the first desk has begun to record."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    kit.hear("d1", kit.status("d1", kit.report(sid)))
    return proctor, sid


def test_observations_their_card_and_the_sentence(kit: Kit) -> None:
    """F041, F045, F068."""
    staff, (proctor, sid) = kit.logged_in("staff"), recording(kit)
    seen = ObservationReport(
        kind="gaze_outside_work_area", words="outside the work area", phase="closed", start_90k=0, end_90k=558_000,
        duration_s=6.2, level="yellow", rule="gaze outside for over 4 s", measured={"yaw_deg": 41.5},
    )  # fmt: skip
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=seen))
    view = proctor.get("/api/desks/d1").json()
    assert (view["level"], view["seen"]) == ("yellow", "outside the work area, 6.2 s")
    assert view["observations"][0]["rule"] == "gaze outside for over 4 s"
    began, until = (parse_utc(view["observations"][0][name]) for name in ("at", "until"))
    assert (until - began).total_seconds() == 6.2
    sentence = "An indication is not proof of anything. It says where a person may want to look."
    assert view["sentence"] == sentence
    assert sentence in proctor.get("/desk/d1").text
    hidden = staff.get("/api/desks/d1").json()
    assert (hidden["level"], hidden["seen"], hidden["observations"]) == (None, None, [])
    assert proctor.post(f"/api/sessions/{sid}/review", {"number": 1}).status_code == 200
    assert proctor.get("/api/desks/d1").json()["level"] == "green"
    assert proctor.post(f"/api/sessions/{sid}/review", {"number": 9}).status_code == 400


def test_an_observation_on_the_page_has_its_explanation(kit: Kit) -> None:
    """F045: all of its card in words; of an older desk, that it sent none."""
    proctor, sid = recording(kit)
    turned = ObservationReport(
        kind="head_turned_away", words="head turned", phase="closed", start_90k=0, end_90k=558_000, duration_s=6.2,
        level="yellow", rule="beyond 40 degrees for 4 s", measured={"yaw_deg": 41.5}, card=Card.model_validate(CARD),
    )  # fmt: skip
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=turned))
    kit.hear(
        "d1", ObservationMessage(sid=sid, number=2, observation=turned.model_copy(update={"card": None}))
    )
    older, newer = proctor.get("/api/desks/d1").json()["observations"]
    lines = dict(newer["card"])
    assert list(lines) == list(LABELS.values())
    assert lines["light"] == CARD["light"]
    assert lines["models"] == "face_landmark.tflite 2efcb4f4de43"
    assert older["card"] == [["card", NO_CARD]]
    page = proctor.get("/desk/d1").text
    assert (
        '<details data-f="card"><summary>Explanation</summary><dl class="card-facts"></dl></details>' in page
    )
    assert 'explanation(part("card"), seen)' in proctor.get("/static/desk.js").text


def test_a_seat_left_and_taken_again_has_both_times(kit: Kit) -> None:
    """F048: left at, until, how long, on the seat's list and on its tile."""
    proctor, sid = recording(kit)
    left = ObservationReport(
        kind="nobody_at_desk", words="nobody seen at the desk", phase="opened", start_90k=90_000, end_90k=None,
        duration_s=10.0, level="red", rule="nobody for at least 10 s", measured={},
    )  # fmt: skip
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=left))
    [open_now] = proctor.get("/api/desks/d1").json()["observations"]
    assert (open_now["closed"], open_now["until"]) == (False, None)
    words = "nobody seen at the desk until somebody came"
    over = {"phase": "closed", "words": words, "end_90k": 46 * 90_000, "duration_s": 45.0}
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=left.model_copy(update=over)))
    view = proctor.get("/api/desks/d1").json()
    [seen] = view["observations"]
    assert (parse_utc(seen["until"]) - parse_utc(seen["at"])).total_seconds() == 45
    assert seen["at"] == open_now["at"]
    assert view["seen"] == f"{words}, 45.0 s"


def test_a_moved_camera_stays_on_the_tile_until_somebody_has_looked(kit: Kit) -> None:
    """F050: over in seconds, and the desk may be out of the picture since; it changes no level."""
    proctor, sid = recording(kit)
    moved = ObservationReport(
        kind="camera_moved", words="camera moved", phase="closed", start_90k=0, end_90k=6 * 90_000, duration_s=6.0,
        level=None, technical=True, rule="camera moved for at least 0.6 s", measured={},
    )  # fmt: skip
    blurred = moved.model_copy(update={"kind": "camera_blurred", "words": "camera out of focus"})
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=moved))
    kit.hear("d1", ObservationMessage(sid=sid, number=2, observation=blurred))
    view = proctor.get("/api/desks/d1").json()
    [said] = view["technical"]
    assert re.fullmatch(r"camera moved at \d\d:\d\d:\d\d: is the desk still in view\?", said)
    assert view["level"] == "green"
    assert proctor.post(f"/api/sessions/{sid}/review", {"number": 1}).status_code == 200
    assert proctor.get("/api/desks/d1").json()["technical"] == []


def test_a_break_counts_for_no_level(kit: Kit) -> None:
    """F048."""
    proctor, sid = recording(kit)
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=GONE))
    assert proctor.get("/api/desks/d1").json()["level"] == "red"
    assert proctor.post(f"/api/sessions/{sid}/break", {"on": True}).status_code == 200
    view = proctor.get("/api/desks/d1").json()
    assert (view["state"], view["level"], view["needs"]) == ("break", "green", [])


def test_what_began_and_ended_in_a_break_counts_for_no_level_afterwards_either(kit: Kit) -> None:
    """F048. Control: who is still away when the break is over is."""
    proctor, sid = recording(kit)
    over = GONE.model_copy(update={"phase": "closed", "end_90k": 60 * 90_000})
    assert proctor.post(f"/api/sessions/{sid}/break", {"on": True}).status_code == 200
    for report in (GONE, over):
        kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=report))
    assert proctor.post(f"/api/sessions/{sid}/break", {"on": False}).status_code == 200
    view = proctor.get("/api/desks/d1").json()
    assert (view["state"], view["level"], view["needs"]) == ("recording", "green", [])
    assert [each["words"] for each in view["observations"]] == ["nobody at the desk"]

    assert proctor.post(f"/api/sessions/{sid}/break", {"on": True}).status_code == 200
    kit.hear("d1", ObservationMessage(sid=sid, number=2, observation=GONE))
    assert proctor.get("/api/desks/d1").json()["level"] == "green"
    assert proctor.post(f"/api/sessions/{sid}/break", {"on": False}).status_code == 200
    assert proctor.get("/api/desks/d1").json()["level"] == "red"
    kit.hear("d1", ObservationMessage(sid=sid, number=2, observation=over))
    assert proctor.get("/api/desks/d1").json()["level"] == "red"


def test_what_was_looked_at_stays_so_when_the_controller_begins_anew(kit: Kit) -> None:
    """The desk says again what it observed; what a person said of it stands in the database."""
    proctor, sid = recording(kit)
    said = [ObservationMessage(sid=sid, number=number, observation=GONE) for number in (1, 2)]
    kit.hear("d1", *said)
    assert proctor.post(f"/api/sessions/{sid}/review", {"number": 1}).status_code == 200
    room = kit.room
    again = Room.open(room.config, kit.clock, room.keys, room.database, room.publish)
    for message in said:
        again.live.take_observation("d1", sid, message.number, message.observation)
    seen = again.live.desks["d1"].observations[sid]
    assert {number: item.review for number, item in seen.items()} == {1: "no concern", 2: None}


def test_of_too_many_observations_the_oldest_that_was_looked_at_goes_and_the_newest_is_seen(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST_OBSERVATIONS", 3)
    proctor, sid = recording(kit)
    over = GONE.model_copy(update={"phase": "closed", "end_90k": 60 * 90_000})
    for number in (1, 2, 3):
        kit.hear("d1", ObservationMessage(sid=sid, number=number, observation=over))
    for number in (2, 3):
        assert proctor.post(f"/api/sessions/{sid}/review", {"number": number}).status_code == 200
    seen = kit.room.live.desks["d1"].observations[sid]
    for number, left in ((4, [1, 3, 4]), (5, [1, 4, 5]), (6, [4, 5, 6]), (7, [4, 5, 6])):
        kit.hear("d1", ObservationMessage(sid=sid, number=number, observation=GONE))
        assert sorted(seen) == left
    assert proctor.get("/api/desks/d1").json()["level"] == "red"


def test_who_sees_no_observations_is_not_told_that_there_is_one(kit: Kit) -> None:
    staff, (proctor, sid) = kit.logged_in("staff"), recording(kit)
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=GONE))
    asked = [who.get("/api/desks/d1").json()["needs_you"] for who in (staff, proctor)]
    assert asked == [False, True]


def test_what_a_killed_camera_process_left_open_ends_with_it(kit: Kit) -> None:
    """Its next life is a new epoch; nobody will ever close what the old one saw."""
    proctor, sid = recording(kit)
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=GONE))
    kit.hear("d1", kit.status("d1", kit.report(sid)))
    assert proctor.get("/api/desks/d1").json()["observations"][0]["closed"] is False
    kit.hear("d1", kit.status("d1", kit.report(sid, epoch=1)))
    assert proctor.get("/api/desks/d1").json()["observations"][0]["closed"] is True


OVER = {"synced_at": "2026-11-22T11:00:00.000Z"}
WAITS = {"manifest_sha256": "ab" * 32, "held_reason": "the board decides"}


@pytest.mark.parametrize(("decided", "stays"), [(OVER, False), (WAITS, True)], ids=["over", "control: held"])
def test_a_session_that_is_over_leaves_memory_when_the_next_one_begins(
    kit: Kit, decided: dict[str, str], stays: bool
) -> None:
    """With its observations, also those that come late; the database keeps what was decided."""
    _, sid = recording(kit)
    now = kit.room.live
    seen = now.desks["d1"]
    kit.hear("d1", ObservationMessage(sid=sid, number=1, observation=GONE))
    _, first = now.sessions[sid]
    now.put_session("d1", replace(first, ended_at="2026-11-22T10:00:00.000Z", **decided))
    assert (set(now.sessions), set(seen.observations)) == ({sid}, {sid}), "the newest of its desk"
    now.put_session("d1", Decisions(OTHER_SID, "C-2", "2036-11-22T12:00:00.000Z"))
    now.put_session("d2", Decisions("e" * 32, "C-3", "2026-11-22T08:00:00.000Z", **OVER))
    kit.hear("d1", kit.status("d1", kit.report(sid)))
    kit.hear("d1", ObservationMessage(sid=sid, number=2, observation=GONE))
    assert set(now.sessions) - {OTHER_SID, "e" * 32} == ({sid} if stays else set())
    assert {number for of in seen.observations.values() for number in of} == ({1, 2} if stays else set())
    assert set(seen.started_wall) == ({sid} if stays else set())
