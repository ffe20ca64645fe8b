"""Sets a file aside with its reason; nothing in the quarantine is ever removed by the appliance."""

from __future__ import annotations

import os
from pathlib import Path

from appliance.clock import Clock, utc_text
from appliance.store.database import Transactions
from appliance.store.durable import FileOps, fsync_dir
from appliance.store.layout import Layout


class Quarantine:
    """Used by recovery and repair; `taken` are the original paths, relative to the root, of this run."""

    def __init__(self, layout: Layout, transactions: Transactions, file_ops: FileOps, clock: Clock) -> None:
        self._layout = layout
        self._transactions = transactions
        self._file_ops = file_ops
        self._clock = clock
        self.taken: list[str] = []

    def take(self, path: Path, reason: str) -> Path:
        """Row, then move: after a crash in between, the next start finds the file and takes this name again."""
        stored = self.note(path, reason)
        self._file_ops.rename(path, stored)
        fsync_dir(self._layout.quarantine, self._file_ops)
        fsync_dir(path.parent, self._file_ops)
        return stored

    def link(self, path: Path, reason: str) -> None:
        """Row, then a second name for the file as it is, which takes no room; nothing if an earlier start made it."""
        found = path.stat()
        if any(os.path.samestat(kept.lstat(), found) for kept in self._layout.quarantine.iterdir()):
            return
        self.note(path, reason).hardlink_to(path)
        fsync_dir(self._layout.quarantine, self._file_ops)

    def note(self, path: Path, reason: str) -> Path:
        """Only the row; returns where the file, or a copy of it, is to stand."""
        original = str(path.relative_to(self._layout.root))
        stem = original.replace("/", "_")
        stored_as, number = stem, 1
        while os.path.lexists(self._layout.quarantine / stored_as):
            number += 1
            stored_as = f"{stem}.{number}"
        with self._transactions.begin(f"quarantine of {original}") as connection:
            connection.execute(
                "INSERT OR REPLACE INTO quarantine (stored_as, original, reason, moved) VALUES (?, ?, ?, ?)",
                (stored_as, original, reason, utc_text(self._clock.wall())),
            )
        self.taken.append(original)
        return self._layout.quarantine / stored_as
