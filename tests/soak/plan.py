"""Which faults come when: a list made from a seed alone, so that a run can be had again. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

NODE_PARTS = ("camera", "inference", "sync")
ROOM_PARTS = ("broker", "controller", "storage")
# The controller's memory needs one long life to be measured over.
CONTROLLER_KILLED_UNTIL = 0.5
TRIES = 8


@dataclass(frozen=True)
class Fault:
    """At `at_s` something happens to `target` and lasts `for_s` (0: a moment)."""

    at_s: float
    kind: str
    target: str
    for_s: float


@dataclass(frozen=True)
class Kind:
    """How often, relative to the others, and how long a kind of fault is; `on`: desk parts, room parts, desks, room."""

    name: str
    weight: float
    shortest_s: float
    longest_s: float
    on: str


KINDS = (
    Kind("killed", 9, 0, 0, "desk parts"),
    Kind("stopped", 4, 1, 8, "desk parts"),
    Kind("killed", 3, 0, 0, "room parts"),
    Kind("stopped", 2, 1, 12, "room parts"),
    Kind("away", 1, 20, 60, "room parts"),
    Kind("unplugged", 2, 2, 15, "desks"),
    Kind("film replaced", 1, 0, 0, "desks"),
    Kind("disk full", 1.5, 3, 20, "small disk"),
    Kind("wrong password", 1, 0, 0, "room"),
    Kind("watched", 3, 2, 20, "room"),
    Kind("watched live", 2, 2, 15, "desks"),
    Kind("false clock", 1, 0, 0, "room"),
)


def make_plan(
    seed: int, length_s: float, desks: list[str], small_disk: str | None, mean_s: float
) -> list[Fault]:
    """Faults in order of time, `mean_s` apart on average; no two at one time for one target.

    The last desk's processes are never killed nor stopped: their memory is measured over the whole run.
    """
    dice = random.Random(seed)
    spared = desks[-1] if len(desks) > 1 else None
    places = {
        "desk parts": [f"{desk} {part}" for desk in desks if desk != spared for part in NODE_PARTS],
        "room parts": list(ROOM_PARTS),
        "desks": desks,
        "room": ["room"],
        "small disk": [small_disk] if small_disk else [],
    }
    kinds = [kind for kind in KINDS if places[kind.on]]
    busy_until: dict[str, float] = {}
    plan: list[Fault] = []
    at_s = dice.expovariate(1 / mean_s)
    while at_s < length_s:
        for _ in range(TRIES):
            [kind] = dice.choices(kinds, [kind.weight for kind in kinds])
            target = dice.choice(places[kind.on])
            for_s = min(dice.uniform(kind.shortest_s, kind.longest_s), length_s - at_s)
            too_late = target == "controller" and at_s > length_s * CONTROLLER_KILLED_UNTIL
            if busy_until.get(target, 0.0) <= at_s and not (too_late and kind.name != "stopped"):
                plan.append(Fault(at_s, kind.name, target, for_s))
                # A second for the fault's own end, and for whoever starts the process again.
                busy_until[target] = at_s + for_s + 1.0
                break
        at_s += dice.expovariate(1 / mean_s)
    return plan


def name_of(fault: Fault) -> str:
    """For counting: the part, without its desk, and what happened to it."""
    part = fault.target.split()[-1]
    return f"{part} {fault.kind}" if part in (*NODE_PARTS, *ROOM_PARTS) else fault.kind
