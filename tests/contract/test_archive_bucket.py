"""`invigil archive list` and `pull` against a real S3 server (rclone), killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from appliance.archive import pulling
from appliance.archive.cli import app
from appliance.errors import (
    ApplianceError,
    BadInput,
    EvidenceBroken,
    NoSpace,
    Refused,
    StorageUnreachable,
)
from appliance.protocol import object_key
from tests.damaged_sessions import flip, permit, place, remove
from tests.sessions import EXAM, INSTITUTION, SID, Built, Plan, build_session, observation, write_config

pytestmark = pytest.mark.slow
BUCKET = "recordings"
RCLONE = Path(sys.executable).with_name("rclone")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(endpoint, folder whose sub-folders are the buckets)."""
    root = tmp_path_factory.mktemp("s3")
    port = _free_port()
    command = [
        *(RCLONE, "serve", "s3", "--auth-key", "institution,only-for-this-test"),
        *("--addr", f"127.0.0.1:{port}", "--config", "/dev/null", "--dir-cache-time", "0s", root),
    ]
    with (root.parent / "rclone.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}", root
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def stored(server: tuple[str, Path], tmp_path: Path) -> Iterator[Built]:
    """A session as it lies in the bucket; `folder` is where it was built."""
    endpoint, root = server
    plan = Plan(observations=(observation(1, "nobody_at_desk", 2, 8, "red"),))
    built = build_session(tmp_path / "made", plan)
    write_config(built.config.parent, endpoint)
    upload(root, built)
    yield built
    shutil.rmtree(root / BUCKET)


def upload(root: Path, built: Built) -> None:
    for path in built.folder.rglob("*.*"):
        target = root / BUCKET / object_key(INSTITUTION, EXAM, SID, path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def in_bucket(server: tuple[str, Path], name: str) -> Path:
    return server[1] / BUCKET / object_key(INSTITUTION, EXAM, SID, name)


def run(built: Built, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(part) for part in (*arguments, "--config", built.config)])


def failed(result: Result, kind: type[ApplianceError]) -> str:
    assert type(result.exception) is kind, result.exception
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_list_says_what_can_be_pulled(stored: Built, server: tuple[str, Path]) -> None:
    other = server[1] / BUCKET / "sessions" / INSTITUTION / "algebra" / ("ab" * 16)
    other.mkdir(parents=True)
    (other / "0-video-0.evf").write_bytes(b"still being sent")
    (server[1] / BUCKET / "sessions" / "another-institution" / EXAM / SID).mkdir(parents=True)
    lines = run(stored, "list").output.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["incomplete", "algebra", "ab" * 16],
        ["complete", EXAM, SID],
    ]
    assert "11 files" in lines[1]
    assert run(stored, "list", "--exam", EXAM).output.splitlines() == lines[1:]
    shutil.rmtree(server[1] / BUCKET / "wraps")
    assert run(stored, "list", "--exam", EXAM).output.startswith("keys erased")


def test_empty_bucket(stored: Built, server: tuple[str, Path]) -> None:
    shutil.rmtree(server[1] / BUCKET)
    (server[1] / BUCKET).mkdir()
    assert run(stored, "list").output == "no sessions in the storage\n"
    assert SID in failed(run(stored, "pull", SID, "--out", stored.config.parent), BadInput)


def test_pull_verify_open(stored: Built, tmp_path: Path) -> None:
    """F120."""
    pulled = run(stored, "pull", SID, "--out", tmp_path / "pulled")
    assert pulled.exit_code == 0, pulled.exception
    assert f"{tmp_path / 'pulled' / SID}: 9 files fetched, 0 were there" in pulled.output
    folder = tmp_path / "pulled" / SID
    for path in stored.folder.rglob("*.*"):
        assert (folder / path.relative_to(stored.folder)).read_bytes() == path.read_bytes()
    assert run(stored, "verify", folder).exit_code == 0
    keys = ("--key", stored.key, "--passphrase-file", stored.passphrase)
    opened = run(stored, "open", folder, *keys, "--out", tmp_path / "exam.mp4")
    assert opened.exit_code == 0, opened.exception
    assert (tmp_path / "exam.mp4").read_bytes() == stored.film.read_bytes()


