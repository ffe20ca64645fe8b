"""`invigil store check --repair`: what it mends, what it leaves named, and that it deletes no bytes."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance.cli import app
from appliance.errors import StoreFailed
from appliance.evf import Outcome, RecordKind
from appliance.store.check import check_store
from appliance.store.ledger import Ledger
from appliance.store.recording import RecordingStore
from appliance.store.repair import Repair, repair_store
from appliance.store.view import RecordingView
from tests.manual_clock import ManualClock
from tests.unit.test_store_builders import FRAGMENT_90K, SID, Desk
from tests.unit.test_store_check import flip, sql

VIDEO = f"segments/{SID}/0-video-0.evf"
LATER = f"segments/{SID}/0-video-1.evf"
WRAP = f"wraps/{SID}.0.media.evk"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ended session: a closed segment of three fragments, an open-ended one, a wrap; nobody writing."""
    root = tmp_path_factory.mktemp("made") / "store"
    desk = Desk(root)
    desk.begin()
    video = desk.segment()
    video.put(RecordKind.INIT, 500, 0)
    for number in range(3):
        video.put(RecordKind.FRAGMENT, 900, number * FRAGMENT_90K)
    video.seal(3 * FRAGMENT_90K)
    later = desk.segment()
    later.put(RecordKind.FRAGMENT, 900, 3 * FRAGMENT_90K)
    later.file.abandon("interrupted")
    desk.store.end_session(SID, "2026-11-22T12:00:00.000Z")
    desk.store.close()
    Ledger(root / "ledger.db").close()
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "store"))


def bytes_of(root: Path) -> set[str]:
    """Digest of every file that is no database's."""
    return {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and ".db" not in path.name
    }


def repaired(root: Path) -> Repair:
    return repair_store(root, ManualClock())


def gaps(root: Path) -> list[tuple[int, int, str]]:
    view = RecordingView(root)
    found = [(gap.start_90k, gap.end_90k, gap.cause) for gap in view.gaps(SID)]
    view.close()
    return found


def lost_and_found(root: Path) -> None:
    """A file that a start could not find, and that is then put back."""
    shutil.move(root / VIDEO, root / "aside")
    RecordingStore(root, ManualClock()).close()
    assert len(gaps(root)) == 1
    shutil.move(root / "aside", root / VIDEO)


def wrap_lost_and_found(root: Path) -> None:
    shutil.move(root / WRAP, root / "aside")
    RecordingStore(root, ManualClock()).close()
    shutil.move(root / "aside", root / WRAP)


def broken_lookup(root: Path) -> None:
    """An index of SQLite's own that no longer agrees with its table."""
    with closing(sqlite3.connect(root / "index.db")) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name LIKE 'sqlite_autoindex_segments%'"
        ).fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray((root / "index.db").read_bytes())
    start = (page - 1) * 4096
    entry = data.index(b"0-video-1.evf", start, start + 4096)
    data[entry : entry + 13] = b"0-video-7.evf"
    (root / "index.db").write_bytes(data)


def stray(root: Path, name: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(name.encode())


def linked(root: Path) -> None:
    (root / f"segments/{SID}/link.evf").symlink_to(root / VIDEO)


def taken_away(root: Path) -> None:
    stray(root, f"segments/{SID}/stranger")
    RecordingStore(root, ManualClock()).close()
    for path in (root / "quarantine").iterdir():
        path.unlink()


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"behind the end")


