"""The MQTT wire schema between desk nodes and the room controller: topics and messages.

Everything that enters is validated here, unknown keys refused. What tells a node to do something is a signed document
(`appliance.evf.signed`); what a node reports is trusted only as far as its checkpoints prove.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, Field, ValidationError

from appliance.card import Card
from appliance.clock import parse_utc, utc_text
from appliance.errors import BadInput, NotTrusted
from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import EvfError
from appliance.evf.signed import sign_document, verify_document
from appliance.policy import Accommodations, Code, Level, Strict, first_problem

VERSION = 1
MAX_MESSAGE_BYTES = 1 << 20

Sid = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Utc = Annotated[
    str,
    Field(pattern=r"^(19|2\d)\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"),
    AfterValidator(lambda text: utc_text(parse_utc(text))),
]
# What every JSON reader holds exactly (RFC 8259, 6), and SQLite too.
Count = Annotated[int, Field(ge=0, lt=2**53, strict=True)]
# Session time in 90 kHz: a century either way, for a desk whose clock was never set; any `Utc` bears that much more.
Time90k = Annotated[int, Field(ge=-284_018_400_000_000, le=284_018_400_000_000)]
ObjectName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class FromNode(StrEnum):
    """Last topic level of what a node publishes under `invigil/1/<room>/<desk>/`."""

    PRESENCE = "presence"  # retained, QoS 1, also the will
    STATUS = "status"  # retained, QoS 1, once a second and on change
    REPLY = "reply"  # QoS 1, one for each command
    CHECKPOINT = "checkpoint"  # QoS 1
    OBSERVATION = "observation"  # QoS 1, not retained
    MANIFEST = "manifest"  # QoS 1
    GRANT_REQUEST = "grant-request"  # QoS 1
    PREVIEW = "preview"  # QoS 0, raw JPEG, never retained, only under a watch lease


class ToNode(StrEnum):
    """Last topic level of what the controller publishes to one node."""

    COMMAND = "command"  # QoS 1, signed
    WITNESS = "witness"  # QoS 1, answers a checkpoint
    GRANTS = "grants"  # QoS 1, signed
    WATCH = "watch"  # QoS 0, a lease of a few seconds
    NOTICE = "notice"  # QoS 0, what only the room can see of a desk's connection


def desk_topic(room: str, desk: str, leaf: FromNode | ToNode) -> str:
    """Topic of one desk's messages; `desk` is the common name in the node's certificate, which the ACL checks."""
    return f"invigil/{VERSION}/{room}/{desk}/{leaf.value}"


def clock_topic(room: str) -> str:
    """Where the controller says its time every 2 s (QoS 0)."""
    return f"invigil/{VERSION}/{room}/clock"


def object_key(institution: str, exam: str, sid: str, name: str) -> str:
    """Where a session's file lies in the bucket; wraps (.evk) stand apart so that erasing them is one prefix."""
    top = "wraps" if name.endswith(".evk") else "sessions"
    return f"{top}/{institution}/{exam}/{sid}/{name}"


MANIFEST_NAME = "manifest.json"
APPROVAL_NAME = "approval.json"

# --- node -> controller ---------------------------------------------------------------------------------------------


class Presence(Strict):
    """One connection of one boot; a late `lost` of an older connection is ignored."""

    desk: Code
    boot_id: str
    connection: Count
    state: Literal["online", "lost", "stopped"]
    software: str = ""


class GapReport(Strict):
    """A span without footage, in the session's 90 kHz time, with its cause in words."""

    start_90k: Time90k
    end_90k: Time90k
    cause: str


class SessionPhase(StrEnum):
    """What the node itself knows of a session."""

    RECORDING = "recording"
    ENDED = "ended"  # closed on disk, certificate pending
    CERTIFIED = "certified"  # manifest signed and sent, waits for approval
    RELEASED = "released"
    SYNCING = "syncing"
    SYNCED = "synced"
    HELD = "held"


class DamagedFile(Strict):
    """A file that its manifest names, as it lies on the desk now; no `sha256` and no bytes: it cannot be read."""

    name: ObjectName
    size_bytes: Count
    sha256: Sha256 | None