def test_pull_goes_on_where_it_stopped(stored: Built, tmp_path: Path) -> None:
    arguments = ("pull", SID, "--out", tmp_path / "pulled")
    assert run(stored, *arguments).exit_code == 0
    segments = tmp_path / "pulled" / SID / "segments"
    (segments / "0-video-1.evf").unlink()
    (segments / "1-video-0.evf").write_bytes(b"cut")
    (segments / ".1-video-1.evf.part").write_bytes(b"left by a kill")
    (segments.parent / "manifest.json").unlink()
    assert "2 files fetched, 7 were there" in run(stored, *arguments).output
    assert run(stored, "verify", segments.parent).exit_code == 0


def test_pull_killed_in_the_middle_leaves_nothing_half_under_its_name(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    """SIGKILL while objects stream in; then the same command again finishes, and fetches only what is missing."""
    endpoint, root = server
    chunk = os.urandom(1 << 20)
    plan = Plan(epochs=1, segments=24, fragments=4, fragment=lambda _second: chunk)
    built = build_session(tmp_path / "made", plan)
    write_config(built.config.parent, endpoint)
    upload(root, built)
    try:
        out = tmp_path / "pulled"
        code = "import sys; from appliance.archive.cli import app; app(sys.argv[1:])"
        arguments = ["pull", SID, "--out", str(out), "--config", str(built.config)]
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(out.glob("*/segments/*.evf"))) < 3:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        whole = {path.name: path for path in out.glob("*/segments/*.evf")}
        assert 3 <= len(whole) < 24
        assert not (out / SID / "manifest.json").exists()
        for name, path in whole.items():
            assert path.read_bytes() == built.segment(name).read_bytes()
        assert "has no manifest.json" in failed(run(built, "verify", out / SID), BadInput)

        again = run(built, "pull", SID, "--out", out)
        assert again.exit_code == 0, again.exception
        # wraps come first, so all of them and the segments that were whole are kept
        kept = len(whole) + len(built.manifest.wraps)
        assert f"{26 - kept} files fetched, {kept} were there" in again.output
        assert run(built, "verify", out / SID).exit_code == 0
        assert not list(out.rglob("*.part"))
    finally:
        shutil.rmtree(root / BUCKET)


def test_replaced_object_is_named_and_the_rest_is_kept(
    stored: Built, server: tuple[str, Path], tmp_path: Path
) -> None:
    path = in_bucket(server, "1-video-0.evf")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    said = failed(run(stored, "pull", SID, "--out", tmp_path / "pulled"), EvidenceBroken)
    assert said.startswith("1-video-0.evf (00:00:42-00:00:48 of the session): the storage's copy is not what")
    names = {path.name for path in (tmp_path / "pulled" / SID / "segments").iterdir()}
    assert names == set(stored.names()) - {"1-video-0.evf"}


@pytest.mark.parametrize("size", [0, 10, 1 << 20])
def test_object_of_another_size(stored: Built, server: tuple[str, Path], tmp_path: Path, size: int) -> None:
    in_bucket(server, "0-video-0.evf").write_bytes(b"x" * size)
    said = failed(run(stored, "pull", SID, "--out", tmp_path / "pulled"), EvidenceBroken)
    assert said.startswith("0-video-0.evf (00:00:00-00:00:06 of the session)")


def test_missing_object(stored: Built, server: tuple[str, Path], tmp_path: Path) -> None:
    in_bucket(server, "0-video-0.evf").unlink()
    said = failed(run(stored, "pull", SID, "--out", tmp_path / "pulled"), EvidenceBroken)
    assert "0-video-0.evf is missing in the storage" in said


DAMAGED, GONE, SHORT = "0-video-1.evf", "1-video-0.evf", "1-video-1.evf"


@pytest.fixture
def damaged(stored: Built, server: tuple[str, Path]) -> Built:
    """The same session sent by a desk on whose disk a bit had flipped, a file was gone and another had lost its end."""
    shutil.copytree(stored.folder / "segments", stored.config.parent / "whole")
    flip(stored, DAMAGED)
    remove(stored, GONE)
    place(stored, SHORT).write_bytes(place(stored, SHORT).read_bytes()[:-100])
    for name in (DAMAGED, SHORT):
        shutil.copy(place(stored, name), in_bucket(server, name))
    in_bucket(server, GONE).unlink()
    return stored


def release_damaged(built: Built, server: tuple[str, Path], *names: str) -> None:
    permit(built, *names)
    shutil.copy(built.folder / "approval.json", in_bucket(server, "approval.json"))


