"""What arrives over MQTT: either exactly a message of its kind, or BadInput or NotTrusted; never a crash."""

from __future__ import annotations

import contextlib
import json
from typing import Any, get_args

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.errors import BadInput, NotTrusted
from appliance.evf.canonical import canonical
from appliance.evf.signed import sign_document
from appliance.policy import ExamPolicy, Strict
from appliance.protocol import (
    COMMAND_PURPOSE,
    GRANTS_PURPOSE,
    MAX_MESSAGE_BYTES,
    CheckpointMessage,
    ClockMessage,
    Command,
    ConfirmSynced,
    EndSession,
    FromNode,
    Grant,
    GrantRequest,
    Grants,
    Hold,
    ManifestMessage,
    ObjectFacts,
    ObservationMessage,
    ObservationReport,
    Order,
    Preflight,
    Presence,
    Release,
    Reply,
    SessionPhase,
    SessionReport,
    StartSession,
    Status,
    ToNode,
    Watch,
    WitnessMessage,
    clock_topic,
    decode,
    desk_topic,
    encode,
    object_key,
    sign_message,
    verify_message,
)

KEY = Ed25519PrivateKey.generate()
SID = "0" * 31 + "1"
SHA = "ab" * 32
AT = "2026-11-22T09:00:00.000Z"


def command(order: Any, serial: int = 1) -> Command:
    return Command(room="room-2.14", desk="desk-7", serial=serial, issued=AT, order=order)


