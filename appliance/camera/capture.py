"""The capture thread: camera to fragments and small pictures. Touches no disk and waits for nothing but the camera.

A camera that stops is opened again and again, and what was missed becomes a gap with its cause. When the store is too
slow the fragment is lost and counted. After `stuck` only a new process helps.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from appliance.camera.encoder import Fragment, FragmentEncoder
from appliance.camera.inbox import CameraBack, CameraLost, Captured, FragmentRefused, FromCamera
from appliance.camera.lit_source import LitSource
from appliance.camera.pictures import Pictures
from appliance.camera.source import CameraSource, Frame
from appliance.errors import ApplianceError, CameraStuck
from appliance.light import Light
from appliance.policy import Video

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 1.0
# USB cameras take about a second to come back after a reset.
REOPEN_DELAY_S = 1.0


class Capture(threading.Thread):
    """Runs while a session records; `camera_open`, `lost_cause` and `lost_fragments` are facts for the status."""

    def __init__(
        self,
        make_source: Callable[[], CameraSource],
        light: Light,
        video: Video,
        pictures: Pictures,
        session_90k: Callable[[int], int],
        put: Callable[[FromCamera], bool],
        after_90k: int = -1,
        reopen_delay_s: float = REOPEN_DELAY_S,
    ) -> None:
        """`session_90k`: session time of a CLOCK_BOOTTIME moment; `after_90k`: nothing up to then is recorded again;
        `put`: takes what was filmed, False if a fragment does not fit. It must not block."""
        super().__init__(daemon=True, name="capture")
        self.camera_open = False
        self.lost_cause: str | None = None
        self.lost_fragments = 0
        self.stuck: CameraStuck | None = None
        self._make_source = make_source
        self._light = light
        self._video = video
        self._pictures = pictures
        self._session_90k = session_90k
        self._put = put
        self._last_90k = after_90k
        self._refused = False
        self._reopen_delay_s = reopen_delay_s
        self._stopping = threading.Event()
        self._bitrate_bps = video.bitrate_bps

    def set_bitrate(self, bitrate_bps: int) -> None:
        """From any thread: the film's bitrate from the next fragment on, also after the camera was opened again."""
        self._bitrate_bps = bitrate_bps

    def ask_to_stop(self) -> None:
        """Finish the open fragment, close the camera, put the light out; the thread ends when that is done."""
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                with LitSource(self._make_source(), self._light) as source:
                    self._film(source)
            except CameraStuck as error:
                # The sensor may still be on, so the light stays on too.
                self._lose(str(error))
                self.stuck = error
                return
            except ApplianceError as error:
                self._lose(str(error))
                self._stopping.wait(self._reopen_delay_s)
        self.camera_open = False
        self._light.off()

    def _film(self, source: CameraSource) -> None:
        video = self._video
        encoder = FragmentEncoder(video.width_px, video.height_px, video.frame_rate_hz, video.bitrate_bps)
        assembly = _Assembly(encoder)
        filmed = 0
        try:
            while not self._stopping.is_set():
                frame = source.read(READ_TIMEOUT_S)
                if frame is not None:
                    self._find()
                    encoder.set_bitrate(self._bitrate_bps)
                    filmed += self._encode(assembly, frame)
                    self._pictures.show(frame)
        finally:
            self._keep(assembly.finish())
            # Dropped: the machine was too slow for its camera, so these were never anybody's.
            log.info("camera.closed filmed_frames=%d dropped_frames=%d", filmed, source.dropped_frames)

    def _encode(self, assembly: _Assembly, frame: Frame) -> bool:
        time_90k = self._session_90k(frame.taken_mono_ns)
        if time_90k <= self._last_90k:
            return False  # a frame that does not come after the last one has no place in the film
        self._last_90k = time_90k
        self._keep(assembly.encode(frame, time_90k))
        return True

    def _keep(self, filmed: list[Captured]) -> None:
        for captured in filmed:
            if self._put(captured):
                self._refused = False
                continue
            self.lost_fragments += 1
            log.warning("record.queue_full lost=%d", self.lost_fragments)
            if not self._refused:
                self._refused = True
                self._put(FragmentRefused())

    def _find(self) -> None:
        self.camera_open = True
        if self.lost_cause is not None:
            log.info("camera.back")
            self.lost_cause = None
            self._put(CameraBack())

    def _lose(self, cause: str) -> None:
        self.camera_open = False
        if self.lost_cause is None:
            log.warning("camera.lost reason=%s", cause)
            self._put(CameraLost(cause))
        self.lost_cause = cause


class _Assembly:
    """Pairs an encoder's fragments with its init."""

    def __init__(self, encoder: FragmentEncoder) -> None:
        self._encoder = encoder
        self._init: Fragment | None = None

    def encode(self, frame: Frame, time_90k: int) -> list[Captured]:
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
