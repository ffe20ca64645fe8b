"""Decoding of the detector's raw output and the count of people."""

import numpy as np
import pytest

from appliance.inference.face import GRID, Face, decode, overlap
from appliance.inference.tracker import count_people


def raw(*faces: tuple[int, int, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Raw outputs with a face at each (column, row, side in pixels, logit)."""
    boxes = np.zeros((GRID * GRID, 16), np.float32)
    logits = np.full(GRID * GRID, -20.0, np.float32)
    for column, row, side, logit in faces:
        boxes[row * GRID + column, 2:4] = side
        logits[row * GRID + column] = logit
    return boxes, logits


def read(*faces: tuple[int, int, float, float], scale: float = 1.0, threshold: float = 0.5) -> list[Face]:
    boxes, logits = raw(*faces)
    return decode(boxes, logits, np.zeros(2, np.float32), np.float32(scale), threshold)


def face(confidence: float) -> Face:
    return Face(0.0, 0.0, 10.0, 10.0, np.zeros((6, 2), np.float32), confidence)


def test_box_lies_round_the_centre_of_its_cell() -> None:
    (found,) = read((10, 20, 40.0, 5.0))
    assert (found.left, found.right) == (10.5 * 4 - 20, 10.5 * 4 + 20)
    assert (found.top, found.bottom) == (20.5 * 4 - 20, 20.5 * 4 + 20)


def test_border_and_scale_are_taken_out() -> None:
    boxes, logits = raw((24, 24, 30.0, 5.0))
    (found,) = decode(boxes, logits, np.array([0, 42], np.float32), np.float32(640 / 192), 0.5)
    assert found.top == pytest.approx((98 - 42 - 15) * 640 / 192)
    assert found.size == pytest.approx(100.0)


def test_neighbouring_cells_are_one_face() -> None:
    assert len(read((10, 20, 40.0, 5.0), (11, 20, 42.0, 4.0), (10, 21, 39.0, 3.0))) == 1


def test_faces_apart_are_two() -> None:
    found = read((10, 20, 30.0, 5.0), (35, 20, 40.0, 4.0))
    assert [round(one.size) for one in found] == [40, 30]


def test_faint_answer_is_no_face() -> None:
    assert read((10, 20, 40.0, -0.3)) == []
    assert len(read((10, 20, 40.0, 0.3))) == 1


def test_extreme_logits_do_not_overflow() -> None:
    assert read((10, 20, 40.0, 1e6))[0].confidence == 1.0


def test_sure_faces_are_people_and_unsure_ones_only_where_the_points_agree() -> None:
    """F043: a poster or pattern seldom gets past the threshold; a lone faint face is still somebody."""
    inside, outside = np.full((468, 3), 5, np.float32), np.full((468, 3), 50, np.float32)
    assert count_people([], None) == 0
    assert count_people([face(0.6)], None) == 0
    assert count_people([face(0.6)], inside) == 1
    assert count_people([face(0.9)], inside) == 1
    assert count_people([face(0.9)], outside) == 2
    assert count_people([face(0.9), face(0.6)], inside) == 1
    assert count_people([face(0.9), face(0.8), face(0.75)], inside) == 3
    assert count_people([], inside) == 1


def test_overlap_of_boxes() -> None:
    one = np.array([0, 0, 10, 10], np.float32)
    assert overlap(one, one) == 1.0
    assert overlap(one, one + np.float32(10)) == 0.0
    assert overlap(one, np.array([0, 5, 10, 15], np.float32)) == np.float32(50 / 150)
