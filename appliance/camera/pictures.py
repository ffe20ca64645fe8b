"""Small pictures beside the recording: frames for the inference process and, while somebody looks, previews.

Runs in the capture thread. Memory only: a ring on tmpfs, JPEGs over the local link.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from av.video.reformatter import VideoReformatter

from appliance.camera.picture_planes import small_bgr
from appliance.camera.preview import preview_jpeg
from appliance.camera.source import Frame
from appliance.clock import Clock
from appliance.frames import FrameRingWriter

# What the models look at; a face 1.5 m away is still 60 px wide.
RING_WIDTH_PX, RING_HEIGHT_PX = 640, 360
PREVIEW_WIDTH_PX = 480
STILL_INTERVAL_S = 1.0
LIVE_INTERVAL_S = 1 / 6
# A page renews its lease every second or two; one that was closed is not looked through for longer than this.
MAX_LEASE_S = 10.0


class WatchLease:
    """Whether somebody looks now. Written by the link's threads, read by the capture thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_mono_ns = 0
        self._interval_ns = round(STILL_INTERVAL_S * 1e9)
        self._next_mono_ns = 0
        self._lock = threading.Lock()

    def renew(self, mode: str, lease_s: float) -> None:
        """Somebody looks for `lease_s` more seconds, at stills or live; 10 s at most."""
        now = self._clock.mono_ns()
        with self._lock:
            self._interval_ns = round((LIVE_INTERVAL_S if mode == "live" else STILL_INTERVAL_S) * 1e9)
            self._until_mono_ns = now + round(min(lease_s, MAX_LEASE_S) * 1e9)
            self._next_mono_ns = min(self._next_mono_ns, now + self._interval_ns)

    def due(self) -> bool:
        """True when a preview is to be made of this frame."""
        now = self._clock.mono_ns()
        with self._lock:
            if now >= self._until_mono_ns or now < self._next_mono_ns:
                return False
            self._next_mono_ns = now + self._interval_ns
            return True


class Pictures:
    """One session's: `ring` None while no model looks, `watch` None where the policy allows no preview."""

    def __init__(
        self,
        ring: FrameRingWriter | None,
        ring_interval_s: float,
        watch: WatchLease | None,
        on_preview: Callable[[bytes], None],
        look: Callable[[Frame], None] | None = None,
    ) -> None:
        """`look`: takes every frame, and must not block."""
        self._ring = ring
        self._look = look
        self._ring_interval_ns = round(ring_interval_s * 1e9)
        self._ring_due_ns = 0
        self._last_taken_ns = 0
        self._watch = watch
        self._on_preview = on_preview
        self._preview_allowed = True
        self._reformatter = VideoReformatter()

    def allow_preview(self, allowed: bool) -> None:
        """From any thread: no preview while the disk's room runs short, however long somebody looks."""
        self._preview_allowed = allowed

    def show(self, frame: Frame) -> None:
        """Hand on what is due of one frame."""
        if self._look is not None:
            self._look(frame)
        if self._ring is not None and self._ring_is_due(frame.taken_mono_ns):
            small = small_bgr(frame.picture, RING_WIDTH_PX, RING_HEIGHT_PX, self._reformatter)
            self._ring.write(small, frame.taken_mono_ns)
        if self._preview_allowed and self._watch is not None and self._watch.due():
            self._on_preview(preview_jpeg(frame, width_px=PREVIEW_WIDTH_PX))

    def _ring_is_due(self, taken_ns: int) -> bool:
        # Half a frame early counts as on time, or jitter would make every interval one frame longer.
        half_frame_ns = (taken_ns - self._last_taken_ns) // 2
        self._last_taken_ns = taken_ns
        if taken_ns + min(half_frame_ns, self._ring_interval_ns // 2) < self._ring_due_ns:
            return False
        late = taken_ns >= self._ring_due_ns + self._ring_interval_ns
        self._ring_due_ns = (taken_ns if late else self._ring_due_ns) + self._ring_interval_ns
        return True
