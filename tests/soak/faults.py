"""Carries out a plan of faults on a running room, and heals what is still ill at the end."""

from __future__ import annotations

import heapq
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path

import httpx
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from appliance.clock import SystemClock, utc_text
from appliance.config import RoomConfig, load_config
from appliance.protocol import ClockMessage, clock_topic, encode
from appliance.room.broker import CONTROLLER_NAME
from appliance.room.link import tls_context
from demo.clips import MOVING_PERSON, STILL_PERSON
from demo.room import ROOM
from tests.soak.plan import Fault, name_of
from tests.soak.site import SoakClient, SoakRoom

PATIENCE_S = 5.0
FILLER = "somebody-elses"
Heal = Callable[[], None]


class Faults(threading.Thread):
    """`done` counts by kind, `skipped` what could not be tried (the controller was away); `problems` in words."""

    def __init__(self, room: SoakRoom, plan: list[Fault], guest: SoakClient) -> None:
        super().__init__(daemon=True, name="faults")
        self.done: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.problems: list[str] = []
        self.events_watched = 0
        self._room = room
        self._guest = guest
        self._numbers = count()
        self._due: list[tuple[float, int, Fault | Heal]] = [
            (fault.at_s, next(self._numbers), fault) for fault in plan
        ]
        self._stopping = threading.Event()
        self._watchers: list[threading.Thread] = []

    def run(self) -> None:
        begun = time.monotonic()
        while self._due:
            at_s, _, what = heapq.heappop(self._due)
            if self._stopping.wait(max(0.0, at_s - (time.monotonic() - begun))):
                heapq.heappush(self._due, (at_s, next(self._numbers), what))
                break
            if isinstance(what, Fault):
                self._begin(what)
            else:
                what()

    def stop(self) -> None:
        """No new ones; every process runs, every film and disk is as before."""
        self._stopping.set()
        self.join()
        for _, _, what in sorted(self._due):
            if not isinstance(what, Fault):
                what()
        self._due.clear()
        for watcher in self._watchers:
            watcher.join(40)

    def close(self) -> None:
        """Give the guest's connection back."""
        self._guest.close()

    def _begin(self, fault: Fault) -> None:
        try:
            heal = self._do(fault)
        except (httpx.HTTPError, OSError):
            self.skipped[name_of(fault)] += 1
            return
        self.done[name_of(fault)] += 1
        if heal is not None:
            heapq.heappush(self._due, (fault.at_s + fault.for_s, next(self._numbers), heal))

    def _do(self, fault: Fault) -> Heal | None:
        room = self._room
        match fault.kind:
            case "killed":
                room.process(fault.target).kill()
            case "stopped":
                process = room.process(fault.target)
                os.kill(process.pid, signal.SIGSTOP)
                return partial(_go_on, process.pid)
            case "away":
                process = room.process(fault.target)
                process.hold_down()
                return process.bring_back
            case "unplugged":
                film = room.film(fault.target)
                whole = film.read_bytes()
                os.truncate(film, 0)
                return partial(_replace, film, whole)
            case "film replaced":
                # In place: the camera has the old one open.
                other = STILL_PERSON if fault.at_s % 2 < 1 else MOVING_PERSON
                room.film(fault.target).write_bytes(other.read_bytes())
            case "disk full":
                filler = room.store(fault.target) / FILLER
                fill(filler)
                return partial(filler.unlink, missing_ok=True)
            case "wrong password":
                if not self._guest.is_refused("visitor", "not the password at all"):
                    self.problems.append("a wrong password was not refused")
            case "watched" | "watched live":
                self._watch(fault.for_s, None if fault.target == "room" else fault.target)
            case "false clock":
                self._tell_false_time()
        return None

    def _watch(self, for_s: float, desk: str | None) -> None:
        """A page that is open for a while, in a browser that is logged in already."""

        def look() -> None:
            twin = self._guest.twin()
            with suppress(httpx.HTTPError):
                self.events_watched += twin.watch(for_s, desk)
            twin.close()

        watcher = threading.Thread(target=look, daemon=True, name="watcher")
        watcher.start()
        self._watchers = [*(each for each in self._watchers if each.is_alive()), watcher]

    def _tell_false_time(self) -> None:
        """Somebody with the controller's certificate takes its place at the broker and is an hour ahead."""
        config = load_config(self._room.room_toml, RoomConfig)
        client = mqtt.Client(CallbackAPIVersion.VERSION2, CONTROLLER_NAME, protocol=mqtt.MQTTv5)
        client.tls_set_context(tls_context(config))
        later = utc_text(SystemClock().wall() + timedelta(hours=1))
        client.connect("127.0.0.1", self._room.broker_port)
        # Not paho's own thread: it would connect again, and take the controller's place once more.
        told = client.publish(clock_topic(ROOM), encode(ClockMessage(at=later, life="f" * 16)), qos=1)
        until = time.monotonic() + PATIENCE_S
        try:
            while not told.is_published() and time.monotonic() < until:
                if client.loop(0.2) is not mqtt.MQTT_ERR_SUCCESS:
                    raise ConnectionError("the broker ended the connection")
        finally:
            socket = client.socket()
            if socket is not None:
                socket.close()


def fill(filler: Path) -> None:
    """Take every byte that the disk still gives."""
    with filler.open("ab", buffering=0) as sink, suppress(OSError):
        while free := shutil.disk_usage(filler.parent).free:
            sink.write(b"\xff" * min(free, 1 << 20))


def _go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _replace(film: Path, whole: bytes) -> None:
    fresh = film.with_suffix(".fresh")
    fresh.write_bytes(whole)
    fresh.replace(film)
