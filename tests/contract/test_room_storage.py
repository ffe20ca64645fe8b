"""A real S3 server: a grant admits exactly the bytes it names, and read-back says what is there."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from appliance.errors import StorageUnreachable
from appliance.policy import ExamPolicy, parse_policy
from appliance.protocol import GrantRequest, Grants, ToNode
from appliance.room.grants import MOST_GRANTS, GrantAnswer, answer_request
from appliance.room.storage import Storage
from tests.storages import BUCKET, REGION, S3Server
from tests.unit.test_room_grants import FILES, SID, offered, released
from tests.unit.test_room_kit import make_kit, orders

CONTENT = b"one fragment of video" * 1000
MD5 = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()


def policy_for(server: S3Server) -> ExamPolicy:
    return parse_policy(
        {
            "id": "p", "version": 1, "institution": "uni-x", "exam": "e", "exam_title": "E", "authority": "B",
            "legal_basis": "public_task", "dpa_ref": "D", "exam_date": "2026-11-22", "duration_s": 60,
            "storage": [{"endpoint": server.endpoint, "region": REGION, "bucket": BUCKET}],
        }
    )  # fmt: skip


def storage_of(server: S3Server) -> Storage:
    return Storage(server.config(), policy_for(server))


@pytest.fixture(params=["rclone", "ceph"])
def server(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """Each test runs against both, with an empty bucket."""
    server: S3Server = request.getfixturevalue(request.param)
    yield server
    for key in server.stored_keys():
        server.client().delete_object(Bucket=BUCKET, Key=key)


def put(url: str, content: bytes, headers: dict[str, str]) -> int:
    """A plain PUT with exactly these headers, as a desk sends it."""
    request = httpx.Request("PUT", url, content=content)
    if "Content-Length" in headers:
        del request.headers["Content-Length"]
    request.headers.update(headers)
    with httpx.Client() as client:
        return client.send(request).status_code


def test_the_right_bytes_are_accepted_and_read_back(server: S3Server) -> None:
    storage = storage_of(server)
    assert storage.head("sessions/a/right") is None
    url, headers = storage.grant("sessions/a/right", MD5, len(CONTENT))
    assert put(url, CONTENT, headers) == 200
    found = storage.head("sessions/a/right")
    assert found is not None
    assert (found.size_bytes, found.md5_hex) == (len(CONTENT), hashlib.md5(CONTENT).hexdigest())
    assert storage.present("sessions/a/") == {"sessions/a/right": found}


def test_both_headers_are_signed_in(server: S3Server) -> None:
    url, headers = storage_of(server).grant("sessions/a/signed", MD5, len(CONTENT))
    assert "X-Amz-SignedHeaders=content-length%3Bcontent-md5%3Bhost" in url
    assert set(headers) == {"Content-MD5", "Content-Length"}


def test_wrong_bytes_of_the_same_length_are_refused(server: S3Server) -> None:
    storage = storage_of(server)
    url, headers = storage.grant("sessions/a/wrong", MD5, len(CONTENT))
    wrong = b"X" + CONTENT[1:]
    assert put(url, wrong, headers) == 400
    other_md5 = base64.b64encode(hashlib.md5(wrong).digest()).decode()
    assert put(url, wrong, headers | {"Content-MD5": other_md5}) == 403
    assert storage.head("sessions/a/wrong") is None


def test_a_missing_header_is_refused(server: S3Server) -> None:
    storage = storage_of(server)
    url, headers = storage.grant("sessions/a/bare", MD5, len(CONTENT))
    assert put(url, CONTENT, {"Content-Length": headers["Content-Length"]}) == 403
    assert storage.head("sessions/a/bare") is None


def test_another_length_is_refused(server: S3Server) -> None:
    storage = storage_of(server)
    url, headers = storage.grant("sessions/a/long", MD5, len(CONTENT))
    longer = CONTENT + b"more"
    assert put(url, longer, headers | {"Content-Length": str(len(longer))}) == 403
    assert storage.head("sessions/a/long") is None


def test_another_name_is_refused(server: S3Server) -> None:
    url, headers = storage_of(server).grant("sessions/a/own", MD5, len(CONTENT))
    assert put(url.replace("sessions/a/own", "sessions/a/another"), CONTENT, headers) == 403


def test_a_wrong_key_is_an_alarm_in_words(server: S3Server) -> None:
    with pytest.raises(StorageUnreachable, match="refused") as refused:
        Storage(server.config("wrong-secret"), policy_for(server)).present("sessions/")
    assert "a person must look" in refused.value.hint


def test_storage_that_does_not_answer_is_named(server: S3Server) -> None:
    nowhere = S3Server(server.kind, "http://127.0.0.1:9", server.folder)
    with pytest.raises(StorageUnreachable, match="does not answer"):
        storage_of(nowhere).present("sessions/")


def send(answer: GrantAnswer, contents: dict[str, bytes]) -> list[int]:
    return [put(grant.url, contents[grant.name], grant.headers) for grant in answer.grants]


def test_the_manifest_goes_last_and_then_all_is_there(server: S3Server) -> None:
    """The desk asks, sends, asks again, until every file was read back."""
    session, storage = released(), storage_of(server)
    contents = {**FILES, "approval.json": session.release_bytes, "manifest.json": session.manifest_bytes}
    request = GrantRequest(
        sid=SID, number=1, objects=tuple(offered(name, content) for name, content in contents.items())
    )
    first = answer_request(request, session, storage)
    assert {grant.name for grant in first.grants} == set(contents) - {"manifest.json"}
    assert len(first.grants) <= MOST_GRANTS
    assert send(first, contents) == [200] * 4
    second = answer_request(request, session, storage)
    assert [grant.name for grant in second.grants] == ["manifest.json"]
    assert not second.complete
    assert send(second, contents) == [200]
    third = answer_request(request, session, storage)
    assert (third.complete, third.grants, set(third.present)) == (True, (), set(contents))


def test_a_file_altered_in_the_bucket_is_not_there(server: S3Server) -> None:
    session, storage = released(), storage_of(server)
    name = "video-0-0.evf"
    request = GrantRequest(sid=SID, number=1, objects=(offered(name, FILES[name]),))
    altered = b"SEGMENT ZERO"
    md5 = base64.b64encode(hashlib.md5(altered).digest()).decode()
    url, headers = storage.grant(session.key(name), md5, len(altered))
    assert put(url, altered, headers) == 200
    answer = answer_request(request, session, storage)
    assert (answer.present, [grant.name for grant in answer.grants]) == ((), [name])


def test_nothing_is_granted_before_the_release(server: S3Server, tmp_path: Path) -> None:
    """F122: the same request is refused before the approval and granted after it; then the desk is told."""
    with closing(
        make_kit(tmp_path, storage=({"endpoint": server.endpoint, "region": REGION, "bucket": BUCKET},))
    ) as kit:
        object.__setattr__(kit.room.config, "storage", server.config())
        kit.ready("d1")
        proctor = kit.logged_in("proctor")
        sid = proctor.post("/api/sessions/start", {"desk": "d1", "candidate_code": "C-1"}).json()["sid"]
        kit.hear("d1", kit.status("d1", kit.report(sid)))
        assert proctor.post(f"/api/sessions/{sid}/end").status_code == 200
        manifest = kit.certify("d1", sid)

        def ask(*names: str) -> Grants:
            release = kit.room.database.transact(
                lambda c: c.execute("SELECT release FROM sessions").fetchone()[0]
            )
            contents = {"manifest.json": manifest, "approval.json": release or b""}
            objects = tuple(offered(n, contents[n]) for n in names)
            kit.hear("d1", GrantRequest(sid=sid, number=7, objects=objects))
            payload = [m for _, leaf, m in kit.sent if leaf is ToNode.GRANTS][-1]
            grants = Grants.model_validate(json.loads(payload)["body"])
            assert grants.number == 7
            for grant in grants.grants:
                assert put(grant.url, contents[grant.name], grant.headers) == 200
            return grants

        before = ask("manifest.json")
        assert before.grants == ()
        assert before.refused == {"manifest.json": "the session is not released"}
        assert proctor.post(f"/api/sessions/{sid}/approve", {"accept_gaps": True}).status_code == 200
        both = ("approval.json", "manifest.json")
        assert [grant.name for grant in ask(*both).grants] == ["approval.json"]
        assert [grant.name for grant in ask(*both).grants] == ["manifest.json"]
        assert "synced" not in [o["order"]["kind"] for o in orders(kit, "d1")]
        assert set(ask(*both).present) == set(both)
        last = orders(kit, "d1")[-1]["order"]
        assert (last["kind"], last["objects"]) == ("synced", 2)
        assert proctor.get("/api/room").json()["sessions"][0]["state"] == "synced"
