"""A bucket that refuses, breaks, is silent or cuts off in mid-upload; a file that was altered on the desk's disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance.archive.cli import app as archive
from appliance.clock import utc_text
from appliance.errors import EvidenceBroken
from appliance.protocol import Grant, Grants, ObjectFacts
from appliance.sync.sender import Outcome, PutDone, Sender
from appliance.sync.uploader import MAX_WAIT_S, Upload, UploadFile
from tests.misbehaving import MisbehavingStorage
from tests.simulated_room import INSTITUTION, Node, SimulatedRoom, simulated_room
from tests.storages import BUCKET, REGION, S3Server
from tests.syncing_desk import settle
from tests.unit.test_store_builders import SID
from tests.unit.test_sync_room import DESK, POLICY, ROOM, policy

pytestmark = pytest.mark.slow

FRAGMENT_BYTES = 60_000
TIMEOUT_S = 1.0
STUCK_S = 3.0


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a storage that is silent; others answer when this machine lets them."""
    monkeypatch.setattr(
        Sender.__init__, "__kwdefaults__", {"tls": None, "transport": None, "timeout_s": TIMEOUT_S}
    )


@pytest.fixture
def storage(rclone: S3Server) -> Iterator[MisbehavingStorage]:
    made = MisbehavingStorage(int(rclone.endpoint.rsplit(":", 1)[1]), STUCK_S)
    yield made
    made.close()


@contextmanager
def certified(
    folder: Path, storage: MisbehavingStorage, rclone: S3Server
) -> Iterator[tuple[SimulatedRoom, Node, str]]:
    """A session of three segments, not yet approved."""
    with simulated_room(folder, storage.port, credentials=rclone.config().credentials) as room:
        node = room.start_node()
        sid = room.begin(node)
        node.film(80, FRAGMENT_BYTES)
        room.pump("witnessed", lambda: room.witnessed(node, sid))
        room.end(node, sid)
        yield room, node, sid


def approve(room: SimulatedRoom, sid: str) -> None:
    room.page.post(f"/api/sessions/{sid}/approve", {"accept_gaps": True})


def state(room: SimulatedRoom, sid: str) -> str:
    return str(room.page.session(sid)["state"])


def half_an_hour(room: SimulatedRoom, node: Node) -> None:
    """Passes in less than a second."""
    for _ in range(30):
        room.pass_time(60)
        node.turn(0.02)


def test_every_trouble_is_named_retried_with_patience_and_overcome(
    storage: MisbehavingStorage, short_patience: None, rclone: S3Server, tmp_path: Path
) -> None:
    """How patiently: `test_a_broken_storage_is_tried_ever_more_rarely`."""
    with certified(tmp_path, storage, rclone) as (room, node, sid):
        storage.mode = "forbidden"
        approve(room, sid)
        for mode, words in [
            ("forbidden", "the storage refused"), ("forbidden", "storage answered 403 AccessDenied"),
            ("broken", "was not sent: storage answered 500 InternalError"),
            ("reset", "was not sent: storage not reached: it cut the connection off"),
            ("stuck", "was not sent: storage not reached: it does not answer in time"),
        ]:  # fmt: skip
            storage.mode = mode
            room.pump(words, lambda words=words: words in room.technical(), pace=30)
            assert f"session {sid[:8]}: upload: " in room.technical()
            assert state(room, sid) in ("released", "syncing")
        storage.mode = "broken"
        room.pump("again 500", lambda: "storage answered 500" in room.technical(), pace=30)
        half_an_hour(room, node)
        before = storage.attempts.total()
        room.pump("and it is tried again", lambda: storage.attempts.total() > before, pace=30)
        storage.mode = "ok"
        room.pump("synced", lambda: state(room, sid) == "synced", pace=30)
        assert "upload" not in room.technical()
        names = {row.name for row in node.ledger.uploads(sid)}
        assert len([name for name in names if name.endswith(".evf")]) == 3
        keys = {key.rsplit("/", 1)[1]: key for key in rclone.stored_keys() if sid in key}
        assert set(keys) == set(storage.stored) == names
        # One that was taken in silence may be on its way once more before the bucket is read again.
        assert max(storage.stored.values()) <= 2
        for name in names - {"approval.json"}:
            layout = node.view.layout
            path = layout.manifest(sid) if name == "manifest.json" else layout.segment(sid, name)
            path = layout.wrap(name) if name.endswith(".evk") else path
            assert (
                rclone.client().get_object(Bucket=BUCKET, Key=keys[name])["Body"].read() == path.read_bytes()
            )


