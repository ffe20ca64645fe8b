"""Brings one session from the storage into a folder; every byte is held against the verified manifest and release.

Files come under a temporary name and are renamed once size and SHA-256 are right; manifest.json comes last, so
that a folder that has one is whole. Started again, it goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.archive.bucket import PARALLEL, Bucket, StoredSession
from appliance.archive.output import write_failure
from appliance.archive.rewrapped import read_rewrapped
from appliance.archive.session import (
    SEGMENTS,
    WHOLE_SESSION,
    WRAPS,
    place,
    trusted_approval,
    trusted_manifest,
)
from appliance.archive.trust import Trust
from appliance.errors import EvidenceBroken, NoSpace, Refused
from appliance.evf.rewraps import MAX_FILE_BYTES as MAX_REWRAP_BYTES
from appliance.evf.rewraps import rewrap_version
from appliance.evidence.manifest import (
    LEAVES_NAME,
    MAX_MANIFEST_BYTES,
    Manifest,
    SegmentEntry,
    WrapEntry,
)
from appliance.evidence.merkle import HASH_BYTES
from appliance.protocol import (
    APPROVAL_NAME,
    MANIFEST_NAME,
    MAX_MESSAGE_BYTES,
    DamagedFile,
    Release,
)
from appliance.timecode import span_text

SPARE_BYTES = 64 << 20  # left free on the institution's disk
_PART = ".part"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Wanted:
    """One object of the manifest and what it must be, or may be instead: `damaged`, as its release says."""

    name: str
    size_bytes: int
    sha256: str
    span: str
    damaged: DamagedFile | None = None

    def fits(self, size_bytes: int, sha256: str) -> bool:
        """True for the bytes of the manifest, and for those of the release."""
        released = self.damaged and (self.damaged.size_bytes, self.damaged.sha256)
        return (size_bytes, sha256) in ((self.size_bytes, self.sha256), released)

    def expected_bytes(self, stored_bytes: int | None) -> int:
        """Size of the object, of which the storage lists `stored_bytes`: the release's only if it says that one."""
        if self.damaged is not None and stored_bytes == self.damaged.size_bytes:
            return stored_bytes
        return self.size_bytes

    def may_be_absent(self, stored: StoredSession) -> bool:
        """True when it was gone from the desk, and the storage has none either, or none of its size."""
        gone = self.damaged is not None and self.damaged.sha256 is None
        return gone and stored.objects.get(self.name) != self.size_bytes


@dataclass(frozen=True)
class Pulled:
    """Where the session is; `kept` files were there already, `unnamed` objects were left in the storage.

    `left_over`: wraps of somebody who was removed, which should have been erased there. `damaged`: files that are
    not as the manifest says, or not there at all, as the release allows.
    """

    folder: Path
    fetched: int
    kept: int
    unnamed: tuple[str, ...]
    left_over: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


def pull(
    bucket: Bucket,
    trust: Trust,
    stored: StoredSession,
    out: Path,
    on_total: Callable[[int], None],
    on_bytes: Callable[[int], None],
) -> Pulled:
    """Fetch into `out`/<sid>. The good files are kept when an object is bad, which EvidenceBroken names.

    Raises StorageUnreachable, NoSpace, StoreFailed, EvidenceBroken, and Refused while the upload is not complete.
    """
    manifest_bytes, approval_bytes, manifest, release = _documents(bucket, trust, stored)
    rewraps = {
        name: bucket.read(stored.exam, stored.sid, name, MAX_REWRAP_BYTES)
        for name in sorted(stored.objects)
        if rewrap_version(name, stored.sid) is not None
    }
    rewrapped = read_rewrapped(rewraps.items(), manifest, trust.root_key)
    leaves = _leaves(bucket, stored, manifest) if release.damaged else b""

    folder = out / stored.sid
    _prepare(folder)
    # what somebody erased on purpose is not missed; one that no valid re-wrap replaces is
    named = [one for one in _named(manifest, release) if not rewrapped.erased(one.name)]
    there = {one.name for one in named if _is_there(place(folder, one.name), one)}
    absent = {one.name for one in named if one.name not in there and one.may_be_absent(stored)}
    wanted = [one for one in named if one.name not in absent]
    missing = [one for one in wanted if one.name not in there]
    needed = sum(one.expected_bytes(stored.objects.get(one.name)) for one in missing)
    on_total(needed)
    _require_space(folder, needed)
    _fetch_all(bucket, stored, folder, missing, on_bytes)
    _clear(place(folder, name) for name in absent)
    for name in rewrapped.valid:
        _write_small(place(folder, name), rewraps[name])
    _write_small(place(folder, APPROVAL_NAME), approval_bytes)
    _write_small(place(folder, MANIFEST_NAME), manifest_bytes)
    if leaves:
        _write_small(folder / LEAVES_NAME, leaves)
    known = {one.name for one in wanted} | {MANIFEST_NAME, APPROVAL_NAME, *rewrapped.valid}
    known |= {LEAVES_NAME} if leaves else set()
    left_over = {name for name in stored.objects if rewrapped.erased(name)}
    return Pulled(
        folder=folder,
        fetched=len(missing) + len(rewrapped.valid),
        kept=len(wanted) - len(missing),
        unnamed=tuple(sorted(set(stored.objects) - known - left_over)),
        left_over=tuple(sorted(left_over)),
        damaged=tuple(one.name for one in named if one.damaged and not _is_whole(folder, one)),
    )


