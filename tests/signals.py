"""Signals of a person at a desk, scripted: what a camera's frames would say, without frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from appliance.inference.observations import Observation, ObservationPolicy
from appliance.inference.signals import Signals

# So many seconds of what differs from somebody who works.
Part = tuple[float, dict[str, Any]]

WORKING: dict[str, Any] = {
    "faces": 1,
    "assessable": True,
    "quality": "good",
    "head_yaw_deg": 0.0,
    "head_pitch_deg": 0.0,
    "head_roll_deg": 0.0,
    "gaze_yaw_deg": 0.0,
    "gaze_pitch_deg": 0.0,
    "gaze_uncertainty_deg": 7.0,
    "moved": False,
    "in_place_percent": 90.0,
}
NO_ANGLES = {name: None for name in WORKING if name.endswith("_deg")}
GONE = NO_ANGLES | {"faces": 0}
DARK = GONE | {"quality": "dark", "assessable": False}
FROZEN = NO_ANGLES | {
    "faces": 0,
    "assessable": False,
    "quality": "frozen",
    "moved": None,
    "in_place_percent": None,
}
MOVED = {"moved": True, "in_place_percent": 10.0}
HIDDEN = NO_ANGLES | {"assessable": False}
NO_EYES = {name: None for name in WORKING if name.startswith("gaze")}
# Frame to frame; in the traces of tests/replay somebody who sits still has 0.4 and 1.4 degrees, who moves 0.8 and 2.5.
HEAD_JITTER_DEG, GAZE_JITTER_DEG = 2.0, 3.0


def looking(yaw: float = 0.0, pitch: float = 0.0, unsure: float = 7.0) -> dict[str, Any]:
    """Eyes turned, head straight."""
    return {"gaze_yaw_deg": yaw, "gaze_pitch_deg": pitch, "gaze_uncertainty_deg": unsure}


def head(yaw: float = 0.0, pitch: float = 0.0) -> dict[str, Any]:
    """Head turned, and the eyes with it."""
    return {"head_yaw_deg": yaw, "head_pitch_deg": pitch} | looking(yaw, pitch)


def scripted(
    parts: Iterable[Part], rate_hz: float = 15.0, start_s: float = 100.0, seed: int | None = None
) -> Iterator[Signals]:
    """The frames of a scene; with a `seed` the angles jitter as measured ones do."""
    noise = None if seed is None else np.random.default_rng(seed)
    number, begun_s = 0, 0.0
    for seconds, what in parts:
        begun_s += seconds
        # Frames come when they come, however short a part is.
        while number / rate_hz < begun_s - 1e-6:
            values = WORKING | what
            if noise is not None:
                values = values | _jitter(values, noise)
            yield Signals(taken_mono_ns=round((start_s + number / rate_hz) * 1e9), **values)
            number += 1


def play(
    parts: Sequence[Part],
    rate_hz: float = 15.0,
    policy: ObservationPolicy | None = None,
    start_s: float = 100.0,
    seed: int | None = None,
) -> list[Observation]:
    """All events of a scene, its last part being followed by the session's end."""
    policy = policy or ObservationPolicy()
    events = [
        event for signals in scripted(parts, rate_hz, start_s, seed) for event in policy.process(signals)
    ]
    return events + policy.close_all(round((start_s + sum(seconds for seconds, _ in parts)) * 1e9))


def closed(events: Iterable[Observation]) -> list[tuple[str, float]]:
    """Kind and whole seconds of what was observed."""
    return [(event.kind, round(event.duration_s)) for event in events if event.phase == "closed"]


def _jitter(values: dict[str, Any], noise: np.random.Generator) -> dict[str, float]:
    return {
        name: values[name]
        + noise.normal(0.0, GAZE_JITTER_DEG if name.startswith("gaze") else HEAD_JITTER_DEG)
        for name in ("head_yaw_deg", "head_pitch_deg", "gaze_yaw_deg", "gaze_pitch_deg")
        if values[name] is not None
    }
