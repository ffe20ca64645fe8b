"""The capture thread: camera to fragments, small frames for inference, previews on request. Touches no disk.

A camera that stops is opened again and again; what was missed becomes a gap with its cause. It never waits for the
store: when the queue is full the fragment is lost and counted.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.camera.encoder import Fragment, FragmentEncoder
from appliance.camera.light import Light, LitSource
from appliance.camera.preview import preview_jpeg
from appliance.camera.source import Frame, open_source
from appliance.clock import Clock
from appliance.errors import ApplianceError, CameraStuck
from appliance.frames import FrameRingWriter
from appliance.policy import Video

log = logging.getLogger(__name__)

# What the models look at; a face 1.5 m away is still 60 px wide.
RING_WIDTH_PX, RING_HEIGHT_PX = 640, 360
READ_TIMEOUT_S = 1.0
# USB cameras take about a second to come back after a reset.
REOPEN_DELAY_S = 1.0
STILL_INTERVAL_S = 1.0
LIVE_INTERVAL_S = 1 / 6


@dataclass(frozen=True)
class Captured:
    """A finished fragment with the init it needs in front of a segment."""

    fragment: Fragment
    init: Fragment
    codec: str


@dataclass(frozen=True)
class CameraLost:
    """The camera stopped; `cause` says why in words."""

    cause: str


@dataclass(frozen=True)
class CameraBack:
    """The camera delivers again."""


@dataclass
class WatchLease:
    """Whether somebody looks now. Written by the link's thread, read by the capture thread."""

    clock: Clock
    _until_mono_ns: int = 0
    _interval_s: float = STILL_INTERVAL_S
    _next_mono_ns: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def renew(self, mode: str, lease_s: float) -> None:
        """Somebody looks for `lease_s` more seconds, at stills or live."""
        with self._lock:
            self._interval_s = LIVE_INTERVAL_S if mode == "live" else STILL_INTERVAL_S
            self._until_mono_ns = self.clock.mono_ns() + round(lease_s * 1e9)
            self._next_mono_ns = min(self._next_mono_ns, self.clock.mono_ns() + round(self._interval_s * 1e9))

    def due(self) -> bool:
        """True when a preview is to be made of this frame."""
        now = self.clock.mono_ns()
        with self._lock:
            if now > self._until_mono_ns or now < self._next_mono_ns:
                return False
            self._next_mono_ns = now + round(self._interval_s * 1e9)
            return True


class Capture(threading.Thread):
    """Runs while a session records; `camera_open` and `lost_fragments` are facts for the status.

    After `stuck` only a new process helps.
    """

    def __init__(
        self,
        spec: str,
        video: Video,
        light: Light,
        ring: FrameRingWriter,
        ring_interval_s: float,
        clock: Clock,
        session_90k: Callable[[int], int],
        watch: WatchLease,
        on_preview: Callable[[bytes], None],
        out: queue.Queue[Captured | CameraLost | CameraBack],
    ) -> None:
        super().__init__(daemon=True, name="capture")
        self.camera_open = False
        self.lost_fragments = 0
        self.stuck: CameraStuck | None = None
        self._spec = spec
        self._video = video
        self._light = light
        self._ring = ring
        self._ring_interval_ns = round(ring_interval_s * 1e9)
        self._next_ring_ns = 0
        self._clock = clock
        self._session_90k = session_90k
        self._watch = watch
        self._on_preview = on_preview
        self._out = out
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Finish the open fragment, close the camera, put the light out; returns when it is done."""
        self._stopping.set()
        self.join()

    def run(self) -> None:
        lost = False
        while not self._stopping.is_set():
            try:
                with self._source() as source:
                    self._film(source, lost)
            except CameraStuck as error:
                self.stuck = error
                break
            except ApplianceError as error:
                self.camera_open = False
                if not lost:
                    log.warning("camera.lost reason=%s", error)
                    self._put(CameraLost(str(error)))
                lost = True
                self._stopping.wait(REOPEN_DELAY_S)
        self.camera_open = False
        if self.stuck is None:
            self._light.off()

    def _source(self) -> LitSource:
        video = self._video
        return LitSource(
            open_source(self._spec, video.width_px, video.height_px, video.frame_rate_hz, self._clock),
            self._light,
        )

    def _film(self, source: LitSource, lost: bool) -> None:
        video = self._video
        assembly = _Assembly(
            FragmentEncoder(video.width_px, video.height_px, video.frame_rate_hz, video.bitrate_bps)
        )
        try:
            while not self._stopping.is_set():
                frame = source.read(READ_TIMEOUT_S)
                if frame is None:
                    continue
                if not self.camera_open:
                    self.camera_open = True
                    if lost:
                        self._put(CameraBack())
                self._encode(assembly, frame)
                self._show(frame)
        finally:
            for captured in assembly.finish():
                self._put(captured)

    def _encode(self, assembly: _Assembly, frame: Frame) -> None:
        time_90k = self._session_90k(frame.taken_mono_ns)
        if time_90k > assembly.last_90k:
            for captured in assembly.encode(frame, time_90k):
                self._put(captured)

    def _show(self, frame: Frame) -> None:
        if frame.taken_mono_ns >= self._next_ring_ns:
            self._next_ring_ns = frame.taken_mono_ns + self._ring_interval_ns
            self._ring.write(frame.bgr(RING_WIDTH_PX, RING_HEIGHT_PX), frame.taken_mono_ns)
        if self._watch.due():
            self._on_preview(preview_jpeg(frame, width_px=480))

    def _put(self, item: Captured | CameraLost | CameraBack) -> None:
        try:
            self._out.put_nowait(item)
        except queue.Full:
            self.lost_fragments += 1
            log.warning("record.queue_full lost=%d", self.lost_fragments)


class _Assembly:
    """Pairs an encoder's fragments with its init."""

    def __init__(self, encoder: FragmentEncoder) -> None:
        self._encoder = encoder
        self._init: Fragment | None = None
        self.last_90k = -1

    def encode(self, frame: Frame, time_90k: int) -> list[Captured]:
        self.last_90k = time_90k
        return self._pair(self._encoder.encode(frame, time_90k))

    def finish(self) -> list[Captured]:
        return self._pair(self._encoder.flush())

    def _pair(self, fragments: list[Fragment]) -> list[Captured]:
        captured: list[Captured] = []
        for fragment in fragments:
            if fragment.kind == "init":
                self._init = fragment
            elif self._init is not None:
                captured.append(Captured(fragment, self._init, self._encoder.codec))
        return captured
