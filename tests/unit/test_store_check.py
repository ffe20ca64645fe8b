"""`invigil store check` names what is wrong, each next to a store where all is well."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.evf import RecordKind
from appliance.store.check import check_store
from appliance.store.ledger import Ledger
from tests.unit.test_store_builders import FRAGMENT_90K, SID, Desk

VIDEO = f"segments/{SID}/0-video-0.evf"
LOG = f"segments/{SID}/0-log-0.evf"
WRAP = f"wraps/{SID}.0.media.evk"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One closed and one growing segment, an event, a wrap, a ledger; nobody writing."""
    desk = Desk(tmp_path)
    desk.begin()
    video, log = desk.segment(), desk.segment("log", "log")
    video.put(RecordKind.INIT, 500, 0)
    video.put(RecordKind.FRAGMENT, 9000, 0)
    log.put(RecordKind.EVENT, 80, 90)
    desk.store.append_event(SID, {"kind": "open"})
    video.seal(FRAGMENT_90K)
    desk.store.close()
    Ledger(tmp_path / "ledger.db").close()
    return tmp_path


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def sql(root: Path, statement: str) -> None:
    connection = sqlite3.connect(root / "index.db")
    connection.execute("PRAGMA foreign_keys = OFF")
    assert connection.execute(statement).rowcount == 1
    connection.commit()
    connection.close()


def found(root: Path) -> str:
    return "\n".join(f"{problem.where} {problem.what}" for problem in check_store(root))


def test_all_is_well(root: Path) -> None:
    assert check_store(root) == []


def test_no_store_has_no_problems(tmp_path: Path) -> None:
    assert check_store(tmp_path) == []


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped byte in a closed segment": (
        lambda r: flip(r / VIDEO, 5000),
        f"{VIDEO} record 1 is not what was recorded",
    ),
    "flipped byte in a growing segment": (
        lambda r: flip(r / LOG, -5),
        f"{LOG} record 0 is not what was recorded",
    ),
    "flipped byte in a header": (lambda r: flip(r / VIDEO, 3), f"{VIDEO} has no readable header"),
    "flipped byte in a wrap": (lambda r: flip(r / WRAP, 7), f"{WRAP} is not the file that was written"),
    "missing segment": (lambda r: (r / VIDEO).unlink(), f"{VIDEO} is missing"),
    "missing wrap": (lambda r: (r / WRAP).unlink(), f"{WRAP} is missing"),
    "cut segment": (lambda r: (r / VIDEO).write_bytes((r / VIDEO).read_bytes()[:-1]), f"{VIDEO} holds "),
    "longer segment": (lambda r: (r / VIDEO).write_bytes((r / VIDEO).read_bytes() + b"x"), f"{VIDEO} holds "),
    "missing segment row": (
        lambda r: sql(r, "DELETE FROM segments WHERE name = '0-log-0.evf'"),
        f"{LOG} has no row",
    ),
    "missing record row": (
        lambda r: sql(r, "DELETE FROM records WHERE segment_id = 1 AND record_index = 1"),
        "belongs to no record and no event",
    ),
    "missing leaf row": (
        lambda r: sql(r, "DELETE FROM leaves WHERE leaf_index = 1"),
        "leaves, but they are numbered",
    ),
    "missing event row": (lambda r: sql(r, "DELETE FROM events"), "belongs to no record and no event"),
    "altered event": (
        lambda r: sql(r, "UPDATE events SET body = '{}'"),
        "event at leaf 3 is not what was recorded",
    ),
    "stranger": (lambda r: (r / f"segments/{SID}/x").write_bytes(b"x"), f"segments/{SID}/x has no row"),
    "other uuid": (lambda r: (r / "store.uuid").write_text("other\n"), "do not belong together"),
    "lost database": (lambda r: (r / "index.db").unlink(), "index.db is missing"),
    "damaged database": (lambda r: flip(r / "index.db", 20), "index.db"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(root: Path, damage: Callable[[Path], None], words: str) -> None:
    assert check_store(root) == []
    damage(root)
    before = sorted(root.rglob("*"))
    assert words in found(root)
    assert [path for path in sorted(root.rglob("*")) if not path.name.endswith(("-shm", "-wal"))] == [
        path for path in before if not path.name.endswith(("-shm", "-wal"))
    ]


def test_a_store_in_use_has_no_problems(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    video = desk.segment()
    video.put(RecordKind.FRAGMENT, 9000, 0)
    with desk.store.layout.segment(SID, video.file.name).open("ab") as stream:
        stream.write(b"CHNK half a record")
    assert check_store(tmp_path) == []
    desk.store.close()
