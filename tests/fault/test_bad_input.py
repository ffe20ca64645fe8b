"""Commands with bad input: one line of error, one hint, a stable code; what was there before is there after."""

from __future__ import annotations

import shutil
import socket
import ssl
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.evf.format import RecordKind
from appliance.store.database import connect_writer
from demo.clips import STILL_PERSON
from demo.room import (
    INSTITUTION,
    INVIGIL,
    NODE_ENVIRONMENT,
    DemoRoom,
    default_desks,
    tmpfs_folder,
    wait_until,
)
from demo.supervise import Supervised
from tests.hostile import digests, invigil, is_refusal, other_models
from tests.sessions import SID, Plan, build_session, observation
from tests.unit.test_store_builders import FRAGMENT_90K, Desk

pytestmark = pytest.mark.slow

GARBAGE = b"\x00\xffgarbage\n"


class Bench:
    """A copy of a provisioned room and one desk, an archive with a session, keys: for one command to be clumsy with."""

    def __init__(self, folder: Path, provisioned: Path, archive: Path) -> None:
        self.folder = folder
        self.run_dir = tmpfs_folder()
        shutil.copytree(provisioned / "keys", self.keys)
        shutil.copytree(provisioned / "room", self.room)
        shutil.copytree(provisioned / "nodes" / "desk-1", self.node)
        shutil.copytree(archive, self.archive)
        (folder / "short").write_text("too short\n")
        (folder / "wrong").write_text("a wrong but long passphrase\n")
        self.change("node/node.toml", str(provisioned / "nodes" / "desk-1" / "store"), str(self.store))
        toml = (self.node / "node.toml").read_text()
        old = next(line for line in toml.splitlines() if line.startswith("run_dir"))
        self.change("node/node.toml", old, f'run_dir = "{self.run_dir}"')

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def room(self) -> Path:
        return self.folder / "room"

    @property
    def node(self) -> Path:
        return self.folder / "node"

    @property
    def store(self) -> Path:
        return self.node / "store"

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    def change(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text, f"{old} is not in {path}"
        path.write_text(text.replace(old, new, 1))


Damage = Callable[[Bench], object]


@dataclass(frozen=True)
class Case:
    """One clumsy thing to do, the command that meets it, and what the command must say."""

    name: str
    command: str
    damage: Damage
    code: int
    words: tuple[str, ...] = ()
    more: tuple[str, ...] = ()


def argv(bench: Bench, command: str) -> list[str | Path]:
    """The whole command, all of it right."""
    keys, archive = bench.keys, bench.archive
    session = archive / "session" / SID
    root = ["--root", keys / "root.key", "--passphrase-file", keys / "passphrase.txt"]
    opening = [
        session, "--key", archive / "representative.json", "--passphrase-file", archive / "passphrase",
        "--config", archive / "archive.toml",
    ]  # fmt: skip
    found: list[str | Path] = {
        "camera": ["node", "camera", "--config", bench.node / "node.toml"],
        "sync": ["node", "sync", "--config", bench.node / "node.toml"],
        "serve": ["room", "serve", "--config", bench.room / "room.toml"],
        "broker": ["room", "broker", "--config", bench.room / "room.toml"],
        "account": [
            "room", "account", "add", "ana", "--config", bench.room / "room.toml",
            "--password-file", keys / "passphrase.txt",
        ],
        "root": ["keys", "root", "--out", bench.folder / "made", "--institution", "uni", "--passphrase-file",
                 keys / "passphrase.txt"],
        "representative": ["keys", "representative", "--out", bench.folder / "made", "--name", "office",
                           "--passphrase-file", keys / "passphrase.txt"],
        "set": ["keys", "recipient-set", *root, "--institution", INSTITUTION, "--version", "2",
                "--representative", keys / "representative.json", "--out", bench.folder / "made" / "set.json"],
        "sign": ["policy", "sign", keys / "policy.toml", *root, "--out", bench.folder / "made" / "policy.json"],
        "show": ["policy", "show", keys / "policy.json", "--root-key", keys / "root.pub"],
        "desk": ["provision", "desk", "desk-9", "--ca", bench.room, "--recipient-set", keys / "recipient-set.json",
                 "--root-key", keys / "root.pub", "--institution", INSTITUTION, "--broker-host", "127.0.0.1",
                 "--out", bench.folder / "made"],
        "list": ["archive", "list", "--config", archive / "archive.toml"],
        "verify": ["archive", "verify", session, "--config", archive / "archive.toml"],
        "open": ["archive", "open", *opening, "--out", bench.folder / "made.mp4"],
        "report": ["archive", "report", *opening, "--out", bench.folder / "made.html"],
        "check": ["store", "check", bench.store],
        "inspect": ["inspect", STILL_PERSON],
    }[command]  # fmt: skip
    return found


def nothing(_bench: Bench) -> None:
    """The command itself is what is wrong."""


def gone(name: str) -> Damage:
    return lambda bench: (bench.folder / name).unlink()


def spoilt(name: str, content: bytes = GARBAGE) -> Damage:
    return lambda bench: (bench.folder / name).write_bytes(content)


def changed(name: str, old: str, new: str) -> Damage:
    return lambda bench: bench.change(name, old, new)


def with_key(name: str) -> Damage:
    return lambda bench: (bench.folder / name).write_text(
        "gazze = true\n" + (bench.folder / name).read_text()
    )


def session_gone(pattern: str) -> Damage:
    return lambda bench: in_session(bench, pattern).unlink()


def session_spoilt(pattern: str) -> Damage:
    return lambda bench: in_session(bench, pattern).write_bytes(GARBAGE)


def in_session(bench: Bench, pattern: str) -> Path:
    """The first file of the archived session that fits."""
    return next((bench.archive / "session").rglob(pattern))


def with_store(bench: Bench) -> Path:
    """The desk's store as an exam left it: a database and a file."""
    shutil.copytree(bench.folder.parent / "store", bench.store)
    return bench.store


def newer(bench: Bench) -> None:
    database = connect_writer(with_store(bench) / "index.db")
    database.execute("PRAGMA user_version = 99")
    database.close()


def without_index(bench: Bench) -> None:
    (with_store(bench) / "index.db").unlink()


def broken_index(bench: Bench) -> None:
    (with_store(bench) / "index.db").write_bytes(GARBAGE * 1000)


def below_a_file(bench: Bench) -> None:
    bench.store.write_text("a file where the store's folder should be")


CASES = [
    *(
        Case(f"unknown key for {command}", command, with_key(name), 3, (name, "unknown key gazze"))
        for command, name in (
            ("camera", "node/node.toml"), ("sync", "node/node.toml"), ("serve", "room/room.toml"),
            ("broker", "room/room.toml"), ("account", "room/room.toml"), ("list", "archive/archive.toml"),
            ("verify", "archive/archive.toml"), ("list", "archive/storage-credentials.toml"),
        )
    ),
    Case("unknown key in a policy", "sign", with_key("keys/policy.toml"), 4, ("unknown key gazze",)),
    Case(
        "misspelt key in a section", "serve", changed("room/room.toml", "\nbucket", "\nbukket"), 3,
        ("unknown key storage.bukket",),
    ),
    Case("wrong value", "camera", changed("node/node.toml", "broker_port = ", "broker_port = 9"), 3, ("broker_port",)),
    Case("settings missing", "camera", gone("node/node.toml"), 3, ("node.toml", "no such file")),
    Case("settings no text", "serve", spoilt("room/room.toml"), 3, ("room.toml is not TOML",)),
    Case("settings cut off", "verify", spoilt("archive/archive.toml", b'institution = "u'), 3, ("not TOML",)),
    *(
        Case(f"{name} {how} for {command}", command, damage, 3, (name.rpartition("/")[2],))
        for command, names in (
            ("camera", ("node/trust/root.pub", "node/trust/device.key")),
            ("sync", ("node/trust/device.pem", "node/trust/room-ca.pem", "node/trust/controller.pub")),
            ("serve", ("room/trust/controller.pem", "room/trust/controller-signing.key", "room/trust/root.pub")),
        )
        for name in names
        for how, damage in (
            ("missing", gone(name)),
            ("garbage", spoilt(name)),
        )
    ),
    Case("broker without certificate", "broker", gone("room/trust/broker.pem"), 3, ("broker.pem is missing",)),
    Case("archive without the room's CA", "verify", gone("archive/trust/room-ca.pem"), 3, ("room-ca.pem",)),
    Case("garbage for the controller's key", "verify", spoilt("archive/trust/controller.pub"), 3, ("controller.pub",)),
    Case("recipient set of nobody", "desk", spoilt("keys/recipient-set.json"), 4, ("recipient-set.json",)),
    Case("policy that is none", "show", spoilt("keys/policy.json"), 4, ("policy.json",)),
    Case("policy of another root", "show", spoilt("keys/root.pub", b"ab" * 32), 6),
    *(
        Case(f"wrong passphrase for {command}", command, nothing, 5, ("passphrase",), ("--passphrase-file", "wrong"))
        for command in ("open", "report", "sign", "set")
    ),
    *(
        Case(f"short passphrase for {command}", command, nothing, 4, ("9 characters",), ("--passphrase-file", "short"))
        for command in ("root", "representative")
    ),
    Case("no such passphrase file", "open", nothing, 4, ("nowhere",), ("--passphrase-file", "nowhere")),
    Case("key file that is none", "open", spoilt("archive/representative.json"), 4, ("key file is malformed",)),
    Case("no such clip", "inspect", nothing, 4, ("nowhere.mp4",), ("nowhere.mp4",)),
    Case("store below a file", "camera", below_a_file, 10, ("store",)),
    Case("newer store", "camera", newer, 10, ("schema 99",)),
    Case("store without its database", "camera", without_index, 10, ("index.db is missing",)),
    Case("store with a broken database", "camera", broken_index, 10, ("index.db",)),
    Case("a store that is none", "check", nothing, 4, ("is not a folder",)),
    Case("no session at all", "verify", lambda b: shutil.rmtree(b.archive / "session" / SID), 4, ("no folder",)),
    Case("no manifest", "verify", session_gone("manifest.json"), 4, ("has no manifest.json",)),
    *(
        Case(f"{how} {pattern} for {command}", command, damage, 7, (pattern.split("*")[-1],))
        for command, how, pattern, damage in (
            ("verify", "garbage", "manifest.json", session_spoilt("manifest.json")),
            ("open", "garbage", "approval.json", session_spoilt("approval.json")),
            ("verify", "missing", "*.evk", session_gone("*.evk")),
            ("open", "missing", "*.media.evk", session_gone("*.media.evk")),
            ("verify", "missing", "*.evf", session_gone("*.evf")),
            ("report", "garbage", "*log*.evf", session_spoilt("*log*.evf")),
        )
    ),
    Case("bucket not reachable", "list", nothing, 14, ("does not answer",)),
    Case("film that is there already", "open", spoilt("made.mp4", b"mine"), 17, ("made.mp4",)),
]  # fmt: skip


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Bench]]:
    """Makes benches, each as fresh as the first."""
    folder = tmp_path_factory.mktemp("benches")
    made: list[Bench] = []
    archive = folder / "archive"
    archive.mkdir()
    build_session(archive, Plan(observations=(observation(1, "face_absent", 2.0, 4.0),)))
    room = DemoRoom(folder / "provisioned", default_desks()[:1], 600)
    room.set_up()
    record_something(folder / "store")

    def make() -> Bench:
        made.append(Bench(folder / f"bench-{len(made)}", folder / "provisioned", archive))
        return made[-1]

    yield make
    room.stop()
    for bench in made:
        shutil.rmtree(bench.run_dir, ignore_errors=True)


