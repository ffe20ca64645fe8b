"""The EVF1 recording format: framing, keys, writer, reader. Pure; imports nothing else of ours."""

from appliance.evf.errors import (
    BadKeyFile,
    BadPassphrase,
    BadSignature,
    BadWrap,
    CorruptSegment,
    EvfError,
    LimitExceeded,
    NotARecipient,
    Outdated,
    WriterClosed,
)
from appliance.evf.format import Header, RecordKind
from appliance.evf.keys import EpochKey, SegmentSecret, TrackRatchet, secret_at
from appliance.evf.reader import Outcome, Record, SegmentReader, open_record
from appliance.evf.recipients import RecipientSet, Representative, RepresentativeKey
from appliance.evf.scan import ScannedRecord, SegmentScan, scan_segment
from appliance.evf.wraps import WrapContext, open_wrap, wrap_epoch_key
from appliance.evf.writer import SealedRecord, SegmentWriter

__all__ = [
    "BadKeyFile",
    "BadPassphrase",
    "BadSignature",
    "BadWrap",
    "CorruptSegment",
    "EpochKey",
    "EvfError",
    "Header",
    "LimitExceeded",
    "NotARecipient",
    "Outcome",
    "Outdated",
    "RecipientSet",
    "Record",
    "RecordKind",
    "Representative",
    "RepresentativeKey",
    "ScannedRecord",
    "SealedRecord",
    "SegmentReader",
    "SegmentScan",
    "SegmentSecret",
    "SegmentWriter",
    "TrackRatchet",
    "WrapContext",
    "WriterClosed",
    "open_record",
    "open_wrap",
    "scan_segment",
    "secret_at",
    "wrap_epoch_key",
]
