"""F147: the light equals the sensor's state in every state, and a crash leaves it lit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gpiozero.pins.mock import MockFactory

from appliance.camera.lit_source import LitSource
from appliance.camera.source import Frame
from appliance.errors import BadConfig, CameraUnavailable
from appliance.light import IndicatorLight, NoLight, light_at

PIN = 17


class Sensor:
    """A camera under the test's control that notes whether the lamp was lit when it was touched."""

    description = "sensor"
    dropped_frames = 4

    def __init__(self, pin: object) -> None:
        self.pin = pin
        self.open_now = False
        self.lit_at: list[tuple[str, bool]] = []
        self.fails: set[str] = set()

    def _touch(self, what: str) -> None:
        self.lit_at.append((what, bool(self.pin.state)))
        if what in self.fails:
            raise CameraUnavailable(f"{what} failed")

    def open(self) -> None:
        self.open_now = True
        self._touch("open")

    def read(self, timeout_s: float) -> Frame | None:
        self._touch("read")

    def close(self) -> None:
        self._touch("close")
        self.open_now = False


def lit(pins: MockFactory) -> tuple[LitSource, Sensor]:
    light = IndicatorLight(PIN)
    sensor = Sensor(pins.pin(PIN))
    return LitSource(sensor, light), sensor


def test_f147_light_is_on_before_the_sensor_opens_and_out_after_it_closed(pins: MockFactory) -> None:
    source, sensor = lit(pins)
    assert not sensor.pin.state
    source.open()
    source.read(0.0)
    assert sensor.pin.state
    source.close()
    assert not sensor.pin.state
    assert sensor.lit_at == [("open", True), ("read", True), ("close", True)]


def test_f147_with_block_left_in_order_puts_it_out(pins: MockFactory) -> None:
    source, sensor = lit(pins)
    with source:
        assert sensor.pin.state
    assert not sensor.pin.state
    assert not sensor.open_now


@pytest.mark.parametrize("error", [CameraUnavailable("gone"), RuntimeError("bug"), KeyboardInterrupt()])
def test_f147_no_crash_path_puts_it_out(pins: MockFactory, error: BaseException) -> None:
    source, sensor = lit(pins)

    def crash() -> None:
        with source:
            raise error

    with pytest.raises(type(error)):
        crash()
    assert sensor.pin.state
    source.close()
    assert not sensor.pin.state


@pytest.mark.parametrize("failing", ["open", "close"])
def test_f147_a_sensor_in_an_unknown_state_counts_as_on(pins: MockFactory, failing: str) -> None:
    source, sensor = lit(pins)
    sensor.fails = {failing}

    def run() -> None:
        source.open()
        source.close()

    with pytest.raises(CameraUnavailable):
        run()
    assert sensor.pin.state


def test_f147_a_lamp_left_lit_by_a_crash_stays_lit_in_the_next_process(pins: MockFactory) -> None:
    pin = pins.pin(PIN)
    pin.function = "output"
    pin.state = True
    light = IndicatorLight(PIN)
    assert pin.state
    assert light.is_lit
    light.off()
    assert not pin.state


def test_f147_lamp_wired_to_light_when_its_pin_is_low(pins: MockFactory) -> None:
    light = IndicatorLight(PIN, lit_when_low=True)
    light.on()
    assert not pins.pin(PIN).state
    light.off()
    assert pins.pin(PIN).state


CRASH = """
import atexit, os, sys
import gpiozero
from gpiozero.pins.mock import MockFactory, MockPin

class Noted(MockPin):
    def close(self):
        os.write(1, b"released ")

gpiozero.Device.pin_factory = factory = MockFactory(pin_class=Noted)
{lamp}
lamp.on()
pin = factory.pin(17)
os.write(1, b"lit " if pin.state else b"dark ")
sys.stderr = open(os.devnull, "w")
raise RuntimeError("crash")
"""


def printed_by_crash(lamp: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", CRASH.format(lamp=lamp)], stdout=subprocess.PIPE, check=False, text=True
    )
    assert run.returncode == 1
    return run.stdout.split()


def test_f147_a_process_that_ends_by_a_traceback_does_not_release_the_pin() -> None:
    lamp = "from appliance.light import IndicatorLight; lamp = IndicatorLight(17)"
    assert printed_by_crash(lamp) == ["lit"]


def test_f147_negative_control_gpiozero_alone_puts_the_lamp_out_at_exit() -> None:
    assert "released" in printed_by_crash("lamp = gpiozero.LED(17)")


def test_a_desk_without_a_lamp_needs_no_gpio() -> None:
    light = light_at(None)
    assert isinstance(light, NoLight)
    light.on()
    light.off()
    assert not light.is_lit


def test_what_drives_pins_does_not_need_a_working_folder_to_write_to(
    pins: MockFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lgpio fails on import where it cannot make its pipe, and a service stands at `/`."""
    monkeypatch.setenv("LG_WD", "")  # so that it is put back
    monkeypatch.delenv("LG_WD")
    light_at(PIN)
    folder = Path(os.environ["LG_WD"])
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()


def test_light_on_a_pin_is_driven(pins: MockFactory) -> None:
    light_at(PIN).on()
    assert pins.pin(PIN).state


def test_pin_that_is_taken_or_does_not_exist_is_named(pins: MockFactory) -> None:
    first = IndicatorLight(PIN)
    for pin in (PIN, 99):
        with pytest.raises(BadConfig, match=f"pin {pin}"):
            IndicatorLight(pin)
    assert not first.is_lit


def test_lit_source_passes_the_source_through(pins: MockFactory) -> None:
    source, _ = lit(pins)
    assert (source.description, source.dropped_frames) == ("sensor", 4)
    assert source.read(0.0) is None
