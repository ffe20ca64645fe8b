"""Files written for people: never over another one unless told, never half-written under their name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import BinaryIO, cast

from appliance.errors import ApplianceError, BadInput, NoSpace, Refused, StoreFailed


def require_free(target: Path, session_folder: Path | None, force: bool) -> None:
    """Refuse before any work: an existing file without --force, no folder, a place inside the evidence."""
    if not target.parent.is_dir():
        raise BadInput(f"no folder {target.parent}", "make it first, or name another file")
    if target.is_dir():
        raise BadInput(f"{target} is a folder", "name a file")
    if session_folder is not None and target.resolve().is_relative_to(session_folder.resolve()):
        raise BadInput(
            f"{target} lies inside the session's folder",
            "name a place outside it, or it would no longer verify",
        )
    if target.exists() and not force:
        raise Refused(f"{target} exists", "name another file, or overwrite it with --force")


@contextmanager
def new_file(target: Path) -> Iterator[BinaryIO]:
    """A temporary file beside `target`, for its owner only; renamed once the block ends well, else removed."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except OSError as error:
        raise write_failure(target, error) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield cast(BinaryIO, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except ApplianceError:
        raise  # some named errors are OSErrors, and they are not this file's
    except OSError as error:
        raise write_failure(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def allocate(fd: int, size_bytes: int, target: Path) -> None:
    """Own the room before the work; NoSpace for `target` when there is none. Else the writes themselves will say."""
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    except OSError as error:
        if error.errno == ENOSPC:
            raise write_failure(target, error) from error


def write_at(fd: int, data: bytes | memoryview, offset_bytes: int, target: Path) -> None:
    """Every byte at its place in the file, whoever else writes to it; StoreFailed or NoSpace for `target`."""
    rest = memoryview(data)
    try:
        while rest:
            written = os.pwrite(fd, rest, offset_bytes)
            rest, offset_bytes = rest[written:], offset_bytes + written
    except OSError as error:
        raise write_failure(target, error) from error


def start_writing(fd: int, begin_bytes: int, end_bytes: int) -> None:
    """Have the kernel begin to write a span that is done (Linux, mm/fadvise.c), so that `fsync` finds little left."""
    os.posix_fadvise(fd, begin_bytes, end_bytes - begin_bytes, os.POSIX_FADV_DONTNEED)


def write_failure(target: Path, error: OSError) -> StoreFailed:
    """The named error for an OSError met while writing `target`."""
    kind = NoSpace if error.errno == ENOSPC else StoreFailed
    reason = (error.strerror or str(error)).lower()
    return kind(f"cannot write {target}: {reason}", "make room or name another place with --out")
