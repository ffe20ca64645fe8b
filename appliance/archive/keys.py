"""The institution's keys, made and kept offline: root, representatives, the signed recipient set, the signed policy.

Nothing here is ever needed in a room. A lost representative's key means that recordings sealed for it alone stay shut.
"""

from __future__ import annotations

import base64
import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import TypeAdapter, ValidationError

from appliance.clock import Clock, SystemClock, utc_text
from appliance.errors import BadConfig, BadInput
from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import BadKeyFile, EvfError
from appliance.evf.keyfile import load_secret, save_secret
from appliance.evf.recipients import (
    RecipientSet,
    Representative,
    RepresentativeKey,
    sign_recipient_set,
)
from appliance.evf.recipients import read_representative as parse_representative
from appliance.policy import Code, ExamPolicy, parse_policy, sign_policy, verify_policy
from appliance.reading import read_file
from appliance.trust import load_public_key

MIN_PASSPHRASE_CHARACTERS = 12
ROOT_KIND = "institution-root"
REPRESENTATIVE_FORMAT = "invigil representative"
MAX_SMALL_FILE_BYTES = 1 << 20
_REPRESENTATIVE_FIELDS = {"format", "kid", "name", "public_key", "signing_key", "v"}
_CODE: TypeAdapter[str] = TypeAdapter(Code)


@dataclass(frozen=True)
class RootKey:
    """An opened root key and the institution whose it is."""

    institution: str
    key: Ed25519PrivateKey = field(repr=False)


def require_passphrase(passphrase: str) -> None:
    """Refuse to protect a new key with fewer than 12 characters; raises BadInput."""
    if len(passphrase) < MIN_PASSPHRASE_CHARACTERS:
        raise BadInput(
            f"passphrase has {len(passphrase)} characters, at least {MIN_PASSPHRASE_CHARACTERS} are needed",
            "take five or six random words",
        )


def create_root(folder: Path, institution: str, passphrase: str) -> Path:
    """Write root.key (passphrase envelope) and root.pub; returns the path of root.key. Raises BadInput."""
    require_passphrase(passphrase)
    _check_institution(institution)
    key = Ed25519PrivateKey.generate()
    secret = canonical({"institution": institution, "seed": key.private_bytes_raw().hex()})
    public = key.public_key().public_bytes_raw().hex().encode() + b"\n"
    path = folder / "root.key"
    _write_pair(path, save_secret(ROOT_KIND, secret, passphrase), folder / "root.pub", public)
    return path


def open_root(path: Path, passphrase: str) -> RootKey:
    """Open root.key; raises BadInput, evf's BadPassphrase or BadKeyFile."""
    secret = load_secret(ROOT_KIND, read_file(path, MAX_SMALL_FILE_BYTES), passphrase)
    try:
        fields = parse_canonical(secret)
        return RootKey(
            str(fields["institution"]), Ed25519PrivateKey.from_private_bytes(bytes.fromhex(fields["seed"]))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadKeyFile("key file does not hold a root key", "copy it again from its backup") from error


def create_representative(folder: Path, name: str, passphrase: str) -> Representative:
    """Write representative.key (X-Wing seed in an envelope) and representative.json (public). Raises BadInput."""
    require_passphrase(passphrase)
    key = RepresentativeKey.generate()
    try:
        person = key.representative(name)
    except EvfError as error:
        raise BadInput(str(error), "give the person's or the office's name with --name") from error
    public = {
        "format": REPRESENTATIVE_FORMAT,
        "kid": person.kid,
        "name": person.name,
        "public_key": base64.b64encode(person.public_key).decode(),
        "signing_key": base64.b64encode(person.signing_key).decode(),
        "v": 1,
    }
    _write_pair(
        folder / "representative.key",
        key.save(passphrase),
        folder / "representative.json",
        canonical(public) + b"\n",
    )
    return person


def read_representative(path: Path) -> Representative:
    """A representative's public JSON; raises BadInput naming the file."""
    try:
        fields = json.loads(read_file(path, MAX_SMALL_FILE_BYTES))
        if not isinstance(fields, dict) or set(fields) != _REPRESENTATIVE_FIELDS:
            raise EvfError("unknown or missing keys")
        if (fields["format"], fields["v"]) != (REPRESENTATIVE_FORMAT, 1):
            raise EvfError("another format or version")
        return parse_representative(fields)
    except BadInput:
        raise
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{path} is not a representative's public key: {error}", "invigil keys representative writes it"
        ) from error


def create_recipient_set(
    root: RootKey,
    institution: str,
    representatives: Sequence[Representative],
    version: int,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """The signed set that rooms and nodes accept; raises BadInput when it is not this root's institution."""
    _require_same(root, institution)
    try:
        recipients = RecipientSet(
            institution, version, utc_text((clock or SystemClock()).wall()), tuple(representatives)
        )
    except EvfError as error:
        raise BadInput(str(error), "see invigil keys recipient-set --help") from error
    return sign_recipient_set(recipients, root.key)


def sign_policy_file(path: Path, root: RootKey) -> tuple[ExamPolicy, dict[str, Any]]:
    """Read a policy in TOML and sign it; raises BadInput naming the file and the key."""
    data = read_file(path, MAX_SMALL_FILE_BYTES)
    try:
        body = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        # no TOML, no UTF-8, a number or a nesting beyond all measure
        raise BadInput(
            f"{path} is not TOML: {error}", "each line is key = value; text stands in quotes"
        ) from error
    try:
        policy = parse_policy(body)
    except BadInput as error:
        raise BadInput(f"{path}: {error}", error.hint) from error
    _require_same(root, policy.institution)
    return policy, sign_policy(policy, root.key)


def read_policy(path: Path, root_public_key: Path) -> ExamPolicy:
    """A signed policy checked against root.pub; raises BadInput or NotTrusted."""
    try:
        document = json.loads(read_file(path, MAX_SMALL_FILE_BYTES))
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path} is not JSON", "give the file that invigil policy sign wrote") from error
    try:
        root_key = load_public_key(root_public_key, "give the root.pub that the institution made")
    except BadConfig as error:  # here no settings file names it, a person does
        raise BadInput(str(error), error.hint) from error
    return verify_policy(document, root_key)


def _check_institution(institution: str) -> None:
    try:
        _CODE.validate_python(institution)
    except ValidationError as error:
        raise BadInput(
            f"institution {institution!r} is not a usable name",
            "1 to 64 letters, digits, dots, underscores and hyphens; the first a letter or digit",
        ) from error


def _require_same(root: RootKey, institution: str) -> None:
    if institution != root.institution:
        raise BadInput(
            f"the root key is institution {root.institution}'s, not {institution}'s",
            "use the right root key, or correct the institution's name",
        )


def _write_pair(secret_path: Path, secret: bytes, public_path: Path, public: bytes) -> None:
    for path in (secret_path, public_path):
        if path.exists():
            raise BadInput(
                f"{path} exists already",
                "name another --out; what was sealed or signed with an old key needs that key for ever",
            )
    secret_path.parent.mkdir(parents=True, exist_ok=True)
    for path, content, mode in ((secret_path, secret, 0o600), (public_path, public, 0o644)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as target:
            target.write(content)
            target.flush()
            os.fsync(target.fileno())
