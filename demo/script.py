"""The demo's story: a whole exam, step by step, each step checked; the figures go into summary.json."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from demo.controller_client import ControllerClient
from demo.room import DemoFailed, DemoRoom, wait_until
from demo.screens import Screens

EXAM_S = 90
# Models are loaded and the first rates reported within this time.
SETTLED_S = 5
SEGMENT_NAME = "0-video-0.evf"


class Story:
    """Runs the steps in order; `figures` is what was measured and proven."""

    def __init__(
        self, room: DemoRoom, console: Console, exam_s: int = EXAM_S, picture: Path | None = None
    ) -> None:
        self._room = room
        self._console = console
        self._exam_s = exam_s
        self._picture = picture
        self._begun = time.monotonic()
        self._sids: dict[str, str] = {}
        self.figures: dict[str, Any] = {"exam_s": exam_s, "desks": len(room.desks), "proven": []}

    def run(self) -> None:
        """All of it; raises DemoFailed at the first thing that is not true."""
        room = self._room
        with self._step("keys, certificates and settings made by the product's own commands"):
            room.set_up()
        with self._step("storage, broker, controller and three desks started"):
            room.start()
            self._say_broker()
        client = room.client()
        with self._step("every desk checked its camera, clock and disk and is ready"):
            room.wait_ready(client)
        with Screens(room, self._console, self._picture) as screens:
            self._exam(client, screens)
            self._end(client, screens)
            self._approve_two(client, screens)
        self._archive()
        self.figures["total_s"] = round(time.monotonic() - self._begun, 1)
        client.close()

    # --- steps --------------------------------------------------------------------------------------------------------

    def _exam(self, client: ControllerClient, screens: Screens) -> None:
        room = self._room
        with self._step("exam started at all desks by a signed command"):
            answer = client.post("/api/sessions/start", {"all": True, "candidate_code": "cand"})
            refused = [outcome for outcome in answer["outcomes"] if outcome["refused"]]
            require(not refused, f"a desk refused to start: {refused}")
            self._sids = {outcome["desk"]: outcome["sid"] for outcome in answer["outcomes"]}
            for desk in self._sids:
                wait_until(f"{desk} records", lambda desk=desk: room.recording(client, desk), 20)  # type: ignore[misc]
        tiles = self._watch(client, screens)
        ages = [tile["recording_age_s"] or 0 for tile in tiles]
        self.figures["oldest_fragment_age_s"] = max(ages)
        self._proven(
            f"recorded {self._exam_s} s at all desks; newest durable fragment never over {max(ages)} s old"
        )
        assessed = sum(tile["level"] is not None for tile in tiles) / len(tiles)
        require(assessed > 0.9, f"face and gaze were assessed only {assessed:.0%} of the time")
        seen = {desk: client.get(f"/api/desks/{desk}")["observations"] for desk in self._sids}
        self.figures["assessed_share"] = round(assessed, 3)
        self.figures["observations_in_room"] = {desk: len(found) for desk, found in seen.items()}
        self._proven(f"faces and gaze assessed {assessed:.0%} of the time, on the desks themselves")
        for desk, found in seen.items():
            words = sorted(
                {f"{each['words']}, {each['duration_s']:.0f} s" for each in found if not each["technical"]}
            )
            self._console.print(f"      {desk}: {'; '.join(words) or 'nothing observed'}", highlight=False)
        before = len(room.bucket_files())
        require(before == 0, f"{before} objects lay in the bucket before any approval")
        self._proven("nothing reached the storage before an approval")

    def _watch(self, client: ControllerClient, screens: Screens) -> list[dict[str, Any]]:
        """Look at the room once a second until the exam's time is over; every tile that was seen after the start."""
        seen: list[dict[str, Any]] = []
        begun = time.monotonic()
        shots = {0.2: "room", 0.5: "desk", 0.8: "room-dark"}
        with Progress(
            TextColumn("      exam"), BarColumn(), TextColumn("{task.fields[now]}"), TimeRemainingColumn(),
            console=self._console, transient=True,
        ) as bar:  # fmt: skip
            task = bar.add_task("exam", total=self._exam_s, now="")
            while (elapsed := time.monotonic() - begun) < self._exam_s:
                tiles = client.get("/api/room")["tiles"]
                if elapsed > SETTLED_S:
                    seen += tiles
                oldest_s = max(tile["recording_age_s"] or 0 for tile in tiles)
                bar.update(task, completed=elapsed, now=f"newest fragments at most {oldest_s} s old")
                for share in [share for share in shots if elapsed > share * self._exam_s]:
                    screens.take(shots.pop(share))
                time.sleep(1)
        return seen

    def _end(self, client: ControllerClient, screens: Screens) -> None:
        with self._step("exam ended; each desk closed, signed its manifest and had it witnessed"):
            client.post("/api/sessions/end")
            for desk, sid in self._sids.items():
                wait_until(f"{desk} is certified", lambda sid=sid: client.session(sid)["certified"], 30)  # type: ignore[misc]
        sessions = [client.session(sid) for sid in self._sids.values()]
        complete = sum(session["complete"] for session in sessions)
        require(complete == len(sessions), f"only {complete} recordings are complete: {sessions}")
        self._proven(f"{complete} of {len(sessions)} recordings complete, no gap")
        screens.take("end")

    def _approve_two(self, client: ControllerClient, screens: Screens) -> None:
        room = self._room
        first, second, third = self._sids
        with self._step("two sessions approved, the third held with a reason"):
            client.post(
                f"/api/sessions/{self._sids[third]}/hold", {"reason": "seat was empty; the board decides"}
            )
            for desk in (first, second):
                client.post(f"/api/sessions/{self._sids[desk]}/approve")
        with self._step("both sent to the bucket, read back, and confirmed to their desks"):
            for desk in (first, second):
                wait_until(f"{desk} is synced", lambda desk=desk: self._synced(client, desk), 60)  # type: ignore[misc]
        held = [path for path in room.bucket_files() if self._sids[third] in str(path)]
        approved = {sid for path in room.bucket_files() for sid in self._sids.values() if sid in str(path)}
        require(not held, f"objects of the held session lie in the bucket: {held}")
        require(approved == {self._sids[first], self._sids[second]}, "other sessions lie in the bucket")
        self.figures["objects"] = len(room.bucket_files())
        self.figures["uploaded_bytes"] = sum(path.stat().st_size for path in room.bucket_files())
        self._proven(
            f"{self.figures['objects']} objects of the two approved sessions lie in the bucket, none of the third"
        )
        screens.take("synced")

    def _archive(self) -> None:
        room, root = self._room, self._room.root
        first, second, _ = self._sids.values()
        config = ("--config", room.archive_toml)
        key = ("--key", root / "keys" / "representative.key", "--passphrase-file", room.passphrase_file)
        with self._step("the institution lists and pulls both sessions"):
            listing = room.invigil("archive", "list", *config).stdout
            for sid in (first, second):
                require(sid in listing, f"session {sid} is not in the list")
                room.invigil("archive", "pull", sid, "--out", root / "pulled", *config)
        with self._step("chain, signatures, approval and every digest of both verified"):
            for sid in (first, second):
                room.invigil("archive", "verify", root / "pulled" / sid, *config)
        with self._step("both opened with the representative's key"):
            room.invigil(
                "archive", "open", root / "pulled" / second, *key, *config, "--out", root / "second.mp4"
            )
            (root / "second.mp4").unlink()
            (root / "pulled" / first).rename(root / "session")
            shutil.rmtree(root / "pulled")
            room.invigil(
                "archive", "open", root / "session", *key, *config, "--out", root / "exam.mp4",
                "--events", root / "events.json",
            )  # fmt: skip
            room.invigil("archive", "report", root / "session", *key, *config, "--out", root / "report.html")
        self._check_film(root / "exam.mp4")
        self._check_refusals(root, config, key)

    def _check_film(self, film: Path) -> None:
        import av

        with av.open(str(film)) as container:
            stream = container.streams.video[0]
            frames = [float(frame.time or 0) for frame in container.decode(stream)]
            size = f"{stream.width}x{stream.height}"
        length_s = frames[-1] - frames[0]
        require(abs(length_s - self._exam_s) < 15, f"the film is {length_s:.1f} s long")
        self.figures["film"] = {"seconds": round(length_s, 1), "frames": len(frames), "size": size}
        events = json.loads((self._room.root / "events.json").read_text())
        self.figures["observations"] = len(events["observations"])
        self._proven(f"exam.mp4 plays: {length_s:.1f} s, {len(frames)} frames, {size}")

    def _check_refusals(self, root: Path, config: tuple[Any, ...], key: tuple[Any, ...]) -> None:
        """A changed bit and a key that is not a recipient's are both refused."""
        room, altered = self._room, root / "altered"
        shutil.rmtree(altered, ignore_errors=True)
        shutil.copytree(root / "session", altered)
        segment = next(altered.rglob(SEGMENT_NAME))
        data = bytearray(segment.read_bytes())
        data[len(data) // 2] ^= 1
        segment.write_bytes(data)
        answer = room.invigil("archive", "verify", altered, *config, check=False)
        require(
            answer.returncode == 7 and SEGMENT_NAME in answer.stderr,
            f"one changed bit was not refused: {answer.stderr}",
        )
        self._proven(
            f"one changed bit is refused: {answer.stderr.splitlines()[0].removeprefix('invigil: error: ')}"
        )
        stranger = root / "stranger"
        room.invigil(
            "keys",
            "representative",
            "--name",
            "stranger",
            "--out",
            stranger,
            "--passphrase-file",
            room.passphrase_file,
        )
        answer = room.invigil(
            "archive", "open", root / "session", "--key", stranger / "representative.key", *key[2:], *config,
            "--out", root / "stranger.mp4", check=False,
        )  # fmt: skip
        require(
            answer.returncode != 0 and not (root / "stranger.mp4").exists(),
            "a stranger's key opened the session",
        )
        self._proven("a key that is not a recipient's opens nothing")
        shutil.rmtree(altered)
        shutil.rmtree(stranger)

    # --- small things -------------------------------------------------------------------------------------------------

    def _synced(self, client: ControllerClient, desk: str) -> bool:
        return bool(client.session(self._sids[desk])["state"] in {"synced", "purged"})

    def _say_broker(self) -> None:
        if self._room.embedded_broker:
            self._console.print(
                "      no mosquitto here: an embedded broker on loopback, without TLS, stands in for it"
            )

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        begun = time.monotonic()
        with self._console.status(f"{what} …"):
            yield
        self._console.print(
            f"[green]  ok[/]  {what} [dim]({time.monotonic() - begun:.1f} s)[/]", highlight=False
        )

    def _proven(self, what: str) -> None:
        self.figures["proven"].append(what)
        self._console.print(f"[cyan]  ->[/]  {what}", highlight=False)


def require(true: bool, otherwise: str) -> None:
    """Raise DemoFailed unless true."""
    if not true:
        raise DemoFailed(otherwise)
