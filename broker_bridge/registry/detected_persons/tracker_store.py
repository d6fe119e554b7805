"""Read and write `persons`, `person_faces` and `trails` for the tracker."""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError

from broker_bridge.contract.embeddings import Vector
from broker_bridge.registry.mongo.client import Document, Mongo

from .centroid import FaceCentroid
from .documents import (
    centroid_from_document,
    centroid_to_document,
    counters_to_document,
    person_to_document,
    segment_from_document,
    segment_to_document,
    vector_of,
)
from .model import BY_FACE, DetectedPerson, VisitSegment

_COUNTER = {"_id": "global-ids"}
_DUPLICATE_KEY = 11000


class TrackerStore:
    """The tracker's part of detected persons.

    DetectedPersonEdits writes what operators edit.
    """

    def __init__(self, mongo: Mongo) -> None:
        self._meta = mongo.db.meta
        self._persons = mongo.db.persons
        self._faces = mongo.db.person_faces
        self._trails = mongo.db.trails

    async def take_ids(self, count: int, above: int = 0) -> range:
        """Reserve `count` global ids that are never given again; unused ones are lost.

        They are above `above` and above every stored person, also after a restore of an older counter.
        """
        newest = await self._persons.find_one({}, {"_id": 1}, sort=[("_id", -1)])
        least = max(above, newest["_id"] if newest else 0)
        raised = {"last": {"$add": [{"$max": ["$last", least]}, count]}}
        found = await self._meta.find_one_and_update(
            _COUNTER, [{"$set": raised}], upsert=True, return_document=ReturnDocument.AFTER
        )
        last: int = found["last"]
        return range(last - count + 1, last + 1)

    async def create(self, persons: Sequence[tuple[DetectedPerson, FaceCentroid]]) -> None:
        """Store new persons; stored ones stay as they are.

        Publish their ids only after this.
        """
        await _insert(self._persons, [person_to_document(person) for person, _ in persons])
        await _insert(
            self._faces, [centroid_to_document(person.global_id, centroid) for person, centroid in persons]
        )

    async def existing_ids(self, global_ids: Iterable[int]) -> set[int]:
        """Return those of `global_ids` that are stored."""
        query = {"_id": {"$in": list(global_ids)}}
        return {found["_id"] async for found in self._persons.find(query, {"_id": 1})}

    async def write_counters(self, persons: Sequence[DetectedPerson], now: datetime) -> None:
        """Write the tracker's counters.

        Skip documents that were deleted, or updated by a newer tracker: then this one was frozen and has
        lost its lease.
        """
        updates = [
            UpdateOne(
                {"_id": one.global_id, "last_seen": {"$lte": one.last_seen}},
                {"$set": {**counters_to_document(one), "updated_at": now}},
            )
            for one in persons
        ]
        if updates:
            await self._persons.bulk_write(updates, ordered=False)

    async def write_centroids(self, centroids: Sequence[tuple[int, FaceCentroid]]) -> None:
        """Write centroids by global id; the caller checks that the persons exist."""
        updates = []
        for global_id, centroid in centroids:
            document = centroid_to_document(global_id, centroid)
            updates.append(UpdateOne({"_id": document.pop("_id")}, {"$set": document}, upsert=True))
        if updates:
            await self._faces.bulk_write(updates, ordered=False)

    async def write_segments(self, segments: Sequence[VisitSegment]) -> None:
        """Write new or longer visit segments; none becomes shorter than it is stored."""
        updates = []
        for segment in segments:
            document = segment_to_document(segment)
            grown = {name: document.pop(name) for name in ("until", "detections")}
            change = {"$setOnInsert": document, "$max": grown}
            updates.append(UpdateOne({"_id": document.pop("_id")}, change, upsert=True))
        if updates:
            await self._trails.bulk_write(updates, ordered=False)

    async def link(self, links: Iterable[tuple[int, str, str | None]]) -> None:
        """Link persons by face: global id, new user id, previous user id.

        Skip persons whose link an operator has changed or rejected meanwhile.
        """
        updates = []
        for global_id, user_id, before in links:
            change: Document = {"$set": {"user_id": user_id, "linked_by": BY_FACE}}
            if before is not None:
                change["$addToSet"] = {"linked_before": before}
            is_free = {"_id": global_id, "user_id": before, "not_users": {"$ne": user_id}}
            updates.append(UpdateOne(is_free, change))
        if updates:
            await self._persons.bulk_write(updates, ordered=False)

    # Reading

    async def centroids_of(self, global_ids: Iterable[int]) -> dict[int, list[FaceCentroid]]:
        """Return the centroids of these persons, one per space."""
        centroids: dict[int, list[FaceCentroid]] = {}
        async for found in self._faces.find({"person": {"$in": list(global_ids)}}):
            centroids.setdefault(found["person"], []).append(centroid_from_document(found))
        return centroids

    async def ids_seen_since(self, moment: datetime) -> list[int]:
        """Return the global ids of persons last seen at `moment` or later."""
        query = {"last_seen": {"$gte": moment}}
        return [found["_id"] async for found in self._persons.find(query, {"_id": 1})]

    async def find_linked(self, user_ids: Sequence[str]) -> dict[str, int]:
        """Return by user id the oldest person linked to it, merged or not."""
        query = {"user_id": {"$in": list(user_ids)}}
        cursor = self._persons.find(query, {"user_id": 1}).sort("_id", -1)
        return {found["user_id"]: found["_id"] async for found in cursor}

    async def segments_since(self, global_ids: Sequence[int], since: datetime) -> list[VisitSegment]:
        """Return the visit segments of these persons that ended at `since` or later."""
        query = {"person": {"$in": list(global_ids)}, "until": {"$gte": since}}
        return [segment_from_document(found) async for found in self._trails.find(query)]

    async def stream_centroids(self, space: str) -> AsyncIterator[tuple[int, Vector, float]]:
        """Yield global id, unit vector float32[d] and centroid norm of all in `space`."""
        projection = {"_id": 0, "person": 1, "vector": 1, "consistency": 1}
        # The driver decodes a batch on the event loop: 500 documents take some 5 ms.
        async for found in self._faces.find({"space": space}, projection).batch_size(500):
            yield found["person"], vector_of(found["vector"]), found["consistency"]


async def _insert(collection: Any, documents: Sequence[Document]) -> None:
    """Insert the `documents` that are not stored yet.

    An earlier attempt may have stored some.
    """
    if not documents:
        return
    try:
        await collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        failures = error.details.get("writeErrors", [])
        if error.details.get("writeConcernErrors") or any(f["code"] != _DUPLICATE_KEY for f in failures):
            raise
