"""Where a device's gallery stands, as firmware and operators ask for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from broker_bridge.contract.messages import SpaceDigest, WireError


@dataclass(frozen=True)
class SyncStatus:
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
