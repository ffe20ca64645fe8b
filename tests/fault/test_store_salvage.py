"""A store whose database is gone, a card that dies: what salvage copies, what a representative's key opens of it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from appliance.archive.cli import app as archive
from appliance.archive.opening import LoneKeys
from appliance.archive.salvaged import salvaged_segments, write_salvaged_video
from appliance.archive.trust import Trust
from appliance.cli import app as invigil
from appliance.config import ArchiveConfig, load_config
from appliance.errors import BadInput, NoSpace, Refused
from appliance.evf.errors import EvfError
from appliance.evf.reader import scan_segment
from appliance.store.recording import RecordingStore
from appliance.store.salvage import salvage_store
from appliance.store.salvage_report import SalvageReport, SegmentFound
from appliance.store.salvage_scan import examine_segment
from tests.camera_recording import INIT, REPRESENTATIVE, Recording
from tests.manual_clock import ManualClock
from tests.sessions import SID, Built, Plan, build_session
from tests.unit.test_store_builders import SID as NODE_SID

FRAGMENTS = 4
PLAN = Plan(
    epochs=2,
    segments=2,
    fragments=FRAGMENTS,
    fragment=lambda second: f"[{second:06d}]".encode() * 700,  # 5.6 kB: more than a sector
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_session(tmp_path_factory.mktemp("made"), PLAN)


@pytest.fixture
def store(made: Built, tmp_path: Path) -> Path:
    """The same files as a node keeps them, without index.db."""
    root = tmp_path / "store"
    shutil.copytree(made.folder / "segments", root / "segments" / SID)
    shutil.copytree(made.folder / "wraps", root / "wraps")
    for name in ("store.uuid", "ledger.db", "reserve"):
        (root / name).write_bytes(b"of the store itself")
    return root


def salvaged(store: Path, out: Path) -> SalvageReport:
    return salvage_store(store, out, ManualClock())


def opening(made: Built, command: str, what: Path, film: Path) -> Result:
    """`invigil archive open` or `open-salvaged` with the representative's key."""
    keys = ["--key", str(made.key), "--passphrase-file", str(made.passphrase)]
    more = ["--config", str(made.config), "--out", str(film)]
    return CliRunner().invoke(archive, [command, str(what), *keys, *more])


def opened(made: Built, out: Path, film: Path) -> Result:
    return opening(made, "open-salvaged", out / "sessions" / SID, film)


def seconds(film: Path) -> list[int]:
    """When each fragment of a film begins, by its own bytes, each of which must be whole."""
    data = film.read_bytes()
    found = sorted({int(part[1:7]) for part in data.split(b"]") if part.startswith(b"[")})
    assert all(data.count(f"[{second:06d}]".encode()) == 700 for second in found)
    return found


def segment(report: SalvageReport, name: str) -> SegmentFound:
    (session,) = report.sessions
    return next(each for each in session.segments if each.name == name)


def record(path: Path, index: int) -> tuple[int, int]:
    """Where a record stands in an undamaged file."""
    with path.open("rb") as stream:
        found = scan_segment(stream).records[index]
    return found.offset_bytes, found.length_bytes


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(data)


def flip(path: Path, at: int) -> None:
    data = path.read_bytes()
    overwrite(path, at, bytes([data[at] ^ 1]))


def state_of(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Bytes and times of every file."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.lstat().st_mtime_ns,
            path.lstat().st_mode,
        )
        for path in sorted(folder.rglob("*"))
    }


def test_a_store_without_its_database_gives_the_whole_film_again(
    made: Built, store: Path, tmp_path: Path
) -> None:
    before = state_of(store)
    report = salvaged(store, tmp_path / "out")
    assert report.whole
    result = opened(made, tmp_path / "out", tmp_path / "film.mp4")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "film.mp4").read_bytes() == made.film.read_bytes()
    assert state_of(store) == before
    assert "completeness is not proven" in result.output
    words = (tmp_path / "out/salvage.txt").read_text()
    assert "no signed manifest is here" in words
    assert "to be deleted, this copy as well, by 2027-05-22" in words


def test_each_salvaged_segment_opens_with_the_ordinary_command(
    made: Built, store: Path, tmp_path: Path
) -> None:
    salvaged(store, tmp_path / "out")
    lone = tmp_path / "out/sessions" / SID / "segments/1-video-0.evf"
    film = tmp_path / "lone.mp4"
    result = opening(made, "open", lone, film)
    assert result.exit_code == 0, result.output
    assert len(seconds(film)) == FRAGMENTS


