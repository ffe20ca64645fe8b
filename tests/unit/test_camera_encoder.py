"""Fragments: box structure, session times, joining after a crash, determinism."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from appliance.camera import encoder as encoder_module
from appliance.camera.encoder import Fragment, FragmentEncoder
from appliance.camera.source import Frame
from appliance.errors import BadConfig

WIDTH_PX, HEIGHT_PX = 320, 180
PERIOD_90K = 6000
CONTAINERS = {b"moov", b"trak", b"mdia", b"moof", b"traf"}


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, body) of each box, containers opened."""
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + size]
        yield kind, body
        if kind in CONTAINERS:
            yield from boxes(body)
        at += size


def top_level(data: bytes) -> list[bytes]:
    kinds, at = [], 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        kinds.append(kind)
        at += size
    assert at == len(data)
    return kinds


def tfdt(data: bytes) -> int:
    body = next(body for kind, body in boxes(data) if kind == b"tfdt")
    return int.from_bytes(body[4:12] if body[0] else body[4:8], "big")


def frame(number: int) -> Frame:
    image = np.full((HEIGHT_PX, WIDTH_PX, 3), number * 7 % 256, np.uint8)
    image[:, number % WIDTH_PX] = 255
    return Frame.from_bgr(image, taken_mono_ns=number, sequence=number + 1)


def encode_at(encoder: FragmentEncoder, times_90k: list[int]) -> list[Fragment]:
    pieces = [piece for number, at in enumerate(times_90k) for piece in encoder.encode(frame(number), at)]
    return pieces + encoder.flush()


def encode(start_90k: int, frames: int, **settings: object) -> list[Fragment]:
    encoder = FragmentEncoder(WIDTH_PX, HEIGHT_PX, bitrate_bps=300_000, start_90k=start_90k, **settings)
    return encode_at(encoder, [start_90k + number * PERIOD_90K for number in range(frames)])


def decoded_pts(pieces: list[Fragment]) -> list[int]:
    with av.open(io.BytesIO(b"".join(piece.data for piece in pieces))) as film:
        stream = film.streams.video[0]
        assert stream.time_base == Fraction(1, 90_000)
        return [picture.pts for picture in film.decode(stream)]


def test_init_comes_first_then_each_fragment_is_one_moof_and_one_mdat() -> None:
    init, *fragments = encode(0, 75)
    assert init.kind == "init"
    assert top_level(init.data) == [b"ftyp", b"moov"]
    assert [top_level(piece.data) for piece in fragments] == [[b"moof", b"mdat"]] * 3
    assert [(piece.time_90k, piece.duration_90k, piece.frames) for piece in fragments] == [
        (0, 180_000, 30),
        (180_000, 180_000, 30),
        (360_000, 90_000, 15),
    ]
    assert all(piece.key_frame for piece in fragments)


def test_init_is_given_with_the_first_frame_and_a_fragment_with_the_next_key_frame() -> None:
    encoder = FragmentEncoder(WIDTH_PX, HEIGHT_PX)
    assert encoder.codec == ""
    given = [[piece.kind for piece in encoder.encode(frame(k), k * PERIOD_90K)] for k in range(31)]
    assert given[0] == ["init"]
    assert given[1:30] == [[]] * 29
    assert given[30] == ["fragment"]
    assert encoder.codec.startswith("avc1.42c0")


def test_tfdt_is_session_time_also_after_a_restart_at_754_s() -> None:
    _, *fragments = encode(754 * 90_000, 75)
    assert [tfdt(piece.data) for piece in fragments] == [piece.time_90k for piece in fragments]
    assert fragments[0].time_90k == 67_860_000


def test_tfdt_beyond_13_hours_needs_64_bits() -> None:
    _, *fragments = encode(2**32 + 12_345, 31)
    assert [tfdt(piece.data) for piece in fragments] == [2**32 + 12_345, 2**32 + 12_345 + 180_000]


def test_fragments_of_three_encoders_join_to_one_film_that_shows_the_gaps() -> None:
    runs = [encode(0, 45), encode(5 * 90_000, 40), encode(754 * 90_000, 31)]
    assert runs[0][0].data == runs[1][0].data == runs[2][0].data
    film = [runs[0][0], *(piece for run in runs for piece in run[1:])]
    expected = [k * PERIOD_90K for k in range(45)]
    expected += [450_000 + k * PERIOD_90K for k in range(40)]
    expected += [67_860_000 + k * PERIOD_90K for k in range(31)]
    assert decoded_pts(film) == expected


def test_each_fragment_decodes_alone_behind_the_init() -> None:
    init, *fragments = encode(0, 75)
    assert [len(decoded_pts([init, piece])) for piece in fragments] == [30, 30, 15]


def test_a_fragment_lost_in_the_middle_shifts_nothing() -> None:
    init, first, _, third = encode(0, 75)
    assert decoded_pts([init, first, third]) == [k * PERIOD_90K for k in [*range(30), *range(60, 75)]]


