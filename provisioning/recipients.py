"""A new recipient set into a trust folder that is there already: a room's, a bundle's, or a running desk's.

A desk reads its set anew for each session and epoch; nothing has to be restarted.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.errors import BadConfig, BadInput, NotTrusted
from appliance.evf.canonical import canonical
from appliance.evf.errors import EvfError
from appliance.evf.recipients import RecipientSet, verify_recipient_set
from appliance.trust import load_document
from provisioning.desk import read_root_key
from provisioning.files import write_file

ROOT_KEY = "root.pub"
RECIPIENT_SET = "recipient-set.json"


def install_recipient_set(source: Path, trust: Path) -> tuple[RecipientSet, RecipientSet | None]:
    """Put it there if the root key pinned in `trust` signed it; returns it and the one that was there before.

    Raises BadInput for a folder or file that is none, and NotTrusted for a set of another root or institution, an
    older one than is there, or another one of the same version.
    """
    root_key = read_root_key(trust / ROOT_KEY)
    found = _read(source, root_key)
    target = trust / RECIPIENT_SET
    present = _read(target, root_key) if target.exists() else None
    if present is not None:
        if found.institution != present.institution:
            raise NotTrusted(
                f"{source} is institution {found.institution}'s, {target} {present.institution}'s",
                "a room and its desks serve one institution",
            )
        if found.version < present.version:
            raise NotTrusted(
                f"{source} is recipient set {found.version}, older than {present.version} in {target}",
                "fetch the newest set from the institution",
            )
        if found.version == present.version and found != present:
            raise NotTrusted(
                f"{source} is another recipient set {found.version} than {target}",
                "the institution signed two sets of one version; it has to sign one with a higher version",
            )
    write_file(target, canonical(load_document(source)))
    return found, present


def _read(path: Path, root_key: Ed25519PublicKey) -> RecipientSet:
    try:
        return verify_recipient_set(load_document(path), root_key, 0)
    except EvfError as error:
        raise NotTrusted(
            f"{path}: {error}", error.hint or "use a set signed with the institution's root key"
        ) from error
    except BadConfig as error:
        raise BadInput(str(error), "give the file that invigil keys wrote") from error
