"""F015: every field that a database stores or a message carries stands in the data inventory of docs/privacy.md."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from appliance import protocol
from appliance.policy import Strict
from appliance.room.database import Database
from appliance.store.database import migrate
from appliance.store.ledger import LEDGER_STEPS
from appliance.store.schema import INDEX_STEPS

PRIVACY = Path(__file__).resolve().parents[2] / "docs" / "privacy.md"
ROW = re.compile(r"^\| (?:`(\w+\.db)` |MQTT )`(\w+)` \| ([\w, ]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
Inventory = dict[tuple[str, str], list[str]]


def declared(text: str) -> Inventory:
    rows: Inventory = {}
    for database, name, fields, purpose, kept in ROW.findall(text):
        assert purpose.strip()
        assert kept.strip()
        assert (database, name) not in rows
        rows[database, name] = fields.split(", ")
    return rows


def stored(folder: Path) -> Inventory:
    migrate(folder / "index.db", INDEX_STEPS)
    migrate(folder / "ledger.db", LEDGER_STEPS)
    Database(folder / "room.db").close()
    rows: Inventory = {}
    for path in sorted(folder.glob("*.db")):
        with closing(sqlite3.connect(path)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                if not table.startswith(("sqlite_", "_sqlite_")):
                    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
                    rows[path.name, table] = [column[1] for column in columns]
    return rows


def sent() -> Inventory:
    kinds = [kind for kind in vars(protocol).values() if isinstance(kind, type) and issubclass(kind, Strict)]
    return {("", kind.__name__): list(kind.model_fields) for kind in kinds if kind is not Strict}


def test_inventory_is_complete_and_names_nothing_else(tmp_path: Path) -> None:
    """F015: declare a new field in docs/privacy.md, with its purpose and how long it is kept."""
    assert declared(PRIVACY.read_text()) == stored(tmp_path) | sent()


def test_undeclared_column_table_and_field_are_noticed(tmp_path: Path) -> None:
    """Control."""
    whole = PRIVACY.read_text()
    found = stored(tmp_path)
    assert ("index.db", "sessions") in found
    with closing(sqlite3.connect(tmp_path / "index.db")) as connection:
        connection.execute("ALTER TABLE sessions ADD COLUMN candidate_name TEXT")
        connection.execute("CREATE TABLE faces (embedding BLOB)")
    assert declared(whole)["index.db", "sessions"] != stored_again(tmp_path)["index.db", "sessions"]
    assert ("index.db", "faces") not in declared(whole)
    shorter = whole.replace("| desk, boot_id, connection, state, software |", "| desk, boot_id, state |")
    assert declared(shorter)["", "Presence"] != sent()["", "Presence"]


def stored_again(folder: Path) -> Inventory:
    with closing(sqlite3.connect(folder / "index.db")) as connection:
        columns = connection.execute("PRAGMA table_info(sessions)").fetchall()
    return {("index.db", "sessions"): [column[1] for column in columns]}


def test_no_field_is_a_name_or_a_place_of_a_candidate(tmp_path: Path) -> None:
    """F016, F022: no e-mail, no address, no position; `name` is a file's, an account's or an object's."""
    everything = stored(tmp_path) | sent()
    fields = {field for names in everything.values() for field in names}
    assert not fields & {
        "candidate_name",
        "email",
        "phone",
        "latitude",
        "longitude",
        "ip",
        "address",
        "user_agent",
    }
    with_name = {place for place, names in everything.items() if "name" in names}
    assert with_name == {
        ("index.db", "wraps"), ("index.db", "segments"), ("ledger.db", "uploads"), ("room.db", "accounts"),
        ("room.db", "login_failures"), ("", "ObjectFacts"), ("", "Grant"), ("", "DamagedFile"),
    }  # fmt: skip


def test_no_field_says_who_somebody_is_or_how_likely(tmp_path: Path) -> None:
    """F062: a person compares; no database and no message has a place for what a machine would say instead."""
    words = {"score", "similarity", "match", "likelihood", "probability", "rank", "embedding", "descriptor"}

    def such(rows: Inventory) -> set[str]:
        return {field for names in rows.values() for field in names if words & set(field.split("_"))}

    assert such(stored(tmp_path) | sent()) == set()
    with closing(sqlite3.connect(tmp_path / "index.db")) as connection:
        connection.execute("ALTER TABLE sessions ADD COLUMN face_similarity REAL")
    assert such(stored_again(tmp_path)) == {"face_similarity"}
