"""Writing what provisioning makes: secrets for their owner alone, whole files, never over an older key."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from appliance.errors import BadInput
from appliance.policy import Code

SECRET_MODE = 0o600
PUBLIC_MODE = 0o644
_CODE: TypeAdapter[str] = TypeAdapter(Code)


def check_code(what: str, text: str) -> None:
    """Rooms, desks and institutions are named alike (policy.Code); raises BadInput."""
    try:
        _CODE.validate_python(text)
    except ValidationError as error:
        raise BadInput(
            f"{what} {text!r} is not a usable name",
            "1 to 64 letters, digits, dots, underscores and hyphens; the first a letter or digit",
        ) from error


def refuse_existing(paths: Iterable[Path], replace: bool) -> None:
    """Refuse before the first byte if a file is there already; raises BadInput naming it."""
    for path in paths:
        if path.exists() and not replace:
            raise BadInput(f"{path} exists already", "add --replace if the key in it is to be thrown away")


def write_file(path: Path, content: bytes, *, secret: bool = False) -> None:
    """Write `content` beside `path`, fsync, rename over it; 0600 if `secret`, else 0644. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # created 0600
    try:
        with os.fdopen(descriptor, "wb") as target:
            target.write(content)
            target.flush()
            os.fchmod(target.fileno(), SECRET_MODE if secret else PUBLIC_MODE)
            os.fsync(target.fileno())
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
