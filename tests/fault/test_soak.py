"""`make soak`, shortened: a room under faults loses nothing, and what is taken away behind its back is found lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.soak.accounting import unnamed_s
from tests.soak.plan import NODE_PARTS, Fault, make_plan, name_of
from tests.soak.samples import Life, Sample, Slope, pooled_slope
from tests.soak.site import SoakRoom
from tests.soak.soak import Options, Soak, too_high, too_steep

DESKS = [f"desk-{number}" for number in range(1, 5)]
SHORT = Options(
    length_s=15,
    seed=2,
    exam_s=(6, 9),
    mean_fault_s=2,
    sample_s=1,
    # Nothing is said of memory: in so short a life all of it is warming up.
    warm_up_s=600,
    shortest_life_s=600,
    say_every_s=5,
    patience_s=60,
)
CONTROL = replace(SHORT, length_s=25, exam_s=(4, 5), mean_fault_s=1000, patience_s=30, control=True)


@pytest.fixture(scope="module")
def soaks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Soak, Soak]]:
    """The room as it is, then the same room with somebody who removes a sealed segment; both concluded."""
    room = SoakRoom.make(tmp_path_factory.mktemp("soak") / "room", 2)
    with room:
        room.start()
        honest, control = Soak(room, SHORT, print), Soak(room, CONTROL, print)
        honest.run()
        control.run()
        room.stop_processes()
        honest.conclude()
        control.conclude()
        yield honest, control


@pytest.mark.slow
def test_a_room_under_faults_loses_nothing(soaks: tuple[Soak, Soak]) -> None:
    """Every acknowledged fragment is in the opened session or on its desk, and each silence is a named gap (F146)."""
    honest, _ = soaks
    report = honest.report
    assert honest.failures == [], report
    assert report["lost"] == 0
    assert report["fragments"]["checked"] == report["fragments"]["acknowledged"] >= 4
    assert report["fragments"]["in_storage"] > 0
    assert sum(report["faults"].values()) >= 4
    assert report["files"]["end"]["store_bytes"] < report["files"]["before_last_purge"]["store_bytes"]


@pytest.mark.slow
def test_a_segment_removed_behind_its_back_is_reported_as_lost(soaks: tuple[Soak, Soak]) -> None:
    """Negative control: the same observer, the same room, one file less."""
    _, control = soaks
    assert control.report["exams"]["segments removed"] == 1
    assert control.report["lost"] > 0
    assert any(failure.startswith("lost: desk-1") for failure in control.failures)


def test_the_seed_alone_makes_the_faults() -> None:
    plan = make_plan(3, 3600, DESKS, "desk-1", 8)
    assert plan == make_plan(3, 3600, DESKS, "desk-1", 8)
    assert plan != make_plan(4, 3600, DESKS, "desk-1", 8)
    assert 300 < len(plan) < 600
    assert {f"{part} {what}" for part in NODE_PARTS for what in ("killed", "stopped")} < set(
        map(name_of, plan)
    )


def test_no_target_has_two_faults_at_one_time() -> None:
    plan = make_plan(3, 3600, DESKS, "desk-1", 2)
    targets: dict[str, list[Fault]] = {}
    for fault in plan:
        targets.setdefault(fault.target, []).append(fault)
    assert max(map(len, targets.values())) > 100
    assert all(a.at_s + a.for_s < b.at_s for faults in targets.values() for a, b in pairwise(faults))
    assert all(fault.at_s + fault.for_s <= 3600 for fault in plan)
    assert not any(fault.target.startswith("desk-4 ") for fault in plan), (
        "its memory is measured over the run"
    )
    assert not [f for f in plan if f.target == "controller" and f.kind != "stopped" and f.at_s > 1800]


def test_a_leak_shows_across_restarts_and_a_sawtooth_does_not() -> None:
    """10 MiB an hour in lives of ten minutes, each of which begins small again."""
    lives = [[(start + t, 50 + t / 360) for t in range(0, 600, 5)] for start in range(0, 3600, 600)]
    leak = pooled_slope([*lives], 60, 120)
    assert leak.per_h == pytest.approx(10)
    flat = pooled_slope([[(t, 50.0 + index) for t, _ in life] for index, life in enumerate(lives)], 60, 120)
    assert flat.per_h == pytest.approx(0)
    warming = [[(float(t), min(100.0, t)) for t in range(0, 600, 5)]]
    assert pooled_slope(warming, 100, 120).per_h == pytest.approx(0)
    assert pooled_slope(warming, 0, 120).per_h > 100


def test_only_growth_of_our_own_that_is_more_than_noise_fails() -> None:
    steep = Slope(20.0, 1.0, 20.0, 3600, 700)
    assert len(too_steep({"camera": steep, "storage": steep}, 8, 8, "MiB")) == 1
    assert too_steep({"camera": Slope(20.0, 1.0, 2.0, 360, 70)}, 8, 8, "MiB") == []
    assert too_steep({"camera": Slope(7.0, 1.0, 70.0, 36000, 7000)}, 8, 8, "MiB") == []


def test_memory_that_rises_far_in_one_life_fails_however_slowly() -> None:
    def life(name: str, rise_mib: float) -> Life:
        return Life(
            name, [Sample(float(t), 100 + rise_mib * t / 7200, 0, 0, 0, 0) for t in range(0, 7201, 5)]
        )

    assert len(too_high([life("desk-1 camera", 70), life("desk-2 camera", 60), life("storage", 90)])) == 1


@pytest.mark.parametrize(
    ("gaps", "left_s"),
    [
        ([], 4.0),
        ([(1, 5)], 0.0),
        ([(2, 3)], 3.0),
        ([(0, 2), (4, 9)], 2.0),
        ([(1, 4), (2, 3)], 1.0),
        ([(7, 9)], 4.0),
    ],
)
def test_only_what_no_gap_covers_is_unnamed(gaps: list[tuple[float, float]], left_s: float) -> None:
    assert unnamed_s(1.0, 5.0, gaps) == pytest.approx(left_s)
