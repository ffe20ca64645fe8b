"""Frames to H.264 in fragmented MP4, in memory: one init, then self-contained 2 s fragments in session time.

Fragments of several encoders of equal settings join behind one init; time that none covers shows as a gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import PictureType
from av.video.stream import VideoStream

from appliance.camera.source import Frame
from appliance.errors import BadConfig
from appliance.timecode import TICKS_PER_S

# A longer silence ends the fragment, so that no fragment's duration covers time that was not filmed.
GAP_S = 0.5


@dataclass(frozen=True, slots=True)
class Fragment:
    """`init` is ftyp+moov; `fragment` is one moof and one mdat, beginning with a key frame at `time_90k`."""

    kind: Literal["init", "fragment"]
    data: bytes
    time_90k: int
    duration_90k: int
    key_frame: bool
    frames: int


@dataclass(frozen=True, slots=True)
class _Encoder:
    """libavcodec's options. `late_header`: SPS and PPS come with the first key frame, not before it."""

    options: dict[str, str]
    late_header: bool


_ENCODERS = {
    "libx264": _Encoder(
        {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "profile": "baseline",
            "forced-idr": "1",
            "x264-params": "keyint=infinite:scenecut=0:open-gop=0",
        },
        late_header=False,
    ),
    # The Pi 4's encoder. Its key frames are ours as well: the group is longer than any fragment.
    "h264_v4l2m2m": _Encoder({"g": "9999", "bf": "0"}, late_header=True),
}


class FragmentEncoder:
    """One H.264 stream, key frame first in each fragment of `fragment_s`; frames may come late or not at all.

    `start_90k` is the session time before which no frame is taken. Raises BadConfig for an encoder that this
    machine does not have. Time scale 90 kHz (RFC 6184 section 8.2.1).
    """

    def __init__(
        self,
        width_px: int,
        height_px: int,
        frame_rate_hz: float = 15,
        bitrate_bps: int = 1_200_000,
        fragment_s: float = 2.0,
        start_90k: int = 0,
        encoder: str = "libx264",
    ) -> None:
        if encoder not in _ENCODERS:
            raise BadConfig(f"unknown encoder: {encoder}", f"use one of {', '.join(_ENCODERS)}")
        self._size = (width_px, height_px)
        self._bitrate_bps = bitrate_bps
        self._period_90k = round(TICKS_PER_S / frame_rate_hz)
        # Half a period of tolerance keeps jitter from making every fragment one frame longer.
        self._fragment_90k = round(fragment_s * TICKS_PER_S) - self._period_90k // 2
        self._gap_90k = max(round(GAP_S * TICKS_PER_S), 3 * self._period_90k)
        self._last_90k = start_90k - 1
        self._key_90k: int | None = None
        self._sink = _Sink()
        self._held: Packet[VideoStream] | None = None
        self._span: _Span | None = None
        self._spans: deque[_Span] = deque()
        self._codec = ""
        self._closed = False
        traits = _ENCODERS[encoder]
        try:
            self._container, self._stream = _start(
                self._sink, encoder, traits, self._size, Fraction(frame_rate_hz), bitrate_bps
            )
        except (av.FFmpegError, av.codec.codec.UnknownCodecError) as error:
            raise BadConfig(
                f"encoder {encoder} does not work on this machine", "set the encoder to libx264"
            ) from error
        # x264 writes its version and settings into an SEI message (type 6), which is no evidence.
        self._strip_sei = BitStreamFilterContext("filter_units=remove_types=6", self._stream)

    def set_bitrate(self, bitrate_bps: int) -> None:
        """From the next fragment on. The init stays the one of the first bitrate, so the film stays one film.

        libx264 takes a new target while it encodes (libavcodec's `reconfig_encoder`); its peaks stay capped as before.
        """
        self._bitrate_bps = bitrate_bps

    @property
    def codec(self) -> str:
        """RFC 6381 name such as `avc1.42c01f`; empty until the init is out."""
        return self._codec

    def encode(self, frame: Frame, time_90k: int) -> list[Fragment]:
        """What became complete with the frame taken at session time `time_90k`.

        Raises ValueError unless that is later than the last one and not before `start_90k`.
        """
        if time_90k <= self._last_90k:
            raise ValueError(f"frame time {time_90k} does not come after {self._last_90k}")
        due = self._key_90k is None or time_90k - self._key_90k >= self._fragment_90k
        if due or time_90k - self._last_90k > self._gap_90k:
            self._key_90k = time_90k
            self._take_bitrate()
        self._last_90k = time_90k
        picture = frame.picture.reformat(*self._size, "yuv420p", threads=1)
        picture.pts = time_90k
        picture.time_base = Fraction(1, TICKS_PER_S)
        picture.pict_type = PictureType.I if self._key_90k == time_90k else PictureType.NONE
        for packet in self._stream.encode(picture):
            self._take(packet)
        return list(self._finished())

    def flush(self) -> list[Fragment]:
        """The last, shorter fragment; the encoder takes no frame after it."""
        if self._closed:
            return []
        self._closed = True
        if self._key_90k is not None:
            for packet in self._stream.encode(None):
                self._take(packet)
            self._mux_held(None)
        self._container.close()
        self._end_span()
        return list(self._finished()) if self._key_90k is not None else []

    def _take_bitrate(self) -> None:
        if self._stream.bit_rate != self._bitrate_bps:
            self._stream.bit_rate = self._bitrate_bps

    def _take(self, packet: Packet[VideoStream]) -> None:
        """A packet waits for the next, which tells its duration; a key frame ends a fragment at once."""
        for clean in self._strip_sei.filter(packet):
            if clean.pts is None:
                raise ValueError("the encoder gave a packet without a time")
            self._mux_held(clean.pts)
            clean.stream = self._stream
            clean.duration = self._period_90k
            if clean.is_keyframe:
                self._end_span()
                self._span = _Span(clean.pts)
                self._container.mux_one(clean)
            else:
                self._held = clean
            if self._span is not None:
                self._span.frames += 1
                self._span.last_90k = clean.pts
                self._span.end_90k = clean.pts + self._period_90k

    def _mux_held(self, next_90k: int | None) -> None:
        if (
            self._span is not None
            and next_90k is not None
            and next_90k - self._span.last_90k <= self._gap_90k
        ):
            self._span.end_90k = next_90k
        if self._held is not None and self._span is not None:
            self._held.duration = self._span.end_90k - self._span.last_90k
            self._container.mux_one(self._held)
        self._held = None

    def _end_span(self) -> None:
        if self._span is not None:
            self._spans.append(self._span)
            self._span = None

    def _finished(self) -> Iterator[Fragment]:
        """Pairs of boxes that the muxer has written whole: ftyp+moov, moof+mdat."""
        for first, second in self._sink.take_pairs():
            data = first + second
            if first[4:8] == b"ftyp":
                profile = data.index(b"avcC") + 5
                self._codec = f"avc1.{data[profile : profile + 3].hex()}"
                yield Fragment("init", data, 0, 0, False, 0)
            else:
                span = self._spans.popleft()
                yield Fragment(
                    "fragment", data, span.start_90k, span.end_90k - span.start_90k, True, span.frames
                )


