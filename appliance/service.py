"""One way to run a process: logging, systemd's notify and watchdog, SIGTERM, and the single exit path.

A named error prints one line and a hint and exits with its code; anything else is logged with its traceback
and exits 70.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from appliance.errors import ApplianceError
from appliance.evf.errors import EvfError

log = logging.getLogger("invigil")
EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h


def notify(state: str) -> None:
    """Tell systemd (READY=1, WATCHDOG=1, STOPPING=1) through systemd-python; silent where no systemd started us.

    Call with WATCHDOG=1 only after proof of work.
    """
    if "NOTIFY_SOCKET" not in os.environ:
        return
    # The extra `systemd`; a laptop does not have it.
    importlib.import_module("systemd.daemon").notify(state)


def print_error(error: ApplianceError | EvfError) -> None:
    """The two lines that a person gets."""
    sys.stderr.write(f"invigil: error: {error}\n")
    if error.hint:
        sys.stderr.write(f"invigil: hint: {error.hint}\n")


def exit_code(error: ApplianceError | EvfError) -> int:
    """Stable code of a named error; everything the format refuses is 7, a wrong passphrase 5."""
    if isinstance(error, ApplianceError):
        return error.exit_code
    return 5 if type(error).__name__ == "BadPassphrase" else 7


def run_service(name: str, body: Callable[[threading.Event], None]) -> int:
    """Run `body(stop)` until it returns; SIGTERM and SIGINT set `stop`. Returns the exit code."""
    logging.basicConfig(
        level=os.environ.get("INVIGIL_LOG", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    # Its lines hold presigned addresses, which are credentials for a quarter of an hour.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stop = threading.Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    try:
        body(stop)
    except (ApplianceError, EvfError) as error:
        print_error(error)
        return exit_code(error)
    except Exception:  # the one boundary of each process
        log.exception("%s.died", name)
        return EXIT_INTERNAL
    finally:
        notify("STOPPING=1")
    return 0
