"""The whole camera process: the orders that it follows, and the ends of a life of it."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.clock import SystemClock, parse_utc, utc_text
from appliance.local_link import LocalClient, Message
from appliance.store.check import check_store
from appliance.store.recording import RecordingStore
from tests.camera_node import HANGING_DEVICE, Node, S, camera_node, until
from tests.unit.test_store_builders import SID, new_session
from tests.unit.test_sync_room import DESK

pytestmark = pytest.mark.slow

# Python's own collector comes by when it likes; without it only what the process does by itself is seen.
COUNT_WHAT_IS_LEFT = """
import gc, signal
gc.disable()
HELD = ("RunningSession", "FragmentEncoder", "OutputContainer", "InputContainer", "VideoFrame", "Packet")
def count(*_):
    names = [type(each).__name__ for each in gc.get_objects()]
    print("LEFT", *(f"{name}={names.count(name)}" for name in HELD), file=sys.stderr, flush=True)
signal.signal(signal.SIGUSR1, count)
"""
NOT_COLLECTED = "gc.collect = lambda: 0\n"


@pytest.fixture
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    with camera_node(tmp_path, request) as made:
        yield made


# --- orders


def test_a_session_begins_and_ends_with_the_ledger_alone(node: Node) -> None:
    """F009: the camera is closed before the order and after the end."""
    node.start()
    facts = until(node.facts, "facts")
    assert (facts["camera_problem"], facts["camera_open"], facts["light_on"]) == (None, False, False)
    assert node.link.send({"type": "session", "sid": SID, "face": True})  # no order of anybody's on this link
    time.sleep(0.6)
    assert node.row is None
    node.order(face=True)
    node.records(4)
    facts = until(lambda: (f := node.facts()) and f["camera_open"] and f, "camera open")
    assert facts["light_on"]
    assert facts["faults"] == ["face and gaze are not being assessed"]
    assert node.ring.exists()
    said = [message for message in node.heard if message["type"] == "session" and message["sid"]]
    assert (said[0]["sid"], said[0]["face"], said[0]["gaze"]) == (SID, True, False)
    node.end()
    assert node.gaps() == []
    assert set(node.segment_states()) == {"closed"}
    assert not node.ring.exists(), "pictures outlived the session"
    facts = until(lambda: (f := node.facts()) and not f["light_on"] and f, "light out")
    assert facts["camera_open"] is False
    assert node.stop() == 0
    assert check_store(node.bench.store) == []


@pytest.mark.parametrize("control", [False, True], ids=["", "control: nobody tidies up"])
def test_the_process_holds_nothing_of_an_exam_that_has_ended(node: Node, control: bool) -> None:
    """Neither the film's encoder nor a picture, though a container and its streams hold each other."""
    node.before = COUNT_WHAT_IS_LEFT + control * NOT_COLLECTED
    node.start()
    node.order()
    node.records(4)
    node.end()
    time.sleep(0.6)  # two turns
    assert node.process is not None
    node.process.send_signal(signal.SIGUSR1)
    log = node.folder / "camera.log"
    left = until(lambda: re.search(r"^LEFT (.*)$", log.read_text(), re.MULTILINE), "the count")[1]
    assert (sum(int(each.partition("=")[2]) for each in left.split()) > 0) == control, left


def test_f042_no_picture_leaves_the_process_where_no_model_may_look(node: Node) -> None:
    node.start()
    node.order(face=False, preview=False)
    node.link.send({"type": "watch", "mode": "live", "lease_s": 10})
    node.records(2)
    assert not node.ring.exists()
    node.link.send({"type": "watch", "mode": "live", "lease_s": 10})
    time.sleep(0.5)
    assert not any(message["type"] == "preview" for message in node.heard)
    node.end()


def test_an_order_under_a_foreign_policy_is_told_and_not_obeyed(node: Node) -> None:
    node.start()
    until(node.facts, "facts")
    start = node.bench.start().model_dump(mode="json")
    start["policy"]["body"]["exam_title"] = "another"
    node.bench.ledger.order_start(SID, DESK, start)
    node.link.send({"type": "wake"})
    until(lambda: any("policy" in fault for fault in node.facts()["faults"]), "the fault")
    assert node.row is None
    assert node.process is not None
    assert node.process.poll() is None


def test_facts_and_previews_come_as_often_as_they_should(node: Node) -> None:
    node.start()
    node.order()
    node.records(2)
    other: list[Message] = []
    inference = LocalClient(node.socket, other.append)
    until(lambda: inference.connected, "second peer")
    node.heard.clear()
    node.link.send({"type": "watch", "mode": "still", "lease_s": 2})
    time.sleep(5)
    kinds = [message["type"] for message in node.heard]
    assert 4 <= kinds.count("facts") <= 6
    assert 2 <= kinds.count("preview") <= 3
    assert not any(message["type"] == "preview" for message in other), "a picture for who did not ask"
    inference.close()


# --- ends of a life


