"""How each process begins, stops and ends, seen from outside: exit codes, two lines for a person, systemd's words."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance import errors
from appliance.errors import ApplianceError, BadConfig
from appliance.evf.errors import BadPassphrase, CorruptSegment
from appliance.service import exit_code, notify, print_error

SERVICE = """
import sys
from appliance.errors import NoSpace
from appliance.service import notify, run_service
def body(stop):
    {body}
raise SystemExit(run_service("sync", body))
"""


def started(body: str, **environment: str) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"} | environment
    return subprocess.Popen(
        [sys.executable, "-c", SERVICE.format(body=body)],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(body: str, **environment: str) -> tuple[int, list[str]]:
    with started(body, **environment) as process:
        _, said = process.communicate(timeout=20)
    return process.returncode, said.splitlines()


def test_a_named_error_is_two_lines_and_its_own_code() -> None:
    assert ended('raise NoSpace("the disk is full", "free some space")') == (
        11,
        ["invigil: error: the disk is full", "invigil: hint: free some space"],
    )


def test_anything_else_is_a_traceback_and_70() -> None:
    code, said = ended('raise KeyError("oops")')
    assert code == 70
    assert "sync.died" in said[0]
    assert said[-1] == "KeyError: 'oops'"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop_and_the_end_is_orderly(how: signal.Signals) -> None:
    with started('print("up", flush=True); stop.wait(20); print("sealed")') as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(how)
        assert process.stdout.read() == "sealed\n"
    assert process.returncode == 0


def test_an_unknown_log_level_is_named() -> None:
    code, said = ended("pass", INVIGIL_LOG="loud")
    assert (code, said[0]) == (3, "invigil: error: INVIGIL_LOG cannot be LOUD")


def test_systemd_hears_what_happens(tmp_path: Path) -> None:
    """With the protocol's own end as it stands in sd_notify(3); systemd-python is put in its place by name only."""
    module = tmp_path / "systemd" / "daemon.py"
    module.parent.mkdir()
    (tmp_path / "systemd" / "__init__.py").touch()
    module.write_text(
        "import os, socket\n"
        "def notify(state):\n"
        "    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:\n"
        "        sender.sendto(state.encode(), os.environ['NOTIFY_SOCKET'])\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        code, _ = ended(
            'notify("READY=1"); notify("WATCHDOG=1")',
            NOTIFY_SOCKET=str(tmp_path / "notify"), PYTHONPATH=str(tmp_path),
        )  # fmt: skip
        assert code == 0
        assert [systemd.recv(64) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_systemd_without_its_python_package_is_named_at_once() -> None:
    code, said = ended(
        "import sys; sys.modules['systemd.daemon'] = None; notify('READY=1')", NOTIFY_SOCKET="/nowhere"
    )
    assert code == 3
    assert "systemd-python is not installed" in said[0]


def test_notify_is_silent_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


def test_each_named_error_has_a_code_of_its_own() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {
        kind: exit_code(kind("words"))
        for kind in kinds
        if issubclass(kind, ApplianceError) and "exit_code" in vars(kind)
    }
    assert len(set(codes.values())) == len(codes)
    assert exit_code(BadPassphrase("wrong")) == exit_code(errors.BadPassphrase("wrong")) == 5
    assert exit_code(CorruptSegment("cut")) == 7


def test_an_error_without_a_hint_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(BadConfig("wrong"))
    assert capsys.readouterr().err == "invigil: error: wrong\n"


def test_a_body_that_does_not_look_at_stop_is_not_cut_off() -> None:
    with started('print("up", flush=True); import time; time.sleep(0.5); print("done")') as process:
        assert process.stdout is not None
        process.stdout.readline()
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "done\n"
    assert time.monotonic() - begun < 10
    assert process.returncode == 0


def test_a_look_for_garbage_leaves_out_what_was_imported() -> None:
    code, said = ended("import gc; print(gc.get_freeze_count(), len(gc.get_objects()), file=sys.stderr)")
    assert code == 0
    left_out, looked_at = map(int, said[-1].split())
    assert left_out > 10 * looked_at
