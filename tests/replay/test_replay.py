"""F041, F043, F045, F048: recorded signals give the observations that a person approved, to a tenth of a second."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from appliance.inference.rules import DEFAULT_RULES, KINDS, SOUND_KINDS
from appliance.inference.signals import Signals
from tests.replay import films, record, traces
from tests.replay.traces import Seen, replay, side_by_side

NAMES = traces.names()
MOST_BYTES = 200_000
# What a frame that is left out may move, by how many are: 0.2 s at 5 Hz and the smoothing; below 2 Hz nothing runs.
RATE_TOLERANCES_S = {2: 0.5, 3: 0.5, 6: 1.0}
HOW = "read both, then: python -m tests.replay.record --approve"


@pytest.mark.parametrize("name", NAMES)
def test_replay_gives_what_was_approved(name: str) -> None:
    now = replay(traces.read(name))
    why, then = traces.approved(name)
    assert now == then, f"\n{name}: {why}\n{side_by_side(then, now)}\n{HOW} {name}"


def test_every_trace_is_approved_with_a_reason() -> None:
    assert traces.approved_names() == NAMES
    assert len(NAMES) >= 9
    for name in NAMES:
        why, _ = traces.approved(name)
        assert len(why.split()) >= 5, name


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(SOUND_KINDS)))
def test_a_changed_rule_makes_a_replay_differ(kind: str) -> None:
    """Negative control: half the dwell of any one kind, and some trace is no longer as approved."""
    rules = [replace(rule, dwell_s=rule.dwell_s / 2) if rule.kind == kind else rule for rule in DEFAULT_RULES]
    differing = {name for name in NAMES if replay(traces.read(name), rules) != traces.approved(name)[1]}
    assert differing
    for name in differing:
        now, then = replay(traces.read(name), rules), traces.approved(name)[1]
        assert {each.kind for each in set(now) ^ set(then)} == {kind}


@pytest.mark.parametrize("part", RATE_TOLERANCES_S)
@pytest.mark.parametrize("name", NAMES)
def test_rate_does_not_matter(name: str, part: int) -> None:
    """A half and a third of the frames: the same kinds, to within half a second; a sixth: to within one."""
    whole, thinned = traces.approved(name)[1], replay(traces.read(name)[::part])
    assert [each.kind for each in thinned] == [each.kind for each in whole]
    for slow, fast in zip(thinned, whole, strict=True):
        assert (slow.start_s, slow.end_s) == pytest.approx(
            (fast.start_s, fast.end_s), abs=RATE_TOLERANCES_S[part]
        )
        assert slow.level == fast.level


def test_traces_hold_numbers_only() -> None:
    """F039: nothing but what Signals has, to a tenth of a degree; no picture, no points, and little of it."""
    assert sum(path.stat().st_size for path in traces.TRACES.iterdir()) <= MOST_BYTES
    for name in NAMES:
        assert traces.about(name)["parts"]
        for signals in traces.read(name):
            for field in fields(Signals):
                value = getattr(signals, field.name)
                assert value is None or isinstance(value, str | int | float)
                assert not isinstance(value, float) or value == round(value, 1)


@pytest.mark.parametrize("name", ["person_sits_still", "person_moves", "empty_scene"])
def test_todays_tracker_reads_what_was_recorded(name: str) -> None:
    """A model or a pose that reads otherwise makes the traces out of date: record them anew, all of them."""
    film = [replace(part, seconds=2.0) for part in films.FILMS[name]]
    now = list(record.signals_of(films.frames(film), name not in films.CUT_TOGETHER))
    then = traces.read(name)[: len(now)]
    again = "record anew: python -m tests.replay.record"
    assert [(each.faces, each.quality) for each in now] == [(each.faces, each.quality) for each in then], (
        again
    )
    for angle in ("head_yaw_deg", "head_pitch_deg", "gaze_yaw_deg", "gaze_pitch_deg", "gaze_uncertainty_deg"):
        assert _median(now, angle) == pytest.approx(_median(then, angle), abs=1.5), f"{angle}: {again}"


def _median(trace: list[Signals], name: str) -> float:
    values = [value for signals in trace if (value := getattr(signals, name)) is not None]
    return float(np.median(values)) if values else 0.0


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Traces and approvals in a folder that this test may write to."""
    for name in ("TRACES", "APPROVED"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(traces, name, tmp_path / name)
    return tmp_path


def test_a_clip_is_recorded_shown_and_approved(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The way of README.md, on four seconds of a scene without people."""
    record.main([str(films.CLIPS / "no_face.mp4")])
    assert "nobody has approved it yet" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        record.main(["--approve", "no_face"])
    why = "the whole drawn scene rises, as if the camera were tilted"
    record.main(["--approve", "no_face", "--why", why])
    approved = traces.approved("no_face")
    assert (approved[0], [seen.kind for seen in approved[1]]) == (why, ["camera_moved"])
    first = (elsewhere / "TRACES" / "no_face.jsonl.gz").read_bytes()
    record.main([str(films.CLIPS / "no_face.mp4")])
    assert (elsewhere / "TRACES" / "no_face.jsonl.gz").read_bytes() == first


@pytest.mark.parametrize("arguments", [["no_such"], ["--show", "no_such"], ["--approve"]])
def test_what_is_not_there_is_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        record.main(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_timelines_stand_side_by_side_in_words() -> None:
    same = Seen("nobody_at_desk", 20.0, 60.0, "red")
    gone, new = Seen("camera_covered", 5.0, 9.0, None), Seen("camera_covered", 5.0, 9.4, None)
    lines = side_by_side([gone, same], [new, same]).splitlines()
    assert lines[0].split("|")[1].strip() == "now"
    assert [line[:2] for line in lines[1:]] == ["> ", "> ", "  "]
    assert "5.0 to    9.0 s  camera covered (technical)" in lines[1]
    assert lines[3].count("nobody seen at the desk (red)") == 2
    assert side_by_side([], []).splitlines()[1].split() == ["nothing", "|", "nothing"]
