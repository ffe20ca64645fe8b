"""The upload of one released session: ask, send what is granted, ask again, until the controller confirms (pure).

A restart asks again: what lies in the bucket decides, not what this node remembers. A file that is not what the index
says is set aside with its reason while the others go on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from appliance.errors import StorageNotAllowed
from appliance.evf.canonical import canonical
from appliance.evidence.manifest import LEAVES_NAME
from appliance.policy import ExamPolicy
from appliance.protocol import (
    APPROVAL_NAME,
    MANIFEST_NAME,
    DamagedFile,
    GrantRequest,
    Grants,
    ObjectFacts,
    Release,
)
from appliance.store.view import RecordingView, SegmentRow, WrapRow
from appliance.sync.sender import Outcome, PutDone, PutJob, Unfit, facts_of

# Of one GrantRequest: 24 hours, the longest exam, in segments of a minute, film and log. 0.7 MB.
MAX_OBJECTS = 4096
ANSWER_TIMEOUT_S = 15.0
MAX_ANSWER_TIMEOUT_S = 60.0  # a controller whose storage is away does not answer
FIRST_WAIT_S = 1.0
MAX_WAIT_S = 60.0
_UNKNOWN = "is missing, or the index says another digest"
_OTHER = "is not as it was when it was released as damaged"
# After an alarm somebody has to look; asking more often would only fill the storage's log.
ALARM_WAIT_S = 60.0


@dataclass(frozen=True)
class UploadFile:
    """One file of the session; `problem` if it is known beforehand that it cannot be sent."""

    facts: ObjectFacts
    content: Path | bytes
    problem: Unfit | None = None


@dataclass(frozen=True)
class Change:
    """What the ledger should know of one object."""

    name: str
    state: str  # "there" | "sent" | "failed" | "quarantined" | "refused"
    reason: str = ""
    attempted: bool = False


def session_files(
    view: RecordingView,
    sid: str,
    approval: Mapping[str, Any],
    manifest: bytes,
    alive: Callable[[], None] = lambda: None,
) -> list[UploadFile]:
    """Everything that goes to the storage: what the manifest names, the approval and the manifest itself.

    A file that the index no longer knows as the manifest does comes with its `problem`. One that was released as
    damaged comes as it was then, or as the manifest says; what may be absent and cannot be read is left out. With
    such files go the session's leaves, so that the witnessed root can be computed without their records. `alive` is
    called after each file that had to be read.
    """
    body = json.loads(manifest)["body"]
    order = Release.model_validate(approval["body"]["order"])
    damaged = {item.name: item for item in order.damaged}
    known: dict[str, tuple[SegmentRow | WrapRow, Path]] = {}
    for segment in view.segments(sid):
        known[segment.name] = (segment, view.layout.segment(sid, segment.name))
    for wrap in view.wraps(sid):
        known[wrap.name] = (wrap, view.layout.wrap(wrap.name))
    files: list[UploadFile] = []
    for entry in (*body["segments"], *body["wraps"]):
        name, size_bytes, sha256 = entry["name"], entry["size_bytes"], entry["sha256"]
        row, path = known.get(name, (None, view.layout.root / name))
        fits = (
            row is not None
            and (row.size_bytes, row.sha256) == (size_bytes, sha256)
            and row.state != "missing"
        )
        facts = ObjectFacts(
            name=name, size_bytes=size_bytes, sha256=sha256, md5=(row.md5 or "") if row else ""
        )
        if fits and name not in damaged:
            files.append(UploadFile(facts, path))
        else:
            files += _looked_at(facts, path, damaged.get(name))
            alive()
    leaves = view.leaves(sid) if damaged else []
    if damaged and len(leaves) == body["leaves"]:
        files.append(_whole(LEAVES_NAME, b"".join(leaves)))
    files.append(_whole(APPROVAL_NAME, canonical(dict(approval))))
    files.append(_whole(MANIFEST_NAME, manifest))
    return files


def _looked_at(recorded: ObjectFacts, path: Path, damaged: DamagedFile | None) -> list[UploadFile]:
    """The file as it lies here, if it may leave like that; none if it may be absent and cannot be read."""
    found = _found(recorded.name, path)
    if found is None and damaged is not None and damaged.sha256 is None:
        return []
    may_be = [(file.size_bytes, file.sha256) for file in (recorded, damaged) if file is not None]
    if found is not None and (found.size_bytes, found.sha256) in may_be:
        return [UploadFile(found, path)]
    return [UploadFile(recorded, path, Unfit(_UNKNOWN if damaged is None else _OTHER, found))]


def _found(name: str, path: Path) -> ObjectFacts | None:
    try:
        return facts_of(name, path)
    except OSError:
        return None


def _whole(name: str, data: bytes) -> UploadFile:
    return UploadFile(facts_of(name, data), data)


def require_allowed(policy: ExamPolicy, url: str) -> None:
    """Raise StorageNotAllowed unless `url`, as both parsers read it, is at an endpoint of the policy's list (F119)."""
    policy.require_upload_url(url)
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise StorageNotAllowed("upload address is malformed", "nothing was sent") from error
    # What would be connected to must be what was checked: two parsers may read one text in two ways.
    policy.require_upload_url(f"{parsed.scheme}://{parsed.netloc.decode('ascii')}/")
    if parsed.userinfo or urlsplit(url).fragment:
        raise StorageNotAllowed("upload address carries more than a place", "nothing was sent")


