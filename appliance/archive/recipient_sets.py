"""Who may open recordings from now on: the next recipient set, one version up, signed by the offline root.

The set before is kept beside it: it says for whom earlier recordings were sealed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.archive.keys import MAX_SMALL_FILE_BYTES, RootKey, create_recipient_set
from appliance.archive.output import new_file
from appliance.clock import Clock
from appliance.errors import BadInput, NotTrusted
from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import BadSignature, EvfError
from appliance.evf.recipients import RecipientSet, Representative, verify_recipient_set
from appliance.reading import read_file

MIN_KEY_ID_DIGITS = 8


@dataclass(frozen=True)
class SignedSet:
    """A set and the document in which the root signed it."""

    recipients: RecipientSet
    document: Mapping[str, Any]


def read_recipient_set(path: Path, root_public_key: Ed25519PublicKey) -> SignedSet:
    """BadInput for a file that is none, NotTrusted for one that this root did not sign."""
    try:
        document = parse_canonical(read_file(path, MAX_SMALL_FILE_BYTES).removesuffix(b"\n"))
        return SignedSet(verify_recipient_set(document, root_public_key, 0), document)
    except BadSignature as error:
        raise NotTrusted(
            f"{path}: {error}", error.hint or "give a set that this institution signed"
        ) from error
    except EvfError as error:
        raise BadInput(
            f"{path} is not a recipient set: {error}", "invigil keys recipient-set writes it"
        ) from error


def next_set(
    root: RootKey,
    current: RecipientSet,
    *,
    add: Sequence[Representative] = (),
    remove: Representative | None = None,
    clock: Clock | None = None,
) -> SignedSet:
    """One version up, with these people more and this one less; BadInput when nothing would change."""
    people = [person for person in current.representatives if person != remove]
    for person in add:
        if person.kid in {each.kid for each in current.representatives}:
            raise BadInput(
                f"key {person.kid[:8]} of {person.name} stands in recipient set {current.version} already",
                "make a new key with invigil keys representative",
            )
    if not people and not add:
        raise BadInput(
            "nobody would be left in the recipient set",
            "add the next representative before you remove the last",
        )
    document = create_recipient_set(root, current.institution, [*people, *add], current.version + 1, clock)
    return SignedSet(verify_recipient_set(document, root.key.public_key(), current.version), document)


def find_person(current: RecipientSet, wanted: str) -> Representative:
    """By name, or by the first 8 digits or more of the key id; BadInput when nobody or several are meant."""
    found = [person for person in current.representatives if person.name == wanted]
    if not found and len(wanted) >= MIN_KEY_ID_DIGITS:
        found = [person for person in current.representatives if person.kid.startswith(wanted.lower())]
    if len(found) == 1:
        return found[0]
    people = ", ".join(f"{person.name} ({person.kid[:8]})" for person in current.representatives)
    if found:
        raise BadInput(f"{wanted} is the name of several: {people}", "give the key id instead")
    raise BadInput(
        f"{wanted} is not in recipient set {current.version}: {people}", "give one of these names or ids"
    )


def replace_set(path: Path, current: SignedSet, following: SignedSet) -> Path:
    """Write `following` to `path`; the one that was there goes to <name>.<version>.json first. Returns that path."""
    kept = path.with_name(f"{path.stem}.{current.recipients.version}{path.suffix}")
    old = canonical(dict(current.document))
    if kept.exists():
        if read_file(kept, MAX_SMALL_FILE_BYTES) != old:
            raise BadInput(f"{kept} exists already and is another set", "put it somewhere else first")
    else:
        write_set(kept, current)
    write_set(path, following)
    return kept


def write_set(path: Path, signed: SignedSet) -> None:
    """Whole or not at all; readable for everybody."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as out:
        out.write(canonical(dict(signed.document)))
    path.chmod(0o644)
