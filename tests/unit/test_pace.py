"""The pace of assessment: a ceiling by rate, a ceiling by CPU, and no memory of a slow hour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.inference.pace import Pace

MS = 1_000_000
S = 1000 * MS


@dataclass
class Process:
    """Looks at frames as fast as its pace allows; time and CPU pass as the test says."""

    pace: Pace
    now_ns: int = 5 * S
    cpu_ns: int = 0
    # (from, to, CPU) of each frame
    frames: list[tuple[int, int, int]] = field(default_factory=list)

    def look(self, cost_ns: int, waited_ns: int = 0) -> None:
        """One frame that costs CPU and in which the process stands without a core for `waited_ns`."""
        while (wait_s := self.pace.wait_s(self.now_ns, self.cpu_ns)) > 0:
            self.now_ns += max(1, round(wait_s * 1e9))
        begun_ns = self.now_ns
        self.pace.begin(begun_ns)
        self.now_ns += cost_ns + waited_ns
        self.cpu_ns += cost_ns
        self.pace.end(self.now_ns, self.cpu_ns)
        self.frames.append((begun_ns, self.now_ns, cost_ns))

    def run(self, costs: Iterator[int], seconds: float) -> float:
        """Frames a second over the next `seconds`."""
        until_ns, before = self.now_ns + round(seconds * S), len(self.frames)
        while self.now_ns < until_ns:
            self.look(next(costs))
        return (len(self.frames) - before) / seconds

    def most_cpu_ns(self, window_ns: int) -> float:
        """The CPU used in the window that holds most; a frame uses its own evenly, or at its end where it waited."""
        edges = [edge for begun, ended, _ in self.frames for edge in (begun, ended - window_ns)]
        return max(self._cpu_between(edge, edge + window_ns) for edge in edges)

    def _cpu_between(self, from_ns: int, to_ns: int) -> float:
        used = 0.0
        for _begun, ended, cost_ns in self.frames:
            working_from = ended - cost_ns
            used += max(0, min(ended, to_ns) - max(working_from, from_ns))
        return used


def test_a_cheap_frame_is_looked_at_at_the_rate() -> None:
    """20 ms at 30 Hz are exactly the 60 % that are allowed."""
    assert Process(Pace(30, 0.6)).run(repeat(20 * MS), 10) == pytest.approx(30, abs=0.3)


def test_a_dear_frame_is_looked_at_as_often_as_the_budget_allows() -> None:
    process = Process(Pace(30, 0.6))
    assert process.run(repeat(100 * MS), 20) == pytest.approx(6, abs=0.1)
    assert process.most_cpu_ns(5 * S) <= 0.6 * 5 * S + 100 * MS * 0.4
    assert sum(cost for *_, cost in process.frames) / (process.now_ns - 5 * S) <= 0.605


def test_the_pace_comes_back_at_once_when_frames_are_cheap_again() -> None:
    process = Process(Pace(10, 0.6))
    assert process.run(repeat(300 * MS), 10) == pytest.approx(2, abs=0.11)
    assert process.run(repeat(5 * MS), 2) == pytest.approx(10, abs=0.6)


def test_one_slow_frame_is_paid_back_and_no_burst_follows_it() -> None:
    """A second of CPU for one frame: then a rest, then frames at the rate and not one more."""
    process = Process(Pace(10, 0.6))
    process.run(repeat(5 * MS), 1)
    process.look(1000 * MS)
    ended_ns = process.now_ns
    process.look(5 * MS)
    rest_ns = process.frames[-1][0] - ended_ns
    assert rest_ns == pytest.approx(1000 * MS * 0.4 / 0.6, rel=0.02)
    assert process.run(repeat(5 * MS), 2) <= 10.5


def test_a_long_rest_saves_nothing_up() -> None:
    process = Process(Pace(10, 0.6))
    process.now_ns += 3600 * S
    assert process.pace.wait_s(process.now_ns, process.cpu_ns) == 0
    assert process.run(repeat(100 * MS), 5) == pytest.approx(6, abs=0.3)


def test_waiting_for_a_core_is_neither_work_nor_rest() -> None:
    """A machine that others use up: 20 ms of work take 40, and are paid as 20."""
    process = Process(Pace(30, 0.6))
    for _ in range(100):
        process.look(20 * MS, waited_ns=20 * MS)
    spans = [
        later[0] - earlier[0] for earlier, later in zip(process.frames, process.frames[1:], strict=False)
    ]
    assert max(spans) == pytest.approx(40 * MS + 20 * MS * 0.4 / 0.6, rel=0.01)


def test_what_the_process_does_between_frames_counts() -> None:
    """Models loaded for 0.6 s of CPU: the first frame waits until that is paid."""
    pace = Pace(10, 0.6)
    assert pace.wait_s(0, 0) == 0
    assert pace.wait_s(600 * MS, 600 * MS) == pytest.approx(0.4)
    assert pace.wait_s(1000 * MS, 600 * MS) == 0


def test_frames_that_are_a_little_early_are_taken_and_do_not_add_up() -> None:
    """The writer's jitter loses no frame, and a writer that is 5 % too fast does not speed the desk up."""
    pace = Pace(10, 1.0)
    taken = 0
    for number in range(1050):
        now_ns = 5 * S + number * 95 * MS
        if pace.wait_s(now_ns, 0) == 0:
            pace.begin(now_ns)
            pace.end(now_ns, 0)
            taken += 1
    assert taken == pytest.approx(1050 * 0.095 * 10, abs=2)