@pytest.mark.parametrize(
    ("outcome", "seconds"),
    [
        (Outcome.LATER, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]),
        (Outcome.FORBIDDEN, [0, 60, 120, 180, 240]),
        (Outcome.SENT, list(range(300))),  # control: what moves is asked about at once
    ],
)
def test_a_broken_storage_is_tried_ever_more_rarely(outcome: Outcome, seconds: list[int]) -> None:
    """Five minutes in which every PUT ends so: 1, 2, 4 … seconds between the rounds, never more than a minute."""
    url = f"{POLICY['storage'][0]['endpoint']}/x"
    facts = [ObjectFacts(name=f"0-video-{n}.evf", size_bytes=1, md5="", sha256="ab" * 32) for n in range(3)]
    upload = Upload(ROOM, DESK, SID, policy(), [UploadFile(each, b"x") for each in facts], {})
    asked = []
    for second in range(300):
        now = second * 10**9
        request = upload.step(now)
        if request is None:
            continue
        asked.append(second)
        issued = utc_text(datetime.fromtimestamp(second, UTC))
        each_one = tuple(Grant(name=each.name, url=url, headers={}) for each in request.objects)
        answer = Grants(room=ROOM, desk=DESK, sid=SID, number=request.number, issued=issued, grants=each_one)
        jobs, _ = upload.granted(answer, now)
        for job in jobs:
            upload.done(PutDone(SID, job.round_number, job.facts.name, outcome, "so"), now)
    assert asked == seconds


def test_control_a_healthy_bucket_takes_each_file_at_once(
    storage: MisbehavingStorage, rclone: S3Server, tmp_path: Path
) -> None:
    """And one that stays broken never counts as sent."""
    with certified(tmp_path, storage, rclone) as (room, node, sid):
        storage.mode = "broken"
        approve(room, sid)
        room.pump("named", lambda: "storage answered 500" in room.technical(), pace=30)
        half_an_hour(room, node)
        assert state(room, sid) in ("released", "syncing")
        assert not storage.stored
        settle(node.sync._sender)
        storage.mode = "ok"
        storage.attempts.clear()
        room.pass_time(MAX_WAIT_S)
        # At life's own pace: thirty times as fast, an upload of half a second would seem lost and be sent again.
        # The room may still be at the thirty questions of that half hour; then the next one comes a minute later.
        room.pump("synced", lambda: state(room, sid) == "synced", 2 * MAX_WAIT_S + 60)
        assert storage.attempts == storage.stored + storage.refused
        assert set(storage.stored.values()) == {1}


def spoil(path: Path) -> bytes:
    """One bit on the desk's disk; the file as it is then."""
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    return bytes(data)


