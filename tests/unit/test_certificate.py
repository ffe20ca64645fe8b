"""The completeness certificate: two signatures over one body, as a document and as a QR code's text."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from appliance.certificate_cli import app
from appliance.errors import ApplianceError, BadConfig, BadInput, EvidenceBroken, NotTrusted
from appliance.evf.canonical import canonical
from appliance.evf.signed import sign_document
from appliance.evidence.certificate import MAX_TEXT_BYTES, TEXT_PREFIX, Body, Certificate
from appliance.evidence.certifying import (
    DESK_PURPOSE,
    body_of,
    countersign,
    require_manifest,
    sign_as_desk,
    verify_certificate,
)
from appliance.evidence.manifest import Gap, Manifest, sign_manifest
from tests.sessions import GAP_CAUSE, SID, Built, Plan, Room, build_session


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Two epochs with one gap of 30 s."""
    return build_session(tmp_path_factory.mktemp("session"))


def certify(built: Built, manifest: Manifest | None = None) -> tuple[Certificate, bytes]:
    data = sign_manifest(manifest or built.manifest, built.room.device_key)
    half = sign_as_desk(manifest or built.manifest, data, built.room.device_key)
    return countersign(half, manifest or built.manifest, data, built.room.controller_key), data


@pytest.fixture(scope="module")
def file(built: Built) -> bytes:
    return certify(built)[0].to_bytes()


def verify(certificate: Certificate, room: Room) -> None:
    verify_certificate(certificate, room.ca_certificate(), room.controller_key.public_key())


def test_both_forms_verify_and_name_the_session(built: Built) -> None:
    """F008, in part: start and end are signed by node and controller."""
    certificate, data = certify(built)
    assert certificate.body.sid == SID
    assert certificate.body.manifest_sha256 == hashlib.sha256(data).hexdigest()
    assert (certificate.body.outcome, certificate.body.lines) == ("with gaps", 1)
    document = Certificate.parse(certificate.to_bytes())
    assert document == certificate
    assert [line.cause for line in document.lines or ()] == [GAP_CAUSE]
    text = Certificate.parse(certificate.to_text().encode())
    assert (text.body, text.lines) == (certificate.body, None)
    for form in (document, text):
        verify(form, built.room)
    assert require_manifest(text.body, built.manifest, data) == certificate.lines


def test_a_complete_session_says_so(tmp_path: Path) -> None:
    certificate, _ = certify(build_session(tmp_path, Plan(epochs=1)))
    assert (certificate.body.outcome, certificate.body.lines, certificate.lines) == ("complete", 0, ())
    assert certificate.body.lines_sha256 == hashlib.sha256(b"[]").hexdigest()


def test_text_is_capitals_digits_and_a_colon(built: Built) -> None:
    """QR's alphanumeric mode, and no shell, form or e-mail changes it; lower case does no harm either."""
    certificate, _ = certify(built)
    text = certificate.to_text()
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:")
    assert "//" not in text
    assert Certificate.parse(f"  {text.lower()}\n".encode()).body == certificate.body


def test_the_desk_signs_the_same_bytes_each_time(built: Built) -> None:
    data = sign_manifest(built.manifest, built.room.device_key)
    assert sign_as_desk(built.manifest, data, built.room.device_key) == sign_as_desk(
        built.manifest, data, built.room.device_key
    )


