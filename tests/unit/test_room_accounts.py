"""Accounts: nobody by default, named, throttled, and with a place for the second step."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.errors import BadInput
from appliance.room.accounts import LogInRefused, Role, add_account, find_login, log_in, log_out
from appliance.room.database import Database
from tests.manual_clock import ManualClock

PASSWORD = "correct horse battery staple"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "room.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database(path)
    yield database
    database.close()


class OneAnswer:
    def accepts(self, account_id: int, answer: str) -> bool:
        return answer == "246810"


def test_there_is_no_account_before_somebody_makes_one(database: Database) -> None:
    """No default password."""
    assert database.transact(lambda c: c.execute("SELECT count(*) FROM accounts").fetchone()[0]) == 0


def test_log_in_and_out(database: Database, path: Path) -> None:
    clock = ManualClock()
    add_account(path, "anna", "proctor", PASSWORD, clock)
    login = log_in(database, clock, "anna", PASSWORD)
    assert login.account.role is Role.PROCTOR
    now_s = clock.wall().timestamp()
    found = database.transact(lambda c: find_login(c, login.token, now_s))
    assert found is not None
    assert (found.account, found.csrf) == (login.account, login.csrf)
    database.transact(lambda c: log_out(c, login.token))
    assert database.transact(lambda c: find_login(c, login.token, now_s)) is None


def test_a_login_ends_after_the_exam_day(database: Database, path: Path) -> None:
    clock = ManualClock()
    add_account(path, "anna", "proctor", PASSWORD, clock)
    login = log_in(database, clock, "anna", PASSWORD)
    later_s = clock.wall().timestamp() + 13 * 3600
    assert database.transact(lambda c: find_login(c, login.token, later_s)) is None


def test_the_file_holds_neither_password_nor_token(database: Database, path: Path) -> None:
    clock = ManualClock()
    add_account(path, "anna", "proctor", PASSWORD, clock)
    login = log_in(database, clock, "anna", PASSWORD)
    stored = b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert b"$argon2id$" in stored
    assert PASSWORD.encode() not in stored
    assert login.token.encode() not in stored


def test_unknown_name_and_wrong_password_sound_alike(database: Database, path: Path) -> None:
    clock = ManualClock()
    add_account(path, "anna", "proctor", PASSWORD, clock)
    said = []
    for name in ("anna", "berta"):
        with pytest.raises(LogInRefused) as refused:
            log_in(database, clock, name, "wrong password here")
        said.append((str(refused.value), refused.value.hint))
    assert said[0] == said[1]


def test_many_wrong_tries_have_to_wait(database: Database, path: Path) -> None:
    clock = ManualClock()
    add_account(path, "anna", "proctor", PASSWORD, clock)
    for _ in range(5):
        with pytest.raises(LogInRefused, match="wrong"):
            log_in(database, clock, "anna", "wrong password here")
    with pytest.raises(LogInRefused, match="too many tries"):
        log_in(database, clock, "anna", PASSWORD)
    clock.advance(16)
    assert log_in(database, clock, "anna", PASSWORD)
    with pytest.raises(LogInRefused, match="wrong"):  # success has cleared the count
        log_in(database, clock, "anna", "wrong password here")


def test_an_account_with_a_second_factor_needs_its_step(database: Database, path: Path) -> None:
    """F090: the place for it; without a registered step such an account cannot log in at all."""
    clock = ManualClock()
    add_account(path, "anna", "lead", PASSWORD, clock)
    database.transact(lambda c: c.execute("UPDATE accounts SET second_factor = 'totp'"))
    steps = {"totp": OneAnswer()}
    for factors, answer in (({}, "246810"), (steps, "000000"), (steps, "")):
        with pytest.raises(LogInRefused, match="second step"):
            log_in(database, clock, "anna", PASSWORD, answer, factors)
    assert log_in(database, clock, "anna", PASSWORD, "246810", steps)


@pytest.mark.parametrize(
    ("name", "role", "password"),
    [
        ("Anna B", "proctor", PASSWORD),
        ("anna", "admin", PASSWORD),
        ("anna", "proctor", "short"),
        ("anna", "proctor", "my name is anna, hello"),
    ],
)
def test_bad_accounts_are_refused(path: Path, name: str, role: str, password: str) -> None:
    with pytest.raises(BadInput):
        add_account(path, name, role, password)


def test_a_name_is_taken_once(path: Path) -> None:
    add_account(path, "anna", "proctor", PASSWORD)
    with pytest.raises(BadInput, match="exists already"):
        add_account(path, "anna", "lead", PASSWORD)


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO serials VALUES ('d1', 7)")
        raise BadInput("no", "")

    with pytest.raises(BadInput):
        database.transact(work)
    assert database.transact(lambda c: c.execute("SELECT count(*) FROM serials").fetchone()[0]) == 0


def test_the_database_is_durable_and_private(database: Database, path: Path) -> None:
    pragma = [
        database.transact(lambda c, n=name: c.execute(f"PRAGMA {n}").fetchone()[0])
        for name in ("journal_mode", "synchronous")
    ]
    assert pragma == ["wal", 2]
    assert path.stat().st_mode & 0o077 == 0