class SessionReport(Strict):
    """Facts from the node's durable index."""

    sid: Sid
    phase: SessionPhase
    epoch: Count
    fragments: Count
    durable_bytes: Count
    duration_90k: Time90k
    leaves: Count
    witnessed: Count = Field(description="leaves that the controller has cosigned")
    gaps: tuple[GapReport, ...] = Field(default=(), description="the newest of them; the manifest names all")
    gap_count: Count = 0
    manifest_sha256: Sha256 | None = None
    objects_total: Count = 0
    objects_there: Count = 0
    set_aside: tuple[str, ...] = Field(default=(), description="what cannot be sent, and why; the first few")
    damaged: tuple[DamagedFile, ...] = Field(default=(), description="the same as it lies on the desk now")


class Preflight(Strict):
    """Whether an exam can start here, and if not, why in words."""

    ready: bool
    problems: tuple[str, ...] = ()


class Status(Strict):
    """A desk's durable facts, once a second. No name, nothing seen."""

    desk: Code
    boot_id: str
    connection: Count
    at: Utc
    preflight: Preflight
    camera_open: bool
    light_on: bool
    recording_age_s: float | None = Field(description="since the newest durable fragment; None when idle")
    inference_rate_hz: float | None = Field(description="None when no model runs")
    free_bytes: Count
    clock_offset_s: float | None
    clock_synced: bool
    faults: tuple[str, ...] = ()
    sessions: tuple[SessionReport, ...] = ()


class Reply(Strict):
    """What became of a command."""

    serial: Count
    accepted: bool
    reason: str = ""


class CheckpointMessage(Strict):
    """New leaves and the signed note that covers them."""

    sid: Sid
    first_index: Count
    leaves: tuple[str, ...] = Field(description="base64 of 32 bytes each", max_length=4096)
    note: str = Field(max_length=4096)


class ObservationReport(Strict):
    """A physical fact with a span, for a human to look at; never a decision."""

    kind: Code
    words: str = Field(max_length=200)
    phase: Literal["opened", "closed"]
    start_90k: Annotated[Time90k, Field(ge=0)]
    end_90k: Time90k | None
    duration_s: float
    level: Level | None
    technical: bool = False
    rule: str = Field(max_length=400)
    measured: dict[str, float | int | str | None]
    uncertainty: str = Field(default="", max_length=200)
    card: Card | None = Field(default=None, description="None: recorded by an older version")


# An epoch's observations are numbered from its own multiple of this: a number never returns in a session, and one
# below the present epoch's belongs to a camera process that is gone.
OBSERVATIONS_PER_EPOCH = 1_000_000


class ObservationMessage(Strict):
    """An observation, once it is durable in the log track; a resend has the same number."""

    sid: Sid
    number: Count
    observation: ObservationReport


class ManifestMessage(Strict):
    """The signed manifest, whole, and the desk's half of the completeness certificate (older desks send none)."""

    sid: Sid
    manifest: str
    certificate: str | None = Field(default=None, max_length=8192)


class ObjectFacts(Strict):
    """One file to upload."""

    name: ObjectName
    size_bytes: Count
    md5: str = Field(description="base64, as Content-MD5 wants it", max_length=24)
    sha256: Sha256


class GrantRequest(Strict):
    """All files of a released session. The node asks again after each round until it is told that all are there."""

    sid: Sid
    number: Count
    objects: tuple[ObjectFacts, ...] = Field(max_length=4096)


# --- controller -> node ---------------------------------------------------------------------------------------------


class StartSession(Strict):
    """Arm and record. The policy inside is the institution's own signed document."""

    kind: Literal["start"] = "start"
    sid: Sid
    candidate_code: Code
    policy: dict[str, Any]
    # Left out where there is none, so that older desks understand; one that does not know them refuses the order.
    accommodations: Accommodations = Field(default=(), exclude_if=lambda codes: not codes)


class EndSession(Strict):
    """Stop recording and close the session."""

    kind: Literal["end"] = "end"
    sid: Sid
    reason: str = Field(default="", max_length=200)


