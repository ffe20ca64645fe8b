"""What the soak knows so far: exams, decisions and one account a session; written by the desks' threads."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from tests.soak.accounting import Account


@dataclass
class Books:
    """`pending`: sessions that wait for something at the run's end; `late`: all that ever did, with why."""

    exams: Counter[str] = field(default_factory=Counter)
    accounts: dict[str, Account] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    approved: set[str] = field(default_factory=set)
    late: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        """One more of it."""
        with self.lock:
            self.exams[what] += 1

    def approve(self, sid: str) -> None:
        """From now on its objects may lie in the bucket."""
        with self.lock:
            self.approved.add(sid)

    def wait_for(self, sid: str, why: str) -> None:
        """Look at it again at the end."""
        with self.lock:
            self.pending.add(sid)
            self.late.append(f"{sid[:8]}: {why}")

    def close(self, account: Account) -> None:
        """This session is accounted for."""
        with self.lock:
            self.accounts[account.sid] = account
            self.pending.discard(account.sid)

    @property
    def lost(self) -> list[str]:
        """Everything acknowledged and not found."""
        return [sentence for account in list(self.accounts.values()) for sentence in account.lost]

    @property
    def unnamed(self) -> list[str]:
        """Silences without a gap."""
        return [sentence for account in list(self.accounts.values()) for sentence in account.unnamed]

    @property
    def damage(self) -> list[str]:
        """What the files themselves say."""
        return [
            f"{account.desk} {account.sid[:8]}: {sentence}"
            for account in list(self.accounts.values())
            for sentence in account.damage
        ]
