"""The sync process under its own user, who may read the camera's files and create none beside them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.test_store_builders import SID, Desk

ROOT = Path(__file__).resolve().parents[2]
# Becomes nobody only once everything is imported: the interpreter itself may stand where nobody cannot look.
READ = """
import os, sys
from pathlib import Path
from appliance.store.view import RecordingView
if os.geteuid() == 0:
    os.setgroups([])
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
print([row.sid for row in RecordingView(Path(sys.argv[1])).sessions()])
"""
RECORD_AND_DIE = (
    "import os, sys; from pathlib import Path; from tests.unit.test_store_builders import Desk;"
    "Desk(Path(sys.argv[1])).begin(); os.kill(os.getpid(), 9)"
)


READERS_GID = 65534


@pytest.fixture
def root() -> Iterator[Path]:
    """A store whose group may look into it, as systemd-tmpfiles makes it; pytest's own folders are closed."""
    folder = Path(tempfile.mkdtemp(prefix="invigil-test-"))
    if os.getuid() == 0:
        os.chown(folder, -1, READERS_GID)
    folder.chmod(0o2755)
    yield folder / "store"
    (folder / "store").chmod(0o755)
    shutil.rmtree(folder)


def read_by_another_user(root: Path) -> str:
    root.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(root)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    root.chmod(0o755)
    return done.stdout.strip() or done.stderr


def test_readable_while_the_camera_process_writes_and_after_it_stopped(root: Path) -> None:
    desk = Desk(root)
    desk.begin()
    assert read_by_another_user(root) == f"[{SID!r}]"
    desk.store.close()
    assert read_by_another_user(root) == f"[{SID!r}]"


def test_readable_after_the_camera_process_was_killed(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", RECORD_AND_DIE, str(root)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_by_another_user(root) == f"[{SID!r}]"


def test_control_without_its_log_the_database_is_closed_to_another_user(root: Path) -> None:
    Desk(root).store.close()
    for name in ("index.db-wal", "index.db-shm"):
        (root / name).unlink()
    assert "cannot read index.db" in read_by_another_user(root)
