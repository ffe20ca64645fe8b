"""SFrame against the vectors of RFC 9605, Appendix C (F080)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.evf.errors import CorruptSegment, LimitExceeded
from appliance.evf.sframe import SframeKey, derive_key_and_salt, encode_header

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/sframe/vectors.json").read_text())


@pytest.mark.parametrize("case", VECTORS["header"], ids=lambda case: case["encoded"])
def test_header_vectors(case: dict[str, object]) -> None:
    encoded = bytes.fromhex(str(case["encoded"]))
    assert encode_header(case["kid"], case["ctr"]) == encoded


def test_suite_5_vector() -> None:
    """F080: known answer of AES_256_GCM_SHA512_128."""
    (case,) = VECTORS["sframe"]
    base_key, metadata, pt, ct = (bytes.fromhex(case[name]) for name in ("base_key", "metadata", "pt", "ct"))
    key_bytes, salt = derive_key_and_salt(base_key, case["kid"])
    assert (key_bytes.hex(), salt.hex()) == (case["sframe_key"], case["sframe_salt"])
    key = SframeKey(base_key, case["kid"])
    assert key.nonce(case["ctr"]).hex() == case["nonce"]
    header = encode_header(case["kid"], case["ctr"])
    assert (header + metadata).hex() == case["aad"]
    out = bytearray(len(pt) + 16)
    key.seal_into(case["ctr"], header, metadata, pt, memoryview(out))
    assert header + out == ct
    opened = memoryview(bytearray(len(pt)))
    key.open_into(case["ctr"], header, metadata, bytes(out), opened)
    assert opened == pt
    with pytest.raises(CorruptSegment):
        key.open_into(case["ctr"], header, metadata + b"x", bytes(out), opened)
    with pytest.raises(CorruptSegment):
        key.open_into(case["ctr"], header, metadata, b"", opened)


@pytest.mark.parametrize("number", [-1, 2**64])
def test_numbers_out_of_range_are_refused(number: int) -> None:
    with pytest.raises(LimitExceeded):
        encode_header(number, 0)
