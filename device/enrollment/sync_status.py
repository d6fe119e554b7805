"""Where a device's gallery stands, as firmware and operators ask for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from broker_bridge.contract.messages import SpaceDigest, SyncApplied, SyncPosition, WireError


@dataclass(frozen=True)
class DeviceSyncStatus:
    """`version` 0 without an `epoch`: never synced. `synced_at` is when the gallery was last known to be the
    registry's, also before a restart; `error` is what the last answer had to say against it."""

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
    """What a device says it holds; `seconds` is how long it took to apply."""
    return SyncApplied(
        device_id=device_id,
        epoch=position.epoch,
        version=position.version,
        spaces=position.spaces,
        duration_ms=round(max(0.0, seconds) * 1000, 1),
        error=error,
    )
