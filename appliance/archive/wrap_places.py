"""Where a session's wrapped keys lie and can be replaced: a pulled folder, or the storage. One step a method.

A write is whole and durable before the method returns: only then may an older file go.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from appliance.archive.output import write_failure
from appliance.archive.session import WRAPS, place
from appliance.errors import BadInput
from appliance.evf.format import COMMIT_BYTES, MAX_HEADER_JSON_BYTES, PREFIX_FIXED_BYTES
from appliance.reading import read_file

if TYPE_CHECKING:
    from appliance.archive.bucket import Bucket

HEAD_BYTES = PREFIX_FIXED_BYTES + MAX_HEADER_JSON_BYTES + COMMIT_BYTES


class WrapPlace(Protocol):
    """One session's files; raises ApplianceError."""

    def names(self) -> set[str]:
        """Every .evk file that is there."""
        ...

    def traces(self) -> set[str]:
        """Those, and every one of which an older version can still be had."""
        ...

    def read(self, name: str, limit_bytes: int) -> bytes:
        """A small file, whole."""
        ...

    def head(self, name: str) -> bytes:
        """The beginning of a segment, HEAD_BYTES at most."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """A .evk file, in place of one of that name."""
        ...

    def erase(self, name: str) -> None:
        """A .evk file, with every version of it."""
        ...


class FolderPlace:
    """A session's folder as `pull` leaves it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._wraps = folder / WRAPS

    def names(self) -> set[str]:
        """See `WrapPlace`."""
        return {path.name for path in self._wraps.glob("*.evk")}

    def traces(self) -> set[str]:
        """See `WrapPlace`. A snapshot or a backup of the folder is not seen."""
        return self.names()

    def read(self, name: str, limit_bytes: int) -> bytes:
        """See `WrapPlace`."""
        return read_file(place(self._folder, name), limit_bytes)

    def head(self, name: str) -> bytes:
        """See `WrapPlace`."""
        path = place(self._folder, name)
        try:
            with path.open("rb") as source:
                return source.read(HEAD_BYTES)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise BadInput(f"cannot read {path}: {reason}", "pull the session again") from error

    def write(self, name: str, data: bytes) -> None:
        """See `WrapPlace`. What a kill leaves lies beside the session's folder, never in it: it stays verifiable."""
        target = self._wraps / name
        part = self._folder.resolve().parent / f".{name}.part"
        try:
            with part.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(target)
            self._sync_names()
        except OSError as error:
            raise write_failure(target, error) from error

    def erase(self, name: str) -> None:
        """See `WrapPlace`."""
        target = self._wraps / name
        try:
            target.unlink(missing_ok=True)
            self._sync_names()
        except OSError as error:
            raise write_failure(target, error) from error

    def _sync_names(self) -> None:
        handle = os.open(self._wraps, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class BucketPlace:
    """A session in the institution's storage; needs the right to write and erase below wraps/."""

    def __init__(self, bucket: Bucket, exam: str, sid: str) -> None:
        self._bucket = bucket
        self._session = (exam, sid)

    def names(self) -> set[str]:
        """See `WrapPlace`."""
        return self._bucket.wrap_names(*self._session)

    def traces(self) -> set[str]:
        """See `WrapPlace`."""
        return self._bucket.wrap_names(*self._session, versions=True)

    def read(self, name: str, limit_bytes: int) -> bytes:
        """See `WrapPlace`."""
        return self._bucket.read(*self._session, name, limit_bytes)

    def head(self, name: str) -> bytes:
        """See `WrapPlace`."""
        return self._bucket.read_head(*self._session, name, HEAD_BYTES)

    def write(self, name: str, data: bytes) -> None:
        """See `WrapPlace`."""
        self._bucket.put_wrap(*self._session, name, data)

    def erase(self, name: str) -> None:
        """See `WrapPlace`."""
        self._bucket.erase_wrap(*self._session, name)