MENDED: dict[str, tuple[Callable[[Path], None], str]] = {
    "torn record": (lambda r: append(r / LATER), "bytes of torn records cut"),
    "stranger": (
        lambda r: stray(r, f"segments/{SID}/x"),
        f"segments/{SID}/x set aside",
    ),
    "file at another depth": (lambda r: stray(r, "segments/x"), "segments/x set aside"),
    "file below a wrap folder": (lambda r: stray(r, "wraps/old/x.evk"), "wraps/old/x.evk set aside"),
    "link": (linked, f"segments/{SID}/link.evf set aside"),
    "segment that is back": (lost_and_found, f"{VIDEO} was missing and is back, 5 records"),
    "wrap that is back": (wrap_lost_and_found, f"{WRAP} was missing and is back"),
    "bytes behind a closed segment": (lambda r: append(r / VIDEO), f"{VIDEO} 14 bytes behind its end are cut"),
    "quarantined file without a row": (lambda r: stray(r, "quarantine/x"), "quarantine/x had no row"),
    "quarantined file taken away": (taken_away, "was taken away by hand"),
    "lost uuid": (lambda r: (r / "store.uuid").unlink(), "store.uuid was missing; written again, since 2 files"),
    "damaged lookup": (broken_lookup, "its lookups were damaged"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "words"), MENDED.values(), ids=MENDED)
def test_what_is_mended_is_said_once_and_no_bytes_are_deleted(
    root: Path, damage: Callable[[Path], None], words: str
) -> None:
    footage = {
        hashlib.sha256((root / name).read_bytes()).hexdigest() for name in (VIDEO, LATER, WRAP, "store.uuid")
    }
    damage(root)
    before = bytes_of(root) - ({hashlib.sha256((root / LATER).read_bytes()).hexdigest()} - footage)
    assert [problem for problem in check_store(root) if not problem.set_aside] != []
    first = repaired(root)
    assert words in "\n".join(f"{done.where} {done.what}" for done in first.done)
    assert first.whole
    assert [problem for problem in check_store(root) if not problem.set_aside] == []
    assert before | footage <= bytes_of(root)
    backups = sorted(path.name for path in root.glob("index.db.*") if "lock" not in path.name)
    second = repaired(root)
    assert second.done == []
    assert second.left == first.left
    assert sorted(path.name for path in root.glob("index.db.*") if "lock" not in path.name) == backups


def test_a_store_where_all_is_well_is_not_touched(root: Path) -> None:
    before = {path.name for path in root.iterdir()}, bytes_of(root)
    found = repaired(root)
    assert (found.done, found.left, found.whole) == ([], [], True)
    assert ({path.name for path in root.iterdir()}, bytes_of(root)) == before


def test_a_finished_segment_that_has_changed_ends_before_the_change_and_is_kept_as_found(root: Path) -> None:
    data = bytearray((root / VIDEO).read_bytes())
    data[-500] ^= 1  # in the last fragment
    (root / VIDEO).write_bytes(data)
    store = RecordingStore(root, ManualClock())
    store.close()
    assert store.recovery.damaged == [], "control: a start does not read it again"
    found = repaired(root)
    assert [done.what for done in found.done if done.where == VIDEO] == [
        "has changed since it was finished; examined again",
        "ends before its first changed record; a gap names the rest",
        "set aside in the quarantine, as it was found",
    ]
    assert not found.whole, "what is lost stays named"
    assert bytes(data) in [path.read_bytes() for path in (root / "quarantine").iterdir()]
    desk = Desk(root)
    assert desk.outcome("0-video-0.evf") == (Outcome.OPEN_ENDED, 3)
    desk.store.close()
    assert [(start, end) for start, end, _ in gaps(root)] == [(2 * FRAGMENT_90K, 3 * FRAGMENT_90K)]
    view = RecordingView(root)
    lost = view.lost(SID)
    view.close()
    assert [(row.leaf_index, row.name, row.time_90k) for row in lost] == [
        (3, "0-video-0.evf", 2 * FRAGMENT_90K),
        (4, "0-video-0.evf", 3 * FRAGMENT_90K),
    ]
    again = repaired(root)
    assert again.done == []
    assert again.left == found.left


STAYS: dict[str, tuple[Callable[[Path], None], str]] = {
    "lost segment": (lambda r: (r / VIDEO).unlink(), f"{VIDEO} is missing"),
    "lost wrap": (lambda r: (r / WRAP).unlink(), f"{WRAP} is missing"),
    "changed wrap": (lambda r: flip(r / WRAP, 7), f"{WRAP} is not the file that was written"),
    "changed header": (lambda r: flip(r / VIDEO, 340), f"{VIDEO} is not the file that was recorded"),
    "altered event": (
        lambda r: sql(r, "UPDATE leaves SET leaf = zeroblob(32) WHERE leaf_index = 0"),
        "its leaf differs",
    ),
}


