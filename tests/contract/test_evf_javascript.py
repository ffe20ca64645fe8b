"""The second implementation of EVF1 (evf1.mjs, on WebCrypto) gives what ours gives, in Node and in Chromium.

The npm packages (HPKE with X-Wing) are installed once, into build/js, from the committed lock file.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from playwright._impl._driver import compute_driver_executable
from playwright.sync_api import Route, sync_playwright

from appliance.evf import EpochKey, RepresentativeKey, SegmentReader, open_wrap, secret_at
from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import EvfError
from appliance.evf.keyfile import load_secret, save_secret
from appliance.evf.keys import derive_segment_keys
from appliance.evf.sframe import SframeKey, encode_header
from appliance.evf.signed import sign_document
from demo.screens import launch
from tests.fuzz.javascript import CODES, installed_packages, node_program
from tests.sessions import PASSPHRASE, Built, Plan, build_session, key_file, observation, representative

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tests" / "js"
VECTORS = ROOT / "tests" / "vectors" / "evf1"
EXPECTED = json.loads((VECTORS / "expected.json").read_text())
DEVICE = Ed25519PrivateKey.from_private_bytes(bytes(range(96, 128)))
Job = dict[str, Any]
Run = Callable[[list[Job]], list[Any]]


@pytest.fixture(scope="session")
def packages() -> Path:
    """build/js with node_modules."""
    return installed_packages()


def nodes() -> dict[str, str]:
    """Playwright's node, and the machine's own or, where there is none, a wheel's."""
    return {"playwright": str(compute_driver_executable()[0]), "machine": node_program()}