def test_no_frame_is_lost_to_jitter() -> None:
    pace = Pace(10, 1.0)
    for number in range(100):
        now_ns = 5 * S + number * 100 * MS + (-4 * MS if number % 2 else 4 * MS)
        assert pace.wait_s(now_ns, 0) == 0
        pace.begin(now_ns)
        pace.end(now_ns, 0)


@pytest.mark.parametrize(("rate_hz", "budget"), [(0, 0.6), (-1, 0.6), (5, 0), (5, 1.01)])
def test_an_impossible_pace_is_refused(rate_hz: float, budget: float) -> None:
    with pytest.raises(ValueError, match="no pace"):
        Pace(rate_hz, budget)


Looks = list[tuple[int, int, int]]
LOOKS = st.lists(
    st.tuples(
        st.integers(0, 3000).map(lambda ms: ms * MS),  # CPU of the frame
        st.sampled_from([0, 0, 0, 10 * MS, 2 * S]),  # without a core in it
        st.sampled_from([0, 0, 0, 50 * MS, 20 * S]),  # no frame there
    ),
    min_size=1,
    max_size=60,
)


def worst_excess_ns(make: Callable[[], Pace], looks: Looks, budget: float) -> float:
    """By how much the fullest 10 s exceed the budget and one frame's cost."""
    process = Process(make())
    for cost_ns, waited_ns, absent_ns in looks:
        process.now_ns += absent_ns
        process.look(cost_ns, waited_ns)
    dearest_ns = max(cost for cost, *_ in looks)
    return process.most_cpu_ns(10 * S) - budget * 10 * S - dearest_ns


@settings(max_examples=60, deadline=None)
@given(LOOKS, st.sampled_from([0.1, 0.3, 0.6, 1.0]), st.sampled_from([1.0, 5.0, 30.0]))
def test_no_ten_seconds_hold_more_than_the_budget_and_one_frame(
    looks: Looks, budget: float, rate_hz: float
) -> None:
    assert worst_excess_ns(lambda: Pace(rate_hz, budget), looks, budget) <= len(looks) * 1000


def test_negative_control_a_rate_alone_exceeds_the_budget() -> None:
    looks: Looks = [(150 * MS, 0, 0)] * 60
    assert worst_excess_ns(lambda: Pace(30, 1.0), looks, 0.6) > 2 * S
