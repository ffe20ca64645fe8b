"""What staff are asked to do, in order: 12 staged behaviours and 12 innocent ones in turn. Pure data.

Of the two people one sits at the desk, the other reads aloud and stands in as a neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from appliance.errors import BadInput

# In the picture a person's left is on the right (yaw > 0).
Side = Literal["left", "right", "up"]

# The usual direction is learned in the first minute (inference/baseline.py).
PRACTICE_S = 60.0
# To read the sentence aloud, to take what is needed, and for what was observed before to close (2 s at the most).
READY_S = 14.0
# After the last step, for the same reason.
SETTLE_S = 10.0

PRACTICE = (
    "Sit as in an exam, face the screen, and work: read from the screen, look at its corners. "
    "Do not look into the paper yet. Nothing is tested in this minute."
)
NEEDED = "two people, a sheet of paper, a pen, a drink, a handkerchief, a clear plastic sleeve"


@dataclass(frozen=True)
class Expected:
    """What has to be observed in a staged step; `side` as the sitting person sees it, None where there is none."""

    kind: str
    side: Side | None = None


@dataclass(frozen=True)
class Step:
    """One behaviour: `say` is read aloud to whoever sits; `expected` None for an innocent one.

    `seconds` is how long it is acted, `ready_s` how long before that it is announced.
    """

    number: int
    title: str
    say: str
    seconds: float
    expected: Expected | None = None
    ready_s: float = READY_S


# Observed in exams, but nobody can act a camera that repeats its picture.
NOT_STAGED = ("picture_frozen",)

# Staged times: the rule's dwell (inference/rules.py), up to 10 s in which a face that was lost counts neither way, and
# what a person needs to do it. Innocent times: longer than any dwell, so that a rule has the chance to be wrong.
SCRIPT: tuple[Step, ...] = (
    Step(1, "reads own paper", "Read your sheet of paper, flat on the desk before you.", 40),
    Step(
        2,
        "turns the head left",
        "Turn your head far to YOUR LEFT, as if to somebody beside you, and stay so until you are told to come back.",
        12,
        Expected("head_turned_away", "left"),
    ),
    Step(3, "writes", "Write on your sheet of paper, as you would in an exam.", 40),
    Step(
        4,
        "turns the head right",
        "Turn your head far to YOUR RIGHT, as if to somebody beside you, and stay so until you are told to come back.",
        12,
        Expected("head_turned_away", "right"),
    ),
    Step(5, "drinks", "Take up your drink, drink two sips, and put it down again.", 15),
    Step(
        6,
        "looks left",
        "Keep your head still, facing the screen. Turn ONLY YOUR EYES as far to YOUR LEFT as you can, and keep them "
        "there.",
        12,
        Expected("gaze_outside_work_area", "left"),
    ),
    Step(7, "rubs eyes and nose", "Rub both eyes, scratch your nose, push your hair or glasses back.", 12),
    Step(
        8,
        "looks right",
        "Keep your head still, facing the screen. Turn ONLY YOUR EYES as far to YOUR RIGHT as you can, and keep them "
        "there.",
        12,
        Expected("gaze_outside_work_area", "right"),
    ),
    Step(
        9,
        "looks at the clock",
        "Turn to a clock on the wall for two seconds, then look at the screen again.",
        12,
    ),
    Step(
        10,
        "looks up",
        "Turn your eyes up to the ceiling as far as you can, and keep them there. Your head may rise with them.",
        12,
        Expected("gaze_outside_work_area", "up"),
    ),
    Step(
        11,
        "thinks with eyes up",
        "Look up for two seconds, as if you were thinking, then at the screen again. Do it twice.",
        15,
    ),
    Step(
        12,
        "leaves the seat",
        "Face the screen, rise without bending forward, leave the seat, and stay away until you are told to come back.",
        48,
        Expected("nobody_at_desk"),
    ),
    Step(13, "leans back", "Lean back with your arms crossed and look at the screen.", 20),
    Step(
        14,
        "moves out of the picture",
        "Face the screen and roll or push your chair aside until you are out of the picture. Stay there until you are "
        "told to come back.",
        40,
        Expected("nobody_at_desk"),
    ),
    Step(15, "rests the head on a hand", "Rest your cheek on your hand and read from the screen.", 30),
    Step(
        16,
        "second person beside",
        "Go on working. The second person sits or stands beside you, near enough to be in the picture, and faces the "
        "camera.",
        20,
        Expected("several_people"),
        ready_s=20,
    ),
    Step(
        17,
        "neighbour walks past",
        "Go on working. The second person walks past behind you once, at an ordinary pace, without stopping.",
        20,
    ),
    Step(
        18,
        "second person behind",
        "Go on working. The second person stands behind you, looks over your shoulder at the screen, and stays.",
        20,
        Expected("several_people"),
        ready_s=16,
    ),
    Step(19, "bends for a pen", "Drop your pen on the floor, bend down, pick it up, and go on working.", 15),
    Step(
        20,
        "hand before the lens",
        "Lay a hand flat on the camera's lens, and keep it there until you are told to take it away.",
        12,
        Expected("camera_covered"),
    ),
    Step(21, "sneezes", "Sneeze, or act it, into your handkerchief, and blow your nose.", 12),
    Step(
        22,
        "plastic before the lens",
        "Hold the clear plastic sleeve, crumpled, two finger-widths before the lens, so that the picture blurs.",
        25,
        Expected("camera_blurred"),
        ready_s=20,
    ),
    Step(
        23, "stretches", "Stretch both arms up, lean your head back for two seconds, and go on working.", 12
    ),
    # Last, since directions are against the camera.
    Step(
        24,
        "turns the camera",
        "Turn the camera aside by a quarter of its picture, let it stand, and turn it back when you are told.",
        12,
        Expected("camera_moved"),
    ),
)


def duration_s(steps: tuple[Step, ...]) -> float:
    """Practice, steps and the last seconds; what has to be waited for is not in it."""
    return PRACTICE_S + sum(step.ready_s + step.seconds for step in steps) + SETTLE_S


def chosen(script: tuple[Step, ...], numbers: str | None) -> tuple[Step, ...]:
    """The steps that "3,7" names, in the script's order; all for None. Raises BadInput."""
    if numbers is None:
        return script
    known = {str(step.number): step for step in script}
    wanted = [each.strip() for each in numbers.split(",")]
    unknown = [each for each in wanted if each not in known]
    if unknown:
        raise BadInput(
            f"there is no step {unknown[0] or '(nothing)'}",
            f"give numbers from 1 to {len(script)} with commas between them, as in --steps 3,7",
        )
    return tuple(step for number, step in known.items() if number in wanted)
