"""The institution's signed exam policy: what may be recorded, looked for, kept and where it may go.

Everything is off unless the policy turns it on (F005). The document is signed by the institution's root key; room and
node verify it alike (F003).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from appliance.errors import BadInput, NotTrusted, StorageNotAllowed
from appliance.evf.errors import EvfError
from appliance.evf.signed import sign_document, verify_document

PURPOSE = "exam-policy"
Level = Literal["green", "yellow", "red"]
Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

DEFAULT_LEVELS: dict[str, Level] = {
    "nobody_at_desk": "red",
    "several_people": "red",
    "head_turned_away": "yellow",
    "gaze_outside_work_area": "yellow",
    "voice_nearby": "yellow",
}

# A candidate, a reader, a scribe and one more; beyond that it is no desk.
MOST_PEOPLE = 4
# What may be taken away or widened for one seat: a code for what the software does, never for why (F026).
Accommodation = Literal[
    "breaks_free",
    "gaze_wide",
    "head_tic",
    "human_only",
    "no_gaze",
    "posture_free",
    "reader_voice",
    "second_person_ok",
]
Accommodations = Annotated[tuple[Accommodation, ...], AfterValidator(lambda codes: tuple(sorted(set(codes))))]
ACCOMMODATIONS: tuple[Accommodation, ...] = get_args(Accommodation)
# For staff and for the recording's own log.
ACCOMMODATION_WORDS: dict[Accommodation, str] = {
    "breaks_free": "an empty seat raises no level",
    "gaze_wide": "wider limits for looking aside",
    "head_tic": "head and eye movements that return count for nothing",
    "human_only": "no model looks, people only; it is recorded",
    "no_gaze": "the direction of the eyes is not read",
    "posture_free": "a turned head is not observed",
    "reader_voice": "a voice that reads aloud is expected",
    "second_person_ok": "a second person may be in view",
}


class Strict(BaseModel):
    """Base of everything read from outside: unknown keys are refused, values never change."""

    # Only a string of a bounded length is looked at for half a surrogate pair, which no encoder takes later.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=2**24)


class Storage(Strict):
    """One place in the EU that the institution allows its recordings to go to (F119-F121)."""

    endpoint: str = Field(pattern=r"^https?://[^/\s]+$")
    region: str
    bucket: str


class Video(Strict):
    """Picture settings of the recording."""

    width_px: int = Field(default=1280, ge=160, le=3840)
    height_px: int = Field(default=720, ge=120, le=2160)
    frame_rate_hz: int = Field(default=15, ge=1, le=60)
    bitrate_bps: int = Field(default=1_200_000, ge=50_000, le=20_000_000)


class ExamPolicy(Strict):
    """One exam's processing policy; immutable, a change is a new version for later exams (F110)."""

    id: Code
    version: int = Field(ge=1)
    institution: Code
    exam: Code
    exam_title: str = Field(max_length=120)
    authority: str = Field(description="the board that set the rules (F152)", max_length=200)
    legal_basis: Literal["public_task", "legal_obligation", "legitimate_interest"]
    dpa_ref: str = Field(min_length=1, max_length=200)
    exam_date: date
    duration_s: int = Field(ge=10, le=24 * 3600)
    retain_until: date | None = None
    record_video: bool = False
    face: bool = False
    gaze: bool = False
    voice: bool = False
    preview: bool = False
    # Left out where there is one, so that older desks understand; one that does not know it refuses the policy.
    expected_people: int = Field(
        default=1, ge=1, le=MOST_PEOPLE, strict=True, exclude_if=lambda people: people == 1
    )
    video: Video = Video()
    levels: dict[str, Level] = DEFAULT_LEVELS
    storage: tuple[Storage, ...] = ()
    purge_after_h: int = Field(default=24, ge=0)

    @model_validator(mode="after")
    def _needs_face(self) -> ExamPolicy:
        if self.gaze and not self.face:
            raise ValueError("gaze needs face to be on")
        if self.expected_people > 1 and not self.face:
            raise ValueError("expected_people needs face to be on: nothing else counts people")
        return self

    @property
    def retention_end(self) -> date:
        """The day from which the recording may no longer exist; six months after the exam unless stated (F107)."""
        return self.retain_until or six_months_after(self.exam_date)

    def for_seat(self, accommodations: Collection[Accommodation]) -> ExamPolicy:
        """What is left of face, gaze and voice at one seat; never more than the policy turned on (F042, F133)."""
        face = self.face and "human_only" not in accommodations
        return self.model_copy(
            update={
                "face": face,
                "gaze": self.gaze and face and "no_gaze" not in accommodations,
                "voice": self.voice and not {"human_only", "reader_voice"} & set(accommodations),
            }
        )

    def require_storage(self, endpoint: str, region: str, bucket: str) -> None:
        """Refuse any storage that the policy does not list, before a byte is sent (F119)."""
        if not any((s.endpoint, s.region, s.bucket) == (endpoint, region, bucket) for s in self.storage):
            raise StorageNotAllowed(
                f"storage {endpoint} ({region}, bucket {bucket}) is not on the EU list of policy"
                f" {self.id} v{self.version}",
                "ask the institution for a policy that lists it, or correct [storage] in room.toml",
            )

    def require_upload_url(self, url: str) -> None:
        """Refuse a grant whose address is not at one of the listed endpoints (checked on the node)."""
        parts = urlsplit(url)
        if f"{parts.scheme}://{parts.netloc}" not in {s.endpoint for s in self.storage}:
            raise StorageNotAllowed(
                f"upload address {parts.scheme}://{parts.netloc} is not on the EU list of policy"
                f" {self.id} v{self.version}",
                "the room controller offered storage that the institution did not allow; nothing was sent",
            )


