"""Specs: what cannot be opened is named with a hint, and only the chosen back end is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from appliance.camera.source import open_source
from appliance.errors import BadInput, CameraUnavailable
from tests.grey_clip import clip
from tests.manual_clock import ManualClock

__all__ = ["clip"]


@pytest.mark.parametrize(
    "spec",
    [
        *(
            "",
            "clip:",
            "webcam",
            "v4l2:",
            "v4l2:video0",
            "picamera2:",
            "picamera2:x",
            "gstreamer:-1",
            "rtsp://x",
        ),
        *("clip:/x.mp4?start_s=-1", "clip:/x.mp4?start_s=nan", "clip:/x.mp4?speed=2", "clip:/x.mp4?start_s"),
    ],
)
def test_bad_spec_is_refused_with_a_hint(spec: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_source(spec, 64, 36, 15, ManualClock())
    assert caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("width_px", "height_px", "rate_hz"), [(63, 36, 15), (0, 36, 15), (64, 36, -1)])
def test_bad_size_or_rate_is_refused(width_px: int, height_px: int, rate_hz: float) -> None:
    with pytest.raises(BadInput):
        open_source("clip:/x.mp4", width_px, height_px, rate_hz, ManualClock())


def test_a_camera_needs_a_rate() -> None:
    with pytest.raises(BadInput, match="frame rate"):
        open_source("picamera2:0", 64, 36, 0, ManualClock())


def test_unreadable_clips_are_named(tmp_path: Path, clip: Path) -> None:
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(b"no film" * 100)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:300])
    for path in (tmp_path / "none.mp4", tmp_path, noise, cut):
        with pytest.raises(BadInput, match="cannot be read") as caught:
            open_source(f"clip:{path}", 64, 36, 15, ManualClock()).open()
        assert caught.value.hint


def test_offset_behind_the_end_is_refused(clip: Path) -> None:
    with pytest.raises(BadInput, match=r"only 2\.0 s long"):
        open_source(f"clip:{clip}?start_s=2", 64, 36, 15, ManualClock()).open()


@pytest.mark.parametrize("spec", ["v4l2:/dev/video97", "/dev/video97", "picamera2:0", "gstreamer:0"])
def test_absent_camera_is_named(spec: str) -> None:
    with pytest.raises(CameraUnavailable) as caught:
        open_source(spec, 64, 36, 15, ManualClock()).open()
    assert caught.value.hint


def test_only_the_chosen_back_end_is_imported() -> None:
    script = (
        "import sys; from appliance.camera.source import open_source; "
        "from appliance.clock import SystemClock; "
        "open_source('clip:/x.mp4', 64, 36, 15, SystemClock()); "
        "assert not {'cv2', 'picamera2', 'gpiozero', 'appliance.camera.v4l2'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
