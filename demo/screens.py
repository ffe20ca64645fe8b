"""Screenshots of the dashboard during the demo, by Debian's chromium; says so where there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Playwright, sync_playwright
from rich.console import Console

from demo.room import ACCOUNT, DemoRoom

CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


# The clips' rights do not allow their pictures in the repository: the README's picture shows drawn heads instead.
EMPTY = (
    "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 320 180'>"
    "<rect width='320' height='180' fill='%23cfd6d8'/></svg>"
)
SILHOUETTE = EMPTY.replace(
    "</svg>",
    "<g fill='%237b8a90'><ellipse cx='160' cy='78' rx='30' ry='38'/>"
    "<path d='M84 180c4-44 38-58 76-58s72 14 76 58z'/></g></svg>",
)


def driver_works() -> bool:
    """Whether the node inside the playwright wheel starts."""
    done = subprocess.run([sys.executable, "-m", "playwright", "--version"], capture_output=True, check=False)
    return done.returncode == 0


def launch(playwright: Playwright) -> Browser:
    """Debian's chromium, headless."""
    return playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)


def log_in(browser: Browser, room: DemoRoom, **context: Any) -> Page:
    """A page in a fresh context, logged in through the form as a person would; `context` as in new_context."""
    options = {"viewport": {"width": 1280, "height": 800}, **context}
    page = browser.new_context(ignore_https_errors=True, **options).new_page()
    page.goto(room.url + "/login")
    page.get_by_label("Name").fill(ACCOUNT)
    page.get_by_label("Password").fill(room.password_file.read_text().strip())
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(room.url + "/")
    return page


class Screens:
    """Takes pictures into `screens/`; does nothing, and says so once, without a browser."""

    def __init__(self, room: DemoRoom, console: Console, picture: Path | None = None) -> None:
        self._room = room
        self._console = console
        self._picture = picture
        self._folder = room.root / "screens"
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self.taken: list[str] = []

    def __enter__(self) -> Screens:
        if shutil.which("chromium") is None or not driver_works():
            self._console.print("      no chromium here, or no libatomic1: no screenshots")
            return self
        self._folder.mkdir(parents=True, exist_ok=True)
        self._playwright = sync_playwright().start()
        self._browser = launch(self._playwright)
        return self

    def __exit__(self, *_: object) -> None:
        if self._browser is not None:
            self._browser.close()
        if self._playwright is not None:
            self._playwright.stop()

    def take(self, name: str) -> None:
        """One picture of the page that `name` begins with: room, desk, end."""
        if self._browser is None:
            return
        page = log_in(self._browser, self._room, color_scheme="dark" if name.endswith("dark") else "light")
        paths = {"desk": f"/desk/{self._room.desks[1].id}", "end": "/end", "synced": "/end"}
        page.goto(self._room.url + paths.get(name.split("-")[0], "/"))
        page.wait_for_timeout(2500)
        page.screenshot(path=str(self._folder / f"{name}.png"))
        if name == "room" and self._picture is not None:
            page.evaluate(
                "([person, empty]) => { for (const still of document.querySelectorAll('[data-f=still]')) {"
                " const drawn = still.cloneNode();"
                " drawn.src = still.closest('.tile').dataset.level === 'red' ? empty : person;"
                " still.replaceWith(drawn); } }",
                [SILHOUETTE, EMPTY],
            )
            page.screenshot(path=str(self._picture), clip={"x": 0, "y": 0, "width": 1280, "height": 470})
        page.context.close()
        self.taken.append(name)
