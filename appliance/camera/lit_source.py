"""The camera's light: lit before the sensor opens, out only after it has closed in order.

Whatever else happens (an error on the way, a traceback, SIGKILL) leaves it lit: it fails on.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from appliance.camera.source import CameraSource, Frame
from appliance.light import Light


class LitSource:
    """A CameraSource whose light says that it is open.

    Only a `close()` that ends well puts it out. Leaving a `with` block by an error closes the sensor and
    leaves the light to the next orderly close: no crash path can put it out while the sensor may still be on.
    """

    def __init__(self, source: CameraSource, light: Light) -> None:
        self._source = source
        self._light = light

    @property
    def description(self) -> str:
        return self._source.description

    @property
    def dropped_frames(self) -> int:
        return self._source.dropped_frames

    def open(self) -> None:
        self._light.on()
        self._source.open()

    def read(self, timeout_s: float) -> Frame | None:
        return self._source.read(timeout_s)

    def close(self) -> None:
        self._source.close()
        self._light.off()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._source.close()
