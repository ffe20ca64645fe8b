"""A frame's colours and sides, and the small JPEG that the room sees of it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from appliance.camera.preview import preview_jpeg
from appliance.camera.source import Frame


def test_frame_from_bgr_keeps_colour_through_planes_and_back() -> None:
    image = np.zeros((36, 64, 3), np.uint8)
    image[:] = (200, 120, 40)
    frame = Frame.from_bgr(image, 1, 1)
    assert np.abs(frame.bgr().astype(int) - image).max() <= 4
    assert frame.bgr(32, 18).shape == (18, 32, 3)


def test_frame_with_odd_sides_is_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        Frame.from_bgr(np.zeros((35, 64, 3), np.uint8), 1, 1)


def test_preview_is_a_small_jpeg_in_proportion() -> None:
    image = np.zeros((720, 1280, 3), np.uint8)
    image[:, :640] = (0, 0, 255)
    frame = Frame.from_bgr(image, 1, 1)
    jpeg = preview_jpeg(frame)
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (180, 320, 3)
    assert shown[90, 80, 2] > 200
    assert shown[90, 240].max() < 30
    assert len(preview_jpeg(frame, 320, 20)) < len(jpeg) < 20_000


@pytest.mark.parametrize(("width_px", "quality"), [(0, 70), (320, 0), (320, 101)])
def test_preview_out_of_range_is_refused(width_px: int, quality: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        preview_jpeg(Frame.from_bgr(np.zeros((36, 64, 3), np.uint8), 1, 1), width_px, quality)
