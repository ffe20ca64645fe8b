"""The institution's signed policy: everything off by default, one signature, a date, a list of storage."""

from __future__ import annotations

import json
import re
import tomllib
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import BadInput, NotTrusted, StorageNotAllowed
from appliance.evf.signed import sign_document
from appliance.policy import ExamPolicy, parse_policy, sign_policy, six_months_after, verify_policy

EMPTY: dict[str, Any] = {
    "id": "stat1-2026",
    "version": 1,
    "institution": "uni",
    "exam": "stat1",
    "exam_title": "Statistics I",
    "authority": "Examination board, 3 November 2026",
    "legal_basis": "public_task",
    "dpa_ref": "DPA-2026-17",
    "exam_date": "2026-11-22",
    "duration_s": 10800,
}
EU = {"endpoint": "https://s3.eu-central-1.example", "region": "eu-central-1", "bucket": "exams"}
ROOT = Ed25519PrivateKey.generate()


def test_empty_policy_records_nothing() -> None:
    """F005: every feature is off unless the policy turns it on."""
    policy = parse_policy(EMPTY)
    assert (policy.record_video, policy.face, policy.gaze, policy.preview) == (False, False, False, False)
    assert policy.voice is False
    assert policy.storage == ()
    assert parse_policy({**EMPTY, "record_video": True}).record_video


@pytest.mark.parametrize("missing", sorted(EMPTY))
def test_every_key_of_an_empty_policy_is_needed(missing: str) -> None:
    """F152: the board that set the rules is one of them."""
    body = {key: value for key, value in EMPTY.items() if key != missing}
    with pytest.raises(BadInput, match=f"^policy: {missing}: field required"):
        parse_policy(body)


def test_unknown_key_is_named() -> None:
    with pytest.raises(BadInput, match=r"^policy: unknown key emotion$") as caught:
        parse_policy({**EMPTY, "emotion": True})
    assert "docs/operations.md" in caught.value.hint


def test_unknown_key_inside_a_table_is_named() -> None:
    with pytest.raises(BadInput, match=r"unknown key video\.codec"):
        parse_policy({**EMPTY, "video": {"codec": "av1"}})


def test_gaze_needs_face() -> None:
    with pytest.raises(BadInput, match="gaze needs face"):
        parse_policy({**EMPTY, "gaze": True})
    assert parse_policy({**EMPTY, "gaze": True, "face": True}).gaze


def test_f031_voices_are_switched_on_by_one_line_and_nonsense_in_it_is_named() -> None:
    """F047: without face, too. There is no switch that would record sound."""
    on = parse_policy({**EMPTY, "voice": True})
    assert (on.voice, on.face, on.record_video, on.levels["voice_nearby"]) == (True, False, False, "yellow")
    for wrong, words in (
        ({"voice": "sometimes"}, "voice: input should be a valid boolean"),
        ({"voice_nearby": True}, "unknown key voice_nearby"),
        ({"record_audio": True}, "unknown key record_audio"),
    ):
        with pytest.raises(BadInput, match=words) as raised:
            parse_policy({**EMPTY, **wrong})
        assert "docs/operations.md" in raised.value.hint


@pytest.mark.parametrize("people", [0, -1, 5, 1.5, "two", "2", True, None])
def test_a_number_of_people_that_makes_no_sense_is_refused_in_one_line(people: Any) -> None:
    with pytest.raises(BadInput, match=r"^policy: expected_people: [^\n]+$"):
        parse_policy({**EMPTY, "face": True, "expected_people": people})


def test_people_are_expected_only_where_faces_are_counted() -> None:
    with pytest.raises(BadInput, match="expected_people needs face to be on: nothing else counts people"):
        parse_policy({**EMPTY, "expected_people": 2})
    policy = parse_policy({**EMPTY, "face": True, "expected_people": 2})
    assert policy.expected_people == 2
    assert verify_policy(json.loads(json.dumps(sign_policy(policy, ROOT))), ROOT.public_key()) == policy


def test_one_person_is_the_policy_that_older_desks_know() -> None:
    """The key is left out of what is signed, and means one."""
    policy = parse_policy({**EMPTY, "face": True, "expected_people": 1})
    assert "expected_people" not in sign_policy(policy, ROOT)["body"]
    assert policy == parse_policy({**EMPTY, "face": True})
    assert policy.expected_people == 1


def test_consent_is_no_legal_basis() -> None:
    """F010."""
    with pytest.raises(BadInput, match="legal_basis"):
        parse_policy({**EMPTY, "legal_basis": "consent"})
    assert parse_policy({**EMPTY, "legal_basis": "public_task"}).legal_basis == "public_task"


def test_policy_is_what_the_institution_signed() -> None:
    policy = parse_policy({**EMPTY, "storage": [EU]})
    document = json.loads(json.dumps(sign_policy(policy, ROOT)))
    assert verify_policy(document, ROOT.public_key()) == policy