class Upload:
    """State of one session's upload; times are monotonic nanoseconds. `fault` in words while a person should look."""

    def __init__(
        self,
        room: str,
        desk: str,
        sid: str,
        policy: ExamPolicy,
        files: Sequence[UploadFile],
        set_aside: Mapping[str, Unfit],
    ) -> None:
        """`set_aside`: by name, files that were found unfit before."""
        self.sid = sid
        self.fault = ""
        self.files = {item.facts.name: item for item in files}
        self.set_aside = {item.facts.name: item.problem for item in files if item.problem} | dict(set_aside)
        self.there: set[str] = set()
        self.round_number = 0
        self._place = (room, desk, sid)
        self._policy = policy
        self._outstanding: set[str] = set()
        self._asked_at: int | None = None
        self._answer_timeout_s = ANSWER_TIMEOUT_S
        self._not_before = 0
        self._fruitless = 0
        self._number = 0
        self._moved = False
        self._forbidden = False

    def is_for(self, approval: Mapping[str, Any] | None) -> bool:
        """Whether exactly this approval is what it carries out."""
        content = self.files[APPROVAL_NAME].content
        return approval is not None and content == canonical(dict(approval))

    def step(self, now: int) -> GrantRequest | None:
        """The request to send now, if it is time to ask (again)."""
        if self._outstanding or now < self._not_before:
            return None
        if self._asked_at is not None:
            if now - self._asked_at < self._answer_timeout_s * 1e9:
                return None
            self._answer_timeout_s = min(2 * self._answer_timeout_s, MAX_ANSWER_TIMEOUT_S)
        self._asked_at = now
        # Goes on after a restart: the answer to a question of before it is none to this one.
        self._number = max(self._number + 1, now // 1_000_000)
        # While a person has to decide about a file nothing may claim that the session is complete.
        kept = {*self.set_aside, *([MANIFEST_NAME] if self.set_aside else [])}
        wanted = [item.facts for name, item in self.files.items() if name not in kept]
        # What is still to be sent comes first, should a session have more files than a request holds.
        wanted.sort(key=lambda facts: facts.name in self.there)
        return GrantRequest(sid=self.sid, number=self._number, objects=tuple(wanted[:MAX_OBJECTS]))

    def connection_lost(self) -> None:
        """A question under way may be lost; ask again."""
        self._asked_at = None

    def granted(self, grants: Grants, now: int) -> tuple[list[PutJob], list[Change]]:
        """What to send for these grants. Raises StorageNotAllowed, and sends nothing, if any address is not allowed.

        An answer that is late, to a question that was asked again since, would send once more what is there by now.
        """
        asked = self._asked_at is not None and grants.number == self._number
        if (grants.room, grants.desk, grants.sid) != self._place or not asked:
            return [], []
        self._asked_at, self._answer_timeout_s = None, ANSWER_TIMEOUT_S
        wanted = [
            grant for grant in grants.grants if grant.name in self.files and grant.name not in self.set_aside
        ]
        try:
            for grant in wanted:
                require_allowed(self._policy, grant.url)
        except StorageNotAllowed as error:
            self.fault = str(error)
            self._not_before = now + round(ALARM_WAIT_S * 1e9)
            raise
        arrived = {name for name in grants.present if name in self.files} - self.there
        self.there.update(arrived)
        changes = [Change(name, "there") for name in sorted(arrived)]
        changes += [
            Change(name, "refused", reason) for name, reason in grants.refused.items() if name in self.files
        ]
        self.round_number += 1
        self._moved, self._forbidden = bool(arrived), False
        self._outstanding = {grant.name for grant in wanted}
        first_refused = next(iter(grants.refused.items()), None)
        self.fault = (
            ""
            if first_refused is None
            else f"the room granted no upload of {first_refused[0]}: {first_refused[1]}"
        )
        jobs = [
            PutJob(
                self.sid,
                self.round_number,
                self.files[grant.name].facts,
                self.files[grant.name].content,
                grant.url,
                dict(grant.headers),
            )
            for grant in wanted
        ]
        if not jobs:
            self._finish_round(now)
        return jobs, changes

    def done(self, result: PutDone, now: int) -> list[Change]:
        """Take the end of one PUT. A refused one ends the round: the rest waits for a new grant."""
        if result.round_number != self.round_number or result.name not in self._outstanding:
            return []
        self._outstanding.discard(result.name)
        states = {Outcome.SENT: "sent", Outcome.UNFIT: "quarantined"}
        match result.outcome:
            case Outcome.SENT:
                self._moved = True
            case Outcome.UNFIT:
                self.set_aside[result.name] = result.unfit or Unfit(result.reason)
                self._moved = True
            case Outcome.FORBIDDEN:
                self._forbidden = True
                self.fault = f"the storage refused {result.name}: {result.reason}"
                self._outstanding.clear()
            case Outcome.LATER:
                self.fault = f"{result.name} was not sent: {result.reason}"
        if not self._outstanding:
            self._finish_round(now)
        attempted = result.outcome is not Outcome.UNFIT
        return [Change(result.name, states.get(result.outcome, "failed"), result.reason, attempted)]

    def stop(self) -> None:
        """Send nothing more: what is under way is cut off."""
        self._outstanding.clear()

    def wants(self, round_number: int) -> bool:
        """False once a round is over: what it still has under way is cut off. Asked from the sender's threads."""
        return round_number == self.round_number and bool(self._outstanding)

    def faults(self) -> list[str]:
        """In words, for the room."""
        words = [f"upload: {self.fault}"] if self.fault else []
        return words + [
            f"upload: {name} is set aside: {unfit.reason}" for name, unfit in sorted(self.set_aside.items())
        ]

    def damaged(self) -> list[DamagedFile]:
        """What is set aside, as it lies here now."""
        return [
            DamagedFile(name=name, size_bytes=0, sha256=None)
            if unfit.found is None
            else DamagedFile(name=name, size_bytes=unfit.found.size_bytes, sha256=unfit.found.sha256)
            for name, unfit in sorted(self.set_aside.items())
        ]

    def _finish_round(self, now: int) -> None:
        if self._forbidden:
            wait_s, self._fruitless = ALARM_WAIT_S, 0
        elif self._moved:
            wait_s, self._fruitless = 0.0, 0
        else:
            wait_s = min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** min(self._fruitless, 16))
            self._fruitless += 1
        self._not_before = now + round(wait_s * 1e9)
