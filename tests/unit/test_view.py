"""Whether the camera stands where it stood, and whether its picture is live: drawn desks, light, people and knocks."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import pytest

from appliance.inference.models import Models, load_models
from appliance.inference.observations import ObservationPolicy
from appliance.inference.signals import Signals
from appliance.inference.view import GIVEN_UP_LOOKS, SETTLED_LOOKS, CameraView, Stand
from appliance.inference.watch import Watch
from tests.scenes import Image, covered, dimmed, filmed

WIDTH_PX, HEIGHT_PX = 640, 360
FACE = (280.0, 120.0, 360.0, 220.0)


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models(gaze=False)


def room(seed: int = 1) -> Image:
    """A wall with a shelf of things, wider and higher than the picture."""
    numbers = np.random.default_rng(seed)
    wall = np.full((720, 1280, 3), 150, np.uint8)
    for _ in range(160):
        x, y = int(numbers.integers(0, 1240)), int(numbers.integers(0, 690))
        size = (int(numbers.integers(15, 90)), int(numbers.integers(15, 90)))
        colour = tuple(int(value) for value in numbers.integers(40, 240, 3))
        cv2.rectangle(wall, (x, y), (x + size[0], y + size[1]), colour, -1)
    return wall


ROOM = room()


def shot(right_px: int = 0, down_px: int = 0, roll_deg: float = 0.0, of: Image = ROOM) -> Image:
    """The camera's picture of it."""
    if roll_deg:
        way = cv2.getRotationMatrix2D((640, 360), roll_deg, 1.0)
        of = np.asarray(cv2.warpAffine(of, way, (1280, 720), borderMode=cv2.BORDER_REFLECT), np.uint8)
    return of[180 + down_px : 540 + down_px, 320 + right_px : 960 + right_px]


def with_person(picture: Image, across_px: int = 0, size: float = 1.0) -> Image:
    """Head and shoulders before it."""
    whole = picture.copy()
    middle = 320 + across_px
    cv2.ellipse(whole, (middle, 360), (round(150 * size), round(110 * size)), 0, 0, 360, (60, 40, 30), -1)
    cv2.ellipse(whole, (middle, 170), (round(50 * size), round(70 * size)), 0, 0, 360, (150, 170, 205), -1)
    return whole


def looks(pictures: Iterable[Image], face: tuple[float, float, float, float] | None = None) -> list[Stand]:
    view = CameraView()
    return [view.look(filmed(picture), face) for picture in pictures]


def moved(stands: Iterable[Stand]) -> list[bool | None]:
    return [stand.moved for stand in stands]


BEFORE = [shot()] * 6


@pytest.mark.parametrize(
    "after",
    [shot(64), shot(-128), shot(256), shot(0, 72), shot(0, 0, 12.0), shot(100, 40, 5.0), shot(of=room(2))],
    ids=["right a tenth", "left a fifth", "right two fifths", "down a fifth", "rolled", "knocked", "turned round"],
)  # fmt: skip
def test_a_camera_that_was_moved_is_noticed_with_the_second_look(after: Image) -> None:
    told = looks([*BEFORE, after, after, after])
    assert moved(told[1:6]) == [False] * 5
    assert moved(told[7:]) == [True, True]
    assert told[7].in_place_percent is not None
    assert told[7].in_place_percent < 50


INNOCENT = {
    "sits still": [shot()] * 10,
    "light goes and comes": [dimmed(shot(), light) for light in (0.45, 0.45, 1.0, 0.7, 0.3, 1.0)],
    "too bright": [np.clip(shot() * 1.8, 0, 255).astype(np.uint8)] * 6,
    "light from one side": [np.clip(shot() * np.linspace(0.4, 1.5, 640)[:, None], 0, 255).astype(np.uint8)] * 6,
    "somebody comes": [with_person(shot(), 400 - 80 * step) for step in range(8)],
    "somebody leans to and fro": [with_person(shot(), 60 * (-1) ** step, 1.0 + 0.1 * step) for step in range(8)],
    "a shake of 4 pixels": [shot(4 * (-1) ** step) for step in range(8)],
}  # fmt: skip


@pytest.mark.parametrize("what", INNOCENT)
def test_people_and_light_move_no_camera(what: str) -> None:
    assert True not in moved(looks([*BEFORE, *INNOCENT[what]]))


def test_somebody_who_sat_there_from_the_beginning_leaves() -> None:
    """What the person hid is not expected to stand as it stood."""
    view = CameraView()
    told = [view.look(filmed(with_person(shot())), FACE) for _ in range(6)]
    told += [view.look(filmed(shot()), None) for _ in range(6)]
    assert moved(told[1:]) == [False] * 11


def test_three_quarters_hidden_are_not_a_moved_camera() -> None:
    hidden = shot().copy()
    hidden[:, 80:560] = shot(of=room(3))[:, 80:560]
    assert True not in moved(looks([*BEFORE, *[hidden] * 8, *BEFORE]))


def test_a_plain_wall_tells_nothing() -> None:
    """Unassessable, not "stands"."""
    plain = np.full((HEIGHT_PX, WIDTH_PX, 3), 140, np.uint8)
    assert set(moved(looks([with_person(plain)] * 5, FACE))) == {None}


