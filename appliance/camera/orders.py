"""What the room ordered, as the camera process obeys it: verified again here, since here is where it records. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from appliance.clock import Clock, boot_id, parse_utc, utc_text
from appliance.config import NodeConfig
from appliance.errors import BadInput, Refused
from appliance.policy import ExamPolicy, first_problem, verify_policy
from appliance.protocol import StartSession
from appliance.store.ledger import OrderedSession
from appliance.store.recording import NewSession
from appliance.store.space import required_bytes


@dataclass(frozen=True)
class RecordingOrder:
    """A session to record and the policy that allows it."""

    start: StartSession
    policy: ExamPolicy

    @classmethod
    def read(cls, order: OrderedSession, root_key: Ed25519PublicKey) -> RecordingOrder:
        """BadInput or NotTrusted for an order that is none, Refused where the policy records no video."""
        try:
            start = StartSession.model_validate(order.start_command)
        except ValidationError as error:
            raise BadInput(
                f"order of session {order.sid}: {first_problem(error)}", "begin a new session"
            ) from error
        policy = verify_policy(start.policy, root_key)
        if not policy.record_video:
            raise Refused(
                "the policy records no video", "nothing is recorded that the institution did not turn on"
            )
        return cls(start, policy)

    def footage_bytes(self, already_s: float = 0.0) -> int:
        """To reserve for what is left of the planned duration after `already_s`."""
        left_s = min(max(0.0, self.policy.duration_s - already_s), self.policy.duration_s)
        return required_bytes(math.ceil(left_s), self.policy.video.bitrate_bps)

    def new_session(self, config: NodeConfig, clock: Clock, recipient_set_version: int) -> NewSession:
        """The session as it begins now."""
        return NewSession(
            sid=self.start.sid,
            candidate_code=self.start.candidate_code,
            exam=self.policy.exam,
            institution=self.policy.institution,
            policy_id=self.policy.id,
            policy_version=self.policy.version,
            retain_until=self.policy.retention_end.isoformat(),
            started=utc_text(clock.wall()),
            started_mono_ns=clock.mono_ns(),
            boot_id=boot_id(),
            room=config.room,
            desk=config.desk,
            recipient_set_version=recipient_set_version,
        )


def ordered_end(order: OrderedSession) -> str | None:
    """UTC text of the ordered end; None while the session is to go on. BadInput where the order has no time."""
    if order.end_command is None:
        return None
    try:
        return utc_text(parse_utc(str(order.end_command["ended_at"])))
    except (KeyError, ValueError) as error:
        raise BadInput(f"order to end session {order.sid} has no time", "end it again") from error
