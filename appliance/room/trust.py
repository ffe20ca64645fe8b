"""What provisioning pinned for this room: keys, the room's CA, each desk's certificate, the exam's policy.

A missing or unreadable file is BadConfig naming it; what the institution did not sign is NotTrusted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from appliance.config import RoomConfig
from appliance.errors import BadConfig, NotTrusted
from appliance.policy import ExamPolicy, verify_policy
from appliance.trust import load_certificate, load_private_key, load_public_key

MADE_BY = "trust files are made by invigil provision ca"


@dataclass(frozen=True)
class RoomKeys:
    """The controller's own keys and what it checks others against."""

    room_ca: x509.Certificate
    signing: Ed25519PrivateKey
    root: Ed25519PublicKey
    desk_certificates: Path

    def device_key(self, desk: str) -> Ed25519PublicKey:
        """The key that signs this desk's checkpoints, from `trust/desks/<desk>.pem`; raises NotTrusted."""
        path = self.desk_certificates / f"{desk}.pem"
        if not path.exists():
            raise NotTrusted(f"the room has no certificate of desk {desk}", f"copy it to {path}")
        certificate = _desk_certificate(path)
        try:
            certificate.verify_directly_issued_by(self.room_ca)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise NotTrusted(
                f"the certificate of desk {desk} is not of this room's CA", "enrol it"
            ) from error
        names = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        key = certificate.public_key()
        if names != [desk] or not isinstance(key, Ed25519PublicKey):
            raise NotTrusted(f"{path.name} is not the certificate of desk {desk}", "enrol it again")
        return key


@dataclass(frozen=True)
class LoadedPolicy:
    """The exam's policy and the signed document that nodes get."""

    policy: ExamPolicy
    document: dict[str, Any]


def _desk_certificate(path: Path) -> x509.Certificate:
    try:
        return load_certificate(path)
    except BadConfig as error:
        raise NotTrusted(f"{path} is not a certificate", "enrol the desk again") from error


def load_keys(config: RoomConfig) -> RoomKeys:
    """Everything the controller needs before it opens a port; also looks for the TLS files (BadConfig)."""
    trust = config.trust
    load_certificate(trust.controller_certificate, MADE_BY)
    if not trust.controller_tls_key.is_file():
        raise BadConfig(f"cannot read {trust.controller_tls_key}: no such file", MADE_BY)
    return RoomKeys(
        load_certificate(trust.room_ca, MADE_BY),
        load_private_key(trust.signing_key, MADE_BY),
        load_public_key(trust.root_key, MADE_BY),
        trust.room_ca.parent / "desks",
    )


class PolicyFile:
    """`data/policy.json`: read again when it changes; `problem` says in words why there is none."""

    def __init__(self, path: Path, root: Ed25519PublicKey, institution: str) -> None:
        self._path = path
        self._root = root
        self._institution = institution
        self._seen: tuple[int, int] | None = None
        self._loaded: LoadedPolicy | None = None
        self.problem: str | None = None

    def current(self) -> LoadedPolicy | None:
        """The policy in force, or None; never raises."""
        try:
            stat = self._path.stat()
        except OSError:
            self._seen, self._loaded = None, None
            self.problem = None
            return None
        if (stat.st_mtime_ns, stat.st_size) != self._seen:
            self._seen = (stat.st_mtime_ns, stat.st_size)
            try:
                self._loaded, self.problem = self._read(), None
            except (OSError, ValueError, RecursionError) as error:  # BadInput and NotTrusted are ValueErrors
                self._loaded, self.problem = None, f"the exam policy cannot be used: {error}"
        return self._loaded

    def _read(self) -> LoadedPolicy:
        document = json.loads(self._path.read_bytes())
        if not isinstance(document, dict):
            raise NotTrusted("it is not a signed document", "use the file that the institution signed")
        policy = verify_policy(document, self._root)
        if policy.institution != self._institution:
            raise NotTrusted(
                f"it is of institution {policy.institution}", f"this room is {self._institution}'s"
            )
        return LoadedPolicy(policy, document)
