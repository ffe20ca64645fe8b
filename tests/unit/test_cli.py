"""The command line: staff's way from keys to a desk, and for every bad input one line, a hint and a stable code."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance import cli, errors

PASSPHRASE = "a long enough passphrase"
POLICY = """
id = "stat1-2026"
version = 1
institution = "uni"
exam = "stat1"
exam_title = "Statistics I"
authority = "Examination board"
legal_basis = "public_task"
dpa_ref = "DPA-2026-17"
exam_date = 2026-08-31
duration_s = 10800
"""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


class Invigil:
    """`invigil` in this process, or in its own (`run`)."""

    def __init__(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.folder = folder
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str) -> Answer:
        self._monkeypatch.setattr(sys, "argv", ["invigil", *arguments])
        try:
            code = cli.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        captured = self._capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    def run(self, *arguments: str, **environment: str) -> Answer:
        """As a person would start it, without a terminal."""
        done = subprocess.run(
            [sys.executable, "-m", "appliance.cli", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**os.environ, **environment},
            timeout=60,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def invigil(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Invigil:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pass").write_text(PASSPHRASE + "\n")
    (tmp_path / "wrong-pass").write_text("another long passphrase\n")
    (tmp_path / "policy.toml").write_text(POLICY)
    return Invigil(tmp_path, capsys, monkeypatch)


ROOT = ("keys", "root", "--out", "inst", "--institution", "uni", "--passphrase-file", "pass")
REPRESENTATIVE = (
    "keys",
    "representative",
    "--name",
    "Exam board",
    "--out",
    "rep",
    "--passphrase-file",
    "pass",
)
SET = (
    *(
        "keys",
        "recipient-set",
        "--root",
        "inst/root.key",
        "--passphrase-file",
        "pass",
        "--institution",
        "uni",
    ),
    *("--representative", "rep/representative.json", "--version", "1", "--out", "recipient-set.json"),
)
SIGN = (
    "policy",
    "sign",
    "policy.toml",
    "--root",
    "inst/root.key",
    "--passphrase-file",
    "pass",
    "--out",
    "p.json",
)
CA = ("provision", "ca", "--room", "room-2.14", "--out", "room", "--host", "10.0.0.5")
DESK = (
    *("provision", "desk", "desk-7", "--ca", "room", "--recipient-set", "recipient-set.json"),
    *("--root-key", "inst/root.pub", "--institution", "uni", "--broker-host", "10.0.0.5", "--out", "node"),
)


def is_refusal(answer: Answer, code: int, *words: str) -> None:
    """One line, one hint, that code, no traceback, nothing on stdout."""
    assert "Traceback" not in answer.err
    lines = answer.err.splitlines()
    assert (answer.code, len(lines), answer.out) == (code, 2, ""), answer
    assert lines[0].startswith("invigil: error: ")
    assert lines[1].startswith("invigil: hint: ")
    for word in words:
        assert word in lines[0]


def changed(command: tuple[str, ...], **values: str) -> tuple[str, ...]:
    """The command with other values for some options (`passphrase_file` is --passphrase-file)."""
    found = list(command)
    for name, value in values.items():
        found[found.index("--" + name.replace("_", "-")) + 1] = value
    return tuple(found)


def test_staff_get_from_keys_to_a_desk(invigil: Invigil) -> None:
    for command in (ROOT, REPRESENTATIVE, SET, SIGN, CA, DESK):
        answer = invigil(*command)
        assert (answer.code, answer.err) == (0, ""), answer
    for name in ("inst/root.key", "rep/representative.key", "node/trust/device.key"):
        assert stat.S_IMODE((invigil.folder / name).stat().st_mode) == 0o600
    assert (invigil.folder / "node/node.toml").is_file()
    shown = invigil("policy", "show", "p.json", "--root-key", "inst/root.pub")
    assert shown.code == 0
    assert "record_video   false\n" in shown.out
    assert "kept until     2027-02-28\n" in shown.out
    revoked = invigil("provision", "revoke", "desk-7", "--ca", "room")
    assert revoked.code == 0
    assert revoked.out.startswith("1 revoked")


def test_private_keys_are_not_in_clear(invigil: Invigil) -> None:
    """F081: PBKDF2-HMAC-SHA512 with 600,000 iterations."""
    invigil(*ROOT)
    fields = json.loads((invigil.folder / "inst/root.key").read_text())
    assert (fields["kdf"], fields["iterations"]) == ("PBKDF2-HMAC-SHA512", 600_000)


def test_keys_are_never_overwritten(invigil: Invigil) -> None:
    invigil(*ROOT)
    before = (invigil.folder / "inst/root.key").read_bytes()
    is_refusal(invigil(*ROOT), 4, "inst/root.key exists already")
    assert (invigil.folder / "inst/root.key").read_bytes() == before


def test_refusals_have_one_line_a_hint_and_a_code(invigil: Invigil) -> None:
    for command in (ROOT, REPRESENTATIVE, SET, SIGN, CA, DESK):
        assert invigil(*command).code == 0
    (invigil.folder / "short").write_text("elevenchars\n")
    (invigil.folder / "bytes").write_bytes(b"\xff\xfe\x00")
    (invigil.folder / "bad.toml").write_text(POLICY + 'colour = "red"\n')
    (invigil.folder / "other.toml").write_text(POLICY.replace('"uni"', '"other"'))
    (invigil.folder / "node.toml").write_text('institution = "uni"\n')
    (invigil.folder / "list.json").write_text("[]")
    new = {"out": "new"}
    for command, code, words in (
        (changed(ROOT, passphrase_file="short", **new), 4, "passphrase has 11 characters"),
        (changed(ROOT, passphrase_file="absent", **new), 4, "cannot read absent: no such file or directory"),
        (changed(ROOT, passphrase_file="bytes", **new), 4, "bytes is not text"),
        (changed(ROOT, institution="a b", **new), 4, "institution 'a b' is not a usable name"),
        (changed(ROOT, out="policy.toml"), 4, "policy.toml"),
        (changed(REPRESENTATIVE, name="", **new), 4, "representative's name"),
        (changed(SET, passphrase_file="wrong-pass"), 5, "passphrase does not open the key file"),
        (
            changed(SET, root="rep/representative.key"),
            7,
            "key file does not hold a key of kind institution-root",
        ),
        (changed(SET, root="bytes"), 7, "key file is malformed"),
        (changed(SET, root="absent"), 4, "cannot read absent"),
        (changed(SET, institution="other"), 4, "the root key is institution uni's, not other's"),
        (changed(SET, representative="policy.toml"), 4, "policy.toml is not a representative's public key"),
        (changed(SET, representative="rep"), 4, "cannot read rep: is a directory"),
        ((*SET, "--representative", "rep/representative.json"), 4, "names a key twice"),
        (
            tuple(w.replace("policy.toml", "bad.toml") for w in SIGN),
            4,
            "bad.toml: policy: unknown key colour",
        ),
        (tuple(w.replace("policy.toml", "bytes") for w in SIGN), 4, "bytes is not TOML"),
        (tuple(w.replace("policy.toml", "absent") for w in SIGN), 4, "cannot read absent"),
        (tuple(w.replace("policy.toml", "other.toml") for w in SIGN), 4, "institution uni's, not other's"),
        (
            ("policy", "show", "recipient-set.json", "--root-key", "inst/root.pub"),
            6,
            "not signed as exam-policy",
        ),
        (("policy", "show", "list.json", "--root-key", "inst/root.pub"), 6, "policy: "),
        (("policy", "show", "p.json", "--root-key", "node/trust/controller.pub"), 6, "signed by another key"),
        (("policy", "show", "p.json", "--root-key", "p.json"), 4, "p.json"),
        (CA, 4, "exists already"),
        (changed(CA, host="a b", **new), 4, "'a b' is no host name"),
        (DESK, 4, "exists already"),
        (changed(DESK, ca="absent", **new), 4, "absent/trust/room-ca.pem"),
        (changed(DESK, institution="other", **new), 4, "belongs to institution uni, not other"),
        (changed(DESK, recipient_set="p.json", **new), 6, "not signed as recipient-set"),
        (changed(DESK, recipient_set="bytes", **new), 4, "bytes is not JSON"),
        (changed(DESK, root_key="absent", **new), 4, "absent"),
        ((*changed(DESK, **new), "--camera", "a\x07b"), 4, "camera holds a character"),
        (
            tuple(w.replace("desk-7", "controller") for w in changed(DESK, **new)),
            4,
            "cannot be called controller",
        ),
        (("provision", "revoke", "desk-9", "--ca", "room"), 4, "no certificate was issued to desk-9"),
        (("node", "camera", "--config", "absent.toml"), 3, "cannot read absent.toml"),
        (("node", "sync", "--config", "node.toml"), 3, "node.toml: room: field required"),
        (("room", "serve", "--config", "policy.toml"), 3, "policy.toml: "),
        (("room", "broker", "--config", "bytes"), 3, "bytes is not TOML"),
        (("store", "check", "absent"), 4, "absent is not a folder"),
        (("inspect", "absent.jpg"), 4, "absent.jpg"),
    ):
        is_refusal(invigil(*command), code, words)
    assert not (invigil.folder / "new").exists()


def test_passphrase_is_not_asked_without_a_terminal(invigil: Invigil) -> None:
    is_refusal(invigil.run(*ROOT[:-2]), 4, "no terminal to ask for the passphrase on")


def test_port_in_use_has_its_own_code(invigil: Invigil) -> None:
    invigil(*CA)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (invigil.folder / "room/room.toml").write_text(
            f'institution = "uni"\nroom = "room-2.14"\nbroker_port = {port}\n'
        )
        is_refusal(
            invigil.run("room", "broker", "--config", "room/room.toml"),
            16,
            f"port {port} at 127.0.0.1 is in use",
        )


def test_bad_input_in_its_own_process(invigil: Invigil) -> None:
    is_refusal(invigil.run("node", "camera", "--config", "absent.toml"), 3, "cannot read absent.toml")
    is_refusal(invigil.run(*CA[:-1], "a b"), 4, "'a b' is no host name")
    is_refusal(invigil.run(*changed(ROOT, passphrase_file="absent")), 4, "cannot read absent")


def test_account_is_made_once(invigil: Invigil) -> None:
    (invigil.folder / "room.toml").write_text('institution = "uni"\nroom = "room-2.14"\n')
    add = (
        "room",
        "account",
        "add",
        "ana",
        "--role",
        "proctor",
        "--config",
        "room.toml",
        "--password-file",
        "pass",
    )
    assert invigil(*add).code == 0
    is_refusal(invigil(*add), 4, "account ana exists already")
    is_refusal(invigil(*changed(add, role="owner")), 4, "there is no role 'owner'")


def test_store_with_a_problem_has_code_7(invigil: Invigil) -> None:
    (invigil.folder / "empty").mkdir()
    assert invigil("store", "check", "empty").code == 0
    (invigil.folder / "torn").mkdir()
    (invigil.folder / "torn/index.db").write_bytes(b"no database" * 100)
    answer = invigil("store", "check", "torn")
    assert (answer.code, answer.err) == (7, "")
    assert answer.out.startswith("index.db: ")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["keys", "root"], ["node", "stop"], ["--colour"], ["provision", "x"]]
)
def test_usage_errors_have_code_2(invigil: Invigil, arguments: list[str]) -> None:
    answer = invigil(*arguments)
    assert answer.code == 2
    assert "Usage: invigil" in answer.err


def test_missing_extra_is_named(invigil: Invigil, monkeypatch: pytest.MonkeyPatch) -> None:
    (invigil.folder / "room.toml").write_text('institution = "uni"\nroom = "room-2.14"\n')
    monkeypatch.setitem(sys.modules, "argon2", None)
    monkeypatch.delitem(sys.modules, "appliance.room.accounts", raising=False)
    answer = invigil("room", "account", "add", "ana", "--config", "room.toml", "--password-file", "pass")
    is_refusal(answer, 1, "this command needs the extra 'room'")
    words = "in a checkout of this project: pip install '.[room]'; invigil on PyPI is another one"
    assert answer.err.endswith(f"hint: {words}\n")


def test_help_loads_nothing_heavy(invigil: Invigil) -> None:
    code = (
        "import sys; from appliance import cli\ntry: cli.main()\nexcept SystemExit: pass\n"
        "print(sorted({'numpy','cv2','av','pydantic','cryptography','boto3','fastapi','paho'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.endswith("[]\n")
    assert "provision" in done.stdout


def test_version(invigil: Invigil) -> None:
    assert invigil("--version") == Answer(0, "invigil 0.1.0\n", "")


def test_reader_that_goes_away_is_no_error(invigil: Invigil) -> None:
    """`invigil ... | head`: no traceback, nothing at the interpreter's end either."""
    process = subprocess.Popen(
        [sys.executable, "-m", "appliance.cli", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    words = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 1
    assert words == b""


def test_interrupt_has_code_130(invigil: Invigil, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("provisioning.cli.create_room", interrupted)
    assert invigil(*CA).code == 130


def test_handbook_lists_every_exit_code() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text()
    known = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type)} | {0, 2, 70, 130}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)} == known
