"""Who came how often: reports of visits, and counts over the events of a person."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from inspect import isawaitable

from broker_bridge.contract.errors import ContractError
from broker_bridge.registry.identities.model import EVERY_SITE, PERSON_MERGED, Identity
from broker_bridge.registry.identities.rules import identity_unknown
from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.mongo.client import Document, Mongo


@dataclass(frozen=True)
class Attendance:
    """Visits and recognitions (`facial_id`) at one site, first and last by the devices' clocks."""

    visits: int
    recognitions: int
    first_at: datetime
    last_at: datetime


class AttendanceQueries:
    """Questions to the collections `events` and `identities`."""

    def __init__(self, mongo: Mongo, people: IdentityStore) -> None:
        self._events = mongo.db.events
        self._people = people

    async def identities(self, user_ids: Sequence[str]) -> dict[str, Identity]:
        """People and tombstones by user id."""
        return await self._people.find_by_id(None, user_ids)

    async def count_by_site(self, user_id: str) -> dict[str | None, Attendance]:
        """What is recorded of a person by site; None stands for devices that had no site."""
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
            # PyMongo's asyncio client hands out a coroutine here, Motor the cursor itself.
            cursor = await cursor
        return {
            one["_id"]: Attendance(one["visits"], one["all"] - one["visits"], one["first_at"], one["last_at"])
            async for one in cursor
        }


def check_visit(people: Mapping[str, Identity], user_id: str, site_id: str, at: datetime) -> None:
    """Raise ContractError(`person-unknown`, `person-merged`) for a visit that cannot be this person's.

    A device that was away may report who came before they were deleted. Whom its site never had it cannot
    have met: it is not told whether there is such a person.
    """
    person = people.get(user_id)
    if person is None or person.erased or not {site_id, EVERY_SITE} & set(person.synced_sites):
        raise identity_unknown(user_id)
    if person.merge:
        raise ContractError(PERSON_MERGED, f"{user_id} went into {person.merge.into}: report the visit there")
    if person.deleted_at is not None and at > person.deleted_at:
        raise identity_unknown(user_id)