def test_a_level_for_a_kind_that_there_is_not_is_named() -> None:
    """F066: a misspelt kind would leave the level as it is, and nobody would know. A desk takes a later version's."""
    ours = parse_policy(EMPTY | {"levels": {"head_turned_away": "green"}})
    assert verify_policy(sign_policy(ours, ROOT), ROOT.public_key()).levels == {"head_turned_away": "green"}
    misspelt = parse_policy(EMPTY | {"levels": {"head_turned_awya": "green"}})
    with pytest.raises(BadInput, match="levels: nothing of the kind head_turned_awya is observed") as refused:
        sign_policy(misspelt, ROOT)
    assert "head_turned_away" in (refused.value.hint or "")


def test_policy_with_a_broken_signature_is_not_trusted() -> None:
    """F003."""
    document = sign_policy(parse_policy(EMPTY), ROOT)
    document["body"]["record_video"] = True
    with pytest.raises(NotTrusted, match="policy: signature does not match") as caught:
        verify_policy(document, ROOT.public_key())
    assert caught.value.hint


def test_policy_signed_by_the_test_centre_is_not_trusted() -> None:
    """F003: a correct signature by any other key."""
    document = sign_policy(parse_policy(EMPTY), Ed25519PrivateKey.generate())
    with pytest.raises(NotTrusted, match="signed by another key"):
        verify_policy(document, ROOT.public_key())


def test_root_signature_for_another_purpose_is_not_trusted() -> None:
    document = sign_document("recipient-set", parse_policy(EMPTY).model_dump(mode="json"), ROOT)
    with pytest.raises(NotTrusted, match="not signed as exam-policy"):
        verify_policy(document, ROOT.public_key())


@pytest.mark.parametrize(
    "document", [{}, [], "policy", None, {"body": 1, "purpose": 2, "key": 3, "signature": 4}]
)
def test_what_is_no_signed_document_is_not_trusted(document: Any) -> None:
    with pytest.raises(NotTrusted):
        verify_policy(document, ROOT.public_key())


@pytest.mark.parametrize(
    ("exam", "expected"),
    [
        (date(2026, 11, 22), date(2027, 5, 22)),
        (date(2026, 8, 31), date(2027, 2, 28)),
        (date(2027, 8, 31), date(2028, 2, 29)),
        (date(2026, 8, 30), date(2027, 2, 28)),
        (date(2026, 3, 31), date(2026, 9, 30)),
        (date(2026, 6, 30), date(2026, 12, 30)),
        (date(2026, 7, 1), date(2027, 1, 1)),
        (date(2028, 2, 29), date(2028, 8, 29)),
    ],
)
def test_recording_is_kept_six_calendar_months(exam: date, expected: date) -> None:
    """F107."""
    policy = parse_policy({**EMPTY, "exam_date": exam})
    assert policy.retention_end == expected


def test_stated_retention_wins() -> None:
    """F107."""
    assert parse_policy({**EMPTY, "retain_until": "2027-01-31"}).retention_end == date(2027, 1, 31)


@given(st.dates(max_value=date(9999, 6, 1)))
def test_six_months_are_the_same_day_or_the_months_last(day: date) -> None:
    later = six_months_after(day)
    assert (later.year * 12 + later.month) - (day.year * 12 + day.month) == 6
    assert later.day == day.day or (later.day < day.day and (later + timedelta(days=1)).day == 1)


def test_storage_on_the_list_is_allowed() -> None:
    policy = parse_policy({**EMPTY, "storage": [EU]})
    policy.require_storage(**EU)
    policy.require_upload_url("https://s3.eu-central-1.example/exams/a?X-Amz-Signature=1")


@pytest.mark.parametrize(
    "change",
    [{"endpoint": "https://s3.us-east-1.example"}, {"region": "us-east-1"}, {"bucket": "other"}],
)
def test_storage_not_on_the_list_is_refused(change: dict[str, str]) -> None:
    """F119: endpoint, region and bucket all count."""
    policy = parse_policy({**EMPTY, "storage": [EU]})
    with pytest.raises(StorageNotAllowed, match="is not on the EU list of policy stat1-2026 v1") as caught:
        policy.require_storage(**{**EU, **change})
    assert caught.value.exit_code == 15
    assert caught.value.hint


def test_policy_without_storage_allows_none() -> None:
    """F119, F005."""
    with pytest.raises(StorageNotAllowed):
        parse_policy(EMPTY).require_storage(**EU)


@pytest.mark.parametrize(
    "url",
    [
        "http://s3.eu-central-1.example/exams/a",
        "https://s3.eu-central-1.example.evil.test/exams/a",
        "https://s3.eu-central-1.example@evil.test/exams/a",
        "https://s3.eu-central-1.example:8443/exams/a",
        "//s3.eu-central-1.example/exams/a",
        "",
    ],
)
def test_upload_address_elsewhere_is_refused(url: str) -> None:
    """F119: the node checks what the controller offers."""
    with pytest.raises(StorageNotAllowed):
        parse_policy({**EMPTY, "storage": [EU]}).require_upload_url(url)


def test_policy_in_the_handbook_is_one() -> None:
    """docs/operations.md, and every key of a policy stands there."""
    text = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text()
    example = next(
        block for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "legal_basis" in block
    )
    assert parse_policy(tomllib.loads(example)).record_video
    assert [
        name for name in ExamPolicy.model_fields if f"`{name}" not in text and f"[{name}]" not in text
    ] == []
