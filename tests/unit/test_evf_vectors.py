"""Our own vectors, which other implementations read too (test_evf_javascript.py): they must not drift."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.evf import EpochKey, RepresentativeKey, SegmentReader, open_wrap, secret_at

DIRECTORY = Path(__file__).parents[1] / "vectors" / "evf1"
EXPECTED = json.loads((DIRECTORY / "expected.json").read_text())


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_vectors", DIRECTORY / "make_vectors.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()


def test_the_script_still_writes_the_same() -> None:
    assert SCRIPT.expected() == EXPECTED
    for name, (_, data, _) in SCRIPT.files().items():
        assert (DIRECTORY / name).read_bytes() == data, name


@pytest.mark.parametrize("name", sorted(EXPECTED["files"]))
def test_files_read_as_expected(name: str) -> None:
    key = EpochKey(bytes.fromhex(EXPECTED["k0"]))
    data = (DIRECTORY / name).read_bytes()
    reader = SegmentReader(io.BytesIO(data), lambda head: secret_at(key, head.track, head.seg))
    records = [
        {
            "kind": int(record.kind),
            "plaintext": record.plaintext.hex(),
            "time_90k": record.time_90k,
            "key_frame": record.key_frame,
        }
        for record in reader
    ]
    assert reader.outcome.value == EXPECTED["files"][name]["outcome"]
    assert records == EXPECTED["files"][name]["records"]


def test_the_wrap_opens() -> None:
    wrap = EXPECTED["wrap"]
    representative = RepresentativeKey(bytes.fromhex(wrap["representative_seed"]))
    device = Ed25519PublicKey.from_public_bytes(bytes.fromhex(wrap["device_public_key"]))
    evk = (DIRECTORY / wrap["file"]).read_bytes()
    assert open_wrap(evk, representative, device).secret.hex() == EXPECTED["k0"]