def record_something(root: Path) -> None:
    """A store with a session of three fragments in it."""
    desk = Desk(root)
    desk.begin()
    video = desk.segment()
    for number in range(3):
        video.put(RecordKind.FRAGMENT, 900, number * FRAGMENT_90K)
    video.seal(3 * FRAGMENT_90K)
    desk.store.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(benches: Callable[[], Bench], case: Case) -> None:
    bench = benches()
    case.damage(bench)
    before = digests(bench.folder)
    more = [bench.folder / each if (bench.folder / each).is_file() else each for each in case.more]
    answer = invigil(*argv(bench, case.command), *more)
    is_refusal(answer, case.code, *case.words)
    after = digests(bench.folder)
    assert {name: after.get(name) for name in before} == before, (
        "something that was there is another, or gone"
    )
    made = {name for name in after if name.startswith("made") and name not in before}
    assert made == set(), "what could not be made is not there in part"


@pytest.mark.parametrize("how", ["missing", "altered"])
def test_models_that_are_not_the_pinned_ones(tmp_path: Path, how: str) -> None:
    """A copy of their package stands before the installed one. The control is the copy as it is."""
    model = other_models(tmp_path) / "face_landmark.tflite"
    instead = {"PYTHONPATH": str(tmp_path)}
    picture = tmp_path / "grey.png"
    cv2.imwrite(str(picture), np.full((64, 64, 3), 128, np.uint8))
    control = invigil("inspect", picture, env=instead)
    assert (control.code, control.err) == (0, "")
    if how == "missing":
        model.unlink()
    else:
        model.write_bytes(model.read_bytes()[:-1] + b"x")
    is_refusal(invigil("inspect", picture, env=instead), 8, "face_landmark.tflite")


