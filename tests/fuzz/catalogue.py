"""Every target with its share of 10^6 inputs, by speed."""

from __future__ import annotations

from tests.fuzz import on_evidence, on_folders, on_format, on_http, on_processes, on_wire
from tests.fuzz.engine import Build

TARGETS: dict[str, tuple[Build, int]] = {
    "segment": (on_format.segment, 250_000),
    "sealed": (on_format.sealed, 60_000),
    "cut": (on_format.cut, 30_000),
    "record": (on_format.record, 60_000),
    "wrap": (on_format.wrap, 60_000),
    "recipients": (on_format.recipients, 30_000),
    "key-file": (on_format.key_file, 40_000),
    "json": (on_format.json_form, 80_000),
    "manifest": (on_evidence.manifest, 60_000),
    "session": (on_evidence.session, 40_000),
    "verifier": (on_folders.verifier, 15_000),
    "rewraps": (on_folders.rewraps, 15_000),
    "certificates": (on_folders.certificates, 30_000),
    "note": (on_evidence.note, 60_000),
    "witness": (on_evidence.witness, 30_000),
    "observations": (on_evidence.observations, 30_000),
    "message": (on_wire.message, 80_000),
    "command": (on_wire.command, 40_000),
    "policy": (on_wire.policy, 40_000),
    "settings": (on_wire.settings, 30_000),
    "room": (on_processes.room, 20_000),
    "node": (on_processes.node, 15_000),
    "camera-link": (on_processes.camera_link, 20_000),
    "ring": (on_processes.ring, 20_000),
    "http": (on_http.http, 20_000),
}
