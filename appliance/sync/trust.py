"""What provisioning pinned on this desk, read once when the sync process starts; BadConfig names what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from appliance.config import NodeConfig
from appliance.errors import BadConfig
from appliance.trust import HINT, load_certificate, load_private_key, load_public_key


@dataclass(frozen=True)
class DeskTrust:
    """Keys to check with, the key to sign with, the certificates for manifests (device first, CA last)."""

    controller_key: Ed25519PublicKey
    root_key: Ed25519PublicKey
    device_key: Ed25519PrivateKey
    chain_pem: tuple[str, ...]
    recipient_set: Path


def load_trust(config: NodeConfig) -> DeskTrust:
    """Everything that `[trust]` of node.toml names, the recipient set apart, which may be replaced while we run."""
    trust = config.trust
    try:
        device_chain = x509.load_pem_x509_certificates(trust.device_certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise BadConfig(f"{trust.device_certificate} holds no certificate", HINT) from error
    chain = [*device_chain, load_certificate(trust.room_ca)]
    return DeskTrust(
        controller_key=load_public_key(trust.controller_key),
        root_key=load_public_key(trust.root_key),
        device_key=load_private_key(trust.device_key),
        chain_pem=tuple(dict.fromkeys(each.public_bytes(Encoding.PEM).decode("ascii") for each in chain)),
        recipient_set=trust.recipient_set,
    )
