"""A room that tests share, and what they look at in it: a session's life, its film, its files."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import httpx

from appliance.evf.format import RecordKind
from appliance.evf.keys import EpochKey, secret_at
from appliance.evf.reader import SegmentReader
from appliance.evf.recipients import RepresentativeKey
from appliance.evf.wraps import open_wrap
from appliance.store.rows import SessionRow
from appliance.store.view import RecordingView
from demo.controller_client import ControllerClient
from demo.room import DemoRoom, DeskPlan, default_desks, wait_until


@contextmanager
def running_room(root: Path, desks: list[DeskPlan] | None = None, **options: Any) -> Iterator[DemoRoom]:
    """A provisioned room with all its processes up and every desk ready."""
    with DemoRoom(root, desks=desks or default_desks(), duration_s=600, **options) as room:
        room.set_up()
        room.start()
        client = room.client()
        room.wait_ready(client)
        client.close()
        yield room


@dataclass
class Exam:
    """One desk's session in a running room."""

    room: DemoRoom
    client: ControllerClient
    desk: str
    sid: str

    @classmethod
    def begin(cls, room: DemoRoom, client: ControllerClient, desk: str, code: str, **more: str) -> Exam:
        """Start once the desk can; on a busy machine it may be ready, and a moment later not (409, with the reason)."""
        refused = "it was never ready"
        until_s = time.monotonic() + 60
        while time.monotonic() < until_s:
            wait_until(f"{desk} can start", lambda: room.startable(client, desk), 60)
            try:
                sid = client.post("/api/sessions/start", {"desk": desk, "candidate_code": code, **more})[
                    "sid"
                ]
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.CONFLICT:
                    raise
                refused = error.response.text
                time.sleep(0.5)
                continue
            wait_until(f"{desk} records", lambda: room.recording(client, desk), 60)
            return cls(room, client, desk, sid)
        raise AssertionError(f"{desk} does not start: {refused}")

    @contextmanager
    def view(self) -> Iterator[RecordingView]:
        """The desk's index, read-only."""
        view = RecordingView(self.room.node_folder(self.desk) / "store")
        try:
            yield view
        finally:
            view.close()

    @property
    def row(self) -> SessionRow:
        with self.view() as view:
            row = view.session(self.sid)
        assert row is not None
        return row

    def durable_90k(self) -> int:
        """Where the newest durable fragment ends, 0 before the first."""
        with self.view() as view:
            newest = view.newest_fragment(self.sid)
        return 0 if newest is None else newest.time_90k_end

    def event_kinds(self) -> list[str]:
        """Kinds of the session's event leaves, in order."""
        with self.view() as view:
            return [event.body["kind"] for event in view.events(self.sid)]

    def leaf_count(self) -> int:
        """Leaves of the session so far."""
        with self.view() as view:
            return view.leaf_count(self.sid)

    def record_until(self, seconds: float) -> None:
        """Wait until that much of the session's time is durable."""
        wait_until(f"{seconds:.0f} s durable", lambda: self.durable_90k() >= seconds * 90_000, seconds + 60)

    def end(self) -> dict[str, Any]:
        """End it and wait for the certificate; returns the end-of-exam row."""
        self.client.post(f"/api/sessions/{self.sid}/end")
        wait_until("the certificate", lambda: bool(self.client.session(self.sid)["certified"]), 60)
        return self.client.session(self.sid)

    def approve(self) -> None:
        """Approve, gaps and all, and wait until everything was read back."""
        self.client.post(f"/api/sessions/{self.sid}/approve", {"accept_gaps": True})
        wait_until("synced", lambda: self.client.session(self.sid)["state"] in {"synced", "purged"}, 60)

    def manifest(self) -> dict[str, Any]:
        """The signed manifest's body on the node."""
        path = self.room.node_folder(self.desk) / "store" / "manifests" / f"{self.sid}.json"
        body = json.loads(path.read_text())
        return dict(body.get("body", body))

    def plaintext(self, track: str = "video") -> Iterator[tuple[RecordKind, bytes]]:
        """Every record of a track, opened with the representative's key as the institution would."""
        store = self.room.node_folder(self.desk) / "store"
        passphrase = self.room.passphrase_file.read_text().strip()
        key_file = self.room.root / "keys" / "representative.key"
        representative = RepresentativeKey.load(key_file.read_bytes(), passphrase)
        cls = "media" if track == "video" else "log"
        keys: dict[int, EpochKey] = {}
        with self.view() as view:
            segments = view.segments(self.sid)
        for segment in segments:
            if segment.track != track:
                continue
            if segment.epoch not in keys:
                evk = store / "wraps" / f"{self.sid}.{segment.epoch}.{cls}.evk"
                keys[segment.epoch] = open_wrap(evk.read_bytes(), representative, None)
            key = keys[segment.epoch]
            with (store / "segments" / self.sid / segment.name).open("rb") as stream:
                for record in SegmentReader(
                    stream, lambda header, key=key: secret_at(key, header.track, header.seg)
                ):
                    yield record.kind, bytes(record.plaintext)

    def frame_times_s(self) -> list[float]:
        """Session time of every recorded frame."""
        film, started = io.BytesIO(), False
        for kind, data in self.plaintext():
            if kind is RecordKind.FRAGMENT or (kind is RecordKind.INIT and not started):
                film.write(data)
                started = True
        film.seek(0)
        with av.open(film) as container:
            return [float(frame.time) for frame in container.decode(container.streams.video[0])]


def longest_silence_s(times_s: list[float]) -> float:
    """The longest time between two neighbouring frames."""
    return max(later - earlier for earlier, later in pairwise(times_s))