def test_the_new_place_becomes_the_usual_one_and_the_old_one_a_movement() -> None:
    told = moved(looks([*BEFORE, *[shot(200)] * (SETTLED_LOOKS + 6), *[shot()] * 3]))
    there, back = told[len(BEFORE) : -3], told[-3:]
    assert there[1 : SETTLED_LOOKS - 1] == [True] * (SETTLED_LOOKS - 2)
    assert there[-4:] == [False] * 4
    assert back[1:] == [True] * 2


def test_a_camera_that_is_put_back_at_once_stands_as_before() -> None:
    told = moved(looks([*BEFORE, *[shot(200)] * 3, *[shot()] * 3]))
    assert told[7:9] == [True, True]
    assert told[9:] == [False] * 3


def test_a_view_that_is_never_the_usual_one_again_is_taken_as_it_is() -> None:
    """Something with edges stays before the lens: untold for half a minute, then it is the view."""
    hidden = shot().copy()
    hidden[:, 60:580] = shot(of=room(3))[:, 60:580]
    told = moved(looks([*BEFORE, *[hidden] * (GIVEN_UP_LOOKS + 4)]))
    assert set(told[6 : 6 + GIVEN_UP_LOOKS]) == {None}
    assert told[-1] is False


# --- frozen -----------------------------------------------------------------------------------------------------------


def watched(models: Models, pictures: Iterable[Image], rate_hz: float = 5.0) -> list[Signals]:
    watch = Watch(models)
    return [watch.process(picture, round((100 + n / rate_hz) * 1e9)) for n, picture in enumerate(pictures)]


@pytest.mark.parametrize("rate_hz", [5.0, 15.0])
def test_a_hanging_camera_is_observed_within_three_seconds_and_as_nothing_else(
    models: Models, rate_hz: float
) -> None:
    """F041: twelve seconds of the same empty picture are no absence; the live ones before and after are none yet."""
    live, stuck = [filmed(shot()) for _ in range(round(3 * rate_hz))], [filmed(shot())] * round(12 * rate_hz)
    signals = watched(models, [*live, *stuck, *live], rate_hz)
    policy = ObservationPolicy()
    events = [(each, taken.taken_mono_ns) for taken in signals for each in policy.process(taken)]
    assert [(event.kind, event.phase) for event, _ in events] == [
        ("picture_frozen", "opened"), ("picture_frozen", "closed"),
    ]  # fmt: skip
    assert 0 < events[0][1] / 1e9 - 103 <= 3.0
    assert events[1][0].duration_s == pytest.approx(12, abs=1.1)
    assert {signals.faces for signals in signals if signals.quality == "frozen"} == {0}
    assert not any(signals.assessable for signals in signals if signals.quality == "frozen")


@pytest.mark.parametrize("noise", [0.5, 1.5])
def test_a_still_scene_is_live(models: Models, noise: float) -> None:
    """Control: nobody moves, the sensor's noise does; also in a fifth of the light."""
    for light in (1.0, 0.2):
        told = watched(models, [filmed(dimmed(shot(), light), noise) for _ in range(20)])
        assert "frozen" not in {signals.quality for signals in told}


def test_a_stutter_of_a_second_is_no_frozen_picture(models: Models) -> None:
    live, stuck = [filmed(shot()) for _ in range(20)], [filmed(shot())] * 5
    policy = ObservationPolicy()
    assert [e for s in watched(models, [*live, *stuck, *live]) for e in policy.process(s)] == []


def test_a_covered_lens_is_covered_and_not_frozen(models: Models) -> None:
    """As for the certificate: what carries no picture carries no noise either."""
    hand = covered(shot())
    told = watched(models, [*[filmed(shot()) for _ in range(6)], *[hand] * 15])
    assert {signals.quality for signals in told[10:]} == {"covered"}


@pytest.mark.parametrize("rate_hz", [5.0, 15.0])
def test_from_the_cover_to_the_observation_three_seconds_pass_at_most(models: Models, rate_hz: float) -> None:
    """Through the node's own reading of pictures; control: a hand that passes for a second raises nothing."""
    before, hand = round(2.2 * rate_hz), covered(shot())
    for seconds in (4.0, 1.0):
        pictures = [shot()] * before + [hand] * round(seconds * rate_hz) + [shot()] * round(2 * rate_hz)
        policy, said = ObservationPolicy(), []
        for number, signals in enumerate(watched(models, map(filmed, pictures), rate_hz)):
            said += [(event.kind, (number - before) / rate_hz) for event in policy.process(signals)]
        if seconds > 3:
            assert said[0][0] == "camera_covered"
            assert 2.0 < said[0][1] <= 3.0
        else:
            assert said == []


def test_frames_after_a_hole_say_nothing_of_each_other(models: Models) -> None:
    """The process was away for a minute; one and the same picture before and after is no proof."""
    watch, picture = Watch(models), filmed(shot())
    assert watch.process(picture, 10**9).quality == "good"
    assert watch.process(picture, 61 * 10**9).quality == "good"
    assert watch.process(picture, 62 * 10**9).quality == "frozen"
