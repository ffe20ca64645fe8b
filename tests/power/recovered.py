"""Starts the store after the cut and holds what is there against what had been acknowledged."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.clock import SystemClock
from appliance.errors import StoreFailed
from appliance.evf import (
    EpochKey,
    EvfError,
    Header,
    Outcome,
    Record,
    SegmentReader,
    open_wrap,
    scan_segment,
    secret_at,
)
from appliance.evf.wraps import wrap_name
from appliance.store.check import check_store
from appliance.store.ledger import Ledger, LedgerView
from appliance.store.recording import RecordingStore
from appliance.store.view import RecordingView
from tests.power.writer import DEVICE_KEY, EVENT_BYTES, REPRESENTATIVE, SID, VIDEO_BYTES, plaintext


@dataclass
class Told:
    """Everything that the lives on one disk acknowledged."""

    session: bool = False
    epochs: list[int] = field(default_factory=list)
    records: dict[tuple[str, int], tuple[int, bytes]] = field(default_factory=dict)  # place, leaf
    sealed: set[str] = field(default_factory=set)
    events: dict[int, Any] = field(default_factory=dict)
    orders: set[str] = field(default_factory=set)
    serial: int = 0
    failures: list[str] = field(default_factory=list)
    late: set[tuple[str, int]] = field(default_factory=set)  # records said while the disk was going

    def hear(self, line: bytes, until: int | None = None) -> None:
        """Take one line of the writer's; what came after `until` need not be there, but may be.

        FS_IOC_SHUTDOWN does not stop the processors, as a power cut does: an fdatasync that it overtakes can return
        success though the journal has dropped its transaction. So an acknowledgement counts if its call returned
        before the ioctl began.
        """
        said = json.loads(line)
        if until is not None and said["at"] > until:
            if "record" in said:
                self.late.add((said["record"][0], said["record"][1]))
            return
        match said:
            case {"session": _}:
                self.session = True
            case {"epoch": epoch}:
                self.epochs.append(epoch)
            case {"record": [name, index, place, leaf], "sealed": sealed}:
                self.records[name, index] = place, bytes.fromhex(leaf)
                if sealed:
                    self.sealed.add(name)
            case {"event": [place, body]}:
                self.events[place] = body
            case {"order": sid, "serial": serial}:
                self.orders.add(sid)
                self.serial = serial
            case {"failed": message}:
                self.failures.append(message)

    @property
    def count(self) -> int:
        """Acknowledgements of records, events and orders."""
        return len(self.records) + len(self.events) + len(self.orders)


@dataclass
class Found:
    """What the start after the cut gave; `lost` and `wrong` are to stay empty."""

    lost: list[str] = field(default_factory=list)  # acknowledged, and not there
    wrong: list[str] = field(default_factory=list)  # everything else that is not as promised
    adopted: int = 0
    unacknowledged: int = 0
    closed: int = 0
    open_ended: int = 0
    quarantined: int = 0


def compare(root: Path, told: Told) -> Found:
    """Recovery, then every acknowledged record, event and order; every segment is opened with a key."""
    found = Found()
    try:
        store = RecordingStore(root, SystemClock())
        Ledger(root / "ledger.db").close()  # the sync process starts again as well
    except StoreFailed as error:
        found.wrong.append(f"the store does not start: {error}")
        found.lost += [f"all {told.count} acknowledgements"] * bool(told.count)
        return found
    active, recovery = store.active_session(), store.recovery
    store.close()
    found.adopted, found.quarantined = recovery.adopted_records, len(recovery.quarantined)
    found.wrong += [f"{path} is missing or damaged" for path in recovery.missing + recovery.damaged]
    if told.session and (active is None or active.sid != SID):
        found.lost.append("the session")
    view, ledger = RecordingView(root), LedgerView(root / "ledger.db")
    try:
        _compare_segments(view, told, found)
        _compare_log(view, told, found)
        _compare_orders(ledger, told, found)
    finally:
        view.close()
        ledger.close()
    found.wrong += [
        f"{problem.where} {problem.what}"
        for problem in check_store(root)
        if not problem.where.startswith("quarantine/")
    ]
    return found


def _compare_segments(view: RecordingView, told: Told, found: Found) -> None:
    there: dict[tuple[str, int], bytes] = {}
    for row in view.segments(SID):
        try:
            reader, records, leaves = _open(view, row.epoch, row.cls, row.name)
        except (EvfError, OSError) as error:
            found.wrong.append(f"{row.name} cannot be opened: {error}")
            continue
        outcome = reader.outcome
        if (outcome, row.state) not in ((Outcome.CLOSED, "closed"), (Outcome.OPEN_ENDED, "open_ended")):
            found.wrong.append(f"{row.name} is {outcome} ({reader.reason}), its row says {row.state}")
        if reader.records != row.records:
            found.wrong.append(f"{row.name}: {row.records} rows, {reader.records} of them open")
        found.closed += outcome is Outcome.CLOSED
        found.open_ended += outcome is Outcome.OPEN_ENDED
        size_bytes = VIDEO_BYTES if row.track == "video" else EVENT_BYTES
        for record in records:
            if record.plaintext != plaintext(row.name, record.index, size_bytes):
                found.wrong.append(f"{row.name}: record {record.index} holds something else")
        there.update({(row.name, index): leaf for index, leaf in enumerate(leaves)})
        if row.name in told.sealed and outcome is not Outcome.CLOSED:
            found.lost.append(f"the end of {row.name}")
    found.lost += [
        f"record {index} of {name}"
        for (name, index), (_, leaf) in told.records.items()
        if there.get((name, index)) != leaf
    ]
    more = Counter(name.rpartition("-")[0] for name, _ in there.keys() - told.records.keys() - told.late)
    found.unacknowledged = more.total()
    found.wrong += [f"{track}: {count} unacknowledged records" for track, count in more.items() if count > 1]
    if found.adopted > found.unacknowledged + len(told.late):
        found.wrong.append(
            f"{found.adopted} records had to be adopted, {found.unacknowledged} unacknowledged"
        )


def _compare_log(view: RecordingView, told: Told, found: Found) -> None:
    leaves = view.leaves(SID)
    for (name, index), (place, leaf) in told.records.items():
        if leaves[place : place + 1] != [leaf]:
            found.lost.append(f"leaf {place}: record {index} of {name}")
    events = {event.leaf_index: event.body for event in view.events(SID)}
    found.lost += [
        f"event at leaf {place}" for place, body in told.events.items() if events.get(place) != body
    ]


def _compare_orders(ledger: LedgerView, told: Told, found: Found) -> None:
    there = {order.sid for order in ledger.orders()}
    found.lost += [f"order {sid}" for sid in told.orders - there]
    if ledger.last_serial() < told.serial:
        found.lost.append(f"serial {told.serial}: the ledger knows {ledger.last_serial()}")


def _open(
    view: RecordingView, epoch: int, cls: str, name: str
) -> tuple[SegmentReader, list[Record], list[bytes]]:
    """With the representative's key and the wrap as it stands on the disk; also the leaf of every whole record."""
    wrap = view.layout.wrap(wrap_name(SID, epoch, cls)).read_bytes()
    key: EpochKey = open_wrap(wrap, REPRESENTATIVE, DEVICE_KEY.public_key())

    def secret_for(header: Header) -> bytes:
        return secret_at(key, header.track, header.seg)

    with view.layout.segment(SID, name).open("rb") as stream:
        reader = SegmentReader(stream, secret_for)
        records = list(reader)
        stream.seek(0)
        # The reader gives no END, only its outcome; the scan has its leaf as well.
        leaves = [record.leaf for record in scan_segment(stream).records[: reader.records]]
    return reader, records, leaves
