"""No small alteration of a segment passes: reader, key-less scan, session check, stand-alone verifier (F080, F111).

Each test says the same of copies of our modules with a check taken out, which do let some of them pass.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Iterable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from appliance.evf import reader, scan, sframe
from appliance.evf.errors import EvfError
from appliance.evidence import manifest as evidence
from appliance.evidence.merkle import event_leaf, root_of
from tests.fuzz.alterations import Alteration, of_segment
from tests.fuzz.on_evidence import PEOPLE, load_verifier
from tests.fuzz.segments import FILM, family, header, pieces, secret_of
from tests.fuzz.weakened import weakened
from tests.sessions import Built, Plan, build_session

PIECES = pieces(header(), FILM[:3])
OTHERS = [pieces(header(), [(kind, plain.upper(), at) for kind, plain, at in FILM[:3]]), pieces(header(1), FILM[:3]),
          pieces(header(), FILM[:3], 900_000), family()[3]]  # fmt: skip
WHOLE = b"".join(PIECES)
PLAN = Plan(epochs=1, segments=2, fragments=1, fragment=lambda second: b"%d" % second)


@functools.cache
def alterations() -> list[Alteration]:
    return list(of_segment(PIECES, OTHERS))


def test_alterations_are_of_every_kind() -> None:
    names = {name for name, _ in alterations()}
    for length in range(len(WHOLE)):
        assert f"cut at {length}" in names
        assert all(f"bit {bit} of byte {length} flipped" in names for bit in range(8))
    for kind in (
        "swapped",
        "dropped",
        "again at",
        "turned round",
        "spliced",
        "from byte",
        "left out",
        "zeros at",
    ):
        assert any(kind in name for name in names), kind
    assert len(alterations()) > 8000


# --- With the key


def closed(module: ModuleType, variants: Iterable[Alteration]) -> list[str]:
    """Names of those that a reader takes for closed."""
    found = []
    for name, data in variants:
        reading = module.SegmentReader(io.BytesIO(data), secret_of)
        for _ in reading:
            pass
        if reading.outcome.value == "CLOSED":
            found.append(name)
    return found


NO_TAG = (
    "self._aead.decrypt_into(self.nonce(ctr), sealed, header + metadata, out)",
    'out[:] = self._aead.encrypt(self.nonce(ctr), bytes(sealed)[:-16], b"")[:-16]',
)
NO_CHAIN = ("if not hmac.compare_digest(plaintext, chain):", "if False:")
NO_COMMIT = ("if commit is not None and not hmac.compare_digest(derived, commit):", "if False:")
NO_INDEX = ("if pre.index != self.records:", "if False:")
NO_KEY_ID = ("if rest[:start] != expected:", "if False:")
NO_END = ("if self._stream.read(1):", "if False:")
CUT_IS_CLOSED = (
    'self.outcome, self.reason = Outcome.OPEN_ENDED, f"file ends {where}"',
    "self.outcome = Outcome.CLOSED",
)
TORN_IS_CLOSED = ("self.outcome, self.reason = Outcome.OPEN_ENDED, f\"file ends inside record {pre.index}\"",
                  "self.outcome = Outcome.CLOSED")  # fmt: skip


def test_reader_takes_no_alteration_for_closed() -> None:
    assert closed(reader, alterations()) == []
    assert closed(reader, [("whole", WHOLE)]) == ["whole"]


@pytest.mark.parametrize(
    ("changes", "tag", "passes"),
    [
        ([], False, "flipped"),  # END's tag; the others' are in the chain
        ([NO_CHAIN], True, "spliced"),
        ([NO_CHAIN], False, "flipped"),
        ([NO_CHAIN, NO_COMMIT], True, "flipped"),
        ([NO_CHAIN, NO_INDEX], True, "swapped"),
        ([NO_CHAIN, NO_INDEX], True, "dropped"),
        ([NO_KEY_ID], True, "flipped"),  # END's
        ([NO_END], True, "more"),
        ([CUT_IS_CLOSED], True, "cut at"),
        ([TORN_IS_CLOSED], True, "cut at"),
    ],
    ids=str,
)
def test_control_reader_without_a_check_takes_some(
    changes: list[tuple[str, str]], tag: bool, passes: str
) -> None:
    key = sframe.SframeKey if tag else weakened(sframe, NO_TAG).SframeKey
    module = weakened(reader, *changes, SframeKey=key)
    variants = [(name, data) for name, data in alterations() if passes in name]
    assert closed(module, variants), passes
    assert closed(module, [("whole", WHOLE)]) == ["whole"]


# --- Without the key: the leaves are what the witnessed root covers


def with_leaves(module: ModuleType, variants: Iterable[Alteration]) -> list[str]:
    """Names of those that a scan gives the same leaves for, as a file that has its end."""
    true = [record.leaf for record in module.scan_segment(io.BytesIO(WHOLE)).records]
    found = []
    for name, data in variants:
        try:
            scanned = module.scan_segment(io.BytesIO(data))
        except EvfError:
            continue
        if scanned.ended and [record.leaf for record in scanned.records] == true:
            found.append(name)
    return found


def behind_the_prefix(variants: Iterable[Alteration]) -> list[Alteration]:
    """HEADER and COMMIT are in no leaf: the manifest's digest and the key hold them."""
    return [each for each in variants if each[1].startswith(PIECES[0])]


