"""Lamps that tell the candidate what is on: the camera's, the microphone's. A process that dies leaves its lamp lit."""

from __future__ import annotations

import atexit
import ctypes
import os
import tempfile
import threading
from typing import Any, Protocol

from appliance.errors import BadConfig


class Light(Protocol):
    """A lamp that tells the candidate that a sensor is on."""

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
    and closed the sensor, or calls `off` because it will not open it. `lit_when_low`: the lamp is wired
    to light when its pin is low or undriven, so it is lit even where the kernel lets go of a
    dead process's pins.
    """

    def __init__(self, pin: int, lit_when_low: bool = False) -> None:
        if "LG_WD" not in os.environ:
            # lgpio, beneath gpiozero on a Pi, makes a pipe in its working folder: a service's is `/`.
            os.environ["LG_WD"] = tempfile.mkdtemp(prefix="invigil-light-")
        import gpiozero
        from gpiozero import devices

        # gpiozero's own exit hook would make the pin an input, and so put the lamp out, after a traceback.
        atexit.unregister(devices._shutdown)
        try:
            self._lamp: Any = gpiozero.LED(pin, active_high=not lit_when_low, initial_value=None)
        except gpiozero.GPIOZeroError as error:
            raise BadConfig(
                f"indicator light's pin {pin} cannot be driven: {error}",
                "check its number in node.toml and the group gpio",
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


class SharedLight:
    """Lit while anybody who lit it has not put it out: one who still holds a sensor keeps it lit for all."""

    def __init__(self, light: Light) -> None:
        self._light = light
        self._holders = 0
        self._one_at_a_time = threading.Lock()

    def on(self) -> None:
        with self._one_at_a_time:
            self._holders += 1
            self._light.on()

    def off(self) -> None:
        with self._one_at_a_time:
            self._holders -= 1
            if self._holders == 0:
                self._light.off()

    @property
    def is_lit(self) -> bool:
        return self._light.is_lit


def light_at(pin: int | None, lit_when_low: bool = False) -> Light:
    """The lamp on `pin`, or none."""
    return NoLight() if pin is None else IndicatorLight(pin, lit_when_low)
