"""Detected persons as they are looked at: together with whoever was merged into them."""

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
from .documents import face_from_document, person_from_document, segment_from_document, segment_to_document
from .merge_groups import MergeGroup, MergeGroups
from .model import DetectedPerson, VisitSegment

_AT_ONCE = 200


@dataclass(frozen=True)
class DetectedPersonFilter:
    """Whom a list is about; None asks for everybody. Of the merged, that counts too which they have."""

    active: bool | None = None
    site_id: str | None = None
    device_id: str | None = None
    user_id: str | None = None
    named: bool | None = None


@dataclass(frozen=True)
class Period:
    """What ended at `since` or later, and began before `until`."""

    since: datetime | None = None
    until: datetime | None = None


ALWAYS = Period()


@dataclass(frozen=True)
class MergeGroupPage:
    """Families, and after whom the next page begins: when the root was last seen, and its global id."""

    groups: list[MergeGroup]
    following: tuple[datetime, int] | None


class DetectedPersonQueries:
    """Reads only. Times are the backend's."""

    def __init__(self, mongo: Mongo, groups: MergeGroups, people: IdentityStore) -> None:
        self._persons = mongo.db.persons
        self._faces = mongo.db.person_faces
        self._trails = mongo.db.trails
        self._groups = groups
        self._people = people

    async def get_group(self, global_id: int) -> MergeGroup:
        """A person, under the global id of a merged one too; ContractError(`detected-person-unknown`)."""
        return await self._groups.of(None, global_id)

    async def find_groups(self, global_ids: Iterable[int]) -> dict[int, MergeGroup]:
        """By each of `global_ids` the family it belongs to; whoever is not there is left out."""
        return await self._groups.of_all(None, global_ids)

    async def active_groups(self, since: datetime, limit: int) -> tuple[int, list[MergeGroup]]:
        """How many people were seen at `since` or later, and up to `limit` of them, newest first."""
        query, told = {"last_seen": {"$gte": since}}, {"last_seen": 1, "merged_into": 1}
        found = [one async for one in self._persons.find(query, told)]
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
        wanted: DetectedPersonFilter,
        active_since: datetime,
        *,
        before: tuple[datetime, int] | None = None,
        limit: int = 100,
    ) -> MergeGroupPage:
        """Up to `limit` people by the time that they were last seen themselves, newest first.

        A page of one site may have fewer: where somebody is comes out when what was merged is added.
        """
        query = await self._query(wanted, active_since)
        cursor = newest_first(self._persons, query, "last_seen", before=before, limit=limit + 1)
        found = [person_from_document(one) async for one in cursor]
        shown = {one.global_id: one for one in found[:limit]}
        groups = list((await self._groups.below(None, shown)).values())
        if wanted.site_id is not None:
            groups = [one for one in groups if one.aggregate.site_id == wanted.site_id]
        if len(found) <= limit:
            return MergeGroupPage(groups, None)
        last = found[limit - 1]
        return MergeGroupPage(groups, (last.last_seen, last.global_id))

    async def _query(self, wanted: DetectedPersonFilter, active_since: datetime) -> Document:
        """The question for roots that suit by themselves or by somebody who was merged into them."""
        tests: list[Document] = []
        if wanted.site_id is not None:
            tests.append({"site_id": wanted.site_id})
        if wanted.device_id is not None:
            tests.append({"cameras.device_id": wanted.device_id})
        if wanted.user_id is not None:
            tests.append({"user_id": {"$in": await self._known_as(wanted.user_id)}})
        if wanted.active:
            tests.append({"last_seen": {"$gte": active_since}})
        if wanted.named:
            tests.append({"assigned_name": {"$ne": None}})
        query: list[Document] = [{"merged_into": None}]
        query += [{"$or": [test, {"_id": {"$in": await self._roots_where(test)}}]} for test in tests]
        # What must be true of nobody in a family.
        refused: list[Document] = []
        if wanted.active is False:
            refused.append({"last_seen": {"$gte": active_since}})
        if wanted.named is False:
            refused.append({"assigned_name": {"$ne": None}})
        query += [{"$nor": [test, {"_id": {"$in": await self._roots_where(test)}}]} for test in refused]
        return {"$and": query}

    async def _roots_where(self, test: Document) -> list[int]:
        """Whom those turned out to be who were merged and suit."""
        merged = self._persons.find({"merged_into": {"$gt": 0}} | test, {"_id": 1})
        groups = await self.find_groups([one["_id"] async for one in merged])
        return sorted({group.root.global_id for group in groups.values()})

    async def _known_as(self, user_id: str) -> list[str]:
        """The user ids that are shown as `user_id`: it and those that went into it, if it is there."""
        person = (await self._people.find_by_id(None, [user_id])).get(user_id)
        if person is None or person.deleted:
            return []
        return [user_id, *await self._people.merged_into(None, user_id)]

    async def linked_identities(self, user_ids: Iterable[str]) -> dict[str, Identity]:
        """By user id who is shown for it today; nobody who is deleted."""
        shown = await resolve_user_ids(self._people, user_ids)
        people = await self._people.find_by_id(None, set(shown.values())) if shown else {}
        return {linked: people[user_id] for linked, user_id in shown.items() if user_id in people}

    async def centroids(self, global_ids: Sequence[int]) -> dict[int, list[FaceCentroid]]:
        """How each of these people is known, by space."""
        faces: dict[int, list[FaceCentroid]] = {}
        async for found in self._faces.find({"person": {"$in": list(global_ids)}}).sort("_id", 1):
            faces.setdefault(found["person"], []).append(face_from_document(found))
        return faces

    async def present_since(self, global_ids: Sequence[int], active_since: datetime) -> dict[int, datetime]:
        """By global id since when somebody is on a camera, of those seen at `active_since` or later."""
        query = {"person": {"$in": list(global_ids)}, "until": {"$gte": active_since}}
        begun: dict[int, datetime] = {}
        async for found in self._trails.find(query, {"person": 1, "since": 1}):
            begun[found["person"]] = min(found["since"], begun.get(found["person"], found["since"]))
        return begun

    async def trail(
        self,
        global_ids: Sequence[int],
        period: Period = ALWAYS,
        *,
        before: tuple[datetime, str] | None = None,
        limit: int = 100,
    ) -> list[tuple[str, VisitSegment]]:
        """Up to `limit` stays of these people, each with its key, newest first."""
        query: Document = {"person": {"$in": list(global_ids)}}
        if period.since is not None:
            query["until"] = {"$gte": period.since}
        if period.until is not None:
            query["since"] = {"$lt": period.until}
        cursor = newest_first(self._trails, query, "since", before=before, limit=limit)
        stays = [segment_from_document(found) async for found in cursor]
        return [(segment_to_document(stay)["_id"], stay) for stay in stays]

    async def groups_linked_to(self, user_ids: Sequence[str]) -> list[MergeGroup]:
        """The families of whoever is one of these enrolled people; not of who was only taken for them."""
        linked = self._persons.find({"user_id": {"$in": list(user_ids)}}, {"_id": 1})
        groups = (await self.find_groups([found["_id"] async for found in linked])).values()
        theirs = {group.root.global_id: group for group in groups if group.aggregate.user_id in user_ids}
        return list(theirs.values())

    async def is_linked_to(self, user_id: str) -> bool:
        """Whether somebody is, or was taken for, an enrolled person."""
        query = {"$or": [{"user_id": user_id}, {"linked_before": user_id}]}
        return await self._persons.find_one(query, {"_id": 1}) is not None

    async def all_with_centroids(self) -> AsyncIterator[tuple[DetectedPerson, list[FaceCentroid]]]:
        """Everybody by global id, the merged too, with how they are known; 200 in memory at a time."""
        after = 0
        while True:
            cursor = self._persons.find({"_id": {"$gt": after}}).sort("_id", 1).limit(_AT_ONCE)
            people: list[DetectedPerson] = [person_from_document(found) async for found in cursor]
            if not people:
                return
            after = people[-1].global_id
            faces = await self.centroids([one.global_id for one in people])
            for person in people:
                yield person, faces.get(person.global_id, [])


def combine_centroids(faces: Iterable[FaceCentroid], space: str) -> FaceCentroid | None:
    """How all of a family together are known in a space, by their weights; None if they are not."""
    known = [face for face in faces if face.space == space]
    if not known:
        return None
    weight = sum(face.weight for face in known)
    mean: Any = sum(face.mean * (face.weight / weight) for face in known)
    return FaceCentroid(space, mean, weight)
