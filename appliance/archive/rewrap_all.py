"""Many sessions wrapped anew, from a folder or from the storage; one that cannot be done does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.archive.rewrapped import rewrap_words
from appliance.archive.rewrapping import Done, Task, rewrap_session
from appliance.archive.session import trusted_manifest
from appliance.archive.wrap_places import BucketPlace, FolderPlace, WrapPlace
from appliance.errors import ApplianceError, BadInput, EvidenceBroken, StorageUnreachable
from appliance.evidence.manifest import MAX_MANIFEST_BYTES
from appliance.protocol import MANIFEST_NAME

if TYPE_CHECKING:
    from appliance.archive.bucket import Bucket


@dataclass(frozen=True)
class Job:
    """One session: how to call it to a person, and its files; no place where there is nothing to wrap yet."""

    label: str
    sid: str | None
    place: WrapPlace | None
    why_not: str = ""


def folder_jobs(folder: Path) -> Iterator[Job]:
    """A session's own folder, or one that holds such folders; BadInput when it is neither."""
    if (folder / MANIFEST_NAME).is_file():
        yield Job(str(folder), None, FolderPlace(folder))
        return
    found = sorted(path.parent for path in folder.glob(f"*/{MANIFEST_NAME}"))
    if not found:
        raise BadInput(
            f"{folder} holds no session with a {MANIFEST_NAME}",
            "name the folder that invigil archive pull wrote into",
        )
    for each in found:
        yield Job(str(each), None, FolderPlace(each))


def bucket_jobs(bucket: Bucket, exam: str | None) -> Iterator[Job]:
    """Every session of the institution in the storage, or of one exam."""
    for stored in bucket.sessions(exam):
        label = f"{stored.exam} {stored.sid}"
        if stored.state == "complete":
            yield Job(label, stored.sid, BucketPlace(bucket, stored.exam, stored.sid))
        else:
            yield Job(label, stored.sid, None, stored.state)


def rewrap_all(jobs: Iterator[Job], task: Task, say: Callable[[str], None]) -> None:
    """One line a session. StorageUnreachable ends it at once; any other error is raised when all were tried."""
    failed: list[tuple[str, ApplianceError]] = []
    done = later = 0
    for job in jobs:
        if job.place is None:
            later += job.why_not == "incomplete"
            say(f"{job.label}: {job.why_not}")
            continue
        try:
            say(f"{job.label}: {_words(_rewrap(job, job.place, task))}")
            done += 1
        except StorageUnreachable:
            raise
        except ApplianceError as error:
            say(f"{job.label}: not done: {error}")
            failed.append((job.label, error))
    say(f"{done} sessions are wrapped for recipient set {task.recipients.version}")
    if later:
        say(f"{later} are still being sent: run it again when they are complete")
    if failed:
        label, first = failed[0]
        raise type(first)(f"{len(failed)} sessions were not done; the first, {label}: {first}", first.hint)


def _rewrap(job: Job, place: WrapPlace, task: Task) -> Done:
    manifest = trusted_manifest(place.read(MANIFEST_NAME, MAX_MANIFEST_BYTES), task.trust)
    if job.sid is not None and job.sid != manifest.sid:
        raise EvidenceBroken(
            f"{MANIFEST_NAME} belongs to session {manifest.sid}", "somebody moved objects in the storage"
        )
    return rewrap_session(manifest, place, task)


def _words(done: Done) -> str:
    if done.rewrap is None:
        return "the desk sealed it for this recipient set"
    words = rewrap_words(done.rewrap) if done.written else f"nothing to wrap, {done.rewrap.name} is there"
    if done.erased:
        words += f"; {len(done.erased)} earlier wraps erased"
    return words