def test_scan_gives_the_true_leaves_for_no_alteration() -> None:
    assert with_leaves(scan, behind_the_prefix(alterations())) == []
    assert with_leaves(scan, [("whole", WHOLE)]) == ["whole"]


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        (("        digest.update(chunk)\n", ""), "flipped"),
        (("ended = not stream.read(1)", "ended = True"), "more"),
        (("if sframe_header != expected:", "if len(sframe_header) != len(expected):"), ""),
        (("if pre.index != index:", "if False:"), ""),
    ],
    ids=str,
)
def test_control_scan_without_a_check(change: tuple[str, str], passes: str) -> None:
    """Order and key ids are in the leaf itself, so without those two checks it is the leaves that differ."""
    module = weakened(scan, change)
    found = with_leaves(module, behind_the_prefix(alterations()))
    assert any(passes in name for name in found) if passes else not found


# --- A whole session, by who holds the desk's key too: the manifest says the altered file's size and digest


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_session(tmp_path_factory.mktemp("altered"), PLAN, PEOPLE)


def session_variants(built: Built) -> tuple[str, bytes, list[Alteration]]:
    """(name, bytes, alterations behind its prefix) of the session's last segment."""
    entry = built.manifest.segments[-1]
    data = built.segment(entry.name).read_bytes()
    records = scan.scan_segment(io.BytesIO(data)).records
    start = records[0].offset_bytes
    parts = [data[:start], *(data[r.offset_bytes :][: r.length_bytes] for r in records)]
    other = built.segment(built.manifest.segments[0].name).read_bytes()
    found = [each for each in of_segment(parts, [[other]]) if each[1].startswith(data[:start])]
    return entry.name, data, found


def renewed(built: Built, name: str, data: bytes) -> Any:
    """The manifest as somebody with the desk's key would change it; the cosigned checkpoint stays."""
    digest = hashlib.sha256(data).hexdigest()
    segments = tuple(
        replace(entry, size_bytes=len(data), sha256=digest) if entry.name == name else entry
        for entry in built.manifest.segments
    )
    return replace(built.manifest, segments=segments)


def whole_sessions(module: ModuleType, built: Built, renew: bool, step: int) -> list[str]:
    """Names of the alterations, each `step`-th, that the product finds nothing wrong with."""
    name, _, variants = session_variants(built)
    files = {path.name: path.read_bytes() for path in built.folder.rglob("*.e??")}
    found = []
    for what, data in variants[::step]:
        files[name] = data
        manifest = renewed(built, name, data) if renew else built.manifest
        if not module.verify_session(manifest, lambda wanted: io.BytesIO(files[wanted])):
            found.append(what)
    return found


