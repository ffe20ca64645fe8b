"""A whole session into Ceph: approved, the sender killed on its way, resumed by what the bucket holds, verified."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.clips import MOVING_PERSON
from demo.room import DeskPlan, wait_until
from tests.ceph import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from tests.observed import StorageRelay
from tests.room import Exam, running_room
from tests.storages import BUCKET, REGION, S3Server

pytestmark = pytest.mark.slow


def test_session_reaches_ceph_though_the_sender_is_killed(ceph: S3Server, tmp_path: Path) -> None:
    """F120: an institution's own storage; the other one that is tried is rclone's."""
    relay = StorageRelay(int(ceph.endpoint.rsplit(":", 1)[1]))
    relay.start()
    with running_room(
        tmp_path / "room",
        desks=[DeskPlan("desk-1", "1", f"clip:{MOVING_PERSON}")],
        storage_endpoint=f"http://127.0.0.1:{relay.port}",
        storage_region=REGION,
        storage_credentials=(ACCESS_KEY_ID, SECRET_ACCESS_KEY),
        own_storage=False,
    ) as room:
        client = room.client()
        exam = Exam.begin(room, client, "desk-1", "ceph")
        exam.record_until(8)
        exam.end()
        relay.hold = True
        client.post(f"/api/sessions/{exam.sid}/approve")
        wait_until("the first bytes are on their way", lambda: relay.connections > 0, 60)
        room.nodes["desk-1"]["sync"].kill()
        relay.hold = False
        wait_until("synced", lambda: client.session(exam.sid)["state"] == "synced", 60)
        keys = {key.rsplit("/", 1)[1]: key for key in ceph.stored_keys() if exam.sid in key}
        named = {entry["name"] for part in ("segments", "wraps") for entry in exam.manifest()[part]}
        assert set(keys) == named | {"manifest.json", "approval.json"}
        assert {key for name, key in keys.items() if name.endswith(".evk")} == {
            key for key in keys.values() if key.startswith("wraps/")
        }
        manifest = ceph.client().get_object(Bucket=BUCKET, Key=keys["manifest.json"])["Body"].read()
        on_node = room.node_folder("desk-1") / "store" / "manifests" / f"{exam.sid}.json"
        assert manifest == on_node.read_bytes()
        room.invigil("archive", "pull", exam.sid, "--out", tmp_path, "--config", room.archive_toml)
        room.invigil("archive", "verify", tmp_path / exam.sid, "--config", room.archive_toml)
        client.close()
    relay.stop()
