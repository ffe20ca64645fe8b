"""What the room asked, kept so that a command is obeyed once and an older one never."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import StoreFailed
from appliance.store.ledger import Ledger, LedgerView, Witness
from tests.unit.test_store_builders import OTHER_SID, SID

START = {"kind": "start", "sid": SID, "candidate_code": "C-0042", "policy": {"id": "statistics-1"}}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.db")
    yield ledger
    ledger.close()


@pytest.fixture
def view(ledger: Ledger) -> LedgerView:
    view = LedgerView(ledger.path)
    yield view
    view.close()


def test_camera_may_start_before_there_is_a_ledger(tmp_path: Path) -> None:
    view = LedgerView(tmp_path / "ledger.db")
    assert view.wanted_session() is None
    assert view.is_ended(SID) is False
    assert view.last_serial() == 0
    assert list(tmp_path.iterdir()) == []


def test_the_newest_order_that_is_not_ended_is_wanted(ledger: Ledger, view: LedgerView) -> None:
    ledger.order_start(SID, "desk-7", START)
    wanted = view.wanted_session()
    assert wanted is not None
    assert (wanted.sid, wanted.desk, wanted.start_command, wanted.state) == (SID, "desk-7", START, "ordered")
    ledger.order_start(OTHER_SID, "desk-7", START)
    assert view.wanted_session().sid == OTHER_SID
    ledger.order_end(OTHER_SID, {"kind": "end"})
    assert view.wanted_session().sid == SID
    assert (view.is_ended(OTHER_SID), view.is_ended(SID)) == (True, False)


def test_a_repeated_start_does_not_reopen_an_ended_session(ledger: Ledger, view: LedgerView) -> None:
    ledger.order_start(SID, "desk-7", START)
    ledger.order_end(SID, {"kind": "end", "reason": "time is up"})
    ledger.order_end(SID, {"kind": "end", "reason": "again"})
    ledger.order_start(SID, "desk-7", START)
    assert view.wanted_session() is None
    assert view.order(SID).end_command == {"kind": "end", "reason": "time is up"}


def test_states_after_the_end(ledger: Ledger, view: LedgerView) -> None:
    ledger.order_start(SID, "desk-7", START)
    ledger.order_end(SID, {"kind": "end"})
    for state in ("held", "released", "synced"):
        ledger.set_state(SID, state, "why")
        assert (view.order(SID).state, view.order(SID).reason, view.is_ended(SID)) == (state, "why", True)
    with pytest.raises(StoreFailed):
        ledger.set_state(SID, "lost")
    with pytest.raises(StoreFailed, match="never ordered"):
        ledger.set_state(OTHER_SID, "held")
    with pytest.raises(StoreFailed, match="never ordered"):
        ledger.order_end(OTHER_SID, {})


def test_an_older_or_equal_serial_is_refused_also_after_a_restart(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    assert [ledger.accept_serial(n) for n in (5, 5, 4, 6)] == [True, False, False, True]
    ledger.close()
    ledger = Ledger(tmp_path / "ledger.db")
    assert [ledger.accept_serial(n) for n in (6, 7)] == [False, True]
    assert ledger.last_serial() == 7
    ledger.close()


def test_a_serial_is_not_spent_when_its_order_fails(ledger: Ledger) -> None:
    def end_what_was_never_ordered() -> None:
        with ledger.transaction():
            assert ledger.accept_serial(9)
            ledger.order_end(SID, {})

    with pytest.raises(StoreFailed):
        end_what_was_never_ordered()
    assert ledger.last_serial() == 0
    with ledger.transaction():
        assert ledger.accept_serial(9)
        ledger.order_start(SID, "desk-7", START)
    assert ledger.last_serial() == 9


def test_connection_numbers_grow_within_a_boot(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    assert [ledger.connection_number(boot) for boot in ("a", "a", "b")] == [1, 2, 1]
    ledger.close()
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.connection_number("a") == 3
    ledger.close()


def test_a_witness_never_shrinks(ledger: Ledger, view: LedgerView) -> None:
    assert view.witness(SID) is None
    assert ledger.set_witness(SID, 10, "— room sig10", "note10")
    assert ledger.set_witness(SID, 12, "— room sig12", "note12")
    assert not ledger.set_witness(SID, 11, "— room sig11", "note11")
    assert view.witness(SID) == Witness(12, "— room sig12", "note12")


def test_an_older_recipient_set_is_refused(ledger: Ledger, view: LedgerView) -> None:
    assert [ledger.accept_recipient_set_version(n) for n in (2, 2, 1, 3)] == [True, True, False, True]
    assert view.recipient_set_version() == 3


def test_uploads_count_their_attempts(ledger: Ledger, view: LedgerView) -> None:
    ledger.set_uploads(SID, [("0-video-0.evf", 900, "ab" * 32)])
    ledger.set_upload(SID, "0-video-0.evf", "failed", "403 from the storage", attempted=True)
    ledger.set_upload(SID, "0-video-0.evf", "there", attempted=True)
    ledger.set_uploads(SID, [("0-video-0.evf", 900, "ab" * 32)])
    (upload,) = view.uploads(SID)
    assert (upload.state, upload.attempts, upload.reason, upload.size_bytes) == ("there", 2, "", 900)
    with pytest.raises(StoreFailed, match="not in the ledger"):
        ledger.set_upload(SID, "0-video-1.evf", "there")


def test_an_upload_of_other_bytes_waits_anew_and_what_is_no_longer_wanted_is_gone(
    ledger: Ledger, view: LedgerView
) -> None:
    """As a release does that lets damaged files go as they lie: the others keep what is known of them."""
    ledger.set_uploads(SID, [("a.evf", 900, "ab" * 32), ("b.evf", 800, "cd" * 32), ("c.evf", 700, "ef" * 32)])
    for name, state in (("a.evf", "quarantined"), ("b.evf", "there"), ("c.evf", "quarantined")):
        ledger.set_upload(SID, name, state, "as found")
    ledger.set_uploads(SID, [("a.evf", 900, "12" * 32), ("b.evf", 800, "cd" * 32)])
    assert [(row.name, row.sha256, row.state, row.reason) for row in view.uploads(SID)] == [
        ("a.evf", "12" * 32, "waiting", ""),
        ("b.evf", "cd" * 32, "there", "as found"),
    ]


def test_approval_and_small_values_are_kept(ledger: Ledger, view: LedgerView) -> None:
    assert (view.approval(SID), view.get("note")) == (None, None)
    ledger.set_approval(SID, {"kind": "release", "approved_by": "p1"})
    ledger.set("note", "1")
    ledger.set("note", "2")
    assert (view.approval(SID), view.get("note")) == ({"kind": "release", "approved_by": "p1"}, "2")
