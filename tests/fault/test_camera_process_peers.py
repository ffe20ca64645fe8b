"""The whole camera process beside others: locks on its databases, models that die, peers that flood, stall or lie."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from appliance.local_link import LocalClient, Message
from appliance.store.check import check_store
from tests.camera_node import Node, S, camera_node, until
from tests.unit.test_store_builders import SID

pytestmark = pytest.mark.slow


@pytest.fixture
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    with camera_node(tmp_path, request) as made:
        yield made


def report(phase: str = "opened", start_90k: int = 0, end_90k: int | None = None) -> Message:
    return {
        "kind": "nobody_at_desk", "words": "nobody at the desk", "phase": phase, "start_90k": start_90k,
        "end_90k": end_90k, "duration_s": 1.0, "level": "red", "rule": "longer than 10 s", "measured": {},
    }  # fmt: skip


def test_orders_are_followed_once_a_locked_ledger_can_be_read(node: Node) -> None:
    node.order()
    node.bench.close()
    with closing(sqlite3.connect(node.view.layout.ledger_db, isolation_level=None)) as lock:
        lock.execute("PRAGMA locking_mode = EXCLUSIVE")
        lock.execute("BEGIN EXCLUSIVE")
        node.start()
        until(lambda: (f := node.facts()) and any("ledger.db" in fault for fault in f["faults"]), "fault", 25)
        assert node.row is None
    node.records(2)
    node.bench.open_ledger()
    node.end()
    assert node.gaps() == []


def test_a_lock_on_the_index_delays_fragments_and_loses_none(node: Node) -> None:
    node.start()
    node.order()
    node.records(2)
    with closing(sqlite3.connect(node.view.layout.index_db, isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        time.sleep(3.5)
        lock.execute("ROLLBACK")
    node.records(8)
    node.end()
    assert node.gaps() == []
    assert set(node.segment_states()) == {"closed"}
    assert max(node.latencies_s()) > 1.0, "the lock was not felt: this test shows nothing"


def test_two_lives_of_the_model_process_and_a_sync_process_that_forgot(node: Node) -> None:
    node.start()
    node.order(face=True)
    node.records(2)
    for life in range(2):
        inference = LocalClient(node.socket, lambda _message: None)
        until(lambda inference=inference: inference.connected, "inference")
        assert inference.send({"type": "inference", "rate_hz": 5.0})
        assert inference.send({"type": "observation", "key": 0, "report": report(start_90k=life)})
        until(lambda life=life: len(node.observations()) == 2 * life + 1, "opened")
        until(lambda: node.facts()["inference_rate_hz"] == 5.0, "rate")
        inference.close()
        until(lambda life=life: len(node.observations()) == 2 * life + 2, "closed")
        until(lambda: node.facts()["inference_rate_hz"] is None, "no rate")
    phases = [(each["number"], each["report"]["phase"]) for each in node.observations()]
    assert phases == [(0, "opened"), (0, "closed"), (1, "opened"), (1, "closed")]
    ended = node.observations()[1]["report"]
    assert ended["uncertainty"] == "assessment ended before it did"
    assert ended["end_90k"] > 2 * S
    newest = [each for each in node.observations() if each["report"]["phase"] == "closed"]

    again: list[Message] = []
    sync = LocalClient(node.socket, again.append)
    until(lambda: len(again) >= 3, "replay on connecting")
    assert [each for each in again if each["type"] == "observation"] == newest
    since = len(again)
    sync.send({"type": "replay"})
    until(lambda: len([e for e in again[since:] if e["type"] == "observation"]) == 2, "replay when asked")
    sync.close()
    node.end()
    since = len(node.heard)
    node.link.send({"type": "replay"})
    until(lambda: node.observations(since) == newest, "replay after the end")
    kinds = [event.body["kind"] for event in node.view.events(SID)]
    assert kinds.count("assessment_began") == kinds.count("assessment_stopped") == 2
    node.stop()
    assert check_store(node.bench.store) == []


def test_peers_that_flood_or_send_garbage_cost_no_frame(node: Node) -> None:
    node.start()
    node.order(face=True)
    node.records(2)
    flooding = threading.Event()

    def flood(line: bytes) -> None:
        while not flooding.is_set():
            with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(0.5)
                connection.connect(str(node.socket))
                while not flooding.is_set():
                    connection.sendall(line * 50)

    observation = json.dumps({"type": "observation", "key": 3, "report": report("closed", 0, 1)}).encode()
    ahead = json.dumps({"type": "observation", "key": 4, "report": report("closed", 2**70, 2**71)}).encode()
    lines = [observation + b"\n", ahead + b"\n", b"\xff\xfe garbage\n", b'{"type":"replay"}\n', b"x" * 70_000]
    threads = [threading.Thread(target=flood, args=(line,)) for line in lines]
    for thread in threads:
        thread.start()
    try:
        node.record_more(6)
        node.end()
    finally:
        flooding.set()
        for thread in threads:
            thread.join()
    assert node.gaps() == []
    assert max(node.latencies_s()) < 1.0
    recorded = sum(segment.records for segment in node.view.segments(SID) if segment.track == "log")
    assert 0 < recorded < 150
    assert node.stop() == 0
    assert check_store(node.bench.store) == []


def test_recording_does_not_wait_for_a_peer_that_stands_still(node: Node) -> None:
    with socket.socket(socket.AF_UNIX) as stopped:
        node.start()
        until(node.facts, "facts")
        stopped.connect(str(node.socket))
        node.order()
        until(lambda: node.row is not None, "session")
        for _ in range(8):
            # It wants live pictures and everything again, and reads nothing.
            stopped.sendall(b'{"type":"watch","mode":"live","lease_s":10}\n{"type":"replay"}\n')
            time.sleep(1)
        node.end()
    latencies = sorted(node.latencies_s())
    print(f"append latency with a stopped peer: median {latencies[len(latencies) // 2] * 1e3:.0f} ms,")
    print(f"longest {latencies[-1] * 1e3:.0f} ms, of {len(latencies)} fragments")
    assert latencies[-1] < 0.5
    assert node.gaps() == []