def test_sigkill_then_a_restart_goes_on_with_a_named_gap(node: Node) -> None:
    """F146: at most the open fragment is lost."""
    node.start()
    node.order()
    node.records(4)
    node.stop(signal.SIGKILL)
    covered_s = node.covered_s
    node.start()
    node.records(covered_s + 4)
    node.end()
    [gap] = node.gaps()
    assert gap.cause == "recording process restarted"
    assert gap.start_90k / S == covered_s
    resumed = [segment for segment in node.view.segments(SID) if segment.epoch == 1]
    assert gap.end_90k == resumed[0].start_90k
    assert node.segment_states().count("open_ended") == 1
    node.stop()
    assert check_store(node.bench.store) == []


def test_sigkill_and_a_reboot(node: Node) -> None:
    node.start()
    node.order()
    node.records(2)
    node.stop(signal.SIGKILL)
    node.fake_reboot()
    time.sleep(2)
    node.start()
    node.record_more(4)
    node.stop(signal.SIGKILL)
    node.start()
    node.record_more(4)
    ended = node.end()
    assert ended.ended is not None
    gap, second = node.gaps()
    assert (gap.cause, second.cause) == ("node restarted", "recording process restarted")
    assert gap.end_90k - gap.start_90k > 2 * S
    length_s = (parse_utc(ended.ended) - parse_utc(ended.started)).total_seconds()
    assert abs(node.covered_s - length_s) < 1.0


def test_the_end_was_ordered_while_the_node_was_dead(node: Node) -> None:
    node.start()
    node.order()
    node.records(2)
    node.stop(signal.SIGKILL)
    covered_s, row = node.covered_s, node.row
    assert row is not None
    node.fake_reboot()
    ended_at = utc_text(parse_utc(row.started) + timedelta(seconds=covered_s + 90))
    node.order_end(ended_at)
    node.start()
    assert node.ended().ended == ended_at
    [gap] = node.gaps()
    assert (gap.start_90k / S, gap.cause) == (covered_s, "node restarted")
    assert gap.end_90k == pytest.approx((covered_s + 90) * S, abs=100)
    assert node.covered_s == covered_s, "filmed after the end"


def test_a_session_that_ended_before_it_could_begin_is_kept_and_films_nothing(node: Node) -> None:
    """Start and end lay in the ledger before this process woke: a row and a leaf, so that it can be certified."""
    node.order()
    node.order_end()
    node.start()
    ended = node.ended()
    assert ended.ended == ended.started
    assert [event.body["kind"] for event in node.view.events(SID)] == ["session_close"]
    assert node.view.events(SID)[0].body["cause"] == "ended before recording began"
    until(lambda: sum(message["type"] == "facts" for message in node.heard) >= 3, "three seconds of facts")
    assert not any(message["light_on"] for message in node.heard if message["type"] == "facts")
    assert (node.segment_states(), node.gaps(), node.ring.exists()) == ([], [], False)
    assert node.stop() == 0
    assert check_store(node.bench.store) == []


def test_a_session_killed_between_its_row_and_its_first_leaf_has_a_leaf_in_the_end(node: Node) -> None:
    with closing(RecordingStore(node.bench.store, SystemClock())) as store:
        store.begin_session(new_session())
    node.order()
    node.order_end()
    node.start()
    node.ended()
    assert [event.body["kind"] for event in node.view.events(SID)] == ["session_close"]


def test_sigterm_seals_and_the_next_start_goes_on(node: Node) -> None:
    node.start()
    node.order()
    node.records(3)
    assert node.stop(signal.SIGTERM) == 0
    assert set(node.segment_states()) == {"closed"}
    assert node.row is not None
    assert node.row.ended is None
    stopped_s = node.covered_s
    node.start()
    node.records(stopped_s + 3)
    node.end()
    [gap] = node.gaps()
    assert gap.cause == "recording process restarted"
    assert (gap.start_90k / S, set(node.segment_states())) == (stopped_s, {"closed"})
    kinds = [event.body["kind"] for event in node.view.events(SID)]
    assert kinds == ["epoch_open", "epoch_close"] * 2


@pytest.mark.parametrize("node", ["v4l2:/dev/video0"], indirect=True)
def test_a_driver_that_hangs_ends_the_process_and_the_next_one_goes_on(node: Node) -> None:
    node.before = HANGING_DEVICE
    node.start()
    node.order()
    node.records(4)
    (node.folder / "hang").touch()
    assert node.process is not None
    assert node.process.wait(20) == 9
    covered_s = node.covered_s
    (node.folder / "hang").unlink()
    node.start()
    node.record_more(2)
    node.end()
    gaps = node.gaps()
    assert gaps[0].cause == "camera lost: camera /dev/video0 does not close"
    assert [gap.cause for gap in gaps[1:]] == ["recording process restarted"]
    assert gaps[0].start_90k / S == covered_s
    assert gaps[0].end_90k == gaps[1].start_90k
