"""Detected persons who go: by somebody's word, with the erasure of whom they are, or unseen for long."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.identities.model import SYSTEM
from broker_bridge.registry.mongo.client import Document, Mongo

from .merge_groups import MergeGroup, MergeGroups

ALL_SUBJECTS = "#*"
"""The audit's subject where a change is about many. One is `#42`; no user id begins with that letter."""

_AT_ONCE = 200
_NOTES = "removed-persons:"
_ALL_NOTES = {"$gte": _NOTES, "$lt": _NOTES[:-1] + ";"}


class DetectedPersonRemoval:
    """Removes families whole, with their faces and trails.

    The tracker may just be writing about them. So a note in `meta` keeps their global ids, which name nobody,
    for a minute; then `look_again` removes what was written since.
    """

    def __init__(self, mongo: Mongo, groups: MergeGroups, audit: Audit) -> None:
        self._mongo = mongo
        self._groups = groups
        self._audit = audit
        self._meta = mongo.db.meta
        self._persons = mongo.db.persons
        self._faces = mongo.db.person_faces
        self._trails = mongo.db.trails

    async def remove(self, session: Any, global_ids: Sequence[int], now: datetime) -> None:
        """Remove these people in the transaction of `session`."""
        await self._remove_all_of(session, global_ids)
        note = {"_id": _NOTES + secrets.token_hex(8), "ids": list(global_ids), "at": now}
        await self._meta.insert_one(note, session=session)

    async def _remove_all_of(self, session: Any, global_ids: Sequence[int]) -> None:
        await self._persons.delete_many({"_id": {"$in": list(global_ids)}}, session=session)
        theirs = {"person": {"$in": list(global_ids)}}
        await self._faces.delete_many(theirs, session=session)
        await self._trails.delete_many(theirs, session=session)

    async def remove_late_writes(self, now: datetime) -> None:
        """Remove what was on its way to be written of those who were removed a minute ago."""
        settled = {"_id": _ALL_NOTES, "at": {"$lte": now - SETTLE_TIME}}
        async for note in self._meta.find(settled):
            await self._remove_all_of(None, note["ids"])
            await self._meta.delete_one({"_id": note["_id"]})

    # Whose enrolled person is erased

    async def erase_linked(self, user_ids: Sequence[str], until: datetime | None, now: datetime) -> int:
        """Remove whoever is, or was taken for, one of the enrolled `user_ids`; how many.

        With `until` only who was first seen then or before. Of others who are said not to be one of them, it
        is forgotten.
        """
        named = {"$in": list(user_ids)}
        period: Document = {} if until is None else {"first_seen": {"$lte": until}}
        query: Document = {"$or": [{"user_id": named}, {"linked_before": named}]} | period

        async def work(session: Any) -> int:
            linked = [found["_id"] async for found in self._persons.find(query, {"_id": 1}, session=session)]
            groups = await self._groups.of_all(session, linked)
            ids = sorted({global_id for group in groups.values() for global_id in group.ids})
            await self.remove(session, ids, now)
            return len(ids)

        there = await self._persons.find_one(query, {"_id": 1})
        removed = await self._mongo.transact(work) if there else 0
        await self._persons.update_many({"not_users": named} | period, {"$pull": {"not_users": named}})
        return removed

    # Whose enrolled person is purged

    async def unlink_purged(self, session: Any, purged: Mapping[str, str | None]) -> None:
        """Let nobody be one of `purged` (by user id whom they went into): the id may be given to another.

        That somebody was taken for them stays noted, so that erasing what is left of them finds it.
        """
        named = {"$in": list(purged)}
        for user_id in await self._persons.distinct("user_id", {"user_id": named}, session=session):
            into = purged[user_id]
            while into is not None and into in purged:
                into = purged[into]
            change: Document = {"$set": {"user_id": into}, "$addToSet": {"linked_before": user_id}}
            if into is None:
                change["$set"]["linked_by"] = None
            await self._persons.update_many({"user_id": user_id}, change, session=session)
        refused = {"$pull": {"not_users": named}}
        await self._persons.update_many({"not_users": named}, refused, session=session)

    # Who was not seen for long

    async def forget_unseen(self, before: datetime, now: datetime) -> int:
        """Forget everybody last seen before a moment, and what trails tell of that time; how many people.

        A transaction per 200 families, and an audit entry for all. Whoever has one merged into them who was
        seen since stays.
        """
        forgotten = 0
        stay: set[int] = set()
        while True:
            query = {"last_seen": {"$lt": before}, "merged_into": None, "_id": {"$nin": sorted(stay)}}
            # Most of the time there is nobody, and a transaction would wait for its turn for nothing.
            if not await self._persons.find_one(query, {"_id": 1}):
                break

            async def work(session: Any, query: Document = query) -> tuple[int, set[int]]:
                return await self._forget_some(session, query, before, now)

            count, ids_seen_since = await self._mongo.transact(work)
            forgotten += count
            stay |= ids_seen_since
        if forgotten:
            said, what = {"count": forgotten}, "detected-persons.forgotten"
            entry = AuditEntry(who=SYSTEM, what=what, subject=ALL_SUBJECTS, at=now, after=said)
            await self._audit.record(entry, None)
        await self._trails.delete_many({"until": {"$lt": before}})
        return forgotten

    async def _forget_some(
        self, session: Any, query: Document, before: datetime, now: datetime
    ) -> tuple[int, set[int]]:
        """How many people went, and the global ids of those who stay for what was merged into them."""
        cursor = self._persons.find(query, {"_id": 1}, session=session).sort("last_seen", 1).limit(_AT_ONCE)
        groups = await self._groups.of_all(session, [found["_id"] async for found in cursor])
        stay = {root for root, group in groups.items() if group.aggregate.last_seen >= before}
        gone: list[MergeGroup] = [group for root, group in groups.items() if root not in stay]
        ids = [global_id for group in gone for global_id in group.ids]
        if ids:
            await self.remove(session, ids, now)
        return len(ids), stay


SETTLE_TIME = timedelta(minutes=1)
"""What was on its way when the person was erased has been written by then, or never will be."""
