"""A room's CA and a desk's bundle: names, uses, validity, modes, and keys that are never overwritten by accident."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from appliance.archive.keys import RootKey, create_recipient_set
from appliance.config import NodeConfig, load_config
from appliance.errors import BadInput, NotTrusted
from appliance.evf.canonical import canonical
from appliance.evf.errors import Outdated
from appliance.evf.recipients import RepresentativeKey, verify_recipient_set
from appliance.evf.signed import sign_document, verify_document
from appliance.trust import load_document, load_private_key, load_public_key
from provisioning.ca import RoomAuthority, create_room, open_authority, read_certificate
from provisioning.certificates import common_name
from provisioning.desk import DeskSettings, write_bundle
from provisioning.files import write_file
from tests.manual_clock import ManualClock

ROOT = RootKey("uni", ed25519.Ed25519PrivateKey.generate())
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


@pytest.fixture
def authority(tmp_path: Path) -> RoomAuthority:
    return create_room(tmp_path / "room", "room-2.14", ["10.0.0.5", "ctl.example.org"], clock=ManualClock())


@pytest.fixture
def institution(tmp_path: Path) -> Path:
    """root.pub and recipient-set.json."""
    write_institution(tmp_path / "institution", ROOT, 1)
    return tmp_path / "institution"


def write_institution(folder: Path, root: RootKey, version: int) -> None:
    people = [RepresentativeKey.generate().representative("Exam board")]
    document = create_recipient_set(root, root.institution, people, version, ManualClock())
    write_file(folder / "recipient-set.json", canonical(document))
    write_file(folder / "root.pub", root.key.public_key().public_bytes_raw().hex().encode() + b"\n")


def bundle(
    authority: RoomAuthority,
    institution: Path,
    out: Path,
    desk: str = "desk-7",
    replace: bool = False,
    **more: object,
) -> NodeConfig:
    settings = DeskSettings(desk=desk, institution="uni", broker_host="10.0.0.5", **more)  # type: ignore[arg-type]
    return write_bundle(
        authority,
        settings,
        institution / "recipient-set.json",
        institution / "root.pub",
        out,
        replace=replace,
        clock=ManualClock(),
    )


def test_authority_is_p256_for_ten_years_and_has_none_below_it(authority: RoomAuthority) -> None:
    ca = read_certificate(authority.folder / "trust/room-ca.pem")
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (common_name(ca), ca.version) == ("room-2.14", x509.Version.v3)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert isinstance(ca.public_key(), ec.EllipticCurvePublicKey)
    assert ca.public_key().curve.name == "secp256r1"
    assert ca.not_valid_after_utc - ManualClock().wall() == timedelta(days=3652)


@pytest.mark.parametrize(("name", "expected"), [("broker", [SERVER]), ("controller", [SERVER, CLIENT])])
def test_controller_and_broker_carry_the_hosts(
    authority: RoomAuthority, name: str, expected: list[x509.ObjectIdentifier]
) -> None:
    certificate = read_certificate(authority.folder / f"trust/{name}.pem")
    certificate.verify_directly_issued_by(authority.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["ctl.example.org", "localhost"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.5", "127.0.0.1"]
    assert usages(certificate) == expected
    assert common_name(certificate) == name
    assert certificate.not_valid_after_utc - ManualClock().wall() == timedelta(days=730)


def test_secrets_are_for_their_owner_alone(
    authority: RoomAuthority, institution: Path, tmp_path: Path
) -> None:
    bundle(authority, institution, tmp_path / "desk")
    keys = {path.relative_to(tmp_path).as_posix(): mode(path) for path in tmp_path.rglob("*.key")}
    assert keys == {
        "room/ca/room-ca.key": 0o600,
        "room/trust/broker.key": 0o600,
        "room/trust/controller-tls.key": 0o600,
        "room/trust/controller-signing.key": 0o600,
        "desk/trust/device.key": 0o600,
    }


def test_signing_key_is_the_one_that_desks_pin(authority: RoomAuthority) -> None:
    key = load_private_key(authority.folder / "trust/controller-signing.key")
    assert load_public_key(authority.folder / "trust/controller.pub") == key.public_key()
    assert len((authority.folder / "trust/controller.pub").read_bytes()) == 65


def test_certificate_never_outlives_its_authority(authority: RoomAuthority) -> None:
    late = ManualClock()
    late.step_wall(timedelta(days=3600).total_seconds())
    key = ed25519.Ed25519PrivateKey.generate()
    certificate = authority.issue("desk-9", key.public_key(), [CLIENT], clock=late)
    assert certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_bundle_is_all_that_a_node_needs(authority: RoomAuthority, institution: Path, tmp_path: Path) -> None:
    out = tmp_path / "desk"
    config = bundle(authority, institution, out, camera='clip:/data/ä "b".mp4', store=Path("/srv/store"))
    assert load_config(out / "node.toml", NodeConfig) == config
    assert (config.room, config.desk, config.institution) == ("room-2.14", "desk-7", "uni")
    assert (config.camera, config.store) == ('clip:/data/ä "b".mp4', Path("/srv/store"))
    assert config.broker_tls
    for path in config.trust.model_dump().values():
        assert path.is_file(), path
    certificate = read_certificate(config.trust.device_certificate)
    certificate.verify_directly_issued_by(read_certificate(config.trust.room_ca))
    assert (common_name(certificate), usages(certificate)) == ("desk-7", [CLIENT])
    root = load_public_key(config.trust.root_key)
    assert verify_recipient_set(load_document(config.trust.recipient_set), root, 1).institution == "uni"


def test_one_device_key_signs_what_its_certificate_proves(
    authority: RoomAuthority, institution: Path, tmp_path: Path
) -> None:
    config = bundle(authority, institution, tmp_path / "desk")
    document = sign_document("manifest", {"a": 1}, load_private_key(config.trust.device_key))
    public_key = read_certificate(config.trust.device_certificate).public_key()
    assert isinstance(public_key, ed25519.Ed25519PublicKey)
    assert verify_document("manifest", document, public_key) == {"a": 1}


def test_room_gets_what_the_desk_pins(authority: RoomAuthority, institution: Path, tmp_path: Path) -> None:
    """Not the device key: that is on the node alone."""
    bundle(authority, institution, tmp_path / "desk")
    trust = authority.folder / "trust"
    for name in ("root.pub", "recipient-set.json"):
        assert (trust / name).read_bytes() == (tmp_path / "desk/trust" / name).read_bytes()
    assert (trust / "desks/desk-7.pem").read_bytes() == (tmp_path / "desk/trust/device.pem").read_bytes()
    device_key = (tmp_path / "desk/trust/device.key").read_bytes()
    assert not [
        path for path in authority.folder.rglob("*") if path.is_file() and path.read_bytes() == device_key
    ]


@pytest.mark.parametrize(
    "desk", ["controller", "broker", "", "a/b", "+", "#", "desk 7", "../x", "a" * 65, "-a"]
)
def test_desk_name_that_cannot_be_used(
    authority: RoomAuthority, institution: Path, tmp_path: Path, desk: str
) -> None:
    with pytest.raises(BadInput) as caught:
        bundle(authority, institution, tmp_path / "desk", desk)
    assert caught.value.hint
    assert not (tmp_path / "desk").exists()


def test_room_name_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="room 'a/b' is not a usable name"):
        create_room(tmp_path / "room", "a/b")
    assert not (tmp_path / "room").exists()


@pytest.mark.parametrize("host", ["", "a b", "-a.example", "x" * 64, "http://a", "10.0.0.5:8883"])
def test_host_that_cannot_be_used(tmp_path: Path, host: str) -> None:
    with pytest.raises(BadInput, match="no host name or IP address"):
        create_room(tmp_path / "room", "r", [host])
    assert not (tmp_path / "room").exists()


def test_room_keys_are_kept_unless_told(authority: RoomAuthority) -> None:
    before = {path: path.read_bytes() for path in authority.folder.rglob("*") if path.is_file()}
    with pytest.raises(BadInput, match="exists already") as caught:
        create_room(authority.folder, "room-2.14")
    assert "--replace" in caught.value.hint
    assert {path: path.read_bytes() for path in authority.folder.rglob("*") if path.is_file()} == before
    create_room(authority.folder, "room-2.14", replace=True)
    assert (authority.folder / "ca/room-ca.key").read_bytes() != before[authority.folder / "ca/room-ca.key"]


def test_device_key_is_kept_unless_told(authority: RoomAuthority, institution: Path, tmp_path: Path) -> None:
    bundle(authority, institution, tmp_path / "desk")
    before = (tmp_path / "desk/trust/device.key").read_bytes()
    with pytest.raises(BadInput, match="exists already"):
        bundle(authority, institution, tmp_path / "desk")
    assert (tmp_path / "desk/trust/device.key").read_bytes() == before
    bundle(authority, institution, tmp_path / "desk", replace=True)
    assert (tmp_path / "desk/trust/device.key").read_bytes() != before


def test_recipient_set_that_the_room_controller_signed_is_not_trusted(
    authority: RoomAuthority, institution: Path, tmp_path: Path
) -> None:
    """F083: otherwise the room could add its own key."""
    room_key = load_pem_private_key((authority.folder / "trust/controller-signing.key").read_bytes(), None)
    assert isinstance(room_key, ed25519.Ed25519PrivateKey)
    write_institution(tmp_path / "forged", RootKey("uni", room_key), 2)
    (institution / "recipient-set.json").write_bytes((tmp_path / "forged/recipient-set.json").read_bytes())
    with pytest.raises(NotTrusted, match="signed by another key"):
        bundle(authority, institution, tmp_path / "desk")
    assert not (tmp_path / "desk").exists()


def test_recipient_set_of_another_institution_is_refused(authority: RoomAuthority, tmp_path: Path) -> None:
    write_institution(tmp_path / "other", RootKey("other-uni", ROOT.key), 1)
    with pytest.raises(BadInput, match="belongs to institution other-uni, not uni"):
        bundle(authority, tmp_path / "other", tmp_path / "desk")


def test_room_stays_with_one_root_and_no_older_set(
    authority: RoomAuthority, institution: Path, tmp_path: Path
) -> None:
    write_institution(institution, ROOT, 3)
    bundle(authority, institution, tmp_path / "a")
    write_institution(institution, ROOT, 2)
    with pytest.raises(Outdated):
        bundle(authority, institution, tmp_path / "b", "desk-8")
    write_institution(institution, ROOT, 4)
    bundle(authority, institution, tmp_path / "c", "desk-9")
    write_institution(institution, RootKey("uni", ed25519.Ed25519PrivateKey.generate()), 5)
    with pytest.raises(NotTrusted, match="another root key"):
        bundle(authority, institution, tmp_path / "d", "desk-10")


def test_revocation_adds_up_and_names_only_the_desk(
    authority: RoomAuthority, institution: Path, tmp_path: Path
) -> None:
    bundle(authority, institution, tmp_path / "a")
    bundle(authority, institution, tmp_path / "a", replace=True)
    bundle(authority, institution, tmp_path / "b", "desk-8")
    opened = open_authority(authority.folder)
    stolen = opened.issued_to("desk-7")
    assert len(stolen) == 2
    assert opened.revoke(stolen, ManualClock()) == 2
    assert opened.revoke(stolen, ManualClock()) == 0
    assert opened.revoke(opened.issued_to("desk-8"), ManualClock()) == 1
    crl = x509.load_pem_x509_crl((authority.folder / "trust/room-ca.crl").read_bytes())
    key = authority.certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert crl.is_signature_valid(key)
    assert len(crl) == 3
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 4
    assert crl.next_update_utc == authority.certificate.not_valid_after_utc
    broker = read_certificate(authority.folder / "trust/broker.pem")
    assert crl.get_revoked_certificate_by_serial_number(broker.serial_number) is None


def test_authority_with_the_key_of_another_is_refused(authority: RoomAuthority, tmp_path: Path) -> None:
    other = create_room(tmp_path / "other", "room-2.14")
    (authority.folder / "ca/room-ca.key").write_bytes((other.folder / "ca/room-ca.key").read_bytes())
    with pytest.raises(BadInput, match="does not belong to"):
        open_authority(authority.folder)
    (authority.folder / "ca/room-ca.key").write_text("no key")
    with pytest.raises(BadInput, match="is not a private key"):
        open_authority(authority.folder)
