"""What the sync process does for each ordered session, from its first leaf to the storage's confirmation.

Everything is taken up again from index.db, ledger.db and the manifest file; main thread only.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from appliance.clock import parse_utc
from appliance.config import NodeConfig
from appliance.errors import BadInput, NotTrusted, StorageNotAllowed, StoreFailed
from appliance.policy import ExamPolicy, verify_policy
from appliance.protocol import (
    GRANTS_PURPOSE,
    MAX_MESSAGE_BYTES,
    FromNode,
    Grants,
    ManifestMessage,
    StartSession,
    WitnessMessage,
    encode,
    verify_message,
)
from appliance.store.ledger import Ledger, OrderedSession
from appliance.store.view import GapRow, RecordingView, SessionRow, Totals
from appliance.sync.certificate import Certificates, Republisher
from appliance.sync.checkpoints import MAX_LEAVES, SessionLog, unwitnessed_span
from appliance.sync.sender import PutDone, Sender, Unfit, unfit
from appliance.sync.status import SessionFacts
from appliance.sync.trust import DeskTrust
from appliance.sync.uploader import Change, Upload, session_files

log = logging.getLogger(__name__)

Publish = Callable[[FromNode, bytes], int | None]
CERTIFY_INTERVAL_S = 1.0
FORGET_INTERVAL_S = 60.0
MOST_UNANSWERED = 64  # of checkpoints of one session: an hour of a controller that is away
NOT_VALID = "the desk's certificate was not valid when it ended; renew it, then it is certified"


@dataclass(frozen=True)
class _Recorded:
    row: SessionRow
    totals: Totals
    duration_90k: int
    leaves: int
    gaps: tuple[GapRow, ...]


class Sessions:
    """`publish` sends with QoS 1 and answers None while there is no connection."""

    def __init__(
        self,
        config: NodeConfig,
        trust: DeskTrust,
        ledger: Ledger,
        view: RecordingView,
        certificates: Certificates,
        sender: Sender,
        publish: Publish,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._trust = trust
        self._ledger = ledger
        self._view = view
        self._certificates = certificates
        self._sender = sender
        self._publish = publish
        self._alive = alive
        self._republisher = Republisher()
        self._logs: dict[str, SessionLog] = {}
        self._uploads: dict[str, Upload] = {}
        self._policies: dict[str, ExamPolicy] = {}
        self._ended: dict[str, _Recorded] = {}
        # By session: up to where (90 kHz) a checkpoint of so many leaves covers the film; those without an answer.
        self._covers: dict[str, dict[int, int]] = {}
        self._next_certify_ns = self._next_forget_ns = 0
        self._foreign = 0
        self._orders: list[OrderedSession] = []
        self.ledger_changed()

    def ledger_changed(self) -> None:
        """Read the orders again: this process is the ledger's only writer."""
        self._orders = self._ledger.orders()
        states = {order.sid: order.state for order in self._orders}
        for sid, upload in list(self._uploads.items()):
            if states.get(sid) != "released" or not upload.is_for(self._ledger.approval(sid)):
                self._uploads.pop(sid).stop()

    def connection_began(self) -> None:
        """Say again whatever has no answer yet."""
        self._republisher.again()
        for session_log in self._logs.values():
            session_log.connection_began()
        for upload in self._uploads.values():
            upload.connection_lost()

    def recording_policy(self) -> ExamPolicy | None:
        """Policy of the session that records now."""
        wanted = next(
            (o for o in reversed(self._orders) if o.state == "ordered" and o.end_command is None), None
        )
        return None if wanted is None else self._policy(wanted)

    def step(self, now_mono_ns: int, connected: bool) -> None:
        """One turn: checkpoints, certificates, uploads, each as far as it can go now."""
        certify = now_mono_ns >= self._next_certify_ns
        if certify:
            self._next_certify_ns = now_mono_ns + round(CERTIFY_INTERVAL_S * 1e9)
        purged = self._view.purged()
        self._forget(purged)
        if now_mono_ns >= self._next_forget_ns:
            self._next_forget_ns = now_mono_ns + round(FORGET_INTERVAL_S * 1e9)
            self._forget_orders(purged)
        for order in self._orders:
            if order.state in ("synced", "discarded"):
                continue
            row = self._row(order.sid)
            if row is None or order.sid in purged:
                continue
            if connected:
                self._send_checkpoint(order.sid, now_mono_ns)
            undecided = order.state in ("ordered", "ended")
            if certify and undecided and row.ended is not None:
                self._certify(order, row)
            if connected and undecided:
                self._send_manifest(order.sid, now_mono_ns)
            if connected and order.state == "released":
                self._ask_for_grants(order, now_mono_ns)

    def _forget(self, purged: set[str]) -> None:
        """What is no longer on this desk is not kept in memory either."""
        for kept in (self._logs, self._policies, self._ended, self._covers):
            for sid in purged & kept.keys():
                kept.pop(sid)
        self._certificates.forget(purged)

    def _forget_orders(self, purged: set[str]) -> None:
        """Nor in the ledger. A disk that refuses is asked again: the session that records now must not wait for it."""
        kept = [order.sid for order in self._orders if order.sid in purged and order.start_command]
        try:
            for sid in kept:
                self._ledger.forget(sid)
        except StoreFailed as error:
            log.warning("ledger.order_not_forgotten reason=%s", error)
        if kept:
            self.ledger_changed()

    def witnessed(self, message: WitnessMessage) -> None:
        """Make the controller's cosignature durable."""
        known = {order.sid for order in self._orders} - self._view.purged()
        if message.sid not in known or self._row(message.sid) is None:
            log.warning("witness.unknown_session sid=%s", message.sid)
            return
        session_log = self._log(message.sid)
        cosigned = session_log.answer(message)
        if session_log.fault:
            log.error("witness.fault sid=%s reason=%s", message.sid, session_log.fault)
        if cosigned is None:
            return
        with self._ledger.transaction():
            self._ledger.set_witness(message.sid, cosigned.size, cosigned.cosignature, cosigned.note)
            self._note_witnessed_time(message.sid, cosigned.size)

    def granted(self, payload: bytes, now_mono_ns: int) -> None:
        """Take a Grants message: send what it grants, or nothing at all if any of it is not allowed."""
        try:
            grants = verify_message(GRANTS_PURPOSE, Grants, payload, self._trust.controller_key)
        except (NotTrusted, BadInput) as error:
            self._foreign += 1
            log.error("grants.foreign reason=%s", error)
            return
        upload = self._uploads.get(grants.sid)
        if upload is None:
            return
        try:
            jobs, changes = upload.granted(grants, now_mono_ns)
        except StorageNotAllowed as error:
            log.error("grants.not_allowed sid=%s reason=%s", grants.sid, error)
            return
        self._keep(upload.sid, changes)
        for job in jobs:
            self._sender.put(job, lambda upload=upload, number=job.round_number: upload.wants(number))  # type: ignore[misc]

    def put_done(self, result: PutDone, now_mono_ns: int) -> None:
        """Take the end of one PUT."""
        upload = self._uploads.get(result.sid)
        if upload is not None:
            self._keep(result.sid, upload.done(result, now_mono_ns))

    def facts(self) -> list[SessionFacts]:
        """For the status: every session that is still on this desk."""
        purged = self._view.purged()
        return [self._facts(order) for order in self._orders if order.sid not in purged]

    def faults(self) -> list[str]:
        """In words, for the room."""
        words = [f"session {sid[:8]}: {each.fault}" for sid, each in self._logs.items() if each.fault]
        words += [
            f"session {sid[:8]}: no certificate: {why}" for sid, why in self._certificates.faults.items()
        ]
        words += [
            f"session {sid[:8]}: {fault}" for sid, each in self._uploads.items() for fault in each.faults()
        ]
        for order in self._orders:
            if order.state == "ended" and self._row(order.sid) is None:
                words.append(f"session {order.sid[:8]}: it was ended before anything was recorded")
        if self._foreign:
            words.append(f"{self._foreign} upload grants were refused: not signed by this room's controller")
        return words

    def _send_checkpoint(self, sid: str, now_mono_ns: int) -> None:
        newest = self._view.newest_fragment(sid)  # read before the leaves, so that they cover it
        message = self._log(sid).next_message(now_mono_ns)
        if message is None:
            return
        if len(message.leaves) < MAX_LEAVES:  # otherwise it is a piece of more, and covers less
            covers = self._covers.setdefault(sid, {})
            covers[message.first_index + len(message.leaves)] = 0 if newest is None else newest.time_90k_end
            while len(covers) > MOST_UNANSWERED:
                del covers[min(covers)]
        self._publish(FromNode.CHECKPOINT, encode(message))

    def _certify(self, order: OrderedSession, row: SessionRow) -> None:
        sid = order.sid
        if self._certificates.manifest(sid) is not None:
            return
        if row.ended is not None and not self._trust.certificates.valid_at(parse_utc(row.ended)):
            # What is made now would be made for good, and nobody would believe it.
            self._certificates.faults[sid] = NOT_VALID
            return
        if self._certificates.faults.get(sid) == NOT_VALID:
            del self._certificates.faults[sid]
        spans = self._spans(sid)
        self._certificates.certify(sid, self._policy(order), self._ledger.witness(sid), spans)

    def _send_manifest(self, sid: str, now_mono_ns: int) -> None:
        manifest = self._certificates.manifest(sid)
        if manifest is None or not self._republisher.due(sid, now_mono_ns):
            return
        certificate = self._certificates.desk_half(sid)
        message = ManifestMessage(sid=sid, manifest=manifest.decode("ascii"), certificate=certificate)
        payload = encode(message)
        if len(payload) > MAX_MESSAGE_BYTES:
            self._certificates.faults[sid] = (
                f"the manifest has {len(payload)} bytes, more than a message may have"
            )
            return
        self._publish(FromNode.MANIFEST, payload)

    def _ask_for_grants(self, order: OrderedSession, now_mono_ns: int) -> None:
        upload = self._upload(order)
        request = None if upload is None else upload.step(now_mono_ns)
        if request is not None:
            self._publish(FromNode.GRANT_REQUEST, encode(request))

    def _log(self, sid: str) -> SessionLog:
        if sid not in self._logs:
            witness = self._ledger.witness(sid)
            self._logs[sid] = SessionLog(
                sid,
                self._config.desk,
                self._trust.device_key,
                self._trust.controller_key,
                self._view,
                0 if witness is None else witness.size,
            )
        return self._logs[sid]

    def _upload(self, order: OrderedSession) -> Upload | None:
        sid = order.sid
        if sid in self._uploads:
            return self._uploads[sid]
        approval, manifest = self._ledger.approval(sid), self._certificates.manifest(sid)
        if approval is None or manifest is None:
            self._certificates.faults[sid] = (
                "it is released, but its approval or manifest is gone from this desk"
            )
            return None
        files = session_files(self._view, sid, approval, manifest, self._alive)
        objects = [(item.facts.name, item.facts.size_bytes, item.facts.sha256) for item in files]
        self._ledger.set_uploads(sid, objects)
        # Looked at again at each start: somebody may have put the file right meanwhile.
        fitting = {item.facts.name: item for item in files}
        looked_at: dict[str, Unfit | None] = {}
        for row in self._ledger.uploads(sid):
            if row.state == "quarantined" and row.name in fitting:
                item = fitting[row.name]
                looked_at[row.name] = item.problem or unfit(item.content, item.facts)
                self._alive()
        set_aside = {name: problem for name, problem in looked_at.items() if problem}
        upload = Upload(self._config.room, self._config.desk, sid, self._policy(order), files, set_aside)
        self._keep(sid, [Change(name, "waiting") for name, problem in looked_at.items() if not problem])
        self._keep(
            sid, [Change(name, "quarantined", problem.reason) for name, problem in upload.set_aside.items()]
        )
        self._uploads[sid] = upload
        return upload

    def _keep(self, sid: str, changes: list[Change]) -> None:
        if not changes:
            return
        with self._ledger.transaction():
            for change in changes:
                self._ledger.set_upload(
                    sid, change.name, change.state, change.reason, attempted=change.attempted
                )

    def _note_witnessed_time(self, sid: str, size: int) -> None:
        covers = self._covers.get(sid, {})
        until_90k = covers.get(size)
        if until_90k is None:  # of a life before this one, or a piece of what is still to come
            return
        self._covers[sid] = {other: until for other, until in covers.items() if other > size}
        before_90k = int(self._ledger.get(f"witnessed_until:{sid}") or 0)
        spans = self._spans(sid)
        now_spans = unwitnessed_span(spans, before_90k, until_90k)
        if now_spans != spans:
            self._ledger.set(f"unwitnessed:{sid}", json.dumps(now_spans))
        if until_90k > before_90k:
            self._ledger.set(f"witnessed_until:{sid}", str(until_90k))

    def _spans(self, sid: str) -> list[tuple[int, int]]:
        return [
            (int(start), int(end))
            for start, end in json.loads(self._ledger.get(f"unwitnessed:{sid}") or "[]")
        ]

    def _policy(self, order: OrderedSession) -> ExamPolicy:
        if order.sid not in self._policies:
            start = StartSession.model_validate(order.start_command)
            self._policies[order.sid] = verify_policy(start.policy, self._trust.root_key)
        return self._policies[order.sid]

    def _row(self, sid: str) -> SessionRow | None:
        recorded = self._ended.get(sid)
        return recorded.row if recorded is not None else self._view.session(sid)

    def _recorded(self, sid: str) -> _Recorded | None:
        if sid in self._ended:
            return self._ended[sid]
        row = self._view.session(sid)
        if row is None:
            return None
        newest = self._view.newest_fragment(sid)
        duration_90k = 0 if newest is None else newest.time_90k_end
        gaps = tuple(self._view.gaps(sid))
        recorded = _Recorded(row, self._view.totals(sid), duration_90k, self._view.leaf_count(sid), gaps)
        if row.ended is not None:
            self._ended[sid] = recorded
        return recorded

    def _facts(self, order: OrderedSession) -> SessionFacts:
        recorded = self._recorded(order.sid)
        witness = self._ledger.witness(order.sid)
        uploads = self._ledger.uploads(order.sid) if order.state in ("released", "synced") else []
        upload = self._uploads.get(order.sid)
        there = len(upload.there) if upload is not None else sum(row.state == "there" for row in uploads)
        return SessionFacts(
            order=order,
            row=None if recorded is None else recorded.row,
            totals=Totals(0, 0) if recorded is None else recorded.totals,
            duration_90k=0 if recorded is None else recorded.duration_90k,
            leaves=0 if recorded is None else recorded.leaves,
            witnessed=0 if witness is None else witness.size,
            gaps=() if recorded is None else recorded.gaps,
            manifest_sha256=self._certificates.sha256(order.sid),
            objects_total=len(uploads),
            objects_there=len(uploads) if order.state == "synced" else there,
            sending=upload is not None and bool(upload.round_number),
            set_aside=[f"{row.name}: {row.reason}" for row in uploads if row.state == "quarantined"],
            damaged=() if upload is None else upload.damaged(),
        )
