"""The upload's network edge against a real HTTP server: exact requests, resets, slowness, kill and resume."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from appliance.protocol import ObjectFacts
from appliance.store.rows import Digests
from appliance.sync.sender import Outcome, PutDone, PutJob, Sender

pytestmark = pytest.mark.slow
BODY = bytes(range(256)) * 4096  # 1 MiB
SID = "ab" * 16


class Storage:
    """A server whose behaviour a test chooses by path: /ok/…, /reset/…, /slow/…, /redirect/…"""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.received_bytes = 0
        storage = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                storage.put(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_args: None  # type: ignore[method-assign]  # clients that we cut off
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def put(self, request: BaseHTTPRequestHandler) -> None:
        how, name = request.path.split("?")[0].strip("/").split("/")
        self.headers[name] = {key.lower(): value for key, value in request.headers.items()}
        if how == "redirect":
            request.close_connection = True
            request.send_response(307)
            request.send_header("Location", f"{self.address}/ok/stolen")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        left, body = int(request.headers["Content-Length"]), b""
        while left and (chunk := request.rfile.read(min(left, 65536))):
            left -= len(chunk)
            body += chunk
            self.received_bytes += len(chunk)
            if how == "reset":
                request.connection.close()
                request.close_connection = True
                return
            if how == "slow":
                time.sleep(0.05)
        if left:
            return
        self.objects[name] = body
        if how == "silent":
            time.sleep(3)
        request.send_response(200)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def storage() -> Iterator[Storage]:
    made = Storage()
    yield made
    made.close()


@pytest.fixture
def done() -> queue.SimpleQueue[PutDone]:
    return queue.SimpleQueue()


def job(
    storage: Storage, path: Path, how: str, name: str = "0-video-0.evf", times: int = 1, **headers: str
) -> PutJob:
    path.write_bytes(BODY * times)
    digests = Digests()
    digests.update(BODY * times)
    facts = ObjectFacts(name=name, size_bytes=len(BODY) * times, md5=digests.md5, sha256=digests.sha256)
    url = f"{storage.address}/{how}/{name}?X-Amz-Signature=abc%2Fdef"
    return PutJob(SID, 1, facts, path, url, {"Content-MD5": facts.md5, **headers})


def test_put_is_exactly_as_granted(
    storage: Storage, done: queue.SimpleQueue[PutDone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No proxy of the environment is used (F119): the bytes go to the address that the policy was asked about."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    sender = Sender(done.put)
    item = job(storage, tmp_path / "a", "ok", **{"x-amz-object-lock-mode": "COMPLIANCE"})
    sender.put(item)
    assert done.get(timeout=10).outcome is Outcome.SENT
    assert storage.objects["0-video-0.evf"] == BODY
    headers = storage.headers["0-video-0.evf"]
    assert headers["content-md5"] == item.facts.md5
    assert headers["x-amz-object-lock-mode"] == "COMPLIANCE"
    assert headers["content-length"] == str(len(BODY))
    assert "transfer-encoding" not in headers
    assert sender.sent_bytes == len(BODY)
    sender.close()


@pytest.mark.parametrize(
    ("how", "outcome", "words"),
    [
        ("reset", Outcome.LATER, "storage not reached"),
        ("silent", Outcome.LATER, "ReadTimeout"),
        ("redirect", Outcome.LATER, ""),
        ("slow", Outcome.SENT, ""),
    ],
)
def test_network_troubles_are_for_later(
    storage: Storage,
    done: queue.SimpleQueue[PutDone],
    tmp_path: Path,
    how: str,
    outcome: Outcome,
    words: str,
) -> None:
    sender = Sender(done.put, timeout_s=1.0)
    sender.put(job(storage, tmp_path / "a", how))
    result = done.get(timeout=20)
    assert (result.outcome, words in result.reason) == (outcome, True)
    assert "stolen" not in storage.objects
    sender.put(job(storage, tmp_path / "b", "ok", "next.evf"))  # the next one goes on
    assert done.get(timeout=10) == PutDone(SID, 1, "next.evf", Outcome.SENT)
    sender.close()


def test_storage_that_is_not_there_is_for_later(done: queue.SimpleQueue[PutDone], tmp_path: Path) -> None:
    gone = Storage()
    gone.close()
    sender = Sender(done.put)
    sender.put(job(gone, tmp_path / "a", "ok"))
    assert "ConnectError" in done.get(timeout=10).reason
    sender.close()


def test_unfit_file_sends_no_byte(storage: Storage, done: queue.SimpleQueue[PutDone], tmp_path: Path) -> None:
    sender = Sender(done.put)
    for spoil, words in (
        (lambda path: path.write_bytes(BODY[:-1]), f"has {len(BODY) - 1} bytes"),
        (lambda path: path.write_bytes(BODY[:-1] + b"x"), "was altered"),
        (lambda path: path.unlink(), "cannot be read"),
    ):
        item = job(storage, tmp_path / "a", "ok")
        spoil(tmp_path / "a")
        sender.put(item)
        result = done.get(timeout=10)
        assert (result.outcome, words in result.reason) == (Outcome.UNFIT, True)
    assert (sender.sent_bytes, storage.headers) == (0, {})
    sender.close()


def test_three_at_a_time(storage: Storage, done: queue.SimpleQueue[PutDone], tmp_path: Path) -> None:
    sender = Sender(done.put)
    for number in range(4):
        sender.put(job(storage, tmp_path / str(number), "slow", f"{number}.evf"))
    first = done.get(timeout=20)
    assert first.name != "3.evf"
    for _ in range(3):
        done.get(timeout=20)
    assert len(storage.objects) == 4
    sender.close()


def wait_for(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_round_that_is_over_is_cut_off(
    storage: Storage, done: queue.SimpleQueue[PutDone], tmp_path: Path
) -> None:
    sender = Sender(done.put)
    wanted = threading.Event()
    wanted.set()
    sender.put(
        job(storage, tmp_path / "a", "slow", times=32), wanted.is_set
    )  # more than the sockets' buffers hold
    wait_for(lambda: storage.received_bytes > 0)
    sent_before = sender.sent_bytes
    wanted.clear()
    result = done.get(timeout=10)
    assert (result.outcome, "no longer wanted" in result.reason) == (Outcome.LATER, True)
    assert sent_before <= sender.sent_bytes < 32 * len(BODY)
    assert storage.objects == {}
    sender.close()


KILLED = """
import sys, queue
from pathlib import Path
from appliance.protocol import ObjectFacts
from appliance.sync.sender import PutJob, Sender
path, url, md5, sha256 = sys.argv[1:]
facts = ObjectFacts(name="0-video-0.evf", size_bytes=Path(path).stat().st_size, md5=md5, sha256=sha256)
results = queue.SimpleQueue()
Sender(results.put).put(PutJob("ab" * 16, 1, facts, Path(path), url, {"Content-MD5": md5}))
print(results.get().outcome)
"""


def test_killed_in_the_middle_leaves_nothing_and_the_next_start_sends_it(
    storage: Storage, done: queue.SimpleQueue[PutDone], tmp_path: Path
) -> None:
    item = job(storage, tmp_path / "a", "slow")
    arguments = [str(tmp_path / "a"), item.url, item.facts.md5, item.facts.sha256]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments])
    wait_for(lambda: storage.received_bytes > 0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.2)
    assert storage.objects == {}
    sender = Sender(done.put)
    sender.put(item)
    assert done.get(timeout=10).outcome is Outcome.SENT
    assert storage.objects["0-video-0.evf"] == BODY
    sender.close()


def test_close_does_not_wait_for_a_silent_server(
    storage: Storage, done: queue.SimpleQueue[PutDone], tmp_path: Path
) -> None:
    sender = Sender(done.put)
    sender.put(job(storage, tmp_path / "a", "silent"))
    wait_for(lambda: len(storage.objects) == 1)
    began = time.monotonic()
    sender.close()
    assert time.monotonic() - began < 2
