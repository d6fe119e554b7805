"""Store recognition events, each once, and their images.

Images are kept apart and expire.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError

from broker_bridge.registry.mongo.change_stream import ChangeStream
from broker_bridge.registry.mongo.client import Document, Mongo
from broker_bridge.registry.mongo.paging import newest_first
from broker_bridge.registry.mongo.resume import BRIEF_WAIT_MS, check_unbroken

from .encoding import encode_batch
from .event_filter import EventFilter
from .model import EventRecord, IncomingEvent, RecordedEvents, to_event_record
from .pseudonyms import NUMERIC_METADATA, Pseudonyms

_DUPLICATE_KEY = 11000
_PSEUDONYMISE_BATCH = 500
_NEW_EVENTS = [{"$match": {"operationType": "insert"}}]


class EventStore:
    """Collections `events` and `event_images`."""

    def __init__(self, mongo: Mongo, pseudonyms: Pseudonyms) -> None:
        self._mongo = mongo
        self._pseudonyms = pseudonyms
        self._events = mongo.db.events
        self._images = mongo.db.event_images

    async def record(self, batch: Sequence[IncomingEvent], *, expect_repeats: bool = False) -> RecordedEvents:
        """Record `batch`; a repeated event changes nothing.

        Events of erased identities are recorded under their pseudonym. Events marked as replayed, or all with
        `expect_repeats`, are looked up first: an insert that collides costs several times one that does not.
        Raises PyMongoError unless all of the batch is certainly durable: then no receipt may be sent, and the
        devices repeat.
        """
        pseudonymised = await self._pseudonyms.pseudonymise([item.event for item in batch])
        if pseudonymised:
            batch = [
                replace(item, event=pseudonymised.get(position, item.event))
                for position, item in enumerate(batch)
            ]
        encoded = encode_batch(batch)
        likely = [item.key for item in batch if expect_repeats or item.event.metadata.get("replayed") is True]
        present = await self._present(likely) if likely else set()
        fresh = [key for key in encoded.documents if key not in present]
        # Images first: a visible event has its image.
        await self._insert(self._images, [encoded.images[key] for key in fresh if key in encoded.images])
        collided = await self._insert(self._events, [encoded.documents[key] for key in fresh])
        return RecordedEvents(frozenset(encoded.documents), encoded.rejected, len(present) + collided)

    async def _present(self, keys: Sequence[str]) -> set[str]:
        cursor = self._events.find({"_id": {"$in": list(keys)}}, {"_id": 1})
        return {found["_id"] async for found in cursor}

    async def _insert(self, collection: Any, documents: Sequence[RawBSONDocument]) -> int:
        """Insert all and return the number of duplicates; raise any other failure."""
        if not documents:
            return 0
        try:
            await collection.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            failures = error.details.get("writeErrors", [])
            if error.details.get("writeConcernErrors") or any(f["code"] != _DUPLICATE_KEY for f in failures):
                raise
            return len(failures)
        return 0

    async def page(
        self, criteria: EventFilter, *, before: tuple[datetime, str] | None = None, limit: int = 100
    ) -> list[EventRecord]:
        """Return up to `limit` events, newest first by time of receipt.

        The page starts after the cursor `before`.
        """
        query = criteria.to_query()
        events = newest_first(self._events, query, "received_at", before=before, limit=limit)
        return [to_event_record(found) async for found in events]

    async def get(self, device_id: str, event_id: str) -> EventRecord | None:
        """Return one event, or None."""
        found = await self._events.find_one({"_id": f"{device_id}/{event_id}"})
        return found and to_event_record(found)

    async def image(self, device_id: str, event_id: str) -> bytes | None:
        """Return the JPEG of an event, or None if it had none or it has expired."""
        found = await self._images.find_one({"_id": f"{device_id}/{event_id}"})
        return bytes(found["jpeg"]) if found else None

    async def exist_for(self, user_ids: Sequence[str]) -> bool:
        """Return whether an event of one of `user_ids` is recorded."""
        return await self._events.find_one({"user_id": {"$in": list(user_ids)}}, {"_id": 1}) is not None

    async def batches_for(
        self, user_ids: Sequence[str], batch_size: int
    ) -> AsyncIterator[list[tuple[EventRecord, bytes | None]]]:
        """Yield all events of `user_ids` by time of receipt, in batches.

        Each event comes with its JPEG if it is kept.
        """
        batch: list[EventRecord] = []
        cursor = self._events.find({"user_id": {"$in": list(user_ids)}}).sort("received_at", 1)
        async for found in cursor.batch_size(batch_size):
            batch.append(to_event_record(found))
            if len(batch) == batch_size:
                yield await self._with_images(batch)
                batch = []
        if batch:
            yield await self._with_images(batch)

    async def _with_images(self, events: list[EventRecord]) -> list[tuple[EventRecord, bytes | None]]:
        query = {"_id": {"$in": [event.key for event in events if event.has_image]}}
        images = {found["_id"]: bytes(found["jpeg"]) async for found in self._images.find(query)}
        return [(event, images.get(event.key)) for event in events]

    async def pseudonymise(
        self, user_ids: Sequence[str], pseudonym: str, until: datetime | None = None
    ) -> tuple[int, int]:
        """Replace `user_ids` by a pseudonym in events and delete their images.

        `until` limits the events by their time.

        Returns the numbers of events and images. A repeated call continues an interrupted one.
        """
        query: Document = {"user_id": {"$in": list(user_ids)}}
        if until is not None:
            query["timestamp"] = {"$lte": until}
        update = _pseudonymising_update(pseudonym)
        events = images = 0
        while True:
            cursor = self._events.find(query, {"_id": 1}).limit(_PSEUDONYMISE_BATCH)
            batch = {"_id": {"$in": [found["_id"] async for found in cursor]}}
            if not batch["_id"]["$in"]:
                return events, images
            # Images first: an event without its user id is not found again.
            images += (await self._images.delete_many(batch)).deleted_count
            events += (await self._events.update_many(batch, update)).modified_count

    def watch(self, resume_after: str | None = None) -> AbstractAsyncContextManager[ChangeStream]:
        """Return a change stream of new events.

        It starts now, or after a token of `resume_token`.
        """
        options = {"resume_after": {"_data": resume_after}} if resume_after else {}
        return self._mongo.watch(_NEW_EVENTS, "events", **options)

    @asynccontextmanager
    async def watch_missed(self, after: str, until: str) -> AsyncIterator[ChangeStream]:
        """Open a change stream of the events between two tokens.

        Read it until it has reached `until`.

        Raises a RegistryError that `cannot_resume` knows if the collection was replaced in between.
        """
        await check_unbroken(self._mongo, "events", after, until)
        options = {"resume_after": {"_data": after}, "max_await_time_ms": BRIEF_WAIT_MS}
        async with self._mongo.watch(_NEW_EVENTS, "events", **options) as stream:
            yield stream


def _pseudonymising_update(pseudonym: str) -> list[Document]:
    """Return the update that pseudonymises events in MongoDB.

    It does the same as Pseudonyms.pseudonymise.
    """
    metadata = {}
    for name in NUMERIC_METADATA:
        value = f"$metadata.{name}"
        is_number = {"$or": [{"$isNumber": value}, {"$eq": [{"$type": value}, "bool"]}]}
        metadata[name] = {"$cond": [is_number, value, "$$REMOVE"]}
    # $replaceWith rather than $set, which would merge the metadata into what is there.
    replaced = {"user_id": pseudonym, "has_image": False, "metadata": metadata}
    return [{"$replaceWith": {"$mergeObjects": ["$$ROOT", replaced]}}]
