"""Checkpoints against the controller's own witness: growing, catching up, resending, refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from appliance.evf.format import RecordKind
from appliance.evidence.checkpoint import cosign
from appliance.protocol import CheckpointMessage as Checkpoint
from appliance.protocol import WitnessMessage, decode, encode
from appliance.sync.checkpoints import MAX_LEAVES, RESEND_S, Cosigned, SessionLog, unwitnessed_span
from tests.unit.test_store_builders import FRAGMENT_90K, SID
from tests.unit.test_sync_room import DESK, ROOM, Bench, Controller

SECOND_NS = 10**9


class Leaves:
    """A log in memory."""

    def __init__(self, count: int = 0) -> None:
        self.all: list[bytes] = []
        self.grow(count)

    def grow(self, count: int) -> None:
        start = len(self.all)
        self.all += [
            hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(start, start + count)
        ]

    def leaves(self, sid: str, start: int = 0, limit: int | None = None) -> list[bytes]:
        return self.all[start : None if limit is None else start + limit]

    def leaf_count(self, sid: str) -> int:
        return len(self.all)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.close()
    return made


def log_of(bench: Bench, source: Leaves, witnessed: int = 0) -> SessionLog:
    return SessionLog(SID, DESK, bench.trust.device_key, bench.trust.controller_key, source, witnessed)


def send(log: SessionLog, now: int = SECOND_NS) -> Checkpoint:
    message = log.next_message(now)
    assert message is not None
    return decode(Checkpoint, encode(message))


def test_log_grows_under_the_controllers_eyes(bench: Bench) -> None:
    source, controller = Leaves(3), Controller(bench)
    log = log_of(bench, source)
    cosigned = log.answer(controller.answer(send(log)))
    assert isinstance(cosigned, Cosigned)
    assert cosigned.size == 3
    assert log.next_message(2 * SECOND_NS) is None
    source.grow(2)
    message = send(log)
    assert (message.first_index, len(message.leaves)) == (3, 2)
    assert log.answer(controller.answer(message)).size == 5
    assert controller.witness.size == 5


def test_one_checkpoint_under_way_and_again_after_silence(bench: Bench) -> None:
    source = Leaves(3)
    log = log_of(bench, source)
    first = send(log, 0)
    source.grow(1)
    assert log.next_message(round((RESEND_S - 0.1) * 1e9)) is None
    again = send(log, round(RESEND_S * 1e9))
    assert (first.first_index, again.first_index, len(again.leaves)) == (0, 0, 4)
    log.connection_began()
    assert send(log, round((RESEND_S + 0.1) * 1e9)).leaves == again.leaves


def test_catches_up_in_pieces_after_an_outage(bench: Bench) -> None:
    source, controller = Leaves(2), Controller(bench)
    log = log_of(bench, source)
    log.answer(controller.answer(send(log)))
    source.grow(2 * MAX_LEAVES + 7)
    sizes = []
    while (message := log.next_message(SECOND_NS)) is not None:
        assert len(encode(message)) < 300_000
        cosigned = log.answer(controller.answer(message))
        assert cosigned is not None
        sizes.append(cosigned.size)
    total = 2 * MAX_LEAVES + 9
    assert sizes == [2 + MAX_LEAVES, 2 + 2 * MAX_LEAVES, total]


def test_restart_goes_on_from_the_witnessed_size(bench: Bench) -> None:
    source, controller = Leaves(10), Controller(bench)
    log = log_of(bench, source)
    log.answer(controller.answer(send(log)))
    source.grow(5)
    message = send(log_of(bench, source, witnessed=10))
    assert message.first_index == 10
    assert controller.answer(message).size == 15


def test_answer_that_comes_after_a_restart_still_counts(bench: Bench) -> None:
    """The note is not kept; the same tree signed by the same key is the same note again."""
    source, controller = Leaves(10), Controller(bench)
    answer = controller.answer(send(log_of(bench, source)))
    source.grow(3)
    log = log_of(bench, source)
    cosigned = log.answer(answer)
    assert cosigned is not None
    assert (cosigned.size, cosigned.note) == (10, controller.witness.note)
    assert send(log).first_index == 10


def test_sends_again_from_where_the_controller_is(bench: Bench) -> None:
    source = Leaves(10)
    log = log_of(bench, source, witnessed=8)
    new_controller = Controller(bench)  # restored from an older backup: it has nothing
    assert log.answer(WitnessMessage(sid=SID, size=0)) is None
    message = send(log)
    assert message.first_index == 0
    assert log.answer(new_controller.answer(message)).size == 10


def test_refusal_is_a_fault_and_not_retried(bench: Bench) -> None:
    source = Leaves(3)
    log = log_of(bench, source)
    send(log)
    log.answer(WitnessMessage(sid=SID, size=3, refused="log differs from what was seen before, at size 3"))
    assert "differs from what was seen before" in log.fault
    source.grow(5)
    assert log.next_message(10**15) is None
    log.connection_began()  # a person may have put it right: asked once for each connection
    assert log.next_message(10**15) is not None


def test_log_shorter_than_witnessed_is_a_fault(bench: Bench) -> None:
    log = log_of(bench, Leaves(3), witnessed=5)
    assert "shorter" in log.fault
    log.connection_began()
    assert log.next_message(0) is None


def test_controller_that_claims_more_than_there_is_is_a_fault(bench: Bench) -> None:
    log = log_of(bench, Leaves(3))
    log.answer(WitnessMessage(sid=SID, size=9))
    assert "witnessed 9 records, this desk has 3" in log.fault


def test_cosignature_of_another_key_does_not_count(bench: Bench) -> None:
    log = log_of(bench, Leaves(3))
    message = send(log)
    line = cosign(message.note, bench.trust.device_key, ROOM, 1_790_000_000)
    assert log.answer(WitnessMessage(sid=SID, size=3, cosignature=line)) is None
    assert "cosignature does not hold" in log.fault


def test_altered_leaf_is_seen_by_the_controller(bench: Bench) -> None:
    """The control for all above: a log that was rewritten after it was witnessed is refused."""
    source, controller = Leaves(4), Controller(bench)
    log = log_of(bench, source)
    log.answer(controller.answer(send(log)))
    source.all[2] = b"\x00" * 32
    source.grow(1)
    with pytest.raises(ValueError, match="differs from what was seen before"):
        controller.answer(send(log_of(bench, source, witnessed=4)))


def test_real_store_is_a_source(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    desk = bench.record(end=False)
    log = SessionLog(SID, DESK, bench.trust.device_key, bench.trust.controller_key, bench.view, 0)
    controller = Controller(bench)
    assert log.answer(controller.answer(send(log))).size == bench.view.leaf_count(SID) == 5
    desk.segment().put(RecordKind.FRAGMENT, 100, 3 * FRAGMENT_90K)
    assert log.answer(controller.answer(send(log))).size == 6
    desk.store.close()
    bench.close()


def test_only_time_that_the_room_missed_is_unwitnessed() -> None:
    assert unwitnessed_span([], 0, 30 * 90_000) == []
    assert unwitnessed_span([(1, 2)], 90_000, 40 * 90_000) == [(1, 2), (90_000, 40 * 90_000)]