def _documents(bucket: Bucket, trust: Trust, stored: StoredSession) -> tuple[bytes, bytes, Manifest, Release]:
    """manifest.json and approval.json, and what they say once both are verified and of this session."""
    if MANIFEST_NAME not in stored.objects:
        raise Refused(
            f"session {stored.sid} is incomplete: the storage has no {MANIFEST_NAME} of it yet",
            "the upload has not ended; try again later or ask the test centre",
        )
    manifest_bytes = bucket.read(stored.exam, stored.sid, MANIFEST_NAME, MAX_MANIFEST_BYTES)
    manifest = trusted_manifest(manifest_bytes, trust)
    if (manifest.exam, manifest.sid) != (stored.exam, stored.sid):
        raise EvidenceBroken(
            f"{MANIFEST_NAME} belongs to session {manifest.sid} of exam {manifest.exam} ({WHOLE_SESSION})",
            "somebody moved objects in the storage",
        )
    approval_bytes = bucket.read(stored.exam, stored.sid, APPROVAL_NAME, MAX_MESSAGE_BYTES)
    _, release = trusted_approval(approval_bytes, manifest_bytes, manifest, trust)
    return manifest_bytes, approval_bytes, manifest, release


def _leaves(bucket: Bucket, stored: StoredSession, manifest: Manifest) -> bytes:
    """What there is of them; whether they hold, `verify` says."""
    size_bytes = HASH_BYTES * manifest.leaves
    if stored.objects.get(LEAVES_NAME) != size_bytes:
        return b""
    return bucket.read(stored.exam, stored.sid, LEAVES_NAME, size_bytes)


def _named(manifest: Manifest, release: Release) -> list[Wanted]:
    end = max((segment.end_90k for segment in manifest.segments), default=0)
    damaged = {file.name: file for file in release.damaged}

    def one(entry: WrapEntry | SegmentEntry, start_90k: int, end_90k: int) -> Wanted:
        span = span_text(start_90k, end_90k)
        return Wanted(entry.name, entry.size_bytes, entry.sha256, span, damaged.get(entry.name))

    return [
        *(one(wrap, 0, end) for wrap in manifest.wraps),
        *(one(entry, entry.start_90k, entry.end_90k) for entry in manifest.segments),
    ]


def _prepare(folder: Path) -> None:
    try:
        for name in (SEGMENTS, WRAPS):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for leftover in folder.rglob(f".*{_PART}"):
            leftover.unlink()
    except OSError as error:
        raise write_failure(folder, error) from error


def _is_there(path: Path, wanted: Wanted) -> bool:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            size_bytes = os.fstat(stream.fileno()).st_size
            if size_bytes not in (wanted.size_bytes, wanted.expected_bytes(size_bytes)):
                return False
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return False
    return wanted.fits(size_bytes, digest.hexdigest())


def _is_whole(folder: Path, wanted: Wanted) -> bool:
    return _is_there(place(folder, wanted.name), replace(wanted, damaged=None))


def _clear(paths: Iterable[Path]) -> None:
    """What lies where nothing may: an earlier pull brought it under another release of the same session."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise write_failure(path, error) from error


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise NoSpace(
            f"{folder} has {free / 1e6:.0f} MB free, {(needed + SPARE_BYTES) / 1e6:.0f} MB are needed",
            "make room or name another folder with --out",
        )


def _fetch_all(
    bucket: Bucket,
    stored: StoredSession,
    folder: Path,
    missing: list[Wanted],
    on_bytes: Callable[[int], None],
) -> None:
    broken: dict[str, EvidenceBroken] = {}
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="pull") as pool:
        jobs = {pool.submit(_fetch, bucket, stored, folder, one, on_bytes): one for one in missing}
        try:
            for job in as_completed(jobs):
                try:
                    job.result()
                except EvidenceBroken as error:
                    broken[jobs[job].name] = error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    if broken:
        first = next(one for one in missing if one.name in broken)
        cause = broken[first.name]
        more = f"; {len(broken) - 1} more objects are broken" if len(broken) > 1 else ""
        raise EvidenceBroken(f"{first.name} ({first.span} of the session): {cause}{more}", cause.hint)


def _fetch(
    bucket: Bucket, stored: StoredSession, folder: Path, wanted: Wanted, on_bytes: Callable[[int], None]
) -> None:
    target = place(folder, wanted.name)
    part = target.with_name(f".{wanted.name}{_PART}")
    limit_bytes = wanted.expected_bytes(stored.objects.get(wanted.name))
    sha256 = bucket.save(stored.exam, stored.sid, wanted.name, part, limit_bytes, on_bytes)
    if not wanted.fits(part.stat().st_size, sha256):
        part.unlink()
        if wanted.damaged is not None and wanted.damaged.sha256 is None:
            # Sent before it could no longer be read: nobody released these bytes.
            target.unlink(missing_ok=True)
            return
        raise EvidenceBroken(
            f"the storage's copy is not what the manifest says{', nor what was released' if wanted.damaged else ''}",
            "the object was replaced or damaged after the upload; ask the storage's operator for its versions",
        )
    part.replace(target)


def _write_small(target: Path, data: bytes) -> None:
    part = target.with_name(f".{target.name}{_PART}")
    try:
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(target)
    except OSError as error:
        raise write_failure(target, error) from error
