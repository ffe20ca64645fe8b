"""The red team: all files, processes and living memory of a room after an exam, and a script that wants to open it.

F083, F089. It fails with everything that the test centre has, and opens with the one key that it has not. What it
searches stands in `tests/loot.py` and `tests/windows.py`; beside it a search with the true keys in hand looks at every
byte of the node processes' memory for what should be overwritten.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.evf.format import Header, read_prefix
from appliance.evf.recipients import RepresentativeKey
from appliance.evf.sframe import derive_key_and_salt
from appliance.evf.wraps import open_wrap
from demo.room import CHECKOUT, DemoRoom, default_desks
from tests.camera_recording import REPRESENTATIVE
from tests.loot import EMPTY_PAGE, memory_of
from tests.red_team import ROLES, closed_segments
from tests.room import Exam, running_room
from tests.windows import windows

pytestmark = pytest.mark.slow

TRACKS = {"media": "video", "log": "log"}


def red_team(
    loot: list[Path], pids: list[int], *, processes: bool = False, seconds: int = 60
) -> dict[str, Any]:
    """The script in a process of its own, which has nothing of the test's memory."""
    options = [
        *(f"--loot={path}" for path in loot),
        *(f"--pid={pid}" for pid in pids),
        f"--seconds={seconds}",
    ]
    options += ["--all-processes"] if processes else []
    done = subprocess.run(
        [sys.executable, "-m", "tests.red_team", *options],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=seconds + 60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


# --- what the keys of a segment are, for who has the representative's key -------------------------------------------


def expand(key: bytes, info: bytes, length: int = 32) -> bytes:
    return hmac.digest(key, info + b"\1", "sha512")[:length]


def ladder(store: Path, sid: str, representative: RepresentativeKey) -> dict[str, bytes]:
    """Every secret from K(0) down to the AES key, by name, of each segment that the store has (closed or open)."""
    found: dict[str, bytes] = {}
    for evk in sorted((store / "wraps").glob(f"{sid}.*.evk")):
        _, epoch, cls, _ = evk.name.split(".")
        track = TRACKS[cls]
        epoch_key = bytes(open_wrap(evk.read_bytes(), representative, None).secret)
        found[f"{epoch} {track} K(0)"] = epoch_key
        state = expand(epoch_key, b"EVF1 track" + track.encode())
        seg = 0
        while (path := store / "segments" / sid / f"{epoch}-{track}-{seg}.evf").exists():
            found |= {f"{epoch} {track} {seg} {name}": key for name, key in segment_keys(path, state).items()}
            state = expand(state, b"EVF1 next")
            seg += 1
    return found


def segment_keys(path: Path, state: bytes) -> dict[str, bytes]:
    """What opens one segment: the ratchet's state before it and all that follows from it."""
    with path.open("rb") as stream:
        header_bytes, commit = read_prefix(stream)
    secret = expand(state, b"EVF1 seg")
    extract = hmac.digest(hashlib.sha256(header_bytes).digest(), secret, "sha512")
    both = expand(extract, b"EVF1 segment v1", 64)
    assert both[32:] == commit, "the ladder is the product's"
    aes_key, _ = derive_key_and_salt(both[:32], Header.decode(header_bytes).seg)
    return {
        "K_t": state,
        "S": secret,
        "extract of S": extract,
        "B": both[:32],
        "extract of B": hmac.digest(b"", both[:32], "sha512"),
        "AES": bytes(aes_key),
    }


def traces(pid: int, keys: dict[str, bytes]) -> set[str]:
    """Names of the keys whose first 16 bytes stand anywhere in the process's memory, also with the bytes swapped."""
    needles: dict[bytes, str] = {}
    for name, key in keys.items():
        swapped = b"".join(key[at : at + 4][::-1] for at in range(0, 16, 4))
        needles |= {key[:16]: name, swapped: name}
    return {
        name
        for find in memory_of(pid, {EMPTY_PAGE})
        for needle, name in needles.items()
        if needle in find.data
    }


# --- a room after an exam --------------------------------------------------------------------------------------------


@dataclass
class Raided:
    """What the attacker holds, and what the test knows besides."""

    loot: list[Path]
    node_pids: list[int]
    camera_pid: int
    report: dict[str, Any]
    keys: dict[str, bytes]
    traces_while_recording: set[str]
    traces_after: dict[int, set[str]]
    institution: Path


def take(source: Path, target: Path) -> Path:
    """Copy every plain file; sockets stay."""
    for path in source.rglob("*"):
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return target


def take_all(room: DemoRoom, target: Path) -> list[Path]:
    """Both nodes, the controller with its broker, the bucket, all logs and the folders in memory."""
    sources = {name: room.root / name for name in ("nodes", "room", "bucket", "logs")} | {
        "memory": room.run_dir
    }
    return [take(path, target / name) for name, path in sources.items()]


@pytest.fixture(scope="module")
def raided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raided]:
    with running_room(tmp_path_factory.mktemp("room"), desks=default_desks()[:2]) as room:
        client = room.client()
        approved = Exam.begin(room, client, "desk-1", "code-1")
        held = Exam.begin(room, client, "desk-2", "code-2")
        camera_pid = room.nodes["desk-1"]["camera"].pid
        pids = [part.pid for node in room.nodes.values() for part in node.values()]
        approved.record_until(8)
        key_file = room.root / "keys" / "representative.key"
        passphrase = room.passphrase_file.read_text().strip()
        representative = RepresentativeKey.load(key_file.read_bytes(), passphrase)
        store = room.node_folder("desk-1") / "store"
        while_recording = traces(camera_pid, ladder(store, approved.sid, representative))
        held.end()
        approved.end()
        keys = ladder(store, approved.sid, representative)
        keys |= {
            f"held {name}": key
            for name, key in ladder(room.node_folder("desk-2") / "store", held.sid, representative).items()
        }
        after = {pid: traces(pid, keys) for pid in pids}
        client.post(f"/api/sessions/{held.sid}/hold", {"reason": "the board decides"})
        approved.approve()
        assert pids == [part.pid for node in room.nodes.values() for part in node.values()], "all of one life"
        loot = take_all(room, tmp_path_factory.mktemp("loot"))
        report = red_team(loot, pids, processes=True)
        yield Raided(loot, pids, camera_pid, report, keys, while_recording, after, room.root / "keys")
        client.close()


