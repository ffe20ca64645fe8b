"""The institution's S3 bucket as the archive tool reads it: which sessions are there, one object at a time.

Written and erased are wrapped keys alone (.evk), when they are wrapped anew. What the storage answers is not trusted:
the caller holds every byte against the verified manifest.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from appliance.archive.output import write_failure
from appliance.config import StorageConfig, StorageCredentials, load_config
from appliance.errors import BadConfig, BadInput, EvidenceBroken, Refused, StorageUnreachable
from appliance.protocol import MANIFEST_NAME, object_key

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
ATTEMPTS = 4  # one try and three more, botocore's standard mode with its own growing pauses
CHUNK_BYTES = 1 << 20
PARALLEL = 4


@dataclass
class StoredSession:
    """What the bucket holds of one session; complete once manifest.json, which is sent last, is there."""

    exam: str
    sid: str
    objects: dict[str, int] = field(default_factory=dict)  # name -> size in bytes
    changed: str = ""  # newest object, ISO 8601

    @property
    def state(self) -> str:
        """complete, incomplete, or keys erased (the wraps are gone: nobody can open it again)."""
        if MANIFEST_NAME not in self.objects:
            return "incomplete"
        if not any(name.endswith(".evk") for name in self.objects):
            return "keys erased"
        return "complete"

    @property
    def size_bytes(self) -> int:
        """All objects together."""
        return sum(self.objects.values())


class Bucket:
    """One institution's part of one bucket; thread-safe."""

    def __init__(self, storage: StorageConfig, institution: str) -> None:
        credentials = load_config(storage.credentials, StorageCredentials)
        self._storage = storage
        self._institution = institution
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=storage.endpoint,
            region_name=storage.region,
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
            verify=_authorities(storage.ca),
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                retries={"max_attempts": ATTEMPTS, "mode": "standard"},
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                max_pool_connections=PARALLEL + 1,
                # rclone and older Ceph do not know the newer checksum trailers
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def sessions(self, exam: str | None = None) -> list[StoredSession]:
        """All sessions of the institution, or of one exam, ordered by exam and sid."""
        found: dict[tuple[str, str], StoredSession] = {}
        for top in ("sessions", "wraps"):
            prefix = f"{top}/{self._institution}/" + (f"{exam}/" if exam else "")
            for key, size_bytes, changed in self._keys(prefix):
                parts = key.split("/")
                if len(parts) != 5:
                    continue
                session = found.setdefault((parts[2], parts[3]), StoredSession(parts[2], parts[3]))
                session.objects[parts[4]] = size_bytes
                session.changed = max(session.changed, changed)
        return [found[place] for place in sorted(found)]

    def find(self, sid: str, exam: str | None = None) -> StoredSession:
        """The session with this id, or BadInput."""
        for session in self.sessions(exam):
            if session.sid == sid:
                return session
        raise BadInput(
            f"no session {sid} in bucket {self._storage.bucket}",
            "see invigil archive list for what is there",
        )

    def read(self, exam: str, sid: str, name: str, limit_bytes: int) -> bytes:
        """A small object, whole; EvidenceBroken when it is larger than it may be."""
        with self._named_errors(name):
            body = self._object(exam, sid, name)
            data: bytes = body.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            raise EvidenceBroken(f"{name} in the storage is larger than {limit_bytes} bytes", _NOT_OURS)
        return data

    def read_head(self, exam: str, sid: str, name: str, limit_bytes: int) -> bytes:
        """The first bytes of an object, `limit_bytes` at most."""
        with self._named_errors(name):
            data: bytes = self._object(exam, sid, name, Range=f"bytes=0-{limit_bytes - 1}").read(limit_bytes)
        return data

    def wrap_names(self, exam: str, sid: str, *, versions: bool = False) -> set[str]:
        """Every .evk of the session; with `versions` also one of which only an older version is left."""
        prefix = object_key(self._institution, exam, sid, ".evk").removesuffix(".evk")
        keys = {key for key, _, _ in self._keys(prefix)}
        if versions:
            keys |= {key for key, _ in self._versions(prefix)}
        return {key.removeprefix(prefix) for key in keys if key.endswith(".evk")}

    def put_wrap(self, exam: str, sid: str, name: str, data: bytes) -> None:
        """Write a .evk object."""
        key = object_key(self._institution, exam, sid, name)
        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        with self._named_errors(f"writing {name}"):
            self._client.put_object(Bucket=self._storage.bucket, Key=key, Body=data, ContentMD5=md5)

    def erase_wrap(self, exam: str, sid: str, name: str) -> None:
        """Erase a .evk object in every version, past a lock in governance mode; Refused where the storage keeps it."""
        key = object_key(self._institution, exam, sid, name)
        versions = [version for found, version in self._versions(key) if found == key]
        with self._named_errors(f"erasing {name}"):
            for version in versions:
                self._erase_version(key, name, {"VersionId": version})
            if not versions:
                self._erase_version(key, name, {})

    def _erase_version(self, key: str, name: str, version: dict[str, str]) -> None:
        target = {"Bucket": self._storage.bucket, "Key": key, **version}
        try:
            self._client.delete_object(**target)
        except ClientError as error:
            if _code(error) != "AccessDenied":
                raise
            try:
                self._client.delete_object(**target, BypassGovernanceRetention=True)
            except ClientError as refusal:
                raise Refused(
                    f"the storage does not let {name} be erased: {_code(refusal)}; who was removed can still open it",
                    "it needs s3:DeleteObjectVersion and s3:BypassGovernanceRetention for wraps/, and a lock in "
                    "compliance mode must run out first; then run it again",
                ) from refusal

    def _versions(self, prefix: str) -> list[tuple[str, str]]:
        """(key, version id), markers last; empty where the storage knows no versions."""
        found: list[tuple[str, str]] = []
        markers: list[tuple[str, str]] = []
        with self._named_errors("the list of versions"):
            try:
                for page in self._client.get_paginator("list_object_versions").paginate(
                    Bucket=self._storage.bucket, Prefix=prefix
                ):
                    found += [(each["Key"], each["VersionId"]) for each in page.get("Versions", ())]
                    markers += [(each["Key"], each["VersionId"]) for each in page.get("DeleteMarkers", ())]
            except ClientError as error:
                if _code(error) not in ("NotImplemented", "501"):
                    raise
        return found + markers

    def save(
        self, exam: str, sid: str, name: str, target: Path, size_bytes: int, on_bytes: Callable[[int], None]
    ) -> str:
        """Stream an object into `target` (created or emptied) and give its SHA-256 in hex.

        Stops with EvidenceBroken at the first byte over `size_bytes`, so that a storage cannot fill the disk.
        """
        digest = hashlib.sha256()
        received = 0
        with self._named_errors(name), _named_disk_errors(target), target.open("wb") as out:
            for chunk in self._object(exam, sid, name).iter_chunks(CHUNK_BYTES):
                received += len(chunk)
                if received > size_bytes:
                    raise EvidenceBroken(f"{name} in the storage is larger than its manifest says", _NOT_OURS)
                digest.update(chunk)
                out.write(chunk)
                on_bytes(len(chunk))
            out.flush()
            os.fsync(out.fileno())
        return digest.hexdigest()

    def _object(self, exam: str, sid: str, name: str, **more: str) -> Any:
        key = object_key(self._institution, exam, sid, name)
        return self._client.get_object(Bucket=self._storage.bucket, Key=key, **more)["Body"]

    def _keys(self, prefix: str) -> Iterator[tuple[str, int, str]]:
        with self._named_errors("the list of sessions"):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._storage.bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    yield entry["Key"], entry["Size"], entry["LastModified"].strftime("%Y-%m-%dT%H:%M:%SZ")

    @contextmanager
    def _named_errors(self, what: str) -> Iterator[None]:
        where = f"bucket {self._storage.bucket} at {self._storage.endpoint}"
        try:
            yield
        except ClientError as error:
            code = _code(error)
            if code in ("NoSuchKey", "404"):
                raise EvidenceBroken(
                    f"{what} is missing in the storage", "the upload is not complete"
                ) from error
            raise StorageUnreachable(
                f"{where} refused {what}: {code}", _REFUSALS.get(code, _CHECK_STORAGE)
            ) from error
        except BotoCoreError as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise StorageUnreachable(f"{where} does not answer: {reason}", _CHECK_STORAGE) from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


_NOT_OURS = "the object was replaced after the upload; keep it and ask the storage's operator"
_CHECK_STORAGE = "check endpoint, region and network of [storage] in archive.toml"
_CHECK_CREDENTIALS = "check the credentials file of [storage] in archive.toml"
_REFUSALS = {
    "AccessDenied": _CHECK_CREDENTIALS,
    "InvalidAccessKeyId": _CHECK_CREDENTIALS,
    "SignatureDoesNotMatch": _CHECK_CREDENTIALS,
    "403": _CHECK_CREDENTIALS,
    "NoSuchBucket": "check the bucket's name of [storage] in archive.toml",
}


def _authorities(ca: Path | None) -> str | None:
    if ca is None:
        return None
    if not ca.is_file():
        raise BadConfig(f"no certificate file {ca}", "correct ca of [storage] in archive.toml")
    return str(ca)


@contextmanager
def _named_disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError):
        raise  # some of botocore's errors are OSErrors, and they are not the disk's
    except OSError as error:
        raise write_failure(target, error) from error