def test_no_altered_byte_of_the_text_reads_as_another_certificate(built: Built) -> None:
    """Refused, or the very same one: deflate has a few bits at its end that mean nothing."""
    certificate, _ = certify(built)
    text = certificate.to_text()
    said = Certificate.parse(text.encode())
    the_same = 0
    for place in range(len(text)):
        altered = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        try:
            found = Certificate.parse(altered.encode())
        except ApplianceError:
            continue
        if found == said:
            the_same += 1
            continue
        with pytest.raises(ApplianceError):
            verify(found, built.room)
    assert the_same <= 2


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda d: d["body"].update(candidate_code="C-4712"), NotTrusted),
        (lambda d: d["body"].update(outcome="complete", lines=0), NotTrusted),
        (lambda d: d["body"].update(outcome="complete"), BadInput),
        (lambda d: d["body"].update(ended="2026-11-22T09:00:53.000Z"), NotTrusted),
        (lambda d: d["body"].update(ended="soon"), EvidenceBroken),
        (lambda d: d["body"].update(v=2), BadInput),
        (lambda d: d["body"].update(root="00"), BadInput),
        (lambda d: d["body"].update(lines=True), BadInput),
        (lambda d: d["body"].update(more=1), BadInput),
        (lambda d: d["lines"][0].update(cause="nothing happened"), EvidenceBroken),
        (lambda d: d["lines"][0].update(end_90k=d["lines"][0]["end_90k"] - 1), EvidenceBroken),
        (lambda d: d.update(lines=[]), EvidenceBroken),
        (lambda d: d.update(lines=None), BadInput),
        (lambda d: d.update(lines=[{}]), BadInput),
        (lambda d: d.update(more=1), BadInput),
        (lambda d: d.pop("room_signature"), BadInput),
        (lambda d: d.update(desk_signature=d["room_signature"]), NotTrusted),
        (lambda d: d.update(room_signature=d["desk_signature"]), NotTrusted),
        (lambda d: d.update(room_signature="AA=="), BadInput),
        (lambda d: d.update(device_certificate="AAAA"), NotTrusted),
    ],
)
def test_an_altered_document_is_refused(
    built: Built, change: Callable[[dict[str, Any]], Any], error: type[ApplianceError]
) -> None:
    certificate, _ = certify(built)
    document = json.loads(certificate.to_bytes())
    change(document)
    with pytest.raises(error):
        verify(Certificate.parse(canonical(document)), built.room)


def test_keys_of_another_room_are_refused(built: Built) -> None:
    certificate, _ = certify(built)
    other = Room()
    with pytest.raises(NotTrusted, match="not issued by this room's CA"):
        verify_certificate(certificate, other.ca_certificate(), built.room.controller_key.public_key())
    with pytest.raises(NotTrusted, match="signature of the room controller"):
        verify_certificate(certificate, built.room.ca_certificate(), other.controller_key.public_key())


def test_the_room_does_not_sign_what_does_not_follow_from_the_manifest(built: Built) -> None:
    """A desk that says complete and hands in a manifest with a gap gets no certificate, and the reason names it."""
    data = sign_manifest(built.manifest, built.room.device_key)
    body, _ = body_of(built.manifest, data)
    key = built.room.controller_key

    def half(said: dict[str, Any], purpose: str = DESK_PURPOSE, by: Ed25519PrivateKey | None = None) -> bytes:
        return canonical(sign_document(purpose, said, by or built.room.device_key))

    lying = body.to_json() | {"outcome": "complete", "lines": 0}
    with pytest.raises(EvidenceBroken, match="says outcome 'complete', the manifest 'with gaps'"):
        countersign(half(lying), built.manifest, data, key)
    with pytest.raises(EvidenceBroken, match="says leaves 1, the manifest"):
        countersign(half(body.to_json() | {"leaves": 1}), built.manifest, data, key)
    with pytest.raises(EvidenceBroken, match="more than it should"):
        countersign(half(body.to_json() | {"name": "somebody"}), built.manifest, data, key)
    with pytest.raises(NotTrusted, match="another key"):
        countersign(half(body.to_json(), by=Room().device_key), built.manifest, data, key)
    with pytest.raises(NotTrusted, match="not signed as"):
        countersign(half(body.to_json(), purpose="manifest"), built.manifest, data, key)
    with pytest.raises(EvidenceBroken, match="malformed"):
        countersign(b"{", built.manifest, data, key)
    assert countersign(half(body.to_json()), built.manifest, data, key).body == body


def test_a_desk_with_another_key_than_its_manifest_signs_nothing(built: Built) -> None:
    data = sign_manifest(built.manifest, built.room.device_key)
    with pytest.raises(NotTrusted, match="another device key"):
        sign_as_desk(built.manifest, data, Room().device_key)


