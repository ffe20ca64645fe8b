"""A pulled session as a folder: manifest.json, approval.json, segments/*.evf, wraps/*.evk.

Loading it verifies who signed the manifest and who approved it; what the files hold is `verify.py`'s to say.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.archive.rewrapped import Rewrapped, read_rewrapped
from appliance.archive.trust import Trust
from appliance.errors import BadInput, EvidenceBroken, NotTrusted
from appliance.evf.canonical import parse_canonical
from appliance.evf.rewraps import MAX_FILE_BYTES as MAX_REWRAP_BYTES
from appliance.evf.rewraps import rewrap_version
from appliance.evf.wraps import wrap_name
from appliance.evidence.completeness import VIDEO_TRACK, Completeness, completeness_of
from appliance.evidence.cut import Cut
from appliance.evidence.manifest import (
    LEAVES_NAME,
    MAX_MANIFEST_BYTES,
    Gap,
    Manifest,
    SegmentEntry,
    claimed_device,
    claimed_key,
    read_leaves,
    verify_manifest,
)
from appliance.evidence.merkle import HASH_BYTES
from appliance.protocol import (
    APPROVAL_NAME,
    COMMAND_PURPOSE,
    MANIFEST_NAME,
    MAX_MESSAGE_BYTES,
    Command,
    DamagedFile,
    Release,
    verify_message,
)
from appliance.reading import read_file

LOG_TRACK = "log"
SEGMENTS = "segments"
WRAPS = "wraps"
WHOLE_SESSION = "concerns the whole session"
CUT_CAUSE = "file cut after the recording"
DAMAGED_CAUSE = "file damaged on the desk, what is left of it opens"
GONE_CAUSE = "file gone from the desk"


@dataclass(frozen=True)
class LocalSession:
    """A folder whose manifest and approval are verified.

    By file name, once its files are checked too: `cuts`, and `damaged`, what is not as the manifest says but as its
    release does. `leaves`: all of them, where they lie beside damaged files; they lead to the witnessed root; None
    where they do not, and then they prove nothing.
    """

    folder: Path
    manifest: Manifest
    manifest_sha256: str
    approval: Command
    approval_sha256: str
    release: Release
    rewrapped: Rewrapped
    cuts: Mapping[str, Cut] = field(default_factory=dict)
    damaged: Mapping[str, DamagedFile] = field(default_factory=dict)
    leaves: tuple[bytes, ...] | None = ()

    @classmethod
    def load(cls, folder: Path, trust: Trust) -> LocalSession:
        """BadInput when it is no session folder, EvidenceBroken when a signature is not of a pinned key."""
        if not folder.is_dir():
            raise BadInput(f"no folder {folder}", "name the folder that invigil archive pull wrote")
        if not (folder / MANIFEST_NAME).is_file():
            raise BadInput(
                f"{folder} is not a session: it has no {MANIFEST_NAME}",
                "name the folder of one session; a pull that was stopped goes on when it is started again",
            )
        manifest_bytes = read_file(folder / MANIFEST_NAME, MAX_MANIFEST_BYTES)
        manifest = trusted_manifest(manifest_bytes, trust)
        if not (folder / APPROVAL_NAME).is_file():
            raise EvidenceBroken(f"{APPROVAL_NAME} is missing ({WHOLE_SESSION})", "pull the session again")
        approval_bytes = read_file(folder / APPROVAL_NAME, MAX_MESSAGE_BYTES)
        approval, release = trusted_approval(approval_bytes, manifest_bytes, manifest, trust)
        return cls(
            folder=folder,
            manifest=manifest,
            manifest_sha256=hashlib.sha256(manifest_bytes).hexdigest(),
            approval=approval,
            approval_sha256=hashlib.sha256(approval_bytes).hexdigest(),
            release=release,
            rewrapped=read_rewrapped(_rewraps(folder, manifest.sid), manifest, trust.root_key),
            leaves=_leaves(folder, manifest) if release.damaged else (),
        )

    @property
    def device_certificate(self) -> x509.Certificate:
        """The desk node's certificate, which `load` held against the room CA."""
        return claimed_device(self.manifest)

    @property
    def device_key(self) -> Ed25519PublicKey:
        """The desk node's key."""
        return claimed_key(self.manifest)

    @property
    def end_90k(self) -> int:
        """Where the last segment ends."""
        return max((segment.end_90k for segment in self.manifest.segments), default=0)

    def there_until_90k(self, entry: SegmentEntry) -> int:
        """Where a segment's footage in this folder ends at most; the manifest's word unless the file is cut or gone."""
        cut = self.cuts.get(entry.name)
        if self.gone(entry) or self.lost_key(entry):
            return entry.start_90k
        return entry.end_90k if cut is None else cut.until_90k

    def gone(self, entry: SegmentEntry) -> bool:
        """Nothing of the segment left the desk, as its release says."""
        damaged = self.damaged.get(entry.name)
        return damaged is not None and damaged.sha256 is None

    def lost_key(self, entry: SegmentEntry) -> str:
        """Name of the wrap that would open this segment if it were not damaged; empty while some file opens it."""
        name = wrap_name(self.manifest.sid, entry.epoch, entry.cls)
        return name if name in self.damaged and self.rewrapped.newest is None else ""

    def whole(self, entry: SegmentEntry) -> bool:
        """The segment is as the manifest says, and a key to it can be there."""
        return entry.name not in self.cuts and entry.name not in self.damaged and not self.lost_key(entry)

    @property
    def rooted(self) -> bool:
        """The root which the room witnessed can be computed: every segment is whole, or all leaves are there."""
        whole = not any(entry.name in self.damaged for entry in self.manifest.segments)
        return not self.cuts and (whole or bool(self.leaves))

    @property
    def completeness(self) -> Completeness:
        """What its certificate says, and besides what cut, damaged and gone files lack."""
        missing = [
            Gap(cut.until_90k, entry.end_90k, _cut_cause(entry), False)
            for entry in self.manifest.segments
            if (cut := self.cuts.get(entry.name)) and cut.missing
        ]
        missing += [
            Gap(entry.start_90k, entry.end_90k, GONE_CAUSE if self.gone(entry) else DAMAGED_CAUSE, False)
            for entry in self.manifest.segments
            if entry.name in self.damaged and entry.track == VIDEO_TRACK and not self.lost_key(entry)
        ]
        # A damaged wrap opens as little as one that the desk never had.
        damaged = self.damaged if self.rewrapped.newest is None else {}
        wraps = tuple(wrap for wrap in self.manifest.wraps if wrap.name not in damaged)
        return completeness_of(replace(self.manifest, wraps=wraps), missing)

    def path(self, name: str) -> Path:
        """Where a file that the manifest names lies."""
        return place(self.folder, name)

    def file(self, name: str) -> Path:
        """The same, to be read. FileNotFoundError also for a pipe or a device in its place, which would never end."""
        path = self.path(name)
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return path

    def unnamed_files(self) -> Iterator[str]:
        """Files in the folder that the manifest does not name, ordered; what is named like a re-wrap apart."""
        named = {self.folder / MANIFEST_NAME, self.folder / APPROVAL_NAME}
        if self.leaves != ():
            named.add(self.folder / LEAVES_NAME)
        named.update(self.path(name) for name in (*self.rewrapped.valid, *self.rewrapped.problems))
        named.update(self.path(segment.name) for segment in self.manifest.segments)
        named.update(self.path(wrap.name) for wrap in self.manifest.wraps)
        for path in sorted(self.folder.rglob("*")):
            if path not in named and (path.is_symlink() or not path.is_dir()):
                yield str(path.relative_to(self.folder))


