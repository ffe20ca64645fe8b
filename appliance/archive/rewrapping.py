"""Wraps a session's keys anew for a later recipient set (docs/adr/0005-rewrapping.md); segments stay as they are.

In this order, so that a kill between any two steps leaves the session open to the old or the new set: one new file,
durable and read back and proven; only then the files that somebody removed could open. Started again, it finishes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.archive.recipient_sets import read_recipient_set
from appliance.archive.rewrapped import Rewrapped, read_rewrapped, wrap_place
from appliance.archive.trust import Trust
from appliance.archive.wrap_places import WrapPlace
from appliance.clock import Clock, SystemClock, utc_text
from appliance.config import ArchiveConfig
from appliance.errors import BadInput, EvidenceBroken, NotTrusted
from appliance.evf.errors import EvfError, NotARecipient
from appliance.evf.format import Header, read_prefix
from appliance.evf.keys import EpochKey, derive_segment_keys
from appliance.evf.recipients import RecipientSet, RepresentativeKey
from appliance.evf.rewraps import MAX_FILE_BYTES as MAX_REWRAP_BYTES
from appliance.evf.rewraps import Replaced, Rewrap, rewrap_name, rewrap_version, sign_rewrap, verify_rewrap
from appliance.evf.wraps import MAX_FILE_BYTES as MAX_WRAP_BYTES
from appliance.evf.wraps import WrapContext, open_sealed, read_wrap
from appliance.evidence.manifest import Manifest, SegmentEntry, claimed_key
from appliance.timecode import span_text

_PULL_AGAIN = "verify the session; pull it again, or ask the storage's operator for its versions"
_Place = tuple[int, str]  # epoch, class
_Sealed = tuple[WrapContext, dict[str, bytes]]


@dataclass(frozen=True)
class Task:
    """For whom, and with which keys. `opener` opens what is there, `signer` stands in the new set and signs for it."""

    document: Mapping[str, Any] = field(repr=False)
    recipients: RecipientSet
    opener: RepresentativeKey
    signer: RepresentativeKey
    trust: Trust
    clock: Clock = field(default_factory=SystemClock)


@dataclass(frozen=True)
class Done:
    """`rewrap` is None when the desk had wrapped for this very set; `written`: not there before."""

    rewrap: Rewrap | None
    written: bool
    erased: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """A session's wraps: the manifest's own that are still there (`originals`), and those made anew."""

    originals: Mapping[str, _Sealed]
    rewrapped: Rewrapped
    digests: Mapping[str, str]

    @property
    def newest_version(self) -> int:
        versions = [context.recipient_set_version for context, _ in self.originals.values()]
        versions += [rewrap.recipients.version for rewrap in self.rewrapped.valid.values()]
        return max(versions, default=0)


def load_task(
    set_file: Path, settings: ArchiveConfig, opener: RepresentativeKey, signer: RepresentativeKey | None
) -> Task:
    """BadInput or NotTrusted when the set is not this institution's, or the signer does not stand in it."""
    trust = Trust.load(settings)
    signed = read_recipient_set(set_file, trust.root_key)
    recipients, signer = signed.recipients, signer or opener
    if recipients.institution != settings.institution:
        raise BadInput(
            f"{set_file} is institution {recipients.institution}'s", "give your own institution's set"
        )
    if signer.kid not in {person.kid for person in recipients.representatives}:
        raise BadInput(
            f"key {signer.kid[:8]} does not stand in recipient set {recipients.version}, so it cannot sign for it",
            "give a key file of somebody in the new set with --signer",
        )
    return Task(signed.document, recipients, opener, signer, trust)


def rewrap_session(manifest: Manifest, place: WrapPlace, task: Task) -> Done:
    """One session. `manifest` is verified.

    Raises NotTrusted when the opener opens nothing, BadInput for an older or another set of the same version,
    EvidenceBroken for altered wraps or segments, and what `place` raises.
    """
    names = place.names()
    found = _survey(manifest, place, names, task)
    _require_newest(manifest, found, task)
    name = rewrap_name(manifest.sid, task.recipients.version)
    present = set(found.originals) | set(found.rewrapped.valid) - {name}
    current = found.rewrapped.valid.get(name)
    if not manifest.wraps or (current is None and _made_for(found, task.recipients)):
        return Done(None, False, ())
    written = current is None or not present <= {each.name for each in current.replaces}
    if written:
        place.write(name, _wrap_anew(manifest, place, found, name, task))
    rewrap = _proven(manifest, place, name, task)
    traces = place.traces()
    gone = sorted(each.name for each in rewrap.replaces if each.erased and each.name in traces)
    for old in gone:
        place.erase(old)
    return Done(rewrap, written, tuple(gone))


