"""Devices: who may speak, what each last said, and who has confirmed which version."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import bson
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.errors import (
    DEVICE_RESERVED,
    DEVICE_UNKNOWN,
    PAYLOAD_INVALID,
    ContractError,
)
from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.identities.model import SYSTEM
from broker_bridge.registry.mongo.client import Document, Mongo

from .sites import Sites

_RESERVED = frozenset({"admin", "bridge", "operator"})


def is_reserved(device_id: str) -> bool:
    """Whether this is a user of the broker with rights of its own, like `bridge`, `bridge-2`, `operator`."""
    return device_id in _RESERVED or device_id.startswith("bridge-")


@dataclass(frozen=True)
class Device:
    """A device that may take part; `dev_mode` lets names travel to it."""

    device_id: str
    site_id: str
    dev_mode: bool = False


@dataclass(frozen=True)
class AppliedVersion:
    """How far a device has confirmed its site's history."""

    device_id: str
    site_id: str
    epoch: str | None
    version: int | None
    at: datetime | None

    def confirms(self, epoch: str, version: int) -> bool:
        """Whether the device holds `version`: everything up to it, deletions included."""
        return self.epoch == epoch and self.version is not None and self.version >= version


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
        """Record a device and its site; one that is known keeps its place.

        Raises ContractError(`device-reserved`) for a name that is a user of the broker with other rights.
        """
        if is_reserved(device_id):
            raise ContractError(DEVICE_RESERVED, f"{device_id} is a user of the broker, not a device")
        now = utc_now()
        await self._sites.ensure(site_id)
        await self.record_contact([device_id])
        registered = {"site_id": site_id, "dev_mode": dev_mode, "registered_at": now}
        said = {"site_id": site_id, "dev_mode": dev_mode}
        entry = AuditEntry(who=by, what="device.registered", subject=device_id, at=now, after=said)

        async def work(session: Any) -> None:
            new = {"_id": device_id, "site_id": None}
            done = await self._devices.update_one(new, {"$set": registered}, session=session)
            if done.modified_count:
                await self._audit.record(entry, session)

        await self._mongo.transact(work)
        return (await self.registered([device_id]))[device_id]

    async def record_contact(self, device_ids: Sequence[str]) -> None:
        """Note that these devices have spoken. Until one is registered it is only shown, not served."""
        now = utc_now()
        begun = [
            UpdateOne({"_id": d}, {"$setOnInsert": {"first_seen_at": now}}, upsert=True) for d in device_ids
        ]
        if begun:
            await self._devices.bulk_write(begun, ordered=False)

    async def registered(self, device_ids: Sequence[str]) -> dict[str, Device]:
        """Those of `device_ids` that are registered."""
        registered = {"_id": {"$in": list(device_ids)}, "site_id": {"$ne": None}}
        cursor = self._devices.find(registered, {"site_id": 1, "dev_mode": 1})
        return {
            found["_id"]: Device(found["_id"], found["site_id"], found["dev_mode"]) async for found in cursor
        }

    async def calibrate(
        self, device_id: str, metres_per_pixel: float | None, *, by: str, now: datetime
    ) -> None:
        """Note how much a pixel of a camera shows of people where they walk, or with None that nobody knows.

        Raises ContractError(`device-unknown`).
        """

        async def work(session: Any) -> None:
            found = await self._devices.find_one_and_update(
                {"_id": device_id}, {"$set": {"metres_per_pixel": metres_per_pixel}}, session=session
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
        """Metres per pixel of the cameras of which it is known, by device id."""
        cursor = self._devices.find({"metres_per_pixel": {"$gt": 0}}, {"metres_per_pixel": 1})
        return {found["_id"]: found["metres_per_pixel"] async for found in cursor}

    async def record_reports(self, reports: Sequence["DeviceReport"]) -> None:
        """Write what devices reported, in one round trip; devices that were never met are left out."""
        if reports:
            await self._devices.bulk_write([report.update for report in reports], ordered=False)

    async def get(self, device_id: str) -> Document | None:
        """Everything known of a device, or None."""
        found: Document | None = await self._devices.find_one({"_id": device_id})
        return found

    async def page(self, *, after: str = "", limit: int = 100, site_id: str | None = None) -> list[Document]:
        """Up to `limit` device documents with ids past `after`."""
        query: Document = {"_id": {"$gt": after}} | ({"site_id": site_id} if site_id else {})
        return [found async for found in self._devices.find(query).sort("_id", 1).limit(limit)]

    async def applied_versions(self, sites: Sequence[str] | None = None) -> list[AppliedVersion]:
        """What each device (of `sites`, or all) has confirmed, in order of device id."""
        query: Document = {"site_id": {"$in": list(sites)} if sites is not None else {"$ne": None}}
        cursor = self._devices.find(query, {"site_id": 1, "applied": 1}).sort("_id", 1)
        return [_applied(found) async for found in cursor]


def declared_models(device: Document) -> dict[str, str]:
    """The SHA-256 of the model files that a device document declares, by space."""
    spaces: Document = (device.get("info") or {}).get("spaces", {})
    return {space: info["model_sha256"] for space, info in spaces.items() if info.get("model_sha256")}


def _applied(found: Mapping[str, Any]) -> AppliedVersion:
    said = found.get("applied") or {}
    return AppliedVersion(
        found["_id"], found["site_id"], said.get("epoch"), said.get("version"), said.get("received_at")
    )


@dataclass(frozen=True)
class DeviceReport:
    """One thing a device said, as an update of its document."""

    update: UpdateOne

    @classmethod
    def status(
        cls, device_id: str, state: str, session: str, at: datetime, received_at: datetime
    ) -> "DeviceReport":
        """Presence; a status of an older session than the recorded one changes nothing."""
        number = int(session, 16) & (2**63 - 1)
        said = {
            "status": {"state": state, "session": session, "at": at, "received_at": received_at},
            "session_number": number,
        }
        newest = {"$or": [{"session_number": {"$lte": number}}, {"session_number": {"$exists": False}}]}
        return cls(UpdateOne({"_id": device_id} | newest, {"$set": said}))

    @classmethod
    def latest(cls, device_id: str, kind: str, said: Document, received_at: datetime) -> "DeviceReport":
        """`info`, `heartbeat`, `applied` or `reported`: the last one said, under its name.

        Raises ContractError(`payload-invalid`) for what BSON cannot hold: in a batch it would stop the rest.
        """
        try:
            document = RawBSONDocument(bson.encode({**said, "received_at": received_at}))
        except (BSONError, OverflowError, ValueError) as error:
            raise ContractError(PAYLOAD_INVALID, f"the {kind} cannot be stored") from error
        return cls(UpdateOne({"_id": device_id}, {"$set": {kind: document, "last_seen": received_at}}))
