"""Count what an embedding space is used for."""

from dataclasses import dataclass
from inspect import isawaitable

from .mongo.client import Mongo


@dataclass(frozen=True)
class SpaceUse:
    """The use of one space: templates, identities, and the devices that declare it."""

    templates: int = 0
    identities: int = 0
    devices: tuple[str, ...] = ()


class SpaceUsage:
    """Counts over identities and devices."""

    def __init__(self, mongo: Mongo) -> None:
        self._identities = mongo.patient_db.identities
        self._devices = mongo.db.devices

    async def by_space(self) -> dict[str, SpaceUse]:
        """Return the use of each space that has one.

        Identities that are not deleted count. Devices that are decommissioned do not.
        """
        devices: dict[str, list[str]] = {}
        declaring = {"decommissioned_at": None, "info.spaces": {"$exists": True}}
        async for found in self._devices.find(declaring, {"info.spaces": 1}).sort("_id", 1):
            for space_id in found["info"]["spaces"]:
                devices.setdefault(space_id, []).append(found["_id"])
        pipeline = [
            {"$match": {"deleted": False}},
            {"$unwind": "$holdings"},
            {
                "$group": {
                    "_id": "$holdings.space",
                    "templates": {"$sum": "$holdings.count"},
                    "identities": {"$sum": 1},
                }
            },
        ]
        cursor = self._identities.aggregate(pipeline)
        if isawaitable(cursor):
            # PyMongo's asyncio client returns a coroutine here, Motor the cursor itself.
            cursor = await cursor
        counted = {found["_id"]: (found["templates"], found["identities"]) async for found in cursor}
        return {
            space_id: SpaceUse(*counted.get(space_id, (0, 0)), tuple(devices.get(space_id, ())))
            for space_id in {*counted, *devices}
        }
