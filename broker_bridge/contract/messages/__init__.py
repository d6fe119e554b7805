"""Define every message of wire contract version 1, one frozen model each.

`channels` says on which topic each message travels.
"""

from .devices import (
    Command,
    CommandResult,
    DesiredConfig,
    DeviceInfo,
    DeviceStatus,
    Heartbeat,
    ReportedConfig,
    SpaceInfo,
)
from .enrollment import (
    Registered,
    RegisterIdentity,
    Removal,
    SpaceDigest,
    SpaceDigests,
    SpaceHead,
    SyncApplied,
    SyncDelta,
    SyncHead,
    SyncPage,
    SyncPosition,
    SyncProgress,
    SyncRequest,
    Upsert,
    WireTemplate,
)
from .events import Event, Receipts, Rejection
from .fields import Code, Count, EnrollmentPolicy, Flag, Ratio, Sentence, Version, WireError
from .tracking import MAX_FRAME_SIDE, Assignment, BoundingBox, Observation, Pixels

__all__ = [
    "MAX_FRAME_SIDE",
    "Assignment",
    "BoundingBox",
    "Code",
    "Command",
    "CommandResult",
    "Count",
    "DesiredConfig",
    "DeviceInfo",
    "DeviceStatus",
    "EnrollmentPolicy",
    "Event",
    "Flag",
    "Heartbeat",
    "Observation",
    "Pixels",
    "Ratio",
    "Receipts",
    "RegisterIdentity",
    "Registered",
    "Rejection",
    "Removal",
    "ReportedConfig",
    "Sentence",
    "SpaceDigest",
    "SpaceDigests",
    "SpaceHead",
    "SpaceInfo",
    "SyncApplied",
    "SyncDelta",
    "SyncHead",
    "SyncPage",
    "SyncPosition",
    "SyncProgress",
    "SyncRequest",
    "Upsert",
    "Version",
    "WireError",
    "WireTemplate",
]