ORDERS = [
    StartSession(sid=SID, candidate_code="C-17", policy={"body": {"a": [1, None, "ü"]}}),
    EndSession(sid=SID, reason="time is over"),
    Release(sid=SID, manifest_sha256=SHA, approved_by="ana", approved_at=AT),
    Hold(sid=SID, reason="asked by the board"),
    ConfirmSynced(sid=SID, manifest_sha256=SHA, objects=12),
]
REPORT = ObservationReport(
    kind="gaze_outside_work_area",
    words="looking outside the work area",
    phase="closed",
    start_90k=0,
    end_90k=558000,
    duration_s=6.2,
    level="yellow",
    rule="gaze beyond 30 degrees for 5 s",
    measured={"yaw_deg": 41.5, "frames": 31, "side": "left", "pitch_deg": None},
)
MESSAGES: list[Strict] = [
    Presence(desk="desk-7", boot_id="b", connection=3, state="online"),
    Status(
        desk="desk-7",
        boot_id="b",
        connection=3,
        at=AT,
        preflight=Preflight(ready=False, problems=("clock is not in sync",)),
        camera_open=True,
        light_on=True,
        recording_age_s=None,
        inference_rate_hz=4.9,
        free_bytes=10**11,
        clock_offset_s=-0.002,
        clock_synced=True,
        sessions=(
            SessionReport(
                sid=SID,
                phase=SessionPhase.RECORDING,
                epoch=0,
                fragments=3,
                durable_bytes=9,
                duration_90k=540000,
                leaves=4,
                witnessed=3,
            ),
        ),
    ),
    Reply(serial=1, accepted=False, reason="no space"),
    CheckpointMessage(sid=SID, first_index=0, leaves=("AAAA",), note="n"),
    ObservationMessage(sid=SID, number=1, observation=REPORT),
    ManifestMessage(sid=SID, manifest="{}"),
    GrantRequest(sid=SID, number=1, objects=(ObjectFacts(name="a.evf", size_bytes=1, md5="x", sha256=SHA),)),
    WitnessMessage(sid=SID, size=4, cosignature="c"),
    Watch(mode="still", lease_s=3),
    ClockMessage(at=AT, life="0123456789abcdef"),
    *(command(order) for order in ORDERS),
    Grants(
        room="room-2.14",
        desk="desk-7",
        sid=SID,
        number=1,
        issued=AT,
        grants=(Grant(name="a.evf", url="https://s3.example/a", headers={"Content-MD5": "x"}),),
        refused={"b.evf": "not in the manifest"},
    ),
]
KINDS = sorted({type(message) for message in MESSAGES}, key=lambda kind: kind.__name__)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_message_comes_back_as_it_was(message: Strict) -> None:
    assert decode(type(message), encode(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_message_of_another_version_is_refused(message: Strict) -> None:
    """One key too many, by name."""
    payload = json.dumps({**message.model_dump(mode="json"), "face_id": 1}).encode()
    with pytest.raises(BadInput, match=f"{type(message).__name__}: unknown key face_id"):
        decode(type(message), payload)


@pytest.mark.parametrize("order", ORDERS, ids=lambda o: o.kind)
def test_signed_command_comes_back_as_it_was(order: Any) -> None:
    sent = command(order, serial=41)
    assert (
        verify_message(COMMAND_PURPOSE, Command, sign_message(COMMAND_PURPOSE, sent, KEY), KEY.public_key())
        == sent
    )


def test_command_of_another_controller_is_not_trusted() -> None:
    payload = sign_message(COMMAND_PURPOSE, command(ORDERS[1]), Ed25519PrivateKey.generate())
    with pytest.raises(NotTrusted, match="Command: document is signed by another key"):
        verify_message(COMMAND_PURPOSE, Command, payload, KEY.public_key())


def test_altered_command_is_not_trusted() -> None:
    document = json.loads(sign_message(COMMAND_PURPOSE, command(ORDERS[1]), KEY))
    document["body"]["desk"] = "desk-8"
    with pytest.raises(NotTrusted, match="signature does not match"):
        verify_message(COMMAND_PURPOSE, Command, canonical(document), KEY.public_key())


def test_grants_are_no_command() -> None:
    payload = sign_message(GRANTS_PURPOSE, MESSAGES[-1], KEY)
    with pytest.raises(NotTrusted, match="not signed as command"):
        verify_message(COMMAND_PURPOSE, Command, payload, KEY.public_key())


@pytest.mark.parametrize("serial", [0, -1, 1.5, "one", None])
def test_serial_begins_at_one(serial: Any) -> None:
    body = {**command(ORDERS[1]).model_dump(mode="json"), "serial": serial}
    payload = canonical(sign_document(COMMAND_PURPOSE, body, KEY))
    with pytest.raises(BadInput, match="Command: serial"):
        verify_message(COMMAND_PURPOSE, Command, payload, KEY.public_key())


def test_signed_message_of_another_shape_is_refused() -> None:
    """The right key signed something that this version does not know."""
    payload = canonical(sign_document(COMMAND_PURPOSE, {"order": {"kind": "erase"}}, KEY))
    with pytest.raises(BadInput):
        verify_message(COMMAND_PURPOSE, Command, payload, KEY.public_key())


def test_message_over_the_limit_is_refused_unread() -> None:
    payload = b" " * (MAX_MESSAGE_BYTES + 1)
    with pytest.raises(BadInput, match="over the limit"):
        decode(Reply, payload)
    with pytest.raises(BadInput, match="over the limit"):
        verify_message(COMMAND_PURPOSE, Command, payload, KEY.public_key())


def take(kind: type[Strict], payload: bytes) -> None:
    """Both ways in; only the two named errors may come out."""
    with contextlib.suppress(BadInput):
        decode(kind, payload)
    with pytest.raises((BadInput, NotTrusted)):
        verify_message(COMMAND_PURPOSE, kind, payload, KEY.public_key())


@given(st.sampled_from(KINDS), st.binary(max_size=400))
@example(Command, b"[" * 200_000)
@example(Command, b'{"body":' * 50_000)
@example(Reply, b'{"serial":1e999,"accepted":true}')
@example(Reply, b'{"serial":' + b"9" * 5000 + b',"accepted":true}')
@settings(max_examples=300)
def test_any_bytes_are_refused_by_name(kind: type[Strict], payload: bytes) -> None:
    take(kind, payload)


@given(st.sampled_from(KINDS), ANY_JSON)
@example(Command, {"body": {"a": "\ud800"}, "purpose": "command", "key": "", "signature": ""})
@settings(max_examples=300)
def test_any_json_is_refused_by_name(kind: type[Strict], value: Any) -> None:
    take(kind, json.dumps(value).encode())


@given(
    st.fixed_dictionaries({"body": ANY_JSON, "purpose": ANY_JSON, "key": ANY_JSON, "signature": ANY_JSON}),
    st.sets(st.sampled_from(["purpose", "key", "body"])),
)
@settings(max_examples=300)
def test_any_signed_document_is_refused_by_name(document: dict[str, Any], kept: set[str]) -> None:
    """Parts of a real document, the rest arbitrary; the signature never fits."""
    real = json.loads(sign_message(COMMAND_PURPOSE, command(ORDERS[1]), KEY))
    mixed = {**document, **{name: real[name] for name in kept}}
    with pytest.raises((BadInput, NotTrusted)):
        verify_message(COMMAND_PURPOSE, Command, json.dumps(mixed).encode(), KEY.public_key())


@given(st.sampled_from(MESSAGES), st.data())
@settings(max_examples=300)
def test_message_with_one_value_changed_is_read_or_refused_by_name(
    message: Strict, data: st.DataObject
) -> None:
    body = message.model_dump(mode="json")
    body[data.draw(st.sampled_from(sorted(body)))] = data.draw(ANY_JSON)
    try:
        found = decode(type(message), json.dumps(body).encode())
    except BadInput:
        return
    assert decode(type(message), encode(found)) == found


@pytest.mark.parametrize("name", ["../manifest.json", "a/b", "", ".hidden", "a" * 129, "a\n"])
def test_object_name_cannot_leave_its_folder(name: str) -> None:
    with pytest.raises(BadInput, match="name"):
        decode(ObjectFacts, json.dumps({"name": name, "size_bytes": 1, "md5": "", "sha256": SHA}).encode())


def test_topics_and_places() -> None:
    assert (
        desk_topic("room-2.14", "desk-7", FromNode.GRANT_REQUEST)
        == "invigil/1/room-2.14/desk-7/grant-request"
    )
    assert desk_topic("room-2.14", "desk-7", ToNode.COMMAND) == "invigil/1/room-2.14/desk-7/command"
    assert clock_topic("room-2.14") == "invigil/1/room-2.14/clock"
    assert object_key("uni", "stat1", SID, "a.evf") == f"sessions/uni/stat1/{SID}/a.evf"
    assert object_key("uni", "stat1", SID, "a.0.media.evk") == f"wraps/uni/stat1/{SID}/a.0.media.evk"


def test_a_desk_obeys_five_orders_and_none_scans_a_room_or_speaks_to_a_candidate() -> None:
    """F036, F149: neither is built. Whoever builds one changes this list, and shows here that it is off."""
    [orders, *_] = get_args(Order)
    kinds = {kind.model_fields["kind"].default for kind in get_args(orders)}
    assert kinds == {"start", "end", "release", "hold", "synced"}
    assert {leaf.value for leaf in ToNode} == {"command", "witness", "grants", "watch", "notice"}
    assert get_args(Watch.model_fields["mode"].annotation) == ("still", "live")
    switches = {
        name: field.default for name, field in ExamPolicy.model_fields.items() if field.annotation is bool
    }
    assert "record_video" in switches
    assert not any(switches.values())
    body = {
        "room": "r",
        "desk": "d",
        "serial": 1,
        "issued": AT,
        "order": {"kind": "hold", "sid": SID, "reason": "x"},
    }
    for kind in ("hold", "scan", "nudge"):
        body["order"]["kind"] = kind  # type: ignore[index]
        data = canonical(sign_document(COMMAND_PURPOSE, body, KEY))
        with (
            contextlib.nullcontext() if kind == "hold" else pytest.raises(BadInput)
        ):  # the first is the control
            assert verify_message(COMMAND_PURPOSE, Command, data, KEY.public_key()).order.kind == kind
