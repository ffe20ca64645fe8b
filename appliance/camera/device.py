"""What real cameras share: a thread of their own that opens, reads and releases the sensor.

A driver may block for ever (picamera2 issue 1264: a loose cable). Then that thread hangs, the reader gets
CameraUnavailable in seconds, and the supervisor restarts the process.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from av.video.frame import VideoFrame

from appliance.camera.source import Frame
from appliance.clock import Clock
from appliance.errors import CameraStuck, CameraUnavailable

CABLE_HINT = "check the camera's cable and that no other program uses it"


class DeviceCamera(ABC):
    """A CameraSource over a blocking driver; subclasses say how to start, grab and stop.

    Opening may take `open_timeout_s`; a camera without a frame for `lost_after_s` is lost. Faster
    delivery than `frame_rate_hz` is thinned to it.
    """

    def __init__(
        self,
        description: str,
        frame_rate_hz: float,
        clock: Clock,
        open_timeout_s: float = 10.0,
        lost_after_s: float = 3.0,
    ) -> None:
        self.description = description
        self.dropped_frames = 0
        self._clock = clock
        self._period_ns = round(1e9 / frame_rate_hz)
        self._open_timeout_s = open_timeout_s
        self._lost_after_s = lost_after_s
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._ready = False
        self._newest: Frame | None = None
        self._failure: CameraUnavailable | None = None
        self._alive_mono_ns = 0

    @abstractmethod
    def _start(self) -> None:
        """Open the sensor; raises CameraUnavailable."""

    @abstractmethod
    def _grab(self) -> tuple[int, VideoFrame]:
        """Wait for a picture: its CLOCK_BOOTTIME ns and yuv420p planes; raises CameraUnavailable."""

    @abstractmethod
    def _stop(self) -> None:
        """Release the sensor, however far `_start` came."""

    def open(self) -> None:
        """Raises CameraUnavailable when there is no camera or it does not start within `open_timeout_s`."""
        self.close()
        self._stopping = self._ready = False
        self._newest = self._failure = None
        self._thread = threading.Thread(target=self._run, name=self.description, daemon=True)
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._failure is not None, self._open_timeout_s)
            if not self._ready:
                raise self._failure or CameraStuck(f"{self.description} does not start", CABLE_HINT)
            self._alive_mono_ns = self._clock.mono_ns()

    def read(self, timeout_s: float) -> Frame | None:
        with self._changed:
            if self._thread is None:
                raise CameraUnavailable(f"{self.description} is not open", "open it first")
            self._changed.wait_for(lambda: self._newest is not None or self._failure is not None, timeout_s)
            frame, self._newest = self._newest, None
            if frame is not None:
                return frame
            if self._failure is not None:
                raise self._failure
            silent_s = (self._clock.mono_ns() - self._alive_mono_ns) / 1e9
            if silent_s > self._lost_after_s:
                raise CameraUnavailable(
                    f"{self.description} has sent no picture for {silent_s:.0f} s", CABLE_HINT
                )
            return None

    def close(self) -> None:
        """Raises CameraUnavailable when the driver does not let go; only the process's end frees it then."""
        if self._thread is None:
            return
        with self._changed:
            self._stopping = True
        self._thread.join(self._lost_after_s)
        if self._thread.is_alive():
            raise CameraStuck(f"{self.description} does not close", "the service has to be restarted")
        self._thread = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        ended = CameraUnavailable(f"{self.description} stopped", CABLE_HINT)
        try:
            self._start()
            with self._changed:
                self._ready = True
                self._changed.notify_all()
            self._deliver()
        except CameraUnavailable as error:
            ended = error
        finally:
            try:
                self._stop()
            finally:
                with self._changed:
                    self._failure = ended
                    self._changed.notify_all()

    def _deliver(self) -> None:
        sequence = 0
        due_ns = 0
        while not self._stopping:
            taken_mono_ns, picture = self._grab()
            with self._changed:
                self._alive_mono_ns = self._clock.mono_ns()
                # A quarter of a period early is jitter; earlier than that is a frame too many.
                if taken_mono_ns < due_ns - self._period_ns // 4:
                    continue
                late = taken_mono_ns >= due_ns + self._period_ns
                due_ns = (taken_mono_ns if late else due_ns) + self._period_ns
                sequence += 1
                self.dropped_frames += self._newest is not None
                self._newest = Frame(taken_mono_ns, sequence, picture)
                self._changed.notify_all()
