"""A small JPEG of one frame for the room, made on request and kept in RAM only."""

from __future__ import annotations

import cv2

from appliance.camera.source import Frame


def preview_jpeg(frame: Frame, width_px: int = 320, quality: int = 70) -> bytes:
    """JPEG of `quality` 1..100, `width_px` wide, height in proportion (rounded to even)."""
    if width_px < 2 or not 1 <= quality <= 100:
        raise ValueError(f"width {width_px} or quality {quality} is out of range")
    height_px = max(2, round(frame.height_px * width_px / frame.width_px / 2) * 2)
    image = frame.bgr(width_px, height_px)
    done, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"JPEG of {width_px}x{height_px} failed")
    return jpeg.tobytes()
