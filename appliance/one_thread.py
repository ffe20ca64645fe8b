"""Keeps OpenCV on the thread that calls it."""

from __future__ import annotations

import cv2


def stay_in_one_thread() -> None:
    """For the whole process: OpenCV's pool waits actively, which costs more than it helps (camera: 3.5 ms a second)."""
    cv2.setNumThreads(1)