def test_pull_of_what_was_released_as_damaged(
    damaged: Built, server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("pull", SID, "--out", tmp_path / "pulled")
    assert DAMAGED in failed(run(damaged, *arguments), EvidenceBroken)  # control: nobody released it
    release_damaged(damaged, server, DAMAGED, SHORT)
    assert f"{GONE} is missing in the storage" in failed(run(damaged, *arguments), EvidenceBroken)
    release_damaged(damaged, server, DAMAGED, GONE, SHORT)
    folder = tmp_path / "pulled" / SID
    (folder / "segments" / GONE).write_bytes(b"left by a pull under an earlier release")
    for path in (folder / "segments" / DAMAGED, folder / "segments" / SHORT):
        path.unlink(missing_ok=True)
    totals = watch_totals(monkeypatch)
    pulled = run(damaged, *arguments)
    assert pulled.exit_code == 0, pulled.exception
    assert "2 files fetched, 6 were there, all as the manifest says; but for 3 damaged" in pulled.output
    assert totals == [sum(place(damaged, name).stat().st_size for name in (DAMAGED, SHORT))]
    for path in damaged.folder.rglob("*.*"):
        assert (folder / path.relative_to(damaged.folder)).read_bytes() == path.read_bytes()
    assert not (folder / "segments" / GONE).exists()
    said = run(damaged, "verify", folder)
    assert [line.split("  ")[-2] for line in said.output.splitlines() if line.startswith("lost")] == [
        DAMAGED,
        GONE,
        SHORT,
    ]
    keys = ("--key", damaged.key, "--passphrase-file", damaged.passphrase)
    assert run(damaged, "open", folder, *keys, "--out", tmp_path / "exam.mp4").exit_code == 0
    (folder / "manifest.json").unlink()
    (folder / "segments" / DAMAGED).unlink()
    again = run(damaged, *arguments)
    assert "1 files fetched, 7 were there, all as the manifest says; but for 3 damaged" in again.output


def watch_totals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What each pull says that it will fetch, in bytes."""
    totals: list[int] = []
    real = pulling.pull

    def watched(bucket: Any, trust: Any, stored: Any, out: Path, on_total: Any, on_bytes: Any) -> Any:
        return real(bucket, trust, stored, out, totals.append, on_bytes)

    monkeypatch.setattr(pulling, "pull", watched)
    return totals


def test_pull_of_a_whole_object_that_might_have_been_damaged_or_gone(
    damaged: Built, server: tuple[str, Path], tmp_path: Path
) -> None:
    """What the desk had sent before its disk was damaged, or from another copy: the manifest's bytes count as ever."""
    release_damaged(damaged, server, DAMAGED, GONE, SHORT)
    whole = before_damage(damaged)
    for name in (DAMAGED, GONE, SHORT):
        in_bucket(server, name).write_bytes(whole[name])
    pulled = run(damaged, "pull", SID, "--out", tmp_path / "pulled")
    assert pulled.exit_code == 0, pulled.exception
    assert "damaged" not in pulled.output
    assert run(damaged, "verify", tmp_path / "pulled" / SID).exit_code == 0


def before_damage(built: Built) -> dict[str, bytes]:
    """The bytes before the damage."""
    kept = built.config.parent / "whole"
    return {path.name: path.read_bytes() for path in kept.iterdir()}


@pytest.mark.parametrize("name", [DAMAGED, SHORT])
def test_damaged_object_is_missed_unless_it_was_released_as_gone(
    damaged: Built, server: tuple[str, Path], tmp_path: Path, name: str
) -> None:
    release_damaged(damaged, server, DAMAGED, GONE, SHORT)
    in_bucket(server, name).unlink()
    said = failed(run(damaged, "pull", SID, "--out", tmp_path / "pulled"), EvidenceBroken)
    assert f"{name} is missing in the storage" in said


def test_what_was_sent_of_a_file_before_it_was_gone_is_left_in_the_storage(
    damaged: Built, server: tuple[str, Path], tmp_path: Path
) -> None:
    """Nobody released these bytes; they must not shut what was."""
    release_damaged(damaged, server, DAMAGED, GONE, SHORT)
    whole = before_damage(damaged)[GONE]
    for other in (whole[:-1] + bytes([whole[-1] ^ 2]), whole[:-7], b"", whole + b"more"):
        in_bucket(server, GONE).write_bytes(other)
        pulled = run(damaged, "pull", SID, "--out", tmp_path / "pulled")
        assert pulled.exit_code == 0, pulled.exception
        assert not (tmp_path / "pulled" / SID / "segments" / GONE).exists()


@pytest.mark.parametrize("name", [DAMAGED, SHORT])
def test_object_that_is_neither_the_manifests_nor_the_releases(
    damaged: Built, server: tuple[str, Path], tmp_path: Path, name: str
) -> None:
    release_damaged(damaged, server, DAMAGED, GONE, SHORT)
    whole = before_damage(damaged)[name]
    for other in (whole[:-1] + bytes([whole[-1] ^ 2]), whole[:-7], b"", whole + b"more"):
        in_bucket(server, name).write_bytes(other)
        said = failed(run(damaged, "pull", SID, "--out", tmp_path / "pulled"), EvidenceBroken)
        assert said.startswith(f"{name} (00:00:")
        assert not (tmp_path / "pulled" / SID / "segments" / name).exists()
        assert not (tmp_path / "pulled" / SID / "manifest.json").exists()


def test_unnamed_object_is_left_and_said(stored: Built, server: tuple[str, Path], tmp_path: Path) -> None:
    in_bucket(server, "9-video-0.evf").write_bytes(b"from somewhere")
    pulled = run(stored, "pull", SID, "--out", tmp_path / "pulled")
    assert pulled.exit_code == 0
    assert "left in the storage, not named in the manifest: 9-video-0.evf" in pulled.output
    assert not list(tmp_path.glob("pulled/*/*/9-video-0.evf"))


def test_altered_manifest_brings_nothing(stored: Built, server: tuple[str, Path], tmp_path: Path) -> None:
    path = in_bucket(server, "manifest.json")
    path.write_bytes(path.read_bytes().replace(b"C-4711", b"C-4712"))
    assert failed(run(stored, "pull", SID, "--out", tmp_path / "pulled"), EvidenceBroken).startswith(
        "manifest.json"
    )
    assert not (tmp_path / "pulled").exists()


def test_full_disk_is_told_before_anything_is_fetched(
    stored: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _path: SimpleNamespace(total=10**9, used=10**9 - 1000, free=1000)
    )
    assert "MB are needed" in failed(run(stored, "pull", SID, "--out", tmp_path / "pulled"), NoSpace)
    assert not list(tmp_path.glob("pulled/*/*/*"))


def test_session_that_is_still_being_sent(stored: Built, server: tuple[str, Path], tmp_path: Path) -> None:
    in_bucket(server, "manifest.json").unlink()
    assert "is incomplete" in failed(run(stored, "pull", SID, "--out", tmp_path / "pulled"), Refused)


def test_wrong_secret(stored: Built) -> None:
    credentials = stored.config.parent / "storage-credentials.toml"
    credentials.write_text(credentials.read_text().replace("only-for-this-test", "guessed"))
    result = run(stored, "list")
    assert "refused the list of sessions" in failed(result, StorageUnreachable)
    assert "credentials" in result.exception.hint


def test_wrong_bucket(stored: Built) -> None:
    stored.config.write_text(stored.config.read_text().replace(f'"{BUCKET}"', '"elsewhere"'))
    assert "NoSuchBucket" in failed(run(stored, "list"), StorageUnreachable)


def test_nobody_answers(stored: Built) -> None:
    write_config(stored.config.parent, f"http://127.0.0.1:{_free_port()}")
    assert "does not answer" in failed(run(stored, "list"), StorageUnreachable)


def test_connection_lost_in_the_middle_of_an_object(stored: Built, tmp_path: Path) -> None:
    """A storage that promises more bytes than it sends, with a correct manifest and approval."""

    class Breaking(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            source = next(iter(stored.folder.rglob(name)), None) if name else None
            body = _listing(stored) if source is None else source.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:-50] if name == "0-video-0.evf" else body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Breaking)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        write_config(stored.config.parent, f"http://127.0.0.1:{server.server_port}")
        result = run(stored, "pull", SID, "--out", tmp_path / "pulled")
        assert "does not answer" in failed(result, StorageUnreachable)
        assert not (tmp_path / "pulled" / SID / "segments" / "0-video-0.evf").exists()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _listing(built: Built) -> bytes:
    entries = "".join(
        f"<Contents><Key>{object_key(INSTITUTION, EXAM, SID, path.name)}</Key><Size>{path.stat().st_size}</Size>"
        "<LastModified>2026-11-22T12:00:00.000Z</LastModified></Contents>"
        for path in built.folder.rglob("*.*")
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