def test_damage_of_every_kind_costs_only_what_it_hit(made: Built, store: Path, tmp_path: Path) -> None:
    """F146: each is named with its file, byte and record, and all other frames are in the film."""
    folder = store / "segments" / SID
    everything = seconds(made.film)
    flipped, torn = folder / "0-video-0.evf", folder / "0-video-1.evf"
    cut, zeroed = folder / "1-video-0.evf", folder / "1-video-1.evf"
    in_body, in_frame = record(flipped, 2), record(torn, 1)
    last, page = record(cut, 4), record(zeroed, 3)
    flip(flipped, in_body[0] + 3000)  # fragment 1: its ciphertext
    flip(torn, in_frame[0] + 1)  # fragment 0: its framing
    cut.write_bytes(cut.read_bytes()[: last[0] + 100])  # inside fragment 3
    overwrite(zeroed, page[0] + 500, bytes(4096))  # fragment 2: a page never written

    report = salvaged(store, tmp_path / "out")
    assert not report.whole
    assert segment(report, flipped.name).closed, "without a key a flipped bit in ciphertext is not seen"
    (damage,) = segment(report, torn.name).damage
    assert (damage.byte, damage.bytes, damage.record) == (in_frame[0], in_frame[1], 1)
    assert [each.index for each in segment(report, torn.name).behind] == [2, 3, 4, 5]
    (damage,) = segment(report, cut.name).damage
    assert (damage.byte, damage.bytes, damage.record) == (last[0], 100, 4)
    assert damage.what == "the file ends inside record 4"
    (damage,) = segment(report, zeroed.name).damage
    assert (damage.byte, damage.record, damage.what) == (page[0], 3, "a page of zeros stands inside it")

    result = opened(made, tmp_path / "out", tmp_path / "film.mp4")
    assert result.exit_code == 0, result.output
    lost = {everything[at] for at in (0 + 1, FRAGMENTS + 0, 2 * FRAGMENTS + 3, 3 * FRAGMENTS + 2)}
    assert seconds(tmp_path / "film.mp4") == [second for second in everything if second not in lost]
    assert f"{flipped.name}: 1 records do not open and are left out, the first at 00:00:02" in result.output
    assert f"{torn.name}: damaged from byte {in_frame[0]} on" in result.output


def test_control_without_salvage_the_damaged_file_gives_nothing(
    made: Built, store: Path, tmp_path: Path
) -> None:
    path = store / "segments" / SID / "0-video-0.evf"
    flip(path, record(path, 2)[0] + 3000)
    shutil.copytree(store / "wraps", path.parent.parent / "wraps")
    film = tmp_path / "film.mp4"
    assert opening(made, "open", path, film).exit_code != 0
    assert not film.exists()


def test_a_damaged_init_is_replaced_by_that_of_the_next_segment(
    made: Built, store: Path, tmp_path: Path
) -> None:
    path = store / "segments" / SID / "0-video-0.evf"
    flip(path, record(path, 0)[0] + 30)
    salvaged(store, tmp_path / "out")
    result = opened(made, tmp_path / "out", tmp_path / "film.mp4")
    assert result.exit_code == 0, result.output
    assert seconds(tmp_path / "film.mp4") == seconds(made.film)


def test_what_is_missing_or_cannot_be_opened_is_said(store: Path, tmp_path: Path) -> None:
    folder = store / "segments" / SID
    (folder / "0-video-0.evf").unlink()
    flip(folder / "1-video-0.evf", 20)  # its header
    next((store / "wraps").glob("*.1.media.evk")).unlink()
    report = salvaged(store, tmp_path / "out")
    (session,) = report.sessions
    assert session.missing == ["0-video-0.evf", "1-video-0.evf"]
    assert not segment(report, "1-video-1.evf").key
    words = (tmp_path / "out/salvage.txt").read_text()
    assert "0-video-0.evf: not found, though a later one of its track is" in words
    assert "a segment that nobody can open" in words
    assert "no wrapped key of its epoch and class is here" in words
    assert (tmp_path / "out/damaged/without-session/1-video-0.evf").is_file()
    body = json.loads((tmp_path / "out/salvage.json").read_bytes())
    assert body["whole"] is False
    assert body["sessions"][0]["cannot_prove"]


