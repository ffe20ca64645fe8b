"""The thread that judges picture and decoding while a fragment is still in memory; nobody waits for it.

What is filmed comes in order, what was found is taken by the main thread. What it could not check, because it fell
behind or ended, is itself a finding, so that silence never says more than was looked at.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from av.video.reformatter import VideoReformatter

from appliance.camera.inbox import Captured
from appliance.camera.picture_decode import FragmentDecoder
from appliance.camera.picture_judge import LOOK_INTERVAL_90K, SHORTEST_90K, PictureJudge
from appliance.camera.picture_planes import luma_and_grey
from appliance.camera.picture_spans import Finding, Span, Spans
from appliance.camera.source import Frame
from appliance.picture_quality import MEASURED_SIDE_PX
from appliance.timecode import TICKS_PER_S

log = logging.getLogger(__name__)

# About a minute of film and pictures at 720p.
MAX_WAITING_BYTES = 32 << 20
CLOSE_TIMEOUT_S = 5.0
WORDS: dict[Finding, str] = {
    "black": "the picture is black",
    "covered": "the camera is covered",
    "frozen": "the picture is frozen",
    "undecodable": "what is recorded cannot be decoded",
    "unchecked": "picture and decoding are not being checked",
}


class PictureCheck(threading.Thread):
    """One session's. The capture thread calls `see` and `keep`, the main thread the rest."""

    def __init__(self, session_90k: Callable[[int], int], max_waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        """`session_90k`: session time of a CLOCK_BOOTTIME moment."""
        super().__init__(daemon=True, name="picture check")
        self._session_90k = session_90k
        self._max_waiting_bytes = max_waiting_bytes
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Frame | Captured, int]] = deque()
        self._waiting_bytes = 0
        self._next_look_90k = 0
        self._ending_90k: int | None = None
        self._lasting: list[Finding] = []
        self._over: list[Span] = []
        self._unchecked = Spans({})
        # From here on this thread's own.
        self._found = Spans(SHORTEST_90K)
        self._judge = PictureJudge(self._found)
        self._decoder = FragmentDecoder()
        self._reformatter = VideoReformatter()

    # --- the capture thread's

    def see(self, frame: Frame) -> None:
        """Look at this frame if a second has passed."""
        time_90k = self._session_90k(frame.taken_mono_ns)
        # A thirtieth early is on time, or jitter would make every interval a frame longer.
        if time_90k < self._next_look_90k - LOOK_INTERVAL_90K // 30:
            return
        self._next_look_90k = time_90k + LOOK_INTERVAL_90K
        self._put(frame, frame.width_px * frame.height_px * 3 // 2)

    def keep(self, captured: Captured) -> None:
        """Decode this fragment, which is on its way into the store."""
        self._put(captured, len(captured.fragment.data))

    def _put(self, item: Frame | Captured, size_bytes: int) -> None:
        with self._changed:
            if not self.is_alive() or self._waiting_bytes + size_bytes > self._max_waiting_bytes:
                self._unchecked.add("unchecked", *self._span_of(item))
                return
            self._unchecked.end("unchecked")
            self._waiting.append((item, size_bytes))
            self._waiting_bytes += size_bytes
            self._changed.notify()

    def _span_of(self, item: Frame | Captured) -> tuple[int, int]:
        if isinstance(item, Captured):
            return item.fragment.time_90k, item.fragment.time_90k + item.fragment.duration_90k
        time_90k = self._session_90k(item.taken_mono_ns)
        return time_90k, time_90k + LOOK_INTERVAL_90K

    # --- the main thread's

    @property
    def faults(self) -> list[str]:
        """What is wrong now, in words."""
        with self._changed:
            return [WORDS[finding] for finding in (*self._lasting, *self._unchecked.lasting)]

    def take(self) -> list[Span]:
        """What is over and not yet taken."""
        with self._changed:
            over, self._over = self._over, []
            return over + self._unchecked.take()

    def close(self, end_90k: int, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Check what waits and end everything at `end_90k`; what is left after `timeout_s` stays unchecked."""
        with self._changed:
            self._ending_90k = end_90k
            self._changed.notify()
        if self.is_alive():
            self.join(timeout_s)
        with self._changed:
            for item, _ in self._waiting:
                self._unchecked.add("unchecked", *self._span_of(item))
            self._waiting.clear()
            self._unchecked.end("unchecked")

    # --- its own

    def run(self) -> None:
        try:
            while (item := self._next()) is not None:
                if isinstance(item, Captured):
                    self._decode(item)
                else:
                    self._look(item)
                self._publish()
        finally:
            if self._ending_90k is not None:
                self._judge.stand_until(self._ending_90k)
            self._found.end_all()
            self._publish()

    def _next(self) -> Frame | Captured | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ending_90k is not None)
            if not self._waiting:
                return None
            item, size_bytes = self._waiting.popleft()
            self._waiting_bytes -= size_bytes
            return item

    def _publish(self) -> None:
        with self._changed:
            self._over += self._found.take()
            self._lasting = self._found.lasting

    def _look(self, frame: Frame) -> None:
        luma, grey = luma_and_grey(frame.picture, MEASURED_SIDE_PX, self._reformatter)
        self._judge.look(self._session_90k(frame.taken_mono_ns), luma, grey)

    def _decode(self, captured: Captured) -> None:
        problem = self._decoder.problem(captured.init.data, captured.fragment)
        if problem is None:
            self._found.end("undecodable")
            return
        from_90k, to_90k = self._span_of(captured)
        log.warning("picture.undecodable time_s=%.1f reason=%s", from_90k / TICKS_PER_S, problem)
        self._found.add("undecodable", from_90k, to_90k)
