"""Recipient sets, tasks and openers for the tests of keys that are wrapped anew."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.archive.opening import SessionKeys, write_video
from appliance.archive.rewrapping import Done, Task, rewrap_session
from appliance.archive.session import LocalSession
from appliance.archive.trust import Trust
from appliance.archive.verify import check_files, require_whole
from appliance.archive.wrap_places import FolderPlace, WrapPlace
from appliance.config import ArchiveConfig, load_config
from appliance.errors import NotTrusted
from appliance.evf.canonical import canonical
from appliance.evf.recipients import RecipientSet, sign_recipient_set
from tests.manual_clock import ManualClock
from tests.sessions import CREATED, INSTITUTION, Built, default_room, representative


def recipient_set(version: int, *people: int) -> RecipientSet:
    persons = tuple(representative(number).representative(f"person {number}") for number in people)
    return RecipientSet(INSTITUTION, version, CREATED, persons)


def write_set(path: Path, recipients: RecipientSet, root_key: Ed25519PrivateKey | None = None) -> Path:
    path.write_bytes(canonical(sign_recipient_set(recipients, root_key or default_room().root_key)))
    return path


def trust_of(built: Built) -> Trust:
    return Trust.load(load_config(built.config, ArchiveConfig))


def task(built: Built, recipients: RecipientSet, opener: int = 1, signer: int | None = None) -> Task:
    return Task(
        sign_recipient_set(recipients, default_room().root_key),
        recipients,
        representative(opener),
        representative(opener if signer is None else signer),
        trust_of(built),
        ManualClock(),
    )


def rewrap(
    built: Built,
    recipients: RecipientSet,
    opener: int = 1,
    signer: int | None = None,
    place: WrapPlace | None = None,
) -> Done:
    return rewrap_session(
        built.manifest, place or FolderPlace(built.folder), task(built, recipients, opener, signer)
    )


def openers(built: Built, folder: Path | None = None, people: tuple[int, ...] = (1, 2, 3, 4)) -> set[int]:
    """Who of these persons gets the whole film; the others are told that it is not for them."""
    trust = trust_of(built)
    session = LocalSession.load(folder or built.folder, trust)
    found = set()
    for number in people:
        out = io.BytesIO()
        try:
            write_video(
                session, SessionKeys(session, representative(number), trust), out, lambda _count: None
            )
        except NotTrusted:
            continue
        assert out.getvalue() == built.film.read_bytes()
        found.add(number)
    return found


def verified(built: Built, folder: Path | None = None) -> list[str]:
    """The lines of `invigil archive verify`; EvidenceBroken unless whole."""
    session = LocalSession.load(folder or built.folder, trust_of(built))
    checks = check_files(session, lambda _count: None)
    require_whole(checks)
    return [check.line() for check in checks]


def at(built: Built, folder: Path) -> Built:
    """The same session, copied elsewhere."""
    return replace(built, folder=folder)
