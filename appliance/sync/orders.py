"""The room's signed orders: checked, obeyed once, and answered. The truth of what was ordered is ledger.db.

A serial, what it ordered and the answer become durable together, so that a repeat gets the same answer and no effect.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from appliance.clock import Clock, parse_utc, utc_text
from appliance.config import NodeConfig
from appliance.errors import ApplianceError, BadInput, ClockNotSynced, NotTrusted, Refused, StoreFailed
from appliance.evf.errors import EvfError
from appliance.evf.recipients import RecipientSet, verify_recipient_set
from appliance.policy import ExamPolicy, verify_policy
from appliance.protocol import (
    COMMAND_PURPOSE,
    Command,
    ConfirmSynced,
    EndSession,
    Hold,
    Release,
    Reply,
    StartSession,
    verify_message,
)
from appliance.store.ledger import Ledger
from appliance.store.space import FIXED_BYTES, require_space, required_bytes
from appliance.store.view import RecordingView
from appliance.sync.room_clock import MAX_OFFSET_S, ClockReading
from appliance.sync.trust import DeskTrust
from appliance.trust import load_document

log = logging.getLogger(__name__)

KEPT_REPLIES = 64  # the controller has one command of a desk under way at a time
# The controller repeats an order every 2 s while somebody waits for it; one that lay at the broker for longer than
# this must not switch a camera on after everybody has left (F009).
START_VALID_S = 120.0
# An exam day in the EU begins at 21:00 UTC of the day before (UTC+3) and ends at 01:00 UTC of the next (UTC-1).
DAY_BEGINS_EARLIER = timedelta(hours=3)
DAY_ENDS_LATER = timedelta(hours=1)

_REPLIES = "replies"
Effect = Callable[[], None]


@dataclass(frozen=True)
class DeskFacts:
    """What an order is judged by, besides the two databases; `camera_problem` in words or None."""

    clock: ClockReading
    camera_problem: str | None


class Orders:
    """Main thread only. `manifest_sha256(sid)` is None until the session is certified."""

    def __init__(
        self,
        config: NodeConfig,
        trust: DeskTrust,
        ledger: Ledger,
        view: RecordingView,
        clock: Clock,
        manifest_sha256: Callable[[str], str | None],
    ) -> None:
        self._config = config
        self._trust = trust
        self._ledger = ledger
        self._view = view
        self._clock = clock
        self._manifest_sha256 = manifest_sha256
        self.foreign = 0
        # In words, while the disk refuses to keep an order that the room will therefore say again.
        self.waiting = ""
        # Refusals that the disk did not keep either: the room goes by them, whatever comes a second time.
        self._unkept: dict[int, Reply] = {}

    def take(self, payload: bytes, facts: DeskFacts) -> Reply | None:
        """The answer to one command; None for what is not this room's word to this desk, which is only counted, and
        for what the disk did not keep, so that the room says it again."""
        try:
            command = verify_message(COMMAND_PURPOSE, Command, payload, self._trust.controller_key)
            if (command.room, command.desk) != (self._config.room, self._config.desk):
                raise NotTrusted("the command is for another room or desk", "")
        except (NotTrusted, BadInput) as error:
            self.foreign += 1
            log.error("order.foreign reason=%s", error)
            return None
        answered = self._replies()
        for reply in (*self._unkept.values(), *answered):
            if reply.serial == command.serial:
                return reply
        newest = self._ledger.last_serial()
        if command.serial <= newest:
            return _refusal(command.serial, f"serial {command.serial} is not newer than {newest}")
        return self._decide(command, payload, facts, answered)

    def preflight_problems(self, facts: DeskFacts) -> tuple[str, ...]:
        """Why no exam could start here, in words; the room for one exam is checked when its policy is known."""
        problems: list[str] = []
        if not facts.clock.synced:
            problems.append(_clock_words(facts.clock))
        if facts.camera_problem is not None:
            problems.append(facts.camera_problem)
        try:
            self._recipient_set()
        except (ApplianceError, EvfError) as error:
            problems.append(str(error))
        return tuple(problems)

    def _decide(
        self, command: Command, payload: bytes, facts: DeskFacts, answered: list[Reply]
    ) -> Reply | None:
        order = command.order
        try:
            match order:
                case StartSession():
                    effect = self._start(order, command, facts)
                case EndSession():
                    effect = self._end(order, command)
                case Release():
                    effect = self._release(order, payload)
                case Hold():
                    effect = self._hold(order)
                case ConfirmSynced():
                    effect = self._synced(order)
            reply = Reply(serial=command.serial, accepted=True)
        except (ApplianceError, EvfError) as error:
            reply, effect = _refusal(command.serial, _words(error)), _nothing
        try:
            with self._ledger.transaction():
                self._ledger.accept_serial(command.serial)
                effect()
                kept = [*answered, reply][-KEPT_REPLIES:]
                self._ledger.set(_REPLIES, json.dumps([each.model_dump() for each in kept]))
        except StoreFailed as error:
            return self._not_kept(command, reply, error)
        self.waiting = ""
        log.info(
            "order.%s kind=%s serial=%d",
            "obeyed" if reply.accepted else "refused",
            order.kind,
            command.serial,
        )
        return reply

    def _not_kept(self, command: Command, reply: Reply, error: StoreFailed) -> Reply | None:
        """Whoever starts an exam waits for the answer, and a refusal stays one. Anything else must be obeyed at last:
        a session whose end was refused would record for ever."""
        log.warning("order.not_kept kind=%s serial=%d reason=%s", command.order.kind, command.serial, error)
        if reply.accepted and not isinstance(command.order, StartSession):
            self.waiting = f"an order of the room waits: {error}"
            return None
        kept = reply if not reply.accepted else _refusal(command.serial, _words(error))
        self._unkept[command.serial] = kept
        return kept

    def _start(self, order: StartSession, command: Command, facts: DeskFacts) -> Effect:
        policy = verify_policy(order.policy, self._trust.root_key)
        known = self._ledger.order(order.sid)
        if known is not None:
            if known.state == "ordered" and known.start_command == order.model_dump(mode="json"):
                return _nothing
            raise Refused("this session was already ordered at this desk", "begin a new session")
        active, wanted = self._view.active_session(), self._ledger.wanted_session()
        if active is not None or wanted is not None:
            raise Refused("another session is still recording at this desk", "end it first")
        self._require_policy_fits(policy)
        if not facts.clock.synced:
            raise ClockNotSynced(
                _clock_words(facts.clock), "wait for the room's clock or look at the network"
            )
        age_s = (self._clock.wall() - parse_utc(command.issued)).total_seconds()
        if abs(age_s) > START_VALID_S:
            raise Refused(f"the order to start is {age_s:.0f} s old", "start the session again")
        recipients = self._recipient_set()
        if facts.camera_problem is not None:
            raise Refused(facts.camera_problem, "look at the camera and its cable, or use a spare desk")
        footage_bytes = required_bytes(policy.duration_s, policy.video.bitrate_bps)
        require_space(self._config.store, footage_bytes + FIXED_BYTES)

        def effect() -> None:
            self._ledger.accept_recipient_set_version(recipients.version)
            self._ledger.order_start(order.sid, self._config.desk, order.model_dump(mode="json"))

        return effect

    def _require_policy_fits(self, policy: ExamPolicy) -> None:
        if policy.institution != self._config.institution:
            raise Refused(
                f"the policy is of institution {policy.institution}", "this desk serves another one"
            )
        if not policy.record_video:
            raise Refused(
                "the policy records no video", "nothing is recorded that the institution did not turn on"
            )
        day = datetime.combine(policy.exam_date, time(), UTC)
        now = self._clock.wall()
        ends = day + timedelta(days=1, seconds=policy.duration_s) + DAY_ENDS_LATER
        if not day - DAY_BEGINS_EARLIER <= now < ends:
            raise Refused(
                f"the exam of this policy is on {policy.exam_date.isoformat()}",
                "use the policy of today's exam",
            )
        if policy.retention_end <= now.date():
            raise Refused(
                "the policy's retention date has passed", "ask the institution for a policy that is in force"
            )

    def _recipient_set(self) -> RecipientSet:
        document = load_document(self._trust.recipient_set)
        recipients = verify_recipient_set(
            document, self._trust.root_key, self._ledger.recipient_set_version()
        )
        if recipients.institution != self._config.institution:
            raise NotTrusted("the recipient set is another institution's", "provision this desk again")
        # seen is enough: an older one is refused from now on, also by a desk that never recorded for this one
        if recipients.version > self._ledger.recipient_set_version():
            self._ledger.accept_recipient_set_version(recipients.version)
        return recipients

    def _end(self, order: EndSession, command: Command) -> Effect:
        self._require_known(order.sid)
        ended = {
            **order.model_dump(mode="json"),
            "issued": command.issued,
            "ended_at": utc_text(self._clock.wall()),
        }
        return lambda: self._ledger.order_end(order.sid, ended)

    def _release(self, order: Release, payload: bytes) -> Effect:
        state = self._require_certified(order.sid, order.manifest_sha256)
        if state == "synced":
            return _nothing
        if order.sid in self._view.purged():
            raise Refused(
                "the recording was removed on the policy's retention date", "nothing is left to release"
            )

        def effect() -> None:
            self._ledger.set_approval(order.sid, json.loads(payload))
            self._ledger.set_state(order.sid, "released")

        return effect

    def _hold(self, order: Hold) -> Effect:
        state = self._require_certified(order.sid, None)
        if state == "synced":
            raise Refused("the recording is already at the institution's storage", "ask the institution")
        return lambda: self._ledger.set_state(order.sid, "held", order.reason)

    def _synced(self, order: ConfirmSynced) -> Effect:
        state = self._require_certified(order.sid, order.manifest_sha256)
        if state == "synced":
            return _nothing
        if state != "released":
            raise Refused("the session is not released", "approve it first")
        objects = len(self._ledger.uploads(order.sid))
        if order.objects != objects:
            raise Refused(
                f"the storage has {order.objects} objects, the session {objects}", "read the storage again"
            )
        return lambda: self._ledger.set_synced(order.sid, utc_text(self._clock.wall()))

    def _require_known(self, sid: str) -> str:
        known = self._ledger.order(sid)
        if known is None:
            raise Refused(
                "this session was never ordered at this desk", "look for it at the desk that recorded it"
            )
        return known.state

    def _require_certified(self, sid: str, manifest_sha256: str | None) -> str:
        """The state; `manifest_sha256` must be exactly our own manifest's, None asks only that there is one."""
        state = self._require_known(sid)
        ours = self._manifest_sha256(sid)
        if ours is None:
            raise Refused("the session is not certified yet", "wait for its certificate")
        if manifest_sha256 not in (None, ours):
            raise Refused(
                "the order names another manifest than this desk's", "look at the certificate again"
            )
        if state == "discarded":
            raise Refused("the session was discarded", "")
        return state

    def _replies(self) -> list[Reply]:
        return [Reply.model_validate(item) for item in json.loads(self._ledger.get(_REPLIES) or "[]")]


def _nothing() -> None:
    """The effect of an order that is already obeyed, or refused."""


def _refusal(serial: int, reason: str) -> Reply:
    return Reply(serial=serial, accepted=False, reason=reason)


def _words(error: ApplianceError | EvfError) -> str:
    return f"{error}; {error.hint}" if error.hint else str(error)


def _clock_words(reading: ClockReading) -> str:
    if reading.offset_s is None:
        return "this desk has not heard the room's clock"
    if abs(reading.offset_s) >= MAX_OFFSET_S:
        side = "behind" if reading.offset_s > 0 else "ahead of"
        return f"the clock is {abs(reading.offset_s):.1f} s {side} the room's"
    return "this desk has not heard the room's clock for half a minute"
