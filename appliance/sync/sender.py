"""The network's edge of the upload: PUTs files exactly as granted, a few at a time, in threads of its own.

A file is held against its digests before a byte of it leaves. A 200 means only "ask again": the controller reads back.
"""

from __future__ import annotations

import logging
import queue
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import httpx

from appliance.protocol import ObjectFacts
from appliance.store.rows import Digests

log = logging.getLogger(__name__)

AT_A_TIME = 3
TIMEOUT_S = 30.0  # of one connect, read or write, not of the whole file
CLOSE_WAIT_S = 1.0
_CHUNK_BYTES = 64 * 1024
_MAX_ANSWER_BYTES = 4096
_ERROR_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")


class Outcome(Enum):
    """What became of one PUT."""

    SENT = "sent"
    LATER = "later"  # network, server or the bytes in transit; a new grant may do
    FORBIDDEN = "forbidden"  # 401 or 403: an alarm
    UNFIT = "unfit"  # the file here is not what it should be; nothing was sent


@dataclass(frozen=True)
class PutJob:
    """One granted PUT. `round_number` is the uploader's; an answer to an older round changes nothing."""

    sid: str
    round_number: int
    facts: ObjectFacts
    content: Path | bytes
    url: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Unfit:
    """Why a file here is not what it should be, and what it is; no `found`: it cannot be read."""

    reason: str
    found: ObjectFacts | None = None


@dataclass(frozen=True)
class PutDone:
    """The end of a PutJob; `reason` in words unless it was sent, `unfit` where the file itself is the reason."""

    sid: str
    round_number: int
    name: str
    outcome: Outcome
    reason: str = ""
    unfit: Unfit | None = None


class SendingStopped(OSError):
    """The process or the round ends; the transfer is cut off."""


class Sender:
    """Three threads and one connection pool. `emit` is called in those threads and must only queue.

    `sent_bytes` counts every byte of content handed to the network. No redirect is followed and no proxy used: bytes go
    to the address that the policy was asked about, or nowhere.
    """

    def __init__(
        self,
        emit: Callable[[PutDone], None],
        *,
        tls: ssl.SSLContext | None = None,
        transport: httpx.BaseTransport | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._emit = emit
        self._stopping = threading.Event()
        self._counting = threading.Lock()
        self.sent_bytes = 0
        self._client = httpx.Client(
            verify=tls if tls is not None else ssl.create_default_context(),
            transport=transport,
            timeout=timeout_s,
            follow_redirects=False,
            trust_env=False,
        )
        self._jobs: queue.SimpleQueue[tuple[PutJob, Callable[[], bool]] | None] = queue.SimpleQueue()
        # Daemons: a server that does not answer must not hold up the end of the process.
        self._threads = [
            threading.Thread(target=self._run, daemon=True, name=f"upload-{number}")
            for number in range(AT_A_TIME)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, job: PutJob, still_wanted: Callable[[], bool] = lambda: True) -> None:
        """Queue a PUT. `still_wanted` is asked before it begins and before every chunk, in a sender's thread."""
        self._jobs.put((job, still_wanted))

    def close(self) -> None:
        """Cut off what is under way; the bucket's content decides at the next start."""
        self._stopping.set()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(CLOSE_WAIT_S)
        self._client.close()

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, still_wanted = item
            if self._stopping.is_set() or not still_wanted():
                continue
            problem = unfit(job.content, job.facts)
            outcome, reason = (Outcome.UNFIT, problem.reason) if problem else self._attempt(job, still_wanted)
            log.info(
                "upload.put sid=%s name=%s outcome=%s reason=%s",
                job.sid,
                job.facts.name,
                outcome.value,
                reason,
            )
            self._emit(PutDone(job.sid, job.round_number, job.facts.name, outcome, reason, problem))

    def _attempt(self, job: PutJob, still_wanted: Callable[[], bool]) -> tuple[Outcome, str]:
        headers = {**job.headers}
        if "content-length" not in {name.lower() for name in headers}:
            # A presigned PUT needs a length: S3 takes no chunked transfer encoding.
            headers["Content-Length"] = str(job.facts.size_bytes)
        try:
            body = self._body(job, still_wanted)
            with self._client.stream("PUT", job.url, headers=headers, content=body) as response:
                status, answer = response.status_code, _beginning(response)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Outcome.LATER, f"storage not reached: {_words(error)} ({type(error).__name__})"
        except OSError as error:
            return Outcome.LATER, f"cut off: {error}"
        if status == 200:
            return Outcome.SENT, ""
        code = _ERROR_CODE.search(answer)
        words = f"storage answered {status}" + (f" {code[1].decode()}" if code else "")
        return (Outcome.FORBIDDEN if status in (401, 403) else Outcome.LATER), words

    def _body(self, job: PutJob, still_wanted: Callable[[], bool]) -> Iterator[bytes]:
        for chunk in _chunks(job.content):
            if self._stopping.is_set() or not still_wanted():
                raise SendingStopped("no longer wanted")
            with self._counting:
                self.sent_bytes += len(chunk)
            yield chunk


def _words(error: httpx.HTTPError | httpx.InvalidURL) -> str:
    match error:
        case httpx.TimeoutException():
            return "it does not answer in time"
        case httpx.ConnectError():
            return "no connection"
        case httpx.NetworkError() | httpx.RemoteProtocolError():
            return "it cut the connection off"
    return "it does not speak as it should"


def unfit(content: Path | bytes, facts: ObjectFacts) -> Unfit | None:
    """Why this content is not the object that the index knows; None if it is."""
    try:
        found = facts_of(facts.name, content)
    except OSError as error:
        return Unfit(f"cannot be read: {(error.strerror or str(error)).lower()}")
    if found.size_bytes != facts.size_bytes:
        return Unfit(f"has {found.size_bytes} bytes, the index says {facts.size_bytes}", found)
    return None if found == facts else Unfit("was altered: its digest is not the index's", found)


def facts_of(name: str, content: Path | bytes) -> ObjectFacts:
    """Size and digests as they are now; OSError if it cannot be read."""
    digests, size_bytes = Digests(), 0
    for chunk in _chunks(content):
        digests.update(chunk)
        size_bytes += len(chunk)
    return ObjectFacts(name=name, size_bytes=size_bytes, md5=digests.md5, sha256=digests.sha256)


def _chunks(content: Path | bytes) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as source:
        while chunk := source.read(_CHUNK_BYTES):
            yield chunk


def _beginning(response: httpx.Response) -> bytes:
    answer = b""
    for chunk in response.iter_bytes(_MAX_ANSWER_BYTES):
        answer += chunk
        if len(answer) >= _MAX_ANSWER_BYTES:
            break
    return answer