def _leaves(folder: Path, manifest: Manifest) -> tuple[bytes, ...] | None:
    path = folder / LEAVES_NAME
    if not path.is_file():
        return ()
    size_bytes = HASH_BYTES * manifest.leaves
    try:
        return read_leaves(
            manifest, read_file(path, size_bytes) if path.stat().st_size == size_bytes else b""
        )
    except EvidenceBroken:
        return None


def _rewraps(folder: Path, sid: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted((folder / WRAPS).glob(f"{sid}.r*.evk")):
        if rewrap_version(path.name, sid) is not None and path.is_file() and not path.is_symlink():
            yield path.name, read_file(path, MAX_REWRAP_BYTES)


def _cut_cause(entry: SegmentEntry) -> str:
    return CUT_CAUSE if entry.track == VIDEO_TRACK else f"{CUT_CAUSE} (track {entry.track})"


def place(folder: Path, name: str) -> Path:
    """Where a pulled object lies; `name` is one that a verified manifest holds, a plain file name."""
    if name in (MANIFEST_NAME, APPROVAL_NAME):
        return folder / name
    return folder / (WRAPS if name.endswith(".evk") else SEGMENTS) / name


def trusted_manifest(data: bytes, trust: Trust) -> Manifest:
    """The manifest under the pinned CA and controller key, of this institution; EvidenceBroken otherwise."""
    try:
        manifest = verify_manifest(data, trust.room_ca, trust.controller_key)
    except (NotTrusted, EvidenceBroken) as error:
        raise EvidenceBroken(f"{MANIFEST_NAME}: {error} ({WHOLE_SESSION})", error.hint or _PINNED) from error
    if manifest.institution != trust.institution:
        raise EvidenceBroken(
            f"{MANIFEST_NAME}: session belongs to institution {manifest.institution} ({WHOLE_SESSION})",
            _PINNED,
        )
    return manifest


def trusted_approval(
    data: bytes, manifest_bytes: bytes, manifest: Manifest, trust: Trust
) -> tuple[Command, Release]:
    """The controller's signed release of exactly this manifest; EvidenceBroken otherwise."""
    try:
        command = verify_message(COMMAND_PURPOSE, Command, data, trust.controller_key)
    except (NotTrusted, BadInput) as error:
        raise EvidenceBroken(f"{APPROVAL_NAME}: {error} ({WHOLE_SESSION})", _PINNED) from error
    order = command.order
    if not isinstance(order, Release):
        raise EvidenceBroken(f"{APPROVAL_NAME} is no release ({WHOLE_SESSION})", _PINNED)
    said = (command.room, command.desk, order.sid, order.manifest_sha256)
    if said != (manifest.room, manifest.desk, manifest.sid, hashlib.sha256(manifest_bytes).hexdigest()):
        raise EvidenceBroken(
            f"{APPROVAL_NAME} releases another session or manifest ({WHOLE_SESSION})", _PINNED
        )
    problem = _damage_problem(data, order, manifest)
    if problem:
        raise EvidenceBroken(f"{APPROVAL_NAME} {problem} ({WHOLE_SESSION})", _REPORT_BUG)
    return command, order


def _damage_problem(data: bytes, release: Release, manifest: Manifest) -> str:
    """Why no room's software writes this list of damaged files; empty when it can be used."""
    if "damaged" in parse_canonical(data)["body"]["order"] and not release.damaged:
        return "has an empty list of damaged files"
    unnamed = {entry.name for entry in manifest.segments} | {wrap.name for wrap in manifest.wraps}
    for file in release.damaged:
        if file.sha256 is None and file.size_bytes:
            return f"gives {file.name} a size and no SHA-256"
        if file.name not in unnamed:
            return f"releases {file.name} as damaged twice, or the manifest does not name it"
        unnamed.remove(file.name)
    return ""


_PINNED = "compare room_ca and controller_key of archive.toml with what the test centre gave you"
_REPORT_BUG = "the room's controller signed it like that; report this as a bug of its software"
