"""Observations on their way into the log track: numbers, lives of the model process, refusals, replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from appliance.camera.inbox import Observed
from appliance.camera.observations import (
    MAX_BURST,
    MAX_OPEN,
    MAX_REMEMBERED,
    SessionObservations,
)
from appliance.evf.errors import EvfError
from appliance.protocol import OBSERVATIONS_PER_EPOCH, ObservationReport
from tests.unit.test_store_builders import SID

S = 90_000


def report(
    phase: str = "opened", start_s: float = 1, end_s: float | None = None, **more: Any
) -> ObservationReport:
    values: dict[str, Any] = {
        "kind": "nobody_at_desk", "words": "nobody at the desk", "phase": phase,
        "start_90k": round(start_s * S), "end_90k": None if end_s is None else round(end_s * S),
        "duration_s": 1.0, "level": "red", "rule": "longer than 10 s", "measured": {},
    }  # fmt: skip
    return ObservationReport.model_validate(values | more)


class Log:
    """Where records go; refuses while `refusing`."""

    def __init__(self, epoch: int = 0) -> None:
        self.kept: list[tuple[int, str, int]] = []
        self.refusing = False
        self.observations = SessionObservations(SID, epoch, self)

    def __call__(self, number: int, report: Mapping[str, Any], time_90k: int) -> bool:
        if report["rule"] == "no canonical form":
            raise EvfError("value has no canonical form")
        if not self.refusing:
            self.kept.append((number, report["phase"], time_90k // S))
        return not self.refusing

    def take(self, key: int, what: ObservationReport, peer: int = 1, now_s: float = 20) -> list[int]:
        told = self.observations.take(Observed(peer, key, what), round(now_s * S))
        return [message["number"] for message in told]


def test_opened_and_closed_share_a_number() -> None:
    log = Log()
    assert log.take(7, report()) == [0]
    assert log.take(8, report(kind="several_people")) == [1]
    assert log.take(7, report("closed", 1, 5)) == [0]
    assert log.kept == [(0, "opened", 1), (1, "opened", 1), (0, "closed", 5)]
    assert log.observations.any_open


def test_numbers_do_not_return_in_another_life_or_epoch() -> None:
    log = Log()
    log.take(0, report())
    log.take(0, report("closed", 1, 2))
    assert log.take(0, report()) == [1]
    assert log.take(0, report(), peer=2) == [2]
    later = Log(epoch=3)
    assert later.take(0, report()) == [3 * OBSERVATIONS_PER_EPOCH]


def test_what_a_dead_model_process_left_open_is_closed_and_nothing_else() -> None:
    log = Log()
    log.take(0, report(), peer=1)
    log.take(0, report(start_s=2), peer=2)
    [message] = log.observations.observer_gone(1, 30 * S)
    closed = ObservationReport.model_validate(message["report"])
    assert (message["number"], closed.phase, closed.end_90k, closed.duration_s) == (0, "closed", 30 * S, 29)
    assert closed.uncertainty == "assessment ended before it did"
    assert log.observations.any_open
    assert [each["number"] for each in log.observations.close_all(40 * S)] == [1]
    assert not log.observations.any_open


@pytest.mark.parametrize(
    "wrong",
    [report(start_s=22), report("closed", 5, 4), report("closed", 5, 10**6)],
    ids=["ahead", "backwards", "far ahead"],
)
def test_what_cannot_be_true_is_refused_and_counted(wrong: ObservationReport) -> None:
    log = Log()
    assert log.take(0, wrong) == []
    assert log.observations.refused == 1
    assert log.take(0, report()) == [0]


def test_a_flood_is_thinned_and_the_rest_counted() -> None:
    log = Log()
    for key in range(500):
        log.take(key, report("closed", 1, 2))
    assert len(log.kept) <= MAX_BURST + 1
    assert log.observations.refused == 500 - len(log.kept)
    assert log.take(0, report("closed", 1, 2), now_s=30)


def test_open_ones_are_bounded_and_can_still_be_closed() -> None:
    log = Log()
    for key in range(MAX_OPEN + 20):
        log.take(key, report(start_s=key), now_s=key + 1)
    assert len(log.kept) == MAX_OPEN
    assert log.take(0, report("closed", 0, 200), now_s=200) == [0]


def test_what_the_store_refuses_waits_in_order() -> None:
    log = Log()
    log.refusing = True
    assert log.take(0, report()) == []
    log.refusing = False
    assert log.take(0, report("closed", 1, 5)) == []
    assert log.observations.waiting == 2
    told = log.observations.retry(21 * S)
    assert [(each["number"], each["report"]["phase"]) for each in told] == [(0, "opened"), (0, "closed")]
    assert log.observations.waiting == 0


def test_what_has_no_canonical_form_is_refused() -> None:
    log = Log()
    assert log.take(0, report(rule="no canonical form")) == []
    assert log.observations.refused == 1
    assert log.observations.waiting == 0


def test_replay_gives_the_newest_state_by_number_and_is_bounded() -> None:
    log = Log()
    log.take(0, report())
    log.take(1, report(kind="several_people"))
    log.take(0, report("closed", 1, 5))
    again = [(each["number"], each["report"]["phase"]) for each in log.observations.again()]
    assert again == [(0, "closed"), (1, "opened")]
    for key in range(MAX_REMEMBERED + 5):
        log.take(key + 2, report("closed", 1, 5), now_s=30 + key)
    again = log.observations.again()
    assert len(again) == MAX_REMEMBERED
    assert again[-1]["number"] == MAX_REMEMBERED + 6


def test_only_what_is_durable_is_replayed() -> None:
    log = Log()
    log.refusing = True
    log.take(0, report())
    assert log.observations.again() == []