class Release(Strict):
    """The proctor's approval: exactly this manifest may leave the room; what was `damaged` since, as it lies there."""

    kind: Literal["release"] = "release"
    sid: Sid
    manifest_sha256: Sha256
    approved_by: str = Field(max_length=64)
    approved_at: Utc
    damaged: tuple[DamagedFile, ...] = Field(default=(), max_length=4096, exclude_if=lambda files: not files)


class Hold(Strict):
    """The session stays on the node until somebody decides otherwise."""

    kind: Literal["hold"] = "hold"
    sid: Sid
    reason: str = Field(min_length=1, max_length=500)


class ConfirmSynced(Strict):
    """The controller has read back every object's size and digest from the storage."""

    kind: Literal["synced"] = "synced"
    sid: Sid
    manifest_sha256: Sha256
    objects: Count


Order = Annotated[StartSession | EndSession | Release | Hold | ConfirmSynced, Field(discriminator="kind")]


class Command(Strict):
    """Body of a signed command; `serial` only ever grows for one desk."""

    room: Code
    desk: Code
    serial: Annotated[int, Field(ge=1, lt=2**53)]
    issued: Utc
    order: Order


class Grant(Strict):
    """One presigned PUT: this object, these bytes, these headers, until then."""

    name: ObjectName
    url: str
    headers: dict[str, str]


class Grants(Strict):
    """Answer to the GrantRequest of that number, signed: what is there, what may be sent, what was refused why."""

    room: Code
    desk: Code
    sid: Sid
    number: Count
    issued: Utc
    present: tuple[ObjectName, ...] = ()
    grants: tuple[Grant, ...] = ()
    refused: dict[str, str] = Field(default_factory=dict)


class WitnessMessage(Strict):
    """Answer to a checkpoint: cosigned up to `size`, or send again from `size`, or refused for good."""

    sid: Sid
    size: Count
    cosignature: str | None = None
    refused: str | None = None


class Watch(Strict):
    """Somebody looks: send previews until the lease ends. Renewed every second or two while a page is open."""

    mode: Literal["still", "live"]
    lease_s: float = Field(gt=0, le=10)


class Notice(Strict):
    """Two machines were heard under this desk's name. It orders nothing and is not signed."""

    kind: Literal["two_machines"] = "two_machines"


class ClockMessage(Strict):
    """The controller's time, and which life of it says so: a new process or connection has missed what was said."""

    at: Utc
    life: str = Field(pattern=r"^[0-9a-f]{16}$")


COMMAND_PURPOSE = "command"
GRANTS_PURPOSE = "grants"
AnyMessage = TypeVar("AnyMessage", bound=Strict)


def encode(message: Strict) -> bytes:
    """Message -> payload (compact JSON)."""
    return message.model_dump_json().encode()


def decode(kind: type[AnyMessage], payload: bytes) -> AnyMessage:
    """Payload -> message; raises BadInput for anything that is not exactly of this kind."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise BadInput(f"{kind.__name__}: message of {len(payload)} bytes is over the limit", "")
    try:
        return kind.model_validate_json(payload)
    except ValidationError as error:
        raise BadInput(
            f"{kind.__name__}: {first_problem(error)}", "the sender speaks another version"
        ) from error


def sign_message(purpose: str, message: Strict, key: Ed25519PrivateKey) -> bytes:
    """A signed document as payload."""
    return canonical(sign_document(purpose, message.model_dump(mode="json"), key))


def verify_message(
    purpose: str, kind: type[AnyMessage], payload: bytes, public_key: Ed25519PublicKey
) -> AnyMessage:
    """Inverse of `sign_message`; raises NotTrusted or BadInput."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise BadInput(f"{kind.__name__}: message of {len(payload)} bytes is over the limit", "")
    try:
        document = parse_canonical(payload)
    except EvfError as error:
        raise BadInput(f"{kind.__name__}: {error}", "the sender speaks another version") from error
    try:
        body = verify_document(purpose, document, public_key)
    except EvfError as error:
        raise NotTrusted(f"{kind.__name__}: {error}", "only this room's controller may send it") from error
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise BadInput(
            f"{kind.__name__}: {first_problem(error)}", "the sender speaks another version"
        ) from error
