"""What a desk offers is held against the verified manifest before anything is granted."""

from __future__ import annotations

import base64
import hashlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.config import StorageConfig
from appliance.errors import BadConfig, StorageNotAllowed
from appliance.evidence.manifest import Manifest, SegmentEntry, WrapEntry
from appliance.policy import parse_policy
from appliance.protocol import DamagedFile, GrantRequest, ObjectFacts
from appliance.room.grants import GrantAnswer, Released, answer_request, check_objects
from appliance.room.storage import Storage, StoredObject
from tests.unit.test_room_kit import BUCKET, ENDPOINT, REGION, Kit, make_kit, policy_of

SID = "ab" * 16
FILES = {"video-0-0.evf": b"segment zero", "video-0-1.evf": b"segment one", f"{SID}.0.media.evk": b"wrap"}


def offered(name: str, content: bytes, **changes: object) -> ObjectFacts:
    facts: dict[str, object] = {
        "name": name,
        "size_bytes": len(content),
        "md5": base64.b64encode(hashlib.md5(content).digest()).decode(),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return ObjectFacts.model_validate(facts | changes)


def released() -> Released:
    def sha256(name: str) -> str:
        return hashlib.sha256(FILES[name]).hexdigest()

    segments = tuple(
        SegmentEntry(
            name, "video", "media", 0, n, len(FILES[name]), sha256(name), 1, "CLOSED", 0, 1, ((n, 1),)
        )
        for n, name in enumerate(list(FILES)[:2])
    )
    wrap = list(FILES)[2]
    manifest = Manifest(
        institution="uni-x", exam="statistics-1", room="room-214", desk="d1", sid=SID, candidate_code="C-1",
        policy_id="stat-2026", policy_version=3, retain_until="2027-05-22", started="", ended="",
        recipient_set_version=1, segments=segments, wraps=(WrapEntry(wrap, sha256(wrap), len(FILES[wrap])),),
        events=(), gaps=(), lost=(), leaves=2, checkpoint="", cosignature="", chain_pem=(),
    )  # fmt: skip
    return Released(manifest, b"the manifest's bytes", b"the signed release")


def everything() -> list[ObjectFacts]:
    session = released()
    files = {**FILES, "approval.json": session.release_bytes, "manifest.json": session.manifest_bytes}
    return [offered(name, content) for name, content in files.items()]


def check(*objects: ObjectFacts) -> tuple[list[str], dict[str, str]]:
    fitting, refused = check_objects(GrantRequest(sid=SID, number=1, objects=objects), released())
    return [facts.name for facts in fitting], refused


def test_all_files_of_the_session_fit() -> None:
    fitting, refused = check(*everything())
    assert (len(fitting), refused) == (5, {})


def test_wraps_lie_apart_from_segments() -> None:
    session = released()
    assert session.key("video-0-0.evf") == f"sessions/uni-x/statistics-1/{SID}/video-0-0.evf"
    assert session.key(f"{SID}.0.media.evk") == f"wraps/uni-x/statistics-1/{SID}/{SID}.0.media.evk"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (offered("video-0-0.evf", b"other bytes!"), "size or SHA-256"),
        (offered("video-0-0.evf", FILES["video-0-0.evf"], size_bytes=11), "size or SHA-256"),
        (offered("video-0-0.evf", FILES["video-0-0.evf"], md5="bm90IGFuIG1kNQ=="), "MD5 is malformed"),
        (offered("notes.txt", b"more"), "does not name it"),
        (offered("manifest.json", b"another manifest"), "size or SHA-256"),
        (offered("approval.json", b"another release"), "size or SHA-256"),
        (
            offered("manifest.json", b"the manifest's bytes", md5=base64.b64encode(bytes(16)).decode()),
            "own copy",
        ),
    ],
)
def test_what_does_not_match_the_manifest_is_refused(wrong: ObjectFacts, reason: str) -> None:
    fitting, refused = check(wrong)
    assert fitting == []
    assert reason in refused[wrong.name]


def test_a_file_offered_twice_is_granted_once() -> None:
    facts = offered("video-0-0.evf", FILES["video-0-0.evf"])
    fitting, refused = check(facts, facts)
    assert fitting == ["video-0-0.evf"]
    assert "twice" in refused["video-0-0.evf"]


SPOILT = b"segment 0ne!"