def test_everything_in_the_room_opens_no_closed_segment(raided: Raided) -> None:
    """F083, F089: files of nodes, controller, broker and bucket, root's process list, the nodes' living memory.

    F086, F101: nor whoever administers all of it.
    """
    report = raided.report
    print(json.dumps(report))
    assert report["opened"] == []
    assert report["complete"], "the time was too short for all of it"
    assert len(report["targets"]) >= 2
    assert (report["wraps"] >= 4, report["public_keys"]) == (True, 2)
    assert report["searched"]["memory_bytes"] > 50 << 20


def test_loot_holds_the_secrets_of_the_room(raided: Raided) -> None:
    """That nothing was opened is not for want of keys."""
    names = {path.name for folder in raided.loot for path in folder.rglob("*")}
    secrets = {"device.key", "room-ca.key", "broker.key", "controller-tls.key", "controller-signing.key"}
    assert secrets | {"storage-credentials.toml"} <= names


def test_same_script_opens_with_the_representatives_key(raided: Raided, tmp_path: Path) -> None:
    """Control: the institution's key file and its passphrase among the loot."""
    for name in ("representative.key", "passphrase.txt"):
        shutil.copy(raided.institution / name, tmp_path / name)
    report = red_team([tmp_path, *raided.loot], [], seconds=1)
    opened = {found["segment"] for found in report["opened"] if found["as"] == "representative's key file"}
    assert opened == set(report["targets"])


def test_no_key_of_a_closed_segment_is_left_in_memory(raided: Raided) -> None:
    """F083: with the true keys in hand nothing of them is found, at any offset, in any process of a node."""
    assert raided.traces_after == {pid: set() for pid in raided.node_pids}