@pytest.mark.parametrize("renew", [False, True], ids=["true manifest", "manifest of the desk's key"])
def test_session_check_finds_every_alteration(built: Built, renew: bool) -> None:
    assert whole_sessions(evidence, built, renew, 1 if renew else 9) == []


@pytest.mark.parametrize(
    ("renew", "changes"),
    [
        (True, [("if root_of(leaves[index] for index in range(manifest.leaves)) != checkpoint.root:", "if False:")]),
        (False, [
            ("if state == FileState(entry.size_bytes, entry.sha256):", "if state.size_bytes == entry.size_bytes:"),
            ("if root_of(leaves[index] for index in range(manifest.leaves)) != checkpoint.root:", "if False:"),
        ]),
    ],
    ids=["without the root", "without digest and root"],
)  # fmt: skip
def test_control_session_check_without_its_checks(
    built: Built, renew: bool, changes: list[tuple[str, str]]
) -> None:
    assert any("flipped" in name for name in whole_sessions(weakened(evidence, *changes), built, renew, 9))


# --- The stand-alone verifier, which shares no line with the product


def alone(script: ModuleType, built: Built, variants: Iterable[Alteration], name: str) -> list[str]:
    """Names of those whose file passes, under a manifest that the desk's key made for it."""
    path = built.folder.parent / "altered.evf"
    body = built.manifest.to_body()
    others = {event.index: event_leaf(event.body) for event in built.manifest.events}
    for entry in built.manifest.segments[:-1]:
        records = scan.scan_segment(io.BytesIO(built.segment(entry.name).read_bytes())).records
        others |= {entry.leaf_runs[0][0] + place: record.leaf for place, record in enumerate(records)}
    first = built.manifest.segments[-1].leaf_runs[0][0]
    root = root_of(_root_leaves(built, others, first))
    found = []
    for what, data in variants:
        path.write_bytes(data)
        entry = {**body["segments"][-1], "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        try:
            script.check_bytes(path, entry)
            leaves = script.record_leaves(path, body, entry)
        except script.Problem:
            continue
        every = others | {first + place: leaf for place, leaf in enumerate(leaves)}
        if script.merkle_root([every[index] for index in sorted(every)]) == root:
            found.append(what)
    return found


def _root_leaves(built: Built, others: dict[int, bytes], first: int) -> Iterable[bytes]:
    last = built.manifest.segments[-1]
    records = scan.scan_segment(io.BytesIO(built.segment(last.name).read_bytes())).records
    every = others | {first + place: record.leaf for place, record in enumerate(records)}
    return [every[index] for index in range(built.manifest.leaves)]


def test_stand_alone_verifier_finds_every_alteration(built: Built) -> None:
    script = load_verifier()
    name, data, variants = session_variants(built)
    assert alone(script, built, variants, name) == []
    assert alone(script, built, [("whole", data)], name) == ["whole"]


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        (('leaves.append(hashlib.sha256(b"\\0" + pre + rest).digest())', 'leaves.append(TRUE[index])'), "flipped"),
        (("ended = kind == END\n", "ended = kind == END\n            if ended:\n                break\n"), "more"),
    ],
    ids=["leaves not computed", "bytes behind the end"],
)  # fmt: skip
def test_control_stand_alone_verifier_without_a_check(
    built: Built, change: tuple[str, str], passes: str
) -> None:
    name, data, variants = session_variants(built)
    true = [record.leaf for record in scan.scan_segment(io.BytesIO(data)).records]
    script = weakened(load_verifier(), change, TRUE=true)
    assert alone(script, built, [each for each in variants if passes in each[0]][-500:], name)
