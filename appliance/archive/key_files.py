"""What a key or set is, for people to compare; and a key file's passphrase changed in place."""

from __future__ import annotations

import os
from pathlib import Path

from appliance.archive.keys import (
    MAX_SMALL_FILE_BYTES,
    ROOT_KIND,
    open_root,
    read_representative,
    require_passphrase,
)
from appliance.archive.output import new_file
from appliance.errors import BadConfig, BadInput
from appliance.evf.canonical import parse_canonical
from appliance.evf.errors import EvfError
from appliance.evf.keyfile import change_passphrase, key_file_kind
from appliance.evf.recipients import KEY_FILE_KIND, RecipientSet, Representative, RepresentativeKey
from appliance.evf.recipients import read_representative as parse_representative
from appliance.evf.signed import key_id
from appliance.reading import read_file
from appliance.trust import load_public_key


def grouped(fingerprint: str) -> str:
    """In fours, for reading aloud."""
    return " ".join(fingerprint[place : place + 4] for place in range(0, len(fingerprint), 4))


def person_words(person: Representative) -> str:
    """One line: name, fingerprint over both public keys, and the id that recordings carry."""
    return f"{person.name}: fingerprint {grouped(person.fingerprint)}, key id {person.kid}"


def set_lines(recipients: RecipientSet) -> list[str]:
    """A set and its people."""
    head = f"recipient set {recipients.version} of {recipients.institution}, made {recipients.created}"
    return [head, *(f"  {person_words(person)}" for person in recipients.representatives)]


def needs_passphrase(path: Path) -> bool:
    """Whether showing the file takes its passphrase: it is a private key file."""
    try:
        return (
            parse_canonical(read_file(path, MAX_SMALL_FILE_BYTES).removesuffix(b"\n")).get("kdf") is not None
        )
    except EvfError:
        return False


def show_lines(path: Path, passphrase: str) -> list[str]:
    """What a .pub, representative.json, recipient set or key file holds; signatures are not judged here. BadInput."""
    data = read_file(path, MAX_SMALL_FILE_BYTES)
    try:
        fields = parse_canonical(data.removesuffix(b"\n"))
    except EvfError:
        return [f"public key: fingerprint {grouped(key_id(_public_bytes(path)))}"]
    if "kdf" in fields:
        return _private_lines(path, data, passphrase)
    if fields.get("purpose") == "recipient-set":
        return set_lines(_unverified_set(path, fields))
    return [f"public key of {person_words(read_representative(path))}"]


def _public_bytes(path: Path) -> bytes:
    try:
        return load_public_key(path).public_bytes_raw()
    except BadConfig as error:  # here no settings file names it, a person does
        raise BadInput(str(error), "give a .pub, .key or .json file that invigil keys wrote") from error


def _private_lines(path: Path, data: bytes, passphrase: str) -> list[str]:
    kind = key_file_kind(data)
    if kind == ROOT_KIND:
        root = open_root(path, passphrase)
        fingerprint = key_id(root.key.public_key().public_bytes_raw())
        return [f"root key of {root.institution}: fingerprint {grouped(fingerprint)}"]
    if kind != KEY_FILE_KIND:
        raise BadInput(f"{path} holds a key of kind {kind}", "give root.key or representative.key")
    person = RepresentativeKey.load(data, passphrase).representative("a representative")
    return [f"private key of {person_words(person)}"]


def _unverified_set(path: Path, fields: dict[str, object]) -> RecipientSet:
    body = fields.get("body")
    try:
        if not isinstance(body, dict):
            raise EvfError("it has no body")
        people = tuple(parse_representative(person) for person in body["representatives"])
        return RecipientSet(body["institution"], body["version"], body["created"], people)
    except (EvfError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} is not a recipient set: {error}", "invigil keys recipient-set writes it"
        ) from error


def new_passphrase(path: Path, old: str, new: str) -> None:
    """Whole new file in place of the old one. BadInput for a short passphrase; evf's BadPassphrase, BadKeyFile."""
    require_passphrase(new)
    data = change_passphrase(read_file(path, MAX_SMALL_FILE_BYTES), old, new)
    with new_file(path) as out:  # made for its owner alone
        out.write(data)
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
