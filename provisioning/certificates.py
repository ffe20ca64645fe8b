"""X.509 as Invigil issues it: the profile of each certificate and list, pure; nothing here touches a disk.

Sources: RFC 5280 (profile), RFC 8410 (Ed25519 in X.509). Controller and broker use P-256 because browsers do
not accept Ed25519 certificates; a desk's one key is Ed25519 because it also signs checkpoints and manifests.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from appliance.errors import BadInput

CA_VALIDITY = timedelta(days=3652)  # 10 years
CERTIFICATE_VALIDITY = timedelta(days=730)  # 2 years
BACKDATED = timedelta(days=1)  # a node without a battery clock may wake up a little in the past

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def self_signed_ca(room: str, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    """The room's CA: common name = room, may sign certificates and lists, no further CA below it."""
    return (
        _builder(room, key.public_key())
        .issuer_name(_name(room))
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + CA_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def issue_certificate(
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    name: str,
    public_key: PublicKey,
    usages: Sequence[x509.ObjectIdentifier],
    hosts: Sequence[str],
    now: datetime,
    begins: datetime | None = None,
) -> x509.Certificate:
    """A certificate of 2 years, never beyond its issuer's end; `hosts` (names, IP addresses) are its SAN.

    `begins`: of the certificate that it renews, over the same key: what was signed between is valid without a gap.
    """
    builder = (
        _builder(name, public_key)
        .issuer_name(issuer.subject)
        .not_valid_before(begins or now - BACKDATED)
        .not_valid_after(min(now + CERTIFICATE_VALIDITY, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(_authority_key_id(issuer_key), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(host_names(hosts)), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def revocation_list(
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    entries: Iterable[x509.RevokedCertificate],
    number: int,
    now: datetime,
) -> x509.CertificateRevocationList:
    """A signed list, due only at the CA's own end: with an overdue one OpenSSL refuses every desk."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now - BACKDATED)
        .next_update(issuer.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_key_id(issuer_key), critical=False)
    )
    for entry in entries:
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer_key, hashes.SHA256())


def revocation_entry(certificate: x509.Certificate, now: datetime) -> x509.RevokedCertificate:
    """The line for one certificate."""
    builder = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
    return builder.revocation_date(now).build()


def revocation_number(crl: x509.CertificateRevocationList) -> int:
    """Its CRL number (RFC 5280, 5.2.3), which grows with each list."""
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def common_name(certificate: x509.Certificate) -> str:
    """The subject's one common name; raises BadInput when there is none or more."""
    values = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(values) != 1:
        raise BadInput("certificate has no single common name", "use a certificate made by invigil provision")
    return str(values[0].value)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """PEM text."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_key_pem(key: PrivateKey) -> bytes:
    """PKCS8 PEM, unencrypted: a service must start without a person; the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_key_line(key: ed25519.Ed25519PublicKey) -> bytes:
    """The form of every *.pub file: 64 hex digits of the raw key and a newline."""
    return key.public_bytes_raw().hex().encode() + b"\n"


def _builder(name: str, public_key: PublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _authority_key_id(issuer_key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def host_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Host names and IP addresses as they stand in a SAN, each once; raises BadInput naming a bad one."""
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
            continue
        except ValueError:
            pass
        labels = host.split(".")
        if len(host) > 253 or not all(_is_label(label) for label in labels):
            raise BadInput(f"{host!r} is no host name or IP address", "give --host room-214.example.org")
        names.append(x509.DNSName(host))
    return names


def _is_label(text: str) -> bool:
    bare = text.replace("-", "a")
    return 0 < len(text) <= 63 and bare.isascii() and bare.isalnum() and text[0] != "-" and text[-1] != "-"
