"""Keys wrapped anew in the storage: rclone's plain folder, and Ceph with versions and GOVERNANCE locks on the wraps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.archive.bucket import Bucket
from appliance.archive.pulling import Pulled, pull
from appliance.archive.rewrap_all import bucket_jobs, rewrap_all
from appliance.archive.wrap_places import BucketPlace
from appliance.errors import EvidenceBroken, Refused
from appliance.evf.errors import EvfError
from appliance.evf.rewraps import verify_rewrap
from appliance.evf.wraps import open_wrap
from appliance.protocol import object_key
from tests.rewraps import openers, recipient_set, rewrap, task, trust_of, verified
from tests.sessions import EXAM, INSTITUTION, SID, Built, Plan, build_session, default_room, representative
from tests.storages import BUCKET, S3Server

pytestmark = pytest.mark.slow
LOCKED = "locked"
WRAPS = f"wraps/{INSTITUTION}/{EXAM}/{SID}/"


class Stored:
    """One session in one bucket, seen by the product and from outside."""

    def __init__(self, server: S3Server, name: str, built: Built) -> None:
        self.client, self.name, self.built = server.client(), name, built
        self.bucket = Bucket(server.config().model_copy(update={"bucket": name}), INSTITUTION)
        self.place = BucketPlace(self.bucket, EXAM, SID)
        self.upload()

    def upload(self, **lock: Any) -> None:
        for path in self.built.folder.rglob("*.*"):
            key = object_key(INSTITUTION, EXAM, SID, path.name)
            locked = lock if path.suffix == ".evk" else {}
            self.client.put_object(Bucket=self.name, Key=key, Body=path.read_bytes(), **locked)

    def versions(self) -> list[tuple[str, str | None]]:
        """Everything that can still be had below wraps/, delete markers apart."""
        if self.name == LOCKED:
            found = self.client.list_object_versions(Bucket=self.name, Prefix=WRAPS).get("Versions", [])
            return [(each["Key"], each["VersionId"]) for each in found]
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=WRAPS).get("Contents", [])
        return [(each["Key"], None) for each in found]

    def opened_by(self, number: int) -> int:
        """How many versions of wraps still open with this person's key, old ones too."""
        count = 0
        for key, version in self.versions():
            more = {"VersionId": version} if version else {}
            data = self.client.get_object(Bucket=self.name, Key=key, **more)["Body"].read()
            try:
                open_wrap(data, representative(number), None).erase()
                count += 1
            except EvfError:
                try:
                    anew = verify_rewrap(data, default_room().root_key.public_key())
                    count += representative(number).kid in anew.kids
                except EvfError:
                    continue
        return count

    def segments(self) -> dict[str, str]:
        found = self.client.list_objects_v2(Bucket=self.name, Prefix="sessions/")["Contents"]
        return {each["Key"]: each["ETag"] for each in found}

    def pull(self, out: Path) -> Pulled:
        return pull(
            self.bucket,
            trust_of(self.built),
            self.bucket.find(SID),
            out,
            lambda _total: None,
            lambda _count: None,
        )

    def empty(self) -> None:
        names = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        for each in names:
            self.client.delete_object(Bucket=self.name, Key=each["Key"])


