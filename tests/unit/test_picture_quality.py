"""What a picture must be like to be judged: a desk drawn by the test, then spoiled."""

import cv2
import numpy as np
import pytest

from appliance.picture_quality import assess, visibility

WIDTH, HEIGHT = 640, 360


def desk() -> np.ndarray:
    """A wall, a table and some things with edges, in ordinary light with sensor noise."""
    picture = np.full((HEIGHT, WIDTH, 3), 130, np.uint8)
    picture[240:] = (60, 80, 110)
    cv2.rectangle(picture, (80, 60), (200, 180), (190, 200, 190), -1)
    cv2.circle(picture, (330, 170), 70, (150, 170, 205), -1)
    cv2.putText(picture, "EXAM", (420, 320), cv2.FONT_HERSHEY_SIMPLEX, 2, (230, 230, 230), 4)
    return picture


def spoiled(values: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0.0, 2.0, values.shape)
    return np.clip(values.astype(np.float32) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("light", [0.5, 1.0, 1.2])
def test_ordinary_light_is_good(light: float) -> None:
    assert assess(spoiled(desk() * light)) == "good"


@pytest.mark.parametrize("light", [0.2, 0.1, 0.05])
def test_dark_room_is_dark_and_not_covered(light: float) -> None:
    assert assess(spoiled(desk() * light)) == "dark"


def test_washed_out_picture_is_glare() -> None:
    assert assess(spoiled(desk() * 4.0)) == "glare"


def test_lens_out_of_focus_is_blur() -> None:
    assert assess(spoiled(cv2.GaussianBlur(desk(), (0, 0), WIDTH * 0.01))) == "blur"


def test_cap_on_the_lens_is_covered() -> None:
    """F035: a covered lens has its own name."""
    assert assess(spoiled(np.full((HEIGHT, WIDTH, 3), 4))) == "covered"


def test_hand_on_the_lens_is_covered() -> None:
    soft = cv2.GaussianBlur(desk().astype(np.float32), (0, 0), WIDTH * 0.15) * 0.3 + 60
    assert assess(spoiled(soft)) == "covered"


@pytest.mark.parametrize("noise", [0.0, 2.0, 5.0, 8.0])
def test_hand_on_the_lens_is_covered_however_noisy_the_sensor(noise: float) -> None:
    """The camera answers it with gain. Control: what is as fine as noise and does not change stays visible."""
    soft = cv2.GaussianBlur(desk().astype(np.float32), (0, 0), WIDTH * 0.15) * 0.3 + 60
    grains = np.random.default_rng(2).normal(0.0, noise, (HEIGHT, WIDTH, 1))
    assert assess(np.clip(soft + grains, 0, 255).astype(np.uint8)) == "covered"
    rows, columns = np.indices((HEIGHT, WIDTH)) // 8
    tiles = np.repeat(np.where((rows + columns) % 2, 150, 100)[..., None], 3, axis=2)
    assert assess(np.clip(tiles + grains, 0, 255).astype(np.uint8)) == "good"


def test_bright_window_beside_a_well_lit_face_does_not_matter() -> None:
    picture = desk()
    picture[:, 400:] = 255
    assert assess(spoiled(picture)) == "glare"
    assert assess(spoiled(picture), (260, 100, 400, 240)) == "good"


def test_face_in_the_shade_is_dark_however_bright_the_room() -> None:
    picture = desk()
    picture[80:260, 240:420] = picture[80:260, 240:420] // 8
    assert assess(spoiled(picture)) == "good"
    assert assess(spoiled(picture), (260, 100, 400, 240)) == "dark"


def test_a_face_that_was_found_may_be_darker_than_a_room_in_which_none_was() -> None:
    """So that skin of every tone is read in the same light; "nobody" takes more of it."""
    dim = spoiled(desk() * 0.25)
    assert assess(dim, (260, 100, 400, 240)) == "good"
    assert assess(dim) == "dark"


def test_face_partly_outside_the_picture_is_assessed_by_what_is_there() -> None:
    assert assess(spoiled(desk()), (-50, -20, 90, 120)) == "good"
    assert assess(spoiled(desk()), (700, 400, 800, 500)) == "good"


def grey(values: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(spoiled(values), cv2.COLOR_BGR2GRAY)


@pytest.mark.parametrize("light", [1.2, 1.0, 0.5, 0.2, 0.05])
def test_a_room_is_visible_in_whatever_light(light: float) -> None:
    assert visibility(grey(desk() * light)) == "clear"
    assert visibility(grey(cv2.GaussianBlur(desk() * light, (0, 0), WIDTH * 0.01))) == "clear"


def test_nothing_visible_is_black_and_no_edge_is_covered() -> None:
    soft = cv2.GaussianBlur(desk().astype(np.float32), (0, 0), WIDTH * 0.15)
    assert visibility(grey(np.full((HEIGHT, WIDTH, 3), 4))) == "black"
    for hand in (soft * 0.3 + 60, soft * 0.8, soft * 0.1 + 20):
        assert visibility(grey(hand)) == "covered"
    assert visibility(np.full((HEIGHT, WIDTH), 255, np.uint8)) == "covered"


def test_a_hand_in_the_dark_is_covered_for_the_models_too() -> None:
    soft = cv2.GaussianBlur(desk().astype(np.float32), (0, 0), WIDTH * 0.15)
    assert assess(spoiled(soft * 0.1 + 20)) == "covered"