@pytest.mark.parametrize(("damage", "words"), STAYS.values(), ids=STAYS)
def test_what_cannot_be_mended_stays_named_and_is_no_success(
    root: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(root)
    first, second = repaired(root), repaired(root)
    assert words in "\n".join(f"{problem.where} {problem.what}" for problem in first.left)
    assert not first.whole
    assert second.left == first.left
    assert second.done == []


def test_a_certified_session_is_left_as_its_manifest_says(root: Path) -> None:
    (root / f"manifests/{SID}.json").write_bytes(b"{}")
    flip(root / VIDEO, -1200)
    before = bytes_of(root)
    found = repaired(root)
    assert (found.done, found.whole) == ([], False)
    assert bytes_of(root) == before


@pytest.mark.parametrize("name", ["index.db", "ledger.db"])
def test_refused_while_a_service_holds_a_database(root: Path, name: str) -> None:
    holder = RecordingStore(root, ManualClock()) if name == "index.db" else Ledger(root / name)
    stray(root, "segments/x")
    with pytest.raises(StoreFailed, match=f"{name} is being written by another process"):
        repaired(root)
    assert (root / "segments/x").exists()
    holder.close()
    if name == "index.db":
        assert repaired(root).whole


def test_only_a_salvage_helps_is_said(root: Path) -> None:
    (root / "store.uuid").write_text("another\n")
    with pytest.raises(StoreFailed, match="do not belong together") as refusal:
        repaired(root)
    assert "salvage" in refusal.value.hint
    for path in root.glob("index.db*"):
        path.unlink()
    with pytest.raises(StoreFailed, match="is missing") as refusal:
        repaired(root)
    assert "salvage" in refusal.value.hint


def test_a_uuid_is_not_made_up_for_files_that_the_index_does_not_know(root: Path) -> None:
    (root / "store.uuid").unlink()
    flip(root / VIDEO, -1200)
    with pytest.raises(StoreFailed, match="nothing shows"):
        repaired(root)
    assert not (root / "store.uuid").exists()


def test_a_damaged_database_is_not_repaired_into_another_one(root: Path) -> None:
    with closing(sqlite3.connect(root / "index.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'records'").fetchone()
    data = bytearray((root / "index.db").read_bytes())
    data[(page - 1) * 4096 : (page - 1) * 4096 + 200] = b"\xff" * 200
    (root / "index.db").write_bytes(data)
    with pytest.raises(StoreFailed, match=r"malformed|damaged") as refusal:
        repaired(root)
    assert "invigil store salvage" in refusal.value.hint
    assert (root / "index.db").read_bytes() == bytes(data)


def test_the_index_as_found_is_kept_when_rows_change(root: Path) -> None:
    lost_and_found(root)
    found = repaired(root)
    assert found.done[-1].where == "index.db.before-repair"
    with closing(sqlite3.connect(root / "index.db.before-repair")) as connection:
        assert connection.execute("SELECT state FROM segments WHERE name = '0-video-0.evf'").fetchall() == [
            ("missing",)
        ]
    assert gaps(root) == []


def test_the_command_says_what_it_did_and_exits_0_when_whole(root: Path) -> None:
    runner = CliRunner()
    stray(root, f"segments/{SID}/x")
    assert runner.invoke(app, ["store", "check", str(root)]).exit_code == 7
    done = runner.invoke(app, ["store", "check", str(root), "--repair"])
    assert (done.exit_code, done.output.splitlines()[0]) == (
        0,
        f"repaired: segments/{SID}/x: set aside in the quarantine, as it was found",
    )
    assert done.output.splitlines()[-1] == f"{root}: files and databases agree"
    (root / VIDEO).unlink()
    again = runner.invoke(app, ["store", "check", str(root), "--repair"])
    assert again.exit_code == 7
    assert f"stays: {VIDEO}: is missing" in again.output
