"""Targets in `appliance/evidence`, the archive and the stand-alone verifier: manifests, sessions, notes, witnesses."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.archive.observations import ObservationLog
from appliance.errors import EvidenceBroken, NotTrusted
from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import EvfError
from appliance.evf.signed import sign_document
from appliance.evidence.checkpoint import (
    Checkpoint,
    MissingLeaves,
    Witness,
    cosign,
    sign_checkpoint,
    verify_checkpoint,
    verify_cosignature,
)
from appliance.evidence.manifest import verify_manifest, verify_session
from appliance.evidence.merkle import leaf_hash, root_of
from tests.fuzz.engine import Accepted, Target
from tests.fuzz.mutate import altered
from tests.fuzz.mutate_json import altered_json, altered_text, spelled
from tests.sessions import Built, Plan, Room, build_session, observation

LOG = (observation(1, "head_turned_away", 0.2, 1), observation(2, "nobody_at_desk", 1, 2, "red"))
SMALL = Plan(epochs=1, segments=1, fragments=1, observations=LOG)
PEOPLE = Room(*(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(1, 5)))
SCRIPT = Path(__file__).parents[2] / "verifier" / "verify_session.py"


def load_verifier() -> ModuleType:
    """The stand-alone script as a module."""
    spec = importlib.util.spec_from_file_location("verify_session", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _built(folder: Path, name: str, plan: Plan) -> Built:
    (folder / name).mkdir()
    return build_session(folder / name, plan, PEOPLE)


@contextmanager
def manifest(folder: Path) -> Iterator[Target]:
    """Manifests of a stranger, and bodies that a desk signed: none is taken for another one."""
    built = [_built(folder, "small", SMALL), _built(folder, "usual", Plan(observations=LOG))]
    documents = [parse_canonical((each.folder / "manifest.json").read_bytes()) for each in built]
    known = {canonical(document) for document in documents}
    ca: x509.Certificate = PEOPLE.ca_certificate()

    def make(rng: Random) -> tuple[bytes, bool]:
        if rng.random() < 0.4:
            return altered_text(rng, documents, canonical), True
        body = altered_json(rng, [document["body"] for document in documents])
        try:
            return canonical(sign_document("manifest", body, PEOPLE.device_key)), False
        except (EvfError, TypeError, ValueError):
            return spelled(body), True

    def check(value: tuple[bytes, bool]) -> str:
        data, stranger = value
        try:
            found = verify_manifest(data, ca, PEOPLE.controller_key.public_key())
        except (NotTrusted, EvidenceBroken):
            return "refused"
        if stranger and data not in known:
            raise Accepted("a manifest that no desk signed is taken")
        if canonical(found.to_body()) != canonical(parse_canonical(data)["body"]):
            raise Accepted("a manifest is read as another one")
        verify_session(found, _nothing)
        return "taken"

    yield Target(make, check)


def _nothing(name: str) -> io.BytesIO:
    raise FileNotFoundError(name)


@contextmanager
def session(folder: Path) -> Iterator[Target]:
    """Altered files under the true manifest: each is found."""
    built = _built(folder, "small", SMALL)
    files = {entry.name: built.segment(entry.name).read_bytes() for entry in built.manifest.segments}
    files |= {
        entry.name: (built.folder / "wraps" / entry.name).read_bytes() for entry in built.manifest.wraps
    }

    def make(rng: Random) -> dict[str, bytes | None]:
        name = rng.choice(list(files))
        data = None if rng.random() < 0.02 else altered(rng, list(files.values()))
        if rng.random() < 0.7:
            data = altered(rng, [files[name]])
        return {**files, name: data}

    def check(value: dict[str, bytes | None]) -> str:
        def open_file(name: str) -> io.BytesIO:
            data = value[name]
            if data is None:
                raise FileNotFoundError(name)
            return io.BytesIO(data)

        findings = verify_session(built.manifest, open_file)
        wrong = {name for name, data in value.items() if data != files[name]}
        if {finding.name for finding in findings} != wrong:
            raise Accepted(f"altered: {sorted(wrong)}; found: {sorted(finding.name for finding in findings)}")
        return "cut" if any(finding.cut for finding in findings) else "found" if findings else "whole"

    yield Target(make, check)


@contextmanager
def note(_folder: Path) -> Iterator[Target]:
    """Checkpoint notes and cosignatures: what verifies is a text that this key signed."""
    device, controller = PEOPLE.device_key, PEOPLE.controller_key
    origin, key_name = "node/d/session/" + "5e" * 16, "node/d"
    leaves = [leaf_hash(bytes([number])) for number in range(9)]
    notes = [sign_checkpoint(origin, size, root_of(leaves[:size]), device, key_name) for size in (0, 1, 8, 9)]
    notes += [sign_checkpoint("node/e/session/x", 9, root_of(leaves), device, key_name)]
    notes += [sign_checkpoint(origin, 9, root_of(leaves), controller, key_name)]
    lines = [cosign(each, controller, "room/r", 1_790_000_000 + place) for place, each in enumerate(notes)]
    notes += [each + line for each, line in zip(notes, lines, strict=True)]
    signed = {each.partition("\n\n")[0] + "\n" for each in notes[:4]}
    seeds = [each.encode() for each in notes]

    def make(rng: Random) -> tuple[str, str]:
        text = altered(rng, seeds).decode("utf-8", rng.choice(("replace", "surrogateescape", "ignore")))
        return text, altered(rng, [line.encode() for line in lines]).decode("utf-8", "replace")

    def check(value: tuple[str, str]) -> str:
        text, line = value
        outcome = "refused"
        try:
            found: Checkpoint = verify_checkpoint(text, device.public_key(), key_name, origin)
            if text.rpartition("\n\n")[0] + "\n" not in signed or found.root != root_of(leaves[: found.size]):
                raise Accepted("a checkpoint that the desk did not sign is taken")
            outcome = "taken"
        except (NotTrusted, EvidenceBroken):
            pass
        for each, by in ((text, lines[0]), (notes[0], line)):
            try:
                verify_cosignature(each, by, controller.public_key(), "room/r")
            except (NotTrusted, EvidenceBroken):
                continue
            same = each.rpartition("\n\n")[0] == notes[0].rpartition("\n\n")[0]
            if not same or by.removesuffix("\n") != lines[0].removesuffix("\n"):
                raise Accepted("a cosignature of another checkpoint is taken")
        return outcome

    yield Target(make, check)


@contextmanager
def witness(_folder: Path) -> Iterator[Target]:
    """The controller's memory of a log: stored states, and messages with altered leaves and places."""
    device = PEOPLE.device_key
    origin, key_name = "node/d/session/" + "5e" * 16, "node/d"
    leaves = [leaf_hash(bytes([number])) for number in range(12)]
    notes = [sign_checkpoint(origin, n, root_of(leaves[:n]), device, key_name) for n in range(13)]
    fork = sign_checkpoint(origin, 9, root_of([*leaves[:8], leaf_hash(b"x")]), device, key_name)

    def at(size: int) -> Witness:
        made = Witness(origin, key_name, device.public_key())
        made.accept(notes[size], 0, leaves[:size])
        return made

    states = [at(size).to_json() for size in (0, 1, 5, 8)]

    def make(rng: Random) -> tuple[Any, str, int, list[bytes]]:
        state = altered_json(rng, states) if rng.random() < 0.5 else rng.choice(states)
        first = rng.choice((0, 1, 5, 8, 9, -1, 2**53))
        sent = leaves[max(first, 0) : rng.randint(0, 12)] if first < 13 else list(leaves)
        if sent and rng.random() < 0.3:
            sent[rng.randrange(len(sent))] = rng.choice((bytes(32), b"", bytes(31), leaves[0]))
        text = rng.choice(
            (*notes, *notes, fork, altered(rng, [each.encode() for each in notes]).decode("utf-8", "replace"))
        )
        return state, text, first, sent

    def check(value: tuple[Any, str, int, list[bytes]]) -> str:
        state, text, first, sent = value
        try:
            seen = Witness.from_json(state, device.public_key())
        except EvidenceBroken:
            return "state refused"
        before = seen.to_json()
        try:
            found = seen.accept(text, first, sent)
        except (NotTrusted, EvidenceBroken, MissingLeaves) as error:
            if seen.to_json() != before:
                raise Accepted("a refusal changed what the witness knows") from error
            return type(error).__name__
        if state in states and found.root != root_of(leaves[: found.size]):
            raise Accepted("a fork is taken")
        return "taken"

    yield Target(make, check)


@contextmanager
def observations(_folder: Path) -> Iterator[Target]:
    """EVENT records of the log track, and segments as the archive's own reading meets them."""
    seeds = [*LOG, {**LOG[0], "phase": "closed"}]

    def check(data: bytes) -> str:
        kept = ObservationLog()
        try:
            kept.add(data)
        except EvidenceBroken:
            return "refused"
        kept.reports()
        return "taken"

    yield Target(lambda rng: altered_text(rng, seeds, canonical), check)
