"""One way to run a process: logging, systemd's notify and watchdog, SIGTERM, and the single exit path.

A named error prints one line and a hint and exits with its code; anything else is logged with its traceback
and exits 70.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from appliance.errors import ApplianceError, BadConfig
from appliance.evf.errors import BadPassphrase, EvfError
from appliance.hardening import protect_memory

log = logging.getLogger("invigil")
EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
EXIT_PASSPHRASE = 5
EXIT_FORMAT = 7
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def notify(state: str) -> None:
    """Tell systemd (READY=1, WATCHDOG=1, STOPPING=1) through systemd-python; silent where no systemd started us.

    Call with WATCHDOG=1 only after proof of work. Raises BadConfig where the unit asks for it and the extra `systemd`
    is not installed: without it the unit would be killed as not started.
    """
    if "NOTIFY_SOCKET" not in os.environ:
        return
    try:
        daemon = importlib.import_module("systemd.daemon")
    except ModuleNotFoundError as error:
        raise BadConfig(
            "systemd waits for this service, but systemd-python is not installed",
            "install invigil with its extra systemd",
        ) from error
    daemon.notify(state)


def print_error(error: ApplianceError | EvfError) -> None:
    """The two lines that a person gets."""
    sys.stderr.write(f"invigil: error: {error}\n")
    if error.hint:
        sys.stderr.write(f"invigil: hint: {error.hint}\n")


def exit_code(error: ApplianceError | EvfError) -> int:
    """Stable code of a named error; everything the format refuses is 7, a wrong passphrase 5."""
    if isinstance(error, ApplianceError):
        return error.exit_code
    return EXIT_PASSPHRASE if isinstance(error, BadPassphrase) else EXIT_FORMAT


def run_service(name: str, body: Callable[[threading.Event], None]) -> int:
    """Run `body(stop)` until it returns; SIGTERM and SIGINT set `stop`. Returns the exit code."""
    stop = threading.Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    try:
        _begin_log()
        protect_memory(name)
        # What was imported lives as long as the process; without it a look for garbage takes a few milliseconds.
        gc.freeze()
        body(stop)
        notify("STOPPING=1")
    except (ApplianceError, EvfError) as error:
        print_error(error)
        return exit_code(error)
    except Exception:  # the one boundary of each process
        log.exception("%s.died", name)
        return EXIT_INTERNAL
    return 0


def _begin_log() -> None:
    level = os.environ.get("INVIGIL_LOG", "INFO").upper()
    if level not in LEVELS:
        raise BadConfig(f"INVIGIL_LOG cannot be {level}", f"use one of {', '.join(LEVELS)}")
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    # Its lines hold presigned addresses, which are credentials for a quarter of an hour.
    logging.getLogger("httpx").setLevel(logging.WARNING)
