"""What a session's keys wrapped anew say beside its manifest: which hold, what they replace, what was erased.

The manifest's own wraps are signed by the desk; a re-wrap by a representative whom the institution's root named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.evf.errors import EvfError
from appliance.evf.rewraps import Replaced, Rewrap, rewrap_version, verify_rewrap
from appliance.evidence.manifest import Manifest


@dataclass(frozen=True)
class Rewrapped:
    """`valid` by file name, oldest set first; `problems`: why another file of such a name is not one."""

    valid: Mapping[str, Rewrap] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def newest(self) -> Rewrap | None:
        """The one that counts: it replaces all others."""
        return list(self.valid.values())[-1] if self.valid else None

    def replaced(self, name: str) -> Replaced | None:
        """What the newest one says of an earlier wrap file."""
        if self.newest is None:
            return None
        return next((each for each in self.newest.replaces if each.name == name), None)

    def erased(self, name: str) -> bool:
        """Whether the file went, or has to go, because somebody was removed."""
        replaced = self.replaced(name)
        return replaced is not None and replaced.erased


def read_rewrapped(
    files: Iterable[tuple[str, bytes]], manifest: Manifest, root_key: Ed25519PublicKey
) -> Rewrapped:
    """Judge files that are named like re-wraps of this session."""
    valid: dict[int, Rewrap] = {}
    problems: dict[str, str] = {}
    for name, data in files:
        version = rewrap_version(name, manifest.sid)
        try:
            rewrap = verify_rewrap(data, root_key)
            problem = _contradiction(rewrap, version, manifest)
        except EvfError as error:
            problem = str(error)
        if problem:
            problems[name] = problem
        elif version is not None:
            valid[version] = rewrap
    return Rewrapped({valid[version].name: valid[version] for version in sorted(valid)}, problems)


def rewrap_words(rewrap: Rewrap) -> str:
    """Who wrapped it anew, for whom and when; who was removed."""
    people = ", ".join(person.name for person in rewrap.recipients.representatives)
    version = rewrap.recipients.version
    words = f"keys re-wrapped for recipient set {version} ({people}) by {rewrap.by.name} on {rewrap.at}"
    if rewrap.removed:
        words += f"; removed: key {', '.join(kid[:8] for kid in rewrap.removed)}"
    return words


def wrap_place(name: str, sid: str) -> tuple[int, str] | None:
    """(epoch, class) from the name of one of the desk's own wraps; None for another name."""
    parts = name.split(".")
    if len(parts) != 4 or parts[0] != sid or parts[3] != "evk" or not parts[1].isdecimal():
        return None
    return int(parts[1]), parts[2]


def _contradiction(rewrap: Rewrap, version: int | None, manifest: Manifest) -> str:
    said = (rewrap.sid, rewrap.recipients.institution, rewrap.recipients.version)
    if said != (manifest.sid, manifest.institution, version):
        return "it is of another session, institution or recipient set than its name says"
    if rewrap.recipients.version < manifest.recipient_set_version:
        return "its recipient set is older than the recording's"
    replaced = {each.name: each.sha256 for each in rewrap.replaces}
    if any(replaced.get(wrap.name) != wrap.sha256 for wrap in manifest.wraps):
        return "it does not replace the wraps that the manifest names"
    if rewrap.places() != {wrap_place(wrap.name, manifest.sid) for wrap in manifest.wraps}:
        return "it holds other keys than the session has"
    for context, _ in rewrap.keys:
        if (context.policy_id, context.retain_until) != (manifest.policy_id, manifest.retain_until):
            return "a key in it is of another policy or retention date"
    return ""