@pytest.mark.parametrize(
    "text",
    [
        TEXT_PREFIX,
        TEXT_PREFIX + "1",
        TEXT_PREFIX + "A" * (MAX_TEXT_BYTES + 1),
        TEXT_PREFIX + base64.b32encode(zlib.compress(b"0" * 10**7)).decode().rstrip("="),
        TEXT_PREFIX + base64.b32encode(zlib.compress(b"{}") + b"more").decode().rstrip("="),
        TEXT_PREFIX + base64.b32encode(zlib.compress(b"[1]")).decode().rstrip("="),
        "",
        "{}",
        "[]",
        "\x00\xff",
    ],
)
def test_nonsense_is_named(text: str) -> None:
    with pytest.raises(BadInput):
        Certificate.parse(text.encode())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_a_certificate_or_refused_by_name(data: bytes, packed: bool) -> None:
    if packed:
        data = TEXT_PREFIX.encode() + base64.b32encode(zlib.compress(data)).rstrip(b"=")
    with pytest.raises(BadInput):
        Certificate.parse(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_value_in_any_place_is_refused_by_name(built: Built, file: bytes, data: st.DataObject) -> None:
    document = json.loads(file)
    place = data.draw(st.sampled_from([document, document["body"], document["lines"][0]]))
    name = data.draw(st.sampled_from(sorted(place)))
    value = data.draw(JSON)
    if value == place[name] and type(value) is type(place[name]):
        return
    place[name] = value
    with pytest.raises(ApplianceError):
        verify(Certificate.parse(canonical(document)), built.room)


# --- the command


def arguments(built: Built, what: str | Path, *more: str | Path) -> list[str]:
    trust = built.config.parent / "trust"
    pinned = ["--room-ca", trust / "room-ca.pem", "--controller-key", trust / "controller.pub"]
    return ["check", str(what), *(str(part) for part in (*pinned, *more))]


def run(built: Built, what: str | Path, *more: str | Path) -> str:
    result = CliRunner().invoke(app, arguments(built, what, *more))
    if result.exception:
        raise result.exception
    return result.output


def test_check_says_what_it_proves(built: Built, tmp_path: Path) -> None:
    certificate, _ = certify(built)
    file = tmp_path / "certificate.json"
    file.write_bytes(certificate.to_bytes())
    for what in (file, certificate.to_text()):
        said = run(built, what)
        for words in (
            SID,
            "C-4711",
            "with gaps: 1 thing is",
            "2026-11-22 09:00:00 UTC",
            "proves: desk and room both",
        ):
            assert words in said, words
    assert f"00:00:12-00:00:42  {GAP_CAUSE}" in run(built, file)
    assert "names their number and hash" in run(built, certificate.to_text())
    said = run(built, certificate.to_text(), "--manifest", built.folder / "manifest.json")
    assert f"00:00:12-00:00:42  {GAP_CAUSE}" in said
    assert "the manifest is this session's" in said


def test_check_refuses_another_sessions_manifest(built: Built, tmp_path: Path) -> None:
    certificate, _ = certify(built)
    shorter = replace(built.manifest, gaps=(Gap(0, 1, "another", False),))
    for changed, words in ((shorter, "its SHA-256 is another"), (None, "of session 5e5e5e5e")):
        other = tmp_path / "manifest.json"
        if changed is None:
            data = sign_manifest(built.manifest, built.room.device_key)
            elsewhere = replace(certificate.body, sid="ab" * 16)
            with pytest.raises(EvidenceBroken, match=words):
                require_manifest(elsewhere, built.manifest, data)
            continue
        other.write_bytes(sign_manifest(changed, built.room.device_key))
        with pytest.raises(EvidenceBroken, match=words):
            run(built, certificate.to_text(), "--manifest", other)


@pytest.mark.parametrize("what", ["no/such/file", "x" * 5000, "a\0b", "."])
def test_check_of_nothing_is_named(built: Built, what: str) -> None:
    with pytest.raises(BadInput, match="neither the text of a certificate nor a file"):
        run(built, what)


def test_check_names_missing_trust(built: Built, tmp_path: Path) -> None:
    certificate, _ = certify(built)
    with pytest.raises(BadConfig, match=r"cannot read .*ca\.pem"):
        run(built, certificate.to_text(), "--room-ca", tmp_path / "ca.pem")


def test_the_document_carries_the_desks_certificate(built: Built) -> None:
    """So that nothing but what the test centre gave out is needed."""
    certificate, _ = certify(built)
    device = load_pem_x509_certificate(built.manifest.chain_pem[0].encode())
    assert certificate.device_certificate == device.public_bytes(Encoding.DER)
    assert len(certificate.desk_key_id) == 32


def test_body_refuses_negative_counts(built: Built) -> None:
    certificate, _ = certify(built)
    with pytest.raises(BadInput):
        Body.from_json(certificate.body.to_json() | {"leaves": -1})
