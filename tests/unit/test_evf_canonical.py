"""Canonical JSON and signed documents."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import BadSignature, EvfError
from appliance.evf.signed import sign_document, verify_document

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def test_keys_are_sorted_and_text_is_ascii() -> None:
    assert canonical({"b": [1, None, True], "a": "é"}) == b'{"a":"\\u00e9","b":[1,null,true]}'


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_what_is_written_is_read_back(value: dict[str, Any]) -> None:
    data = canonical(value)
    assert canonical(parse_canonical(data)) == data


@given(
    st.binary(max_size=64)
    | st.text(alphabet='{}[]",:0123456789.eE+-truefalsn\\u ', max_size=40).map(str.encode)
)
def test_arbitrary_bytes_are_refused_or_canonical(data: bytes) -> None:
    try:
        value = parse_canonical(data)
    except EvfError:
        return
    assert canonical(value) == data


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1: 2}, {"a": {2}}, {"a": b"x"}, {"a": object()}]
)
def test_values_without_a_canonical_form_are_refused(value: Any) -> None:
    with pytest.raises(EvfError):
        canonical(value)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"b":1,"a":1}',
        b'{"a": 1}',
        b'{"a":1}\n',
        b'{"a":1.00}',
        b'{"a":1e2}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":"\xc3\xa9"}',
        b'{"a":"\\u0061"}',
        b"[1]",
        b"",
        b"\xff",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_other_spellings_are_refused(data: bytes) -> None:
    with pytest.raises(EvfError):
        parse_canonical(data)


def test_nesting_without_end_is_refused_when_writing() -> None:
    value: dict[str, Any] = {}
    value["a"] = value
    with pytest.raises(EvfError):
        canonical(value)


def test_a_signed_document_gives_its_body_back() -> None:
    body = {"command": "start", "sid": "ab", "n": [1, 2]}
    document = sign_document("command", body, KEY)
    read = verify_document("command", parse_canonical(canonical(document)), KEY.public_key())
    assert read == body
    read["n"].append(3)
    assert document["body"]["n"] == [1, 2]


def test_another_purpose_key_or_body_is_refused() -> None:
    document = sign_document("command", {"a": 1}, KEY)
    other = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
    with pytest.raises(BadSignature):
        verify_document("approval", document, KEY.public_key())
    with pytest.raises(BadSignature):
        verify_document("command", document, other.public_key())
    with pytest.raises(BadSignature):
        verify_document("approval", {**document, "purpose": "approval"}, KEY.public_key())
    with pytest.raises(BadSignature):
        verify_document("command", {**document, "body": {"a": 2}}, KEY.public_key())
    forged = sign_document("command", {"a": 1}, other)
    with pytest.raises(BadSignature):
        verify_document("command", {**forged, "key": document["key"]}, KEY.public_key())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("body", None),
        ("body", [1]),
        ("body", {"a": float("nan")}),
        ("body", {1: 1}),
        ("purpose", 7),
        ("key", None),
        ("signature", None),
        ("signature", 7),
        ("signature", ""),
        ("signature", "é"),
        ("signature", base64.b64encode(bytes(64)).decode()),
        ("signature", base64.b64encode(bytes(63)).decode()),
    ],
)
def test_malformed_documents_are_bad_signatures(name: str, value: Any) -> None:
    document = {**sign_document("command", {"a": 1}, KEY), name: value}
    with pytest.raises(BadSignature):
        verify_document("command", document, KEY.public_key())


@pytest.mark.parametrize(
    "document", [{}, [], None, 7, "x", {"body": {}}, {**sign_document("command", {}, KEY), "x": 1}]
)
def test_what_is_no_document_is_a_bad_signature(document: Any) -> None:
    with pytest.raises(BadSignature):
        verify_document("command", document, KEY.public_key())


def test_a_signature_has_one_spelling() -> None:
    document = sign_document("command", {"a": 1}, KEY)
    text = document["signature"]
    for other in (text + "\n", text.rstrip("="), " " + text, text[:-3] + chr(ord(text[-3]) + 1) + "=="):
        with pytest.raises(BadSignature):
            verify_document("command", {**document, "signature": other}, KEY.public_key())
