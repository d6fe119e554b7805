"""Move devices between sites, and decommission them."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Literal

from broker_bridge.contract.errors import DEVICE_UNKNOWN, ContractError
from broker_bridge.registry.api_keys import ApiKeys
from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.mongo.client import Document, Mongo

from .sites import Sites

Clearing = Literal["applied", "all"]
"""Which retained messages of a device are to be cleared in the broker."""

_REPORTS = ("status", "sessions", "info", "heartbeat", "applied", "reported", "duplicate")


class DevicePlacements:
    """The site of each device in collection `devices`, and its end.

    `placement` counts the moves and returns of a device: what it confirmed before belongs to another gallery.
    `left_sites` are the sites whose gallery it may still have, until it confirms one.
    """

    def __init__(self, mongo: Mongo, sites: Sites, audit: Audit, api_keys: ApiKeys) -> None:
        self._mongo = mongo
        self._devices = mongo.db.devices
        self._sites = sites
        self._audit = audit
        self._api_keys = api_keys

    async def move(self, device_id: str, site_id: str, *, by: str, now: datetime) -> None:
        """Move a registered device to another site; at its own site it changes nothing.

        Its confirmed version and its calibration belong to the old place and are removed. Raises
        ContractError(`device-unknown`).
        """

        async def work(session: Any) -> None:
            found = await self._devices.find_one({"_id": device_id}, session=session)
            if found is None or found.get("site_id") is None:
                raise ContractError(DEVICE_UNKNOWN, f"{device_id} is not registered")
            if found["site_id"] == site_id:
                return
            await self._sites.ensure(site_id)
            change = {"site_id": site_id, "metres_per_pixel": None, "placed_at": now, "clear": "applied"}
            left = {"left_sites": found["site_id"]}
            update = {"$set": change, "$inc": {"placement": 1}, "$unset": {"applied": 1}, "$addToSet": left}
            await self._devices.update_one({"_id": device_id}, update, session=session)
            before, after = {"site_id": found["site_id"]}, {"site_id": site_id}
            entry = AuditEntry(by, "device.moved", device_id, now, before=before, after=after)
            await self._audit.record(entry, session)

        await self._mongo.transact(work)

    async def decommission(self, device_id: str, *, by: str, now: datetime) -> None:
        """End the registration of a device, delete its reports and revoke its API keys.

        The id stays known as decommissioned. Only a registration by an admin brings it back. Raises
        ContractError(`device-unknown`).
        """

        async def work(session: Any) -> None:
            found = await self._devices.find_one({"_id": device_id}, session=session)
            if found is None:
                raise ContractError(DEVICE_UNKNOWN, f"there is no device {device_id}")
            await self._api_keys.revoke_of_device(device_id, by=by, at=now, session=session)
            if found.get("decommissioned_at") is not None:
                return
            change = {"site_id": None, "metres_per_pixel": None, "decommissioned_at": now, "clear": "all"}
            update: Document = {"$set": change, "$unset": dict.fromkeys(_REPORTS, 1)}
            if found.get("site_id") is not None:
                update["$addToSet"] = {"left_sites": found["site_id"]}
            await self._devices.update_one({"_id": device_id}, update, session=session)
            before = {"site_id": found.get("site_id")}
            entry = AuditEntry(by, "device.decommissioned", device_id, now, before=before)
            await self._audit.record(entry, session)

        await self._mongo.transact(work)

    async def request_clearing(self, device_ids: Sequence[str]) -> None:
        """Clear the retained messages of those that are decommissioned, once more."""
        query: Document = {"_id": {"$in": list(device_ids)}, "decommissioned_at": {"$ne": None}}
        await self._devices.update_many(query, {"$set": {"clear": "all"}})

    async def to_clear(self) -> dict[str, Clearing]:
        """Return which retained messages the broker has to lose, by device id."""
        cursor = self._devices.find({"clear": {"$gt": ""}}, {"clear": 1})
        return {found["_id"]: found["clear"] async for found in cursor}

    async def mark_cleared(self, device_id: str, clearing: Clearing) -> None:
        """Note that the retained messages were cleared."""
        await self._devices.update_one({"_id": device_id, "clear": clearing}, {"$unset": {"clear": 1}})

    def watch(self) -> AbstractAsyncContextManager[Any]:
        """Return a change stream of devices whose retained messages are to be cleared."""
        changed = {"updateDescription.updatedFields.clear": {"$gt": ""}}
        return self._mongo.watch([{"$match": {"operationType": "update"} | changed}], "devices")
