"""The certificate of a session: once it has ended and the controller has cosigned its last leaf, the signed manifest.

A manifest is made once and kept; it is published until somebody decides about it, with the desk's half of the
completeness certificate, which follows from it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.errors import EvidenceBroken, NotTrusted, StoreFailed
from appliance.evf.canonical import parse_canonical
from appliance.evf.errors import EvfError
from appliance.evidence.certifying import sign_as_desk
from appliance.evidence.manifest import sign_manifest
from appliance.evidence.session import EventLeaf, Gap, LostLeaf, Manifest, SegmentEntry, WrapEntry
from appliance.policy import ExamPolicy
from appliance.store.durable import store_failure, write_file_durably
from appliance.store.ledger import Witness
from appliance.store.view import (
    EventRow,
    GapRow,
    LostRow,
    RecordingView,
    SegmentRow,
    SessionRow,
    WrapRow,
)
from appliance.sync.trust import DeskTrust

log = logging.getLogger(__name__)

FIRST_REPUBLISH_S = 10.0
MAX_REPUBLISH_S = 600.0
_OUTCOMES = {"closed": "CLOSED", "open_ended": "OPEN_ENDED"}


@dataclass(frozen=True)
class SessionParts:
    """All that the index knows of one ended session; `leaves` in order."""

    session: SessionRow
    segments: Sequence[SegmentRow]
    wraps: Sequence[WrapRow]
    events: Sequence[EventRow]
    gaps: Sequence[GapRow]
    leaves: Sequence[bytes]
    lost: Sequence[LostRow]

    @classmethod
    def read(cls, view: RecordingView, sid: str) -> SessionParts | None:
        """None while the session is unknown or still records."""
        session = view.session(sid)
        if session is None or session.ended is None:
            return None
        return cls(
            session,
            view.segments(sid),
            view.wraps(sid),
            view.events(sid),
            view.gaps(sid),
            view.leaves(sid),
            view.lost(sid),
        )


def build_manifest(
    parts: SessionParts,
    policy: ExamPolicy,
    witness: Witness,
    chain_pem: tuple[str, ...],
    unwitnessed: Sequence[tuple[int, int]],
) -> Manifest:
    """The manifest as values; `unwitnessed` are spans (90 kHz) that the controller could not see in their time."""
    session = parts.session
    segments = tuple(_segment(row) for row in parts.segments if row.state in _OUTCOMES)
    gaps = [Gap(row.start_90k, row.end_90k, row.cause, False) for row in parts.gaps]
    gaps += [Gap(start, end, "recorded while the room was not reached", True) for start, end in unwitnessed]
    return Manifest(
        institution=session.institution,
        exam=session.exam,
        room=session.room,
        desk=session.desk,
        sid=session.sid,
        candidate_code=session.candidate_code,
        policy_id=session.policy_id,
        policy_version=session.policy_version,
        retain_until=session.retain_until,
        started=session.started,
        ended=session.ended or "",
        recipient_set_version=session.recipient_set_version,
        segments=segments,
        wraps=tuple(
            WrapEntry(row.name, row.sha256, row.size_bytes) for row in parts.wraps if row.state == "there"
        ),
        events=tuple(EventLeaf(row.leaf_index, row.body) for row in parts.events),
        gaps=tuple(sorted(gaps, key=lambda gap: (gap.start_90k, gap.end_90k))),
        lost=_lost(parts, segments),
        leaves=witness.size,
        checkpoint=witness.note,
        cosignature=witness.cosignature,
        chain_pem=chain_pem,
        region=", ".join(dict.fromkeys(place.region for place in policy.storage)),
        storage=", ".join(f"{place.endpoint}/{place.bucket}" for place in policy.storage),
    )


def _segment(row: SegmentRow) -> SegmentEntry:
    return SegmentEntry(
        name=row.name,
        track=row.track,
        cls=row.cls,
        epoch=row.epoch,
        seg=row.seg,
        size_bytes=row.size_bytes,
        sha256=row.sha256 or "",
        records=row.records,
        outcome=_OUTCOMES[row.state],
        start_90k=row.start_90k or 0,
        end_90k=row.end_90k or row.start_90k or 0,
        leaf_runs=tuple((run.first, run.length) for run in row.leaf_runs),
    )


def _lost(parts: SessionParts, segments: Sequence[SegmentEntry]) -> tuple[LostLeaf, ...]:
    """Leaves that no file backs any more: recovery found their bytes damaged or their segment gone."""
    owned = {event.leaf_index for event in parts.events}
    for entry in segments:
        owned.update(index for first, count in entry.leaf_runs for index in range(first, first + count))
    known = {row.leaf_index: row for row in parts.lost}
    lost: list[LostLeaf] = []
    for index, leaf in enumerate(parts.leaves):
        if index in owned:
            continue
        row = known.get(index)
        if row is None:
            lost.append(LostLeaf(index, leaf.hex(), "", 0, "the index holds no file for this record"))
        else:
            lost.append(LostLeaf(index, leaf.hex(), row.name, row.time_90k, row.cause))
    return tuple(lost)


class Certificates:
    """Manifests on disk; main thread only."""

    def __init__(self, view: RecordingView, trust: DeskTrust) -> None:
        self._view = view
        self._trust = trust
        self._kept: dict[str, bytes] = {}
        self._halves: dict[str, str] = {}
        self.faults: dict[str, str] = {}

    def forget(self, sids: set[str]) -> None:
        """Keep nothing more of these sessions in memory."""
        for kept in (self._kept, self._halves, self.faults):
            for sid in sids & kept.keys():
                kept.pop(sid)

    def manifest(self, sid: str) -> bytes | None:
        """The signed manifest's bytes; None until there is one."""
        if sid not in self._kept:
            try:
                self._kept[sid] = self._view.layout.manifest(sid).read_bytes()
            except FileNotFoundError:
                return None
            except OSError as error:
                raise store_failure(f"cannot read the manifest of {sid}", error) from error
        return self._kept[sid]

    def sha256(self, sid: str) -> str | None:
        """Hex digest of the manifest's bytes; None until there is one."""
        manifest = self.manifest(sid)
        return None if manifest is None else hashlib.sha256(manifest).hexdigest()

    def desk_half(self, sid: str) -> str | None:
        """What this desk signs of the completeness certificate, as canonical JSON; None without a manifest of its key.

        Made of the manifest each time that the process starts: the signature is the same again.
        """
        manifest = self.manifest(sid)
        if manifest is None or sid in self._halves:
            return self._halves.get(sid)
        try:
            parsed = Manifest.from_body(parse_canonical(manifest)["body"])
            half = sign_as_desk(parsed, manifest, self._trust.device_key)
        except (EvidenceBroken, NotTrusted, EvfError, KeyError) as error:
            if self.faults.get(sid) != str(error):
                log.error("certificate.not_signed sid=%s reason=%s", sid, error)
            self.faults[sid] = str(error)
            return None
        self._halves[sid] = half.decode("ascii")
        return self._halves[sid]

    def certify(
        self, sid: str, policy: ExamPolicy, witness: Witness | None, unwitnessed: Sequence[tuple[int, int]]
    ) -> bytes | None:
        """Make the manifest if it is due; None while the session records or its end is unwitnessed."""
        existing = self.manifest(sid)
        if existing is not None:
            return existing
        if witness is None or self._view.leaf_count(sid) != witness.size:
            return None
        parts = SessionParts.read(self._view, sid)
        if parts is None or any(row.state == "open" for row in parts.segments):
            return None
        try:
            manifest = build_manifest(parts, policy, witness, self._trust.chain_pem, unwitnessed)
            data = sign_manifest(manifest, self._trust.device_key)
        except (EvidenceBroken, EvfError) as error:
            if self.faults.get(sid) != str(error):
                log.error("certificate.impossible sid=%s reason=%s", sid, error)
            self.faults[sid] = str(error)
            return None
        try:
            write_file_durably(self._view.layout.manifest(sid), data)
        except StoreFailed as error:
            self.faults[sid] = str(error)
            return None
        self.faults.pop(sid, None)
        self._kept[sid] = data
        log.info(
            "certificate.made sid=%s segments=%d gaps=%d", sid, len(manifest.segments), len(manifest.gaps)
        )
        return data


class Republisher:
    """When to say again what nobody has answered: at once, then ever more rarely. Pure; times in nanoseconds."""

    def __init__(self) -> None:
        self._due: dict[str, tuple[int, float]] = {}

    def due(self, sid: str, now_mono_ns: int) -> bool:
        """True when it is time; counts as said."""
        at, wait_s = self._due.get(sid, (now_mono_ns, FIRST_REPUBLISH_S))
        if now_mono_ns < at:
            return False
        self._due[sid] = (now_mono_ns + round(wait_s * 1e9), min(wait_s * 2, MAX_REPUBLISH_S))
        return True

    def again(self) -> None:
        """Somebody new may be listening."""
        self._due.clear()