def test_key_of_the_open_segment_is_found(raided: Raided) -> None:
    """Control: the same search while it records. And nothing above that key is there even then."""
    assert raided.traces_while_recording == {"0 video 0 AES"}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("K(0)", "epoch key"),
        ("0 K_t", "track state"),
        ("0 S", "segment secret"),
        ("0 extract of S", "extract of either derivation"),
        ("0 B", "base key"),
        ("0 extract of B", "extract of either derivation"),
        ("0 AES", "AES key"),
    ],
)
def test_a_key_in_a_file_is_found(raided: Raided, tmp_path: Path, name: str, role: str) -> None:
    """Control: each secret of the ladder, planted in a log, as it is at an odd place and as hex."""
    assert role in ROLES
    key = raided.keys[f"0 video {name}"]
    planted = tmp_path / "debug.log"
    for text, form in ((key, ""), (key.hex().encode(), " (hex)")):
        planted.write_bytes(b"debug: the key is " + text + b"\n" * 9)
        report = red_team([tmp_path, *segments_of(raided)], [], seconds=30)
        assert (role, f"{planted}{form}") in {(found["as"], found["where"]) for found in report["opened"]}


HOLDER = "import sys; key = bytearray(bytes.fromhex(sys.stdin.readline())); print('held', flush=True); sys.stdin.read()"


@pytest.mark.parametrize("name", ["0 S", "0 AES"])
def test_a_key_in_a_processs_memory_is_found(raided: Raided, name: str) -> None:
    """Control: a process that keeps what the camera process overwrites."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(raided.keys[f"0 video {name}"].hex() + "\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "held\n"
        report = red_team(segments_of(raided), [holder.pid])
        holder.stdin.close()
    assert any(found["where"].startswith(f"memory of {holder.pid}") for found in report["opened"])


def segments_of(raided: Raided) -> list[Path]:
    """Folders of the closed segments alone."""
    return sorted({path.parent for folder in raided.loot[:1] for path in folder.rglob("*.evf")})


def test_filter_keeps_keys() -> None:
    """The search passes over less than one random key in 10^4."""
    keys = np.random.default_rng(1).bytes(32 * 5_000)
    kept = sum(
        bool((rows := windows(keys[at : at + 32], step=1, leave_long_runs=False)[0]).size)
        and rows[0, :32].tobytes() == keys[at : at + 32]
        for at in range(0, len(keys), 32)
    )
    assert kept >= 5_000 - 1


# --- a process that has closed minutes behind it and one open -------------------------------------------------------

RECORDING = """
import os, sys
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from appliance.camera.encoder import Fragment
from appliance.camera.recorder import EpochRecorder
from appliance.clock import SystemClock
from appliance.store.recording import RecordingStore
from tests.camera_recording import CODEC, INIT, RECIPIENTS, REPORT, S
from tests.unit.test_store_builders import BOOT, new_session
clock = SystemClock()
store = RecordingStore(Path(sys.argv[1]), clock)
store.begin_session(new_session())
def epoch(begin_s, end_s):
    recorder = EpochRecorder(store, store.active_session(), RECIPIENTS, Ed25519PrivateKey.generate(), clock, BOOT,
                             covered_until_90k=begin_s * S, gap_cause="x")
    for at in range(begin_s, end_s, 2):
        recorder.fragment(Fragment("fragment", os.urandom(50_000), at * S, 2 * S, True, 30), INIT, CODEC)
        recorder.observation(at, REPORT, at * S)
    return recorder
for life in range(8):
    epoch(life * 2, life * 2 + 2).close(life * 2 * S + 2 * S)
recorder = epoch(20, 150)
print("a minute is open", flush=True)
sys.stdin.readline()
recorder.close(150 * S)
print("all are closed", flush=True)
sys.stdin.read()
"""


def test_closed_minutes_are_shut_while_the_next_is_open(tmp_path: Path) -> None:
    """F083: ten epochs and their segments; only what the open ones need is in memory, and at the end nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", RECORDING, str(tmp_path)],
        cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "a minute is open\n"
        keys = ladder(tmp_path, "0123456789abcdef0123456789abcdef", REPRESENTATIVE)
        assert len(keys) == 2 * (8 + 8 * 6) + 2 * (1 + 3 * 6)
        assert traces(process.pid, keys) == {"8 video 2 AES", "8 log 2 AES"}
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "all are closed\n"
        assert len(closed_segments(list(tmp_path.rglob("*.evf")))) == 8
        assert traces(process.pid, keys) == set()
        process.stdin.close()
