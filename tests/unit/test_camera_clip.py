"""The clip that plays like a camera: at its rate, without jitter, for ever, and losing frames when nobody reads."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import pytest

from appliance.camera.source import open_source
from appliance.errors import CameraUnavailable
from tests.grey_clip import CLIP_FRAMES, clip, grey_number, playing, read_numbers
from tests.manual_clock import ManualClock

__all__ = ["clip"]


def test_clip_plays_at_its_own_rate_and_for_ever(clip: Path) -> None:
    assert read_numbers(playing(clip, 0), 45) == [k % CLIP_FRAMES for k in range(45)]


def test_clip_times_are_jitter_free_and_run_on_over_the_loop(clip: Path) -> None:
    source = playing(clip, 15)
    frames = [source.read(1.0) for _ in range(50)]
    steps = {later.taken_mono_ns - earlier.taken_mono_ns for earlier, later in pairwise(frames)}
    assert steps <= {66_666_666, 66_666_667}
    assert [frame.sequence for frame in frames] == list(range(1, 51))
    assert source.dropped_frames == 0


def test_clip_repeats_pictures_at_a_higher_rate_and_leaves_some_out_at_a_lower(clip: Path) -> None:
    assert read_numbers(playing(clip, 20), 8) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert read_numbers(playing(clip, 5), 12) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 0, 2]


def test_clip_begins_at_its_offset_and_loops_to_the_beginning(clip: Path) -> None:
    assert read_numbers(playing(clip, 10, start_s=1.8), 4) == [18, 19, 0, 1]


def test_slow_reader_loses_frames_as_with_a_camera(clip: Path) -> None:
    source = playing(clip, 10)
    assert grey_number(source.read(1.0)) == 0
    source.clock.advance(0.55)
    late = source.read(1.0)
    assert (grey_number(late), late.sequence) == (5, 6)
    assert source.dropped_frames == 4
    assert late.taken_mono_ns == 1_000_000_000 + 500_000_000


def test_clip_in_matroska_has_its_length_too(clip: Path, tmp_path: Path) -> None:
    again = tmp_path / "greys.mkv"
    with av.open(str(clip)) as film, av.open(str(again), "w") as copy:
        stream = copy.add_stream_from_template(film.streams.video[0])
        for packet in film.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    assert read_numbers(playing(again, 10, start_s=1.7), 5) == [17, 18, 19, 0, 1]


def test_after_an_hour_of_stall_the_clip_is_where_time_is(clip: Path) -> None:
    source = playing(clip, 10)
    source.read(1.0)
    source.clock.advance(3600.35)
    assert grey_number(source.read(1.0)) == 3


def test_read_gives_none_when_the_frame_is_not_due(clip: Path) -> None:
    source = playing(clip, 10)
    source.read(0.0)
    assert source.read(0.04) is None
    assert source.read(0.04) is None
    assert grey_number(source.read(0.04)) == 1


def test_clip_is_scaled_once_a_picture(clip: Path) -> None:
    source = playing(clip, 20, size=(128, 72))
    first, second = source.read(1.0), source.read(1.0)
    assert (first.width_px, first.height_px) == (128, 72)
    assert first.picture is second.picture


def test_clip_of_another_shape_gets_black_borders(clip: Path) -> None:
    image = playing(clip, 10, start_s=1.0, size=(64, 64)).read(1.0).bgr()
    assert image.shape == (64, 64, 3)
    assert image[:12].max() <= 2
    assert image[-12:].max() <= 2
    assert image[20:44].min() > 60


def test_a_closed_source_gives_no_frame(clip: Path) -> None:
    source = playing(clip, 10)
    seen = [frame.sequence for _ in range(3) if (frame := source.read(1.0)) is not None]
    source.close()
    assert seen == [1, 2, 3]
    with pytest.raises(CameraUnavailable):
        source.read(0.0)


def test_clip_spec_with_its_option(clip: Path) -> None:
    with open_source(f"clip:{clip}?start_s=0.5", 64, 36, 10, ManualClock()) as source:
        assert grey_number(source.read(0.0)) == 5
        assert source.description == "clip greys.mp4"
