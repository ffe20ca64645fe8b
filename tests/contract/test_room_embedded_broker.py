"""The demo's stand-in where no mosquitto can be installed: a whole session over amqtt on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.room import default_desks
from tests.room import Exam, running_room

pytestmark = pytest.mark.slow


def test_session_runs_over_the_embedded_broker(tmp_path: Path) -> None:
    with running_room(tmp_path, desks=default_desks()[:1], embedded_broker=True) as room:
        client = room.client()
        exam = Exam.begin(room, client, "desk-1", "embedded")
        exam.record_until(4)
        assert exam.end()["complete"]
        exam.approve()
        assert {exam.sid} == {path.parent.name for path in room.bucket_files()}
        client.close()
        said = (room.root / "logs" / "broker.log").read_text()
        assert "TLS and access rules are OFF" in said
