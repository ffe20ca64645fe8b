"""Unix-socket link between the three processes of a node: JSON lines, camera is the server.

The link only wakes and forwards; the truth is in the two databases. A slow or dead peer never holds up the camera: what
waits for it is bounded in bytes and the newest message is dropped and counted. One that floods waits in its own socket.

    inference -> camera   observation {key, report: ObservationReport} · inference {rate_hz}, or {problem}
                          · listening {problem or None}
    sync -> camera        wake (the ledger changed) · watch {mode: still|live, lease_s} · replay
    camera -> inference   session {sid or None, face, gaze, voice, started_mono_ns, levels, policy, accommodations}
    camera -> sync        durable {sid} · observation {sid, number, report} · preview {jpeg: base64}, to who watches
                          · facts {camera_open, camera_problem, light_on, inference_rate_hz, faults}
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Message = dict[str, Any]
MAX_LINE_BYTES = 1 << 20
# A thousand replayed observations of 3 kB, or some seconds of live pictures for a peer that stands still.
MAX_WAITING_BYTES = 4 << 20
# Sync, inference and what a person looks in with; more than that is a peer gone wrong.
MAX_PEERS = 16
# Our processes say some ten messages a second, and a thousand at once after a restart. A reader thread that took as
# much as a broken peer sends would take the interpreter from the encoder.
MAX_MESSAGES_PER_S = 200
MAX_BURST_MESSAGES = 2000
# An accept that fails (out of descriptors) is tried again.
ACCEPT_RETRY_S = 0.1

_numbers = itertools.count(1)


def encode_line(message: Message) -> bytes:
    """A message as it goes over the link."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class _Pace:
    """A token bucket: how long to wait after each message so that `rate_hz` is kept in the long run."""

    def __init__(self, rate_hz: float, burst: int) -> None:
        self._rate_hz = rate_hz
        self._burst = burst
        self._left = float(burst)
        self._at_s = 0.0

    def delay_s(self, now_s: float) -> float:
        """Takes one message; 0 while the burst lasts."""
        self._left = min(self._burst, self._left + (now_s - self._at_s) * self._rate_hz) - 1
        self._at_s = now_s
        return max(0.0, -self._left / self._rate_hz)


class Peer:
    """One end of one connection: a reader thread, a writer thread and a bounded queue between.

    `number` differs from every other peer's of this process; `dropped` counts messages it was too slow for.
    """

    def __init__(
        self,
        connection: socket.socket,
        on_message: Callable[[Peer, Message], None],
        on_close: Callable[[Peer], None] = lambda _peer: None,
    ) -> None:
        self.number = next(_numbers)
        self.dropped = 0
        self.closed = threading.Event()
        self._connection = connection
        self._on_message = on_message
        self._on_close = on_close
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()

    def start(self) -> None:
        """Begin to read and write."""
        threading.Thread(target=self._write, daemon=True, name="local-write").start()
        threading.Thread(target=self._read, daemon=True, name="local-read").start()

    def send(self, message: Message) -> bool:
        """Queue a message; False if the peer is too slow or gone. Never blocks."""
        return self.send_line(encode_line(message))

    def send_line(self, line: bytes) -> bool:
        """As `send`, for a message that `encode_line` made."""
        with self._changed:
            if self.closed.is_set():
                return False
            if self._waiting_bytes + len(line) > MAX_WAITING_BYTES:
                self.dropped += 1
                return False
            self._waiting.append(line)
            self._waiting_bytes += len(line)
            self._changed.notify()
        return True

    def close(self) -> None:
        """End the connection; both threads finish."""
        with self._changed:
            self.closed.set()
            self._changed.notify()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        pace = _Pace(MAX_MESSAGES_PER_S, MAX_BURST_MESSAGES)
        try:
            with self._connection.makefile("rb") as lines:
                while line := lines.readline(MAX_LINE_BYTES):
                    if not line.endswith(b"\n"):
                        # Too long, or cut off by the peer's death: a half message is none.
                        break
                    message = json.loads(line)
                    if isinstance(message, dict) and isinstance(message.get("type"), str):
                        self._on_message(self, message)
                    self.closed.wait(pace.delay_s(time.monotonic()))
        except (OSError, ValueError, OverflowError, RecursionError) as error:
            log.debug("local.read_ended reason=%s", error)
        finally:
            self.close()
            self._on_close(self)

    def _write(self) -> None:
        try:
            while (line := self._next_line()) is not None:
                self._connection.sendall(line)
        except OSError as error:
            log.debug("local.write_ended reason=%s", error)
        finally:
            self.close()
            self._connection.close()

    def _next_line(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.closed.is_set())
            if self.closed.is_set():
                return None
            line = self._waiting.popleft()
            self._waiting_bytes -= len(line)
            return line


class LocalServer:
    """The camera's end: peers of the same user or group. Callbacks run in the peers' threads."""

    def __init__(
        self,
        path: Path,
        on_message: Callable[[Peer, Message], None],
        on_connect: Callable[[Peer], None],
        on_close: Callable[[Peer], None] = lambda _peer: None,
    ) -> None:
        self._path = path
        self._on_message = on_message
        self._on_connect = on_connect
        self._on_close = on_close
        self._peers: list[Peer] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o660)
        self._listener.listen(8)
        threading.Thread(target=self._accept, daemon=True, name="local-accept").start()

    def broadcast(self, message: Message) -> None:
        """Send to every peer that can take it. Never blocks."""
        line = encode_line(message)
        for peer in self._living():
            peer.send_line(line)

    def close(self) -> None:
        """Stop listening and drop all peers."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._living():
            peer.close()
        self._path.unlink(missing_ok=True)

    def _living(self) -> list[Peer]:
        with self._lock:
            self._peers = [peer for peer in self._peers if not peer.closed.is_set()]
            return list(self._peers)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if not self._closing.wait(ACCEPT_RETRY_S):
                    log.warning("local.accept_failed reason=%s", error)
                continue
            if len(self._living()) >= MAX_PEERS:
                log.warning("local.too_many_peers")
                connection.close()
                continue
            peer = Peer(connection, self._on_message, self._on_close)
            with self._lock:
                self._peers.append(peer)
            # What is said on connecting goes out before any answer to what the peer says first.
            self._on_connect(peer)
            peer.start()
            if self._closing.is_set():
                peer.close()


class LocalClient:
    """The other processes' end: connects, and connects again whenever the camera process was restarted."""

    def __init__(
        self,
        path: Path,
        on_message: Callable[[Message], None],
        on_connect: Callable[[], None] = lambda: None,
        retry_s: float = 0.5,
    ) -> None:
        self._path = path
        self._on_message = on_message
        self._on_connect = on_connect
        self._retry_s = retry_s
        self._peer: Peer | None = None
        self._stopping = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="local-client").start()

    @property
    def connected(self) -> bool:
        """Whether the camera process is at the other end now."""
        peer = self._peer
        return peer is not None and not peer.closed.is_set()

    def send(self, message: Message) -> bool:
        """Queue a message; False when not connected."""
        peer = self._peer
        return peer is not None and peer.send(message)

    def close(self) -> None:
        """Stop reconnecting and close."""
        self._stopping.set()
        if self._peer is not None:
            self._peer.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            peer = self._connect()
            if peer is not None:
                peer.closed.wait()
            self._stopping.wait(self._retry_s)

    def _connect(self) -> Peer | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            return None
        peer = Peer(connection, lambda _peer, message: self._on_message(message))
        self._peer = peer
        peer.start()
        if self._stopping.is_set():
            # `close` came between and saw the peer before this one.
            peer.close()
        else:
            self._on_connect()
        return peer
