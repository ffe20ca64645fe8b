"""From a verified and opened session to what its report shows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.archive.observations import Subject
from appliance.archive.opening import OpenedLog, video_notes
from appliance.archive.report import ReportFacts, Signature
from appliance.archive.rewrapped import rewrap_words
from appliance.archive.session import LOG_TRACK, LocalSession
from appliance.archive.session_records import track_segments
from appliance.archive.timeline import Span
from appliance.archive.trust import Trust
from appliance.archive.verify import cut_words, damaged_words
from appliance.clock import utc_text
from appliance.evf.signed import key_id
from appliance.evidence.completeness import VIDEO_TRACK
from appliance.timecode import TICKS_PER_S

# Two segments that follow each other this closely are one bar; a longer silence is a gap of the manifest
JOIN_90K = TICKS_PER_S // 2


def report_facts(session: LocalSession, trust: Trust, log: OpenedLog, verified_at: datetime) -> ReportFacts:
    """All that `render_report` wants."""
    manifest = session.manifest
    video = track_segments(session, VIDEO_TRACK)
    return ReportFacts(
        subject=Subject.of(manifest),
        institution=manifest.institution,
        desk=manifest.desk,
        room=manifest.room,
        started=manifest.started,
        ended=manifest.ended,
        duration_90k=max(session.end_90k, max((gap.end_90k for gap in manifest.gaps), default=0)),
        retain_until=manifest.retain_until,
        recorded=_joined([(entry.start_90k, session.there_until_90k(entry)) for entry in video]),
        completeness=session.completeness,
        notes=(
            *((rewrap_words(session.rewrapped.newest),) if session.rewrapped.newest else ()),
            *cut_words(session),
            *damaged_words(session),
            *log.notes,
            *video_notes(session),
        ),
        cut=len(session.cuts),
        damaged=len(session.damaged),
        rooted=session.rooted,
        lost=len(manifest.lost),
        segments=len(manifest.segments),
        size_bytes=sum(entry.size_bytes for entry in manifest.segments),
        reports=tuple(log.reports),
        log_whole=all(session.whole(entry) for entry in track_segments(session, LOG_TRACK)),
        signatures=_signatures(session, trust),
        approved_by=session.release.approved_by,
        approved_at=session.release.approved_at,
        verified_at=utc_text(verified_at),
    )


def _joined(parts: Sequence[Span]) -> tuple[Span, ...]:
    spans: list[Span] = []
    for start_90k, end_90k in parts:
        if spans and start_90k - spans[-1][1] <= JOIN_90K:
            spans[-1] = (spans[-1][0], max(spans[-1][1], end_90k))
        else:
            spans.append((start_90k, end_90k))
    return tuple(spans)


def _signatures(session: LocalSession, trust: Trust) -> tuple[Signature, ...]:
    manifest = session.manifest
    device = (
        f"desk {manifest.desk}, key {_kid(session.device_key.public_bytes(Encoding.Raw, PublicFormat.Raw))}"
    )
    controller_raw = trust.controller_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    controller = f"room controller, key {_kid(controller_raw)}"
    issuer = trust.room_ca.subject.rfc4514_string()
    checkpoint = hashlib.sha256(manifest.checkpoint.encode()).hexdigest()
    return (
        Signature("manifest.json: every file, gap and the policy", device, session.manifest_sha256),
        Signature(f"certificate of desk {manifest.desk}", f"room CA, {issuer}", _certificate_sha256(session)),
        Signature(
            f"checkpoint over {manifest.leaves} leaves", f"{device}; cosigned: {controller}", checkpoint
        ),
        Signature("approval.json: release of exactly this manifest", controller, session.approval_sha256),
        *(
            Signature(wrap.name, device, wrap.sha256)
            for wrap in manifest.wraps
            if wrap.name not in session.damaged
        ),
    )


def _kid(public_bytes: bytes) -> str:
    return key_id(public_bytes)[:8]


def _certificate_sha256(session: LocalSession) -> str:
    return hashlib.sha256(session.device_certificate.public_bytes(Encoding.DER)).hexdigest()