class DyingCard:
    """A medium whose blocks in `bad` give EIO, however they are asked for; counts what it was asked."""

    def __init__(self, bad: range, size_bytes: int) -> None:
        self.bad = bad
        self.size_bytes = size_bytes
        self.asked_bytes = 0

    def read(self, fd: int, length: int, offset: int) -> bytes:
        of_this_file = os.fstat(fd).st_size == self.size_bytes
        if of_this_file and offset < self.bad.stop and offset + length > self.bad.start:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        data = os.pread(fd, length, offset)
        self.asked_bytes += len(data)
        return data


def test_a_card_with_bad_sectors_is_read_once_and_gives_all_the_others(
    made: Built, store: Path, tmp_path: Path
) -> None:
    path = store / "segments" / SID / "0-video-1.evf"
    path.write_bytes(path.read_bytes()[:-1])  # the one file of its size
    card = DyingCard(range(8192, 12288), path.stat().st_size)
    report = salvage_store(store, tmp_path / "out", ManualClock(), card.read)
    found = segment(report, path.name)
    assert found.damage[0].what == "the medium could not be read here"
    assert found.damage[0].byte <= 8192 < found.damage[0].byte + found.damage[0].bytes
    total = sum(each.stat().st_size for each in store.rglob("*.ev?"))
    assert card.asked_bytes <= total + 8 * len(list(store.rglob("*"))), "no byte is asked for twice"
    assert opened(made, tmp_path / "out", tmp_path / "film.mp4").exit_code == 0
    lost = [damage.record for damage in found.damage if damage.record <= FRAGMENTS]
    assert lost == [2, 3], "the bad block lies across two fragments"
    assert len(seconds(tmp_path / "film.mp4")) == 4 * FRAGMENTS - 2


