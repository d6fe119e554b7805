"""Store devices with their calibration, reports and confirmed versions."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from pymongo import UpdateOne

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.errors import (
    DEVICE_DECOMMISSIONED,
    DEVICE_RESERVED,
    DEVICE_UNKNOWN,
    ContractError,
)
from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.identities.model import SYSTEM
from broker_bridge.registry.mongo.client import Document, Mongo

from .model import AppliedVersion, Device, DeviceRecord, to_applied_version, to_device, to_record
from .reports import DeviceReport
from .sites import Sites

_RESERVED = frozenset({"admin", "bridge", "operator"})


def is_reserved(device_id: str) -> bool:
    """Return whether the id is a broker user with rights of its own.

    Such users are `bridge`, `bridge-2` and `operator`.
    """
    return device_id in _RESERVED or device_id.startswith("bridge-")


class DeviceRegistry:
    """Collection `devices`."""

    def __init__(self, mongo: Mongo, sites: Sites, audit: Audit) -> None:
        self._mongo = mongo
        self._devices = mongo.db.devices
        self._sites = sites
        self._audit = audit

    async def register(
        self, device_id: str, site_id: str, *, dev_mode: bool = False, by: str = SYSTEM
    ) -> Device:
        """Register a device at a site and return it; a registered device keeps its site.

        Only a registration by an admin (`by`) brings a decommissioned device back. Raises ContractError:
        `device-reserved` for the name of a broker user with other rights, `device-decommissioned`.
        """
        if is_reserved(device_id):
            raise ContractError(DEVICE_RESERVED, f"{device_id} is a user of the broker, not a device")
        now = utc_now()
        await self.record_contact([device_id])
        registered = {"site_id": site_id, "dev_mode": dev_mode, "registered_at": now}
        after = {"site_id": site_id, "dev_mode": dev_mode}
        entry = AuditEntry(who=by, what="device.registered", subject=device_id, at=now, after=after)

        async def work(session: Any) -> None:
            new = {"_id": device_id, "site_id": None}
            found = await self._devices.find_one(new, {"decommissioned_at": 1}, session=session)
            if found is None:
                return
            change: Document = {"$set": registered}
            if found.get("decommissioned_at") is not None:
                if by == SYSTEM:
                    detail = f"{device_id} was decommissioned: an admin may register it again"
                    raise ContractError(DEVICE_DECOMMISSIONED, detail)
                change |= {"$unset": {"decommissioned_at": 1, "clear": 1}, "$inc": {"placement": 1}}
                registered["placed_at"] = now
            await self._sites.ensure(site_id)
            await self._devices.update_one(new, change, session=session)
            await self._audit.record(entry, session)

        await self._mongo.transact(work)
        return (await self.registered([device_id]))[device_id]

    async def record_contact(self, device_ids: Sequence[str]) -> None:
        """Create documents for new devices.

        An unregistered device is listed, and not served.
        """
        now = utc_now()
        inserts = [
            UpdateOne({"_id": device_id}, {"$setOnInsert": {"first_seen_at": now}}, upsert=True)
            for device_id in device_ids
        ]
        if inserts:
            await self._devices.bulk_write(inserts, ordered=False)

    async def registered(self, device_ids: Sequence[str]) -> dict[str, Device]:
        """Return the registered ones of `device_ids` by id."""
        query = {"_id": {"$in": list(device_ids)}, "site_id": {"$ne": None}}
        fields = {"site_id": 1, "dev_mode": 1, "placement": 1, "placed_at": 1}
        return {found["_id"]: to_device(found) async for found in self._devices.find(query, fields)}

    async def decommissioned(self, device_ids: Collection[str]) -> set[str]:
        """Return those of `device_ids` that are decommissioned."""
        if not device_ids:
            return set()
        query = {"_id": {"$in": list(device_ids)}, "decommissioned_at": {"$ne": None}}
        return {found["_id"] async for found in self._devices.find(query, {"_id": 1})}

    async def calibrate(
        self, device_id: str, metres_per_pixel: float | None, *, by: str, now: datetime
    ) -> None:
        """Set the metres that a pixel shows where faces pass the camera.

        None removes the calibration. A decommissioned device is unknown.

        Raises ContractError(`device-unknown`).
        """

        async def work(session: Any) -> None:
            found = await self._devices.find_one_and_update(
                {"_id": device_id, "decommissioned_at": None},
                {"$set": {"metres_per_pixel": metres_per_pixel}},
                session=session,
            )
            if found is None:
                raise ContractError(DEVICE_UNKNOWN, f"there is no device {device_id}")
            before = found.get("metres_per_pixel")
            if before != metres_per_pixel:
                entry = AuditEntry(
                    who=by,
                    what="device.calibrated",
                    subject=device_id,
                    at=now,
                    before={"metres_per_pixel": before},
                    after={"metres_per_pixel": metres_per_pixel},
                )
                await self._audit.record(entry, session)

        await self._mongo.transact(work)

    async def calibrations(self) -> dict[str, float]:
        """Return the metres per pixel of the calibrated cameras by device id."""
        cursor = self._devices.find({"metres_per_pixel": {"$gt": 0}}, {"metres_per_pixel": 1})
        return {found["_id"]: found["metres_per_pixel"] async for found in cursor}

    async def record_reports(self, reports: Sequence[DeviceReport]) -> None:
        """Write reports in one round trip.

        Reports of devices without a document are skipped.
        """
        if reports:
            # In order: of two sessions of a device the one that arrived last counts.
            await self._devices.bulk_write([report.update for report in reports], ordered=True)

    async def online_sessions(self, device_ids: Collection[str]) -> dict[str, tuple[str, datetime]]:
        """Return the session of each device that is online, as its id and its begin."""
        query = {"_id": {"$in": list(device_ids)}, "status.state": "online"}
        cursor = self._devices.find(query, {"status.session": 1, "status.at": 1})
        return {found["_id"]: (found["status"]["session"], found["status"]["at"]) async for found in cursor}

    async def get(self, device_id: str) -> DeviceRecord | None:
        """Return the record of a device, or None."""
        found = await self._devices.find_one({"_id": device_id})
        return found and to_record(found)

    async def page(
        self, *, after: str = "", limit: int = 100, site_id: str | None = None, decommissioned: bool = False
    ) -> list[DeviceRecord]:
        """Return up to `limit` devices (of a site) with ids past `after`, in order of id.

        With `decommissioned` those that are decommissioned, otherwise the others.
        """
        query: Document = {"_id": {"$gt": after}} | ({"site_id": site_id} if site_id else {})
        query["decommissioned_at"] = {"$ne": None} if decommissioned else None
        return [to_record(found) async for found in self._devices.find(query).sort("_id", 1).limit(limit)]

    async def applied_versions(self, sites: Sequence[str] | None = None) -> list[AppliedVersion]:
        """Return what each registered device has confirmed, in order of device id."""
        query: Document = {"site_id": {"$in": list(sites)} if sites is not None else {"$ne": None}}
        cursor = self._devices.find(query, {"site_id": 1, "applied": 1}).sort("_id", 1)
        return [to_applied_version(found) async for found in cursor]

    async def holders_of(self, sites: Sequence[str] | None, epoch: str) -> list[AppliedVersion]:
        """Return the registered devices that may have the gallery of a site.

        `sites` are these sites, None means all. A device that was moved may have its old gallery until it has
        confirmed one of `epoch` at its new site.
        """
        if sites is None:
            return await self.applied_versions()
        named = {"$in": list(sites)}
        unconfirmed: list[Document] = [{"applied.epoch": {"$ne": epoch}}, {"applied.differs": True}]
        has_left: Document = {"left_sites": named, "site_id": {"$ne": None}, "$or": unconfirmed}
        cursor = self._devices.find({"$or": [{"site_id": named}, has_left]}, {"site_id": 1, "applied": 1})
        return [to_applied_version(found) async for found in cursor.sort("_id", 1)]