def six_months_after(day: date) -> date:
    """Calendar-correct: 31 August gives the last day of February."""
    year, month0 = divmod(day.year * 12 + day.month - 1 + 6, 12)
    for last in (day.day, 30, 29, 28):
        try:
            return date(year, month0 + 1, last)
        except ValueError:
            continue
    raise AssertionError("every month has 28 days")


def parse_policy(body: Mapping[str, Any]) -> ExamPolicy:
    """Validate a policy body (from TOML or a signed document)."""
    try:
        return ExamPolicy.model_validate(body)
    except ValidationError as error:
        raise BadInput(
            f"policy: {first_problem(error)}", "see docs/operations.md for the keys of a policy"
        ) from error


def sign_policy(policy: ExamPolicy, root_key: Ed25519PrivateKey) -> dict[str, Any]:
    """The signed document that room and nodes accept; raises BadInput for a level of no kind there is.

    Desks do not ask that: the policy of a later version may know more kinds.
    """
    unknown = sorted(set(policy.levels) - set(DEFAULT_LEVELS))
    if unknown:
        raise BadInput(
            f"policy: levels: nothing of the kind {unknown[0]} is observed",
            f"kinds: {', '.join(DEFAULT_LEVELS)}",
        )
    return sign_document(PURPOSE, policy.model_dump(mode="json"), root_key)


def verify_policy(document: Mapping[str, Any], root_public_key: Ed25519PublicKey) -> ExamPolicy:
    """The policy inside a document, if the institution's root key signed it; raises NotTrusted."""
    try:
        body = verify_document(PURPOSE, document, root_public_key)
    except EvfError as error:
        raise NotTrusted(f"policy: {error}", "use a policy signed with the institution's root key") from error
    return parse_policy(body)


def first_problem(error: ValidationError) -> str:
    """One of pydantic's complaints as a line a person can act on: an unknown key before what it leaves missing."""
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"]) or "document"
    if first["type"] == "extra_forbidden":
        return f"unknown key {where}"
    return f"{where}: {first['msg'].lower()}"
