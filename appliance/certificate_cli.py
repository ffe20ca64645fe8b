"""`invigil certificate`: what a certificate of a session proves, checked without the room and without its recording."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from appliance.clock import parse_utc
from appliance.command_line import command_group
from appliance.errors import BadInput
from appliance.evidence.certificate import HINT, MAX_BYTES, Certificate
from appliance.evidence.certifying import Signers, require_manifest, verify_certificate
from appliance.evidence.completeness import Line
from appliance.evidence.manifest import MAX_MANIFEST_BYTES, verify_manifest
from appliance.timecode import clock_text
from appliance.trust import load_certificate, load_public_key

TRUST_HINT = (
    "the test centre gives you room-ca.pem and controller.pub; they must not come with the certificate"
)

app = command_group("Completeness certificates, as candidates take them home.")


@app.callback()
def _certificate() -> None:
    """Completeness certificates, as candidates take them home."""


@app.command("check")
def check(
    what: Annotated[
        str,
        typer.Argument(
            metavar="TEXT_OR_FILE", help="the text of the QR code, or a file of it or of the page"
        ),
    ],
    room_ca: Annotated[Path, typer.Option("--room-ca", help="room-ca.pem, the certificate of the room's CA")],
    controller_key: Annotated[Path, typer.Option("--controller-key", help="controller.pub of the room")],
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="manifest.json of the session, to compare with")
    ] = None,
) -> None:
    """Verify both signatures and say in words what they prove. With --manifest also that it is this session's."""
    certificate = Certificate.parse(_read(what))
    authority, controller = load_certificate(room_ca, TRUST_HINT), load_public_key(controller_key, TRUST_HINT)
    signers = verify_certificate(certificate, authority, controller)
    lines = certificate.lines
    if manifest is not None:
        data = _bytes(manifest, MAX_MANIFEST_BYTES)
        lines = require_manifest(certificate.body, verify_manifest(data, authority, controller), data)
    for text in _words(certificate, signers, lines, manifest is not None):
        typer.echo("".join(letter if letter.isprintable() else "?" for letter in text))


def _words(
    certificate: Certificate, signers: Signers, lines: tuple[Line, ...] | None, compared: bool
) -> list[str]:
    body = certificate.body
    said = [
        f"session {body.sid} of exam {body.exam}, candidate {body.candidate_code}, room {body.room}, desk {body.desk}",
        f"recorded {_moment(body.started)} to {_moment(body.ended)}, {body.leaves} records and events in its log",
    ]
    if not body.lines:
        said.append("complete: no gap, nothing lost, picture there throughout, clock steady")
    else:
        said.append(
            f"with gaps: {body.lines} {'thing is' if body.lines == 1 else 'things are'} not as promised"
        )
        if lines is None:
            said.append("  the text names their number and hash; the saved file or --manifest names each")
        said += [
            f"  {clock_text(line.start_90k)}-{clock_text(line.end_90k)}  {line.cause}" for line in lines or ()
        ]
    said += [
        f"signed by desk {body.desk}, key {signers.desk}, whose certificate this room's CA issued",
        f"signed by the room controller, key {signers.room}",
    ]
    if compared:
        said.append(f"the manifest is this session's, SHA-256 {body.manifest_sha256}")
    said += [
        "proves: desk and room both said this of the session when it ended, and no word of it was changed since",
        "does not prove: that the recording still exists; invigil archive verify shows that",
    ]
    return said


def _read(what: str) -> bytes:
    if what == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    if what[:8].upper() == "INVIGIL1":
        return what.encode()
    path = Path(what)
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a text is longer than any path, or holds what none may
        there = False
    if not there:
        raise BadInput("this is neither the text of a certificate nor a file", HINT)
    return _bytes(path, MAX_BYTES)


def _bytes(path: Path, most: int) -> bytes:
    with path.open("rb") as source:
        return source.read(most + 1)


def _moment(utc: str) -> str:
    try:
        return parse_utc(utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return utc