def _survey(manifest: Manifest, place: WrapPlace, names: set[str], task: Task) -> _Found:
    digests: dict[str, str] = {}

    def read(name: str, limit_bytes: int) -> bytes:
        data = place.read(name, limit_bytes)
        digests[name] = hashlib.sha256(data).hexdigest()
        return data

    anew = sorted(name for name in names if rewrap_version(name, manifest.sid) is not None)
    rewrapped = read_rewrapped(
        ((name, read(name, MAX_REWRAP_BYTES)) for name in anew), manifest, task.trust.root_key
    )
    for name, problem in rewrapped.problems.items():
        raise EvidenceBroken(f"{name} is no re-wrap of this session: {problem}", _PULL_AGAIN)
    originals: dict[str, _Sealed] = {}
    for wrap in manifest.wraps:
        if wrap.name not in names:
            if not rewrapped.erased(wrap.name):
                raise EvidenceBroken(f"{wrap.name}: file is missing", _PULL_AGAIN)
            continue
        data = read(wrap.name, MAX_WRAP_BYTES)
        if digests[wrap.name] != wrap.sha256:
            raise EvidenceBroken(f"{wrap.name}: its SHA-256 is not the manifest's", _PULL_AGAIN)
        try:
            originals[wrap.name] = read_wrap(data, claimed_key(manifest))
        except EvfError as error:
            raise EvidenceBroken(f"{wrap.name}: {error}", error.hint or _PULL_AGAIN) from error
    return _Found(originals, rewrapped, digests)


def _require_newest(manifest: Manifest, found: _Found, task: Task) -> None:
    newest = max(manifest.recipient_set_version, found.newest_version)
    if task.recipients.version < newest:
        raise BadInput(
            f"recipient set {task.recipients.version} is older than {newest}, for which it is wrapped already",
            "give the newest set of the institution",
        )
    current = found.rewrapped.valid.get(rewrap_name(manifest.sid, task.recipients.version))
    if current is not None and current.recipients != task.recipients:
        raise BadInput(
            f"it is wrapped for another recipient set {task.recipients.version} than this one",
            "the root signed two sets of one version; sign a new one with a higher version",
        )


def _made_for(found: _Found, recipients: RecipientSet) -> bool:
    kids = {person.kid for person in recipients.representatives}
    return not found.rewrapped.valid and all(
        context.recipient_set_version == recipients.version and set(wraps) == kids
        for context, wraps in found.originals.values()
    )


def _wrap_anew(manifest: Manifest, place: WrapPlace, found: _Found, name: str, task: Task) -> bytes:
    kids = {person.kid for person in task.recipients.representatives}
    replaces, removed = _replaced(found, name, kids)
    keys: list[tuple[WrapContext, EpochKey]] = []
    try:
        for epoch_class in sorted({_place_of(wrap.name, manifest.sid) for wrap in manifest.wraps}):
            context, key = _unwrap(found, epoch_class, task)
            keys.append((context, key))
            _require_opens(manifest, place, epoch_class, key)
        return sign_rewrap(
            keys,
            task.document,
            task.recipients,
            replaces,
            sorted(removed),
            utc_text(task.clock.wall()),
            task.signer,
        )
    except EvfError as error:
        raise BadInput(str(error), error.hint or "give the key of somebody in the new set") from error
    finally:
        for _, key in keys:
            key.erase()


