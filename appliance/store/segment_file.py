"""One growing segment file: each record is bytes, then sync, then rows, then acknowledged; in this order."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.clock import Clock, utc_text
from appliance.errors import StoreFailed
from appliance.evf.format import Header, RecordKind
from appliance.store.database import Transactions
from appliance.store.durable import FileOps, fdatasync, store_failure, write_all
from appliance.store.reserve import Reserve
from appliance.store.rows import Digests, RecordPlace, finish_segment, insert_record

if TYPE_CHECKING:
    from appliance.evf.writer import SealedRecord

_FOOTAGE = (RecordKind.INIT, RecordKind.FRAGMENT)


class SegmentFile:
    """Used by one thread. After any StoreFailed it takes no more records: `abandon` it, begin a new one."""

    def __init__(
        self,
        fd: int,
        segment_id: int,
        name: str,
        header: Header,
        prefix: bytes,
        transactions: Transactions,
        file_ops: FileOps,
        clock: Clock,
        reserve: Reserve,
    ) -> None:
        self.name = name
        self.sid = header.sid
        self.size_bytes = len(prefix)  # acknowledged, not merely written
        self.next_record = 0
        self._fd: int | None = fd
        self._segment_id = segment_id
        self._digests = Digests()
        self._digests.update(prefix)
        self._in_doubt = False
        self._transactions = transactions
        self._file_ops = file_ops
        self._clock = clock
        self._reserve = reserve

    @property
    def finished(self) -> bool:
        """True once sealed or abandoned."""
        return self._fd is None

    def append(self, record: SealedRecord, end_90k: int | None = None) -> int:
        """Make one record durable and return its leaf's place in the session; StoreFailed, NoSpace.

        `end_90k`: where its footage ends, which only the encoder knows; without it, its own time.
        """
        if record.kind is RecordKind.END:
            raise StoreFailed("the end record goes through seal", "")
        end = record.time_90k if end_90k is None else end_90k
        return self._append(record, end, sealing=False)

    def seal(self, end_record: SealedRecord) -> int:
        """Append END and close the row, in one transaction; returns END's leaf's place."""
        if end_record.kind is not RecordKind.END:
            raise StoreFailed("a segment is sealed with an end record", "")
        leaf_index = self._append(end_record, end_record.time_90k, sealing=True)
        self.release()
        return leaf_index

    def abandon(self, cause: str) -> None:
        """Leave the segment open-ended after its last acknowledged record. If it fails, call it again."""
        if self._fd is None:
            return
        # Best effort, not synced: the row says how many bytes count, and recovery cuts what is behind them.
        with suppress(OSError):
            self._file_ops.truncate(self._fd, self.size_bytes)
        with self._transactions.begin(f"the end of {self.name}") as connection:
            finish_segment(connection, self._segment_id, "open_ended", self.size_bytes, self._digests, cause)
        self.release()

    def release(self) -> None:
        """Close the descriptor alone; the row keeps what it says."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with suppress(OSError):  # everything acknowledged is synced already
                self._file_ops.close(fd)

    def _append(self, record: SealedRecord, end_90k: int, sealing: bool) -> int:
        fd = self._require_usable(record)
        self._reserve.make_room(len(record.data), footage=record.kind in _FOOTAGE)
        self._in_doubt = True
        try:
            write_all(fd, record.data, self._file_ops)
            fdatasync(fd, self._file_ops)
        except OSError as error:
            raise store_failure(f"cannot append record {record.index} to {self.name}", error) from error
        digests = self._digests.copy() if sealing else self._digests
        size_bytes = self.size_bytes + len(record.data)
        with self._transactions.begin(f"record {record.index} of {self.name}") as connection:
            leaf_index = insert_record(
                connection,
                self.sid,
                self._segment_id,
                RecordPlace(
                    record.index,
                    record.kind,
                    record.key_frame,
                    record.time_90k,
                    end_90k,
                    self.size_bytes,
                    len(record.data),
                    record.leaf,
                ),
                self._clock.mono_ns(),
                utc_text(self._clock.wall()),
            )
            if sealing:
                digests.update(record.data)
                finish_segment(connection, self._segment_id, "closed", size_bytes, digests, "")
        if not sealing:
            self._digests.update(record.data)
        self.size_bytes = size_bytes
        self.next_record += 1
        self._in_doubt = False
        return leaf_index

    def _require_usable(self, record: SealedRecord) -> int:
        if self._fd is None:
            raise StoreFailed(f"{self.name} is finished", "begin a new segment")
        if self._in_doubt:
            raise StoreFailed(f"{self.name} had a write error", "abandon it and begin a new segment")
        if record.index != self.next_record:
            raise StoreFailed(f"record {record.index} of {self.name} where {self.next_record} belongs", "")
        return self._fd
