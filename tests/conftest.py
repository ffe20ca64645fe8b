"""Fixtures that several folders share."""

from __future__ import annotations

from collections.abc import Iterator

import gpiozero
import pytest
from gpiozero.pins.mock import MockFactory

from tests.storages import S3Server, running_storage


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Ceph RGW, started once for all tests that ask for it."""
    with running_storage("ceph", tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """`rclone serve s3`, as the demo uses it."""
    with running_storage("rclone", tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture
def pins() -> Iterator[MockFactory]:
    """gpiozero's own stand-ins for a board's pins: the hardware's edge."""
    factory = MockFactory()
    gpiozero.Device.pin_factory = factory
    yield factory
    factory.reset()
    gpiozero.Device.pin_factory = None