def test_jittered_times_are_kept_and_fragments_cover_the_time_without_overlap() -> None:
    times = [k * PERIOD_90K + (k * 1237) % 900 for k in range(95)]
    encoder = FragmentEncoder(WIDTH_PX, HEIGHT_PX)
    init, *fragments = encode_at(encoder, times)
    assert decoded_pts([init, *fragments]) == times
    for piece, following in pairwise(fragments):
        assert piece.time_90k + piece.duration_90k == following.time_90k


def test_a_silent_camera_ends_the_fragment_so_that_no_duration_covers_the_gap() -> None:
    times = [k * PERIOD_90K for k in range(10)] + [150_000 + k * PERIOD_90K for k in range(10)]
    init, first, second = encode_at(FragmentEncoder(WIDTH_PX, HEIGHT_PX), times)
    assert (first.time_90k, first.duration_90k) == (0, 60_000)
    assert second.time_90k == 150_000
    assert decoded_pts([init, first, second]) == times


def test_equal_settings_give_equal_inits_and_no_encoder_version() -> None:
    first, second = encode(0, 31), encode(900_000, 31)
    assert first[0].data == second[0].data
    assert all(b"x264" not in piece.data and b"Lavf" not in piece.data for piece in first)


def test_init_holds_no_creation_time() -> None:
    init = encode(0, 1)[0]
    body = next(body for kind, body in boxes(init.data) if kind == b"mdhd")
    assert struct.unpack_from(">IIII", body) == (0, 0, 0, 90_000)


def test_there_are_no_b_frames_and_one_key_frame_a_fragment() -> None:
    with av.open(io.BytesIO(b"".join(piece.data for piece in encode(0, 75)))) as film:
        packets = [packet for packet in film.demux(video=0) if packet.pts is not None]
    assert all(packet.pts == packet.dts for packet in packets)
    assert [packet.pts for packet in packets if packet.is_keyframe] == [0, 180_000, 360_000]


def test_an_encoder_whose_headers_come_with_the_first_key_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Pi's h264_v4l2m2m works like this; x264 with local headers shows that the muxer copes."""
    ours = encoder_module._ENCODERS["libx264"]
    params = ours.options["x264-params"] + ":repeat-headers=1"
    late = encoder_module._Encoder({**ours.options, "x264-params": params}, late_header=True)
    monkeypatch.setitem(encoder_module._ENCODERS, "libx264", late)
    init, *fragments = encode(754 * 90_000, 45)
    assert top_level(init.data) == [b"ftyp", b"moov"]
    assert [tfdt(piece.data) for piece in fragments] == [67_860_000, 68_040_000]
    assert decoded_pts([init, *fragments]) == [67_860_000 + k * PERIOD_90K for k in range(45)]


def test_a_frame_of_another_size_is_scaled() -> None:
    encoder = FragmentEncoder(WIDTH_PX, HEIGHT_PX)
    large = Frame.from_bgr(np.zeros((360, 640, 3), np.uint8), 0, 1)
    pieces = encoder.encode(large, 0) + encoder.flush()
    with av.open(io.BytesIO(b"".join(piece.data for piece in pieces))) as film:
        picture = next(film.decode(video=0))
    assert (picture.width, picture.height) == (WIDTH_PX, HEIGHT_PX)


@pytest.mark.parametrize(("first", "second"), [(100, 100), (100, 99)])
def test_time_that_does_not_advance_is_refused(first: int, second: int) -> None:
    encoder = FragmentEncoder(WIDTH_PX, HEIGHT_PX)
    encoder.encode(frame(0), first)
    with pytest.raises(ValueError, match="does not come after"):
        encoder.encode(frame(1), second)


def test_time_before_the_start_is_refused() -> None:
    with pytest.raises(ValueError, match="does not come after"):
        FragmentEncoder(WIDTH_PX, HEIGHT_PX, start_90k=90_000).encode(frame(0), 89_999)


def test_flush_without_a_frame_and_a_second_flush_give_nothing() -> None:
    encoder = FragmentEncoder(WIDTH_PX, HEIGHT_PX)
    assert encoder.flush() == []
    assert encoder.flush() == []


@pytest.mark.parametrize("name", ["h264_v4l2m2m", "mpeg2video"])
def test_an_encoder_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(BadConfig, match=name) as caught:
        FragmentEncoder(WIDTH_PX, HEIGHT_PX, encoder=name)
    assert "libx264" in caught.value.hint


def noise_bps(bitrate_bps: int) -> float:
    noise = np.random.default_rng(1)
    encoder = FragmentEncoder(WIDTH_PX, HEIGHT_PX, bitrate_bps=bitrate_bps)
    pieces = []
    for number in range(90):
        image = noise.integers(0, 256, (HEIGHT_PX, WIDTH_PX, 3), np.uint8)
        pieces += encoder.encode(Frame.from_bgr(image, 0, number + 1), number * PERIOD_90K)
    return sum(len(piece.data) for piece in pieces + encoder.flush()) * 8 / 6


def test_bitrate_stays_under_its_cap_on_noise() -> None:
    """Space is reserved before an exam: noise may not outgrow it. Control: under a higher cap it does."""
    assert noise_bps(400_000) < 400_000 * 1.25
    assert noise_bps(4_000_000) > 400_000 * 1.25
