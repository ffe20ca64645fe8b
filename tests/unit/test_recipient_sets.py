"""Recipient sets over time: added to, taken from, rotated by the institution; an older one is refused (F083)."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance import cli
from appliance.archive.key_files import new_passphrase, show_lines
from appliance.archive.keys import RootKey, create_recipient_set
from appliance.archive.recipient_sets import SignedSet, find_person, next_set, read_recipient_set, replace_set
from appliance.errors import BadInput, NotTrusted
from appliance.evf import keyfile
from appliance.evf.canonical import canonical
from appliance.evf.errors import BadKeyFile, BadPassphrase
from appliance.evf.keyfile import load_secret, save_secret
from appliance.evf.recipients import RecipientSet, RepresentativeKey, sign_recipient_set
from provisioning.recipients import install_recipient_set
from tests.manual_clock import ManualClock
from tests.sessions import key_file, representative
from tests.unit.test_sync_room import INSTITUTION, READY, Bench

ROOT = RootKey("uni", Ed25519PrivateKey.generate())
PASSPHRASE = "correct horse battery staple"


def signed(version: int, *numbers: int) -> SignedSet:
    people = [representative(number).representative(f"person {number}") for number in numbers]
    document = create_recipient_set(ROOT, "uni", people, version, ManualClock())
    return SignedSet(RecipientSet("uni", version, document["body"]["created"], tuple(people)), document)


@pytest.fixture(autouse=True)
def fewest_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the time; what is written is held in test_evf_keys.py."""
    monkeypatch.setattr(keyfile, "ITERATIONS", keyfile.MIN_ITERATIONS)


# --- the institution ------------------------------------------------------------------------------------------------


def test_next_set_is_one_version_up_and_the_old_one_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "recipient-set.json"
    path.write_bytes(canonical(dict(signed(4, 1, 2).document)))
    current = read_recipient_set(path, ROOT.key.public_key())
    leaving = find_person(current.recipients, representative(2).kid[:8])
    following = next_set(
        ROOT,
        current.recipients,
        add=[representative(3).representative("new")],
        remove=leaving,
        clock=ManualClock(),
    )
    before = path.read_bytes()
    assert replace_set(path, current, following) == tmp_path / "recipient-set.4.json"
    assert (tmp_path / "recipient-set.4.json").read_bytes() == before
    found = read_recipient_set(path, ROOT.key.public_key()).recipients
    assert (found.version, [each.name for each in found.representatives]) == (5, ["person 1", "new"])
    assert replace_set(path, current, following)  # again after a kill between the two files
    (tmp_path / "recipient-set.4.json").write_bytes(b"something else")
    with pytest.raises(BadInput, match="is another set"):
        replace_set(path, current, following)


def test_changes_that_are_none(tmp_path: Path) -> None:
    current = signed(1, 1, 2).recipients
    with pytest.raises(BadInput, match="stands in recipient set 1 already"):
        next_set(ROOT, current, add=[representative(1).representative("again")])
    alone = signed(1, 1).recipients
    with pytest.raises(BadInput, match="nobody would be left"):
        next_set(ROOT, alone, remove=alone.representatives[0])
    for wanted in ("person 3", representative(1).kid[:7], ""):
        with pytest.raises(BadInput, match="is not in recipient set 1"):
            find_person(current, wanted)
    twins = replace(
        current, representatives=tuple(replace(each, name="Board") for each in current.representatives)
    )
    with pytest.raises(BadInput, match="name of several"):
        find_person(twins, "Board")
    with pytest.raises(BadInput, match="institution uni's, not other's"):
        next_set(ROOT, replace(current, institution="other"), add=[representative(3).representative("x")])


def test_set_of_another_root_is_not_built_upon(tmp_path: Path) -> None:
    path = tmp_path / "recipient-set.json"
    path.write_bytes(canonical(dict(signed(1, 1).document)))
    with pytest.raises(NotTrusted, match="signed by another key"):
        read_recipient_set(path, Ed25519PrivateKey.generate().public_key())
    path.write_text("no set")
    with pytest.raises(BadInput, match="is not a recipient set"):
        read_recipient_set(path, ROOT.key.public_key())


