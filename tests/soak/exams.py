"""One desk's exams, again and again, by a proctor who tries again when the room does not answer."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from appliance.evf.recipients import RepresentativeKey
from appliance.evidence.manifest import verify_manifest
from appliance.trust import load_certificate, load_public_key
from demo.room import DemoFailed
from tests.soak.accounting import Account, Files, account_for
from tests.soak.books import Books
from tests.soak.observer import Observer
from tests.soak.site import SoakClient, SoakRoom, today

POLL_S = 0.7
# An idle camera process looks for what may go every 30 s.
PURGE_PAUSE_S = 45.0
APPROVED, HELD = 0.8, 0.14  # the rest is never decided
MOST_UNDECIDED = 3
EXAMS_A_PURGE = 3


class DeskExams(threading.Thread):
    """`exam_s`: shortest and longest. `control`: a sealed segment is removed behind the product's back."""

    def __init__(
        self,
        room: SoakRoom,
        observer: Observer,
        client: SoakClient,
        books: Books,
        representative: RepresentativeKey,
        dice: random.Random,
        exam_s: tuple[float, float],
        patience_s: float,
        control: bool = False,
    ) -> None:
        super().__init__(daemon=True, name=f"exams-{observer.desk}")
        self.desk = observer.desk
        self._room = room
        self._observer = observer
        self._client = client
        self._books = books
        self._representative = representative
        self._dice = dice
        self._exam_s = exam_s
        self._patience_s = patience_s
        self._control = control
        self._held: list[str] = []
        self._undecided = 0
        self._number = 0
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            self._one_exam()
            if self._number % EXAMS_A_PURGE == 0:
                self._wait_for_purge()
            self._stopping.wait(self._dice.uniform(1, 6))

    def ask_to_stop(self) -> None:
        """End the exam under way and decide about it."""
        self._stopping.set()

    def close(self) -> None:
        """Give the connection to the room back."""
        self._client.close()

    def settle(self, sid: str) -> Account:
        """At the end: what is in the storage is pulled, all else is opened on the desk."""
        if self.is_stored(sid):
            self._account_for_storage(sid)
        if sid not in self._books.accounts:
            store = self._room.store(self.desk)
            manifest_file = store / "manifests" / f"{sid}.json"
            manifest = self._manifest(manifest_file.read_bytes()) if manifest_file.exists() else None
            noted = self._observer.sessions[sid]
            self._books.close(account_for(noted, Files.local(store, sid), manifest, self._representative))
        return self._books.accounts[sid]

    def entry(self, sid: str) -> dict[str, Any] | None:
        """The room's row of a session; None while the room does not answer, and for one that never started."""
        return next((entry for entry in self._sessions() or () if entry["sid"] == sid), None)

    # --- one exam -----------------------------------------------------------------------------------------------------

    def _one_exam(self) -> None:
        self._number += 1
        sid = self._start()
        if sid is None:
            return
        self._books.count("begun")
        self._stopping.wait(self._dice.uniform(*self._exam_s))
        if not self._until(lambda: self._asked_to_end(sid) or self._never_began(sid), self._patience_s):
            self._books.wait_for(sid, "the room did not take its end")
            return
        if not self._until(lambda: self._is_certified(sid) or self._never_began(sid), self._patience_s):
            self._books.wait_for(sid, "not certified in time")
            return
        if self._never_began(sid):
            self._books.count("refused by the desk")
            return
        self._books.count("certified")
        if self._control:
            self._control = False
            self._remove_a_segment(sid)
        self._decide(sid)

    def _decide(self, sid: str) -> None:
        throw = self._dice.random()
        if throw < APPROVED or self._undecided >= MOST_UNDECIDED:
            self._approve(sid)
        elif throw < APPROVED + HELD:
            if self._until(
                lambda: self._post(f"/api/sessions/{sid}/hold", {"reason": "the board decides"}), 60
            ):
                self._books.count("held")
            self._held.append(sid)
        else:
            self._undecided += 1
            self._books.count("left undecided")
        if len(self._held) > 1:
            self._books.count("released after a hold")
            self._approve(self._held.pop(0))

    def _approve(self, sid: str) -> None:
        if not self._until(lambda: self._is_approved(sid), self._patience_s):
            self._books.wait_for(sid, "the room did not take its approval")
            return
        self._books.count("approved")
        in_storage = self._until(lambda: self.is_stored(sid), self._patience_s)
        if not in_storage or not self._until(lambda: self._account_for_storage(sid), self._patience_s):
            self._books.wait_for(sid, "not in the storage in time")

    def _start(self) -> str | None:
        if self._room.policy_day != today():
            self._room.renew_policy()
        until = time.monotonic() + self._patience_s
        attempt = 0
        while time.monotonic() < until and not self._stopping.is_set():
            attempt += 1
            code = f"soak-{self.desk}-{self._number}-{attempt}"
            body = {"desk": self.desk, "candidate_code": code}
            try:
                return str(self._client.post("/api/sessions/start", body)["sid"])
            except httpx.HTTPStatusError:
                self._stopping.wait(2 * POLL_S)  # the desk is not ready, and the room says why
            except httpx.HTTPError:
                self._stopping.wait(POLL_S)
                begun = [entry["sid"] for entry in self._sessions() or () if entry["candidate"] == code]
                if begun:
                    return str(begun[0])
        return None

    def _asked_to_end(self, sid: str) -> bool:
        entry = self.entry(sid)
        if entry is not None and entry["ended_at"] is None:
            self._post(f"/api/sessions/{sid}/end", {})
            entry = self.entry(sid)
        return entry is not None and entry["ended_at"] is not None

    def _never_began(self, sid: str) -> bool:
        """The desk refused to start: the room lists it no more, and the observer never saw it."""
        sessions = self._sessions()
        return sessions is not None and all(entry["sid"] != sid for entry in sessions)

    def _is_certified(self, sid: str) -> bool:
        entry = self.entry(sid)
        return entry is not None and entry["certified"] and entry["problem"] is None

    def _is_approved(self, sid: str) -> bool:
        entry = self.entry(sid)
        if entry is None or entry["approved_by"]:
            return entry is not None
        self._books.approve(sid)
        return self._post(f"/api/sessions/{sid}/approve", {"accept_gaps": True})

    def is_stored(self, sid: str) -> bool:
        """Whether the room says that the storage has all of it."""
        entry = self.entry(sid)
        return entry is not None and entry["state"] in ("synced", "purged")

    def _account_for_storage(self, sid: str) -> bool:
        """Pull it as the institution does, open it, compare; False while the storage does not answer."""
        folder = self._room.root / "pulled"
        try:
            self._room.invigil("archive", "pull", sid, "--out", folder, "--config", self._room.archive_toml)
        except DemoFailed:
            return False
        noted = self._observer.sessions[sid]
        manifest = self._manifest((folder / sid / "manifest.json").read_bytes())
        account = account_for(noted, Files.pulled(folder / sid), manifest, self._representative)
        self._books.close(account)
        if not account.lost and not account.damage:
            self._observer.forget(sid)
            shutil.rmtree(folder / sid)
        return True

    def _manifest(self, data: bytes) -> Any:
        trust = self._room.root / "room" / "trust"
        return verify_manifest(
            data, load_certificate(trust / "room-ca.pem", ""), load_public_key(trust / "controller.pub")
        )

    def _wait_for_purge(self) -> None:
        """Not longer than that: a desk keeps the room's time, by which it goes, every 10 minutes only."""

        def gone() -> bool:
            sessions = self._observer.sessions
            return all(
                sessions[sid].local_copy == "purged"
                for sid, account in list(self._books.accounts.items())
                if account.desk == self.desk and account.where == "storage"
            )

        self._until(gone, PURGE_PAUSE_S, even_if_stopping=False)

    def _remove_a_segment(self, sid: str) -> None:
        """The control: what no part of the product does."""
        folder = self._room.store(self.desk) / "segments" / sid
        sorted(folder.glob("*-video-*.evf"))[0].unlink()
        self._books.count("segments removed")

    # --- asking -------------------------------------------------------------------------------------------------------

    def _sessions(self) -> list[dict[str, Any]] | None:
        try:
            found: list[dict[str, Any]] = self._client.get("/api/room")["sessions"]
        except httpx.HTTPStatusError as error:
            if error.response.status_code == 401:
                self._client.close()
                self._client = self._room.client()
            return None
        except httpx.HTTPError:
            return None
        return found

    def _post(self, path: str, body: dict[str, Any]) -> bool:
        try:
            self._client.post(path, body)
        except httpx.HTTPError:
            return False
        return True

    def _until(self, true: Callable[[], bool], limit_s: float, even_if_stopping: bool = True) -> bool:
        until = time.monotonic() + limit_s
        while time.monotonic() < until and (even_if_stopping or not self._stopping.is_set()):
            if true():
                return True
            time.sleep(POLL_S)
        return False
