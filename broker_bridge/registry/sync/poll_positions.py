"""Record which positions each polling device was given.

A registry that was restored from a backup lacks the positions that were given after it. A device that sends
such a position follows a lost history, even if the registry has reached the same version again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from broker_bridge.registry.mongo.client import Document, Mongo

_KEPT = 16
# Of a device that continues by time, the newest answer is recorded once a minute.
_RECORDED_EVERY = timedelta(seconds=60)
_TIME_MARGIN = timedelta(seconds=180)


@dataclass(frozen=True)
class PollPositions:
    """The positions that a device was given in the history `epoch`.

    `versions` begins with the position at which the device stands, followed by those of later answers, which
    it may have applied. `time` is that of the newest answer. Without a record all are empty, and no
    position counts: a restored backup may be older than the device's first answer.
    """

    epoch: str | None = None
    versions: tuple[int, ...] = ()
    time: datetime | None = None

    def has_version(self, epoch: str, version: int) -> bool:
        """Return whether the device may stand at `version`."""
        return self.epoch == epoch and version in self.versions

    def is_past_all(self, epoch: str, version: int) -> bool:
        """Return whether `version` is past all that the device was given.

        False without a record.
        """
        return self.epoch == epoch and bool(self.versions) and version > max(self.versions)

    def reaches(self, epoch: str, version: int) -> bool:
        """Return whether the device was given `version` or a later one."""
        return self.epoch == epoch and bool(self.versions) and version <= max(self.versions)

    def has_time(self, epoch: str, time: datetime) -> bool:
        """Return whether an answer may have had this time."""
        return self.epoch == epoch and self.time is not None and time <= self.time + _TIME_MARGIN

    def after(self, epoch: str, stands_at: int | None, given: int, time: datetime | None) -> "PollPositions":
        """Return the positions after an answer.

        The device stood at `stands_at` (None if that is not known) and was given `given`, and `time` if it
        continues by time.
        """
        earlier: Sequence[int] = self.versions if self.epoch == epoch else ()
        if stands_at is not None:
            since = earlier.index(stands_at) + 1 if stands_at in earlier else len(earlier)
            earlier = [stands_at, *earlier[since:]]
        versions = [*(version for version in earlier if version != given), given]
        last_time = self.time if self.epoch == epoch else None
        if time is not None and (last_time is None or time - last_time >= _RECORDED_EVERY):
            last_time = time
        return PollPositions(epoch, (*versions[:1], *versions[1:][-_KEPT:]), last_time)


class PollPositionStore:
    """The positions in the documents of the devices."""

    def __init__(self, mongo: Mongo) -> None:
        self._devices: Any = mongo.db.devices

    async def of(self, device_id: str) -> PollPositions:
        """Return the positions of a device.

        A device that also syncs over MQTT has the version that it has confirmed there.
        """
        fields = {"polled": 1, "applied.epoch": 1, "applied.version": 1}
        found: Document = await self._devices.find_one({"_id": device_id}, fields) or {}
        polled, applied = found.get("polled") or {}, found.get("applied") or {}
        epoch, versions = polled.get("epoch"), tuple(polled.get("versions", ()))
        if not versions and applied:
            return PollPositions(applied["epoch"], (applied["version"],))
        if applied and applied["epoch"] == epoch and applied["version"] not in versions:
            versions = (*versions, applied["version"])
        return PollPositions(epoch, versions, polled.get("time"))

    async def record(self, device_id: str, positions: PollPositions) -> None:
        """Record positions; the answer that gives them is sent afterwards."""
        polled = {"epoch": positions.epoch, "versions": list(positions.versions), "time": positions.time}
        await self._devices.update_one({"_id": device_id}, {"$set": {"polled": polled}})
