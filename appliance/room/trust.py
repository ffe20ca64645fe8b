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
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from appliance.config import RoomConfig
from appliance.errors import BadConfig, NotTrusted
from appliance.policy import ExamPolicy, verify_policy

_MADE_BY = "trust files are made by invigil provision ca"


@dataclass(frozen=True)
class RoomKeys:
    """The controller's own keys and what it checks others against."""

    room_ca: x509.Certificate
    signing: Ed25519PrivateKey
    root: Ed25519PublicKey
    desk_certificates: Path

    def device_key(self, desk: str) -> Ed25519PublicKey:
        """The key that signs this desk's checkpoints, from `trust/desks/<desk>.pem`; raises NotTrusted.

        Where the room's CA is on the same machine (a demo), its own copy of what it issued serves as well.
        """
        path = self.desk_certificates / f"{desk}.pem"
        issued = self.desk_certificates.parent.parent / "ca" / "issued"
        paths = [path] if path.exists() else list(issued.glob(f"{desk}.*.pem"))
        if not paths:
            raise NotTrusted(f"the room has no certificate of desk {desk}", f"copy it to {path}")
        newest = max((_read_certificate(each) for each in paths), key=lambda c: c.not_valid_before_utc)
        try:
            newest.verify_directly_issued_by(self.room_ca)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise NotTrusted(
                f"the certificate of desk {desk} is not of this room's CA", "enrol it"
            ) from error
        names = [name.value for name in newest.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        key = newest.public_key()
        if names != [desk] or not isinstance(key, Ed25519PublicKey):
            raise NotTrusted(f"{path.name} is not the certificate of desk {desk}", "enrol it again")
        return key


@dataclass(frozen=True)
class LoadedPolicy:
    """The exam's policy and the signed document that nodes get."""

    policy: ExamPolicy
    document: dict[str, Any]


def read_trust_file(path: Path) -> bytes:
    """Bytes of one trust file; raises BadConfig."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadConfig(f"cannot read {path}: {(error.strerror or str(error)).lower()}", _MADE_BY) from error


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise NotTrusted(f"{path} is not a certificate", "enrol the desk again") from error


def load_keys(config: RoomConfig) -> RoomKeys:
    """Everything the controller needs before it opens a port; also looks for the TLS files (BadConfig)."""
    trust = config.trust
    for path in (trust.controller_certificate, trust.controller_tls_key):
        read_trust_file(path)
    try:
        room_ca = x509.load_pem_x509_certificate(read_trust_file(trust.room_ca))
    except ValueError as error:
        raise BadConfig(f"{trust.room_ca} is not a certificate", _MADE_BY) from error
    try:
        signing = load_pem_private_key(read_trust_file(trust.signing_key), None)
    except (ValueError, TypeError) as error:
        raise BadConfig(f"{trust.signing_key} is not a private key", _MADE_BY) from error
    if not isinstance(signing, Ed25519PrivateKey):
        raise BadConfig(f"{trust.signing_key} is not an Ed25519 key", _MADE_BY)
    try:
        root = Ed25519PublicKey.from_public_bytes(
            bytes.fromhex(read_trust_file(trust.root_key).decode().strip())
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise BadConfig(f"{trust.root_key} is not the hex of an Ed25519 key", _MADE_BY) from error
    return RoomKeys(room_ca, signing, root, trust.room_ca.parent / "desks")


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
            except (OSError, ValueError) as error:  # BadInput and NotTrusted are ValueErrors
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
