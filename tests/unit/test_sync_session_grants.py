"""Nothing leaves before the release, and then only to where the controller's grants may send it."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.protocol import FromNode, GrantRequest, Hold
from tests.syncing_desk import Setup, approval, setup
from tests.unit.test_store_builders import SID

__all__ = ["setup"]


def test_nothing_leaves_before_the_release(setup: Setup) -> None:
    """F122: no request, no byte, even for grants that the controller signed; the control is the release itself."""
    manifest = setup.certify()
    question = GrantRequest(sid=SID, number=1, objects=(setup.segment_facts(),))
    unasked = setup.grants(question)
    setup.give(unasked)
    assert setup.node.only(FromNode.GRANT_REQUEST, 100) == []
    assert setup.node.take(Hold(sid=SID, reason="talk first"))
    setup.give(unasked)
    assert setup.node.only(FromNode.GRANT_REQUEST, 100) == []
    setup.settle()
    assert (setup.node.sender.sent_bytes, setup.bucket.requests) == (0, [])
    assert setup.node.take(approval(manifest))
    setup.give(setup.grants(question, number=setup.request().number))
    setup.settle()
    assert [request.url.path for request in setup.bucket.requests] == ["/exams/0-video-0.evf"]


def test_an_answer_to_an_older_question_sends_nothing_again(setup: Setup) -> None:
    """The room was slow, the desk asked twice; the first answer to come served. The other one knows of no file."""
    setup.release()
    first = setup.request()
    again = setup.request()
    late = setup.grants(first)
    setup.give(setup.grants(again))
    setup.node.finish_puts(3)
    setup.settle()
    served = len(setup.bucket.requests)
    setup.request()
    setup.give(late)
    setup.settle()
    assert len(setup.bucket.requests) == served > 0


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://s3.us-east-1.storage.example",
        "http://s3.eu-west-1.storage.example",
        "https://s3.eu-west-1.storage.example:8443",
        "https://s3.eu-west-1.storage.example@evil.example",
        "https://s3.eu-west-1.storage.example.evil.example",
        "https://s3.eu-west-1.storage.example\\@evil.example",
        "https://s3.eu-west-1.storage.exa\nmple",
    ],
)
def test_address_outside_the_eu_list_gets_no_byte(setup: Setup, endpoint: str) -> None:
    """F119: one wrong address and nothing of the answer is sent, though the controller signed it."""
    setup.release()
    request = setup.request()
    grants = json.loads(setup.grants(request))["body"]["grants"]
    grants[-1]["url"] = f"{endpoint}/exams/x"
    setup.give(setup.grants(request, grants=grants))
    setup.settle()
    assert (setup.node.sender.sent_bytes, setup.bucket.requests) == (0, [])
    assert any("EU list" in fault or "upload address" in fault for fault in setup.node.sessions.faults())
    setup.give(setup.grants(setup.request()))  # the control: the listed address gets it
    setup.node.finish_puts(3)
    assert setup.node.sender.sent_bytes > 0
    assert setup.node.sessions.faults() == []


def test_grants_of_another_key_desk_or_session_are_not_followed(setup: Setup) -> None:
    setup.release()
    request = setup.request()
    setup.give(setup.grants(request, key=Ed25519PrivateKey.generate()))
    setup.give(setup.grants(request, desk="desk-8"))
    setup.give(setup.grants(request, room="r9"))
    setup.give(setup.grants(request, sid="0" * 32))
    setup.settle()
    assert (setup.node.sender.sent_bytes, setup.bucket.requests) == (0, [])
    assert "not signed by this room's controller" in setup.node.sessions.faults()[0]
    setup.give(setup.grants(request))
    setup.settle()
    assert len(setup.bucket.requests) == 3, "the control: the room's own are followed"


def test_grants_delivered_twice_are_followed_once(setup: Setup) -> None:
    setup.release()
    payload = setup.grants(setup.request())
    setup.give(payload)
    setup.give(payload)
    setup.node.finish_puts(3)
    assert len(setup.bucket.requests) == 3
    assert setup.request(0).sid == SID  # asked again, waits for an answer
    setup.give(payload)
    setup.settle()
    assert len(setup.bucket.requests) == 3


def test_hold_stops_an_upload_under_way(setup: Setup) -> None:
    setup.release()
    payload = setup.grants(setup.request())
    assert setup.node.take(Hold(sid=SID, reason="stop"))
    setup.give(payload)
    setup.settle()
    assert (setup.node.sender.sent_bytes, setup.bucket.requests) == (0, [])
    assert setup.node.only(FromNode.GRANT_REQUEST, 100) == []


def test_lost_answer_is_asked_for_again(setup: Setup) -> None:
    setup.release()
    setup.request()
    assert setup.node.only(FromNode.GRANT_REQUEST, 10) == []
    setup.request(5)
    setup.node.sessions.connection_began()
    setup.request(0)


def test_what_the_room_does_not_grant_is_told(setup: Setup) -> None:
    setup.release()
    request = setup.request()
    setup.give(setup.grants(request, set(), refused={"0-video-0.evf": "its size is not the manifest's"}))
    assert setup.states()["0-video-0.evf"] == "refused"
    assert "granted no upload of 0-video-0.evf" in setup.node.sessions.faults()[0]
