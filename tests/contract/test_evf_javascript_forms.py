"""Authentic but of a wrong form: sealed or signed with the right key, and refused by evf1.mjs for each rule of its own.

Without these a rule could be gone unseen, since what a stranger alters fails at the key or the signature anyway.
"""

from __future__ import annotations

import base64
import calendar
import functools
import hashlib
import io
import json
import struct
import subprocess
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import EvfError
from appliance.evf.format import MAX_RECORDS, chain_start
from appliance.evf.keyfile import load_secret
from appliance.evf.keys import derive_segment_keys
from appliance.evf.reader import SegmentReader
from appliance.evf.sframe import SframeKey, encode_header
from appliance.evf.signed import key_id
from appliance.evf.wraps import _suite, open_wrap
from tests.fuzz.alterations import of_records
from tests.fuzz.engine import random_of
from tests.fuzz.javascript import CODES, Artefacts, Input, compare, installed_packages, node_program
from tests.fuzz.javascript import ROOT as CHECKOUT
from tests.fuzz.on_format import DEVICE
from tests.fuzz.segments import FILM, family, header, pieces

pytestmark = pytest.mark.slow

SECRET = bytes(range(100, 132))
HEADER: dict[str, Any] = parse_canonical(header(7, "log", "log").encode()[12:])
CONTEXT: dict[str, Any] = {
    "class": "media", "created": "2026-11-22T09:00:00.000Z", "epoch": 3, "institution": "uni", "policy_id": "p1",
    "recipient_set_version": 2, "retain_until": "2027-05-22", "sid": "0a" * 16,
}  # fmt: skip
GONE = object()
MOMENTS = (
    "2026-11-22", "2026-13-22T09:00:00Z", "2026-00-22T09:00:00Z", "2026-11-00T09:00:00Z", "2026-11-22T24:00:00Z",
    "2026-11-22T09:60:00Z", "2026-11-22T09:00:60Z", "2026-11-22T09:00:00.12Z", "2026-11-22T09:00:00+01:00",
    "0000-01-01T00:00:00Z", "2026-11-22T09:00:00Z\n", " 2026-11-22T09:00:00Z", "1900-02-29T00:00:00Z", 7, None,
)  # fmt: skip
DAYS = (*MOMENTS[1:], "2027-02-29", "soon", "2027-5-22", "2027-05-22\n", "2100-02-29")
SIDS = ("0a" * 15 + "0", "0a" * 16 + "0", "0A" * 16, "0a" * 16 + "\n", "\n" + "0a" * 16, 0, None)
CODES_WRONG = ("", "a/b", "a" * 65, "-a", "a\n", "é", "a b", 1, None)
CLASSES = ("logs", "video", "", None, 1, ["log"])
WRONG: dict[str, tuple[Any, ...]] = {
    "v": (2, 0, True, "1", GONE),
    "sid": (*SIDS, GONE),
    "epoch": (-1, 2**32, "0", True, None, 0.5, GONE),
    "class": (*CLASSES, GONE),
    "seg": (-1, 2**20, "0", True, None, GONE),
    "track": ("Log", "aB", "", "a" * 33, "-a", "a\n", "\na", "a.b", 1, None, GONE),
    "codec": ("", "a b", "a" * 65, ".a", "a\n", "\na", 1, None, GONE),
    "created": (*MOMENTS, GONE),
    "institution": (*CODES_WRONG, GONE),
    "policy": (
        None, [], {}, {"id": "p1"}, {"retain_until": "2027-05-22"},
        {"id": "p1", "retain_until": "2027-05-22", "more": 1},
        *({"id": each, "retain_until": "2027-05-22"} for each in CODES_WRONG),
        *({"id": "p1", "retain_until": each} for each in DAYS), GONE,
    ),
    "salt": ("00" * 31 + "0", "00" * 32 + "0", "0A" * 32, "00" * 32 + "\n", "\n" + "00" * 32, 0, None, GONE),
    "more": (1,),
    "__proto__": (1,),
    "toString": (1,),
}  # fmt: skip
RIGHT: dict[str, tuple[Any, ...]] = {
    "epoch": (0, 2**32 - 1),
    "class": ("media", "log", "identity"),
    "seg": (0, 8, 255, 256, 2**20 - 1),
    "track": ("a" * 32, "0_-", "a"),
    "codec": ("A" * 64, "a.,+/;=_-", "A"),
    "created": ("2026-11-22T23:59:59.999Z", "2026-11-22T00:00:00Z", "2024-02-29T00:00:00Z", "2000-02-29T00:00:00Z",
                "0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z"),
    "institution": ("A" * 64, "0._-", "u"),
    "policy": ({"id": "Z", "retain_until": "2027-05-22T00:00:00Z"}, {"id": "9" * 64, "retain_until": "2028-02-29"}),
    "salt": ("0123456789abcdef" * 4,),
}  # fmt: skip