@pytest.fixture(params=["rclone", "ceph"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stored]:
    """For persons 1 and 2; on Ceph with versions kept and each wrap locked for two days."""
    server: S3Server = request.getfixturevalue(request.param)
    built = build_session(tmp_path / "made", Plan(recipients=(1, 2), fragments=1))
    if request.param == "rclone":
        stored = Stored(server, BUCKET, built)
    else:
        names = {each["Name"] for each in server.client().list_buckets()["Buckets"]}
        if LOCKED not in names:
            server.client().create_bucket(Bucket=LOCKED, ObjectLockEnabledForBucket=True)
        stored = Stored(server, LOCKED, built)
        stored.upload(
            ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=datetime.now(UTC) + timedelta(days=2)
        )
    yield stored
    stored.empty()


@pytest.fixture
def forged(rclone: S3Server, tmp_path: Path) -> Iterator[Stored]:
    """With a re-wrap that is none."""
    stored = Stored(rclone, BUCKET, build_session(tmp_path / "made", Plan(recipients=(1, 2), fragments=1)))
    key = object_key(INSTITUTION, EXAM, SID, f"{SID}.r9.evk")
    stored.client.put_object(Bucket=BUCKET, Key=key, Body=b"{}")
    yield stored
    stored.empty()


def test_removed_representative_finds_nothing_in_the_storage(stored: Stored, tmp_path: Path) -> None:
    """Not in an older version either. Control: the same search finds the wraps before."""
    before = stored.segments()
    assert stored.opened_by(2) >= 4
    assert openers(stored.built, stored.pull(tmp_path / "before").folder) == {1, 2}

    said: list[str] = []
    work = task(stored.built, recipient_set(3, 1, 3))
    rewrap_all(bucket_jobs(stored.bucket, EXAM), work, said.append)
    assert said[0].startswith(
        f"{EXAM} {SID}: keys re-wrapped for recipient set 3 (person 1, person 3) by person 1"
    )
    assert said[0].endswith("4 earlier wraps erased")

    assert stored.opened_by(2) == 0
    assert (stored.opened_by(1), stored.opened_by(3)) == (1, 1)
    assert stored.segments() == before
    assert stored.bucket.find(SID).state == "complete"
    pulled = stored.pull(tmp_path / "after")
    assert (pulled.unnamed, pulled.left_over) == ((), ())
    assert openers(stored.built, pulled.folder) == {1, 3}
    assert sum("erased when" in line for line in verified(stored.built, pulled.folder)) == 4

    rewrap_all(bucket_jobs(stored.bucket, EXAM), work, said.append)
    assert said[2] == f"{EXAM} {SID}: nothing to wrap, {SID}.r3.evk is there"


class Dead(Exception):
    """The process is gone."""


class DyingPlace(BucketPlace):
    """Ends at the n-th call, before or after the storage did it."""

    def __init__(self, stored: Stored, ends_at: int, after: bool) -> None:
        super().__init__(stored.bucket, EXAM, SID)
        self.calls, self._ends_at, self._after = 0, ends_at, after

    def write(self, name: str, data: bytes) -> None:
        self._step(super().write, name, data)

    def erase(self, name: str) -> None:
        self._step(super().erase, name)

    def _step(self, call: Any, *arguments: Any) -> None:
        self.calls += 1
        if self.calls == self._ends_at and not self._after:
            raise Dead
        call(*arguments)
        if self.calls == self._ends_at:
            raise Dead


@pytest.mark.parametrize("stored", ["rclone"], indirect=True)
def test_ended_between_any_two_calls_it_opens_and_goes_on(stored: Stored, tmp_path: Path) -> None:
    """The old set or the new one opens it after every end; then the same command finishes."""
    whole = DyingPlace(stored, 0, True)
    rewrap(stored.built, recipient_set(3, 1, 3), place=whole)
    assert whole.calls == 5  # one write, four erasures
    found = set()
    for call in range(1, whole.calls + 1):
        for after in (False, True):
            stored.empty()
            stored.upload()
            with pytest.raises(Dead):
                rewrap(stored.built, recipient_set(3, 1, 3), place=DyingPlace(stored, call, after))
            out = tmp_path / f"{call}{after}"
            folder = stored.pull(out / "ended").folder
            verified(stored.built, folder)
            people = openers(stored.built, folder)
            assert {1, 2} <= people or {1, 3} <= people
            found.add(frozenset(people))
            rewrap(stored.built, recipient_set(3, 1, 3), place=stored.place)
            assert stored.opened_by(2) == 0
            assert openers(stored.built, stored.pull(out / "done").folder) == {1, 3}
    assert found == {frozenset({1, 2}), frozenset({1, 3})}


def test_lock_that_does_not_yield_is_said_and_the_new_set_opens(ceph: S3Server, tmp_path: Path) -> None:
    """COMPLIANCE: who was removed keeps access until the date; nobody is told otherwise."""
    built = build_session(tmp_path / "made", Plan(recipients=(1, 2), fragments=1))
    names = {each["Name"] for each in ceph.client().list_buckets()["Buckets"]}
    if "for-good" not in names:
        ceph.client().create_bucket(Bucket="for-good", ObjectLockEnabledForBucket=True)
    stored = Stored(ceph, "for-good", built)
    stored.upload(
        ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=datetime.now(UTC) + timedelta(hours=1)
    )
    said: list[str] = []
    with pytest.raises(
        Refused, match=r"1 sessions were not done.*does not let .*who was removed can still open it"
    ):
        rewrap_all(bucket_jobs(stored.bucket, None), task(built, recipient_set(3, 1, 3)), said.append)
    pulled = stored.pull(tmp_path / "after")
    assert len(pulled.left_over) == 4
    assert openers(built, pulled.folder) == {1, 3}


def test_forged_rewrap_in_the_storage_is_left_there(forged: Stored, tmp_path: Path) -> None:
    pulled = forged.pull(tmp_path / "pulled")
    assert pulled.unnamed == (f"{SID}.r9.evk",)
    assert openers(forged.built, pulled.folder) == {1, 2}
    with pytest.raises(EvidenceBroken, match="is no re-wrap of this session"):
        rewrap(replace(forged.built, folder=pulled.folder), recipient_set(3, 1), place=forged.place)
