"""Bytes, sync, rows, acknowledgement: the order of the durable steps, seen at the operating system's edge."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from appliance.errors import NoSpace, StoreFailed
from appliance.evf import RecordKind
from appliance.store.durable import FileOps, store_failure, write_all, write_file_durably
from appliance.store.segment_file import SegmentFile
from tests.unit.test_store_builders import FRAGMENT_90K, Desk


class Recorder(FileOps):
    """Writes down each call before passing it on."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def create(self, path: Path) -> int:
        self.calls.append(f"create {path.name}")
        return super().create(path)

    def overwrite(self, path: Path) -> int:
        self.calls.append(f"overwrite {path.name}")
        return super().overwrite(path)

    def write(self, fd: int, data: memoryview) -> int:
        self.calls.append("write")
        return super().write(fd, data)

    def fdatasync(self, fd: int) -> None:
        self.calls.append("fdatasync")
        super().fdatasync(fd)

    def fsync(self, fd: int) -> None:
        self.calls.append("fsync directory" if os.path.isdir(f"/proc/self/fd/{fd}") else "fsync")  # noqa: PTH112
        super().fsync(fd)

    def rename(self, source: Path, target: Path) -> None:
        self.calls.append(f"rename {source.name} {target.name}")
        super().rename(source, target)

    def commit(self, connection: sqlite3.Connection) -> None:
        self.calls.append("commit")
        super().commit(connection)


DURABLE_APPEND = ["write", "fdatasync", "commit", "return"]


def calls_of_one_append(tmp_path: Path) -> list[str]:
    recorder = Recorder()
    desk = Desk(tmp_path, recorder)
    desk.begin()
    video = desk.segment()
    recorder.calls.clear()
    video.put(RecordKind.FRAGMENT, 300_000, 0)
    recorder.calls.append("return")
    desk.store.close()
    return recorder.calls


def test_a_record_is_written_synced_and_committed_before_it_is_acknowledged(tmp_path: Path) -> None:
    assert calls_of_one_append(tmp_path) == DURABLE_APPEND


def test_control_a_writer_in_another_order_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.store.segment_file.fdatasync", lambda fd, file_ops: None)
    assert calls_of_one_append(tmp_path) != DURABLE_APPEND


def test_a_segment_is_on_disk_before_its_row(tmp_path: Path) -> None:
    recorder = Recorder()
    desk = Desk(tmp_path, recorder)
    desk.begin()
    recorder.calls.clear()
    video = desk.segment()
    assert recorder.calls == ["create 0-video-0.evf", "write", "fsync", "fsync directory", "commit"]
    recorder.calls.clear()
    video.seal(FRAGMENT_90K)
    assert recorder.calls == ["write", "fdatasync", "commit"]
    desk.store.close()


def test_a_wrap_is_durable_before_its_row(tmp_path: Path) -> None:
    recorder = Recorder()
    desk = Desk(tmp_path, recorder)
    desk.begin()
    recorder.calls.clear()
    desk.store.write_wrap("0123456789abcdef0123456789abcdef", 0, "log", b"sealed")
    name = "0123456789abcdef0123456789abcdef.0.log.evk"
    assert recorder.calls == [
        f"overwrite {name}.tmp", "write", "fsync", f"rename {name}.tmp {name}", "fsync directory", "commit",
    ]  # fmt: skip
    desk.store.close()


def test_the_database_syncs_each_commit(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    settings = {
        name: desk.store._connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("synchronous", "journal_mode")
    }
    assert settings == {"synchronous": 2, "journal_mode": "wal"}
    desk.store.close()


class OneByteAtATime(FileOps):
    def write(self, fd: int, data: memoryview) -> int:
        return super().write(fd, data[:1])


class TakesNothing(FileOps):
    def write(self, fd: int, data: memoryview) -> int:
        return 0


def test_short_writes_are_continued(tmp_path: Path) -> None:
    write_file_durably(tmp_path / "file", b"abcdefgh", OneByteAtATime())
    assert (tmp_path / "file").read_bytes() == b"abcdefgh"


def test_a_write_that_takes_nothing_does_not_loop_for_ever(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError, match="took no bytes"):
            write_all(fd, b"abc", TakesNothing())
    finally:
        os.close(fd)


def test_a_failed_rewrite_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file_durably(path, b"old")
    with pytest.raises(StoreFailed):
        write_file_durably(path, b"new", TakesNothing())
    assert path.read_bytes() == b"old"


def test_a_full_disk_has_its_own_error() -> None:
    assert isinstance(store_failure("x", OSError(28, "No space left on device")), NoSpace)
    other = store_failure("cannot append", OSError(5, "Input/output error"))
    assert not isinstance(other, NoSpace)
    assert (str(other), bool(other.hint)) == ("cannot append: input/output error", True)


def test_the_append_path_never_imports_sqlite_utils() -> None:
    """It costs 18 times the CPU an insert (DESIGN.md); migrations alone load it."""
    module = Path(SegmentFile.__module__.replace(".", "/") + ".py")
    store = Path(__file__).resolve().parents[2] / module.parent
    users = [path.name for path in store.glob("*.py") if "from sqlite_utils" in path.read_text()]
    assert sorted(users) == ["database.py", "ledger.py", "schema.py"]  # the last two for annotations only