@pytest.fixture
def read_only(store: Path, tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "card"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(mount)], check=True)
    try:
        shutil.copytree(store, mount / "store")
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        yield mount / "store"
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_a_read_only_medium_is_enough(made: Built, read_only: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Read-only"):  # control: it is
        (read_only / "x").touch()
    result = CliRunner().invoke(invigil, ["store", "salvage", str(read_only), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert opened(made, tmp_path / "out", tmp_path / "film.mp4").exit_code == 0
    assert (tmp_path / "film.mp4").read_bytes() == made.film.read_bytes()


def test_the_command_says_with_its_exit_code_that_something_is_damaged(store: Path, tmp_path: Path) -> None:
    path = store / "segments" / SID / "0-video-1.evf"
    path.write_bytes(path.read_bytes()[:-200])
    result = CliRunner().invoke(invigil, ["store", "salvage", str(store), "--out", str(tmp_path / "out")])
    assert result.exit_code == 7
    assert "0-video-1.evf: damaged" in result.output


def test_folders_that_cannot_be_used_are_refused_before_anything_is_written(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/of-something").touch()
    with pytest.raises(Refused, match="not an empty folder"):
        salvaged(store, tmp_path / "full")
    with pytest.raises(BadInput, match="lies inside"):
        salvaged(store, store / "out")
    with pytest.raises(BadInput, match="is not a folder"):
        salvaged(store / "store.uuid", tmp_path / "out")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1 << 20))
    with pytest.raises(NoSpace, match="bytes missing"):
        salvaged(store, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_pulled_session_on_a_dying_disk_verifies_as_it_did(made: Built, tmp_path: Path) -> None:
    shutil.copytree(made.folder, tmp_path / "pulled")
    report = salvaged(tmp_path / "pulled", tmp_path / "out")
    (session,) = report.sessions
    assert session.manifest is not None
    assert session.manifest.approval
    assert session.manifest.missing == session.manifest.differ == ()
    arguments = ["verify", str(tmp_path / "out/sessions" / SID), "--config", str(made.config)]
    result = CliRunner().invoke(archive, arguments)
    assert result.exit_code == 0, result.output


def test_a_manifest_names_what_is_missing_and_what_differs(made: Built, tmp_path: Path) -> None:
    shutil.copytree(made.folder, tmp_path / "pulled")
    (tmp_path / "pulled/segments/1-video-1.evf").unlink()
    cut = tmp_path / "pulled/segments/1-video-0.evf"
    cut.write_bytes(cut.read_bytes()[:-10])
    (tmp_path / "pulled/approval.json").unlink()
    report = salvaged(tmp_path / "pulled", tmp_path / "out")
    (session,) = report.sessions
    assert session.manifest is not None
    assert (session.manifest.missing, session.manifest.differ) == (("1-video-1.evf",), ("1-video-0.evf",))
    assert "no approval is here" in (tmp_path / "out/salvage.txt").read_text()


def test_of_two_copies_the_better_one_is_taken_and_both_are_kept(
    made: Built, store: Path, tmp_path: Path
) -> None:
    path = store / "segments" / SID / "0-video-0.evf"
    (store / "quarantine").mkdir()
    shutil.copy(path, store / "quarantine/as-found")  # known by its first bytes, whatever its name
    flip(path, record(path, 1)[0] + 1)
    report = salvaged(store, tmp_path / "out")
    assert segment(report, path.name).found == "quarantine/as-found"
    assert opened(made, tmp_path / "out", tmp_path / "film.mp4").exit_code == 0
    assert seconds(tmp_path / "film.mp4") == seconds(made.film)
    damaged = {hashlib.sha256(each.read_bytes()).hexdigest() for each in (tmp_path / "out").rglob("*.evf")}
    assert hashlib.sha256(path.read_bytes()).hexdigest() in damaged


def test_a_real_nodes_store_without_its_index_opens_with_the_representatives_key(
    made: Built, tmp_path: Path
) -> None:
    """Recorded by the recorder, with real wraps; index.db is deleted, as on a card whose first sectors died."""
    node = Recording(tmp_path / "store")
    node.film(0, 70)
    node.recorder.close(70 * 90_000)
    node.store.end_session(NODE_SID, "2026-11-22T12:00:00.000Z")
    node.store.close()
    for path in (tmp_path / "store").glob("index.db*"):
        path.unlink()
    report = salvaged(tmp_path / "store", tmp_path / "out")
    assert report.whole
    trust = Trust.load(load_config(made.config, ArchiveConfig))
    segments = salvaged_segments(tmp_path / "out/sessions" / NODE_SID)
    with (tmp_path / "film").open("wb") as stream:
        film = write_salvaged_video(segments, lambda path: LoneKeys(path, REPRESENTATIVE, trust), stream)
    assert film.fragments == 35
    expected = INIT.data + b"".join(f"fragment at {at:.1f}".encode() * 20 for at in range(0, 70, 2))
    assert (tmp_path / "film").read_bytes() == expected


def test_no_damage_makes_the_scan_fail_or_find_what_was_not_recorded(made: Built, tmp_path: Path) -> None:
    """Every truncation of a small segment, and many random edits: no crash, and no record that is not there."""
    whole = (made.folder / "segments/0-video-0.evf").read_bytes()
    path = tmp_path / "segment"
    path.write_bytes(whole)
    there = {(each.index, each.offset_bytes) for each in examine_segment(path).beginning}
    chance = random.Random(20261122)
    cases = [whole[:size] for size in range(0, len(whole), 97)]
    for _ in range(300):
        data = bytearray(whole)
        at, size = chance.randrange(len(data)), chance.choice([1, 1, 8, 512, 4096])
        data[at : at + size] = chance.randbytes(min(size, len(data) - at))
        cases.append(bytes(data))
    seen = 0
    for data in cases:
        path.write_bytes(data)
        try:
            found = examine_segment(path)
        except EvfError:
            continue
        seen += 1
        records = {(each.index, each.offset_bytes) for each in (*found.beginning, *found.behind)}
        assert records <= there
        covered = found.prefix_bytes + sum(each.length_bytes for each in (*found.beginning, *found.behind))
        assert covered + sum(each.bytes for each in found.damage) == len(data), "every byte is accounted for"
    assert seen > 300


def test_control_a_store_that_is_whole_says_so_and_its_database_would_open(tmp_path: Path) -> None:
    node = Recording(tmp_path / "store")
    node.film(0, 4)
    node.recorder.close(4 * 90_000)
    node.store.end_session(NODE_SID, "2026-11-22T12:00:00.000Z")
    node.store.close()
    RecordingStore(tmp_path / "store", ManualClock()).close()
    assert salvaged(tmp_path / "store", tmp_path / "out").whole
