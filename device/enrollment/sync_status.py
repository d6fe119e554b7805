"""The sync status of a device, for firmware and operators."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from broker_bridge.contract.messages import SpaceDigest, SyncApplied, SyncPosition, WireError


@dataclass(frozen=True)
class DeviceSyncStatus:
    """The position of a gallery and the state of its sync.

    `version` 0 without an `epoch`: never synced. `synced_at` is when the gallery last matched the registry,
    also before a restart. `error` is the one of the last answer.
    """

    epoch: str | None
    version: int
    spaces: Mapping[str, SpaceDigest]
    in_progress: bool
    resetting: bool
    synced_at: datetime | None
    error: WireError | None
    counts: Mapping[str, int]


def applied_message(
    device_id: str, position: SyncPosition, seconds: float, error: WireError | None
) -> SyncApplied:
    """Return the message that reports `position`; applying it took `seconds`."""
    return SyncApplied(
        device_id=device_id,
        epoch=position.epoch,
        version=position.version,
        spaces=position.spaces,
        duration_ms=round(max(0.0, seconds) * 1000, 1),
        error=error,
    )
