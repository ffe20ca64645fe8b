"""Merkle hashing against the published RFC 6962 reference tree."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import EvidenceBroken
from appliance.evidence.merkle import Frontier, event_leaf, leaf_hash, node_hash, root_of

# Leaves and roots of certificate-transparency's merkle_tree_test.cc, used by every CT implementation since.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("size", range(1, 9))
def test_reference_roots(size: int) -> None:
    assert root_of(leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES[:size]).hex() == ROOTS[size - 1]


def test_empty_tree() -> None:
    assert root_of([]).hex() == EMPTY


def recursive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, as written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return node_hash(recursive_root(leaves[:split]), recursive_root(leaves[split:]))


@given(st.integers(0, 300), st.integers(0, 300))
def test_frontier_is_the_definition_and_survives_storing(size: int, store_at: int) -> None:
    leaves = [leaf_hash(bytes([n & 255, n >> 8])) for n in range(size)]
    frontier = Frontier()
    for index, leaf in enumerate(leaves):
        if index == store_at:
            frontier = Frontier.from_json(json.loads(json.dumps(frontier.to_json())))
        frontier.append(leaf)
    assert frontier.root() == recursive_root(leaves)
    assert (frontier.size, len(frontier.to_json()["roots"])) == (size, size.bit_count())


def test_a_copy_grows_alone() -> None:
    frontier = Frontier()
    frontier.append(leaf_hash(b"a"))
    other = frontier.copy()
    other.append(leaf_hash(b"b"))
    assert (frontier.size, other.size) == (1, 2)
    assert frontier.root() == leaf_hash(b"a")


@pytest.mark.parametrize(
    "fields",
    [
        None,
        {},
        {"size": 1, "roots": []},
        {"size": -1, "roots": []},
        {"size": True, "roots": ["00" * 32]},
        {"size": 1, "roots": ["00"]},
        {"size": 1, "roots": [7]},
        {"size": 1, "roots": ["00" * 32], "x": 1},
    ],
)
def test_malformed_state_is_refused(fields: Any) -> None:
    with pytest.raises(EvidenceBroken):
        Frontier.from_json(fields)


def test_leaves_are_hashes() -> None:
    with pytest.raises(EvidenceBroken):
        Frontier().append(b"short")


def test_event_leaf_is_over_the_canonical_form() -> None:
    assert event_leaf({"b": 1, "a": "x"}) == hashlib.sha256(b'\0{"a":"x","b":1}').digest()
