"""Named staff accounts: Argon2id, roles, throttled log-in, and sessions of which only a hash is kept.

No account exists until somebody makes one with `invigil room account add`; there is no default password.
A second factor has its place in `log_in`: an account that names one cannot log in without its step.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from appliance.clock import Clock, SystemClock, utc_text
from appliance.errors import BadInput, Refused
from appliance.room.database import Database

MIN_PASSWORD_CHARACTERS = (
    12  # NIST SP 800-63B-4 3.1.1.2 asks 15 for one factor, 8 with a second; 12 until the second is here
)
MAX_PASSWORD_CHARACTERS = 256
FREE_FAILURES = 5
FIRST_WAIT_S = 15.0
LONGEST_WAIT_S = 900.0
FORGET_FAILURES_S = 86400.0
LOGIN_LIFE_S = 12 * 3600.0  # one exam day
_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{1,31}$")
_hasher = (
    PasswordHasher()
)  # argon2-cffi's default is RFC 9106's second recommended set: 64 MiB, 3 passes, 4 lanes
_NOBODY = _hasher.hash(secrets.token_hex(16))


class Role(StrEnum):
    """What an account is for; each may do what the one before may, in the order of `RANK`."""

    STAFF = "staff"  # sets up the room: states and faults, no pictures
    PROCTOR = "proctor"  # watches, starts, ends, approves
    LEAD = "lead"  # also forces a stuck desk on, discards with a second lead, reads the audit log


RANK = {Role.STAFF: 0, Role.PROCTOR: 1, Role.LEAD: 2}


@dataclass(frozen=True, slots=True)
class Account:
    """Who is logged in."""

    id: int
    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether this account has at least that role."""
        return RANK[self.role] >= RANK[role]


@dataclass(frozen=True, slots=True)
class Login:
    """A log-in session: the cookie's token and the value that every POST carries in `X-CSRF-Token`."""

    account: Account
    token: str

    @property
    def csrf(self) -> str:
        """Bound to the cookie by a keyed hash; nobody who cannot read the page can make it."""
        return hmac.new(self.token.encode(), b"invigil csrf 1", hashlib.sha256).hexdigest()


class SecondFactor(Protocol):
    """One kind of second step; `account_id` is enough to find its secret."""

    def accepts(self, account_id: int, answer: str) -> bool:
        """Whether the answer is right now, and not used before."""
        ...


class LogInRefused(Refused):
    """The name, the password or the second step is wrong, or too many tries came before."""


def add_account(path: Path, name: str, role: str, password: str, clock: Clock | None = None) -> None:
    """Make an account in `room.db` at `path`; raises BadInput for a taken or bad name, role or password."""
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"account name {name!r} cannot be used",
            "2 to 32 of a-z 0-9 . _ -, beginning with a letter or digit",
        )
    if role not in list(Role):
        raise BadInput(f"there is no role {role!r}", "roles are " + ", ".join(Role))
    if not MIN_PASSWORD_CHARACTERS <= len(password) <= MAX_PASSWORD_CHARACTERS or name in password.lower():
        raise BadInput(
            "this password cannot be used",
            f"take {MIN_PASSWORD_CHARACTERS} to {MAX_PASSWORD_CHARACTERS} characters, not the name",
        )
    password_hash = _hasher.hash(password)
    created = utc_text((clock or SystemClock()).wall())
    database = Database(path, may_checkpoint=False)

    def insert(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO accounts (name, role, password_hash, created) VALUES (?, ?, ?, ?)",
            (name, role, password_hash, created),
        )

    try:
        database.transact(insert)
    except sqlite3.IntegrityError as error:
        raise BadInput(f"account {name} exists already", "choose another name") from error
    finally:
        database.close()