class _Span:
    """The frames of the fragment that is being written."""

    def __init__(self, start_90k: int) -> None:
        self.start_90k = self.last_90k = self.end_90k = start_90k
        self.frames = 0


class _Sink:
    """What the muxer writes to; hands out whole boxes (ISO/IEC 14496-12 section 4.2, 32-bit sizes)."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def take_pairs(self) -> Iterator[tuple[bytes, bytes]]:
        while True:
            middle = self._box_end(0)
            end = self._box_end(middle) if middle else 0
            if not end:
                return
            pair = bytes(self._written[:middle]), bytes(self._written[middle:end])
            del self._written[:end]
            if (pair[0][4:8], pair[1][4:8]) not in ((b"ftyp", b"moov"), (b"moof", b"mdat")):
                raise ValueError(f"the muxer wrote {pair[0][4:8]!r} and {pair[1][4:8]!r}")
            yield pair

    def _box_end(self, start: int) -> int:
        size = int.from_bytes(self._written[start : start + 4], "big")
        return start + size if 8 <= size <= len(self._written) - start else 0


def _start(
    sink: _Sink, name: str, traits: _Encoder, size: tuple[int, int], rate_hz: Fraction, bitrate_bps: int
) -> tuple[OutputContainer, VideoStream]:
    """Open both. frag_discont makes tfdt the frame's own time; bitexact keeps dates and versions out."""
    movflags = "default_base_moof+frag_keyframe+frag_discont+skip_trailer+"
    container = av.open(
        sink,
        "w",
        format="mp4",
        options={
            "movflags": movflags + ("delay_moov" if traits.late_header else "empty_moov"),
            "use_editlist": "0",
            "avoid_negative_ts": "disabled",
            "fflags": "+bitexact",
            "video_track_timescale": str(TICKS_PER_S),
        },
    )
    # The rate is capped over two seconds: space for an exam is reserved before it begins.
    limits = {"maxrate": str(bitrate_bps), "bufsize": str(2 * bitrate_bps), "flags": "+bitexact+cgop"}
    stream = container.add_stream(name, rate=rate_hz, options={**limits, **traits.options})
    if not isinstance(stream, VideoStream):
        raise TypeError(f"{name} is no video encoder")
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.bit_rate = bitrate_bps
    stream.time_base = Fraction(1, TICKS_PER_S)
    stream.codec_context.time_base = Fraction(1, TICKS_PER_S)
    stream.codec_context.thread_count = 1
    container.start_encoding()
    return container, stream
