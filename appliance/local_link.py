"""Unix-socket link between the three processes of a node: JSON lines, camera is the server.

The link only wakes and forwards; the truth is in the two databases. A slow or dead peer never holds up the camera: its
queue is bounded and the newest message is dropped and counted.

    inference -> camera   observation {key, report: ObservationReport} · inference {rate_hz}
    sync -> camera        wake (the ledger changed) · watch {mode: still|live, lease_s}
    camera -> inference   session {sid or None, face, gaze, started_mono_ns, levels}
    camera -> sync        durable {sid} · observation {sid, number, report} · preview {jpeg: base64}
                          · facts {camera_open, camera_problem, light_on, inference_rate_hz, faults}
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Message = dict[str, Any]
MAX_LINE_BYTES = 1 << 20
QUEUE_MESSAGES = 256


class Peer:
    """One end of one connection: a reader thread, a writer thread and a bounded queue between."""

    def __init__(self, connection: socket.socket, on_message: Callable[[Peer, Message], None]) -> None:
        self._connection = connection
        self._on_message = on_message
        self._outgoing: queue.Queue[Message | None] = queue.Queue(QUEUE_MESSAGES)
        self.dropped = 0
        self.closed = threading.Event()

    def start(self) -> None:
        """Begin to read and write."""
        threading.Thread(target=self._read, daemon=True, name="local-read").start()
        threading.Thread(target=self._write, daemon=True, name="local-write").start()

    def send(self, message: Message) -> bool:
        """Queue a message; False if the peer is too slow or gone. Never blocks."""
        if self.closed.is_set():
            return False
        try:
            self._outgoing.put_nowait(message)
        except queue.Full:
            self.dropped += 1
            return False
        return True

    def close(self) -> None:
        """End the connection; both threads finish."""
        if self.closed.is_set():
            return
        self.closed.set()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(queue.Full):
            self._outgoing.put_nowait(None)

    def _read(self) -> None:
        try:
            with self._connection.makefile("rb") as lines:
                while line := lines.readline(MAX_LINE_BYTES):
                    message = json.loads(line)
                    if isinstance(message, dict) and isinstance(message.get("type"), str):
                        self._on_message(self, message)
        except (OSError, ValueError) as error:
            log.debug("local.read_ended reason=%s", error)
        self.close()

    def _write(self) -> None:
        try:
            while not self.closed.is_set() and (message := self._outgoing.get()) is not None:
                self._connection.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            log.debug("local.write_ended reason=%s", error)
        self.close()
        self._connection.close()


class LocalServer:
    """The camera's end: any number of peers of the same user or group."""

    def __init__(
        self, path: Path, on_message: Callable[[Peer, Message], None], on_connect: Callable[[Peer], None]
    ) -> None:
        self._path = path
        self._on_message = on_message
        self._on_connect = on_connect
        self._peers: list[Peer] = []
        self._lock = threading.Lock()
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o660)
        self._listener.listen(8)
        threading.Thread(target=self._accept, daemon=True, name="local-accept").start()

    def broadcast(self, message: Message) -> None:
        """Send to every peer that can take it."""
        with self._lock:
            self._peers = [peer for peer in self._peers if not peer.closed.is_set()]
            peers = list(self._peers)
        for peer in peers:
            peer.send(message)

    def close(self) -> None:
        """Stop listening and drop all peers."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for peer in self._peers:
                peer.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            peer = Peer(connection, self._on_message)
            with self._lock:
                self._peers.append(peer)
            peer.start()
            self._on_connect(peer)


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
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(str(self._path))
            except OSError:
                connection.close()
                self._stopping.wait(self._retry_s)
                continue
            peer = Peer(connection, lambda _peer, message: self._on_message(message))
            self._peer = peer
            peer.start()
            self._on_connect()
            while not peer.closed.wait(self._retry_s) and not self._stopping.is_set():
                pass
