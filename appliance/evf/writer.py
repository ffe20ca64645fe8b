"""Seals the records of one segment; gives bytes, touches no file. The store makes them durable."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.evf.errors import EvfError, LimitExceeded, WriterClosed
from appliance.evf.format import (
    MAX_PLAINTEXT_BYTES,
    PRE_BYTES,
    TAG_BYTES,
    Header,
    Pre,
    RecordKind,
    chain_next,
    chain_start,
    leaf_hash,
)
from appliance.evf.keys import SegmentSecret, derive_segment_keys
from appliance.evf.sframe import SframeKey, encode_header


@dataclass(frozen=True)
class SealedRecord:
    """One RECORD ready to append: `data` is the whole record, `leaf` its Merkle leaf hash (32 bytes).

    A writer made with `in_place` gives `data` as a view that its next record overwrites.
    """

    index: int
    data: bytes | memoryview
    leaf: bytes
    kind: RecordKind
    time_90k: int
    key_frame: bool


class SegmentWriter:
    """One writer for one segment, used once. `prefix` is HEADER || COMMIT, to be written first.

    The segment's secret is overwritten here: after `end` or `erase` the writer cannot open the segment. `in_place`
    spares a copy of each record for a caller that is done with one before it asks for the next.
    """

    def __init__(self, header: Header, segment_secret: SegmentSecret, *, in_place: bool = False) -> None:
        self._in_place = in_place
        if header.seg != segment_secret.seg:
            raise EvfError("segment secret belongs to another segment")
        header_bytes = header.encode()
        base_key, commit = derive_segment_keys(segment_secret.secret, header_bytes)
        segment_secret.erase()
        self._key: SframeKey | None = SframeKey(base_key, header.seg)
        base_key[:] = bytes(len(base_key))
        self._chain = chain_start(header_bytes, commit)
        self._next_index = 0
        self._scratch = bytearray()
        self.header = header
        self.prefix = header_bytes + commit

    @property
    def closed(self) -> bool:
        """True after `end`, `erase` or a failure inside `record`."""
        return self._key is None

    def record(
        self,
        kind: RecordKind,
        plaintext: bytes | bytearray | memoryview,
        time_90k: int,
        key_frame: bool = False,
    ) -> SealedRecord:
        """Seal the next record. LimitExceeded before anything is used; WriterClosed after end or erase."""
        if kind is RecordKind.END:
            raise EvfError("the end record is written by end()")
        return self._seal(RecordKind(kind), plaintext, time_90k, key_frame)

    def end(self, time_90k: int) -> SealedRecord:
        """Seal END, which carries the chain over all records, and erase the key."""
        sealed = self._seal(RecordKind.END, self._chain, time_90k, False)
        self.erase()
        return sealed

    def erase(self) -> None:
        """Drop the key; a segment erased without `end` stays open-ended."""
        self._key = None

    def _seal(
        self,
        kind: RecordKind,
        plaintext: bytes | bytearray | memoryview,
        time_90k: int,
        key_frame: bool,
    ) -> SealedRecord:
        key = self._key
        if key is None:
            raise WriterClosed("segment is closed", "begin a new segment")
        length = plaintext.nbytes if isinstance(plaintext, memoryview) else len(plaintext)
        if length > MAX_PLAINTEXT_BYTES:
            raise LimitExceeded(f"record holds {length} bytes, more than {MAX_PLAINTEXT_BYTES}")
        index = self._next_index
        pre = Pre(kind, key_frame, index, length, time_90k).encode()
        sframe_header = encode_header(key.kid, index)
        start = PRE_BYTES + len(sframe_header)
        total = start + length + TAG_BYTES
        # One buffer for all records: a fresh one each time halved the throughput (page faults; bench/evf_write.py).
        if len(self._scratch) < total:
            self._scratch = bytearray(total)
        self._scratch[:PRE_BYTES] = pre
        self._scratch[PRE_BYTES:start] = sframe_header
        # From here the counter is spent: an interruption must not let another plaintext meet the same nonce.
        self._next_index += 1
        record = memoryview(self._scratch)[:total]
        key.seal_into(index, sframe_header, pre, plaintext, record[start:])
        data = record.toreadonly() if self._in_place else bytes(record)
        leaf = leaf_hash(data)
        self._chain = chain_next(self._chain, leaf)
        return SealedRecord(index, data, leaf, kind, time_90k, key_frame)