def test_one_altered_file_is_set_aside_named_and_not_sent(
    storage: MisbehavingStorage, rclone: S3Server, tmp_path: Path
) -> None:
    """The others arrive, nothing claims to be complete, and the file put right is sent without anybody's doing."""
    with certified(tmp_path, storage, rclone) as (room, node, sid):
        segment = node.view.layout.segment(sid, "0-video-1.evf")
        whole = segment.read_bytes()
        spoil(segment)
        approve(room, sid)
        words = f"a file of session {sid[:8]} cannot be sent, 0-video-1.evf: was altered"
        room.pump("the file and the session", lambda: words in room.needs(), pace=30)
        others = {row.name for row in node.ledger.uploads(sid)} - {"0-video-1.evf", "manifest.json"}
        room.pump("the others", lambda: set(storage.stored) == others, pace=30)
        asked = storage.attempts.total()
        half_an_hour(room, node)
        assert storage.attempts.total() == asked, "something is sent again and again"
        assert "0-video-1.evf" not in storage.attempts, "altered bytes left the desk"
        assert "manifest.json" not in storage.stored, "the storage would claim a whole session"
        assert state(room, sid) not in ("synced", "purged")
        sent = f"sending {len(others)} of {len(others) + 2}"
        room.pump(sent, lambda: room.tile()["words"] == sent, pace=30)
        assert segment.exists()

        segment.write_bytes(whole)
        node.restart_sync()
        room.pump("synced", lambda: state(room, sid) == "synced", pace=30)
        assert "cannot be sent" not in room.needs()
        assert set(storage.stored) == others | {"0-video-1.evf", "manifest.json"}


def test_an_altered_file_leaves_as_it_lies_once_a_person_lets_it(
    storage: MisbehavingStorage, rclone: S3Server, tmp_path: Path
) -> None:
    """No session stays on its desk for ever because a bit fell over on the disk; what that took is named for good."""
    with certified(tmp_path, storage, rclone) as (room, node, sid):
        spoilt = spoil(node.view.layout.segment(sid, "0-video-1.evf"))
        approve(room, sid)
        room.pump("told", lambda: bool(room.page.session(sid)["damaged"]), pace=30)
        room.page.post(f"/api/sessions/{sid}/approve-damaged", {"files": room.page.session(sid)["damaged"]})
        room.pump("synced", lambda: state(room, sid) == "synced", pace=30)
        assert "cannot be sent" not in room.needs()
        stored = {key.rsplit("/", 1)[1]: key for key in rclone.stored_keys() if sid in key}
        assert set(stored) == {row.name for row in node.ledger.uploads(sid)}

        def read(name: str) -> bytes:
            body: bytes = rclone.client().get_object(Bucket=BUCKET, Key=stored[name])["Body"].read()
            return body

        assert read("0-video-1.evf") == spoilt
        order = json.loads(read("approval.json"))["body"]["order"]
        assert [file["name"] for file in order["damaged"]] == ["0-video-1.evf"]

        # At the institution both verifiers name it, and who let it go.
        trust, config = tmp_path / "room" / "trust", archive_config(tmp_path, rclone)
        said = CliRunner().invoke(archive, ["pull", sid, "--out", str(tmp_path), "--config", str(config)])
        assert "but for 1 damaged on the desk" in said.output
        verified = CliRunner().invoke(archive, ["verify", str(tmp_path / sid), "--config", str(config)])
        assert type(verified.exception) is EvidenceBroken
        alone = subprocess.run(
            [
                sys.executable, "verifier/verify_session.py", tmp_path / sid,
                "--room-ca", trust / "room-ca.pem", "--controller", trust / "controller.pub",
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert alone.returncode == 1
        words = "damaged on the desk before it was sent, released so by lead-1 at"
        for output in (verified.output, alone.stdout):
            lost = [line for line in output.splitlines() if line.startswith("lost") and words in line]
            assert ["0-video-1.evf" in line for line in lost] == [True], output
            assert "broken" not in output


def archive_config(folder: Path, rclone: S3Server) -> Path:
    config = folder / "archive.toml"
    config.write_text(
        f'institution = "{INSTITUTION}"\nroom_ca = "room/trust/room-ca.pem"\n'
        'controller_key = "room/trust/controller.pub"\nroot_key = "root.pub"\n'
        f'[storage]\nendpoint = "{rclone.endpoint}"\nregion = "{REGION}"\nbucket = "{BUCKET}"\n'
        f'credentials = "{rclone.config().credentials}"\n'
    )
    return config
