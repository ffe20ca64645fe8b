"""The key ladder, key files, recipient sets and wraps."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import (
    BadKeyFile,
    BadPassphrase,
    BadSignature,
    BadWrap,
    EvfError,
    LimitExceeded,
    NotARecipient,
    Outdated,
)
from appliance.evf.keyfile import ITERATIONS, load_secret, save_secret
from appliance.evf.keys import EpochKey, derive_segment_keys, secret_at
from appliance.evf.recipients import (
    RecipientSet,
    Representative,
    RepresentativeKey,
    sign_recipient_set,
    verify_recipient_set,
)
from appliance.evf.signed import sign_document
from appliance.evf.wraps import WrapContext, open_wrap, read_wrap, wrap_epoch_key

ROOT = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
DEVICE = Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32)
ALICE = RepresentativeKey(bytes([3]) * 32)
BOB = RepresentativeKey(bytes([4]) * 32)
EVE = RepresentativeKey(bytes([5]) * 32)
SID = "0f" * 16
SET = RecipientSet(
    "uni", 4, "2026-11-22T09:00:00Z", (ALICE.representative("Alice Åberg"), BOB.representative("Bob"))
)
CONTEXT = WrapContext("uni", SID, 1, "media", "2026-11-22T09:00:00.000Z", "p1", "2027-05-22", 4)
PASSPHRASE = "correct horse Ångström"


def expand(secret: bytes, info: bytes) -> bytes:
    """HKDF-Expand-SHA512 for 32 bytes, written out (RFC 5869, 2.3)."""
    return hmac.digest(secret, info + b"\x01", "sha512")[:32]


def test_ladder_is_the_written_one() -> None:
    """FORMAT.md, Keys, recomputed with HMAC alone."""
    k0 = bytes(range(32))
    state = expand(k0, b"EVF1 trackvideo")
    ratchet = EpochKey(k0).track("video")
    for seg in range(4):
        step = ratchet.next_segment()
        assert (step.seg, bytes(step.secret)) == (seg, expand(state, b"EVF1 seg"))
        assert secret_at(EpochKey(k0), "video", seg) == step.secret
        state = expand(state, b"EVF1 next")


def test_segment_keys_are_the_written_ones() -> None:
    header = b"any header"
    prk = hmac.digest(hashlib.sha256(header).digest(), bytes([7]) * 32, "sha512")
    both = hmac.digest(prk, b"EVF1 segment v1\x01", "sha512")
    base_key, commit = derive_segment_keys(bytes([7]) * 32, header)
    assert bytes(base_key) + commit == both


def test_nothing_left_of_a_ratchet_leads_back() -> None:
    """F083: after a segment is given out, neither the ratchet nor the erased K(0) gives its secret again."""
    key = EpochKey(bytes(range(32)))
    living = key.secret
    ratchet = key.track("video")
    state = ratchet._state
    first = ratchet.next_segment()
    kept = bytes(first.secret)
    assert state == bytes(32)
    key.erase()
    first.erase()
    assert living == bytes(32)
    assert first.secret == bytes(32)
    with pytest.raises(EvfError):
        key.track("video")
    with pytest.raises(EvfError):
        ratchet.skip_to(0)
    assert kept not in bytes(ratchet._state or b"")
    ratchet.erase()
    with pytest.raises(EvfError):
        ratchet.next_segment()


def test_tracks_and_epochs_have_different_secrets() -> None:
    key = EpochKey(bytes(range(32)))
    secrets = {secret_at(key, track, seg) for track in ("video", "log", "a", "aa") for seg in range(500)}
    assert len(secrets) == 2000
    assert EpochKey.generate().secret != EpochKey.generate().secret


@pytest.mark.slow
def test_no_secret_repeats_in_a_million_segments() -> None:
    """F080: a segment's key is new each time, so a nonce of one can never meet another's."""
    seen = set()
    for epoch in range(10):
        ratchet = EpochKey(hashlib.sha256(bytes([epoch])).digest()).track("video")
        seen.update(bytes(ratchet.next_segment().secret) for _ in range(100_000))
    assert len(seen) == 1_000_000


@pytest.mark.parametrize("seg", [2**20, 2**32])
def test_a_strangers_segment_number_costs_nothing(seg: int) -> None:
    with pytest.raises(LimitExceeded):
        secret_at(EpochKey(bytes(32)), "video", seg)


@pytest.mark.parametrize(
    "vector", json.loads((Path(__file__).parents[1] / "vectors/xwing/vectors.json").read_text())
)
def test_xwing_vectors(vector: dict[str, str]) -> None:
    public = RepresentativeKey(bytes.fromhex(vector["seed"])).public_bytes.hex()
    if "pk" in vector:
        assert public == vector["pk"]
    else:
        assert public.startswith(vector["pk_begins"])
        assert public.endswith(vector["pk_ends"])


def test_key_file_opens_with_its_passphrase_only() -> None:
    """F081: parameters stand in the file; the passphrase is compared in its composed form."""
    data = ALICE.save(PASSPHRASE)
    fields = json.loads(data)
    assert (fields["kdf"], fields["iterations"], len(fields["salt"])) == ("PBKDF2-HMAC-SHA512", 600_000, 44)
    assert RepresentativeKey.load(data, "correct horse A\u030angstro\u0308m") == ALICE
    with pytest.raises(BadPassphrase):
        RepresentativeKey.load(data, PASSPHRASE + " ")
    with pytest.raises(BadKeyFile):
        load_secret("institution-root", data, PASSPHRASE)
    # every parameter is authenticated, the iterations by changing the key as well
    with pytest.raises(BadPassphrase):
        RepresentativeKey.load(canonical({**fields, "iterations": 210_000}), PASSPHRASE)


def test_key_file_is_rfc_8018() -> None:
    """F081: PBKDF2-HMAC-SHA512 and AES-256-GCM as an independent implementation computes them."""
    fields = json.loads(save_secret("institution-root", b"secret", PASSPHRASE))
    import base64

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    salt, nonce, sealed = (base64.b64decode(fields[name]) for name in ("salt", "nonce", "ciphertext"))
    key = hashlib.pbkdf2_hmac("sha512", PASSPHRASE.encode(), salt, ITERATIONS, 32)
    del fields["ciphertext"]
    assert AESGCM(key).decrypt(nonce, sealed, canonical(fields)) == b"secret"


WEAK: list[dict[str, Any]] = [
    {"iterations": 209_999},
    {"iterations": 1},
    {"iterations": 10**9},
    {"iterations": True},
    {"iterations": 600_000.0},
    {"iterations": None},
    {"kdf": "PBKDF2-HMAC-SHA1"},
    {"cipher": "none"},
    {"v": 2},
    {"v": True},
    {"kind": "other"},
    {"kind": None},
    {"salt": "AAAA"},
    {"nonce": ""},
    {"ciphertext": None},
    {"extra": 1},
]
SHAPE: dict[str, Any] = {
    "v": 1,
    "format": "invigil key file",
    "kind": "representative",
    "kdf": "PBKDF2-HMAC-SHA512",
    "iterations": 600_000,
    "salt": "A" * 43 + "=",
    "cipher": "AES-256-GCM",
    "nonce": "A" * 16,
    "ciphertext": "A" * 64,
}


@pytest.mark.parametrize("change", WEAK, ids=str)
def test_weak_or_malformed_key_files_are_refused(change: dict[str, Any]) -> None:
    """F081: fewer than 210,000 iterations are refused, before any are computed."""
    with pytest.raises(BadKeyFile):
        RepresentativeKey.load(canonical({**SHAPE, **change}), PASSPHRASE)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"{" * 20_000, canonical(SHAPE)[:-2]])
def test_what_is_no_key_file_is_refused(data: bytes) -> None:
    with pytest.raises(BadKeyFile):
        load_secret("representative", data, PASSPHRASE)


def test_empty_passphrase_is_refused() -> None:
    with pytest.raises(BadPassphrase):
        save_secret("representative", b"x", "")


def test_recipient_set_round_trip_and_age() -> None:
    document = parse_canonical(canonical(sign_recipient_set(SET, ROOT)))
    assert verify_recipient_set(document, ROOT.public_key(), 0) == SET
    assert verify_recipient_set(document, ROOT.public_key(), 4) == SET
    with pytest.raises(Outdated):
        verify_recipient_set(document, ROOT.public_key(), 5)
    with pytest.raises(BadSignature):
        verify_recipient_set(document, DEVICE.public_key(), 0)


def test_a_controller_cannot_add_its_own_key() -> None:
    document = sign_recipient_set(SET, ROOT)
    extended = sign_recipient_set(replace(SET, representatives=(EVE.representative("Eve"),)), DEVICE)
    with pytest.raises(BadSignature):
        verify_recipient_set({**document, "body": extended["body"]}, ROOT.public_key(), 0)


def _person(**change: Any) -> dict[str, Any]:
    return {**sign_recipient_set(SET, ROOT)["body"]["representatives"][0], **change}


@pytest.mark.parametrize(
    "change",
    [
        {"version": -1},
        {"version": True},
        {"institution": "a b"},
        {"institution": None},
        {"created": "yesterday"},
        {"representatives": []},
        {"representatives": None},
        {"representatives": [_person(), _person()]},
        {"representatives": [_person(kid="00" * 16)]},
        {"representatives": [_person(kid=None)]},
        {"representatives": [_person(name="")]},
        {"representatives": [_person(name="a\nb")]},
        {"representatives": [_person(public_key="AAAA")]},
        {"representatives": [7]},
        {"extra": 1},
    ],
    ids=str,
)
def test_malformed_recipient_sets_are_refused_though_signed(change: dict[str, Any]) -> None:
    body = {**sign_recipient_set(SET, ROOT)["body"], **change}
    with pytest.raises(BadSignature):
        verify_recipient_set(sign_document("recipient-set", body, ROOT), ROOT.public_key(), 0)


def test_each_representative_opens_and_nobody_else() -> None:
    """F083, F089: only the holders of the named private keys open K(0)."""
    key = EpochKey.generate()
    evk = wrap_epoch_key(key, CONTEXT, SET, DEVICE)
    for person in (ALICE, BOB):
        assert open_wrap(evk, person, DEVICE.public_key()).secret == key.secret
    with pytest.raises(NotARecipient):
        open_wrap(evk, EVE, DEVICE.public_key())
    assert read_wrap(evk, DEVICE.public_key())[0] == CONTEXT


@pytest.mark.parametrize(
    "change",
    [
        {"retain_until": "2028-05-22"},
        {"policy_id": "p2"},
        {"institution": "other"},
        {"sid": "0e" * 16},
        {"epoch": 2},
        {"class": "log"},
        {"created": "2026-11-22T09:00:00.001Z"},
        {"recipient_set_version": 5},
    ],
    ids=str,
)
def test_a_changed_context_opens_nothing(change: dict[str, Any]) -> None:
    """F111: a moved retention date fails with the signature, and also where the signature is not looked at."""
    document = parse_canonical(wrap_epoch_key(EpochKey.generate(), CONTEXT, SET, DEVICE))
    document["body"]["context"].update(change)
    evk = canonical(document)
    with pytest.raises(BadSignature):
        open_wrap(evk, ALICE, DEVICE.public_key())
    with pytest.raises(BadWrap):
        open_wrap(evk, ALICE, None)


def test_swapped_or_dropped_wraps_are_refused() -> None:
    document = parse_canonical(wrap_epoch_key(EpochKey.generate(), CONTEXT, SET, DEVICE))
    first, second = document["body"]["wraps"]
    document["body"]["wraps"] = [{**first, "sealed": second["sealed"]}, {**second, "sealed": first["sealed"]}]
    with pytest.raises(BadWrap):
        open_wrap(canonical(document), ALICE, None)
    document["body"]["wraps"] = [first]
    assert open_wrap(canonical(document), ALICE, None)
    with pytest.raises(BadSignature):
        open_wrap(canonical(document), ALICE, DEVICE.public_key())


@pytest.mark.parametrize(
    "wraps", [None, [], [7], [{}], [{"kid": "x", "sealed": ""}], [{"kid": "00" * 16, "sealed": "AAAA"}]]
)
def test_malformed_wraps_are_refused_though_signed(wraps: Any) -> None:
    body = {"context": CONTEXT.to_json(), "wraps": wraps}
    with pytest.raises(BadWrap):
        open_wrap(canonical(sign_document("session-key", body, DEVICE)), ALICE, DEVICE.public_key())
    with pytest.raises(BadWrap):
        open_wrap(b"{}", ALICE, None)


def test_wrapping_for_another_set_is_refused() -> None:
    with pytest.raises(EvfError):
        wrap_epoch_key(EpochKey.generate(), replace(CONTEXT, recipient_set_version=5), SET, DEVICE)


def test_public_keys_must_be_keys() -> None:
    public = b"\xff" * 1184 + ALICE.public_bytes[1184:]
    with pytest.raises(EvfError):
        Representative(ALICE.kid, public, "Alice", bytes(32)).hpke_key()
