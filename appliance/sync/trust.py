"""What provisioning pinned on this desk, read when the sync process starts; BadConfig names what is missing.

Certificates are read again when their files change: a renewed one is over the same key and needs no restart.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from appliance.config import NodeConfig
from appliance.errors import BadConfig
from appliance.trust import HINT, load_certificate, load_private_key, load_public_key, validity_problem

log = logging.getLogger(__name__)


class DeskCertificates:
    """The desk's certificate and the room's CA as they lie on the disk now."""

    def __init__(self, config: NodeConfig, device_key: Ed25519PublicKey) -> None:
        self._whose = config.desk
        self._paths = (config.trust.device_certificate, config.trust.room_ca)
        self._device_key = device_key
        self._seen = self._stamp()
        self._device, self._ca = self._read()
        self._unusable: str | None = None

    def chain_pem(self) -> tuple[str, ...]:
        """For manifests: device first, CA last."""
        self._look_again()
        chain = [*self._device, self._ca]
        return tuple(dict.fromkeys(each.public_bytes(Encoding.PEM).decode("ascii") for each in chain))

    def problem(self, now: datetime) -> str | None:
        """What is wrong with a certificate, or will be within 30 days, in words."""
        self._look_again()
        return (
            self._unusable
            or validity_problem(self._device[0], self._whose, now)
            or validity_problem(self._ca, "the room's CA", now)
        )

    def valid_at(self, moment: datetime) -> bool:
        """Whether what is signed for this moment would be believed."""
        self._look_again()
        return all(
            each.not_valid_before_utc <= moment <= each.not_valid_after_utc
            for each in (self._device[0], self._ca)
        )

    def _look_again(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._device, self._ca = self._read()
            self._unusable = None
            log.info("trust.certificates_read valid_until=%s", self._device[0].not_valid_after_utc)
        except BadConfig as error:
            self._unusable = f"certificate of {self._whose} cannot be used: {error}"

    def _read(self) -> tuple[list[x509.Certificate], x509.Certificate]:
        device = self._paths[0]
        try:
            chain = x509.load_pem_x509_certificates(device.read_bytes())
        except (OSError, ValueError, x509.InvalidVersion) as error:
            raise BadConfig(f"{device} holds no certificate", HINT) from error
        if chain[0].public_key() != self._device_key:
            raise BadConfig(f"{device} is of another key than this desk's", HINT)
        return chain, load_certificate(self._paths[1])

    def _stamp(self) -> tuple[object, ...]:
        try:
            return tuple((stat.st_mtime_ns, stat.st_size) for stat in (path.stat() for path in self._paths))
        except OSError:  # a file is just being replaced
            return ()


@dataclass(frozen=True)
class DeskTrust:
    """Keys to check with, the key to sign with, and the certificates."""

    controller_key: Ed25519PublicKey
    root_key: Ed25519PublicKey
    device_key: Ed25519PrivateKey
    certificates: DeskCertificates
    recipient_set: Path

    @property
    def chain_pem(self) -> tuple[str, ...]:
        """The certificates for manifests (device first, CA last)."""
        return self.certificates.chain_pem()


def load_trust(config: NodeConfig) -> DeskTrust:
    """Everything that `[trust]` of node.toml names, the recipient set apart, which may be replaced while we run."""
    trust = config.trust
    device_key = load_private_key(trust.device_key)
    return DeskTrust(
        controller_key=load_public_key(trust.controller_key),
        root_key=load_public_key(trust.root_key),
        device_key=device_key,
        certificates=DeskCertificates(config, device_key.public_key()),
        recipient_set=trust.recipient_set,
    )