def test_frames_may_not_lie_on_a_disk(benches: Callable[[], Bench]) -> None:
    """F085: `run_dir` on a disk is refused; what the store holds stays as it is."""
    bench = benches()
    with_store(bench)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as on_disk:
        bench.change("node/node.toml", str(bench.run_dir), on_disk)
        answer = invigil(*argv(bench, "camera"))
        assert list(Path(on_disk).iterdir()) == []
    is_refusal(answer, 3, "frame ring would lie on a disk")
    check = invigil(*argv(bench, "check"))
    assert check.code == 0, check


@pytest.mark.parametrize(
    "arguments", [[], ["keys"], ["room", "account"], ["archive"], ["provision"], ["store"]]
)
def test_help_says_what_each_command_does(arguments: list[str]) -> None:
    """No line of the list is cut off, and every command of the list has one."""
    listed = invigil(*arguments, "--help").out.partition("Commands:\n")[2].splitlines()
    assert listed
    for line in listed:
        words = line.strip().partition("  ")[2]
        assert words.strip(), line
        assert not line.endswith("..."), line


@pytest.mark.parametrize(
    "command",
    ["account", "root", "representative", "set", "sign", "show", "desk", "verify", "open", "report", "check"],
)
def test_control_the_same_commands_work(benches: Callable[[], Bench], command: str) -> None:
    bench = benches()
    with_store(bench)
    answer = invigil(*argv(bench, command))
    assert (answer.code, answer.err) == (0, "")


def greets(port: int) -> bool:
    """Whether TLS is spoken there. Mosquitto's port answers sooner, before a SIGTERM would end it in good order."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port), 0.5) as plain, context.wrap_socket(plain):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("command", "says"),
    [("camera", "store.recovered"), ("sync", "link.ended"), ("serve", "room.up"), ("broker", None)],
)
def test_control_the_same_services_run(benches: Callable[[], Bench], command: str, says: str | None) -> None:
    """They start, and end with SIGTERM and code 0; the broker says nothing, but greets."""
    bench = benches()
    with_store(bench)
    log = bench.folder / "log"
    port = tomllib.loads((bench.room / "room.toml").read_text())["broker_port"]
    service = Supervised(
        command, [*INVIGIL, *map(str, argv(bench, command))], log, restart=False, env=NODE_ENVIRONMENT
    )
    try:
        wait_until(command, lambda: greets(port) if says is None else says in log.read_text(), 60)
    finally:
        code = service.stop()
    assert code == 0
    assert "Traceback" not in log.read_text()
