"""The proctor's HTTP API from a script: the same calls that the dashboard's pages make."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx


class ControllerClient:
    """Logged in once; every call raises httpx.HTTPStatusError on a refusal."""

    def __init__(self, url: str, room_ca: Path) -> None:
        context = ssl.create_default_context(cafile=str(room_ca))
        self._http = httpx.Client(base_url=url, verify=context, timeout=20, headers={"Origin": url})

    def log_in(self, name: str, password: str) -> None:
        """Session cookie and CSRF token for the calls that follow."""
        answer = self._http.post("/api/login", json={"name": name, "password": password})
        answer.raise_for_status()
        self._http.headers["X-CSRF-Token"] = answer.json()["csrf"]

    def get(self, path: str) -> Any:
        """GET a JSON page."""
        answer = self._http.get(path)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """POST JSON."""
        answer = self._http.post(path, json=body or {})
        answer.raise_for_status()
        return answer.json()

    def tile(self, desk: str) -> dict[str, Any]:
        """One desk as the room page shows it."""
        return next(tile for tile in self.get("/api/room")["tiles"] if tile["desk"] == desk)

    def session(self, sid: str) -> dict[str, Any]:
        """One session as the end-of-exam table shows it."""
        return next(entry for entry in self.get("/api/room")["sessions"] if entry["sid"] == sid)

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()
