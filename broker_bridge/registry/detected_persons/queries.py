"""Query detected persons by merge group, for the API and the exports."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker_bridge.registry.identities.model import Identity
from broker_bridge.registry.identities.resolution import resolve_user_ids
from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.mongo.client import Document, Mongo
from broker_bridge.registry.mongo.paging import newest_first

from .centroid import FaceCentroid
from .documents import (
    centroid_from_document,
    person_from_document,
    segment_from_document,
    segment_to_document,
)
from .merge_groups import MergeGroup, MergeGroups
from .model import DetectedPerson, VisitSegment

_BATCH_SIZE = 200


@dataclass(frozen=True)
class DetectedPersonFilter:
    """A filter for `page`: None disables a criterion.

    A merge group matches if any member matches.
    """

    active: bool | None = None
    site_id: str | None = None
    device_id: str | None = None
    user_id: str | None = None
    named: bool | None = None


@dataclass(frozen=True)
class Period:
    """Visit segments that ended at `since` or later and began before `until`."""

    since: datetime | None = None
    until: datetime | None = None


ALWAYS = Period()


@dataclass(frozen=True)
class MergeGroupPage:
    """Merge groups, and the last root's `last_seen` and id as cursor."""

    groups: list[MergeGroup]
    next_position: tuple[datetime, int] | None


