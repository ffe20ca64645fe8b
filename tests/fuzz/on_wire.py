"""Targets that take one message or file without a process behind it: MQTT messages, signed orders, policies, TOML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.archive.keys import RootKey, read_policy, sign_policy_file
from appliance.config import ArchiveConfig, NodeConfig, RoomConfig, StorageCredentials, load_config
from appliance.errors import BadConfig, BadInput, NotTrusted
from appliance.evf.canonical import canonical
from appliance.evf.errors import EvfError
from appliance.evf.signed import sign_document
from appliance.policy import Strict, parse_policy, sign_policy
from appliance.protocol import (
    COMMAND_PURPOSE,
    GRANTS_PURPOSE,
    CheckpointMessage,
    ClockMessage,
    Command,
    ConfirmSynced,
    EndSession,
    GrantRequest,
    Grants,
    Hold,
    ManifestMessage,
    ObservationMessage,
    Presence,
    Release,
    Reply,
    StartSession,
    Status,
    Watch,
    WitnessMessage,
    decode,
    encode,
    verify_message,
)
from tests.fuzz.engine import Accepted, Target
from tests.fuzz.mutate import altered
from tests.fuzz.mutate_json import altered_json, altered_text, spelled
from tests.sessions import observation

ROOT = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
CONTROLLER = Ed25519PrivateKey.from_private_bytes(bytes([10]) * 32)
SID, SHA, AT = "ab" * 16, "cd" * 32, "2026-11-22T09:00:00.000Z"
NOTE = f"node/d1/session/{SID}\n3\n{'A' * 43}=\n\n— node/d1 {'A' * 88}\n"

POLICY: dict[str, Any] = {
    "id": "stat-2026", "version": 3, "institution": "uni-x", "exam": "statistics-1", "exam_title": "Statistics I",
    "authority": "Examination board", "legal_basis": "public_task", "dpa_ref": "DPA-7", "exam_date": "2026-11-22",
    "duration_s": 10_800, "retain_until": "2027-05-22", "record_video": True, "face": True, "gaze": True,
    "preview": True, "purge_after_h": 24, "levels": {"nobody_at_desk": "red", "several_people": "yellow"},
    "video": {"width_px": 1280, "height_px": 720, "frame_rate_hz": 15, "bitrate_bps": 1_200_000},
    "storage": [{"endpoint": "https://s3.eu.example", "region": "eu-test-1", "bucket": "exams"}],
}  # fmt: skip


def messages() -> dict[type[Strict], list[dict[str, Any]]]:
    """A real message or two of every kind, as JSON values."""
    report = observation(1, "head_turned_away", 3, 5)["report"]
    session = {
        "sid": SID, "phase": "certified", "epoch": 1, "fragments": 30, "durable_bytes": 9_000_000, "leaves": 31,
        "duration_90k": 5_400_000, "witnessed": 30, "manifest_sha256": SHA, "objects_total": 4, "objects_there": 1,
        "gaps": [{"start_90k": 0, "end_90k": 90_000, "cause": "camera lost"}],
    }  # fmt: skip
    status = {
        "desk": "d1", "boot_id": "b1", "connection": 1, "at": AT, "preflight": {"ready": False, "problems": ["p"]},
        "camera_open": True, "light_on": True, "recording_age_s": 1.5, "inference_rate_hz": 5.0, "free_bytes": 10**10,
        "clock_offset_s": -0.001, "clock_synced": True, "faults": ["f"], "sessions": [session],
    }  # fmt: skip
    facts = {"name": "0-video-0.evf", "size_bytes": 700, "md5": "A" * 22 + "==", "sha256": SHA}
    return {
        Presence: [{"desk": "d1", "boot_id": "b1", "connection": 7, "state": "online", "software": "0.1.0"}],
        Status: [status],
        Reply: [{"serial": 1, "accepted": False, "reason": "no room"}],
        CheckpointMessage: [{"sid": SID, "first_index": 2, "leaves": ["A" * 43 + "="] * 3, "note": NOTE}],
        ObservationMessage: [{"sid": SID, "number": 1_000_001, "observation": report}],
        ManifestMessage: [{"sid": SID, "manifest": '{"body":{}}'}],
        GrantRequest: [{"sid": SID, "number": 1, "objects": [facts, {**facts, "name": "manifest.json"}]}],
        WitnessMessage: [
            {"sid": SID, "size": 3, "cosignature": "— room/r AAAA\n", "refused": None},
            {"sid": SID, "size": 3, "cosignature": None, "refused": "log shrank"},
        ],
        Watch: [{"mode": "live", "lease_s": 2.5}],
        ClockMessage: [{"at": AT, "life": "0123456789abcdef"}],
    }


@contextmanager
def message(_folder: Path) -> Iterator[Target]:
    """Every unsigned message both ways: refused by name, or read so that writing it gives the same message."""
    samples = messages()
    kinds = list(samples)

    def make(rng: Random) -> tuple[type[Strict], bytes]:
        kind = rng.choice(kinds)
        pool = samples[kind] if rng.random() < 0.9 else samples[rng.choice(kinds)]
        return kind, altered_text(rng, pool)

    def check(value: tuple[type[Strict], bytes]) -> str:
        kind, payload = value
        try:
            found = decode(kind, payload)
        except BadInput:
            return "refused"
        if decode(kind, encode(found)) != found:
            raise Accepted("a message that was taken is another one when it is sent on")
        return "taken"

    yield Target(make, check)


def orders() -> list[dict[str, Any]]:
    """Every order, as JSON values."""
    document = sign_policy(parse_policy(POLICY), ROOT)
    return [
        order.model_dump(mode="json")
        for order in (
            StartSession(sid=SID, candidate_code="C-1", policy=document),
            EndSession(sid=SID, reason="over"),
            Release(sid=SID, manifest_sha256=SHA, approved_by="m.jansen", approved_at=AT),
            Hold(sid=SID, reason="to be looked at"),
            ConfirmSynced(sid=SID, manifest_sha256=SHA, objects=4),
        )
    ]


def commands() -> list[dict[str, Any]]:
    """Bodies of commands."""
    return [
        {"room": "r", "desk": "d1", "serial": serial, "issued": AT, "order": order}
        for serial, order in enumerate(orders(), 1)
    ]


GRANTS: dict[str, Any] = {
    "room": "r", "desk": "d1", "sid": SID, "issued": AT, "present": ["0-video-0.evf"],
    "grants": [{"name": "manifest.json", "url": "https://s3.eu.example/exams/x?y=z", "headers": {"Content-MD5": "A"}}],
    "refused": {"x.evf": "the manifest does not name it"},
}  # fmt: skip


def signed_or_not(
    rng: Random, purpose: str, bodies: list[dict[str, Any]], key: Ed25519PrivateKey
) -> tuple[bytes, bool]:
    """A signed document that a stranger altered (True), or an altered body that the right key signed."""
    if rng.random() < 0.5:
        documents = [sign_document(purpose, body, key) for body in rng.sample(bodies, min(2, len(bodies)))]
        return altered_text(rng, documents, canonical), True
    body = altered_json(rng, bodies)
    try:
        return canonical(sign_document(purpose, body, key)), False
    except (EvfError, TypeError, ValueError):
        return spelled(body), True


@contextmanager
def command(_folder: Path) -> Iterator[Target]:
    """Signed commands and grants."""
    known = {purpose: [canonical(sign_document(purpose, body, CONTROLLER)) for body in bodies] for purpose, bodies in (
        (COMMAND_PURPOSE, commands()), (GRANTS_PURPOSE, [GRANTS])
    )}  # fmt: skip

    def make(rng: Random) -> tuple[str, bytes, bool]:
        purpose, bodies = rng.choice(((COMMAND_PURPOSE, commands()), (GRANTS_PURPOSE, [GRANTS])))
        return purpose, *signed_or_not(rng, purpose, bodies, CONTROLLER)

    def check(value: tuple[str, bytes, bool]) -> str:
        purpose, payload, stranger = value
        kind: type[Strict] = Command if purpose == COMMAND_PURPOSE else Grants
        try:
            verify_message(purpose, kind, payload, CONTROLLER.public_key())
        except (NotTrusted, BadInput):
            return "refused"
        if stranger and payload not in known[purpose]:
            raise Accepted("an order that the room did not sign is taken")
        return "taken"

    yield Target(make, check)


@contextmanager
def policy(folder: Path) -> Iterator[Target]:
    """Signed policies as files, and TOML that the institution is about to sign."""
    path, public = folder / "policy", folder / "root.pub"
    public.write_text(ROOT.public_key().public_bytes_raw().hex() + "\n")
    root = RootKey("uni-x", ROOT)
    bodies = [parse_policy(POLICY).model_dump(mode="json")]
    known = {canonical(body) for body in bodies}
    text = _toml(POLICY)

    def make(rng: Random) -> tuple[str, bytes, bool]:
        if rng.random() < 0.4:
            return "toml", _altered_toml(rng, [text], POLICY), False
        return "signed", *signed_or_not(rng, "exam-policy", bodies, ROOT)

    def check(value: tuple[str, bytes, bool]) -> str:
        kind, data, stranger = value
        path.write_bytes(data)
        try:
            if kind == "toml":
                found, document = sign_policy_file(path, root)
                again = parse_policy(document["body"])
            else:
                found = read_policy(path, public)
                again = parse_policy(json.loads(canonical(found.model_dump(mode="json"))))
        except (BadInput, NotTrusted):
            return f"{kind} refused"
        if found != again:
            raise Accepted("a policy means something else once it is signed")
        if stranger and canonical(found.model_dump(mode="json")) not in known:
            raise Accepted("a policy that the institution did not sign is taken")
        return f"{kind} taken"

    yield Target(make, check)


NODE: dict[str, Any] = {
    "institution": "uni-x", "room": "r", "desk": "d1", "broker_host": "127.0.0.1", "broker_port": 8883,
    "store": "/var/lib/invigil/store", "light_pin": 17, "inference_rate_hz": 5.0, "trust": {"room_ca": "ca.pem"},
}  # fmt: skip
STORAGE = {"endpoint": "https://s3.eu.example", "region": "eu", "bucket": "exams", "credentials": "c.toml"}
ROOM: dict[str, Any] = {
    "institution": "uni-x", "room": "r", "title": "Room", "listen_port": 8443, "storage": STORAGE,
    "desks": [{"id": "d1", "label": "1", "row": 1, "column": 2}],
}  # fmt: skip
ARCHIVE: dict[str, Any] = {"institution": "uni-x", "storage": STORAGE, "root_key": "root.pub"}
SETTINGS: dict[type[Strict], dict[str, Any]] = {
    NodeConfig: NODE,
    RoomConfig: ROOM,
    ArchiveConfig: ARCHIVE,
    StorageCredentials: {"access_key_id": "a", "secret_access_key": "s"},
}


@contextmanager
def settings(folder: Path) -> Iterator[Target]:
    """node.toml, room.toml, archive.toml and the credentials file: BadConfig, or settings."""
    path = folder / "settings.toml"
    kinds = list(SETTINGS)
    texts = {kind: _toml(value) for kind, value in SETTINGS.items()}

    def make(rng: Random) -> tuple[type[Strict], bytes]:
        kind = rng.choice(kinds)
        return kind, _altered_toml(
            rng, list(texts.values()) if rng.random() < 0.1 else [texts[kind]], SETTINGS[kind]
        )

    def check(value: tuple[type[Strict], bytes]) -> str:
        kind, data = value
        path.write_bytes(data)
        try:
            load_config(path, kind)
        except BadConfig:
            return "refused"
        return "taken"

    yield Target(make, check)


def _altered_toml(rng: Random, texts: list[bytes], value: dict[str, Any]) -> bytes:
    if rng.random() < 0.5:
        return altered(rng, texts)
    if rng.random() < 0.1:
        place = rng.choice((b"[", b"a.", b'"""', b"{a=", b"#", b"1", b"[[a]]\n", b"\xff", b"'"))
        return texts[0] + b"x = " + place * rng.choice((3, 900, 20_000 // len(place)))
    changed = altered_json(rng, [value])
    return (
        _toml(changed)
        if isinstance(changed, dict)
        else b"x = " + _toml_value(changed).encode("utf-8", "replace")
    )


def _toml(value: dict[str, Any]) -> bytes:
    tables = {name: item for name, item in value.items() if isinstance(item, dict)}
    lines = [f"{_toml_key(name)} = {_toml_value(item)}" for name, item in value.items() if name not in tables]
    for name, table in tables.items():
        lines += [
            f"[{_toml_key(name)}]",
            *(f"{_toml_key(key)} = {_toml_value(item)}" for key, item in table.items()),
        ]
    return "\n".join([*lines, ""]).encode("utf-8", "replace")


def _toml_key(name: str) -> str:
    return name if name.replace("_", "").isalnum() and name.isascii() else json.dumps(name)


def _toml_value(value: Any, depth: int = 0) -> str:
    if depth > 100:
        return "0"
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{_toml_key(key)} = {_toml_value(item, depth + 1)}" for key, item in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item, depth + 1) for item in value) + "]"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, str) and len(value) == 10 and value[4:5] == "-":
        return value  # a date
    return json.dumps(value) if isinstance(value, str) else str(value)