class Listed:
    """A bucket that has what is said; everything may be put into it."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects

    def present(self, prefix: str) -> dict[str, StoredObject]:
        return {
            key: StoredObject(len(data), hashlib.md5(data).hexdigest())
            for name, data in self.objects.items()
            if (key := released().key(name)).startswith(prefix)
        }

    def grant(self, key: str, md5_base64: str, size_bytes: int) -> tuple[str, dict[str, str]]:
        return key, {}


def as_damaged(*files: DamagedFile) -> Released:
    return replace(released(), damaged={file.name: file for file in files})


def damaged_segment() -> DamagedFile:
    return DamagedFile(
        name="video-0-1.evf", size_bytes=len(SPOILT), sha256=hashlib.sha256(SPOILT).hexdigest()
    )


@pytest.mark.parametrize(
    ("content", "fits"),
    [
        (SPOILT, True),  # as a person let it go
        (FILES["video-0-1.evf"], True),  # or put right meanwhile
        (b"segment 0ne?", False),  # control: other bytes than those that were looked at
    ],
)
def test_a_damaged_file_leaves_as_it_was_released(content: bytes, fits: bool) -> None:
    session = as_damaged(damaged_segment())
    offer = GrantRequest(sid=SID, number=1, objects=(offered("video-0-1.evf", content),))
    fitting, refused = check_objects(offer, session)
    assert ([facts.name for facts in fitting], list(refused)) == (
        (["video-0-1.evf"], []) if fits else ([], ["video-0-1.evf"])
    )


def test_only_the_file_that_was_released_as_damaged_may_be_so() -> None:
    session = as_damaged(damaged_segment())
    offer = GrantRequest(sid=SID, number=1, objects=(offered("video-0-0.evf", SPOILT),))
    assert check_objects(offer, session)[0] == []


@pytest.mark.parametrize(
    ("session", "leaves", "fits"),
    [
        (as_damaged(damaged_segment()), 2, True),
        (as_damaged(damaged_segment()), 3, False),
        (released(), 2, False),  # nothing is damaged: then they go with nothing
    ],
)
def test_leaves_go_with_damaged_files_and_in_their_number(session: Released, leaves: int, fits: bool) -> None:
    offer = GrantRequest(sid=SID, number=1, objects=(offered("leaves.bin", bytes(32 * leaves)),))
    assert [facts.name for facts in check_objects(offer, session)[0]] == (["leaves.bin"] if fits else [])


def test_a_session_is_complete_with_what_was_released_of_it() -> None:
    """A damaged segment as it lies, and without a key file that cannot be read; manifest.json is still the last."""
    gone = DamagedFile(name=f"{SID}.0.media.evk", size_bytes=0, sha256=None)
    session = as_damaged(damaged_segment(), gone)
    files = {
        "video-0-0.evf": FILES["video-0-0.evf"], "video-0-1.evf": SPOILT, "leaves.bin": bytes(2 * 32),
        "approval.json": session.release_bytes, "manifest.json": session.manifest_bytes,
    }  # fmt: skip
    request = GrantRequest(
        sid=SID, number=1, objects=tuple(offered(name, data) for name, data in files.items())
    )
    others = {name: data for name, data in files.items() if name != "manifest.json"}

    def answered(objects: dict[str, bytes], released: Released = session) -> GrantAnswer:
        return answer_request(request, released, Listed(objects))  # type: ignore[arg-type]

    assert "manifest.json" not in {grant.name for grant in answered({}).grants}
    last = answered(others)
    assert ([grant.name for grant in last.grants], last.complete) == (["manifest.json"], False)
    whole = answered(files)
    assert (whole.complete, whole.total) == (True, 5)
    # control: without that release neither the manifest nor the session's end
    before = answered(others, released())
    assert ([grant.name for grant in before.grants], before.complete) == ([], False)
    assert not answered(files, released()).complete


def config(kit: Kit, **changes: str) -> StorageConfig:
    values = {"endpoint": ENDPOINT, "region": REGION, "bucket": BUCKET}
    return StorageConfig(**(values | changes), credentials=kit.folder / "nowhere.toml")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes", [{"endpoint": "http://s3.example.com"}, {"region": "us-east-1"}, {"bucket": "other"}]
)
def test_storage_off_the_eu_list_is_refused_before_anything_else(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    """F119: the credentials file does not even exist, and nobody asks for it."""
    with closing(make_kit(tmp_path)) as kit:
        with pytest.raises(StorageNotAllowed, match="EU list"):
            Storage(config(kit, **changes), policy_of(kit))
        with pytest.raises(BadConfig, match="nowhere"):  # control: on the list, the next step is reached
            Storage(config(kit), policy_of(kit))


def test_an_empty_list_allows_nothing(tmp_path: Path) -> None:
    with closing(make_kit(tmp_path)) as kit:
        empty = parse_policy(policy_of(kit).model_dump() | {"storage": ()})
        with pytest.raises(StorageNotAllowed):
            Storage(config(kit), empty)