class DetectedPersonQueries:
    """Read-only queries. Times are the backend's."""

    def __init__(self, mongo: Mongo, groups: MergeGroups, identities: IdentityStore) -> None:
        self._persons = mongo.db.persons
        self._faces = mongo.db.person_faces
        self._trails = mongo.db.trails
        self._groups = groups
        self._identities = identities

    async def get_group(self, global_id: int) -> MergeGroup:
        """Return the group of a person, merged or not.

        ContractError(`detected-person-unknown`).
        """
        return await self._groups.get(None, global_id)

    async def find_groups(self, global_ids: Iterable[int]) -> dict[int, MergeGroup]:
        """Return the group of each of `global_ids`; unknown ids are left out."""
        return await self._groups.find(None, global_ids)

    async def active_groups(self, since: datetime, limit: int) -> tuple[int, list[MergeGroup]]:
        """Return the count of groups seen at `since` or later, and the newest of them."""
        query, projection = {"last_seen": {"$gte": since}}, {"last_seen": 1, "merged_into": 1}
        found = [one async for one in self._persons.find(query, projection)]
        merged = await self.find_groups(one["_id"] for one in found if one["merged_into"] is not None)
        seen: dict[int, datetime] = {}
        for one in found:
            root = merged[one["_id"]].root.global_id if one["_id"] in merged else one["_id"]
            seen[root] = max(one["last_seen"], seen.get(root, since))
        newest = sorted(seen, key=lambda root: (seen[root], root), reverse=True)[:limit]
        groups = await self.find_groups(newest)
        shown = [groups[root] for root in newest if root in groups]
        # Two of them may have been merged a moment ago.
        return len(seen), list({group.root.global_id: group for group in shown}.values())

    async def page(
        self,
        criteria: DetectedPersonFilter,
        active_since: datetime,
        *,
        before: tuple[datetime, int] | None = None,
        limit: int = 100,
    ) -> MergeGroupPage:
        """Return up to `limit` groups, newest first by the `last_seen` of their roots.

        A page of one site may have fewer: the site of a group is known when its members are read.
        """
        query = await self._query(criteria, active_since)
        cursor = newest_first(self._persons, query, "last_seen", before=before, limit=limit + 1)
        found = [person_from_document(one) async for one in cursor]
        roots = {person.global_id: person for person in found[:limit]}
        groups = list((await self._groups.find_of_roots(None, roots)).values())
        if criteria.site_id is not None:
            groups = [one for one in groups if one.aggregate.site_id == criteria.site_id]
        if len(found) <= limit:
            return MergeGroupPage(groups, None)
        last = found[limit - 1]
        return MergeGroupPage(groups, (last.last_seen, last.global_id))

    async def _query(self, criteria: DetectedPersonFilter, active_since: datetime) -> Document:
        """Return the query for roots that match by themselves or by a member."""
        tests: list[Document] = []
        if criteria.site_id is not None:
            tests.append({"site_id": criteria.site_id})
        if criteria.device_id is not None:
            tests.append({"cameras.device_id": criteria.device_id})
        if criteria.user_id is not None:
            tests.append({"user_id": {"$in": await self._aliases_of(criteria.user_id)}})
        if criteria.active:
            tests.append({"last_seen": {"$gte": active_since}})
        if criteria.named:
            tests.append({"assigned_name": {"$ne": None}})
        query: list[Document] = [{"merged_into": None}]
        query += [{"$or": [test, {"_id": {"$in": await self._roots_where(test)}}]} for test in tests]
        # Criteria that no member of a group may meet.
        excluded: list[Document] = []
        if criteria.active is False:
            excluded.append({"last_seen": {"$gte": active_since}})
        if criteria.named is False:
            excluded.append({"assigned_name": {"$ne": None}})
        query += [{"$nor": [test, {"_id": {"$in": await self._roots_where(test)}}]} for test in excluded]
        return {"$and": query}

    async def _roots_where(self, test: Document) -> list[int]:
        """Return the roots of the merged persons that match `test`."""
        merged = self._persons.find({"merged_into": {"$gt": 0}} | test, {"_id": 1})
        groups = await self.find_groups([one["_id"] async for one in merged])
        return sorted({group.root.global_id for group in groups.values()})

    async def _aliases_of(self, user_id: str) -> list[str]:
        """Return `user_id` and the user ids merged into it.

        None if the identity is deleted.
        """
        identity = (await self._identities.find_by_id(None, [user_id])).get(user_id)
        if identity is None or identity.deleted:
            return []
        return [user_id, *await self._identities.merged_into(None, user_id)]

    async def linked_identities(self, user_ids: Iterable[str]) -> dict[str, Identity]:
        """Return by user id the identity that it stands for today.

        Deleted ones are left out.
        """
        shown = await resolve_user_ids(self._identities, user_ids)
        identities = await self._identities.find_by_id(None, set(shown.values())) if shown else {}
        return {linked: identities[user_id] for linked, user_id in shown.items() if user_id in identities}

    async def centroids(self, global_ids: Sequence[int]) -> dict[int, list[FaceCentroid]]:
        """Return the centroids of these persons, one per space."""
        faces: dict[int, list[FaceCentroid]] = {}
        async for found in self._faces.find({"person": {"$in": list(global_ids)}}).sort("_id", 1):
            faces.setdefault(found["person"], []).append(centroid_from_document(found))
        return faces

    async def present_since(self, global_ids: Sequence[int], active_since: datetime) -> dict[int, datetime]:
        """Return by global id the start of the visit, if it reaches `active_since`."""
        query = {"person": {"$in": list(global_ids)}, "until": {"$gte": active_since}}
        starts: dict[int, datetime] = {}
        async for found in self._trails.find(query, {"person": 1, "since": 1}):
            starts[found["person"]] = min(found["since"], starts.get(found["person"], found["since"]))
        return starts

    async def trail(
        self,
        global_ids: Sequence[int],
        period: Period = ALWAYS,
        *,
        before: tuple[datetime, str] | None = None,
        limit: int = 100,
    ) -> list[tuple[str, VisitSegment]]:
        """Return up to `limit` visit segments with their keys, newest first."""
        query: Document = {"person": {"$in": list(global_ids)}}
        if period.since is not None:
            query["until"] = {"$gte": period.since}
        if period.until is not None:
            query["since"] = {"$lt": period.until}
        cursor = newest_first(self._trails, query, "since", before=before, limit=limit)
        segments = [segment_from_document(found) async for found in cursor]
        return [(segment_to_document(segment)["_id"], segment) for segment in segments]

    async def groups_linked_to(self, user_ids: Sequence[str]) -> list[MergeGroup]:
        """Return the groups that are linked to one of these identities.

        Former links do not count.
        """
        linked = self._persons.find({"user_id": {"$in": list(user_ids)}}, {"_id": 1})
        groups = (await self.find_groups([found["_id"] async for found in linked])).values()
        theirs = {group.root.global_id: group for group in groups if group.aggregate.user_id in user_ids}
        return list(theirs.values())

    async def is_linked_to(self, user_id: str) -> bool:
        """Return whether a person is or was linked to an identity."""
        query = {"$or": [{"user_id": user_id}, {"linked_before": user_id}]}
        return await self._persons.find_one(query, {"_id": 1}) is not None

    async def all_with_centroids(self) -> AsyncIterator[tuple[DetectedPerson, list[FaceCentroid]]]:
        """Yield all persons by global id, merged ones too, with centroids.

        200 in memory at a time.
        """
        after = 0
        while True:
            cursor = self._persons.find({"_id": {"$gt": after}}).sort("_id", 1).limit(_BATCH_SIZE)
            persons: list[DetectedPerson] = [person_from_document(found) async for found in cursor]
            if not persons:
                return
            after = persons[-1].global_id
            faces = await self.centroids([one.global_id for one in persons])
            for person in persons:
                yield person, faces.get(person.global_id, [])


def combine_centroids(faces: Iterable[FaceCentroid], space: str) -> FaceCentroid | None:
    """Return the weighted mean of the centroids of a group in `space`.

    None without any.
    """
    known = [face for face in faces if face.space == space]
    if not known:
        return None
    weight = sum(face.weight for face in known)
    mean: Any = sum(face.mean * (face.weight / weight) for face in known)
    return FaceCentroid(space, mean, weight)
