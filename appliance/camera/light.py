"""The indicator light: lit before the sensor opens, out only after it has closed in order.

Whatever else happens (an error on the way, a traceback, SIGKILL) leaves it lit: it fails on.
"""

from __future__ import annotations

import atexit
import ctypes
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol, Self

from appliance.camera.source import CameraSource, Frame
from appliance.errors import BadConfig


class Light(Protocol):
    """A lamp that tells the candidate that the camera is on."""

    def on(self) -> None: ...

    def off(self) -> None: ...

    @property
    def is_lit(self) -> bool: ...


class NoLight:
    """A desk without a lamp of ours, e.g. a USB camera with its own."""

    is_lit = False

    def on(self) -> None:
        """Nothing to light."""

    def off(self) -> None:
        """Nothing to put out."""


class IndicatorLight:
    """A lamp on GPIO `pin` (BCM number), through gpiozero; raises BadConfig when the pin cannot be driven.

    Building it leaves the pin as it is: a lamp left lit by a crash stays lit until the new process has opened
    and closed the camera, or calls `off` because it will not open it. `lit_when_low`: the lamp is wired
    to light when its pin is low or undriven, so it is lit even where the kernel lets go of a
    dead process's pins.
    """

    def __init__(self, pin: int, lit_when_low: bool = False) -> None:
        import gpiozero
        from gpiozero import devices

        # gpiozero's own exit hook would make the pin an input, and so put the lamp out, after a traceback.
        atexit.unregister(devices._shutdown)
        try:
            self._lamp: Any = gpiozero.LED(pin, active_high=not lit_when_low, initial_value=None)
        except gpiozero.GPIOZeroError as error:
            raise BadConfig(
                f"indicator light's pin {pin} cannot be driven: {error}", "check light_pin and the group gpio"
            ) from error
        # gpiozero releases the pin of a lamp that is collected; this one outlives the interpreter's teardown.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._lamp))

    def on(self) -> None:
        self._lamp.on()

    def off(self) -> None:
        self._lamp.off()

    @property
    def is_lit(self) -> bool:
        return bool(self._lamp.is_lit)


def light_at(pin: int | None, lit_when_low: bool = False) -> Light:
    """The lamp on `pin`, or none."""
    return NoLight() if pin is None else IndicatorLight(pin, lit_when_low)


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

    def frames(self) -> Iterator[Frame]:
        return self._source.frames()

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