Run = Callable[..., str]


@pytest.fixture
def invigil(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    Path("pass").write_text("a long enough passphrase\n")
    Path("new-pass").write_text("quite another passphrase\n")

    def run(line: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["invigil", *line.split()])
        try:
            found = cli.main()
        except SystemExit as ended:
            found = ended.code
        said = capsys.readouterr()
        assert found == code, said
        return said.out + said.err

    return run


def test_staff_add_rotate_and_remove_by_commands(invigil: Run) -> None:
    """F084: by the institution's root key alone; who can open is listed."""
    protect = "--passphrase-file pass"
    invigil(f"keys root --out inst --institution uni {protect}")
    for name in ("ana", "bo", "bo2"):
        said = invigil(f"keys representative --out {name} --name {name} {protect}")
        assert "fingerprint " in said
    root = f"--root inst/root.key {protect}"
    invigil(
        f"keys recipient-set {root} --institution uni --version 1 --out set.json"
        " --representative ana/representative.json"
    )
    said = invigil(f"keys add --set set.json {root} --representative bo/representative.json")
    assert "set.json: recipient set 2 of uni" in said
    assert "set.1.json: the set before" in said
    assert "invigil provision recipients set.json --trust FOLDER" in said
    assert "invigil archive rewrap --set set.json" in said
    said = invigil(f"keys rotate --set set.json {root} --person bo --representative bo2/representative.json")
    assert "recipient set 3" in said
    assert "  bo2: fingerprint" in said
    assert "  bo: fingerprint" not in said
    said = invigil(f"keys remove --set set.json {root} --person ana")
    assert "recipient set 4" in said
    assert "nobody would be left" in invigil(f"keys remove --set set.json {root} --person bo2", 4)
    shown = invigil("keys show set.json")
    assert json.loads(Path("set.json").read_bytes())["body"]["version"] == 4
    assert "recipient set 4 of uni" in shown
    assert sorted(path.name for path in Path().glob("set*.json")) == [
        "set.1.json", "set.2.json", "set.3.json", "set.json",
    ]  # fmt: skip
    assert stat.S_IMODE(Path("set.json").stat().st_mode) == 0o644


# --- key files ------------------------------------------------------------------------------------------------------


def test_fingerprint_is_the_same_on_both_sides_and_covers_both_keys(tmp_path: Path) -> None:
    """Read aloud by the person, compared by who signs: neither public key can be exchanged on the way."""
    (tmp_path / "a.key").write_bytes(key_file(1))
    private = show_lines(tmp_path / "a.key", PASSPHRASE)[0]
    one = representative(1).representative("Ana")
    mixed = replace(one, signing_key=representative(2).representative("x").signing_key)
    assert one.fingerprint != mixed.fingerprint
    shown = private.partition("fingerprint ")[2].partition(",")[0]
    assert shown.replace(" ", "") == one.fingerprint
    assert one.kid in private
    path = tmp_path / "set.json"
    path.write_bytes(canonical(dict(signed(1, 1).document)))
    assert shown in show_lines(path, "")[1]
    for content in (b"nothing", b"{}", b'{"purpose":"recipient-set"}'):
        path.write_bytes(content)
        with pytest.raises(BadInput):
            show_lines(path, "")


def test_root_key_and_its_public_half_show_one_fingerprint(invigil: Run) -> None:
    invigil("keys root --out inst --institution uni --passphrase-file pass")
    public = invigil("keys show inst/root.pub")
    private = invigil("keys show inst/root.key --passphrase-file pass")
    assert public.partition("fingerprint ")[2] == private.partition("fingerprint ")[2]


def test_passphrase_is_changed_and_the_key_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    path.write_bytes(key_file(1))
    path.chmod(0o600)
    with pytest.raises(BadInput, match="at least 12"):
        new_passphrase(path, PASSPHRASE, "short")
    with pytest.raises(BadPassphrase):
        new_passphrase(path, "wrong passphrase", "quite another passphrase")
    assert path.read_bytes() == key_file(1)
    new_passphrase(path, PASSPHRASE, "quite another passphrase")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert RepresentativeKey.load(path.read_bytes(), "quite another passphrase") == representative(1)
    with pytest.raises(BadPassphrase):
        RepresentativeKey.load(path.read_bytes(), PASSPHRASE)
    assert list(tmp_path.iterdir()) == [path]
    path.write_bytes(b"{}")
    with pytest.raises(BadKeyFile):
        new_passphrase(path, PASSPHRASE, "quite another passphrase")


def test_passphrase_command(invigil: Run) -> None:
    data = save_secret("institution-root", b"secret", "a long enough passphrase")
    Path("root.key").write_bytes(data)
    line = "keys passphrase root.key --passphrase-file pass --new-passphrase-file new-pass"
    assert "opens with the new passphrase" in invigil(line)
    secret = load_secret("institution-root", Path("root.key").read_bytes(), "quite another passphrase")
    assert secret == b"secret"
    assert "does not open" in invigil(line, 5)


# --- rooms and desks ------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A provisioned desk; its folder trust/ holds set 1."""
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def problems(bench: Bench) -> tuple[str, ...]:
    return bench.orders.preflight_problems(READY)


def test_running_desk_takes_a_new_set_and_never_an_older_one(bench: Bench, tmp_path: Path) -> None:
    """Without a restart; a set it has only seen counts; the memory outlives the process and the file."""
    trust = tmp_path / "node" / "trust"
    old = (trust / "recipient-set.json").read_bytes()
    assert problems(bench) == ()
    bench.write_recipients(tmp_path / "next.json", 5)
    found, before = install_recipient_set(tmp_path / "next.json", trust)
    assert before is not None
    assert (before.version, found.version) == (1, 5)
    assert problems(bench) == ()
    (trust / "recipient-set.json").write_bytes(old)  # somebody puts the old file back
    assert "older than 5" in problems(bench)[0]
    bench.close()
    bench.open_ledger()  # as a restart does
    assert "older than 5" in problems(bench)[0]
    reply = bench.orders.take(bench.command(bench.start()), READY)
    assert reply is not None
    assert not reply.accepted
    assert "older than 5" in reply.reason
    # control: the same order with the newer set in its place again
    bench.write_recipients(trust / "recipient-set.json", 5)
    assert bench.orders.take(bench.command(bench.start()), READY).accepted  # type: ignore[union-attr]


def test_set_that_does_not_belong_is_not_installed(bench: Bench, tmp_path: Path) -> None:
    trust = tmp_path / "node" / "trust"
    bench.write_recipients(trust / "recipient-set.json", 3)
    before = (trust / "recipient-set.json").read_bytes()
    source = tmp_path / "next.json"
    other_root = Ed25519PrivateKey.generate()
    someone = RecipientSet(
        INSTITUTION, 3, "2026-11-01T09:00:00.000Z", (representative(4).representative("other"),)
    )
    for content, words in (
        (sign_recipient_set(replace(someone, version=4), other_root), "signed by another key"),
        (sign_recipient_set(someone, bench.root_key), "another recipient set 3"),
        (sign_recipient_set(replace(someone, version=2), bench.root_key), "older than 3"),
        (
            sign_recipient_set(replace(someone, version=4, institution="other"), bench.root_key),
            "institution other's",
        ),
    ):
        source.write_bytes(canonical(content))
        with pytest.raises(NotTrusted, match=words):
            install_recipient_set(source, trust)
    source.write_text("[]")
    with pytest.raises(BadInput):
        install_recipient_set(source, trust)
    with pytest.raises(BadInput, match=r"root\.pub"):
        install_recipient_set(source, tmp_path / "nowhere")
    assert (trust / "recipient-set.json").read_bytes() == before


def test_command_says_who_can_open_from_now_on(bench: Bench, tmp_path: Path, invigil: Run) -> None:
    bench.write_recipients(tmp_path / "next.json", 2)
    said = invigil("provision recipients next.json --trust node/trust")
    assert said.splitlines() == [
        "node/trust: recipient set 2 of uni: Board",
        "it was 1; nothing has to be restarted",
    ]
