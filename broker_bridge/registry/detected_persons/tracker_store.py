"""Collections `persons`, `person_faces` and `trails`, as the tracker reads and writes them."""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError

from broker_bridge.contract.embeddings import Vector
from broker_bridge.registry.mongo.client import Document, Mongo

from .centroid import FaceCentroid
from .documents import (
    counted,
    face_from_document,
    face_to_document,
    person_to_document,
    segment_from_document,
    segment_to_document,
    vector_of,
)
from .model import BY_FACE, DetectedPerson, VisitSegment

_COUNTER = {"_id": "global-ids"}
_DUPLICATE_KEY = 11000


class TrackerStore:
    """Reads and writes detected persons; what somebody has said of one, `person_changes` writes."""

    def __init__(self, mongo: Mongo) -> None:
        self._meta = mongo.db.meta
        self._persons = mongo.db.persons
        self._faces = mongo.db.person_faces
        self._trails = mongo.db.trails

    async def take_ids(self, count: int, above: int = 0) -> range:
        """`count` global ids that nobody has had or will have: those not used are lost, never reused.

        Whatever a restored counter says, they are above everybody who is there, and above `above`.
        """
        newest = await self._persons.find_one({}, {"_id": 1}, sort=[("_id", -1)])
        least = max(above, newest["_id"] if newest else 0)
        raised = {"last": {"$add": [{"$max": ["$last", least]}, count]}}
        found = await self._meta.find_one_and_update(
            _COUNTER, [{"$set": raised}], upsert=True, return_document=ReturnDocument.AFTER
        )
        last: int = found["last"]
        return range(last - count + 1, last + 1)

    async def create(self, people: Sequence[tuple[DetectedPerson, FaceCentroid]]) -> None:
        """Record new people durably; who is recorded already stays. Until it returns nobody may be told."""
        await _insert(self._persons, [person_to_document(person) for person, _ in people])
        await _insert(self._faces, [face_to_document(person.global_id, face) for person, face in people])

    async def existing_ids(self, global_ids: Iterable[int]) -> set[int]:
        """Those of `global_ids` that nobody has deleted."""
        query = {"_id": {"$in": list(global_ids)}}
        return {found["_id"] async for found in self._persons.find(query, {"_id": 1})}

    async def write_counters(self, people: Sequence[DetectedPerson], now: datetime) -> None:
        """Write what the tracker has counted. Who was deleted meanwhile stays so.

        And whom another tracker has seen since: this one was frozen, and its lease is lost.
        """
        updates = [
            UpdateOne(
                {"_id": one.global_id, "last_seen": {"$lte": one.last_seen}},
                {"$set": {**counted(one), "updated_at": now}},
            )
            for one in people
        ]
        if updates:
            await self._persons.bulk_write(updates, ordered=False)

    async def write_centroids(self, faces: Sequence[tuple[int, FaceCentroid]]) -> None:
        """Write how people who are there are known."""
        updates = []
        for global_id, face in faces:
            document = face_to_document(global_id, face)
            updates.append(UpdateOne({"_id": document.pop("_id")}, {"$set": document}, upsert=True))
        if updates:
            await self._faces.bulk_write(updates, ordered=False)

    async def write_segments(self, stays: Sequence[VisitSegment]) -> None:
        """Write pieces of trails, begun or gone on; none becomes shorter than it is there."""
        updates = []
        for stay in stays:
            document = segment_to_document(stay)
            grown = {name: document.pop(name) for name in ("until", "detections")}
            change = {"$setOnInsert": document, "$max": grown}
            updates.append(UpdateOne({"_id": document.pop("_id")}, change, upsert=True))
        if updates:
            await self._trails.bulk_write(updates, ordered=False)

    async def link(self, links: Iterable[tuple[int, str, str | None]]) -> None:
        """Note whom people turned out to be by their faces: global id, user id, and the user id so far.

        Whoever was linked by somebody meanwhile, or is said not to be that person, stays as they are.
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
        """How each of these people is known, by space."""
        faces: dict[int, list[FaceCentroid]] = {}
        async for found in self._faces.find({"person": {"$in": list(global_ids)}}):
            faces.setdefault(found["person"], []).append(face_from_document(found))
        return faces

    async def ids_seen_since(self, moment: datetime) -> list[int]:
        """The global ids of who was last seen at `moment` or later."""
        query = {"last_seen": {"$gte": moment}}
        return [found["_id"] async for found in self._persons.find(query, {"_id": 1})]

    async def find_linked(self, user_ids: Sequence[str]) -> dict[str, int]:
        """By user id the detected person that it is, who may be merged; the oldest if there are several."""
        query = {"user_id": {"$in": list(user_ids)}}
        cursor = self._persons.find(query, {"user_id": 1}).sort("_id", -1)
        return {found["user_id"]: found["_id"] async for found in cursor}

    async def segments_since(self, global_ids: Sequence[int], since: datetime) -> list[VisitSegment]:
        """The pieces of trails of these people that ended at `since` or later."""
        query = {"person": {"$in": list(global_ids)}, "until": {"$gte": since}}
        return [segment_from_document(found) async for found in self._trails.find(query)]

    async def stream_centroids(self, space: str) -> AsyncIterator[tuple[int, Vector, float]]:
        """Everybody known in `space`: global id, unit vector float32[d], consistency."""
        told = {"_id": 0, "person": 1, "vector": 1, "consistency": 1}
        # The driver decodes a batch on the event loop: so many take it some 5 ms.
        async for found in self._faces.find({"space": space}, told).batch_size(500):
            yield found["person"], vector_of(found["vector"]), found["consistency"]


async def _insert(collection: Any, documents: Sequence[Document]) -> None:
    """Insert those of `documents` that are not there yet: nobody knows how an earlier attempt has ended."""
    if not documents:
        return
    try:
        await collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        failures = error.details.get("writeErrors", [])
        if error.details.get("writeConcernErrors") or any(f["code"] != _DUPLICATE_KEY for f in failures):
            raise
