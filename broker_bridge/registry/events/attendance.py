"""Count the visits and recognitions of an identity by site."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from inspect import isawaitable

from broker_bridge.registry.identities.model import Identity
from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.mongo.client import Document, Mongo


@dataclass(frozen=True)
class Attendance:
    """Visits and recognitions (`facial_id`) at one site.

    Times are those of the devices' clocks.
    """

    visits: int
    recognitions: int
    first_at: datetime
    last_at: datetime


class AttendanceQueries:
    """Queries to the collections `events` and `identities`."""

    def __init__(self, mongo: Mongo, identity_store: IdentityStore) -> None:
        self._events = mongo.db.events
        self._identity_store = identity_store

    async def identities(self, user_ids: Sequence[str]) -> dict[str, Identity]:
        """Return identities and tombstones by user id."""
        return await self._identity_store.find_by_id(None, user_ids)

    async def count_by_site(self, user_id: str) -> dict[str | None, Attendance]:
        """Return the attendance of an identity by site.

        None stands for devices without a site.
        """
        counted = {"user_id": user_id, "event_type": {"$in": ["visit", "facial_id"]}}
        group: Document = {
            "_id": "$site_id",
            "visits": {"$sum": {"$cond": [{"$eq": ["$event_type", "visit"]}, 1, 0]}},
            "all": {"$sum": 1},
            "first_at": {"$min": "$timestamp"},
            "last_at": {"$max": "$timestamp"},
        }
        cursor = self._events.aggregate([{"$match": counted}, {"$group": group}])
        if isawaitable(cursor):
            # PyMongo's asyncio client returns a coroutine here, Motor the cursor itself.
            cursor = await cursor
        return {
            site["_id"]: Attendance(
                site["visits"], site["all"] - site["visits"], site["first_at"], site["last_at"]
            )
            async for site in cursor
        }