def in_node(jobs: list[dict[str, Any]]) -> list[Any]:
    """jobs.mjs in the machine's node; the engines differ in nothing that is looked at here."""
    command = [node_program(), str(CHECKOUT / "tests" / "js" / "main.mjs"), str(installed_packages())]
    ran = subprocess.run(
        command, input=json.dumps(jobs), capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return list(json.loads(ran.stdout))


def changed(fields: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    return {key: item for key, item in ({**fields, name: value}).items() if item is not GONE}


# --- Segments


def empty_segment(fields: Any, magic: bytes = b"EVF1\r\n\x1a\n", index: int = 0, kind: int = 255) -> bytes:
    """HEADER of any form, its own COMMIT, and one authentic record: END over nothing, or another kind."""
    body = canonical(fields) if isinstance(fields, dict) else json.dumps(fields).encode()
    header_bytes = magic + len(body).to_bytes(4, "big") + body
    seg = fields.get("seg") if isinstance(fields, dict) else 0
    kid = seg if type(seg) is int and 0 <= seg < 2**32 else 0
    base_key, commit = derive_segment_keys(SECRET, header_bytes)
    plain = chain_start(header_bytes, commit)
    pre = struct.pack(">4sBBHIIQ", b"CHNK", kind, 0, 0, index, len(plain), 0)
    sframe = encode_header(kid, index)
    out = bytearray(len(plain) + 16)
    SframeKey(base_key, kid).seal_into(index, sframe, pre, plain, memoryview(out))
    return header_bytes + commit + pre + sframe + bytes(out)


def ours(data: bytes, records: int = 0) -> str:
    reader = SegmentReader(io.BytesIO(data), lambda _: SECRET)
    reader.leaves = [b""] * records
    for _ in reader:
        pass
    return reader.outcome.value


def outcomes(files: list[bytes], records: int = 0) -> list[str]:
    """What node says of each, which is what ours says."""
    jobs = [
        {"kind": "segment", "data": data.hex(), "secret": SECRET.hex(), "records": records} for data in files
    ]
    said = [result["outcome"] for result in in_node(jobs)]
    assert said == [ours(data, records) for data in files]
    return said


def test_authentic_headers_of_a_wrong_form_are_corrupt() -> None:
    wrong = [changed(HEADER, name, value) for name, values in WRONG.items() for value in values]
    files = [empty_segment(fields) for fields in wrong]
    files += [empty_segment(value) for value in (None, [], 7, "x")]
    files += [empty_segment(HEADER, magic) for magic in (b"EVF2\r\n\x1a\n", b"EVF1\n\n\x1a\n", bytes(8))]
    for each, outcome in zip([*wrong, *range(7)], outcomes(files), strict=True):
        assert outcome == "CORRUPT", each


def test_control_headers_of_every_right_form_are_read() -> None:
    right = [HEADER, *(changed(HEADER, name, value) for name, values in RIGHT.items() for value in values)]
    for each, outcome in zip(right, outcomes([empty_segment(fields) for fields in right]), strict=True):
        assert outcome == "CLOSED", each


@pytest.mark.parametrize("year", [2023, 2024])
def test_months_have_their_own_last_day(year: int) -> None:
    last = [calendar.monthrange(year, month)[1] for month in range(1, 13)]
    inside = [f"{year}-{month:02d}-{day:02d}T00:00:00Z" for month, day in enumerate(last, 1)]
    beyond = [f"{year}-{month:02d}-{day + 1:02d}T00:00:00Z" for month, day in enumerate(last, 1)]
    files = [empty_segment(changed(HEADER, "created", moment)) for moment in (*inside, *beyond)]
    assert outcomes(files) == ["CLOSED"] * 12 + ["CORRUPT"] * 12


def test_the_last_record_that_a_segment_may_have_is_its_end() -> None:
    last = MAX_RECORDS - 1
    files = [empty_segment(HEADER, index=last), empty_segment(HEADER, index=last, kind=3)]
    assert outcomes(files, records=last) == ["CLOSED", "CORRUPT"]
    assert outcomes([empty_segment(HEADER, index=last - 1, kind=3)], records=last - 1) == ["OPEN_ENDED"]
    assert outcomes([empty_segment(HEADER, index=MAX_RECORDS)], records=MAX_RECORDS) == ["CORRUPT"]


def test_a_length_over_the_limit_is_refused_before_it_is_read() -> None:
    """And one that is just allowed is read, as far as the file goes."""
    start, whole = b"EVF1\r\n\x1a\n", empty_segment(HEADER)
    prefix = 12 + int.from_bytes(whole[8:12], "big") + 32
    pre = whole[: prefix + 12]

    def taken(*beginnings: bytes) -> list[int]:
        files = [(each + bytes(100_000)).hex() for each in beginnings]
        jobs = [{"kind": "taken", "data": each, "secret": SECRET.hex(), "pieces": 100} for each in files]
        return in_node(jobs)

    over = [start + (4097).to_bytes(4, "big"), start + (2**32 - 1).to_bytes(4, "big")]
    over += [_fragment(pre) + (length).to_bytes(4, "big") + bytes(8) for length in (2**24 + 1, 2**32 - 1)]
    assert all(count <= 700 for count in taken(*over))
    most = taken(
        start + (4096).to_bytes(4, "big"), _fragment(pre) + (2**24).to_bytes(4, "big") + bytes(8) + b"\x70"
    )
    assert most[0] > 4000
    assert most[1] > 100_000


def _fragment(pre: bytes) -> bytes:
    """HEADER, COMMIT and half a PRE, of another kind than END."""
    return pre[:-8] + b"\2" + pre[-7:]


def test_errors_of_the_key_source_pass_through() -> None:
    job = {"kind": "locked", "data": empty_segment(HEADER).hex(), "code": "not-a-recipient"}
    assert in_node([job]) == [{"error": "not-a-recipient"}]


# --- Wraps


@functools.cache
def artefacts() -> Artefacts:
    return Artefacts()


def wrap(context: dict[str, Any], body: Any = None, **document: Any) -> bytes:
    """K(0) sealed in any context, in a body of any form, signed by the device; `document`: changes after signing."""
    person = artefacts().person
    kid = person.kid
    sid = context.get("sid")
    plain_sid = (
        bytes.fromhex(sid) if isinstance(sid, str) and sid.strip() and len(sid.strip()) % 2 == 0 else b""
    )
    info = (
        b"EVF1 session-key v1" + plain_sid + hashlib.sha256(canonical(context)).digest() + bytes.fromhex(kid)
    )
    sealed = _suite().encrypt(SECRET, person.representative("x").hpke_key(), info=info)
    mine = {"kid": kid, "sealed": base64.b64encode(sealed).decode()}
    made = {"context": context, "wraps": [mine]} if body is None else body(context, mine)
    message = b"invigil signed document v1\0session-key\0" + canonical(made)
    signature = base64.b64encode(DEVICE.sign(message)).decode()
    kept = {"body": made, "purpose": "session-key", "key": key_id(DEVICE.public_key().public_bytes_raw())}
    return canonical({**kept, "signature": signature, **document})


def opened(files: list[bytes], device: bool = True) -> list[Any]:
    """K(0) in hex or the code of the refusal, from node; ours says the same."""
    person, key = artefacts().person, DEVICE.public_key() if device else None
    raw = key.public_bytes_raw().hex() if key else None
    jobs = [{"kind": "wrap", "evk": data.hex(), "seed": person.seed.hex(), "device": raw} for data in files]
    wanted: list[Any] = []
    for data in files:
        try:
            wanted.append(open_wrap(data, person, key).secret.hex())
        except EvfError as error:
            wanted.append({"error": CODES[type(error)]})
    said = in_node(jobs)
    assert said == wanted
    return said


def test_authentic_wraps_of_a_wrong_form_are_refused() -> None:
    names = {"class": CLASSES, "created": MOMENTS, "epoch": WRONG["epoch"][:-1], "institution": CODES_WRONG,
             "policy_id": CODES_WRONG, "retain_until": DAYS, "sid": SIDS, "more": (1,),
             "recipient_set_version": (-1, 2**31, "2", True, None)}  # fmt: skip
    contexts = [changed(CONTEXT, name, value) for name, values in names.items() for value in values]
    contexts += [changed(CONTEXT, name, GONE) for name in CONTEXT]
    bodies = [
        lambda context, mine: {"context": context, "wraps": [mine], "more": 1},
        lambda context, mine: {"context": context, "wraps": {"0": mine}},
        lambda context, mine: {"context": context, "wraps": mine},
        lambda context, mine: {"context": context, "wraps": []},
        lambda context, mine: {"context": context, "wraps": [mine, mine]},
        lambda context, mine: {"context": context, "wraps": [mine, *others(64, mine)]},
        lambda context, mine: {"context": context, "wraps": [{**mine, "more": 1}]},
        lambda context, mine: {"context": context, "wraps": [mine, {**others(1, mine)[0], "kid": "0A" * 16}]},
        lambda context, mine: {"context": context, "wraps": [mine, {**others(1, mine)[0], "sealed": ""}]},
        lambda context, mine: {
            "context": context,
            "wraps": [mine, {"kid": "0a" * 16, "sealed": longer(mine, 3)}],
        },
        lambda context, mine: {
            "context": context,
            "wraps": [mine, {"kid": "0a" * 16, "sealed": longer(mine, -3)}],
        },
        lambda context, mine: {"context": context, "wraps": [mine, {"kid": "0a" * 16, "sealed": None}]},
        lambda context, mine: {"wraps": [mine]},
        lambda context, mine: [context, mine],
    ]
    files = [wrap(context) for context in contexts] + [wrap(CONTEXT, body) for body in bodies]
    for number, found in enumerate(opened(files)):
        assert isinstance(found, dict), (files[number][:200], number)


def others(count: int, mine: dict[str, str]) -> list[dict[str, str]]:
    """Wraps for people who are not here."""
    return [{**mine, "kid": f"{number:032x}"} for number in range(count)]


def longer(mine: dict[str, str], by: int) -> str:
    sealed = base64.b64decode(mine["sealed"])
    return base64.b64encode(sealed[:by] if by < 0 else sealed + bytes(by)).decode()


def test_documents_with_more_or_less_than_their_four_fields_are_refused() -> None:
    whole = parse_canonical(wrap(CONTEXT))
    files = [wrap(CONTEXT, more=1), b"[" * 50_000 + b"]" * 50_000, b"null", b"[]", b"7", b'"x"', b"{}"]
    files += [canonical({name: item for name, item in whole.items() if name != gone}) for gone in whole]
    assert all(isinstance(found, dict) for found in opened(files))
    assert all(
        isinstance(found, dict) for found in opened([b"null", b"[]", b'{"body":null}', b'{"body":[]}'], False)
    )


def test_control_wraps_of_every_right_form_open() -> None:
    names = {"class": ("media", "log", "identity"), "epoch": (0, 2**32 - 1), "institution": ("A" * 64,),
             "recipient_set_version": (0, 2**31 - 1), "retain_until": ("2028-02-29T00:00:00.000Z",)}  # fmt: skip
    contexts = [changed(CONTEXT, name, value) for name, values in names.items() for value in values]
    many = wrap(CONTEXT, lambda context, mine: {"context": context, "wraps": [*others(63, mine), mine]})
    files = [wrap(CONTEXT), many, *(wrap(context) for context in contexts)]
    assert opened(files) == [SECRET.hex()] * len(files)


# --- Key files


def key_file(
    passphrase: str = "passphrase", secret: bytes = SECRET, sizes: tuple[int, int] = (32, 12), **more: Any
) -> bytes:
    """A key file of any form, encrypted as that form says."""
    salt, nonce = bytes(range(sizes[0])), bytes(range(sizes[1]))
    fields: dict[str, Any] = {
        "v": 1, "format": "invigil key file", "kind": "representative", "kdf": "PBKDF2-HMAC-SHA512",
        "iterations": 210_000, "salt": base64.b64encode(salt).decode(), "cipher": "AES-256-GCM",
        "nonce": base64.b64encode(nonce).decode(),
    }  # fmt: skip
    fields = {name: value for name, value in (fields | more).items() if value is not GONE}
    rounds = fields.get("iterations")
    key = _derived(passphrase, salt, rounds if type(rounds) is int and 0 < rounds < 10**6 else 210_000)
    sealed = AESGCM(key).encrypt(nonce, secret, canonical(fields))
    return canonical({**fields, "ciphertext": base64.b64encode(sealed).decode()}) + b"\n"


@functools.cache
def _derived(passphrase: str, salt: bytes, rounds: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha512", passphrase.encode(), salt, rounds, 32)


def unlocked(cases: list[tuple[bytes, str]]) -> list[Any]:
    """The secret in hex or the code of the refusal, from node; ours says the same."""
    wanted: list[Any] = []
    for data, passphrase in cases:
        try:
            wanted.append(load_secret("representative", data, passphrase).hex())
        except EvfError as error:
            wanted.append({"error": CODES[type(error)]})
    said = in_node([{"kind": "key", "file": data.hex(), "passphrase": words} for data, words in cases])
    assert said == wanted
    return said


def test_authentic_key_files_of_a_wrong_form_are_refused() -> None:
    wrong: dict[str, tuple[Any, ...]] = {
        "v": (2, True, "1"), "format": ("invigil", None), "kind": ("institution-root", None), "kdf": ("PBKDF2", None),
        "cipher": ("AES-128-GCM", None), "iterations": (209_999, 20_000_001, "210000", None, True), "more": (1,),
    }  # fmt: skip
    files = [key_file(**{name: value}) for name, values in wrong.items() for value in values]
    files += [key_file(**{name: GONE}) for name in ("v", "format", "kind", "kdf", "cipher", "iterations")]
    files += [key_file(sizes=sizes) for sizes in ((31, 12), (33, 12), (32, 11), (32, 13), (32, 16))]
    files += [
        key_file(secret=bytes(12_300)),
        b"null\n",
        b"[]\n",
        b"7\n",
        b'"x"\n',
        b"{}\n",
        key_file() + b"\n",
    ]
    said = unlocked([(data, "passphrase") for data in files])
    assert said == [{"error": "bad-key-file"}] * len(files)


def test_passphrases_that_are_none_are_refused_though_their_bytes_would_open() -> None:
    cases = [(key_file(""), ""), (key_file("\ufffd"), "\ud800"), (key_file("a\ufffd"), "a\udfff")]
    assert unlocked(cases) == [{"error": "bad-passphrase"}] * 3


def test_control_key_files_of_every_right_form_open() -> None:
    large = key_file(secret=bytes(11_900))
    assert 15_900 < len(large) < 16_384
    cases = [(key_file(), "passphrase"), (key_file().rstrip(), "passphrase"), (large, "passphrase"),
             (key_file("\U0001f600 é"), "\U0001f600 e\u0301"), (key_file("\ufffd"), "\ufffd")]  # fmt: skip
    assert unlocked(cases) == [SECRET.hex(), SECRET.hex(), bytes(11_900).hex(), SECRET.hex(), SECRET.hex()]


# --- Altered bytes: a short share of `python -m tests.fuzz.javascript`, and copies of evf1.mjs without a check


@functools.cache
def record_alterations() -> list[Input]:
    parts = pieces(header(), FILM[:3])
    others = [each for each in family() if each[0] != parts[0] or each[1:2] != parts[1:2]]
    return [("S", data) for _, data in of_records(parts, others)]


def test_records_swapped_dropped_doubled_and_spliced_end_as_ours() -> None:
    """And some hundred random alterations of segments, wraps and key files, others each time; none stops the module."""
    node = node_program()
    installed_packages()
    seed = time.time_ns() % 2**32
    random = [artefacts().altered(random_of("javascript", seed, number)) for number in range(600)]
    found = compare(node, artefacts(), [*record_alterations(), *random])
    assert found.wrong == [], f"python -m tests.fuzz.javascript --seed {seed} --count 600"
    assert found.inputs == len(record_alterations()) + 600
    assert found.outcomes["S CORRUPT"] > 250


@pytest.mark.parametrize(
    "change",
    [
        ("refuse(!equal(plaintext, chain), ", "refuse(false, "),
        ("refuse((await this.source.take(1)).length, ", "refuse(false, "),
        ('return this.end("OPEN_ENDED", `file ends after', 'return this.end("CLOSED", `file ends after'),
    ],
    ids=["no chain", "bytes behind the end", "a cut is closed"],
)
def test_control_evf1_without_a_check_takes_some_for_closed(change: tuple[str, str]) -> None:
    node = node_program()
    installed_packages()
    whole = b"".join(pieces(header(), FILM[:3]))
    found = compare(node, artefacts(), [*record_alterations(), ("S", whole + b"\0")], change)
    assert any(
        said.startswith("CLOSED") and not wanted.startswith("CLOSED") for _, said, wanted in found.wrong
    )