def log_in(
    database: Database,
    clock: Clock,
    name: str,
    password: str,
    answer: str = "",
    second_factors: Mapping[str, SecondFactor] | None = None,
) -> Login:
    """Check everything and open a session; takes about 0.1 s of a core, so call it in a thread.

    Raises LogInRefused, alike for an unknown name and a wrong password.
    """
    now_s = clock.wall().timestamp()
    name = name[:64]
    database.transact(lambda connection: _count_try(connection, name, now_s))
    row = database.transact(lambda connection: _row(connection, name))
    right = _password_is(str(row["password_hash"]) if row else _NOBODY, password[:MAX_PASSWORD_CHARACTERS])
    if row is None or not right:
        raise LogInRefused(
            "name or password is wrong", "the room's lead can make an account: invigil room account add"
        )
    step = row["second_factor"]
    if step is not None:
        method = (second_factors or {}).get(str(step))
        if method is None or not method.accepts(int(row["id"]), answer):
            raise LogInRefused("the second step is wrong or missing", f"this account needs {step}")
    token = secrets.token_urlsafe(32)

    def open_session(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM login_failures WHERE name = ?", (_hashed(name),))
        forget_logins(connection, now_s)
        connection.execute(
            "INSERT INTO logins (token_sha256, account, expires_wall_s) VALUES (?, ?, ?)",
            (_hashed(token), row["id"], now_s + LOGIN_LIFE_S),
        )

    database.transact(open_session)
    return Login(Account(int(row["id"]), str(row["name"]), Role(row["role"])), token)


def find_login(connection: sqlite3.Connection, token: str, now_wall_s: float) -> Login | None:
    """The session behind a cookie, or None when it is unknown or over."""
    row = connection.execute(
        "SELECT a.id, a.name, a.role FROM logins l JOIN accounts a ON a.id = l.account"
        " WHERE l.token_sha256 = ? AND l.expires_wall_s > ?",
        (_hashed(token), now_wall_s),
    ).fetchone()
    return Login(Account(int(row["id"]), str(row["name"]), Role(row["role"])), token) if row else None


def forget_logins(connection: sqlite3.Connection, now_wall_s: float) -> None:
    """Sessions that are over, and tries of the day before."""
    connection.execute("DELETE FROM logins WHERE expires_wall_s < ?", (now_wall_s,))
    connection.execute("DELETE FROM login_failures WHERE last_wall_s < ?", (now_wall_s - FORGET_FAILURES_S,))


def log_out(connection: sqlite3.Connection, token: str) -> None:
    """Forget the session."""
    connection.execute("DELETE FROM logins WHERE token_sha256 = ?", (_hashed(token),))


def _row(connection: sqlite3.Connection, name: str) -> sqlite3.Row | None:
    found: sqlite3.Row | None = connection.execute(
        "SELECT * FROM accounts WHERE name = ?", (name,)
    ).fetchone()
    return found


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _password_is(password_hash: str, password: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerifyMismatchError, InvalidHashError):
        return False


def _count_try(connection: sqlite3.Connection, name: str, now_s: float) -> None:
    """Count before checking, so that many tries at once do not all pass; success clears the count. What was typed is
    kept as a hash alone: it may be a password in the wrong field."""
    name = _hashed(name)
    forget_logins(connection, now_s)
    row = connection.execute(
        "SELECT failures, last_wall_s FROM login_failures WHERE name = ?", (name,)
    ).fetchone()
    failures = int(row["failures"]) if row else 0
    if failures >= FREE_FAILURES:
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (failures - FREE_FAILURES))
        left_s = float(row["last_wall_s"]) + wait_s - now_s
        if left_s > 0:
            raise LogInRefused(
                f"too many tries for this name; the next is possible in {left_s:.0f} s",
                "wait, or ask the room's lead",
            )
    connection.execute(
        "INSERT INTO login_failures (name, failures, last_wall_s) VALUES (?, 1, ?)"
        " ON CONFLICT (name) DO UPDATE SET failures = failures + 1, last_wall_s = excluded.last_wall_s",
        (name, now_s),
    )
