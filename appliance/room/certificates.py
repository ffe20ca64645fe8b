"""Completeness certificates in the room: taken from a desk with its manifest, signed by the room, shown with a QR code.

Runs on the event loop; what is stored is stored in the transaction that stores the manifest.
"""

from __future__ import annotations

import hashlib
import sqlite3
from datetime import timedelta
from io import BytesIO
from typing import Any

import segno

from appliance.clock import parse_utc, utc_text
from appliance.errors import BadInput, EvidenceBroken, NotTrusted
from appliance.evf.signed import key_id
from appliance.evidence.certificate import Certificate
from appliance.evidence.certifying import countersign
from appliance.evidence.completeness import Line
from appliance.evidence.manifest import Manifest
from appliance.room.rows import session_row
from appliance.room.trust import RoomKeys
from appliance.timecode import TICKS_PER_S

NO_HALF = "its desk sent none; its software is older than the room's"
QR_QUIET_MODULES = 4  # ISO/IEC 18004, 9.1
# A whole number, so that all modules are drawn alike; 12 cm for version 22 at 96 dots an inch.
QR_MODULE_PX = 4
View = dict[str, Any]


def keep_certificate(
    connection: sqlite3.Connection,
    keys: RoomKeys,
    manifest: Manifest,
    manifest_bytes: bytes,
    half: str | None,
) -> str | None:
    """Sign and store a session's certificate, or the reason why there is none; inside the caller's transaction.

    `manifest` was verified by the caller, `half` is what the desk sent. Returns the certificate's SHA-256.
    """
    certificate, problem = None, NO_HALF
    if half is not None:
        try:
            certificate = countersign(half.encode(), manifest, manifest_bytes, keys.signing).to_bytes()
        except (NotTrusted, EvidenceBroken) as error:
            problem = str(error)
    connection.execute(
        "UPDATE sessions SET certificate = ?, certificate_problem = ? WHERE sid = ?",
        (
            None if certificate is None else certificate.decode(),
            None if certificate else problem,
            manifest.sid,
        ),
    )
    return None if certificate is None else hashlib.sha256(certificate).hexdigest()


def stored_certificate(connection: sqlite3.Connection, sid: str) -> bytes:
    """The document, canonical JSON; BadInput when there is none."""
    row = session_row(connection, sid)
    if row["certificate"] is None:
        raise BadInput(
            f"this session has no certificate: {_missing(row)}", "it is made when the session has ended"
        )
    return str(row["certificate"]).encode()


def certificate_view(connection: sqlite3.Connection, keys: RoomKeys, sid: str) -> View:
    """What the page shows; `certificate` is None with the reason in `problem`. BadInput for an unknown session."""
    row = session_row(connection, sid)
    shown: View = {"sid": sid, "desk": row["desk"], "candidate": row["candidate_code"], "certificate": None}
    if row["certificate"] is None:
        return {**shown, "problem": _missing(row)}
    certificate = Certificate.parse(row["certificate"].encode())
    body = certificate.body
    text = certificate.to_text()
    symbol = qr_symbol(text)
    return {
        **shown,
        "problem": None,
        "certificate": body.to_json(),
        "from": body.started,
        "to": body.ended,
        "lines": [_line(body.started, line) for line in certificate.lines or ()],
        "desk_key": certificate.desk_key_id,
        "room_key": key_id(keys.signing.public_key().public_bytes_raw()),
        "text": text,
        "qr": qr_svg(symbol),
        "qr_size": f"QR version {symbol.designator}, {len(text)} characters",
    }


def qr_symbol(text: str) -> segno.QRCode:
    """The smallest QR code of a certificate's text; error level L or, where it fits in the same size, a better one."""
    return segno.make_qr(text, error="l", boost_error=True)


def qr_svg(symbol: segno.QRCode) -> str:
    """An inline SVG, black on white in every colour scheme, with its quiet zone."""
    out = BytesIO()
    symbol.save(
        out, kind="svg", xmldecl=False, svgns=True, scale=QR_MODULE_PX, border=QR_QUIET_MODULES, dark="#000",
        light="#fff", title="QR code of the certificate",
    )  # fmt: skip
    return out.getvalue().decode()


def _missing(row: sqlite3.Row) -> str:
    if row["certificate_problem"] is not None:
        return str(row["certificate_problem"])
    if row["manifest_problem"] is not None:
        return f"its desk's manifest does not hold: {row['manifest_problem']}"
    if row["manifest_sha256"] is not None:
        return "it was recorded before this room made certificates"
    return "it is being made" if row["ended_at"] else "the session is under way"


def _line(started: str, line: Line) -> View:
    return {
        "from_s": line.start_90k / TICKS_PER_S,
        "to_s": line.end_90k / TICKS_PER_S,
        "kind": line.kind.value,
        "cause": line.cause,
        "from": _wall(started, line.start_90k),
        "to": _wall(started, line.end_90k),
    }


def _wall(started: str, at_90k: int) -> str:
    """Time of day of a session time, by the desk's clock at the start."""
    try:
        return utc_text(parse_utc(started) + timedelta(seconds=at_90k / TICKS_PER_S))
    except OverflowError:
        return "?"  # beyond the calendar's last year
