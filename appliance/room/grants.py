"""Which files of a released session may be sent now: held against the verified manifest, then granted one PUT.

Pure apart from the `Storage` passed in. Nothing is granted that the manifest, or the release signed here, does
not name with the same size and SHA-256; manifest.json comes last.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from appliance.evf.errors import EvfError
from appliance.evf.signed import decode_base64
from appliance.evidence.manifest import LEAVES_NAME, Manifest
from appliance.evidence.merkle import HASH_BYTES
from appliance.protocol import (
    APPROVAL_NAME,
    MANIFEST_NAME,
    DamagedFile,
    Grant,
    GrantRequest,
    ObjectFacts,
    object_key,
)
from appliance.room.storage import Storage

MOST_GRANTS = 32  # one answer; a desk sends a few at a time and asks again


@dataclass(frozen=True)
class Released:
    """A session that a proctor released: its verified manifest, the bytes of it, and the signed release."""

    manifest: Manifest
    manifest_bytes: bytes
    release_bytes: bytes
    damaged: Mapping[str, DamagedFile] = field(default_factory=dict)  # of the release, by name

    def expected(self) -> dict[str, tuple[int, str]]:
        """Size and SHA-256 of every file that belongs to the session, by name."""
        files = {entry.name: (entry.size_bytes, entry.sha256) for entry in self.manifest.segments}
        files |= {entry.name: (entry.size_bytes, entry.sha256) for entry in self.manifest.wraps}
        for name, content in ((APPROVAL_NAME, self.release_bytes), (MANIFEST_NAME, self.manifest_bytes)):
            files[name] = (len(content), hashlib.sha256(content).hexdigest())
        return files

    def needed(self, offered: Iterable[str]) -> set[str]:
        """Names of what has to be in the bucket; what may be absent, and leaves, only where they are `offered`."""
        absent = {name for name, file in self.damaged.items() if file.sha256 is None}
        names = set(offered)
        return set(self.expected()) - (absent - names) | (names & {LEAVES_NAME})

    def fits(self, offered: ObjectFacts) -> bool:
        """Whether these bytes may go under this name; the leaves' are proven by the root, their number stands."""
        facts = (offered.size_bytes, offered.sha256)
        if offered.name == LEAVES_NAME:
            return bool(self.damaged) and offered.size_bytes == HASH_BYTES * self.manifest.leaves
        damaged = self.damaged.get(offered.name)
        as_released = damaged is not None and facts == (damaged.size_bytes, damaged.sha256)
        return as_released or facts == self.expected().get(offered.name)

    def key(self, name: str) -> str:
        """Where a file lies in the bucket."""
        return object_key(self.manifest.institution, self.manifest.exam, self.manifest.sid, name)


@dataclass(frozen=True)
class GrantAnswer:
    """What goes back to the desk; `complete` once every expected file was read back from the bucket."""

    present: tuple[str, ...]
    grants: tuple[Grant, ...]
    refused: dict[str, str]
    complete: bool
    total: int


def check_objects(request: GrantRequest, released: Released) -> tuple[list[ObjectFacts], dict[str, str]]:
    """Split what a desk offers into what may go and what may not, with the reason; raises nothing."""
    named = {*released.expected(), *([LEAVES_NAME] if released.damaged else [])}
    own_md5 = {
        APPROVAL_NAME: hashlib.md5(released.release_bytes, usedforsecurity=False).digest(),
        MANIFEST_NAME: hashlib.md5(released.manifest_bytes, usedforsecurity=False).digest(),
    }
    fitting: list[ObjectFacts] = []
    refused: dict[str, str] = {}
    for offered in request.objects:
        try:
            md5 = decode_base64(offered.md5, 16)
        except EvfError:
            refused[offered.name] = "its MD5 is malformed"
            continue
        if offered.name not in named:
            refused[offered.name] = "the manifest does not name it"
        elif not released.fits(offered):
            refused[offered.name] = "its size or SHA-256 is not the manifest's"
        elif own_md5.get(offered.name, md5) != md5:
            refused[offered.name] = "its MD5 is not that of the room's own copy"
        elif offered.name in {known.name for known in fitting}:
            refused[offered.name] = "it was offered twice"
        else:
            fitting.append(offered)
    return fitting, refused


def answer_request(request: GrantRequest, released: Released, storage: Storage) -> GrantAnswer:
    """List the bucket, then grant what is missing; raises StorageUnreachable."""
    fitting, refused = check_objects(request, released)
    expected = released.expected()
    prefixes = {released.key(name).rpartition("/")[0] + "/" for name in expected}
    stored = {key: item for prefix in sorted(prefixes) for key, item in storage.present(prefix).items()}
    there: list[str] = []
    missing: list[ObjectFacts] = []
    for offered in fitting:
        found = stored.get(released.key(offered.name))
        md5_hex = base64.b64decode(offered.md5).hex()
        if found is not None and (found.size_bytes, found.md5_hex) == (offered.size_bytes, md5_hex):
            there.append(offered.name)
        else:
            missing.append(offered)
    needed = released.needed(offered.name for offered in fitting)
    others_there = needed - {MANIFEST_NAME} <= set(there)
    grants: list[Grant] = []
    for offered in missing:
        if len(grants) == MOST_GRANTS:
            break
        if offered.name == MANIFEST_NAME and not others_there:
            continue
        url, headers = storage.grant(released.key(offered.name), offered.md5, offered.size_bytes)
        grants.append(Grant(name=offered.name, url=url, headers=headers))
    complete = set(there) == needed
    return GrantAnswer(tuple(there), tuple(grants), refused, complete, len(needed))
