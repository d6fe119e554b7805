"""Remove detected persons: on request, with an erasure, or unseen for long."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.identities.model import SYSTEM
from broker_bridge.registry.mongo.client import Document, Mongo

from .merge_groups import MergeGroup, MergeGroups

ALL_SUBJECTS = "#*"
"""The audit subject of a change of many persons; that of one is like `#42`."""

_BATCH_SIZE = 200
_NOTES = "removed-persons:"
_ALL_NOTES = {"$gte": _NOTES, "$lt": _NOTES[:-1] + ";"}


class DetectedPersonRemoval:
    """Removes whole merge groups, with their centroids and trails.

    The tracker may be writing about them at that moment. So a note in `meta` keeps their global ids, which
    identify nothing by themselves, for a minute; then `remove_late_writes` removes what was written since.
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
        """Remove these persons in the transaction of `session`."""
        await self._remove_all_of(session, global_ids)
        note = {"_id": _NOTES + secrets.token_hex(8), "ids": list(global_ids), "at": now}
        await self._meta.insert_one(note, session=session)

    async def _remove_all_of(self, session: Any, global_ids: Sequence[int]) -> None:
        await self._persons.delete_many({"_id": {"$in": list(global_ids)}}, session=session)
        of_persons = {"person": {"$in": list(global_ids)}}
        await self._faces.delete_many(of_persons, session=session)
        await self._trails.delete_many(of_persons, session=session)

    async def remove_late_writes(self, now: datetime) -> None:
        """Remove documents that the tracker wrote after the removal of their person."""
        settled = {"_id": _ALL_NOTES, "at": {"$lte": now - SETTLE_TIME}}
        async for note in self._meta.find(settled):
            await self._remove_all_of(None, note["ids"])
            await self._meta.delete_one({"_id": note["_id"]})

    # With an erasure

    async def erase_linked(self, user_ids: Sequence[str], until: datetime | None, now: datetime) -> int:
        """Remove the persons that are or were linked to one of `user_ids`.

        Return how many.

        With `until` only those first seen then or before. Rejected links to these user ids are deleted from
        all other persons.
        """
        named = {"$in": list(user_ids)}
        period: Document = {} if until is None else {"first_seen": {"$lte": until}}
        query: Document = {"$or": [{"user_id": named}, {"linked_before": named}]} | period

        async def work(session: Any) -> int:
            linked = [found["_id"] async for found in self._persons.find(query, {"_id": 1}, session=session)]
            groups = await self._groups.find(session, linked)
            ids = sorted({global_id for group in groups.values() for global_id in group.ids})
            await self.remove(session, ids, now)
            return len(ids)

        exists = await self._persons.find_one(query, {"_id": 1})
        removed = await self._mongo.transact(work) if exists else 0
        persons = self._mongo.patient_db.persons
        await persons.update_many({"not_users": named} | period, {"$pull": {"not_users": named}})
        return removed

    # With a purged tombstone

    async def unlink_purged(self, session: Any, purged: Mapping[str, str | None]) -> None:
        """Move links of `purged` user ids to the identities they were merged into.

        A purged user id may be given to another identity. The former link stays in `linked_before`, so that
        a later erasure finds the person.
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
        rejected = {"$pull": {"not_users": named}}
        await self._persons.update_many({"not_users": named}, rejected, session=session)

    # After the retention time

    async def forget_unseen(self, before: datetime, now: datetime) -> int:
        """Remove persons last seen before a moment, and older visit segments.

        Return how many persons.

        One transaction per 200 merge groups, one audit entry for all. A group with a member that was seen
        since stays.
        """
        forgotten = 0
        kept: set[int] = set()
        while True:
            query = {"last_seen": {"$lt": before}, "merged_into": None, "_id": {"$nin": sorted(kept)}}
            # Most of the time there is none, and an empty transaction would wait for its turn too.
            if not await self._persons.find_one(query, {"_id": 1}):
                break

            async def work(session: Any, query: Document = query) -> tuple[int, set[int]]:
                return await self._forget_batch(session, query, before, now)

            count, seen_since = await self._mongo.transact(work)
            forgotten += count
            kept |= seen_since
        if forgotten:
            details, what = {"count": forgotten}, "detected-persons.forgotten"
            entry = AuditEntry(who=SYSTEM, what=what, subject=ALL_SUBJECTS, at=now, after=details)
            await self._audit.record(entry, None)
        await self._mongo.patient_db.trails.delete_many({"until": {"$lt": before}})
        return forgotten

    async def _forget_batch(
        self, session: Any, query: Document, before: datetime, now: datetime
    ) -> tuple[int, set[int]]:
        """Return how many persons were removed, and the roots that stay for a member."""
        cursor = (
            self._persons.find(query, {"_id": 1}, session=session).sort("last_seen", 1).limit(_BATCH_SIZE)
        )
        groups = await self._groups.find(session, [found["_id"] async for found in cursor])
        kept = {root for root, group in groups.items() if group.aggregate.last_seen >= before}
        removed: list[MergeGroup] = [group for root, group in groups.items() if root not in kept]
        ids = [global_id for group in removed for global_id in group.ids]
        if ids:
            await self.remove(session, ids, now)
        return len(ids), kept


SETTLE_TIME = timedelta(minutes=1)
"""Writes that were under way at the removal have ended by then."""
