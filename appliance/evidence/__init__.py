"""What proves a recording whole: Merkle log, witnessed checkpoints, manifest, and the staff's audit log."""

from appliance.evidence.audit import AuditCheckpoint, AuditLog
from appliance.evidence.checkpoint import (
    Checkpoint,
    MissingLeaves,
    Witness,
    cosign,
    sign_checkpoint,
    verify_checkpoint,
    verify_cosignature,
)
from appliance.evidence.manifest import (
    EventLeaf,
    Finding,
    Gap,
    LostLeaf,
    Manifest,
    SegmentEntry,
    WrapEntry,
    sign_manifest,
    verify_manifest,
    verify_session,
)
from appliance.evidence.merkle import Frontier, event_leaf, leaf_hash, node_hash, root_of

__all__ = [
    "AuditCheckpoint",
    "AuditLog",
    "Checkpoint",
    "EventLeaf",
    "Finding",
    "Frontier",
    "Gap",
    "LostLeaf",
    "Manifest",
    "MissingLeaves",
    "SegmentEntry",
    "Witness",
    "WrapEntry",
    "cosign",
    "event_leaf",
    "leaf_hash",
    "node_hash",
    "root_of",
    "sign_checkpoint",
    "sign_manifest",
    "verify_checkpoint",
    "verify_cosignature",
    "verify_manifest",
    "verify_session",
]
