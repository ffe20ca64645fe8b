"""`make demo`: run the story in build/demo and print what happened and what was proven."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from demo.clips import leaves_seat
from demo.room import ACCOUNT, CHECKOUT, DemoFailed, DemoRoom, default_desks
from demo.script import EXAM_S, Story

ROOT = CHECKOUT / "build" / "demo"


def main() -> int:
    """0 only if every step and every proof held."""
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--keep", action="store_true", help="leave the room running")
    parser.add_argument("--camera", help="a camera for the first desk, e.g. /dev/video0")
    parser.add_argument("--seconds", type=int, default=EXAM_S, help="length of the exam")
    parser.add_argument("--picture", type=Path, help="write the README's picture of the room here")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    shutil.rmtree(ROOT, ignore_errors=True)
    desks = default_desks()
    desks[0] = replace(desks[0], camera=arguments.camera or f"clip:{leaves_seat()}")
    console.print("[bold]Invigil: a simulated room sits an exam[/]")
    with DemoRoom(ROOT, desks=desks, duration_s=arguments.seconds) as room:
        story = Story(room, console, arguments.seconds, arguments.picture)
        try:
            story.run()
        except DemoFailed as error:
            console.print(f"[red]failed[/]  {error}", highlight=False)
            console.print(f"        logs: {ROOT / 'logs'}", highlight=False)
            return 1
        (ROOT / "summary.json").write_text(json.dumps(story.figures, indent=2) + "\n")
        _print_paths(console, story)
        if arguments.keep:
            _keep(console, room)
    return 0


def _print_paths(console: Console, story: Story) -> None:
    console.print(f"\nAll of it held, in {story.figures['total_s']:.0f} s. What it left:")
    for name in (
        "exam.mp4",
        "report.html",
        "events.json",
        "summary.json",
        "session",
        "keys",
        "bucket",
        "nodes",
        "screens",
    ):
        if (ROOT / name).exists():
            console.print(f"  {(ROOT / name).relative_to(CHECKOUT)}", highlight=False)
    console.print("Look at it again with the institution's own tool:")
    console.print("  cd build/demo && ../../.venv/bin/invigil archive verify session", highlight=False)


def _keep(console: Console, room: DemoRoom) -> None:
    password = room.password_file.read_text().strip()
    console.print(f"\nThe room stays up: {room.url}   log in as {ACCOUNT} with {password}", highlight=False)
    console.print("Ctrl-C ends it.")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        console.print("stopping")


if __name__ == "__main__":
    sys.exit(main())