@pytest.fixture(scope="module", params=[*nodes(), "chromium"])
def run(request: pytest.FixtureRequest, packages: Path) -> Iterator[Run]:
    """Runs jobs.mjs in one engine. Not for the whole session: playwright keeps an event loop in this thread."""
    if request.param == "chromium":
        with sync_playwright() as playwright:
            browser = launch(playwright)
            page = browser.new_page()
            page.route("https://evf1.test/**", lambda route: _serve(route, packages))
            page.goto("https://evf1.test/")
            yield lambda jobs: list(page.evaluate("jobs => window.runJobs(jobs)", jobs))
            browser.close()
        return
    node = nodes()[request.param]

    def in_node(jobs: list[Job]) -> list[Any]:
        command = [node, str(SOURCE / "main.mjs"), str(packages)]
        ran = subprocess.run(
            command, input=json.dumps(jobs), capture_output=True, text=True, timeout=120, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return list(json.loads(ran.stdout))

    yield in_node


# The module and the packages as they are, by an import map: nothing is built.
PAGE = """<!doctype html><script type="importmap">{"imports": {
  "@hpke/common": "/node_modules/@hpke/common/esm/mod.js",
  "@hpke/core": "/node_modules/@hpke/core/esm/mod.js",
  "@hpke/dhkem-x25519": "/node_modules/@hpke/dhkem-x25519/esm/mod.js",
  "@hpke/hybridkem-x-wing": "/node_modules/@hpke/hybridkem-x-wing/esm/mod.js",
  "mlkem": "/node_modules/mlkem/esm/mod.js"}}</script>
<script type="module">
  import * as core from "@hpke/core";
  import * as xwing from "@hpke/hybridkem-x-wing";
  import { hpkeOf, run } from "/tests/js/jobs.mjs";
  const hpke = hpkeOf(core, xwing);
  window.runJobs = (jobs) => run(jobs, hpke);
</script>"""


def _serve(route: Route, packages: Path) -> None:
    name = route.request.url.removeprefix("https://evf1.test/")
    if not name:
        route.fulfill(body=PAGE, content_type="text/html")
        return
    path = (packages if name.startswith("node_modules/") else ROOT) / name
    if path.is_file():
        route.fulfill(body=path.read_text(), content_type="text/javascript")
    else:
        route.fulfill(status=404)


def ours(data: bytes, key: EpochKey) -> dict[str, Any]:
    """What our own reader finds, in the words of jobs.mjs."""
    reader = SegmentReader(io.BytesIO(data), lambda head: secret_at(key, head.track, head.seg))
    found = [
        [
            int(record.kind),
            record.key_frame,
            str(record.time_90k),
            record.plaintext.hex(),
            record.offset_bytes,
            record.length_bytes,
            record.leaf.hex(),
        ]
        for record in reader
    ]
    return {"outcome": reader.outcome.value, "records": reader.records, "found": found}


def test_vectors_read_the_same(run: Run) -> None:
    names = sorted(EXPECTED["files"])
    key = EpochKey(bytes.fromhex(EXPECTED["k0"]))
    files = [(VECTORS / name).read_bytes() for name in names]
    results = run([{"kind": "segment", "data": data.hex(), "k0": EXPECTED["k0"]} for data in files])
    for name, data, result in zip(names, files, results, strict=True):
        wanted = EXPECTED["files"][name]
        assert result == ours(data, key), name
        assert result["outcome"] == wanted["outcome"], name
        assert [item[3] for item in result["found"]] == [record["plaintext"] for record in wanted["records"]]
    assert {result["outcome"] for result in results} == {"CLOSED", "OPEN_ENDED", "CORRUPT"}


def test_every_truncation_and_every_flipped_bit_ends_as_ours(run: Run) -> None:
    """All of the shorter vector; of the longer one each truncation and each seventh bit. About 5,700 variants."""
    key = EpochKey(bytes.fromhex(EXPECTED["k0"]))
    for name, step in (("log.evf", 1), ("media.evf", 7)):
        data = (VECTORS / name).read_bytes()
        (results,) = run([{"kind": "altered", "data": data.hex(), "k0": EXPECTED["k0"], "step": step}])
        variants = [data[:length] for length in range(len(data))]
        for bit in range(0, len(data) * 8, step):
            flipped = bytearray(data)
            flipped[bit >> 3] ^= 1 << (bit & 7)
            variants.append(bytes(flipped))
        wanted = []
        for variant in variants:
            found = ours(variant, key)
            wanted.append([found["outcome"], len(found["found"])])
        assert results == wanted
        assert ["CLOSED", len(ours(data, key)["found"])] not in results


def test_tails_shorter_than_a_record(run: Run) -> None:
    """The beginning of a record's mark is a cut; anything else behind the last record is corrupt."""
    data = (VECTORS / "log.evf").read_bytes()
    key = EpochKey(bytes.fromhex(EXPECTED["k0"]))
    tails = (b"", b"C", b"CHNK\3", b"\0", bytes(5), b"CHNX", bytes(23))
    jobs = [{"kind": "segment", "data": (data + tail).hex(), "k0": EXPECTED["k0"]} for tail in tails]
    results = run(jobs)
    assert results == [ours(data + tail, key) for tail in tails]
    assert [result["outcome"] for result in results] == ["OPEN_ENDED"] * 3 + ["CORRUPT"] * 4


def test_another_key_opens_nothing(run: Run) -> None:
    data = (VECTORS / "media.evf").read_bytes()
    keys = ("ab" * 32, "ab" * 31)
    assert run([{"kind": "segment", "data": data.hex(), "k0": key} for key in keys]) == [
        {"outcome": "CORRUPT", "records": 0, "found": []},
        {"error": "bad-wrap"},
    ]


def test_header_of_another_form_is_corrupt(run: Run) -> None:
    """Values outside the format, resealed with our own key where that is possible: refused by both."""
    data = (VECTORS / "log.evf").read_bytes()
    length = int.from_bytes(data[8:12], "big")
    text = data[12 : 12 + length]
    key = EpochKey(bytes.fromhex(EXPECTED["k0"]))
    jobs, wanted = [], []
    for old, new in (
        (b'"seg":0', b'"seg":1048576'),
        (b'"seg":0', b'"seg":0.0'),
        (b'"seg":0', b'"seg":-0'),
        (b'"seg":0', b'"seg":true'),
        (b'"v":1', b'"v":2'),
        (b'"v":1', b'"v":1,"w":1'),
        (b'"v":1', b'"v":1,"v":1'),
        (b'"track":"log"', b'"track":"Log"'),
        (b'"track":"log"', b'"track":"\\u006cog"'),
        (b'"class":"log"', b'"class":"logs"'),
        (b"2027-05-22", b"2027-02-29"),
        (b"2027-05-22", b"2027-5-22"),
        (b"2026-11-22T09", b"2026-11-22T24"),
        (b'{"class"', b'{ "class"'),
    ):
        changed = text.replace(old, new, 1)
        assert changed != text, old
        variant = data[:8] + len(changed).to_bytes(4, "big") + changed + data[12 + length :]
        wanted.append(ours(variant, key))
        jobs.append({"kind": "segment", "data": variant.hex(), "k0": EXPECTED["k0"]})
    assert run(jobs) == wanted
    assert all(result["outcome"] == "CORRUPT" for result in wanted)


def test_authentic_records_of_another_form_are_corrupt(run: Run) -> None:
    """Who holds the key can seal a record that the format does not allow; each is refused by its own rule."""
    data = (VECTORS / "log.evf").read_bytes()
    start = 12 + int.from_bytes(data[8:12], "big")
    header_bytes, commit = data[:start], data[start : start + 32]
    key = EpochKey(bytes.fromhex(EXPECTED["k0"]))
    base_key, _ = derive_segment_keys(secret_at(key, "log", 0), header_bytes)
    sframe = SframeKey(base_key, 0)

    def sealed(pre: bytes, plaintext: bytes, ctr: int = 0, spelled: bytes | None = None) -> bytes:
        header = encode_header(0, ctr) if spelled is None else spelled
        out = bytearray(len(plaintext) + 16)
        sframe.seal_into(ctr, header, pre, plaintext, memoryview(out))
        return header_bytes + commit + pre + header + bytes(out)

    def pre(magic: bytes = b"CHNK", kind: int = 3, flags: int = 0, reserved: int = 0, **more: int) -> bytes:
        numbers = (more.get("index", 0), more.get("length", 5), more.get("time", 2**64 - 1))
        return struct.pack(">4sBBHIIQ", magic, kind, flags, reserved, *numbers)

    chain = hashlib.sha256(header_bytes + commit).digest()
    allowed = [sealed(pre(), b"event"), sealed(pre(kind=2, flags=1), b"event")]
    closed = sealed(pre(kind=255, length=32), chain)
    refused = [
        sealed(pre(magic=b"CHNX"), b"event"),
        sealed(pre(kind=4), b"event"),
        sealed(pre(kind=0), b"event"),
        sealed(pre(flags=1), b"event"),
        sealed(pre(kind=2, flags=2), b"event"),
        sealed(pre(reserved=1), b"event"),
        sealed(pre(reserved=256), b"event"),
        sealed(pre(index=1), b"event"),
        sealed(pre(index=2**20), b"event"),
        sealed(pre(kind=255, length=31), chain[:31]),
        sealed(pre(kind=255, length=32), bytes(32)),
        sealed(pre(), b"event", 0, b"\x08\x00"),
        sealed(pre(), b"event", 0, b"\x01"),
        sealed(pre(length=2**24 + 1), b"event"),
        closed + b"\0",
    ]
    cases = [*allowed, closed, *refused]
    results = run([{"kind": "segment", "data": each.hex(), "k0": EXPECTED["k0"]} for each in cases])
    assert results == [ours(each, key) for each in cases]
    assert [result["outcome"] for result in results] == [
        *("OPEN_ENDED" for _ in allowed),
        "CLOSED",
        *("CORRUPT" for _ in refused),
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A recorded session: two epochs, video and log, more records than fit one byte of SFrame's counter."""
    plan = Plan(
        segments=9,
        fragments=2,
        open_ended=frozenset({"1-video-1.evf"}),
        observations=(observation(1, "head_turned_away", 3, 5), observation(2, "nobody_at_desk", 60, 62)),
        recipients=(1, 2),
    )
    return build_session(tmp_path_factory.mktemp("js"), plan)


def test_recorded_session_opens_with_a_representatives_key_file(run: Run, built: Built) -> None:
    """Key file -> seed -> each wrap -> K(0) -> each segment: all in JavaScript, all equal to ours."""
    device = built.room.device_key.public_key()
    person = representative(2)
    (seed,) = run([{"kind": "key", "file": key_file(2).hex(), "passphrase": PASSPHRASE}])
    assert seed == (b"\x02" * 32).hex()
    jobs, keys = [], {}
    for wrap in built.manifest.wraps:
        evk = (built.folder / "wraps" / wrap.name).read_bytes()
        jobs.append(
            {"kind": "wrap", "evk": evk.hex(), "seed": seed, "device": device.public_bytes_raw().hex()}
        )
        keys[wrap.name] = open_wrap(evk, person, device)
    opened = run(jobs)
    assert opened == [key.secret.hex() for key in keys.values()]
    jobs, wanted = [], []
    for entry in built.manifest.segments:
        name = f"{built.manifest.sid}.{entry.epoch}.{entry.cls}.evk"
        data = built.segment(entry.name).read_bytes()
        jobs.append({"kind": "segment", "data": data.hex(), "k0": keys[name].secret.hex(), "pieces": 1000})
        wanted.append(ours(data, keys[name]))
        assert wanted[-1]["records"] == entry.records
    assert run(jobs) == wanted
    assert {result["outcome"] for result in wanted} == {"CLOSED", "OPEN_ENDED"}


def test_long_segment_counts_in_two_bytes(run: Run, tmp_path: Path) -> None:
    plan = Plan(epochs=1, segments=1, fragments=300, fragment=lambda second: b"%d" % second)
    built = build_session(tmp_path, plan)
    evk = built.wrap().read_bytes()
    key = open_wrap(evk, representative(1), built.room.device_key.public_key())
    data = built.segment("0-video-0.evf").read_bytes()
    (result,) = run([{"kind": "segment", "data": data.hex(), "k0": key.secret.hex(), "pieces": 7}])
    assert result == ours(data, key)
    assert (result["outcome"], result["records"]) == ("CLOSED", 302)


def test_wrap_of_the_vectors(run: Run) -> None:
    """As it is, then altered, under another key, for another representative; the outcomes are ours."""
    wrap = EXPECTED["wrap"]
    evk = (VECTORS / wrap["file"]).read_bytes()
    seed = wrap["representative_seed"]
    body = parse_canonical(evk)["body"]

    def resigned(**changes: Any) -> bytes:
        context = {**body["context"], **changes}
        return canonical(sign_document("session-key", {**body, "context": context}, DEVICE))

    twice = canonical(sign_document("session-key", {**body, "wraps": body["wraps"] * 2}, DEVICE))
    sealed = base64.b64decode(body["wraps"][0]["sealed"])
    spoilt = [{**body["wraps"][0], "sealed": base64.b64encode(bytes([sealed[0] ^ 1]) + sealed[1:]).decode()}]
    spare = {**body["wraps"][0], "sealed": body["wraps"][0]["sealed"][:-3]}
    last = body["wraps"][0]["sealed"][-3]
    spare["sealed"] += {"A": "B", "Q": "R", "g": "h", "w": "x"}[last] + "=="
    cases = [
        (evk, seed, DEVICE),
        (evk, seed, None),
        (evk, "07" * 32, DEVICE),
        (evk, seed, Ed25519PrivateKey.from_private_bytes(bytes(32))),
        (evk.replace(b"2027-05-22", b"2036-05-22"), seed, DEVICE),
        (evk.replace(b"2027-05-22", b"2036-05-22"), seed, None),
        (resigned(retain_until="2036-05-22"), seed, DEVICE),
        (resigned(epoch=4), seed, DEVICE),
        (resigned(epoch="3"), seed, DEVICE),
        (resigned(recipient_set_version=2**31), seed, DEVICE),
        (resigned(more=1), seed, DEVICE),
        (twice, seed, DEVICE),
        (canonical(sign_document("session-key", {**body, "wraps": [spare]}, DEVICE)), seed, DEVICE),
        (canonical(sign_document("session-key", {**body, "wraps": spoilt}, DEVICE)), seed, DEVICE),
        (canonical(sign_document("session-key", {**body, "wraps": []}, DEVICE)), seed, DEVICE),
        (canonical(sign_document("manifest", body, DEVICE)), seed, DEVICE),
        (evk.replace(b'"purpose":"session-key"', b'"purpose":"manifest"'), seed, DEVICE),
        (evk.replace(parse_canonical(evk)["key"].encode(), b"0" * 32), seed, DEVICE),
        (evk + b"\n", seed, DEVICE),
        (b"[" * 100_000, seed, DEVICE),
        (b"", seed, DEVICE),
    ]
    jobs, wanted = [], []
    for data, own, device in cases:
        key = device.public_key() if device else None
        raw = key.public_bytes_raw().hex() if key else None
        jobs.append({"kind": "wrap", "evk": data.hex(), "seed": own, "device": raw})
        try:
            found: Any = open_wrap(data, RepresentativeKey(bytes.fromhex(own)), key).secret.hex()
        except EvfError as error:
            found = {"error": CODES[type(error)]}
        wanted.append(found)
    assert wanted[:2] == [EXPECTED["k0"]] * 2
    assert all(isinstance(found, dict) for found in wanted[2:])
    assert run(jobs) == wanted


def test_key_files(run: Run) -> None:
    """The passphrase in another Unicode spelling opens; wrong ones and weaker files are refused, as by us."""
    file = save_secret("representative", b"\x09" * 32, "pässwörd")
    fields = parse_canonical(file.removesuffix(b"\n"))

    def changed(**changes: Any) -> bytes:
        return canonical({**fields, **changes}) + b"\n"

    cases = [
        (file, "pässwörd"),
        (file, "pa\u0308sswo\u0308rd"),
        (file.removesuffix(b"\n"), "pässwörd"),
        (file, "passwort"),
        (file, ""),
        (file, "\ud800"),
        (changed(iterations=209_999), "pässwörd"),
        (changed(iterations=20_000_001), "pässwörd"),
        (changed(iterations=600_001), "pässwörd"),
        (changed(kind="institution-root"), "pässwörd"),
        (changed(kdf="PBKDF2-HMAC-SHA256"), "pässwörd"),
        (changed(nonce="AAAA"), "pässwörd"),
        (changed(more=1), "pässwörd"),
        (file + b"\n", "pässwörd"),
        (b"", "pässwörd"),
    ]
    jobs, wanted = [], []
    for data, passphrase in cases:
        jobs.append({"kind": "key", "file": data.hex(), "passphrase": passphrase})
        try:
            found: Any = load_secret("representative", data, passphrase).hex()
        except EvfError as error:
            found = {"error": CODES[type(error)]}
        wanted.append(found)
    assert wanted[:3] == [(b"\x09" * 32).hex()] * 3
    assert run(jobs) == wanted


def test_canonical_json_is_ours(run: Run) -> None:
    bodies = [
        {"b": [1, -2, None, True, 'é\u2028\x7f\x00"\\/\n😀'], "a": {"z": {}, "y": []}},
        {"10": 1, "9": 2, "é": 3, "": 4},
        {"n": 2**53 - 1},
    ]
    assert run([{"kind": "canonical", "body": body} for body in bodies]) == [
        canonical(body).decode() for body in bodies
    ]


@pytest.mark.parametrize("pieces", [1, 64, 65_536])
def test_streams_one_record_at_a_time(run: Run, built: Built, pieces: int) -> None:
    """Never takes more from its source than the record and the rest of one piece; gives up the rest on a break."""
    key = open_wrap(built.wrap().read_bytes(), representative(1), built.room.device_key.public_key())
    data = built.segment("0-video-0.evf").read_bytes()
    job = {"kind": "stream", "data": data.hex(), "k0": key.secret.hex(), "pieces": pieces}
    whole, stopped = run([job, {**job, "stop": 1}])
    assert 0 <= whole["ahead"] < pieces
    assert whole["cancelled"] is False
    assert stopped["cancelled"] is True
