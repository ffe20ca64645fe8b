"""Renews a certificate over the key that is there: no key travels, and what was signed before stays valid.

A lost or stolen key is not renewed but revoked and provisioned anew.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from appliance.clock import Clock
from appliance.errors import BadInput, Refused
from provisioning.ca import RESERVED_NAMES, RoomAuthority, read_certificate
from provisioning.certificates import certificate_pem
from provisioning.files import check_code, write_file

BUNDLE_NAME = Path("trust/device.pem")  # where it lies in a desk's bundle, and on the node


def renew_certificate(
    authority: RoomAuthority, name: str, out: Path | None = None, clock: Clock | None = None
) -> x509.Certificate:
    """Two more years for a desk, the controller or the broker; a desk's also goes to `out`, for its node.

    Raises BadInput for a name that has no certificate in the room's `trust/`, Refused for a revoked one.
    """
    check_code("name", name)
    trust = authority.folder / "trust"
    path = trust / f"{name}.pem" if name in RESERVED_NAMES else trust / "desks" / f"{name}.pem"
    if not path.is_file():
        raise BadInput(f"{path} is missing", "provision desk makes the first certificate of a desk")
    old = read_certificate(path)
    if authority.is_revoked(old):
        raise Refused(
            f"the certificate of {name} was revoked", "provision desk … --replace gives it a new key"
        )
    key = old.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise BadInput(f"{path} holds a key of another kind", "provision it anew")
    usages = list(old.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    new = authority.issue(name, key, usages, _hosts(old), clock, old.not_valid_before_utc)
    write_file(path, certificate_pem(new))
    if out is not None:
        write_file(out / BUNDLE_NAME, certificate_pem(new))
    return new


def _hosts(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]
