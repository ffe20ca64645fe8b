"""The room's certificate authority and the controller's identities, made once for a room on staff's machine.

Of a room's folder `trust/` goes to the controller; `ca/` (the CA's private key and a copy of each certificate
issued) stays with staff, so that a controller cannot enrol desks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from appliance.clock import Clock, SystemClock
from appliance.errors import BadInput
from provisioning.certificates import (
    PublicKey,
    certificate_pem,
    common_name,
    host_names,
    issue_certificate,
    private_key_pem,
    public_key_line,
    revocation_entry,
    revocation_list,
    revocation_number,
    self_signed_ca,
)
from provisioning.files import check_code, refuse_existing, write_file

CONTROLLER_NAME = "controller"
BROKER_NAME = "broker"
RESERVED_NAMES = (CONTROLLER_NAME, BROKER_NAME)
ALWAYS_HOSTS = ("127.0.0.1", "localhost")

CA_CERTIFICATE = Path("trust/room-ca.pem")
CA_KEY = Path("ca/room-ca.key")
CRL = Path("trust/room-ca.crl")
ISSUED = Path("ca/issued")


@dataclass(frozen=True)
class RoomAuthority:
    """An opened room CA that issues and revokes; `folder` holds `ca/` and `trust/`."""

    folder: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def room(self) -> str:
        """The room's name: the CA's common name."""
        return common_name(self.certificate)

    def issue(
        self,
        name: str,
        public_key: PublicKey,
        usages: Sequence[x509.ObjectIdentifier],
        hosts: Sequence[str] = (),
        clock: Clock | None = None,
        begins: datetime | None = None,
    ) -> x509.Certificate:
        """A certificate, of which a copy stays in `ca/issued/` so that it can be revoked without the desk."""
        now = (clock or SystemClock()).wall()
        certificate = issue_certificate(
            self.certificate, self.key, name, public_key, usages, hosts, now, begins
        )
        copy = self.folder / ISSUED / f"{name}.{certificate.serial_number:x}.pem"
        write_file(copy, certificate_pem(certificate))
        return certificate

    def issued_to(self, name: str) -> list[x509.Certificate]:
        """Every certificate ever issued to this name, revoked ones too."""
        copies = [read_certificate(path) for path in sorted((self.folder / ISSUED).glob("*.pem"))]
        return [copy for copy in copies if common_name(copy) == name]

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """Whether it stands on the room's list; raises BadInput for a list that is none."""
        return (
            self._read_crl().get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
        )

    def revoke(self, certificates: Iterable[x509.Certificate], clock: Clock | None = None) -> int:
        """Add certificates to the list and sign it anew; returns how many were not on it before.

        A broker reads the list when it starts: copy the file to the controller and restart the broker.
        """
        old = self._read_crl()
        now = (clock or SystemClock()).wall()
        entries = {entry.serial_number: entry for entry in old}
        known = len(entries)
        for certificate in certificates:
            entries.setdefault(certificate.serial_number, revocation_entry(certificate, now))
        self._write_crl(entries.values(), revocation_number(old) + 1, now)
        return len(entries) - known

    def _read_crl(self) -> x509.CertificateRevocationList:
        path = self.folder / CRL
        try:
            return x509.load_pem_x509_crl(path.read_bytes())
        except ValueError as error:
            raise BadInput(f"{path} is not a revocation list", "restore it from the backup") from error

    def _write_crl(self, entries: Iterable[x509.RevokedCertificate], number: int, now: datetime) -> None:
        crl = revocation_list(self.certificate, self.key, entries, number, now)
        write_file(self.folder / CRL, crl.public_bytes(serialization.Encoding.PEM))


def create_room(
    folder: Path, room: str, hosts: Sequence[str] = (), *, replace: bool = False, clock: Clock | None = None
) -> RoomAuthority:
    """Make a room's CA, an empty revocation list and the broker's and controller's identities below `folder`.

    `hosts`: names and addresses under which nodes and browsers reach the controller; loopback is added.
    Raises BadInput for a bad name or when keys exist and `replace` is not given.
    """
    check_code("room", room)
    all_hosts = [*hosts, *ALWAYS_HOSTS]
    host_names(all_hosts)
    trust = folder / "trust"
    signing_path = trust / "controller-signing.key"
    keys = [folder / CA_KEY, trust / "broker.key", trust / "controller-tls.key", signing_path]
    refuse_existing([*keys, folder / CA_CERTIFICATE], replace)
    now = (clock or SystemClock()).wall()

    ca_key = ec.generate_private_key(ec.SECP256R1())
    authority = RoomAuthority(folder, self_signed_ca(room, ca_key, now), ca_key)
    write_file(folder / CA_KEY, private_key_pem(ca_key), secret=True)
    write_file(folder / CA_CERTIFICATE, certificate_pem(authority.certificate))
    authority._write_crl((), 1, now)

    server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
    for name, key_name, usages in (
        (BROKER_NAME, "broker.key", [server]),
        (CONTROLLER_NAME, "controller-tls.key", [server, client]),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = authority.issue(name, key.public_key(), usages, all_hosts, clock)
        write_file(trust / key_name, private_key_pem(key), secret=True)
        write_file(trust / f"{name}.pem", certificate_pem(certificate))

    signing_key = ed25519.Ed25519PrivateKey.generate()
    write_file(signing_path, private_key_pem(signing_key), secret=True)
    write_file(trust / "controller.pub", public_key_line(signing_key.public_key()))
    return authority


def open_authority(folder: Path) -> RoomAuthority:
    """The CA that `create_room` made; raises BadInput when the folder does not hold one."""
    certificate = read_certificate(folder / CA_CERTIFICATE)
    path = folder / CA_KEY
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{path} is not a private key", "give the folder that provision ca wrote") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise BadInput(f"{path} does not belong to {folder / CA_CERTIFICATE}", "restore both from one backup")
    return RoomAuthority(folder, certificate, key)


def read_certificate(path: Path) -> x509.Certificate:
    """One PEM certificate; raises BadInput naming the file, OSError when it cannot be read."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (ValueError, x509.InvalidVersion) as error:
        raise BadInput(
            f"{path} is not a certificate", "a PEM file made by invigil provision is needed"
        ) from error