def _replaced(found: _Found, name: str, kids: set[str]) -> tuple[list[Replaced], set[str]]:
    """Every earlier wrap file, also one that an earlier re-wrap erased, and whom the new one leaves out."""
    readers = {old: set(wraps) for old, (_, wraps) in found.originals.items()}
    readers |= {old: rewrap.kids for old, rewrap in found.rewrapped.valid.items() if old != name}
    replaces = {
        old: Replaced(old, found.digests[old], erased=not those <= kids) for old, those in readers.items()
    }
    removed = set().union(*readers.values()) - kids
    for rewrap in found.rewrapped.valid.values():
        removed |= set(rewrap.removed) - kids
        for each in rewrap.replaces:
            known = replaces.setdefault(each.name, each)
            replaces[each.name] = dataclasses.replace(known, erased=known.erased or each.erased)
    return list(replaces.values()), removed


def _unwrap(found: _Found, epoch_class: _Place, task: Task) -> tuple[WrapContext, EpochKey]:
    """From the newest wrap that the opener can open."""
    sources: list[_Sealed] = [
        sealed
        for rewrap in reversed(list(found.rewrapped.valid.values()))
        for sealed in rewrap.keys
        if (sealed[0].epoch, sealed[0].cls) == epoch_class
    ]
    sources += [
        sealed for sealed in found.originals.values() if (sealed[0].epoch, sealed[0].cls) == epoch_class
    ]
    for context, wraps in sources:
        try:
            return context, open_sealed(context, wraps, task.opener)
        except NotARecipient:
            continue
        except EvfError as error:
            raise EvidenceBroken(
                f"wrapped key of epoch {context.epoch}, class {context.cls}: {error}", _PULL_AGAIN
            ) from error
    names = task.trust.recipients
    people = sorted({names.get(kid) or kid[:8] for _, wraps in sources for kid in wraps})
    raise NotTrusted(
        f"key {task.opener.kid[:8]} is not among its recipients: {', '.join(people) or 'nobody'}",
        "do it with one of their keys",
    )


def _proven(manifest: Manifest, place: WrapPlace, name: str, task: Task) -> Rewrap:
    """What lies there now, read back: signed, and the signer opens a segment of every key with it."""
    try:
        rewrap = verify_rewrap(place.read(name, MAX_REWRAP_BYTES), task.trust.root_key)
        for context, _ in rewrap.keys:
            key = rewrap.open(context.epoch, context.cls, task.signer)
            try:
                _require_opens(manifest, place, (context.epoch, context.cls), key)
            finally:
                key.erase()
    except EvfError as error:
        raise EvidenceBroken(f"{name}: {error}", "nothing was erased; run it again") from error
    return rewrap


def _require_opens(manifest: Manifest, place: WrapPlace, epoch_class: _Place, key: EpochKey) -> None:
    """EvidenceBroken unless K(0) is the one that the first segment of its epoch and class commits to."""
    entry = min(
        (each for each in manifest.segments if (each.epoch, each.cls) == epoch_class),
        key=lambda each: (each.seg, each.track),
        default=None,
    )
    if entry is None:
        return  # nothing was recorded under it
    where = f"{entry.name} ({span_text(entry.start_90k, entry.end_90k)} of the session)"
    try:
        header_bytes, commit = read_prefix(io.BytesIO(place.head(entry.name)))
        header = Header.decode(header_bytes)
    except EvfError as error:
        raise EvidenceBroken(f"{where}: {error}", _PULL_AGAIN) from error
    if not _is_segment(header, manifest, entry) or not hmac.compare_digest(
        _commit(key, header, header_bytes), commit
    ):
        raise EvidenceBroken(f"{where} does not open with its wrapped key", _PULL_AGAIN)


def _is_segment(header: Header, manifest: Manifest, entry: SegmentEntry) -> bool:
    said = (header.sid, header.epoch, header.cls, header.track, header.seg)
    return said == (manifest.sid, entry.epoch, entry.cls, entry.track, entry.seg)


def _commit(key: EpochKey, header: Header, header_bytes: bytes) -> bytes:
    ratchet = key.track(header.track)
    ratchet.skip_to(header.seg)
    secret = ratchet.next_segment()
    ratchet.erase()
    base_key, commit = derive_segment_keys(secret.secret, header_bytes)
    secret.erase()
    base_key[:] = bytes(len(base_key))
    return commit


def _place_of(name: str, sid: str) -> _Place:
    found = wrap_place(name, sid)
    if found is None:
        raise EvidenceBroken(f"{name} is not named as a wrap of this session", _PULL_AGAIN)
    return found
